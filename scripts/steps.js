'use strict';

/**
 * The steps that `npm start` and `npm test` are made of.
 *
 * A step that fails ends the process with the step's own exit code, after a line that names it.
 * `install` and `build` do nothing when nothing has changed. They need Rust, Node.js and npm, and
 * nothing that is installed globally.
 */

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const ROOT = path.join(__dirname, '..');
const ADDON = `storylock.${process.platform}-${process.arch}`;
const GENERATED = ['native.js', 'native.d.ts'];
const SOURCES = ['Cargo.toml', 'Cargo.lock', 'build.rs', 'rust-toolchain.toml', 'src'];

function step(name, command, args) {
  console.log(`\n== ${name}`);
  const { status, signal, error } = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit' });
  if (status === 0) return;
  console.error(`\n${name} failed: ${reason(command, status, signal, error)}`);
  process.exit(status || 1);
}

function reason(command, status, signal, error) {
  if (error?.code === 'ENOENT') return `${command} is not on the PATH; ${remedy(command)}`;
  if (error) return error.message;
  return signal ? `ended by ${signal}` : `exit code ${status}`;
}

function remedy(command) {
  return command === 'cargo' ? 'install Rust from https://rustup.rs' : `install ${command}`;
}

function npm(name, args) {
  const cli = process.env.npm_execpath;
  if (cli?.endsWith('npm-cli.js')) step(name, process.execPath, [cli, ...args]);
  else step(name, 'npm', args);
}

/** Runs a command of an installed package; never downloads one. */
function tool(command, args = []) {
  npm(command, ['exec', '--no', '--', command, ...args]);
}

/** Puts into node_modules what package-lock.json says, unless it is there. */
function install() {
  if (!installed()) npm('npm ci', ['ci']);
}

function installed() {
  const wanted = readJson('package-lock.json')?.packages;
  const present = readJson('node_modules/.package-lock.json')?.packages;
  if (!wanted || !present) return false;
  return Object.entries(wanted).every(([place, { version, optional }]) => {
    if (place === '') return true;
    return place in present ? present[place].version === version : optional;
  });
}

/** Builds the addon and what is generated beside it, unless all of it is newer than its sources. */
function build() {
  const isCurrent = builtAt() > Math.max(...SOURCES.map(changedAt));
  if (!isCurrent) npm('napi build', ['run', '--silent', 'build']);
}

function builtAt() {
  const addons = fs.readdirSync(ROOT).filter((name) => {
    return name.startsWith(ADDON) && name.endsWith('.node');
  });
  if (addons.length === 0 || !GENERATED.every((name) => changedAt(name) > 0)) return 0;
  return Math.max(...addons.map(changedAt));
}

function changedAt(name) {
  const place = path.join(ROOT, name);
  const stat = fs.statSync(place, { throwIfNoEntry: false });
  if (!stat) return 0;
  if (!stat.isDirectory()) return stat.mtimeMs;
  const inside = fs.readdirSync(place).map((entry) => changedAt(path.join(name, entry)));
  return Math.max(stat.mtimeMs, ...inside);
}

function readJson(name) {
  try {
    return JSON.parse(fs.readFileSync(path.join(ROOT, name), 'utf8'));
  } catch {
    return null;
  }
}

module.exports = { ROOT, GENERATED, step, tool, install, build };
