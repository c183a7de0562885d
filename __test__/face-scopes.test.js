'use strict';

/** Scopes: a lock that is held exactly as long as some work runs. */

const { EventEmitter, once } = require('node:events');
const path = require('node:path');
const { LockError, Lock } = require('..');
const { project, newManager, cleanUp, rejection } = require('./fixtures/face.js');

let root;
let file;
beforeEach(() => {
  ({ root, file } = project());
});
afterEach(cleanUp);

describe('scopes', () => {
  test('the lock is held, bound, while the work runs, whose answer is the scope’s', async () => {
    const manager = newManager();
    const answer = await manager.withLock(file, 'S', async ({ lock, signal }) => {
      expect(lock).toBeInstanceOf(Lock);
      expect(lock.timeout).toBe(Infinity);
      expect(signal).toBe(lock.signal);
      expect(await manager.tryAcquire(file, 'T')).toBeNull();
      return 42;
    });
    expect(answer).toBe(42);
    expect(await manager.check(file)).toBeNull();
    expect(await manager.withLock(file, 'S', () => 'plain')).toBe('plain');
  });

  test('a scope of several paths gives the locks in order, also for a set of one', async () => {
    const manager = newManager();
    const b = path.join(root, 'b');
    await manager.withLock([file, b, file], 'S', {}, async (scope) => {
      expect(Object.keys(scope)).toEqual(['locks', 'signal']);
      expect(scope.locks.map((lock) => lock.filePath)).toEqual([file, b]);
      expect(scope.signal.aborted).toBe(false);
    });
    await manager.withLock([file], 'S', ({ locks }) => expect(locks).toHaveLength(1));
    expect((await manager.status()).totalLocks).toBe(0);
  });

  test.each([[new Error('the work failed')], ['a string'], [undefined]])(
    'the lock is let go of when the work throws %p, and that comes out as it is',
    async (thrown) => {
      const manager = newManager();
      for (const paths of [file, [file]]) {
        let caught = 'nothing';
        await manager
          .withLock(paths, 'S', () => {
            throw thrown;
          })
          .catch((error) => (caught = error));
        expect(caught).toBe(thrown);
        expect(await manager.check(file)).toBeNull();
      }
    },
  );

  test('the work does not run when the path is held', async () => {
    const manager = newManager();
    await manager.acquire(file, 'S');
    const work = jest.fn();
    const error = await rejection(manager.withLock(file, 'T', work));
    expect(error.code).toBe('ELOCKED');
    expect(work).not.toHaveBeenCalled();
  });

  test('scopes of one story nest: the last to end frees the path', async () => {
    const manager = newManager();
    await manager.withLock(file, 'S', async ({ lock }) => {
      await manager.withLock(file, 'S', async ({ lock: inner }) => {
        expect(inner.lockId).toBe(lock.lockId);
      });
      const failing = manager.withLock(file, 'S', () => Promise.reject(new Error('inner')));
      expect((await rejection(failing)).message).toBe('inner');
      expect(await lock.verify()).toBe(true);
    });
    expect(await manager.check(file)).toBeNull();
  });

  test('a scope that ends leaves whoever else needs the lock their signal', async () => {
    const manager = newManager();
    const rival = newManager();
    const loseAfterInner = async (lock) => {
      await manager.withLock(file, 'S', () => {});
      const aborted = once(lock.signal, 'abort');
      await rival.release(file, 'S');
      await aborted;
      return lock.signal.reason.code;
    };
    expect(await loseAfterInner(await manager.acquire(file, 'S'))).toBe('ECOMPROMISED');
    const inScope = manager.withLock(file, 'S', ({ lock }) => loseAfterInner(lock));
    expect((await rejection(inScope)).code).toBe('ECOMPROMISED');
  });

  test('a scope leaves its story the lock that it had before, with its lease', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S', 60_000);
    await manager.withLock(file, 'S', async () => {
      expect((await manager.check(file)).timeout).toBe(Infinity);
    });
    expect((await manager.check(file)).timeout).toBe(60_000);
    expect(await lock.release()).toBe(true);
  });

  test('a scope that begins while another of its story ends holds the lock', async () => {
    const manager = newManager();
    const lost = jest.fn();
    manager.on('compromised', lost);
    const many = Array.from({ length: 200 }, (_, i) => path.join(root, `many-${i}`));
    for (let i = 0; i < 5; i++) {
      const gate = new EventEmitter();
      const begun = once(gate, 'begun');
      const first = manager.withLock(file, 'S', () => {
        gate.emit('begun');
        return once(gate, 'end');
      });
      await begun;
      // While the engine is busy with these, the beginning and the end meet in one batch.
      const busy = manager.acquireAll(many, 'T');
      const second = manager.withLock(file, 'S', ({ lock }) => lock.verify());
      gate.emit('end');
      expect(await second).toBe(true);
      await first;
      await (await busy).release();
    }
    expect(lost).not.toHaveBeenCalled();
    expect(await manager.check(file)).toBeNull();
  });

  test('a lock lost while the work runs is told at once, and its success is none', async () => {
    const manager = newManager();
    const rival = newManager();
    const taken = path.join(root, 'b');
    for (const paths of [taken, [file, taken]]) {
      let reason;
      const error = await rejection(
        manager.withLock(paths, 'S', async ({ signal }) => {
          const aborted = once(signal, 'abort');
          await rival.release(taken, 'S');
          await aborted;
          reason = signal.reason;
          return 'done';
        }),
      );
      expect(error).toBeInstanceOf(LockError);
      expect(error).toMatchObject({ code: 'ECOMPROMISED', path: taken, storyId: 'S' });
      expect(error.cause).toBe(reason);
      expect(error.message).toBe(reason.message);
      expect(await manager.check(file)).toBeNull();
    }
  });

  test('a loss leads to the scope’s caller', async () => {
    const manager = newManager();
    const rival = newManager();
    async function theCaller() {
      await manager.withLock(file, 'S', () => rival.release(file, 'S'));
    }
    expect((await rejection(theCaller())).stack).toMatch(/theCaller/);
  });

  test('the work’s own error comes before the loss of the lock', async () => {
    const manager = newManager();
    const rival = newManager();
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation();
    const own = new Error('the work failed');
    const error = await rejection(
      manager.withLock(file, 'S', async () => {
        await rival.release(file, 'S');
        throw own;
      }),
    );
    expect(error).toBe(own);
    expect(warned).not.toHaveBeenCalled();
  });

  test('a lock given up by name while the work runs rejects too', async () => {
    const manager = newManager();
    for (const work of [() => manager.release(file, 'S'), () => manager.cleanup('S')]) {
      const error = await rejection(manager.withLock(file, 'S', work));
      expect(error).toMatchObject({ code: 'ECOMPROMISED', path: file, storyId: 'S' });
      expect(error.message).toContain('released or cleaned up meanwhile');
    }
  });

  test('a scope keeps its lock though the work in it releases the object', async () => {
    const manager = newManager();
    await manager.withLock(file, 'S', async ({ lock }) => {
      await lock.release();
      expect(await lock.verify()).toBe(true);
      expect(await manager.tryAcquire(file, 'OTHER')).toBeNull();
    });
    expect(await manager.check(file)).toBeNull();
  });

  test('a loss is told in a scope whose lock the work has released once', async () => {
    const manager = newManager();
    const rival = newManager();
    const scope = manager.withLock(file, 'S', async ({ lock, signal }) => {
      await lock.release();
      const aborted = once(signal, 'abort');
      await rival.release(file, 'S');
      await aborted;
    });
    expect((await rejection(scope)).code).toBe('ECOMPROMISED');
  });

  test('a manager closed while the work runs gives the lock up and says so', async () => {
    const manager = newManager();
    const error = await rejection(manager.withLock(file, 'S', () => manager.close()));
    expect(error.code).toBe('ERR_INVALID_STATE');
    expect(await newManager().check(file)).toBeNull();
  });

  test('a scope that fails twice tells the second failure as a warning', async () => {
    const manager = newManager();
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation();
    const own = new Error('the work failed');
    const work = async () => {
      await manager.close();
      throw own;
    };
    expect(await rejection(manager.withLock(file, 'S', work))).toBe(own);
    expect(warned).toHaveBeenCalledTimes(1);
    expect(warned.mock.calls[0][0]).toMatch(/^S may still hold its locks: .*closed/);
  });

  test('a story run leaves no lock of the story, whatever happens', async () => {
    const manager = newManager();
    const other = path.join(root, 'other');
    const answer = await manager.runStory('S', [file], async ({ locks, signal }) => {
      expect([locks.length, signal.aborted]).toEqual([1, false]);
      await manager.acquire(other, 'S', Infinity);
      return 'done';
    });
    expect(answer).toBe('done');
    expect((await manager.status()).totalLocks).toBe(0);

    const own = Object.assign(new Error('the work failed'), { code: 'ERR_INVALID_ARG_VALUE' });
    const failing = manager.runStory('S', file, { reason: 'why' }, async ({ lock }) => {
      expect(lock.filePath).toBe(file);
      await manager.acquire(other, 'S', Infinity);
      throw own;
    });
    expect(await rejection(failing)).toBe(own);
    expect((await manager.status()).totalLocks).toBe(0);

    await manager.acquire(file, 'T');
    await manager.acquire(other, 'S', Infinity);
    const work = jest.fn();
    expect((await rejection(manager.runStory('S', file, work))).code).toBe('ELOCKED');
    expect(work).not.toHaveBeenCalled();
    expect((await manager.status()).activeLocks.map((lock) => lock.storyId)).toEqual(['T']);
  });

  test('a story run with a bad argument cleans nothing up', async () => {
    const manager = newManager();
    await manager.acquire(file, 'S');
    expect((await rejection(manager.runStory('S', '', () => {}))).code).toBe(
      'ERR_INVALID_ARG_VALUE',
    );
    expect((await rejection(manager.runStory('S', file, {}))).code).toBe('ERR_INVALID_ARG_TYPE');
    expect((await manager.status()).totalLocks).toBe(1);
  });
});
