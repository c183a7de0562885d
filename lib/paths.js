'use strict';

/**
 * What callers name: paths, names of things that are no files, and patterns.
 *
 * Promises: what begins with `@` is a name, here as everywhere, and never a path or a pattern; a
 * pattern stands for files that exist when it is looked at, and one that stands for none is
 * refused, by its words. Nothing is locked here: a file made after the look is not among them.
 */

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
 * for all that lies in them.
 */
async function matchesOf(pattern, { cwd, isFolderToo, ignore, storyId }) {
  if (pattern === '') throw invalidValue('paths', 'must not have an empty pattern in it.');
  // Loaded when it is needed: most who load storylock ask for no pattern.
  const { glob } = require('tinyglobby');
  const kinds = { expandDirectories: false, onlyFiles: !isFolderToo };
  const entries = [];
  let folder = null;
  const matches = await glob(pattern, { cwd, ignore, absolute: true, ...kinds });
  for (const match of matches.sort()) {
    if (folder !== null && match.startsWith(folder)) continue;
    if (match.endsWith('/')) folder = match;
    entries.push({ path: path.resolve(cwd, match), recursive: match.endsWith('/') });
  }
  if (entries.length === 0) throw nothingMatches(pattern, cwd, storyId);
  return entries;
}

function nothingMatches(pattern, cwd, storyId) {
  const hint =
    'A pattern stands for files that exist: correct it, or name a file that is yet to be made ' +
    'by its path alone.';
  const message = `Nothing in ${cwd} matches ${pattern}. ${hint}`;
  return new LockError(message, { code: 'ENOENT', path: pattern, storyId, hint });
}

module.exports = { isName, absolute, entriesOf };
