'use strict';

/**
 * Leases: a timed one ends on time by itself unless it is renewed, a bound one with its process;
 * and who has lost a lock is told, and can do nothing to whoever has it now.
 */

const { LockError } = require('..');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

const LONG = 600_000;

let at;
let file;
beforeEach(() => {
  at = project();
  file = at.path('a.js');
});
afterEach(cleanUp);

/** A lock whose lease has ended. */
async function ended(manager, storyId = 'AH-1', timeout = 60) {
  const lock = await manager.acquire(file, storyId, timeout);
  await until(() => at.record('a.js'), (record) => record === null);
  return lock;
}

/** What a story process is told of its losses from now on, kept there in `held.told`. */
const listen = ({ manager, held }) => {
  held.told = [];
  manager.on('compromised', (error, lock) => {
    const { code, path, storyId, message } = error;
    held.told.push({ code, path, storyId, message, lockId: lock.lockId });
  });
};
const told = ({ held }) => held.told;

describe('a timed lease', () => {
  test('ends by itself, on disk and in the view, without any call', async () => {
    const story = await startProcess(at.root);
    await story.call('acquireAll', ['a.js', 'b.js'], 'AH-1', 300);
    await story.call('acquire', 'c.js', 'AH-1', LONG);
    expect(at.viewed()).toEqual(['a.js', 'b.js', 'c.js']);
    await until(() => at.viewed(), (files) => String(files) === 'c.js');
    expect([at.record('a.js'), at.record('b.js')]).toEqual([null, null]);
    expect(at.record('c.js')).not.toBeNull();
  });

  test('is not over before its time', async () => {
    const story = await startProcess(at.root);
    const { acquiredAt, expiresAt } = await story.call('acquire', 'a.js', 'AH-1', 400);
    expect(expiresAt - acquiredAt).toBe(400);
    const rival = at.manager();
    const lock = await until(() => rival.tryAcquire(file, 'AH-2'));
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(expiresAt);
    expect(lock.acquiredAt).toBeLessThan(expiresAt + 5000);
  });

  test('ends on time though its process stands still, which is told when it goes on', async () => {
    const story = await startProcess(at.root);
    await story.do(listen);
    await story.do(async ({ manager, held }) => {
      held.lock = await manager.acquire('a.js', 'AH-1', 200);
    });
    process.kill(story.pid, 'SIGSTOP');
    const rival = at.manager();
    const next = await until(() => rival.tryAcquire(file, 'AH-2', LONG));
    process.kill(story.pid, 'SIGCONT');
    const [loss] = await until(() => story.do(told), (losses) => losses.length > 0);
    expect(loss).toMatchObject({ code: 'ECOMPROMISED', path: file, storyId: 'AH-1' });
    expect(await story.do(({ held }) => held.lock.release())).toBe(false);
    expect(await next.verify()).toBe(true);
  });
});

describe('a bound lease', () => {
  test('has no end but its process', async () => {
    const story = await startProcess(at.root);
    const lock = await story.call('acquire', 'a.js', 'AH-1', Infinity);
    expect(lock).toMatchObject({ timeout: Infinity, expiresAt: null });
    const manager = at.manager();
    const holder = await manager.check(file);
    expect(holder).toMatchObject({ timeout: Infinity, expiresAt: null, remaining: null });
    const error = await rejection(manager.acquire(file, 'AH-2', 1));
    expect(error.holder.storyId).toBe('AH-1');
    await story.kill();
    expect(await manager.check(file)).toBeNull();
  });

  test('can be made timed, and a timed one bound, by renewing it', async () => {
    const manager = at.manager();
    const lock = await manager.acquire(file, 'AH-1', LONG);
    await lock.renew(Infinity);
    expect(await manager.check(file)).toMatchObject({ timeout: Infinity, expiresAt: null });
    await lock.renew(80);
    await until(() => at.record('a.js'), (record) => record === null);
  });
});

