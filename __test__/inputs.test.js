'use strict';

/**
 * Every input that could lead somewhere else: paths, story ids, reasons, roots, the environment,
 * diffs, tokens. Whatever they say, state is kept in the project's own folder alone, a diff stays
 * within the project, and what cannot be a name is refused before anything is touched.
 *
 * Diffs are in patch-diff.test.js, bad input of the command line in cli.test.js: what is here is what
 * they leave out.
 */

const fs = require('node:fs');
const path = require('node:path');

const { LockManager } = require('..');
const shell = require('./fixtures/cli-shell.js');
const { testUnless } = require('./fixtures/machine.js');
const { HOME, Project, cleanUp, folder, rejection } = require('./fixtures/project.js');

const { PROGRAM, Running, storylock } = shell;

/** A project with a neighbour beside it, in a folder that holds nothing else. */
let around;
let at;
beforeEach(() => {
  around = folder();
  at = new Project(path.join(around, 'project'));
  fs.mkdirSync(at.path('.ai'), { recursive: true });
  fs.mkdirSync(at.path('.git'));
  fs.writeFileSync(at.path('.git', 'config'), 'git');
  fs.mkdirSync(path.join(around, 'neighbour'));
  fs.writeFileSync(path.join(around, 'neighbour', 'file'), 'theirs');
});
afterEach(async () => {
  shell.cleanUp();
  await cleanUp();
});

/** Everything around the project and in it but its state, with the content of files. */
function surroundings() {
  const names = fs.readdirSync(around, { recursive: true }).sort();
  const shown = names.filter((name) => !name.startsWith(path.join('project', '.ai')));
  return shown.map((name) => {
    const file = path.join(around, name);
    return fs.lstatSync(file).isFile() ? `${name}: ${fs.readFileSync(file, 'utf8')}` : name;
  });
}

/** Names of the state: what stands there, by kind. */
function state() {
  const names = fs.readdirSync(at.path('.ai'), { recursive: true });
  const kind = (name) => name.replace(/[0-9a-f]{64}/, '<key>').replace(/\d{16}/, '<number>');
  return [...new Set(names.map(kind))].sort();
}

const STATE = [
  'locks',
  'locks/.gitignore',
  'locks/.guard',
  'locks/<key>.lock',
  'locks/holders',
  'locks/holders/<number>',
  'locks/queue',
  'progress',
  'progress/locks.history.jsonl',
  'progress/locks.json',
];

const ODD_PATHS = [
  ['of the neighbour', '../neighbour/file'],
  ['far above', '../../../../../../../../../etc/passwd'],
  ['absolute', '/etc/passwd'],
  ['of the root of all', '/'],
  ['of the project itself', '.'],
  ['above the project', '..'],
  ['of the lock folder', '.ai/locks'],
  ['of a lock file', `.ai/locks/${'0'.repeat(64)}.lock`],
  ['of the guard', '.ai/locks/.guard'],
  ['through a folder that is none', '.git/config/../../../neighbour/file'],
  ['with a newline', 'one\ntwo'],
  ['with an escape sequence', '\u001b]0;title\u0007\u001b[2J'],
  ['with a name that a program may take for an option', '--root=..'],
  ['with a drive', 'C:\\windows\\system32'],
  ['with what a shell would run', '$(touch pwned);`touch pwned`|touch pwned'],
  ['with what a format would fill', '%s%n%d${HOME}{{7*7}}'],
  ['in another form of Unicode', 'A\u030a/\ufb01le'],
];

test.each(ODD_PATHS)('a path %s is a name to lock and nothing more', async (_, given) => {
  const before = surroundings();
  const manager = at.manager();
  const file = path.resolve(at.root, given);
  const lock = await manager.acquire(file, 'AH-1', Infinity);
  expect(lock.filePath).toBe(file);
  const refused = await rejection(manager.acquire(file, 'AH-2'));
  expect(refused).toMatchObject({ code: 'ELOCKED', path: file, holder: { storyId: 'AH-1' } });
  expect(await manager.check(file)).toMatchObject({ filePath: file });
  expect(state()).toEqual(STATE);
  expect(await manager.release(file, 'AH-1')).toBe(true);
  expect(surroundings()).toEqual(before);
});

