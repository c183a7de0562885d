'use strict';

/**
 * Readers, folders, patterns and names on the command line, as real processes; on a pseudo-terminal
 * where a person is meant.
 */

const fs = require('node:fs');
const path = require('node:path');

const { LockManager } = require('..');
const shell = require('./fixtures/cli-shell.js');

const { onTerminal, project, start, storylock, until } = shell;

let root;
const { answerOf, refusalOf, holderOf, isFree } = shell.commandsIn(() => root);
beforeEach(() => {
  root = project();
});
afterEach(shell.cleanUp);

const inProject = (...names) => path.join(root, ...names);

function files(...names) {
  for (const name of names) {
    fs.mkdirSync(path.dirname(inProject(name)), { recursive: true });
    fs.writeFileSync(inProject(name), '');
  }
}

/** Waits until so many stand in line. */
async function inLine(count) {
  const manager = new LockManager({ root });
  await until(() => manager.status(), ({ waiting }) => waiting.length === count);
  await manager.close();
}

const namesOf = (locks) => locks.map(({ filePath }) => path.relative(root, filePath));

describe('--shared', () => {
  test('lets stories read side by side, and keeps a writer out', async () => {
    const first = await answerOf('acquire', '--shared', 'src/app.js', 'AH-1');
    expect(first).toMatchObject({ mode: 'shared', recursive: false });
    await answerOf('acquire', '--shared', 'src/app.js', 'AH-2');
    expect(await refusalOf(1, 'acquire', 'src/app.js', 'AH-3')).toContain('is locked by AH-1');
    expect(await holderOf('src/app.js')).toMatchObject({
      storyId: 'AH-1',
      others: [{ storyId: 'AH-2', mode: 'shared' }],
    });
    await answerOf('release', 'src/app.js', 'AH-1');
    expect(await holderOf('src/app.js')).toMatchObject({ storyId: 'AH-2', others: [] });
  });

  test('runs commands of readers at the same time', async () => {
    const run = (story) => ['run', '--story', story, '--shared', 'src/app.js', '--', 'cat'];
    const readers = ['AH-1', 'AH-2'].map((story) => start(run(story), { cwd: root }));
    await until(() => holderOf('src/app.js'), (holder) => holder?.others.length === 1);
    for (const reader of readers) reader.child.stdin.end();
    for (const reader of readers) expect(await reader.ended).toMatchObject({ code: 0, stderr: '' });
    expect(await isFree('src/app.js')).toBe(true);
  });
});

describe('--recursive', () => {
  test('locks a folder with everything below it', async () => {
    const lock = await answerOf('acquire', '--recursive', 'src', 'AH-1');
    expect(lock).toMatchObject({ filePath: inProject('src'), recursive: true });
    expect(await refusalOf(1, 'acquire', 'src/new/file.js', 'AH-2')).toContain('locked by AH-1');
    expect(await holderOf('src/new/file.js')).toMatchObject({ filePath: inProject('src') });
    expect((await answerOf('acquire', 'src2', 'AH-2')).recursive).toBe(false);
  });

  test('holds it while a command runs', async () => {
    const check = [process.execPath, shell.PROGRAM, 'check', 'src/deep/file.js'];
    const run = ['run', '--story', 'AH-1', '--recursive', 'src', '--', ...check];
    const { code, stdout } = await storylock(run, { cwd: root });
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ storyId: 'AH-1', recursive: true });
    expect(await isFree('src')).toBe(true);
  });

  test('refuses a folder in the place of the story', async () => {
    fs.mkdirSync(inProject('lib'));
    const told = await refusalOf(2, 'acquire', '--recursive', 'src', 'lib');
    expect(told).toContain('acquire --recursive --story <id> src lib');
    expect(fs.readdirSync(inProject('.ai'))).toEqual([]);
  });
});

