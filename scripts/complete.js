'use strict';

/** Refuses to publish a package that lacks the addon of a platform which package.json promises. */

const fs = require('node:fs');
const path = require('node:path');
const { ROOT } = require('./steps.js');
const { napi } = require('../package.json');

const missing = napi.targets.map(addonOf).filter((name) => !fs.existsSync(path.join(ROOT, name)));
if (missing.length > 0) {
  console.error(`Not published. Missing: ${missing.join(', ')}.`);
  console.error('Publish from the release workflow, which builds them all.');
  process.exit(1);
}

/** The file that `napi build --platform` makes for a target triple. */
function addonOf(triple) {
  const [cpu, , system, abi] = triple.split('-');
  const arch = { x86_64: 'x64', aarch64: 'arm64' }[cpu];
  const platform = { linux: 'linux', darwin: 'darwin', windows: 'win32' }[system];
  return `${napi.binaryName}.${[platform, arch, abi].filter(Boolean).join('-')}.node`;
}
