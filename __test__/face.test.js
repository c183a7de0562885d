'use strict';

/** What callers are given and told: options, errors, locks, sets. */

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { LockError, Lock, LockSet } = require('..');
const { project, newManager, cleanUp, rejection, run } = require('./fixtures/face.js');

let root;
let file;
beforeEach(() => {
  ({ root, file } = project());
});
afterEach(cleanUp);

describe('options', () => {
  test('a number is the lease, as is the option; without one it is the manager’s', async () => {
    const manager = newManager({ timeout: 70_000 });
    const leaseOf = async (...options) => {
      const lock = await manager.acquire(file, 'S', ...options);
      await lock.release();
      expect(lock.expiresAt).toBeGreaterThanOrEqual(lock.acquiredAt + lock.timeout);
      return lock.timeout;
    };
    expect(await leaseOf(60_000)).toBe(60_000);
    expect(await leaseOf({ timeout: 60_000 })).toBe(60_000);
    expect(await leaseOf()).toBe(70_000);
    expect(await leaseOf(undefined)).toBe(70_000);
    expect(await leaseOf({})).toBe(70_000);
    expect(await leaseOf({ timeout: undefined, reason: undefined })).toBe(70_000);
    expect((await newManager().acquire(file, 'S')).timeout).toBe(30_000);
  });

  test('a bound lease has no end', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S', Infinity);
    expect([lock.timeout, lock.expiresAt]).toEqual([Infinity, null]);
    const holder = await manager.check(file);
    expect([holder.timeout, holder.expiresAt, holder.remaining]).toEqual([Infinity, null, null]);
    const [listed] = (await manager.status()).activeLocks;
    expect([listed.timeout, listed.expiresAt]).toEqual([Infinity, null]);
  });

  test('a reason is shown to whoever is refused', async () => {
    const manager = newManager();
    await manager.acquire(file, 'S', { reason: 'the great rename' });
    const error = await rejection(manager.acquire(file, 'T'));
    expect(error.message).toContain('the great rename');
    expect(error.holder.reason).toBe('the great rename');
    await manager.withLock(path.join(root, 'b'), 'S', { reason: 'a scope' }, async ({ lock }) => {
      expect((await manager.check(lock.filePath)).reason).toBe('a scope');
    });
  });

  test('a detached lock stays when its manager closes, and its story can release it', async () => {
    const first = newManager();
    await first.acquire(file, 'S', { detached: true, timeout: 60_000 });
    await first.close();
    const next = newManager();
    expect(await next.check(file)).toMatchObject({ storyId: 'S', detached: true });
    expect(await next.release(file, 'S')).toBe(true);
    expect(await next.check(file)).toBeNull();
  });

  test('a root is resolved where the manager is made', () => {
    const script = `
      const { LockManager } = require(process.argv[1]);
      const manager = new LockManager({ root: 'project' });
      process.chdir('/');
      console.log(JSON.stringify(manager.root));
    `;
    expect(run(script)).toBe(path.join(root, 'project'));
  });
});

describe('errors', () => {
  test('a refusal says who holds the path, as text and as data', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'AH-007');
    const error = await rejection(manager.acquire(file, 'AH-011'));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({
      name: 'LockError',
      code: 'ELOCKED',
      path: file,
      storyId: 'AH-011',
      hint: expect.any(String),
    });
    expect(error.message).toMatch(/is locked by AH-007/);
    expect(error.message).toContain(error.hint);
    expect(Object.keys(error)).not.toContain('name');
    expect(error.holder).toEqual({
      lockId: lock.lockId,
      storyId: 'AH-007',
      filePath: file,
      acquiredAt: lock.acquiredAt,
      timeout: 30_000,
      pid: process.pid,
      token: lock.token,
      host: os.hostname(),
      mode: 'exclusive',
      recursive: false,
      heldFor: expect.any(Number),
      remaining: expect.any(Number),
      expiresAt: lock.expiresAt,
      detached: false,
      reason: null,
    });
    expect(error.holders).toEqual([error.holder]);
    expect(await manager.check(file)).toEqual({
      ...error.holder,
      heldFor: expect.any(Number),
      remaining: expect.any(Number),
      others: [],
    });
  });

  test('a refusal leads to the caller', async () => {
    const manager = newManager();
    await manager.acquire(file, 'S');
    async function theCaller() {
      await manager.acquireAll([file], 'T');
    }
    expect((await rejection(theCaller())).stack).toMatch(/theCaller/);
  });

  test('what is not known is absent from an error', () => {
    const error = new LockError('it failed', { code: 'EIO' });
    expect({ ...error }).toStrictEqual({ code: 'EIO' });
    expect('cause' in error).toBe(false);
    expect(new LockError('it failed').message).toBe('it failed');
    expect(String(error)).toBe('LockError: it failed');
  });

  test('another story’s lock is not released', async () => {
    const manager = newManager();
    await manager.acquire(file, 'AH-007');
    const error = await rejection(manager.release(file, 'AH-011'));
    expect(error).toBeInstanceOf(LockError);
    expect(error.message).toMatch(
      /^Cannot release lock for .*app\.js: owned by AH-007, not AH-011/,
    );
    expect(error.holder.storyId).toBe('AH-007');
    expect((await manager.check(file)).storyId).toBe('AH-007');
  });

  test('what is not held is not renewed', async () => {
    const error = await rejection(newManager().renew(file, 'S'));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ code: 'ENOTACQUIRED', path: file, storyId: 'S' });
  });

  test('tryAcquire answers null for a conflict and rejects for everything else', async () => {
    const manager = newManager();
    expect(await manager.tryAcquire(file, 'S')).toBeInstanceOf(Lock);
    expect(await manager.tryAcquire(file, 'T')).toBeNull();
    fs.writeFileSync(path.join(root, 'plain'), '');
    const broken = newManager({ root: path.join(root, 'plain') });
    const error = await rejection(broken.tryAcquire(file, 'S'));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ code: 'ENOTDIR', path: expect.any(String) });
    await manager.close();
    expect((await rejection(manager.tryAcquire(file, 'T'))).code).toBe('ERR_INVALID_STATE');
  });
});

