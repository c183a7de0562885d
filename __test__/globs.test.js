'use strict';

/** Patterns: they stand for the files that exist when the call is made, and for nothing else. */

const fs = require('node:fs');
const path = require('node:path');

const { LockError } = require('..');
const { cleanUp, project, rejection } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

const GLOB = { glob: true };

let at;
let manager;
beforeEach(() => {
  at = project();
  manager = at.manager();
});
afterEach(cleanUp);

function files(...names) {
  for (const name of names) {
    fs.mkdirSync(path.dirname(at.path(name)), { recursive: true });
    fs.writeFileSync(at.path(name), '');
  }
}

/** What a pattern locks, from the project. */
async function locked(patterns, options) {
  const absolute = [patterns].flat().map((one) => one.replace(/^!?/, `$&${at.root}/`));
  const set = await manager.acquireAll(absolute, 'A', { ...GLOB, ...options });
  await set.release();
  return set.locks.map(({ filePath }) => path.relative(at.root, filePath));
}

describe('a pattern', () => {
  beforeEach(() => {
    files('src/a.js', 'src/b.ts', 'src/deep/c.js', 'src/.hidden.js', 'src/a[1].js', 'lib/d.js');
  });

  test.each([
    ['src/*.js', ['src/a.js', 'src/a[1].js']],
    ['src/**/*.js', ['src/a.js', 'src/a[1].js', 'src/deep/c.js']],
    ['src/*.{js,ts}', ['src/a.js', 'src/a[1].js', 'src/b.ts']],
    ['src/?.js', ['src/a.js']],
    ['src/[ab].*', ['src/a.js', 'src/b.ts']],
    ['src/!(a|a*).*', ['src/.hidden.js', 'src/b.ts']],
    ['src/.*.js', ['src/.hidden.js']],
    ['src/a\\[1\\].js', ['src/a[1].js']],
    ['src/a.js', ['src/a.js']],
    ['{src,lib}/d.js', ['lib/d.js']],
  ])('%s stands for files', async (pattern, expected) => {
    expect(await locked(pattern)).toEqual(expected);
  });

  test('stands for no folder, but with recursive, and then for all that lies in it', async () => {
    expect((await rejection(locked('src/d*'))).code).toBe('ENOENT');
    expect(await locked('{src,lib}', { recursive: true })).toEqual(['lib', 'src']);
    const set = await manager.acquireAll([at.path('src/**')], 'A', { ...GLOB, recursive: true });
    const kinds = set.locks.map(({ filePath, recursive }) => [filePath, recursive]);
    expect(kinds).toEqual([[at.path('src'), true]]);
    const part = await manager.acquireAll([at.path('lib/*')], 'A', { ...GLOB, recursive: true });
    expect(part.locks).toMatchObject([{ filePath: at.path('lib/d.js'), recursive: false }]);
    expect(await manager.tryAcquire(at.path('src/new.js'), 'B')).toBeNull();
    expect(await manager.tryAcquire(at.path('lib/new.js'), 'B')).not.toBeNull();
  });

  test('stands for files at the time of the call: what is made later is not locked', async () => {
    const set = await manager.acquireAll([at.path('src/*.js')], 'A', GLOB);
    files('src/later.js');
    expect(await manager.tryAcquire(at.path('src/later.js'), 'B')).not.toBeNull();
    expect(await manager.tryAcquire(at.path('src/a.js'), 'B')).toBeNull();
    expect(await set.release()).toBe(true);
  });

  test('stands for the file that a link leads to, and looks through no link', async () => {
    fs.symlinkSync('a.js', at.path('src/l.js'));
    fs.symlinkSync('nowhere', at.path('src/z.js'));
    fs.symlinkSync('..', at.path('src/deep/up'));
    fs.symlinkSync('/', at.path('src/deep/out'));
    expect(await locked('src/**/{l,z}.js')).toEqual(['src/l.js']);
    expect(await locked('src/**/*.ts')).toEqual(['src/b.ts']);
    expect(await locked('src/deep/*')).toEqual(['src/deep/c.js']);
    expect(await locked('src/deep/up/*.ts')).toEqual(['src/deep/up/b.ts']);
    const folders = { recursive: true };
    expect(await locked('src/deep/*', folders)).toEqual(['src/deep/c.js']);
    expect(await locked('src/**', folders)).toEqual(['src', 'src/l.js']);
    await manager.acquireAll([at.path('src/l.js')], 'A', GLOB);
    expect(await manager.tryAcquire(at.path('src/a.js'), 'B')).toBeNull();
  });

  test('is seen from the working directory', async () => {
    const story = await startProcess(at.root, { cwd: at.path('src') });
    const { locks } = await story.call('acquireAll', ['*.ts', '../lib/*', './deep/*'], 'A', GLOB);
    expect(locks.map(({ filePath }) => filePath)).toEqual(
      ['src/b.ts', 'lib/d.js', 'src/deep/c.js'].map((name) => at.path(name)),
    );
  });
});

