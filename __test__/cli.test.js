'use strict';

/** The command line, as real processes in a scratch project. `run` has a file of its own. */

const { spawn } = require('node:child_process');
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const widthOf = require('string-width');

const shell = require('./fixtures/cli-shell.js');

const { PROGRAM, onTerminal, project, storylock, until } = shell;

const MORE = ['force-release', 'run'];

let root;
const { answerOf, refusalOf, isFree } = shell.commandsIn(() => root);
beforeEach(() => {
  root = project();
});
afterEach(shell.cleanUp);

const inProject = (...names) => path.join(root, ...names);

describe('the words of the module that this one replaces', () => {
  test('acquire <file> [story] locks the file for the story and answers its lock', async () => {
    const before = Date.now();
    const lock = await answerOf('acquire', 'src/app.js', 'AH-1');
    expect(lock).toMatchObject({
      storyId: 'AH-1',
      filePath: inProject('src', 'app.js'),
      timeout: 30_000,
      pid: expect.any(Number),
    });
    expect(lock.lockId.startsWith('AH-1')).toBe(true);
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(before);
  });

  test('release <file> [story] frees it, and is done when nothing was locked', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    expect(await answerOf('release', 'src/app.js', 'AH-1')).toBe(true);
    expect(await isFree('src/app.js')).toBe(true);
    expect(await answerOf('release', 'src/app.js', 'AH-1')).toBe(true);
  });

  test('the story is cli-session for acquire and release unless said', async () => {
    expect(await answerOf('acquire', 'src/app.js')).toMatchObject({ storyId: 'cli-session' });
    expect(await refusalOf(1, 'release', 'src/app.js', 'AH-1')).toContain(
      'owned by cli-session, not AH-1',
    );
    expect(await answerOf('release', 'src/app.js')).toBe(true);
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('status answers what is held, in the old shape', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const status = await answerOf('status');
    expect(status).toMatchObject({
      totalLocks: 1,
      staleLocks: 0,
      lockDirectory: inProject('.ai', 'locks'),
      activeLocks: [
        { storyId: 'AH-1', filePath: inProject('src', 'app.js'), isStale: false },
      ],
    });
    expect(status.activeLocks[0].age).toBeGreaterThanOrEqual(0);
    expect(fs.existsSync(status.activeLocks[0].lockFile)).toBe(true);
    expect(Number.isNaN(Date.parse(status.timestamp))).toBe(false);
  });

  test('cleanup <story> frees all that the story has and answers how many', async () => {
    await answerOf('acquire', 'a', 'AH-1');
    await answerOf('acquire', 'b', 'AH-1');
    await answerOf('acquire', 'c', 'AH-2');
    expect(await answerOf('cleanup', 'AH-1')).toBe(2);
    const { activeLocks } = await answerOf('status');
    expect(activeLocks.map((lock) => lock.storyId)).toEqual(['AH-2']);
  });

  test('a lock of another story is refused with exit 1 and "is locked by"', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const told = await refusalOf(1, 'acquire', 'src/app.js', 'AH-2');
    expect(told).toMatch(/^storylock: src\/app\.js is locked by AH-1 \(/);
    expect(told).toContain('storylock check');
  });

  test('the same story again is told of the lock that it has', async () => {
    const first = await answerOf('acquire', 'src/app.js', 'AH-1');
    const second = await answerOf('acquire', 'src/app.js', 'AH-1');
    expect(second.lockId).toBe(first.lockId);
  });

  test('usage is printed, on stderr with exit 2, when no command is given', async () => {
    const told = await refusalOf(2);
    expect(told).toMatch(/^Usage: storylock /);
    for (const command of ['acquire', 'release', 'renew', 'check', 'status', 'cleanup', ...MORE]) {
      expect(told).toContain(`\n  ${command} `);
    }
  });

  test('a lock file that the old module wrote is shown, honoured and released', async () => {
    const filePath = inProject('src', 'app.js');
    const key = createHash('sha256').update(filePath).digest('hex');
    const acquiredAt = Date.now();
    const timeout = 600_000;
    const old = { lockId: 'AH-1-x', storyId: 'AH-1', filePath, acquiredAt, timeout, pid: 1 };
    fs.mkdirSync(inProject('.ai', 'locks'), { recursive: true });
    fs.writeFileSync(inProject('.ai', 'locks', `${key}.lock`), JSON.stringify(old));
    expect((await answerOf('status')).activeLocks).toMatchObject([old]);
    await refusalOf(1, 'acquire', 'src/app.js', 'AH-2');
    expect(await answerOf('release', 'src/app.js', 'AH-1')).toBe(true);
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('the project is found from a subfolder', async () => {
    const cwd = inProject('src');
    const { stdout } = await storylock(['acquire', 'app.js', 'AH-1'], { cwd });
    expect(JSON.parse(stdout).filePath).toBe(inProject('src', 'app.js'));
    expect((await answerOf('status')).totalLocks).toBe(1);
    expect(fs.existsSync(inProject('src', '.ai'))).toBe(false);
  });
});

describe('the defects of that module', () => {
  test('acquire returns at once, and its lock lives on for its timeout', async () => {
    const lock = await answerOf('acquire', 'src/app.js', 'AH-1');
    expect(Date.now()).toBeLessThan(lock.expiresAt);
    expect(await isFree('src/app.js')).toBe(false);
    const short = await answerOf('renew', 'src/app.js', 'AH-1', '--timeout', '300');
    await until(() => isFree('src/app.js'), Boolean);
    expect(Date.now()).toBeGreaterThanOrEqual(short.expiresAt);
  });

  test('the state file shows the locks of every process', async () => {
    await answerOf('acquire', 'a', 'AH-1');
    await answerOf('acquire', 'b', 'AH-2');
    const view = JSON.parse(fs.readFileSync(inProject('.ai', 'progress', 'locks.json'), 'utf8'));
    expect(view.activeLocks.map((lock) => lock.storyId).sort()).toEqual(['AH-1', 'AH-2']);
  });

  test('stdout carries the answer alone, even when it is an error or a refusal', async () => {
    fs.rmSync(inProject('.ai'), { recursive: true });
    fs.writeFileSync(inProject('.ai'), 'in the way');
    const options = { cwd: root, env: { STORYLOCK_ROOT: root } };
    const status = await storylock(['status'], options);
    expect(JSON.parse(status.stdout)).toMatchObject({ activeLocks: [], error: expect.any(String) });
    expect(status).toMatchObject({ code: 1, stderr: expect.stringMatching(/^storylock: /) });
    const acquired = await storylock(['acquire', 'a', 'AH-1'], options);
    expect(acquired).toMatchObject({ code: 1, stdout: '' });
    expect(acquired.stderr).toContain(inProject('.ai'));
  });

  test('a contender cannot shorten a live lock with a timeout of its own', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    await refusalOf(1, 'acquire', 'src/app.js', 'AH-2', '--timeout', '1');
    await refusalOf(1, 'renew', 'src/app.js', 'AH-2', '--timeout', '1');
  });

  test('renew begins the lease anew, with its own length unless said', async () => {
    const lock = await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '60000');
    const same = await answerOf('renew', 'src/app.js', 'AH-1');
    expect(same).toMatchObject({ lockId: lock.lockId, timeout: 60_000 });
    expect(same.expiresAt).toBeGreaterThan(lock.expiresAt);
    const longer = await answerOf('renew', 'src/app.js', 'AH-1', '--timeout', '600000');
    expect(longer).toMatchObject({ lockId: lock.lockId, timeout: 600_000 });
    expect(await refusalOf(1, 'renew', 'src/util.js', 'AH-1')).toContain('src/util.js');
  });
});

