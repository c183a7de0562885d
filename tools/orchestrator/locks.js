#!/usr/bin/env node
'use strict';

/**
 * The drop-in for the plain-JavaScript module of this path, and storylock's command line.
 *
 * Promises: `require` gives `{ LockManager, lockManager }` and loads nothing of the command line;
 * run as a program, here or as `npx storylock`, it is the command line and throws nothing, whatever
 * fails.
 *
 * The ready instance serves the project that one stands in; from a folder that belongs to no
 * project it serves the project that this file stands in, if that is one (lib/cli/project.js).
 */

/** What this module exports. */
function face() {
  const { LockManager, lockManager } = require('../../index.js');
  const { servedProject } = require('../../lib/cli/project.js');
  const root = servedProject(__dirname);
  return { LockManager, lockManager: root === null ? lockManager : new LockManager({ root }) };
}

if (require.main === module) {
  const { main } = require('../../lib/cli/program.js');
  main(process.argv.slice(2), face).then((code) => {
    process.exitCode = code;
  });
} else {
  const { LockManager, lockManager } = face();
  module.exports = { LockManager, lockManager };
}