describe('a list', () => {
  test('counts a file once, however many patterns it matches', async () => {
    files('src/a.js', 'src/b.js');
    expect(await locked(['src/b.js', 'src/*', 'src/**'])).toEqual(['src/b.js', 'src/a.js']);
  });

  test('leaves out what a pattern with ! in front says', async () => {
    files('src/a.js', 'src/a.test.js', 'src/generated/b.js', 'src/generated/deep/c.js');
    const patterns = ['src/**/*.js', '!src/generated/**', '!**/*.test.js'];
    expect(await locked(patterns)).toEqual(['src/a.js']);
    expect((await rejection(locked(['src/generated/*', '!src/**']))).code).toBe('ENOENT');
    expect((await rejection(locked(['!src/**']))).code).toBe('ERR_INVALID_ARG_VALUE');
  });

  test('takes objects and names as they are', async () => {
    files('src/a.js');
    const mine = { path: at.path('src/new*.js'), mode: 'shared' };
    const set = await manager.acquireAll([at.path('src/*'), mine, '@git/index'], 'A', GLOB);
    expect(set.locks.map(({ filePath, mode }) => [filePath, mode])).toEqual([
      [at.path('src/a.js'), 'exclusive'],
      [at.path('src/new*.js'), 'shared'],
      ['@git/index', 'exclusive'],
    ]);
  });

  test('is locked whole or not at all', async () => {
    files('src/a.js', 'src/b.js');
    await manager.acquire(at.path('src/b.js'), 'B');
    const error = await rejection(manager.acquireAll([at.path('src/*')], 'A', GLOB));
    expect(error).toMatchObject({ code: 'ELOCKED', path: at.path('src/b.js') });
    expect((await manager.status()).totalLocks).toBe(1);
  });
});

describe('a pattern that nothing matches', () => {
  test('is refused, by its words, and nothing is locked', async () => {
    files('src/a.js');
    const none = at.path('src/*.rs');
    for (const call of [
      () => manager.acquireAll([at.path('src/*'), none], 'A', GLOB),
      () => manager.withLock(none, 'A', GLOB, () => {}),
      () => manager.runStory('A', [none], GLOB, () => {}),
    ]) {
      const error = await rejection(call());
      expect(error).toBeInstanceOf(LockError);
      expect(error).toMatchObject({ code: 'ENOENT', path: none, storyId: 'A' });
      expect(error.message).toContain(none);
      expect(error.message).toContain(error.hint);
    }
    expect((await manager.status()).totalLocks).toBe(0);
  });

  test('an empty one is a mistake', async () => {
    const error = await rejection(manager.acquireAll([''], 'A', GLOB));
    expect([error.constructor, error.code]).toEqual([TypeError, 'ERR_INVALID_ARG_VALUE']);
  });
});

describe('scopes', () => {
  test('of patterns hold what matches, as a set, for one pattern too', async () => {
    files('src/a.js', 'src/b.js');
    const held = ({ locks }) => locks.map(({ filePath }) => path.basename(filePath));
    expect(await manager.withLock(at.path('src/*'), 'A', GLOB, held)).toEqual(['a.js', 'b.js']);
    expect(await manager.withLock([at.path('src/a*')], 'A', GLOB, held)).toEqual(['a.js']);
    const options = { ...GLOB, mode: 'shared' };
    const modes = await manager.runStory('A', at.path('src/*'), options, ({ locks }) => {
      return locks.map(({ mode }) => mode);
    });
    expect(modes).toEqual(['shared', 'shared']);
    expect((await manager.status()).totalLocks).toBe(0);
  });

  test('without glob a star is a star', async () => {
    const lock = await manager.acquire(at.path('*.js'), 'A');
    expect(lock.filePath).toBe(at.path('*.js'));
    const set = await manager.acquireAll([at.path('*.ts')], 'A', { glob: false });
    expect(set.locks[0].filePath).toBe(at.path('*.ts'));
    const error = await rejection(manager.acquire(at.path('*.js'), 'A', GLOB));
    expect(error.code).toBe('ERR_INVALID_ARG_VALUE');
  });
});

test('loading the package loads no matcher', async () => {
  const story = await startProcess(at.root);
  const isLoaded = () =>
    story.do(({ require: load }) => Object.keys(load.cache).join().includes('glob'));
  await story.call('acquire', 'a.js', 'A');
  expect(await isLoaded()).toBe(false);
  await story.call('acquireAll', ['.*/**', '*'], 'A', GLOB).catch(() => {});
  expect(await isLoaded()).toBe(true);
});