describe('--glob', () => {
  beforeEach(() => files('src/a.js', 'src/deep/b.js', 'src/generated/c.js', 'lib/d.js'));

  test('locks the files that match, and answers a list for any number of them', async () => {
    const patterns = ['src/**/*.js', '!src/generated/**'];
    const locks = await answerOf('acquire', '--glob', '--story', 'AH-1', ...patterns);
    expect(namesOf(locks)).toEqual(['src/a.js', 'src/app.js', 'src/deep/b.js']);
    expect(await isFree('src/generated/c.js')).toBe(true);
    const [one] = await answerOf('acquire', '--glob', 'lib/*', 'AH-2');
    expect(namesOf([one])).toEqual(['lib/d.js']);
  });

  test('takes folders with --recursive', async () => {
    const locks = await answerOf('acquire', '--glob', '--recursive', '{src,lib}', 'AH-1');
    expect(namesOf(locks)).toEqual(['lib', 'src']);
    expect(await isFree('lib/new.js')).toBe(false);
  });

  test('holds what matches while a command runs', async () => {
    const check = [process.execPath, shell.PROGRAM, 'check', 'lib/d.js'];
    const run = ['run', '--story', 'AH-1', '--glob', 'lib/*', '--', ...check];
    expect(await storylock(run, { cwd: root })).toMatchObject({ code: 1, stderr: '' });
    expect(await isFree('lib/d.js')).toBe(true);
  });

  test('refuses a pattern that nothing matches, and does not run the command', async () => {
    const told = await refusalOf(1, 'acquire', '--glob', '--story', 'AH-1', 'lib/*', 'lib/*.rs');
    expect(told).toMatch(/^storylock: Nothing in .* matches lib\/\*\.rs\. /);
    expect(await isFree('lib/d.js')).toBe(true);
    await refusalOf(1, 'run', '--story', 'AH-1', '--glob', '*.rs', '--', 'touch', 'ran');
    expect(fs.existsSync(inProject('ran'))).toBe(false);
  });

  test('refuses a pattern in the place of the story', async () => {
    const told = await refusalOf(2, 'acquire', '--glob', 'lib/*', 'src/*');
    expect(told).toContain('acquire --glob --story <id> lib/* src/*');
    expect(fs.readdirSync(inProject('.ai'))).toEqual([]);
  });

  test('is asked for: a star is a star without it', async () => {
    expect(namesOf([await answerOf('acquire', 'lib/*', 'AH-1')])).toEqual(['lib/*']);
  });
});

describe('names', () => {
  test('are locked from every folder, and are no story', async () => {
    const lock = await answerOf('acquire', '@git/index', 'AH-1');
    expect(lock.filePath).toBe('@git/index');
    const { code, stdout } = await storylock(['check', '@git/index'], { cwd: inProject('src') });
    expect([code, JSON.parse(stdout).storyId]).toEqual([1, 'AH-1']);
    expect(await refusalOf(2, 'acquire', 'src/app.js', '@git/index')).toContain('--story <id>');
    expect(await answerOf('release', '@git/index', 'AH-1')).toBe(true);
    expect(await isFree('@git/index')).toBe(true);
  });

  test('are held for a command, in turn', async () => {
    await answerOf('acquire', '@git/index', 'AH-1');
    const run = ['run', '--story', 'AH-2', '--wait', '@git/index', '--', 'echo', 'ran'];
    const waiter = start(run, { cwd: root });
    await inLine(1);
    await answerOf('release', '@git/index', 'AH-1');
    expect(await waiter.ended).toMatchObject({ code: 0, stdout: 'ran\n', stderr: '' });
  });

  test('that are none, and patches of names, are not understood', async () => {
    const none = [['acquire', '@', 'AH-1'], ['check', '@git/../x'], ['release', '@a//b', 'AH-1']];
    for (const args of none) await refusalOf(2, ...args);
    expect(await refusalOf(2, 'patch', '--story', 'AH-1', '@git/index')).toContain('./@git/index');
    expect(fs.readdirSync(inProject('.ai'))).toEqual([]);
  });
});

