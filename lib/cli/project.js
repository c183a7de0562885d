'use strict';

/**
 * Which project the drop-in serves when the folder one stands in does not say.
 *
 * An orchestrator's service may be started from `/` or from a scratch folder, and still means the
 * project that its locks.js belongs to. The working directory goes first wherever it says anything:
 * so a copy shared by several projects serves each of them. A copy that npm installed stands in no
 * project of its own.
 */

const fs = require('node:fs');
const path = require('node:path');

const MARKERS = ['.ai', '.git', 'package.json'];

/** The nearest folder, this one or one above it, that has one of these in it; null if none has. */
function nearestWith(names, folder) {
  for (let at = folder; ; at = path.dirname(at)) {
    if (names.some((name) => fs.existsSync(path.join(at, name)))) return at;
    if (at === path.dirname(at)) return null;
  }
}

/** Null when it has been removed. */
function workingFolder() {
  try {
    return process.cwd();
  } catch {
    return null;
  }
}

/** The project with `.ai` that `folder` stands in; null where the caller stands in one. */
function servedProject(folder) {
  if (process.env.STORYLOCK_ROOT || folder.split(path.sep).includes('node_modules')) return null;
  const here = workingFolder();
  if (here !== null && nearestWith(MARKERS, here) !== null) return null;
  return nearestWith(['.ai'], folder);
}

module.exports = { servedProject };
