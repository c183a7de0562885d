'use strict';

/**
 * The engine's tests under tools that watch memory and threads: `npm run sanitize`. No part of
 * `npm test`: it builds everything anew for each tool, and takes a good part of an hour.
 *
 *   address   AddressSanitizer with LeakSanitizer: reads and writes out of bounds or after a free,
 *             and what is never freed. Needs a nightly toolchain. The standard library itself is not
 *             watched, but what it allocates for us is.
 *   valgrind  Memcheck: the same and uses of what was never written, the standard library included.
 *             Needs valgrind. Slow, so it runs the tests named below.
 *   thread    ThreadSanitizer: data races. Needs a nightly toolchain with `rust-src`, since a
 *             standard library that is not watched makes every mutex look like a race.
 *
 * Words after it name the tools to run; all of them unless there are any. What a tool lacks is said,
 * and is no failure. Prints the closing lines of each runner; all it said is in
 * target/sanitize/<tool>.log.
 */

const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const readline = require('node:readline');
const { ROOT } = require('./steps.js');

const HOST = 'x86_64-unknown-linux-gnu';
const FOLDER = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'sanitize');
const ENGINE = ['--no-default-features', '--no-fail-fast'];

/** Tests of threads, handles and everything that is allocated and let go of by hand or by others. */
const FOR_VALGRIND = ['clients', 'hostile', 'leases', 'planted', 'planted_journal', 'scopes', 'sets'];

/** Frames that are watched are several times as large, and paths as deep as any are tried. */
const STACK = String(256 * 1024 * 1024);

/** What an error, a race or a leak is told by, beside the end of each test file. */
const CLOSING = [
  /^\s+Running \S+/,
  /^test result: /,
  /^test .* FAILED$/,
  /^(==\d+==)?(ERROR|WARNING|SUMMARY): \w*Sanitizer/,
  /^==\d+==\s+(definitely lost|ERROR SUMMARY)/,
];

function answer(command, ...args) {
  const { status, stdout } = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

function whyNoNightly() {
  if (answer('rustc', '-vV')?.includes(`host: ${HOST}`) !== true) return `this is not ${HOST}`;
  return answer('rustc', '+nightly', '-V') === null ? 'no nightly toolchain is installed' : null;
}

function whyNoSources() {
  const sysroot = answer('rustc', '+nightly', '--print', 'sysroot');
  if (sysroot === null) return whyNoNightly();
  const library = path.join(sysroot, 'lib', 'rustlib', 'src', 'rust', 'library');
  if (fs.existsSync(library)) return null;
  return 'the nightly toolchain has no rust-src (`rustup component add rust-src`)';
}

function whyNoValgrind() {
  return answer('valgrind', '--version') === null ? 'valgrind is not installed' : null;
}

const TOOLS = {
  address: {
    whyNot: whyNoNightly,
    args: ['+nightly', 'test', ...ENGINE, '--target', HOST],
    env: {
      RUSTFLAGS: '-Zsanitizer=address -Cforce-frame-pointers=yes',
      ASAN_OPTIONS: 'detect_leaks=1',
      RUST_MIN_STACK: STACK,
    },
  },
  valgrind: {
    whyNot: whyNoValgrind,
    args: [
      'test',
      ...ENGINE,
      ...FOR_VALGRIND.flatMap((name) => ['--test', name]),
      '--',
      '--test-threads=1',
    ],
    env: {
      // Its own way to the clock is through a page of the kernel's that valgrind does not show.
      RUSTFLAGS: '--cfg=rustix_use_libc',
      CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER:
        'valgrind --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite',
      // The kernel hands a watched program its signals and time slices late.
      RUST_MIN_STACK: String(8 * 1024 * 1024),
    },
  },
  thread: {
    whyNot: () => whyNoNightly() ?? whyNoSources(),
    args: ['+nightly', 'test', ...ENGINE, '-Zbuild-std', '--target', HOST],
    env: { RUSTFLAGS: '-Zsanitizer=thread', RUST_MIN_STACK: STACK },
  },
};

/** Runs a tool; whether it found nothing. */
async function watch(name) {
  const { whyNot, args, env } = TOOLS[name];
  const reason = whyNot();
  console.log(`\n== ${name}`);
  if (reason !== null) {
    console.log(`skipped: ${reason}`);
    return true;
  }
  const shown = Object.entries(env).map(([key, value]) => `${key}='${value}'`);
  console.log(`${shown.join(' ')} cargo ${args.join(' ')}`);
  fs.mkdirSync(FOLDER, { recursive: true });
  const log = fs.createWriteStream(path.join(FOLDER, `${name}.log`));
  const began = Date.now();
  const child = spawn('cargo', args, {
    cwd: ROOT,
    env: { ...process.env, ...env, CARGO_TARGET_DIR: path.join(FOLDER, name) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [child.stdout, child.stderr]) {
    readline.createInterface({ input: stream }).on('line', (line) => {
      log.write(`${line}\n`);
      if (CLOSING.some((pattern) => pattern.test(line))) console.log(line);
    });
  }
  const code = await new Promise((resolve) => {
    child.once('error', () => resolve(-1));
    child.once('close', resolve);
  });
  log.end();
  const seconds = Math.round((Date.now() - began) / 1000);
  const verdict = code === 0 ? 'nothing found' : `FOUND SOMETHING (exit code ${code})`;
  console.log(`${name}: ${verdict} in ${seconds} s; all it said: ${log.path}`);
  return code === 0;
}

async function main() {
  const wanted = process.argv.slice(2);
  const unknown = wanted.filter((name) => !Object.hasOwn(TOOLS, name));
  if (unknown.length > 0) {
    console.error(`No such tool: ${unknown.join(', ')}. Known: ${Object.keys(TOOLS).join(', ')}.`);
    process.exit(2);
  }
  let isGood = true;
  for (const name of wanted.length > 0 ? wanted : Object.keys(TOOLS)) {
    isGood = (await watch(name)) && isGood;
  }
  process.exit(isGood ? 0 : 1);
}

main();
