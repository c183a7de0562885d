'use strict';

/**
 * Folders: a recursive lock is one of everything below, existing or not, and of nothing beside. The
 * table of docs/guide.md, and what follows from it for waiting, patches and who is named.
 */

const fs = require('node:fs');

const { cleanUp, project, rejection } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');
const { lineUp, waiting } = require('./fixtures/wait-line.js');

const ALL = { recursive: true };

let at;
let manager;
beforeEach(() => {
  at = project();
  manager = at.manager();
});
afterEach(cleanUp);

const lockAll = (name, storyId, options) =>
  manager.acquire(at.path(name), storyId, { ...ALL, ...options });
const isOpen = async (name, storyId, options) => {
  const lock = await manager.tryAcquire(at.path(name), storyId, options);
  await lock?.release();
  return lock !== null;
};

describe('the table: a lock that is held, and one that another story asks for', () => {
  const MODES = ['exclusive', 'shared'];
  const SPOTS = {
    'the same path': ['src/a', 'src/a'],
    'a path below': ['src/a', 'src/a/b/c.js'],
    'a path above': ['src/a/b', 'src/a'],
    'a name that begins alike': ['src/a', 'src/ab'],
    'a sibling': ['src/a', 'src/b'],
  };
  const doMeet = { 'the same path': () => true };
  doMeet['a path below'] = (held) => held;
  doMeet['a path above'] = (held, asked) => asked;

  const rows = Object.keys(SPOTS).flatMap((spot) =>
    [false, true].flatMap((held) => [false, true].map((asked) => [spot, held, asked])),
  );

  test.each(rows)('%s, recursive %p held and %p asked for', async (spot, held, asked) => {
    const [first, second] = SPOTS[spot];
    for (const mode of MODES) {
      const lock = await lockAll(first, 'A', { mode, recursive: held });
      for (const wanted of MODES) {
        const areReaders = mode === 'shared' && wanted === 'shared';
        const isFree = areReaders || !(doMeet[spot]?.(held, asked) ?? false);
        const options = { mode: wanted, recursive: asked };
        const open = await isOpen(second, 'B', options);
        expect({ mode, wanted, open }).toEqual({ mode, wanted, open: isFree });
        if (second !== first) expect(await isOpen(second, 'A', options)).toBe(true);
      }
      await lock.release();
    }
  });
});

describe('a folder that is locked', () => {
  test('need not exist, nor anything in it; a file can be locked so, too', async () => {
    const lock = await lockAll('not/there', 'A');
    expect(lock).toMatchObject({ filePath: at.path('not/there'), recursive: true });
    expect(await isOpen('not/there/yet.js', 'B')).toBe(false);
    expect(fs.existsSync(at.path('not'))).toBe(false);
    expect(at.record('not/there')).toMatchObject({ recursive: true, storyId: 'A' });
  });

  test('is one path for links into it', async () => {
    fs.mkdirSync(at.path('real/deep'), { recursive: true });
    fs.symlinkSync('real', at.path('link'));
    await lockAll('link', 'A');
    expect(await isOpen('real/deep/new.js', 'B')).toBe(false);
    expect(await isOpen('link/deep/new.js', 'B')).toBe(false);
    await manager.cleanup('A');
    await manager.acquire(at.path('link/deep/x.js'), 'A');
    expect(await isOpen('real', 'B', ALL)).toBe(false);
  });

  test('the project itself, and the root of the disk, can be locked so', async () => {
    for (const root of [at.root, '/']) {
      const lock = await manager.acquire(root, 'A', ALL);
      expect(await isOpen('any/where.js', 'B')).toBe(false);
      await lock.release();
      expect(await isOpen('any/where.js', 'B')).toBe(true);
    }
  });

  test('is named, as the holder, to who wants something in it', async () => {
    const lock = await lockAll('src', 'A');
    const error = await rejection(manager.acquire(at.path('src/a.js'), 'B'));
    expect(error).toMatchObject({
      code: 'ELOCKED',
      path: at.path('src/a.js'),
      holder: { lockId: lock.lockId, filePath: at.path('src'), recursive: true },
    });
    expect(error.message).toMatch(/is locked by A/);
    const holder = await manager.check(at.path('src/deep/b.js'));
    expect(holder).toMatchObject({ lockId: lock.lockId, filePath: at.path('src'), others: [] });
  });

  test('is refused for what is held in it, with all who hold it', async () => {
    await manager.acquire(at.path('src/a.js'), 'A');
    await manager.acquire(at.path('src/deep/b.js'), 'B');
    await manager.acquire(at.path('lib/c.js'), 'C');
    const error = await rejection(lockAll('src', 'D'));
    expect(error).toMatchObject({ code: 'ELOCKED', path: at.path('src'), storyId: 'D' });
    expect(error.holders.map(({ filePath }) => filePath).sort()).toEqual(
      [at.path('src/a.js'), at.path('src/deep/b.js')],
    );
    expect(error.message).toContain('is locked by');
    expect(await manager.check(at.path('src'))).toBeNull();
  });

  test('is the same lock when it is asked for plain, and raised when asked for whole', async () => {
    const plain = await manager.acquire(at.path('src'), 'A');
    expect(await isOpen('src/a.js', 'B')).toBe(true);
    const whole = await lockAll('src', 'A');
    expect([whole.token, whole.recursive]).toEqual([plain.token, true]);
    expect(await isOpen('src/a.js', 'B')).toBe(false);
    const again = await manager.acquire(at.path('src'), 'A');
    expect([again.token, again.recursive]).toEqual([plain.token, true]);
  });

  test('stays whole through renewal, upgrade and downgrade', async () => {
    const lock = await lockAll('src', 'A', { mode: 'shared' });
    await lock.renew(60_000);
    await lock.upgrade();
    expect([lock.mode, lock.recursive]).toEqual(['exclusive', true]);
    await lock.downgrade();
    expect([lock.mode, lock.recursive]).toEqual(['shared', true]);
    expect(await isOpen('src/a.js', 'B')).toBe(false);
    expect(await isOpen('src/a.js', 'B', { mode: 'shared' })).toBe(true);
  });

  test('and a file in it are two locks of one story, each given up by itself', async () => {
    const folder = await lockAll('src', 'A');
    const file = await manager.acquire(at.path('src/a.js'), 'A');
    expect((await manager.status()).totalLocks).toBe(2);
    await folder.release();
    expect(await isOpen('src/b.js', 'B')).toBe(true);
    expect(await isOpen('src/a.js', 'B')).toBe(false);
    await file.release();
    expect(await isOpen('src', 'B', ALL)).toBe(true);
  });
});