describe('locks', () => {
  test('a lock is plain data for those who copy or print it', async () => {
    const lock = await newManager().acquire(file, 'AH-011', 5000);
    expect({ ...lock }).toEqual({
      lockId: expect.stringMatching(/^AH-011/),
      storyId: 'AH-011',
      filePath: file,
      acquiredAt: expect.any(Number),
      timeout: 5000,
      pid: process.pid,
      token: expect.any(Number),
      expiresAt: expect.any(Number),
      mode: 'exclusive',
      recursive: false,
      reclaimed: null,
    });
    expect(JSON.parse(JSON.stringify(lock))).toEqual({ ...lock });
    expect(Math.abs(Date.now() - lock.acquiredAt)).toBeLessThan(5000);
  });

  test('a story that asks again is given the same grant', async () => {
    const manager = newManager();
    const first = await manager.acquire(file, 'S', 5000);
    const again = await manager.acquire(file, 'S', 9000);
    expect({ ...again }).toEqual({ ...first });
    expect(again.signal).toBe(first.signal);
  });

  test('tokens rise', async () => {
    const manager = newManager();
    const { locks } = await manager.acquireAll(
      ['a', 'b'].map((name) => path.join(root, name)),
      'S',
    );
    const later = await manager.acquire(file, 'S');
    const tokens = [...locks, later].map((lock) => lock.token);
    expect(tokens).toEqual([...tokens].sort((a, b) => a - b));
    expect(new Set(tokens).size).toBe(3);
  });

  test('renew begins the lease anew and answers the same lock', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S', 5000);
    expect(await lock.renew(60_000)).toBe(lock);
    expect(lock.timeout).toBe(60_000);
    expect(lock.expiresAt).toBeGreaterThan(lock.acquiredAt + 50_000);
    expect((await lock.renew()).timeout).toBe(60_000);
    const byName = await manager.renew(file, 'S', 90_000);
    expect(byName).toMatchObject({ lockId: lock.lockId, token: lock.token, timeout: 90_000 });
    expect(byName.signal).toBe(lock.signal);
    for (const timeout of [null, '1', 0]) {
      expect((await rejection(lock.renew(timeout))).code).toMatch(/^ERR_/);
    }
  });

  test('release tells whether the lock was held until then', async () => {
    const lock = await newManager().acquire(file, 'S');
    expect(await lock.verify()).toBe(true);
    expect(await lock.release()).toBe(true);
    expect(await lock.verify()).toBe(false);
    expect(await lock.release()).toBe(false);
  });

  test('a handle of a former grant does nothing to its successor', async () => {
    const manager = newManager();
    const former = await manager.acquire(file, 'S');
    await former.release();
    const lock = await manager.acquire(file, 'S');
    expect(await former.release()).toBe(false);
    expect(await former.verify()).toBe(false);
    const error = await rejection(former.renew());
    expect(error).toBeInstanceOf(LockError);
    expect(error.code).toBe('ECOMPROMISED');
    expect(await lock.verify()).toBe(true);
  });

  test('disposal releases, and a lock that is gone is no error then', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S');
    await lock[Symbol.asyncDispose]();
    expect(await manager.check(file)).toBeNull();
    await lock[Symbol.asyncDispose]();
    const set = await manager.acquireAll([file], 'S');
    await set[Symbol.asyncDispose]();
    expect(await manager.check(file)).toBeNull();
  });

  test('a set is locked in the order asked for, each path once', async () => {
    const manager = newManager();
    const b = path.join(root, 'b');
    const set = await manager.acquireAll([b, file, `${root}/./b`, file], 'S', { timeout: 5000 });
    expect(set).toBeInstanceOf(LockSet);
    expect(set.storyId).toBe('S');
    expect(set.locks.map((lock) => lock.filePath)).toEqual([b, file]);
    expect(await set.renew(60_000)).toBe(set);
    expect(set.locks.map((lock) => lock.timeout)).toEqual([60_000, 60_000]);
    expect(await set.verify()).toBe(true);
    await set.locks[0].release();
    expect(await set.verify()).toBe(false);
    expect((await rejection(set.renew())).code).toBe('ECOMPROMISED');
    expect(await set.release()).toBe(false);
    expect((await manager.status()).totalLocks).toBe(0);
  });

  test('a set of which one path is held is not locked at all', async () => {
    const manager = newManager();
    await manager.acquire(file, 'S');
    const error = await rejection(manager.acquireAll([path.join(root, 'a'), file], 'T'));
    expect(error).toMatchObject({ code: 'ELOCKED', path: file });
    expect((await manager.status()).totalLocks).toBe(1);
  });
});