describe('on a terminal', () => {
  const said = async (...args) => (await onTerminal(args, { cwd: root, columns: 400 })).screen;

  test('status shows folders, readers and names, held and waited for', async () => {
    await answerOf('acquire', '--recursive', 'src', 'AH-1', '--timeout', '600000');
    await answerOf('acquire', '--shared', 'lib', 'AH-2', '--timeout', '600000');
    await answerOf('acquire', '--shared', '--recursive', '@port', 'AH-3', '--timeout', '600000');
    start(['acquire', '--wait', '--shared', 'src/app.js', 'AH-4'], { cwd: root });
    await inLine(1);
    start(['acquire', '--wait', '--recursive', 'src', 'AH-5'], { cwd: root });
    await inLine(2);
    const [locks, lines] = (await said('status')).split('\n\n').map((part) => part.split('\n'));
    expect(locks.slice(1).sort()).toEqual([
      expect.stringMatching(/^@port\/ and all below, shared +AH-3 .* held$/),
      expect.stringMatching(/^lib, shared +AH-2 .* held$/),
      expect.stringMatching(/^src\/ and all below +AH-1 .* held$/),
    ]);
    expect(lines.slice(1).sort()).toEqual([
      expect.stringMatching(/^src\/ and all below +1 +AH-5 .* AH-1 +10 min$/),
      expect.stringMatching(/^src\/app\.js, shared +1 +AH-4 .* AH-1 +10 min$/),
    ]);
  });

  test('status tells who keeps a folder from who waits for it', async () => {
    await answerOf('acquire', 'src/deep/b.js', 'AH-1', '--timeout', '600000');
    start(['acquire', '--wait', '--recursive', 'src', 'AH-2'], { cwd: root });
    await inLine(1);
    expect(await said('status')).toMatch(/\nsrc\/ and all below +1 +AH-2 .* AH-1 +10 min\n/);
  });

  test('status names another reader to one that waits to write', async () => {
    const manager = new LockManager({ root });
    const shared = { mode: 'shared', timeout: Infinity };
    const lock = await manager.acquire(inProject('a'), 'AH-1', shared);
    await manager.acquire(inProject('a'), 'AH-2', shared);
    const raised = lock.upgrade({ wait: Infinity });
    await inLine(1);
    expect(await said('status')).toMatch(/\na +1 +AH-1 .* AH-2 +while held\n/);
    await manager.release(inProject('a'), 'AH-2');
    await raised;
    await manager.close();
  });

  test('check names all readers, and the folder that a path lies in', async () => {
    await answerOf('acquire', '--shared', 'a', 'AH-1');
    await answerOf('acquire', '--shared', 'a', 'AH-2');
    expect(await said('check', 'a')).toMatch(
      /^a is locked by AH-1 \(shared, taken on .*\) and AH-2 \(shared, taken on .*\)\.$/,
    );
    await answerOf('acquire', '--recursive', 'src', 'AH-1');
    expect(await said('check', 'src/app.js')).toMatch(
      /^src\/app\.js is locked by AH-1 \(has src\/ and all below, taken on the command line, /,
    );
  });

  test('check counts who waits for a path, not for others in its folder', async () => {
    await answerOf('acquire', '--recursive', 'src', 'AH-1');
    start(['acquire', '--wait', 'src/app.js', 'AH-2'], { cwd: root });
    await inLine(1);
    start(['acquire', '--wait', 'src/util.js', 'AH-3'], { cwd: root });
    await inLine(2);
    expect(await said('check', 'src/app.js')).toMatch(/ 1 waits for it\.$/);
    expect(await said('check', 'src/other.js')).toMatch(/ in \d+ s\)\.$/);
    expect(await said('check', 'src')).toMatch(/ 2 wait for it\.$/);
  });

  test('acquire says what kind of lock it is', async () => {
    const end = 'for AH-1: the lease ends in 30 s.';
    expect(await said('acquire', '--recursive', 'src', 'AH-1')).toBe(
      `Locked src/ and all below ${end}`,
    );
    expect(await said('acquire', '--shared', '@port/3000', 'AH-1')).toBe(
      `Locked @port/3000, shared ${end}`,
    );
    expect(await said('release', '--story', 'AH-1', 'src', '@port/3000')).toBe(
      'Released src, @port/3000.',
    );
  });

  test('a name is said as it is, from every folder', async () => {
    await answerOf('acquire', '@git/index', 'AH-1');
    for (const cwd of [root, inProject('src')]) {
      const { screen } = await onTerminal(['status'], { cwd });
      expect(screen).toMatch(/\n@git\/index +AH-1 /);
    }
  });

  test('a wait for a folder names who is in it', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000');
    const waiter = shell.startOnTerminal(
      ['acquire', '--wait', '--recursive', 'src', 'AH-2'],
      { cwd: root },
    );
    await waiter.says(/for AH-1 \(place 1, lease ends in 10 min\): src\/ and all below/);
  });
});