describe('renewing', () => {
  test('begins the lease anew, so that the lock outlives its first end', async () => {
    const manager = at.manager();
    const lock = await manager.acquire(file, 'AH-1', 400);
    await lock.renew(LONG);
    await manager.acquire(at.path('clock.js'), 'AH-1', 450);
    await until(() => at.record('clock.js'), (record) => record === null);
    expect(await lock.verify()).toBe(true);
    expect(lock.signal.aborted).toBe(false);
    expect(at.record('a.js').lockId).toBe(lock.lockId);
  });

  test('works by the lock and by the path, from any process of the story', async () => {
    const story = await startProcess(at.root);
    const manager = at.manager();
    const lock = await manager.acquire(file, 'AH-1', LONG);
    const ends = [lock.expiresAt];
    for (const renew of [
      async () => (await lock.renew()).expiresAt,
      async () => (await manager.renew(file, 'AH-1')).expiresAt,
      async () => (await story.call('renew', file, 'AH-1')).expiresAt,
    ]) {
      await until(() => Date.now(), (now) => now > ends.at(-1) - LONG);
      ends.push(await renew());
      expect(at.record('a.js').expiresAt).toBe(ends.at(-1));
    }
    expect(ends).toEqual([...new Set(ends)].sort((one, other) => one - other));
  });

  test('keeps the token and the lock id', async () => {
    const lock = await at.manager().acquire(file, 'AH-1', 5000);
    const { token, lockId } = lock;
    expect(await lock.renew(LONG)).toBe(lock);
    expect(lock).toMatchObject({ token, lockId, timeout: LONG });
    expect(at.record('a.js')).toMatchObject({ token, lockId, timeout: LONG });
  });

  test('what the story does not hold rejects with ENOTACQUIRED', async () => {
    const manager = at.manager();
    const free = await rejection(manager.renew(file, 'AH-1'));
    expect(free).toMatchObject({ code: 'ENOTACQUIRED', path: file, storyId: 'AH-1' });
    expect(free.hint).toContain('Acquire it again');
    await manager.acquire(file, 'AH-2');
    const other = await rejection(manager.renew(file, 'AH-1'));
    expect(other.message).toContain('AH-2');
    expect(other.holder.storyId).toBe('AH-2');
  });
});

