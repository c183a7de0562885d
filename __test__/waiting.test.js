'use strict';

/**
 * Waiting for a turn, as one who calls sees it: how long, what comes of it, what a refusal tells,
 * and what `status()` and the view show meanwhile.
 */

const fs = require('node:fs');
const os = require('node:os');

const { LockError } = require('..');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');
const { inLine, lineUp, timed, waiting } = require('./fixtures/wait-line.js');

let at;
let manager;
let file;
let held;
beforeEach(async () => {
  at = project();
  manager = at.manager();
  file = at.path('a.js');
  held = await manager.acquire(file, 'HOLDER', Infinity);
});
afterEach(cleanUp);

const viewed = () => JSON.parse(fs.readFileSync(at.path('.ai', 'progress', 'locks.json'), 'utf8'));

describe('how long', () => {
  test.each([undefined, 0])('with wait: %p it is tried once', async (wait) => {
    const error = await rejection(manager.acquire(file, 'S', { wait }));
    expect(error).toMatchObject({ code: 'ELOCKED', reason: 'held', waiters: 0, storyId: 'S' });
    for (const name of ['place', 'waitedMs', 'cycle']) expect(error).not.toHaveProperty(name);
    expect(await waiting(manager)).toEqual([]);
  });

  test('whoever waits gets the path when it is given up, and its lease begins then', async () => {
    const { turn } = await lineUp(manager, () =>
      manager.acquire(file, 'S', { wait: Infinity, timeout: 5000, reason: 'why' }),
    );
    const before = Date.now();
    await held.release();
    const lock = await turn;
    expect(lock).toMatchObject({ storyId: 'S', filePath: file, timeout: 5000, reclaimed: null });
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(before);
    expect(lock.expiresAt).toBe(lock.acquiredAt + 5000);
    expect(lock.token).toBeGreaterThan(held.token);
    expect(await manager.check(file)).toMatchObject({ lockId: lock.lockId, reason: 'why' });
    expect(await lock.verify()).toBe(true);
    expect(await lock.release()).toBe(true);
    expect(await waiting(manager)).toEqual([]);
  });

  test('a path that is free is had at once, whatever the wait', async () => {
    const lock = await manager.acquire(at.path('free'), 'S', { wait: Infinity });
    expect(lock.storyId).toBe('S');
  });

  test('when it runs out, the refusal tells how long it was, who holds, the place', async () => {
    await lineUp(manager, () => manager.acquire(file, 'FRONT', { wait: Infinity }));
    const asked = manager.acquire(file, 'S', { wait: 60 });
    const { value: error, ms } = await timed(() => rejection(asked));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({
      code: 'ELOCKED',
      reason: 'wait',
      path: file,
      storyId: 'S',
      place: 2,
      waiters: 2,
      holder: { storyId: 'HOLDER', token: held.token, remaining: null },
    });
    expect(error.waitedMs).toBeGreaterThanOrEqual(60);
    expect(error.waitedMs).toBeLessThanOrEqual(ms + 1);
    expect(error.message).toMatch(/is locked by HOLDER .* at place 2 in line/);
    expect(error.hint).toMatch(/wait longer/);
  });

  test('when it runs out the place is gone, and those behind move up', async () => {
    const impatient = rejection(manager.acquire(file, 'S1', { wait: 80 }));
    await inLine(manager, 1);
    const behind = await lineUp(manager, () => manager.acquire(file, 'S2', { wait: Infinity }));
    await impatient;
    expect(await waiting(manager)).toMatchObject([{ storyId: 'S2', place: 1 }]);
    expect(viewed().waiting).toMatchObject([{ storyId: 'S2', place: 1 }]);
    await held.release();
    expect((await behind.turn).storyId).toBe('S2');
  });

  test('a set that waited in vain has taken nothing, and is in no line any more', async () => {
    const free = at.path('free');
    const error = await rejection(manager.acquireAll([free, file], 'SET', { wait: 30 }));
    expect(error).toMatchObject({ code: 'ELOCKED', reason: 'wait', path: file, place: 1 });
    expect(await waiting(manager)).toEqual([]);
    expect(await manager.tryAcquire(free, 'OTHER')).not.toBeNull();
  });

  test('tryAcquire waits as well, and resolves to null when the wait runs out', async () => {
    expect(await manager.tryAcquire(file, 'S', { wait: 20 })).toBeNull();
    const { turn } = await lineUp(manager, () => manager.tryAcquire(file, 'S', { wait: 20_000 }));
    await held.release();
    expect((await turn).storyId).toBe('S');
  });

  test.each([
    [{ wait: -1 }, RangeError, 'ERR_OUT_OF_RANGE'],
    [{ wait: NaN }, RangeError, 'ERR_OUT_OF_RANGE'],
    [{ wait: 1.5 }, RangeError, 'ERR_OUT_OF_RANGE'],
    [{ wait: 2 ** 53 }, RangeError, 'ERR_OUT_OF_RANGE'],
    [{ wait: '5' }, TypeError, 'ERR_INVALID_ARG_TYPE'],
    [{ wait: null }, TypeError, 'ERR_INVALID_ARG_TYPE'],
    [{ signal: {} }, TypeError, 'ERR_INVALID_ARG_TYPE'],
    [{ signal: null }, TypeError, 'ERR_INVALID_ARG_TYPE'],
  ])('%p is refused before anything is touched', async (options, kind, code) => {
    for (const asked of [
      manager.acquire(at.path('free'), 'S', options),
      manager.acquireAll([at.path('free')], 'S', options),
      manager.withLock(at.path('free'), 'S', options, () => {}),
      manager.runStory('S', at.path('free'), options, () => {}),
    ]) {
      const error = await rejection(asked);
      expect([error.constructor, error.code]).toEqual([kind, code]);
    }
    expect((await manager.status()).totalLocks).toBe(1);
  });
});