describe('sets of paths', () => {
  test('with --story all words are paths, locked all or none', async () => {
    const locks = await answerOf('acquire', '--story', 'AH-1', 'a', 'b', './a');
    expect(locks.map((lock) => path.basename(lock.filePath)).sort()).toEqual(['a', 'b']);
    await refusalOf(1, 'acquire', '--story', 'AH-2', 'c', 'b');
    expect(await isFree('c')).toBe(true);
    expect(await answerOf('renew', '--story', 'AH-1', 'a', 'b')).toHaveLength(2);
    expect(await answerOf('release', '--story', 'AH-1', 'a', 'b')).toBe(true);
    expect((await answerOf('status')).totalLocks).toBe(0);
  });

  test('without it the last word is the story', async () => {
    const locks = await answerOf('acquire', 'a', 'b', 'AH-1');
    expect(locks.map((lock) => lock.storyId)).toEqual(['AH-1', 'AH-1']);
  });

  test('a file in the place of the story is refused: its owner meant two paths', async () => {
    const told = await refusalOf(2, 'acquire', 'a', 'src/app.js');
    expect(told).toContain('--story <id> a src/app.js');
    expect(await isFree('a')).toBe(true);
  });

  test('a release that is refused for one path frees the others and tells which', async () => {
    await answerOf('acquire', '--story', 'AH-1', 'a', 'c');
    await answerOf('acquire', 'b', 'AH-2');
    const told = await refusalOf(1, 'release', '--story', 'AH-1', 'a', 'b', 'c');
    expect(told).toMatch(/^storylock: Cannot release lock for b: owned by AH-2, not AH-1/);
    expect((await answerOf('status')).activeLocks).toMatchObject([{ storyId: 'AH-2' }]);
  });
});