describe('a lease that ended', () => {
  test('cannot be renewed, released or verified, though nobody took the path', async () => {
    const manager = at.manager();
    const lock = await ended(manager);
    expect(await lock.verify()).toBe(false);
    expect(await rejection(lock.renew())).toMatchObject({ code: 'ECOMPROMISED' });
    expect(await rejection(manager.renew(file, 'AH-1'))).toMatchObject({ code: 'ENOTACQUIRED' });
    expect(await lock.release()).toBe(false);
  });

  test.each([
    ['another story', 'AH-2'],
    ['the same story', 'AH-1'],
  ])('cannot be renewed, released or verified over a successor of %s', async (_, storyId) => {
    const [manager, rival] = [at.manager(), at.manager()];
    const lock = await ended(manager);
    const next = await rival.acquire(file, storyId, LONG);
    const before = at.record('a.js');
    expect(await lock.verify()).toBe(false);
    expect(await rejection(lock.renew(1))).toMatchObject({ code: 'ECOMPROMISED' });
    expect(await lock.release()).toBe(false);
    await lock[Symbol.asyncDispose]();
    expect(at.record('a.js')).toEqual(before);
    expect(await next.verify()).toBe(true);
    expect(next.token).toBeGreaterThan(lock.token);
  });

  test('is told once, by the event with its lock and by the signal', async () => {
    const manager = at.manager();
    const losses = [];
    manager.on('compromised', (...loss) => losses.push(loss));
    const lock = await manager.acquire(file, 'AH-1', 80);
    const { signal } = lock;
    await until(() => signal.aborted);
    expect(losses).toHaveLength(1);
    const [[error, lost]] = losses;
    expect(lost).toBe(lock);
    expect(signal.reason).toBe(error);
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ code: 'ECOMPROMISED', path: file, storyId: 'AH-1' });
    expect(error.message).toContain('its lease ended');
    await at.manager().acquire(file, 'AH-2');
    await lock.release();
    expect(losses).toHaveLength(1);
  });

  test('is told once though the event loop was too busy to see it end', async () => {
    const story = await startProcess(at.root);
    await story.do(listen);
    await story.do(async ({ manager, held }) => {
      held.lock = await manager.acquire('a.js', 'AH-1', 150);
    });
    const busy = story.do(({ held }) => {
      const end = Date.now() + 600;
      while (Date.now() < end);
      return held.lock.verify();
    });
    const rival = at.manager();
    const next = await until(() => rival.tryAcquire(file, 'AH-2', LONG));
    expect(await busy).toBe(false);
    expect(await until(() => story.do(told), (losses) => losses.length > 0)).toHaveLength(1);
    expect(await next.verify()).toBe(true);
  });

  test('harms nobody who does not listen, and a listener that throws is a warning', async () => {
    const story = await startProcess(at.root);
    const warned = await story.do(async ({ manager, storylock, pause }) => {
      const warnings = [];
      process.on('warning', (warning) => warnings.push(warning.message));
      const rude = new storylock.LockManager({ root: manager.root });
      rude.on('compromised', () => {
        throw new Error('a listener failed');
      });
      await manager.acquire('a.js', 'AH-1', 50);
      await rude.acquire('b.js', 'AH-1', 50);
      while (warnings.length === 0) await pause(5);
      return warnings;
    });
    expect(warned).toEqual([expect.stringContaining('a listener failed')]);
    expect(await story.call('tryAcquire', 'a.js', 'AH-2')).not.toBeNull();
  });
});

describe("a successor's lock", () => {
  let story;
  let next;
  /** A story whose lease ended, and this process's lock on the same path. */
  beforeEach(async () => {
    story = await startProcess(at.root);
    await story.do(async ({ manager, held }) => {
      held.lock = await manager.acquire('a.js', 'AH-1', 60);
      await manager.acquire('other.js', 'AH-1', Infinity);
    });
    const rival = at.manager();
    next = await until(() => rival.tryAcquire(file, 'AH-2', LONG));
  });
  afterEach(async () => {
    expect(await next.verify()).toBe(true);
    expect(next.signal.aborted).toBe(false);
  });

  test('is not touched by release', async () => {
    expect(await story.do(({ held }) => held.lock.release())).toBe(false);
    const error = await rejection(story.call('release', 'a.js', 'AH-1'));
    expect(error.message).toContain('owned by AH-2, not AH-1');
  });

  test('is not touched by cleanup', async () => {
    expect(await story.call('cleanup', 'AH-1')).toBe(1);
  });

  test('is not touched by close', async () => {
    await story.call('close');
    expect(at.record('other.js')).toBeNull();
  });

  test('is not touched by exit', async () => {
    await story.do(() => {
      setImmediate(() => process.exit(0));
    });
    expect(await story.ended).toMatchObject({ code: 0 });
    expect(at.record('other.js')).toBeNull();
  });

  test('is not touched by a kill', async () => {
    await story.kill('SIGKILL');
    expect(await at.manager().check(at.path('other.js'))).toBeNull();
  });

  test('is not touched by all of these in one breath', async () => {
    const answers = await story.do(({ held, manager }) =>
      Promise.allSettled([
        held.lock.release(),
        held.lock.renew(),
        manager.release('a.js', 'AH-1'),
        manager.cleanup('AH-1'),
        manager.close(),
      ]),
    );
    expect(answers.map(({ status }) => status)).toEqual([
      'fulfilled', 'rejected', 'rejected', 'fulfilled', 'fulfilled',
    ]);
  });
});
