'use strict';

/**
 * What callers name: paths, names of things that are no files, and patterns.
 *
 * Promises: what begins with `@` is a name, here as everywhere, and never a path or a pattern; a
 * pattern stands for files that exist when it is looked at, and one that stands for none is
 * refused, by its words. Nothing is locked here: a file made after the look is not among them.
 */

const fs = require('node:fs/promises');
const path = require('node:path');
const { LockError, invalidValue } = require('./errors.js');

/** Whether it names a thing that is no file, as `@git/index`; `./@git/index` is a file. */
function isName(text) {
  return text.startsWith('@');
}

/** A path as the engine knows it: absolute, or a name as it is. */
function absolute(text) {
  return isName(text) ? text : path.resolve(text);
}

/**
 * Each of these strings and objects as an object with its path; with `glob`, strings are patterns.
 * Rejects for a pattern that nothing matches.
 */
async function entriesOf(wanted, { glob = false, recursive = false }, storyId) {
  const entryOf = (one) => (typeof one === 'string' ? { path: one } : one);
  if (!glob) return wanted.map(entryOf);
  const ignore = wanted.filter(isExclusion).map((pattern) => pattern.slice(1));
  const look = { cwd: process.cwd(), isFolderToo: recursive, ignore, storyId };
  const found = [];
  for (const one of wanted.filter((each) => !isExclusion(each))) {
    if (typeof one === 'string' && !isName(one)) found.push(...(await matchesOf(one, look)));
    else found.push(entryOf(one));
  }
  return found;
}

/** `!src/generated/**`; `!(a|b)` is a pattern like any other. */
function isExclusion(one) {
  return typeof one === 'string' && one.startsWith('!') && one[1] !== '(';
}

/**
 * What matches a pattern, in the order of the names: files, and where folders are meant too, these
 * for all that lies in them. A link counts as the file that it leads to; no folder is looked into
 * through a link that the pattern does not name.
 */
async function matchesOf(pattern, { cwd, isFolderToo, ignore, storyId }) {
  if (pattern === '') throw invalidValue('paths', 'must not have an empty pattern in it.');
  // Loaded when it is needed: most who load storylock ask for no pattern.
  const { glob, Ignore } = require('glob');
  const left = new Ignore(ignore, {});
  const isLeft = (one) => left.ignored(one);
  const isShut = (one) => one.isSymbolicLink() || left.childrenIgnored(one);
  const omit = { ignored: isLeft, childrenIgnored: isShut };
  const found = [];
  for (const match of await glob(pattern, { cwd, ignore: omit, withFileTypes: true })) {
    const isLink = match.isSymbolicLink();
    const recursive = isFolderToo && match.isDirectory();
    const isFile = isLink ? await leadsToFile(match.fullpath()) : match.isFile();
    if (recursive || isFile) found.push({ path: match.fullpath(), recursive, isLink });
  }
  if (found.length === 0) throw nothingMatches(pattern, cwd, storyId);
  return withoutCovered(found);
}

/** In order, and without what a folder among them covers: a link may lead out of it. */
function withoutCovered(found) {
  const nameOf = ({ path: name, recursive }) => (recursive ? path.join(name, path.sep) : name);
  const entries = [];
  let folder = null;
  for (const entry of found.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))) {
    if (folder !== null && entry.path.startsWith(folder) && !entry.isLink) continue;
    if (entry.recursive) folder = nameOf(entry);
    entries.push({ path: entry.path, recursive: entry.recursive });
  }
  return entries;
}

async function leadsToFile(link) {
  const stat = await fs.stat(link).catch(() => null);
  return stat?.isFile() ?? false;
}

function nothingMatches(pattern, cwd, storyId) {
  const hint =
    'A pattern stands for files that exist: correct it, or name a file that is yet to be made ' +
    'by its path alone.';
  const message = `Nothing in ${cwd} matches ${pattern}. ${hint}`;
  return new LockError(message, { code: 'ENOENT', path: pattern, storyId, hint });
}

module.exports = { isName, absolute, entriesOf };