describe('the end of what stands in front', () => {
  test('a lease that runs out hands over, and the next one is told whose it was', async () => {
    await held.release();
    const lease = await manager.acquire(file, 'TIMED', 60);
    const lock = await manager.acquire(file, 'S', { wait: 20_000 });
    expect(lock.reclaimed).toMatchObject({ storyId: 'TIMED', how: 'expired' });
    expect(lock.reclaimed.lockId).toBe(lease.lockId);
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(lease.expiresAt - 1);
    expect(await lease.verify()).toBe(false);
  });

  test('a lease in another process, renewed meanwhile, is waited for to its new end', async () => {
    await held.release();
    const story = await startProcess(at.root);
    await story.call('acquire', file, 'TIMED', 120);
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'S', { wait: 20_000 }));
    const renewed = await story.call('renew', file, 'TIMED', 400);
    const lock = await turn;
    expect(lock.reclaimed).toMatchObject({ storyId: 'TIMED', how: 'expired' });
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(renewed.expiresAt - 1);
  });

  test('a lock of the old module is waited for as any other', async () => {
    const old = { acquiredAt: Date.now(), timeout: 150 };
    at.plant('old.js', JSON.stringify(at.oldRecord('old.js', old)));
    const lock = await manager.acquire(at.path('old.js'), 'S', { wait: 20_000 });
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(old.acquiredAt + old.timeout - 1);
    expect(lock.reclaimed).toMatchObject({ storyId: 'OLD-1', how: 'expired' });
  });

  test('cleanup of the holder’s story hands the path over', async () => {
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'S', { wait: 20_000 }));
    expect(await at.manager().cleanup('HOLDER')).toBe(1);
    expect((await turn).storyId).toBe('S');
  });
});

describe('the limit of a line', () => {
  test('a line that is full refuses with EQUEUEFULL, and has room again later', async () => {
    const small = at.manager({ queueLimit: 2 });
    const leave = new AbortController();
    const options = { wait: Infinity, signal: leave.signal };
    await lineUp(manager, () => small.acquire(file, 'S1', options));
    await lineUp(manager, () => small.acquire(file, 'S2', { wait: Infinity }));
    const error = await rejection(small.acquire(file, 'S3', { wait: Infinity }));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ code: 'EQUEUEFULL', path: file, storyId: 'S3', waiters: 2 });
    expect(error.message).toMatch(/2 wait for .*a\.js already/);
    expect(await rejection(small.tryAcquire(file, 'S3', { wait: 1 }))).toMatchObject(error);
    const set = small.acquireAll([at.path('free'), file], 'S3', { wait: Infinity });
    expect((await rejection(set)).code).toBe('EQUEUEFULL');
    expect((await waiting(manager)).map((one) => one.storyId)).toEqual(['S1', 'S2']);
    leave.abort();
    await inLine(manager, 1);
    await lineUp(manager, () => small.acquire(file, 'S3', { wait: Infinity }));
  });

  test('each path has a line of its own, and 1000 is the limit unless said', async () => {
    const other = at.path('other');
    await manager.acquire(other, 'HOLDER', Infinity);
    const small = at.manager({ queueLimit: 1 });
    await lineUp(manager, () => small.acquire(file, 'S1', { wait: Infinity }));
    await lineUp(manager, () => small.acquire(other, 'S2', { wait: Infinity }));
    for (let number = 1; number < 1000; number++) {
      manager.acquire(file, `W${number}`, { wait: Infinity }).catch(() => {});
    }
    await inLine(manager, 1001);
    const error = await rejection(manager.acquire(file, 'W1000', { wait: Infinity }));
    expect(error).toMatchObject({ code: 'EQUEUEFULL', waiters: 1000 });
  });

  test.each([0, -1, 1.5, 100_001, NaN, Infinity])('a limit of %p is refused', (queueLimit) => {
    expect(() => at.manager({ queueLimit })).toThrow(RangeError);
  });
});