describe('waiting', () => {
  test('a folder waits for what is held in it, by whatever process', async () => {
    const other = await startProcess(at.root);
    await other.call('acquire', 'src/deep/a.js', 'A', Infinity);
    const own = await manager.acquire(at.path('src/b.js'), 'B', Infinity);
    const { turn } = await lineUp(manager, () => lockAll('src', 'C', { wait: 20_000 }));
    expect(await waiting(manager)).toMatchObject([{ filePath: at.path('src'), recursive: true }]);
    await own.release();
    expect(await isOpen('src', 'D', ALL)).toBe(false);
    await other.kill();
    expect(await turn).toMatchObject({ storyId: 'C', recursive: true });
  });

  test('a file waits for the folder above it', async () => {
    const folder = await lockAll('src', 'A');
    const { turn } = await lineUp(manager, () =>
      manager.acquire(at.path('src/a.js'), 'B', { wait: 20_000 }),
    );
    await folder.release();
    expect(await turn).toMatchObject({ storyId: 'B', recursive: false });
  });

  test('nobody overtakes a folder that waits, and who is not in its way is not kept', async () => {
    const first = await manager.acquire(at.path('src/a.js'), 'A');
    const folder = await lineUp(manager, () => lockAll('src', 'B', { wait: 20_000 }));
    expect(await isOpen('src/b.js', 'C')).toBe(false);
    expect(await isOpen('lib/b.js', 'C')).toBe(true);
    const file = await lineUp(manager, () =>
      manager.acquire(at.path('src/b.js'), 'C', { wait: 20_000 }),
    );
    await first.release();
    const lock = await folder.turn;
    expect(await isOpen('src/b.js', 'D')).toBe(false);
    await lock.release();
    expect((await file.turn).storyId).toBe('C');
  });

  test('a circle through a folder is refused', async () => {
    await manager.acquire(at.path('src/a.js'), 'A');
    await manager.acquire(at.path('lib/b.js'), 'B');
    const { turn } = await lineUp(manager, () => lockAll('lib', 'A', { wait: 20_000 }));
    const error = await rejection(lockAll('src', 'B', { wait: 20_000 }));
    expect(error.code).toBe('EDEADLK');
    expect(error.cycle.map(({ storyId }) => storyId)).toEqual(['B', 'A']);
    await manager.cleanup('B');
    expect((await turn).storyId).toBe('A');
  });
});

describe('patches', () => {
  test('of anything below are covered by the folder’s lock, which stays', async () => {
    const lock = await lockAll('src', 'A');
    await manager.applyPatch(at.path('src/new/a.js'), 'A', 'a\n', { lock, parents: true });
    await manager.applyPatch(at.path('src/b.js'), 'A', 'b\n');
    expect(fs.readFileSync(at.path('src/new/a.js'), 'utf8')).toBe('a\n');
    expect(fs.readFileSync(at.path('src/b.js'), 'utf8')).toBe('b\n');
    expect((await manager.status()).activeLocks).toMatchObject([{ lockId: lock.lockId }]);
  });

  test('of a file outside, or under a folder’s lock of the folder alone, are refused', async () => {
    const lock = await lockAll('src', 'A');
    const plain = await manager.acquire(at.path('lib'), 'A');
    fs.mkdirSync(at.path('lib'));
    for (const [name, under] of [['srcs.js', lock], ['lib/b.js', plain]]) {
      const patched = manager.applyPatch(at.path(name), 'A', 'x\n', { lock: under });
      expect((await rejection(patched)).code).toBe('EFENCED');
      expect(fs.existsSync(at.path(name))).toBe(false);
    }
  });

  test('of another story are refused', async () => {
    await lockAll('src', 'A');
    const patched = manager.applyPatch(at.path('src/a.js'), 'B', 'x\n', { parents: true });
    expect((await rejection(patched)).code).toBe('ELOCKED');
    expect(fs.existsSync(at.path('src'))).toBe(false);
  });
});
