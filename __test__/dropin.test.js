'use strict';

/**
 * The contract of the module that tools/orchestrator/locks.js replaces, row by row: what its
 * callers rely on, and what was wrong with it. The command line itself is in cli.test.js and
 * run.test.js.
 */

const fs = require('node:fs');
const path = require('node:path');

const dropIn = require('../tools/orchestrator/locks.js');
const { LockManager } = require('..');
const { storylock } = require('./fixtures/cli-shell.js');
const { HOME, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { contest, startAll, startProcess } = require('./fixtures/stories.js');

const PROGRAM = path.join(HOME, 'tools', 'orchestrator', 'locks.js');

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

describe('kept', () => {
  test('the module exports the class LockManager and one ready instance of it', () => {
    expect(Object.keys(dropIn)).toEqual(['LockManager', 'lockManager']);
    expect(dropIn.LockManager).toBe(LockManager);
    expect(dropIn.lockManager).toBeInstanceOf(dropIn.LockManager);
  });

  test('acquire answers lockId, storyId, filePath, acquiredAt, timeout and pid', async () => {
    const story = await startProcess(at.root);
    const before = Date.now();
    const lock = await story.call('acquire', 'src/../a.js', 'AH-1');
    expect(lock).toMatchObject({
      lockId: expect.stringMatching(/^AH-1/),
      storyId: 'AH-1',
      filePath: at.path('a.js'),
      timeout: 30_000,
      pid: story.pid,
    });
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(before);
    expect(lock.acquiredAt).toBeLessThanOrEqual(Date.now());
    expect((await story.call('acquire', 'b.js', 'AH-1', 700)).timeout).toBe(700);
  });

  test('a conflict rejects with an Error whose message holds "is locked by <story>"', async () => {
    const manager = at.manager();
    await manager.acquire(at.path('a.js'), 'AH-1');
    const error = await rejection(manager.acquire(at.path('a.js'), 'AH-2'));
    expect(error).toBeInstanceOf(Error);
    expect(error.message).toContain('is locked by AH-1');
    expect(error).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-1' } });
  });

  test('the same story again gets the lock that it already has, from any process', async () => {
    const manager = at.manager();
    const story = await startProcess(at.root);
    const { lockId } = await manager.acquire(at.path('a.js'), 'AH-1');
    expect((await manager.acquire(at.path('a.js'), 'AH-1')).lockId).toBe(lockId);
    expect((await story.call('acquire', 'a.js', 'AH-1')).lockId).toBe(lockId);
  });

  test('release answers true when it released and when nothing was locked', async () => {
    const manager = at.manager();
    await manager.acquire(at.path('a.js'), 'AH-1');
    expect(await manager.release(at.path('a.js'), 'AH-1')).toBe(true);
    expect(at.record('a.js')).toBeNull();
    expect(await manager.release(at.path('a.js'), 'AH-1')).toBe(true);
  });

  test('release for another story rejects with "Cannot release lock for …"', async () => {
    const manager = at.manager();
    const file = at.path('a.js');
    await manager.acquire(file, 'AH-1');
    const error = await rejection(manager.release(file, 'AH-2'));
    expect(error.message).toContain(`Cannot release lock for ${file}: owned by AH-1, not AH-2`);
    expect(at.record('a.js').storyId).toBe('AH-1');
  });

  test('status tells every lock with its age, whether it is stale, and its file', async () => {
    const manager = at.manager();
    const story = await startProcess(at.root);
    await story.call('acquire', 'dead.js', 'AH-1');
    await story.kill();
    const lock = await manager.acquire(at.path('a.js'), 'AH-2');
    const status = await manager.status();
    expect(status).toMatchObject({
      totalLocks: 2,
      staleLocks: 1,
      lockDirectory: at.path('.ai', 'locks'),
      activeLocks: [
        { storyId: 'AH-1', isStale: true, lockFile: at.recordFile('dead.js') },
        {
          lockId: lock.lockId,
          storyId: 'AH-2',
          filePath: at.path('a.js'),
          acquiredAt: lock.acquiredAt,
          timeout: 30_000,
          pid: process.pid,
          age: expect.any(Number),
          isStale: false,
          lockFile: at.recordFile('a.js'),
        },
      ],
    });
    expect(Math.abs(Date.parse(status.timestamp) - Date.now())).toBeLessThan(5000);
    expect(status).not.toHaveProperty('error');
  });

  test('status never rejects: what it could not look at is in error', async () => {
    fs.writeFileSync(at.path('.ai', 'locks'), 'a file in the place of the folder');
    const manager = at.manager();
    expect(await manager.status()).toMatchObject({
      activeLocks: [],
      totalLocks: 0,
      staleLocks: 0,
      lockDirectory: at.path('.ai', 'locks'),
      error: expect.stringContaining(at.path('.ai', 'locks')),
    });
    await manager.close();
    expect((await manager.status()).error).toContain('closed');
  });

  test.each(['cleanup', 'cleanupStoryLocks'])('%s answers how many it removed', async (name) => {
    const manager = at.manager();
    const story = await startProcess(at.root);
    await manager.acquire(at.path('a.js'), 'AH-1');
    await story.call('acquire', 'b.js', 'AH-1');
    await story.call('acquire', 'c.js', 'AH-2');
    expect(await manager[name]('AH-1')).toBe(2);
    expect(await manager[name]('AH-1')).toBe(0);
    expect([at.record('a.js'), at.record('b.js')]).toEqual([null, null]);
    expect(at.record('c.js').storyId).toBe('AH-2');
  });

  test('an old lock goes by itself, from disk and from the state file', async () => {
    const story = await startProcess(at.root);
    await story.call('acquire', 'a.js', 'AH-1', 150);
    expect(at.viewed()).toEqual(['a.js']);
    await until(() => at.record('a.js'), (record) => record === null);
    await until(() => at.viewed(), (files) => files.length === 0);
  });

  test('the lock file is <sha256 of the absolute path>.lock with its fields', async () => {
    const lock = await at.manager().acquire(at.path('not', 'there', 'yet.js'), 'AH-1');
    const { lockId, storyId, filePath, acquiredAt, timeout, pid } = lock;
    const fields = { lockId, storyId, filePath, acquiredAt, timeout, pid };
    expect(at.record('not/there/yet.js')).toMatchObject(fields);
  });

  test('the state file is { lastUpdated, activeLocks: [{ path, ...lock }] }', async () => {
    const before = Date.now();
    const lock = await at.manager().acquire(at.path('a.js'), 'AH-1');
    const { lockId, storyId, filePath, acquiredAt, timeout, pid } = lock;
    const view = JSON.parse(fs.readFileSync(at.path('.ai', 'progress', 'locks.json'), 'utf8'));
    expect(Object.keys(view)).toEqual(['lastUpdated', 'activeLocks']);
    expect(Date.parse(view.lastUpdated)).toBeGreaterThanOrEqual(before);
    expect(view.activeLocks).toMatchObject([
      { path: at.path('a.js'), lockId, storyId, filePath, acquiredAt, timeout, pid },
    ]);
  });

  describe('a lock file of the old module', () => {
    const isOld = { storyId: 'OLD-1', lockId: 'OLD-1-x', token: 0 };

    test('is honoured', async () => {
      at.plant('a.js');
      const manager = at.manager();
      const error = await rejection(manager.acquire(at.path('a.js'), 'AH-1'));
      expect(error.message).toContain('is locked by OLD-1');
      expect(await manager.check(at.path('a.js'))).toMatchObject(isOld);
      expect((await manager.status()).activeLocks).toMatchObject([{ ...isOld, isStale: false }]);
      expect((await manager.acquire(at.path('a.js'), 'OLD-1')).lockId).toBe('OLD-1-x');
    });

    test('expires, by itself too', async () => {
      at.plant('a.js', JSON.stringify(at.oldRecord('a.js', { timeout: 400 })));
      const manager = at.manager();
      await manager.acquire(at.path('c.js'), 'AH-1');
      expect(at.viewed()).toEqual(['a.js', 'c.js']);
      at.plant('b.js', JSON.stringify(at.oldRecord('b.js', { acquiredAt: 1000 })));
      const { reclaimed } = await manager.acquire(at.path('b.js'), 'AH-1');
      expect(reclaimed).toMatchObject({ storyId: 'OLD-1', lockId: 'OLD-1-x', how: 'expired' });
      await until(() => at.record('a.js'), (record) => record === null);
      await until(() => at.viewed(), (files) => !files.includes('a.js'));
    });

    test('can be released, and cleaned up, by its story alone', async () => {
      at.plant('a.js');
      at.plant('b.js');
      const manager = at.manager();
      const error = await rejection(manager.release(at.path('a.js'), 'AH-1'));
      expect(error.message).toContain('owned by OLD-1, not AH-1');
      expect(await manager.release(at.path('a.js'), 'OLD-1')).toBe(true);
      expect(at.record('a.js')).toBeNull();
      expect(await manager.cleanup('OLD-1')).toBe(1);
      expect(at.record('b.js')).toBeNull();
    });
  });

  test('the command line acquires, shows, refuses, releases and cleans up', async () => {
    const shell = (...args) => storylock(args, { cwd: at.root });
    expect(await shell('acquire', 'a.js')).toMatchObject({ code: 0 });
    expect(at.record('a.js')).toMatchObject({ storyId: 'cli-session' });
    expect(await shell('acquire', 'a.js', 'AH-1')).toMatchObject({ code: 1 });
    expect(await shell('release', 'a.js')).toMatchObject({ code: 0 });
    expect(at.record('a.js')).toBeNull();
    expect(await shell('acquire', 'b.js', 'AH-1')).toMatchObject({ code: 0 });
    expect(JSON.parse((await shell('status')).stdout)).toMatchObject({ totalLocks: 1 });
    expect(await shell('cleanup', 'AH-1')).toMatchObject({ code: 0 });
    expect(at.record('b.js')).toBeNull();
    expect((await shell()).stderr).toContain('Usage:');
  });

  test('the project is found from a subfolder', async () => {
    fs.mkdirSync(at.path('src', 'deep'), { recursive: true });
    const story = await startProcess(at.root, { cwd: at.path('src', 'deep') });
    const acquire = async ({ require }, program) => {
      const { lockManager } = require(program);
      return { ...(await lockManager.acquire('a.js', 'AH-1')), root: lockManager.root };
    };
    expect(await story.do(acquire, PROGRAM)).toMatchObject({
      root: at.root,
      filePath: at.path('src', 'deep', 'a.js'),
    });
    expect(at.record('src/deep/a.js')).toMatchObject({ storyId: 'AH-1' });
  });
});

describe('mended', () => {
  test('two processes never both win a free path', async () => {
    const files = Array.from({ length: 40 }, (_, number) => at.path(`${number}.js`));
    const stories = await startAll(2, () => startProcess(at.root));
    const winners = await contest(stories, files);
    expect(winners.filter((won) => won.length !== 1)).toEqual([]);
  });

  test('two processes never both win a stale path', async () => {
    const files = Array.from({ length: 40 }, (_, number) => at.path(`${number}.js`));
    const stories = await startAll(2, () => startProcess(at.root));
    await Promise.all(stories.map((story) => story.call('release', 'other.js', 'S')));
    for (let number = 0; number < files.length; number++) {
      const stale = at.oldRecord(`${number}.js`, { acquiredAt: 1000 });
      at.plant(`${number}.js`, JSON.stringify(stale));
    }
    const winners = await contest(stories, files);
    expect(winners.filter((won) => won.length !== 1)).toEqual([]);
  });

  test("staleness is judged by the holder's own lease, not the contender's", async () => {
    const story = await startProcess(at.root);
    const { lockId } = await story.call('acquire', 'a.js', 'AH-1', 60_000);
    await until(() => Date.now(), (now) => now > at.record('a.js').acquiredAt + 20);
    const error = await rejection(at.manager().acquire(at.path('a.js'), 'AH-2', 1));
    expect(error.message).toContain('is locked by AH-1');
    expect(at.record('a.js').lockId).toBe(lockId);
  });

  test(
    "a lease belongs to one acquisition: an earlier hold's timeout does not end a later one",
    async () => {
      const manager = at.manager();
      const earlier = await manager.acquire(at.path('a.js'), 'AH-1', 150);
      await manager.acquire(at.path('clock.js'), 'AH-1', 250);
      await manager.release(at.path('a.js'), 'AH-1');
      const later = await manager.acquire(at.path('a.js'), 'AH-1', 60_000);
      expect(later.lockId).not.toBe(earlier.lockId);
      await until(() => at.record('clock.js'), (record) => record === null);
      expect(await later.verify()).toBe(true);
      expect(at.record('a.js').lockId).toBe(later.lockId);
    },
  );

  test('a story that still works keeps its lock: scopes renew, and renew exists', async () => {
    const manager = at.manager({ timeout: 150 });
    const rival = at.manager();
    const renewed = await manager.acquire(at.path('a.js'), 'AH-1');
    await renewed.renew(60_000);
    await manager.withLock(at.path('b.js'), 'AH-1', async ({ lock }) => {
      await manager.acquire(at.path('clock.js'), 'AH-1', 300);
      await until(() => at.record('clock.js'), (record) => record === null);
      expect(await lock.verify()).toBe(true);
      expect(await rival.tryAcquire(at.path('b.js'), 'AH-2')).toBeNull();
    });
    expect(await renewed.verify()).toBe(true);
    expect(await rival.tryAcquire(at.path('a.js'), 'AH-2')).toBeNull();
  });

  test('acquire on the command line returns at once, and its lock lives on', async () => {
    const options = { cwd: at.root };
    const before = Date.now();
    const { code } = await storylock(['acquire', 'a.js', 'AH-1', '--timeout', '60000'], options);
    expect(code).toBe(0);
    expect(Date.now() - before).toBeLessThan(5000);
    await storylock(['acquire', 'b.js', 'AH-1', '--timeout', '100'], options);
    const rival = at.manager();
    await until(() => rival.tryAcquire(at.path('b.js'), 'AH-2'));
    expect(await rival.tryAcquire(at.path('a.js'), 'AH-2')).toBeNull();
    expect(at.record('a.js')).toMatchObject({ storyId: 'AH-1', timeout: 60_000 });
  });

  test("locks.json shows every process's locks", async () => {
    const stories = await startAll(3, () => startProcess(at.root));
    await Promise.all(stories.map((story, n) => story.call('acquire', `${n}.js`, `AH-${n}`)));
    expect(at.viewed()).toEqual(['0.js', '1.js', '2.js']);
    await stories[1].call('release', '1.js', 'AH-1');
    expect(at.viewed()).toEqual(['0.js', '2.js']);
  });

  test('stdout of the command line carries the answer alone', async () => {
    const story = await startProcess(at.root);
    await story.call('acquire', 'a.js', 'AH-1');
    const shown = await storylock(['status'], { cwd: at.root });
    expect(shown).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(shown.stdout).activeLocks).toMatchObject([{ storyId: 'AH-1' }]);
    const refused = await storylock(['acquire', 'a.js', 'AH-2'], { cwd: at.root });
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toContain('is locked by AH-1');
  });

  test('no call says anything unless asked', async () => {
    const story = await startProcess(at.root);
    await story.do(async ({ manager }) => {
      await manager.acquire('a.js', 'AH-1');
      await manager.acquire('a.js', 'AH-2').catch(() => {});
      await manager.acquireAll(['b.js', 'c.js'], 'AH-1', 1);
      await manager.release('a.js', 'AH-2').catch(() => {});
      await manager.renew('a.js', 'AH-1');
      await manager.check('a.js');
      await manager.status();
      await manager.release('a.js', 'AH-1');
      await manager.cleanup('AH-1');
    });
    expect(await story.kill('SIGTERM')).toMatchObject({ said: '' });
  });
});