describe('status and the view', () => {
  test('show who waits for what, since when, where, and when the lease in front ends', async () => {
    const other = at.path('b.js');
    await manager.acquire(other, 'TIMED', 25_000);
    const before = Date.now();
    await lineUp(manager, () => manager.acquire(file, 'S1', { wait: Infinity, reason: 'why' }));
    await lineUp(manager, () => manager.acquireAll([other, file], 'SET', { wait: Infinity }));
    const [first, second, third] = await waiting(manager);
    expect(first).toEqual({
      filePath: file,
      storyId: 'S1',
      pid: process.pid,
      mode: 'exclusive',
      recursive: false,
      host: os.hostname(),
      since: expect.any(Number),
      waited: expect.any(Number),
      place: 1,
      estimate: null,
      paths: 1,
      reason: 'why',
    });
    expect(first.since).toBeGreaterThanOrEqual(before);
    expect(Math.abs(first.since + first.waited - Date.now())).toBeLessThan(5000);
    expect(second).toMatchObject({ filePath: file, storyId: 'SET', place: 2, paths: 2 });
    expect(third).toMatchObject({ filePath: other, storyId: 'SET', place: 1, paths: 2 });
    expect(third.reason).toBeNull();
    expect(third.estimate).toBeGreaterThan(0);
    expect(third.estimate).toBeLessThanOrEqual(25_000);
    const { since } = first;
    expect(viewed().waiting).toEqual(
      expect.arrayContaining([
        { path: file, storyId: 'S1', place: 1, since, pid: process.pid },
        expect.objectContaining({ path: file, storyId: 'SET', place: 2 }),
        expect.objectContaining({ path: other, storyId: 'SET', place: 1 }),
      ]),
    );
  });

  test('say nothing of a line when nobody waits any more', async () => {
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'S', { wait: Infinity }));
    await held.release();
    await turn;
    expect(await waiting(manager)).toEqual([]);
    expect(viewed()).not.toHaveProperty('waiting');
    expect(fs.readdirSync(at.path('.ai', 'locks', 'queue'))).toEqual([]);
  });

  test('a refusal tells how long the line is to one who does not wait', async () => {
    await lineUp(manager, () => manager.acquire(file, 'S1', { wait: Infinity }));
    await lineUp(manager, () => manager.acquire(file, 'S2', { wait: Infinity }));
    const error = await rejection(manager.acquire(file, 'S3'));
    expect(error).toMatchObject({ code: 'ELOCKED', reason: 'held', waiters: 2 });
    expect(error.message).toMatch(/2 others wait for it/);
  });

  test('a path that is kept for a set is refused in its name', async () => {
    const free = at.path('free');
    await lineUp(manager, () => manager.acquireAll([free, file], 'SET', { wait: Infinity }));
    const error = await rejection(manager.acquire(free, 'S'));
    expect(error).toMatchObject({ code: 'ELOCKED', reason: 'held', path: free, waiters: 1 });
    expect(error.message).toMatch(/is kept for SET .*2 paths/);
    expect(error.holder).toBeUndefined();
  });
});

describe('scopes wait as acquire does', () => {
  test.each([
    ['withLock', (fn, wait) => manager.withLock(file, 'S', { wait }, fn)],
    ['withLock of a set', (fn, wait) => manager.withLock([file, at.path('b')], 'S', { wait }, fn)],
    ['runStory', (fn, wait) => manager.runStory('S', file, { wait }, fn)],
    ['runStory of a set', (fn, wait) => manager.runStory('S', [file, at.path('b')], { wait }, fn)],
  ])('%s', async (_, scope) => {
    const seen = [];
    const work = async () => {
      seen.push(await manager.check(file));
      return 'done';
    };
    const refused = await rejection(scope(work, 20));
    expect(refused).toMatchObject({ code: 'ELOCKED', reason: 'wait' });
    expect(seen).toEqual([]);
    const { turn } = await lineUp(manager, () => scope(work, 20_000));
    await held.release();
    expect(await turn).toBe('done');
    expect(seen).toMatchObject([{ storyId: 'S', timeout: Infinity }]);
    await until(async () => (await manager.status()).totalLocks === 0);
  });

  test('a story that waited in vain is cleaned up as one that failed', async () => {
    await manager.acquire(at.path('b'), 'S');
    const error = await rejection(manager.runStory('S', file, { wait: 20 }, () => {}));
    expect(error).toMatchObject({ code: 'ELOCKED', reason: 'wait' });
    expect(await manager.check(at.path('b'))).toBeNull();
  });
});