describe('answers', () => {
  test('check says free with exit 0 and null, locked with exit 1 and the holder', async () => {
    expect(await answerOf('check', 'src/app.js')).toBeNull();
    await answerOf('acquire', 'src/app.js', 'AH-1', '--reason', 'the login page');
    const { code, stdout, stderr } = await storylock(['check', 'src/app.js'], { cwd: root });
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({
      storyId: 'AH-1',
      detached: true,
      reason: 'the login page',
    });
  });

  test('a reader that goes away is no failure', async () => {
    const options = { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] };
    for (const args of [['status'], ['--help'], ['acquire', 'a', 'AH-1']]) {
      const running = new shell.Running(process.execPath, [PROGRAM, ...args], options);
      running.child.stdout.destroy();
      expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    }
    expect(await isFree('a')).toBe(false);
  });

  test('an answer that cannot be written is a failure', async () => {
    const full = fs.openSync('/dev/full', 'w');
    const child = spawn(process.execPath, [PROGRAM, 'status'], {
      cwd: root,
      stdio: ['ignore', full, 'pipe'],
    });
    let told = '';
    child.stderr.on('data', (text) => {
      told += text;
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    fs.closeSync(full);
    expect(code).toBe(1);
    expect(told).toMatch(/^storylock: The answer could not be written to stdout: .*ENOSPC/);
  });

  test('help and version go to stdout with exit 0, for each command with an example', async () => {
    const version = await storylock(['--version'], { cwd: root });
    expect(version).toMatchObject({ code: 0, stderr: '' });
    expect(version.stdout.trim()).toBe(require('../package.json').version);
    for (const command of ['acquire', 'release', 'renew', 'check', 'status', 'cleanup', ...MORE]) {
      const { code, stdout, stderr } = await storylock([command, '--help'], { cwd: root });
      expect({ command, code, stderr }).toEqual({ command, code: 0, stderr: '' });
      expect(stdout).toMatch(new RegExp(`^Usage: storylock ${command} `));
      expect(stdout).toMatch(new RegExp(`Examples?:\n  storylock ${command}`));
    }
    expect(fs.existsSync(inProject('.ai', 'locks'))).toBe(false);
  });

  test('--root names the project, before the command and after it', async () => {
    const other = project();
    const before = await storylock(['--root', other, 'acquire', 'a', 'AH-1'], { cwd: root });
    expect(before.code).toBe(0);
    const after = await storylock(['status', '--root', other], { cwd: root });
    expect(JSON.parse(after.stdout)).toMatchObject({
      lockDirectory: path.join(other, '.ai', 'locks'),
      activeLocks: [{ filePath: inProject('a') }],
    });
    expect((await answerOf('status')).totalLocks).toBe(0);
  });

  test('-- ends the options: a path may begin with a dash', async () => {
    const lock = await answerOf('acquire', '--story', 'AH-1', '--', '--root');
    expect(lock.filePath).toBe(inProject('--root'));
  });
});

describe('on a terminal', () => {
  test('status is a table of paths from the root, stories, holders, times and states', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000');
    await answerOf('acquire', 'src/util.js', 'AH-2', '--timeout', '60000');
    const { code, screen } = await onTerminal(['status'], { cwd: inProject('src') });
    expect(code).toBe(0);
    const [head, ...rows] = screen.split('\n');
    expect(head).toMatch(/^PATH +STORY +HOLDER +HELD FOR +LEASE LEFT +STATE$/);
    const where = ' +taken on the command line +\\d+ m?s ';
    expect(rows.slice(0, 2).sort()).toEqual([
      expect.stringMatching(new RegExp(`^src/app.js +AH-1${where} +10 min +held$`)),
      expect.stringMatching(new RegExp(`^src/util.js +AH-2${where} +\\d+ s +held$`)),
    ]);
    expect(rows.slice(2)).toEqual(['', `2 locks in ${root}.`]);
  });

  test('status of a project without locks says so', async () => {
    const { screen } = await onTerminal(['status'], { cwd: root });
    expect(screen).toBe(`No locks in ${root}.`);
  });

  test.each([
    ['long', 'deep/'.repeat(20) + 'file.js'],
    ['wide', `${'深い/'.repeat(20)}👩‍👩‍👧.js`],
  ])('a %s path goes over several lines of a narrow terminal, whole', async (_, name) => {
    await answerOf('acquire', name, 'AH-1');
    const { screen } = await onTerminal(['status'], { cwd: root, columns: 100 });
    const lines = screen.split('\n').slice(1, -2);
    for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(100);
    expect(lines.map((line) => line.split(' ')[0]).join('')).toBe(name);
  });

  test('--json answers JSON there too', async () => {
    const { screen } = await onTerminal(['status', '--json'], { cwd: root });
    expect(JSON.parse(screen)).toMatchObject({ totalLocks: 0 });
  });

  test('the other commands answer a sentence', async () => {
    const said = async (...args) => (await onTerminal(args, { cwd: root })).screen;
    expect(await said('check', 'src/app.js')).toBe('src/app.js is free.');
    expect(await said('acquire', 'src/app.js', 'AH-1')).toBe(
      'Locked src/app.js for AH-1: the lease ends in 30 s.',
    );
    expect(await said('check', 'src/app.js')).toMatch(
      /^src\/app\.js is locked by AH-1 \(taken on the command line, held for .*, the lease ends /,
    );
    expect(await said('renew', 'src/app.js', 'AH-1', '--timeout', '600000')).toBe(
      'Renewed src/app.js for AH-1: the lease ends in 10 min.',
    );
    expect(await said('release', 'src/app.js', 'AH-1')).toBe('Released src/app.js.');
    expect(await said('cleanup', 'AH-1')).toBe('Released 0 locks of AH-1.');
  });

  test('a path with control characters moves no cursor', async () => {
    await answerOf('acquire', '\u001b[2Jevil\u202e\n.js', 'AH-1');
    const { screen } = await onTerminal(['status'], { cwd: root });
    expect(screen).toContain('\\u{1b}[2Jevil\\u{202e}\\u{a}.js');
    const refused = await onTerminal(['acquire', '\u001b[2Jevil\u202e\n.js', 'B'], { cwd: root });
    expect(refused.code).toBe(1);
    expect(refused.screen).not.toContain('\u001b');
  });
});

describe('bad input is refused before anything is touched', () => {
  const long = 'x'.repeat(5000);
  const cases = [
    ['an unknown command', ['acquir', 'a']],
    ['an unknown option', ['acquire', 'a', '--now']],
    ['no path', ['acquire']],
    ['an empty path', ['acquire', '', 'AH-1']],
    ['a path longer than the system takes', ['acquire', `${'d/'.repeat(2500)}a`, 'AH-1']],
    ['a name longer than the system takes', ['acquire', long, 'AH-1']],
    ['an empty story', ['acquire', 'a', '--story', '']],
    ['a story with control characters', ['acquire', 'a', '--story', 'AH\n1']],
    ['a story over 256 bytes', ['acquire', 'a', '--story', 'é'.repeat(129)]],
    ['a timeout of 0', ['acquire', 'a', '--timeout', '0']],
    ['a negative timeout', ['acquire', 'a', '--timeout', '-5']],
    ['a timeout beyond 2^53', ['acquire', 'a', '--timeout', '9007199254740993']],
    ['a timeout that is no number', ['acquire', 'a', '--timeout', 'soon']],
    ['a timeout in another notation', ['acquire', 'a', '--timeout', '0x10']],
    ['a timeout without an end', ['acquire', 'a', '--timeout', 'Infinity']],
    ['a timeout without a value', ['acquire', 'a', '--timeout']],
    ['a timeout beyond all numbers', ['renew', 'a', '--timeout', '9'.repeat(400)]],
    ['a negative wait', ['acquire', 'a', '--wait=-5']],
    ['a wait beyond 2^53', ['acquire', 'a', '--wait=9007199254740993']],
    ['a wait beyond all numbers', ['acquire', 'a', `--wait=${'9'.repeat(400)}`]],
    ['a wait that is no number', ['acquire', 'a', '--wait=soon']],
    ['a wait in another notation', ['run', '--story', 'AH-1', '--wait=1e3', 'a', '--', 'true']],
    ['a wait with a unit', ['acquire', 'a', '--wait=5s']],
    ['a wait of part of a ms', ['acquire', 'a', '--wait=0.5']],
    ['a wait in another word', ['acquire', 'a', '--wait=Infinity']],
    ['a wait with nothing after =', ['acquire', 'a', '--wait=']],
    ['a wait for what is never waited for', ['release', 'a', '--wait']],
    ['an empty root', ['acquire', 'a', '--root', '']],
    ['too many words', ['check', 'a', 'b']],
    ['no story to clean up', ['cleanup']],
    ['an empty story to clean up', ['cleanup', '']],
    ['run without a story', ['run', 'a', '--', 'true']],
    ['run without a command', ['run', '--story', 'AH-1', 'a']],
    ['run with nothing after --', ['run', '--story', 'AH-1', 'a', '--']],
    ['run with an empty command', ['run', '--story', 'AH-1', 'a', '--', '']],
    ['run without a path', ['run', '--story', 'AH-1', '--', 'true']],
    ['run with an unknown option', ['run', '--story', 'AH-1', '--x', 'a', '--', 'true']],
  ];

  test.each(cases)('%s', async (_, args) => {
    const told = await refusalOf(2, ...args);
    for (const line of told.trimEnd().split('\n')) expect(line).toMatch(/^storylock: \S/);
    expect(told).not.toMatch(/\s+at .*\d+:\d+/);
    expect(fs.readdirSync(inProject('.ai'))).toEqual([]);
  });

  test('a root that does not exist is a failure that names it', async () => {
    const missing = inProject('nowhere');
    const told = await refusalOf(1, '--root', missing, 'acquire', 'a', 'AH-1');
    expect(told).toContain(missing);
    expect(fs.existsSync(missing)).toBe(false);
  });
});

describe('the drop-in as a module', () => {
  const node = async (script, options) => {
    const running = new shell.Running(process.execPath, ['-e', script], options);
    return running.ended;
  };

  test('gives { LockManager, lockManager } and loads nothing of the command line', async () => {
    const script = `
      const drop = require(${JSON.stringify(PROGRAM)});
      const ofCommandLine = /commander|cli-table3|string-width/;
      const loaded = Object.keys(require.cache).filter((name) => ofCommandLine.test(name));
      const isReady = drop.lockManager instanceof drop.LockManager;
      console.log(JSON.stringify([Object.keys(drop), isReady, loaded]));
    `;
    const { stdout, stderr } = await node(script, { cwd: root });
    expect({ answer: JSON.parse(stdout), stderr }).toEqual({
      answer: [['LockManager', 'lockManager'], true, []],
      stderr: '',
    });
  });

  test('gives both names to import', async () => {
    const script = `
      import(${JSON.stringify(PROGRAM)}).then(({ LockManager, lockManager }) => {
        console.log(lockManager instanceof LockManager);
      });
    `;
    expect(await node(script, { cwd: root })).toMatchObject({ stdout: 'true\n', stderr: '' });
  });

  describe('from a folder that belongs to no project', () => {
    /** A copy of the drop-in, with the package around it, that stands in `folder`. */
    function copyIn(folder) {
      const home = path.join(__dirname, '..');
      for (const name of ['lib', 'tools']) {
        fs.cpSync(path.join(home, name), path.join(folder, name), { recursive: true });
      }
      const native = fs.readdirSync(home).filter((name) => /^storylock\..*\.node$/.test(name));
      for (const name of ['index.js', 'native.js', 'package.json', ...native]) {
        fs.copyFileSync(path.join(home, name), path.join(folder, name));
      }
      if (!fs.existsSync(path.join(folder, 'node_modules'))) {
        fs.symlinkSync(path.join(home, 'node_modules'), path.join(folder, 'node_modules'));
      }
      return path.join(folder, 'tools', 'orchestrator', 'locks.js');
    }

    const lockDirectoryOf = async (program, cwd, env) => {
      const command = [program, 'status'];
      const { stdout } = await new shell.Running(process.execPath, command, { cwd, env }).ended;
      const script = `
        require(${JSON.stringify(program)}).lockManager.status()
          .then((status) => console.log(status.lockDirectory));
      `;
      const asModule = await node(script, { cwd, env });
      expect(asModule.stdout.trim()).toBe(JSON.parse(stdout).lockDirectory);
      return JSON.parse(stdout).lockDirectory;
    };

    test('it serves the project that it stands in', async () => {
      const program = copyIn(root);
      const nowhere = project({ markers: [] });
      const elsewhere = project();
      const locksOf = (folder) => path.join(folder, '.ai', 'locks');
      expect(await lockDirectoryOf(program, nowhere)).toBe(locksOf(root));
      expect(await lockDirectoryOf(program, elsewhere)).toBe(locksOf(elsewhere));
      const env = { STORYLOCK_ROOT: elsewhere };
      expect(await lockDirectoryOf(program, nowhere, env)).toBe(locksOf(elsewhere));
    });

    test('a copy that npm installed has no project of its own', async () => {
      const installed = inProject('node_modules', 'storylock');
      fs.mkdirSync(installed, { recursive: true });
      const nowhere = project({ markers: [] });
      expect(await lockDirectoryOf(copyIn(installed), nowhere)).toBe(
        path.join(nowhere, '.ai', 'locks'),
      );
    });
  });
});