test.each([
  ['that is a path', '../../../etc/passwd'],
  ['that is absolute', '/etc/passwd'],
  ['that is a folder', '..'],
  ['that is an option', '--all'],
  ['that a shell would run', '$(touch pwned)`touch pwned`'],
  ['that turns the line around', 'AH\u202e110'],
  ['that names what objects have', '__proto__'],
  ['of 256 bytes', 'é'.repeat(128)],
])('a story id %s is an id and nothing more', async (_, storyId) => {
  const before = surroundings();
  const manager = at.manager();
  const lock = await manager.acquire(at.path('a'), storyId, { timeout: Infinity, reason: storyId });
  expect(lock.lockId.startsWith(`${storyId}-`)).toBe(true);
  expect(await manager.check(at.path('a'))).toMatchObject({ storyId, reason: storyId });
  expect(state()).toEqual(STATE);
  expect(await manager.cleanup(storyId)).toBe(1);
  expect(surroundings()).toEqual(before);
});

describe('text that cannot be', () => {
  const CONTROLS = ['\0', '\n', '\r', '\u001b[2J', '\u007f', '\u0085', '\u009b2J'];
  const WRONG = { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' };

  test('a story id or a reason with control characters is refused everywhere', async () => {
    const manager = at.manager();
    const fn = () => {};
    for (const control of CONTROLS) {
      const bad = `AH${control}1`;
      for (const call of [
        () => manager.acquire(at.path('a'), bad),
        () => manager.tryAcquire(at.path('a'), bad),
        () => manager.acquireAll([at.path('a')], bad),
        () => manager.withLock(at.path('a'), bad, fn),
        () => manager.runStory(bad, at.path('a'), fn),
        () => manager.release(at.path('a'), bad),
        () => manager.renew(at.path('a'), bad),
        () => manager.cleanup(bad),
        () => manager.applyPatch(at.path('a'), bad, 'x'),
        () => manager.applyDiff('--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n', bad),
        () => manager.acquire(at.path('a'), 'AH-1', { reason: bad }),
        () => manager.acquireAll([at.path('a')], 'AH-1', { reason: bad }),
        () => manager.withLock(at.path('a'), 'AH-1', { reason: bad }, fn),
        () => manager.applyPatch(at.path('a'), 'AH-1', 'x', { reason: bad }),
      ]) {
        const refused = await rejection(call());
        expect({ call: String(call), ...refused, name: refused.name }).toMatchObject(WRONG);
            expect(refused.message).not.toMatch(/\p{Cc}/u);
      }
    }
    expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
    expect(fs.existsSync(at.path('a'))).toBe(false);
  });

  test('a path with NUL is refused everywhere', async () => {
    const manager = at.manager();
    const bad = `${at.path('a')}\0/../../neighbour/file`;
    for (const call of [
      () => manager.acquire(bad, 'AH-1'),
      () => manager.acquireAll([at.path('b'), bad], 'AH-1'),
      () => manager.withLock([bad], 'AH-1', () => {}),
      () => manager.release(bad, 'AH-1'),
      () => manager.renew(bad, 'AH-1'),
      () => manager.check(bad),
      () => manager.applyPatch(bad, 'AH-1', 'x'),
    ]) {
      expect(await rejection(call())).toMatchObject(WRONG);
    }
    expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
  });

  test.each([['an empty one', ''], ['one with NUL', 'a\0b'], ['one with half a character', '\ud800']])(
    'a root: %s',
    (_, root) => {
      expect(() => at.manager({ root })).toThrow(expect.objectContaining(WRONG));
    },
  );
});

describe('a diff', () => {
  const added = (name) => `--- /dev/null\n+++ ${name}\n@@ -0,0 +1 @@\n+x\n`;
  test.each([
    ['leaves the project in octal', '"b/\\056\\056/neighbour/file"'],
    ['has its slash in octal', '"b/..\\057neighbour\\057new"'],
    ['leaves it in the middle', 'b/src/../../neighbour/new'],
    ['leaves it after a dot', 'b/./../neighbour/new'],
    ['names it absolutely', 'b//etc/passwd'],
    ['has NUL in a name', '"b/a\\000b"'],
    ['names the project', 'b/.'],
    ['names nothing', 'b/'],
    ['names git itself', 'b/.git'],
    ['names git’s files in another spelling', 'b/src/.GIT/config'],
    ['names the lock folder', 'b/.ai/locks'],
    ['names the guard by a detour', 'b/.ai//locks/./.guard'],
    ['has a name that is too long', `b/${'x'.repeat(256)}`],
    ['has a path that is too long', `b/${'d/'.repeat(2100)}x`],
  ])('that %s is refused, alone and among others', async (_, name) => {
    const before = surroundings();
    const manager = at.manager();
    const fine = added('b/fine');
    for (const diff of [added(name), `${fine}${added(name)}`, `${added(name)}${fine}`]) {
      const refused = await rejection(manager.applyDiff(diff, 'AH-1'));
      expect(refused).toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' });
    }
    expect(surroundings()).toEqual(before);
  });
});

test('a patch of the lock folder is refused, as a diff of it is', async () => {
  const manager = at.manager();
  const lock = await manager.acquire(at.path('a'), 'AH-1', Infinity);
  for (const name of ['.ai/locks/.guard', `.ai/locks/${'0'.repeat(64)}.lock`, '.ai/locks/x']) {
    const file = at.path(name);
    const before = fs.existsSync(file) && fs.statSync(file).ino;
    await rejection(manager.applyPatch(file, 'AH-1', 'x'));
    expect(fs.existsSync(file) && fs.statSync(file).ino).toBe(before);
  }
  expect(await lock.verify()).toBe(true);
});

/** The project that a process finds in this environment, or the code of its error. */
async function projectIn(root, cwd = at.root) {
  const script = `
    const { lockManager } = require(${JSON.stringify(HOME)});
    lockManager.acquire('a', 'AH-1').then(
      () => console.log(JSON.stringify(lockManager.root)),
      ({ code }) => console.log(JSON.stringify({ code })),
    );
  `;
  const env = { STORYLOCK_ROOT: root };
  const running = new Running(process.execPath, ['-e', script], { cwd, env });
  const { code, stdout, stderr } = await running.ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

describe('STORYLOCK_ROOT', () => {
  test('is a folder, seen from the working directory, and nothing else is asked', async () => {
    const neighbour = path.join(around, 'neighbour');
    fs.symlinkSync(neighbour, path.join(around, 'link'));
    for (const root of [neighbour, '../neighbour', '../project/../neighbour', `${neighbour}//.`]) {
      expect(await projectIn(root)).toBe(neighbour);
    }
    expect(await projectIn(path.join(around, 'link'))).toBe(path.join(around, 'link'));
    expect(await projectIn('')).toBe(at.root);
    // The folder that a link leads to has the locks of both.
    const manager = at.manager({ root: neighbour });
    expect((await manager.status()).lockDirectory).toBe(path.join(neighbour, '.ai', 'locks'));
  });

  test('is refused where it is no folder, too long, or not there, and nothing is made', async () => {
    const before = surroundings();
    expect(await projectIn('../neighbour/file')).toMatchObject({ code: 'ENOTDIR' });
    expect(await projectIn('../nowhere')).toMatchObject({ code: 'ENOENT' });
    expect(await projectIn('../no\nwhere\u001b[2J')).toMatchObject({ code: 'ENOENT' });
    expect(await projectIn('x'.repeat(5000))).toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
    expect(await projectIn('../neighbour/file/..//x')).toMatchObject({ code: 'ENOENT' });
    expect(surroundings()).toEqual(before);
  });
});

describe('on the command line', () => {
  test('paths and stories of any kind are names and nothing more', async () => {
    const before = surroundings();
    const paths = ODD_PATHS.map(([, given]) => given);
    const files = [...new Set(paths.map((given) => path.resolve(at.root, given)))];
    const options = { cwd: at.root };
    const run = (...words) => storylock(words, options);
    const acquired = await run('acquire', '--story', '../../AH-1', '--', ...paths);
    expect(acquired).toMatchObject({ code: 0, stderr: '' });
    const locked = JSON.parse(acquired.stdout).map(({ filePath }) => filePath);
    expect(locked).toEqual(files);
    const refused = await run('acquire', '--story', 'AH-2', '--', ...paths);
    expect(refused.code).toBe(1);
    expect(refused.stderr).not.toMatch(/[^\P{Cc}\n]/u);
    expect((await run('release', '--story', '../../AH-1', '--', paths[0])).code).toBe(0);
    expect((await run('cleanup', '--', '../../AH-1')).stdout).toBe(`${files.length - 1}\n`);
    expect(surroundings()).toEqual(before);
  });

  test('a command is run as its words say, by no shell', async () => {
    const words = ['$(touch pwned)', '`touch pwned`', ';touch pwned', '../..', ''];
    const echo = 'console.log(JSON.stringify(process.argv.slice(1)))';
    const command = [process.execPath, '-e', echo, ...words];
    const run = ['run', '--story', '$(touch pwned)', '$(touch pwned)', '--', ...command];
    const { code, stdout } = await storylock(run, { cwd: at.root });
    expect({ code, words: JSON.parse(stdout) }).toEqual({ code: 0, words });
    expect(fs.existsSync(at.path('pwned'))).toBe(false);
  });

  test('a diff on stdin stays within the project', async () => {
    const before = surroundings();
    const diff = '--- /dev/null\n+++ "b/\\056\\056/neighbour/new"\n@@ -0,0 +1 @@\n+x\n';
    for (const more of [[], ['--check']]) {
      const words = [PROGRAM, 'apply', '--story', 'AH-1', ...more];
      const running = new Running(process.execPath, words, { cwd: at.root });
      running.child.stdin.end(diff);
      const { code, stdout, stderr } = await running.ended;
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toContain('it leaves the project');
    }
    expect(surroundings()).toEqual(before);
  });

  test('a root of any kind is a folder or refused', async () => {
    const before = surroundings();
    for (const root of ['../neighbour/file', '../nowhere', '/dev/null', '/proc/self/fd/0']) {
      const { code, stderr } = await storylock(['acquire', 'a', '--root', root], { cwd: at.root });
      expect({ root, code }).toEqual({ root, code: 1 });
      expect(stderr).toMatch(/^storylock: .*(Not a directory|No such file)/);
    }
    expect(surroundings()).toEqual(before);
  });
});

/** What is asked for here may not be there yet. */
const whyNotAdopt = typeof LockManager.adopt === 'function' ? null : 'locks cannot be adopted yet';

testUnless(whyNotAdopt, 'a token that is none is refused before anything is touched', async () => {
  const before = surroundings();
  const manager = at.manager();
  const lock = await manager.acquire(at.path('a'), 'AH-1', Infinity);
  const token = await lock.export();
  const odd = ['', 'x', '..', '../../neighbour', '/etc/passwd', '{}', '[]', 'null', '\0', '\u001b[2J'];
  const cut = [token.slice(1), token.slice(0, -1), `${token}x`, token.replace(/./g, '0')];
  const changed = [...cut, 'x'.repeat(1e6)];
  for (const bad of [...odd, ...changed]) {
    const refused = await rejection(manager.adopt(bad));
    expect(refused.code).toMatch(/^(ERR_INVALID_ARG_VALUE|ENOTACQUIRED)$/);
    expect(refused.message).not.toMatch(/\p{Cc}/u);
    expect(refused.message.length).toBeLessThan(2000);
  }
  for (const bad of [null, 7, {}, undefined]) {
    expect(await rejection(manager.adopt(bad))).toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
  }
  expect(surroundings()).toEqual(before);
  expect(await lock.verify()).toBe(true);
});

testUnless(whyNotAdopt, 'a named resource is a name of segments or refused', async () => {
  const before = surroundings();
  const manager = at.manager();
  for (const bad of ['@', '@/', '@a/', '@a//b', '@.', '@..', '@../neighbour', '@a/../b', '@a/./b', '@a\0b']) {
    const refused = await rejection(manager.acquire(bad, 'AH-1'));
    expect({ bad, code: refused.code }).toEqual({ bad, code: 'ERR_INVALID_ARG_VALUE' });
  }
  const lock = await manager.acquire('@port/3000', 'AH-1', Infinity);
  expect(lock.filePath).toBe('@port/3000');
  expect(state()).toEqual(STATE);
  expect(surroundings()).toEqual(before);
});
