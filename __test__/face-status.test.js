'use strict';

/** What a manager tells of everything that is held, and how it lets go of what it has. */

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { project, newManager, cleanUp, rejection, run } = require('./fixtures/face.js');

let root;
let file;
beforeEach(() => {
  ({ root, file } = project());
});
afterEach(cleanUp);

describe('status, cleanup and close', () => {
  test('status tells everything that is held, by every manager', async () => {
    const manager = newManager();
    const lock = await newManager().acquire(file, 'S', { timeout: 5000, reason: 'why' });
    const status = await manager.status();
    expect(status).toEqual({
      activeLocks: [
        {
          lockId: lock.lockId,
          storyId: 'S',
          filePath: file,
          acquiredAt: lock.acquiredAt,
          timeout: 5000,
          pid: process.pid,
          token: lock.token,
          expiresAt: lock.expiresAt,
          mode: 'exclusive',
          recursive: false,
          host: os.hostname(),
          detached: false,
          reason: 'why',
          remaining: expect.any(Number),
          age: expect.any(Number),
          isStale: false,
          lockFile: expect.stringMatching(/\/\.ai\/locks\/[0-9a-f]{64}\.lock$/),
        },
      ],
      totalLocks: 1,
      staleLocks: 0,
      lockDirectory: path.join(root, '.ai', 'locks'),
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      unreadable: [],
      waiting: [],
    });
    expect(fs.existsSync(status.activeLocks[0].lockFile)).toBe(true);
  });

  test('stale locks are counted, and unreadable ones named', async () => {
    const manager = newManager();
    await manager.acquire(file, 'S');
    const recordOf = (letter) => path.join(root, '.ai', 'locks', `${letter.repeat(64)}.lock`);
    const old = { lockId: 'T-1', storyId: 'T', filePath: '/gone', timeout: 1, pid: 1 };
    fs.writeFileSync(recordOf('a'), JSON.stringify({ ...old, acquiredAt: 1 }));
    fs.writeFileSync(recordOf('b'), 'no record');
    const status = await manager.status();
    expect(status.activeLocks.map((lock) => [lock.storyId, lock.isStale])).toEqual([
      ['T', true],
      ['S', false],
    ]);
    expect([status.totalLocks, status.staleLocks]).toEqual([2, 1]);
    expect(status.unreadable).toEqual([recordOf('b')]);
  });

  test('status never rejects: what could not be looked at is told', async () => {
    const nothing = { activeLocks: [], totalLocks: 0, staleLocks: 0, unreadable: [], waiting: [] };
    const manager = newManager();
    await manager.acquire(file, 'S');
    await manager.close();
    expect(await manager.status()).toEqual({
      ...nothing,
      lockDirectory: path.join(root, '.ai', 'locks'),
      timestamp: expect.any(String),
      error: expect.stringMatching(/closed/),
    });
    fs.writeFileSync(path.join(root, 'plain'), '');
    const broken = newManager({ root: path.join(root, 'plain') });
    expect(await broken.status()).toMatchObject({
      ...nothing,
      error: expect.stringMatching(/plain/),
    });
  });

  test('status answers even where there is no working directory', () => {
    const script = `
      const { LockManager } = require(process.argv[1]);
      const gone = require('node:fs').mkdtempSync(process.argv[2] + '/gone-');
      process.chdir(gone);
      require('node:fs').rmdirSync(gone);
      const manager = new LockManager();
      (async () => {
        const status = await manager.status();
        const error = await manager.acquire('/tmp/a', 'S').catch((error) => error);
        console.log(JSON.stringify({ status, name: error.name, code: error.code }));
      })();
    `;
    const { status, name, code } = run(script);
    expect(status).toMatchObject({ activeLocks: [], lockDirectory: '', error: expect.any(String) });
    expect([name, code]).toEqual(['LockError', 'ENOENT']);
  });

  test('cleanup gives up the story’s locks alone and counts them', async () => {
    const manager = newManager();
    await manager.acquireAll([file, path.join(root, 'b')], 'S');
    await manager.acquire(path.join(root, 'c'), 'T');
    expect(await manager.cleanup('S')).toBe(2);
    expect(await manager.cleanupStoryLocks('S')).toBe(0);
    expect((await manager.status()).activeLocks.map((lock) => lock.storyId)).toEqual(['T']);
  });

  test('close gives up the locks taken through this manager, and may be called twice', async () => {
    const manager = newManager();
    const other = newManager();
    const lock = await manager.acquire(file, 'S', Infinity);
    await other.acquire(path.join(root, 'b'), 'T', Infinity);
    await Promise.all([manager.close(), manager.close()]);
    await manager.close();
    expect((await other.status()).activeLocks.map((one) => one.storyId)).toEqual(['T']);
    for (const call of [
      () => manager.acquire(file, 'S'),
      () => manager.acquireAll([file], 'S'),
      () => manager.release(file, 'S'),
      () => manager.renew(file, 'S'),
      () => manager.check(file),
      () => manager.withLock(file, 'S', () => {}),
      () => manager.runStory('S', file, () => {}),
      () => manager.cleanup('S'),
      () => lock.renew(),
      () => lock.verify(),
      () => lock.release(),
    ]) {
      const error = await rejection(call());
      expect([error.constructor, error.code]).toEqual([Error, 'ERR_INVALID_STATE']);
    }
  });

  test('a manager that was never used can be closed', async () => {
    const manager = newManager();
    await manager.close();
    expect((await rejection(manager.acquire(file, 'S'))).code).toBe('ERR_INVALID_STATE');
  });
});
