'use strict';

/**
 * The ground of a run: a copy of a real source tree, and folders for what is measured beside it.
 *
 * The targets are the files that the stories fight over: few enough to overlap all the time, spread
 * over the tree, always the same ones for the same tree.
 */

const fs = require('node:fs');
const path = require('node:path');
const { commentOf } = require('./edit.js');

const PROJECT = path.join(__dirname, '..', '..');
const SOURCES = ['src', 'lib', 'tools', 'docs', 'tests', '__test__', 'examples', 'scripts'];
const TARGETS = 12;

/** Copies the tree below `place` and keeps what the targets hold before anyone edits them. */
function plant(place) {
  const tree = path.join(place, 'tree');
  for (const name of SOURCES) {
    const from = path.join(PROJECT, name);
    if (fs.existsSync(from)) fs.cpSync(from, path.join(tree, name), { recursive: true });
  }
  const folders = Object.fromEntries(['journals', 'markers', 'kills'].map((name) => {
    const folder = path.join(place, name);
    fs.mkdirSync(folder);
    return [name, folder];
  }));
  const files = filesIn(tree);
  const targets = spread(files.filter(commentOf), TARGETS);
  const originals = new Map(targets.map((file) => {
    return [file, fs.readFileSync(path.join(tree, file), 'utf8')];
  }));
  return { tree, ...folders, files: files.length, targets, originals };
}

function filesIn(tree) {
  return fs.readdirSync(tree, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(tree, path.join(entry.parentPath ?? entry.path, entry.name)))
    .sort();
}

function spread(files, count) {
  if (files.length <= count) return files;
  return Array.from({ length: count }, (_, i) => files[Math.floor((i * files.length) / count)]);
}

module.exports = { plant };
