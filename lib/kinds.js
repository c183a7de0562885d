'use strict';

/** Kinds of locks: exclusive or shared, of a path alone or of a folder with everything below it. */

const { absolute } = require('./paths.js');

/** The paths of these entries, and the kind in which each is asked for. */
function asked(entries, { mode = 'exclusive', recursive = false }) {
  return {
    paths: entries.map((entry) => entry.path),
    kinds: entries.map((entry) => ({
      mode: entry.mode ?? mode,
      recursive: entry.recursive ?? recursive,
    })),
  };
}

/** Whether the engine takes these for granted. */
function areUsual(kinds) {
  return kinds.every(({ mode, recursive }) => mode === 'exclusive' && !recursive);
}

/** The least kind that covers both. */
function joined(one, other) {
  return {
    mode: one.mode === 'shared' ? other.mode : one.mode,
    recursive: one.recursive || other.recursive,
  };
}

/** In which kind each of these locks was asked for: a path that is named twice has one lock. */
function kindsOf(locks, { paths, kinds }) {
  if (locks.length === kinds.length) return kinds;
  const byPath = new Map();
  for (const [i, path] of paths.entries()) {
    const named = absolute(path);
    byPath.set(named, byPath.has(named) ? joined(byPath.get(named), kinds[i]) : kinds[i]);
  }
  return locks.map(({ filePath }) => byPath.get(filePath) ?? kinds[0]);
}

module.exports = { asked, areUsual, joined, kindsOf };
