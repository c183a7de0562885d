'use strict';

/** `storylock force-release`: an operator takes a path from its holder. Real processes. */

const fs = require('node:fs');
const path = require('node:path');

const shell = require('./fixtures/cli-shell.js');

const { onTerminal, project, start, storylock, until } = shell;

const BY = ['--by', 'ops', '--reason', 'AH-1 hangs'];
const FORCE = ['force-release', ...BY];

let root;
const { answerOf, refusalOf, holderOf, isFree } = shell.commandsIn(() => root);
beforeEach(() => {
  root = project();
});
afterEach(shell.cleanUp);

/** A command that holds src/app.js for AH-1 until it is told to end. */
async function held() {
  const run = ['run', '--story', 'AH-1', 'src/app.js', '--', 'sh', '-c', 'echo on; read end'];
  const running = start(run, { cwd: root });
  await running.says(/on\n/);
  return running;
}

test('frees the path and answers whose it was, as the JavaScript call does', async () => {
  const running = await held();
  const freed = await answerOf(...FORCE, 'src/app.js');
  expect(freed).toEqual({
    removed: [expect.objectContaining({ storyId: 'AH-1', pid: running.child.pid, timeout: null })],
    next: [],
    dryRun: false,
  });
  expect(await isFree('src/app.js')).toBe(true);
});

test('the run that held it is told by whom and why, and is no success', async () => {
  const running = await held();
  await answerOf(...FORCE, 'src/app.js');
  await until(() => running.stderr, (told) => told.endsWith('\n'));
  expect(running.stderr).toMatch(/^storylock: .*src\/app\.js.*ops.*AH-1 hangs.* runs on without /);
  running.child.stdin.write('end\n');
  expect((await running.ended).code).toBe(1);
});

test('the next in line goes on', async () => {
  await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000');
  const waiter = start(['acquire', '--wait', 'src/app.js', 'AH-2'], { cwd: root });
  await until(() => answerOf('status'), ({ waiting }) => waiting.length === 1);
  const { next } = await answerOf(...FORCE, 'src/app.js');
  expect(next).toMatchObject([{ storyId: 'AH-2', place: 1 }]);
  expect(JSON.parse((await waiter.ended).stdout)).toMatchObject({ storyId: 'AH-2' });
});

test('--dry-run tells what would happen and changes nothing', async () => {
  const lock = await answerOf('acquire', 'src/app.js', 'AH-1');
  const dry = await answerOf(...FORCE, '--dry-run', 'src/app.js');
  expect(dry).toMatchObject({ removed: [{ lockId: lock.lockId }], dryRun: true });
  expect(await holderOf('src/app.js')).toMatchObject({ lockId: lock.lockId });
  expect(fs.existsSync(path.join(root, '.ai', 'locks', 'forced'))).toBe(false);
});

test('--story takes it from that reader alone', async () => {
  for (const story of ['AH-1', 'AH-2']) await answerOf('acquire', '--shared', 'a', story);
  const { removed } = await answerOf(...FORCE, '--story', 'AH-1', 'a');
  expect(removed.map(({ storyId }) => storyId)).toEqual(['AH-1']);
  expect(await holderOf('a')).toMatchObject({ storyId: 'AH-2', others: [] });
});

test('a free path is done, with nobody removed', async () => {
  expect(await answerOf(...FORCE, 'src/app.js')).toEqual({ removed: [], next: [], dryRun: false });
});

test('a path in a folder that is locked is refused, and the folder is named', async () => {
  await answerOf('acquire', '--recursive', 'src', 'AH-1');
  const told = await refusalOf(1, ...FORCE, 'src/app.js');
  expect(told).toMatch(/^storylock: .*\bsrc\b.*AH-1/);
  expect(await isFree('src/app.js')).toBe(false);
});

test.each([
  ['who', ['force-release', '--reason', 'stuck', 'a']],
  ['why', ['force-release', '--by', 'ops', 'a']],
  ['a path', ['force-release', '--by', 'ops', '--reason', 'stuck']],
  ['one path', ['force-release', '--by', 'ops', '--reason', 'stuck', 'a', 'b']],
  ['who, in words', ['force-release', '--by', ' ', '--reason', 'stuck', 'a']],
  ['why, in words', ['force-release', '--by', 'ops', '--reason', '', 'a']],
])('%s must be said', async (_, args) => {
  const told = await refusalOf(2, ...args);
  for (const line of told.trimEnd().split('\n')) expect(line).toMatch(/^storylock: \S/);
  expect(fs.readdirSync(path.join(root, '.ai'))).toEqual([]);
});

test('on a terminal it is a sentence', async () => {
  const said = async (...args) => (await onTerminal(args, { cwd: root, columns: 400 })).screen;
  await answerOf('acquire', 'src/app.js', 'AH-1');
  const from = 'src/app.js from AH-1 (taken on the command line)';
  expect(await said(...FORCE, '--dry-run', 'src/app.js')).toBe(`Would take ${from}.`);
  start(['acquire', '--wait', 'src/app.js', 'AH-2'], { cwd: root });
  await until(() => answerOf('status'), ({ waiting }) => waiting.length === 1);
  expect(await said(...FORCE, 'src/app.js')).toBe(`Took ${from}. Next in line: AH-2.`);
  expect(await said(...FORCE, 'b')).toBe('b is free: there is nothing to take.');
});

test('its help has the options and an example', async () => {
  const { code, stdout } = await storylock(['force-release', '--help'], { cwd: root });
  expect(code).toBe(0);
  for (const word of ['--by <name>', '--reason <text>', '--story <id>', '--dry-run', '--json']) {
    expect(stdout).toContain(word);
  }
  expect(stdout).toMatch(/Examples:\n  storylock force-release /);
});
