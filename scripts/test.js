'use strict';

/**
 * Everything that must hold before a change lands: `npm test`, here and in CI alike.
 *
 * Stops at the first step that fails, says which one it was, and exits with its code.
 */

const fs = require('node:fs');
const path = require('node:path');
const { ROOT, GENERATED, step, tool, install, build } = require('./steps.js');

const ALONE = '--no-default-features';
const DENY = ['--', '-D', 'warnings'];
const began = Date.now();

install();
step('cargo fmt', 'cargo', ['fmt', '--check']);
step('clippy, the engine alone', 'cargo', ['clippy', '--all-targets', ALONE, ...DENY]);
step('clippy, with Node.js', 'cargo', ['clippy', '--all-targets', ...DENY]);
step('cargo test, the engine alone', 'cargo', ['test', ALONE]);
// The engine is the same with Node.js; what is beside it is tested by Jest.
step('cargo test, with Node.js', 'cargo', ['test', '--lib']);
build();
if (fs.existsSync(path.join(ROOT, '.git'))) {
  const diff = ['--no-pager', 'diff', '--exit-code', '--', ...GENERATED];
  step('what is generated is staged or committed', 'git', diff);
}
tool('jest');
tool('tsc', ['-p', '.']);

console.log(`\nEverything passed in ${Math.round((Date.now() - began) / 1000)} s.`);
