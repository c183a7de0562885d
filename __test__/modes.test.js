'use strict';

/**
 * Modes: readers share a path, a writer has it alone; one becomes the other in place, in turn, and
 * no reader that has died counts.
 */

const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');

const { LockError } = require('..');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');
const { inLine, lineUp, waiting } = require('./fixtures/wait-line.js');

const SHARED = { mode: 'shared' };

let at;
let manager;
let file;
beforeEach(() => {
  at = project();
  manager = at.manager();
  file = at.path('a.js');
});
afterEach(cleanUp);

const read = (storyId, options) => manager.acquire(file, storyId, { ...SHARED, ...options });
const storiesOf = (holders) => holders.map(({ storyId }) => storyId);

/** The stories that hold the file, as `check` tells. */
async function holders() {
  const holder = await manager.check(file);
  return holder === null ? [] : storiesOf([holder, ...holder.others]);
}

describe('readers', () => {
  test('share a path, each with its own token, and a writer is refused meanwhile', async () => {
    const [a, b] = [await read('A'), await at.manager().acquire(file, 'B', SHARED)];
    const c = await read('C');
    expect([a, b, c].map(({ mode, recursive }) => [mode, recursive])).toEqual([
      ['shared', false],
      ['shared', false],
      ['shared', false],
    ]);
    expect(new Set([a, b, c].map(({ token }) => token)).size).toBe(3);
    expect(await holders()).toEqual(['A', 'B', 'C']);
    expect(await manager.tryAcquire(file, 'W')).toBeNull();
    for (const lock of [a, b, c]) {
      expect(await lock.verify()).toBe(true);
      expect(await lock.release()).toBe(true);
    }
    expect((await manager.acquire(file, 'W')).mode).toBe('exclusive');
    expect(await manager.tryAcquire(file, 'A', SHARED)).toBeNull();
  });

  test('of several processes share a path', async () => {
    const other = await startProcess(at.root);
    await read('A', { timeout: Infinity });
    await other.call('acquire', file, 'B', { ...SHARED, timeout: Infinity });
    expect(await holders()).toEqual(['A', 'B']);
    expect(await other.call('tryAcquire', file, 'W')).toBeNull();
    await other.call('release', file, 'B');
    expect(await holders()).toEqual(['A']);
  });

  test('are all named to the writer that they keep out', async () => {
    await read('A');
    await read('B');
    const error = await rejection(manager.acquire(file, 'W'));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ code: 'ELOCKED', path: file, holder: { storyId: 'A' } });
    expect(error.message).toContain('is locked by A');
    expect(storiesOf(error.holders)).toEqual(['A', 'B']);
    expect(error.holders[0]).toEqual(error.holder);
    for (const { mode } of error.holders) expect(mode).toBe('shared');
  });

  test('are all shown: by check, status, the record and the view', async () => {
    const a = await read('A', { reason: 'to look' });
    const b = await read('B');
    const holder = await manager.check(file);
    expect(holder).toMatchObject({ lockId: a.lockId, mode: 'shared', reason: 'to look' });
    expect(holder.others).toMatchObject([{ lockId: b.lockId, mode: 'shared', reason: null }]);
    const { activeLocks, totalLocks } = await manager.status();
    expect(totalLocks).toBe(2);
    expect(activeLocks.map(({ lockId, mode }) => [lockId, mode])).toEqual([
      [a.lockId, 'shared'],
      [b.lockId, 'shared'],
    ]);
    const shown = { lockId: a.lockId, storyId: 'A', mode: 'shared', others: [{ storyId: 'B' }] };
    expect(at.record('a.js')).toMatchObject(shown);
    const view = fs.readFileSync(at.path('.ai', 'progress', 'locks.json'), 'utf8');
    expect(JSON.parse(view).activeLocks).toMatchObject([{ path: file, ...shown }]);
  });

  test('of one manager are told of their own losses alone', async () => {
    const [a, b] = [await read('A'), await read('B')];
    const lost = jest.fn();
    manager.on('compromised', lost);
    const aborted = once(a.signal, 'abort');
    await at.manager().release(file, 'A');
    await aborted;
    expect(lost.mock.calls.map(([error, lock]) => [error.storyId, lock])).toEqual([['A', a]]);
    expect(b.signal.aborted).toBe(false);
    expect(await b.verify()).toBe(true);
    expect(await b.release()).toBe(true);
  });

  test('that ended are not in the way: not a killed one, nor one whose lease is over', async () => {
    const other = await startProcess(at.root);
    await other.call('acquire', file, 'KILLED', { ...SHARED, timeout: Infinity });
    await read('SHORT', { timeout: 50 });
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'W', { wait: 20_000 }));
    await other.kill();
    expect((await turn).storyId).toBe('W');
    expect(await holders()).toEqual(['W']);
  });

  test('a reader that is killed leaves the others what they have', async () => {
    const other = await startProcess(at.root);
    await other.call('acquire', file, 'KILLED', { ...SHARED, timeout: Infinity });
    const lock = await read('A');
    await other.kill();
    await until(holders, (all) => all.join() === 'A');
    expect(await lock.verify()).toBe(true);
    expect((await read('B')).mode).toBe('shared');
  });
});

describe('a story has one lock on a path', () => {
  test('a writer that asks to read gets its lock as it is', async () => {
    const lock = await manager.acquire(file, 'S');
    const again = await read('S');
    expect([again.lockId, again.mode]).toEqual([lock.lockId, 'exclusive']);
    expect(await manager.tryAcquire(file, 'T', SHARED)).toBeNull();
  });

  test('a reader that asks to write has its lock raised, under its token', async () => {
    const lock = await read('S');
    const again = await manager.acquire(file, 'S');
    expect([again.lockId, again.token, again.mode]).toEqual([lock.lockId, lock.token, 'exclusive']);
    expect(again.signal).toBe(lock.signal);
    expect(await manager.tryAcquire(file, 'T', SHARED)).toBeNull();
  });

  test('a set that names a path twice has the stronger kind', async () => {
    const set = await manager.acquireAll([{ path: file, ...SHARED }, file], 'S');
    expect(set.locks.map(({ mode }) => mode)).toEqual(['exclusive']);
  });

  test('what an entry says goes before what the options say', async () => {
    const entries = [file, { path: at.path('b.js'), mode: 'exclusive' }];
    const { locks } = await manager.acquireAll(entries, 'S', SHARED);
    expect(locks.map(({ mode }) => mode)).toEqual(['shared', 'exclusive']);
  });
});

describe('turns', () => {
  test('a reader does not overtake a writer that waits', async () => {
    const first = await read('A');
    const writer = await lineUp(manager, () => manager.acquire(file, 'W', { wait: 20_000 }));
    expect(await manager.tryAcquire(file, 'B', SHARED)).toBeNull();
    const reader = await lineUp(manager, () => read('B', { wait: 20_000 }));
    expect((await waiting(manager)).map(({ storyId, mode }) => [storyId, mode])).toEqual([
      ['W', 'exclusive'],
      ['B', 'shared'],
    ]);
    await first.release();
    const written = await writer.turn;
    expect(await holders()).toEqual(['W']);
    await written.release();
    await reader.turn;
    expect(await holders()).toEqual(['B']);
  });

  test('readers in line are served together', async () => {
    const writer = await manager.acquire(file, 'W');
    const turns = [];
    for (const name of ['A', 'B', 'C']) {
      turns.push((await lineUp(manager, () => read(name, { wait: 20_000 }))).turn);
    }
    await writer.release();
    await Promise.all(turns);
    expect(await holders()).toEqual(['A', 'B', 'C']);
  });
});

describe('upgrade', () => {
  test('of the only reader is done at once, in place', async () => {
    const lock = await read('S');
    const { token, signal } = lock;
    expect(await lock.upgrade()).toBe(lock);
    expect([lock.mode, lock.token]).toEqual(['exclusive', token]);
    expect(await lock.upgrade()).toBe(lock);
    expect(signal.aborted).toBe(false);
    expect(at.record('a.js')).not.toHaveProperty('others');
    expect(await manager.tryAcquire(file, 'T', SHARED)).toBeNull();
  });

  test('is refused while others read, and nothing has changed', async () => {
    const lock = await read('S');
    await read('T');
    const error = await rejection(lock.upgrade());
    expect(error).toMatchObject({ code: 'ELOCKED', storyId: 'S', holder: { storyId: 'T' } });
    expect(lock.mode).toBe('shared');
    expect(await lock.verify()).toBe(true);
    expect(await holders()).toEqual(['S', 'T']);
  });

  test('waits for the other readers, before a writer that came later', async () => {
    const lock = await read('S');
    const other = await read('T');
    const raised = await lineUp(manager, () => lock.upgrade({ wait: 20_000 }));
    const writer = await lineUp(manager, () => manager.acquire(file, 'W', { wait: 20_000 }));
    expect(await manager.tryAcquire(file, 'R', SHARED)).toBeNull();
    await other.release();
    expect(await raised.turn).toBe(lock);
    expect(lock.mode).toBe('exclusive');
    expect(await holders()).toEqual(['S']);
    await lock.release();
    expect((await writer.turn).storyId).toBe('W');
  });

  test('goes before a writer that waits for this very reader', async () => {
    const lock = await read('S');
    const writer = await lineUp(manager, () => manager.acquire(file, 'W', { wait: 20_000 }));
    await lock.upgrade({ wait: 20_000 });
    expect(await holders()).toEqual(['S']);
    await lock.release();
    expect((await writer.turn).storyId).toBe('W');
  });

  test('of two readers at once is a circle, and the second is told so', async () => {
    const other = await startProcess(at.root);
    const lock = await read('S');
    await other.do(async ({ manager: mine, held }, name) => {
      held.lock = await mine.acquire(name, 'T', { mode: 'shared', timeout: Infinity });
    }, file);
    const raised = await lineUp(manager, () =>
      other.do(async ({ held }) => (await held.lock.upgrade({ wait: 20_000 })).mode),
    );
    const error = await rejection(lock.upgrade({ wait: 20_000 }));
    expect(error).toMatchObject({ name: 'LockError', code: 'EDEADLK', path: file, storyId: 'S' });
    expect(error.cycle.map(({ storyId, heldBy }) => [storyId, heldBy])).toEqual([
      ['S', 'T'],
      ['T', 'S'],
    ]);
    expect(await lock.verify()).toBe(true);
    await lock.release();
    expect(await raised.turn).toBe('exclusive');
  });

  test('that is called off, or whose time is up, leaves a reader and no line', async () => {
    const lock = await read('S');
    await read('T');
    const stop = new AbortController();
    const raised = lock.upgrade({ wait: Infinity, signal: stop.signal });
    await inLine(manager, 1);
    const reason = new Error('enough');
    stop.abort(reason);
    expect(await rejection(raised)).toBe(reason);
    const late = await rejection(lock.upgrade({ wait: 20 }));
    expect(late).toMatchObject({ code: 'ELOCKED', reason: 'wait' });
    expect(await waiting(manager)).toEqual([]);
    expect([lock.mode, await lock.verify()]).toEqual(['shared', true]);
    expect((await read('R')).mode).toBe('shared');
  });

  test('of a lock that was given up or lost takes nothing', async () => {
    const released = await read('S');
    await released.release();
    const lost = await read('T');
    await at.manager().release(file, 'T');
    for (const lock of [released, lost]) {
      const error = await rejection(lock.upgrade({ wait: 20_000 }));
      expect(error).toBeInstanceOf(LockError);
      expect(error).toMatchObject({ code: 'ECOMPROMISED', path: file, storyId: lock.storyId });
    }
    expect(await holders()).toEqual([]);
  });

  test('of a lock that is another’s by now waits for nothing', async () => {
    const lock = await read('S');
    await lock.release();
    await manager.acquire(file, 'T');
    const upgraded = lock.upgrade({ wait: Infinity });
    expect((await rejection(upgraded)).code).toBe('ECOMPROMISED');
    expect(await waiting(manager)).toEqual([]);
  });

  test('ends with the lock when that is lost while it waits', async () => {
    const lock = await read('S');
    const other = await read('T');
    const { turn } = await lineUp(manager, () => lock.upgrade({ wait: Infinity }));
    const refused = rejection(turn);
    await at.manager().release(file, 'S');
    expect(await refused).toMatchObject({ code: 'ECOMPROMISED', storyId: 'S' });
    await other.release();
    expect([await holders(), await waiting(manager)]).toEqual([[], []]);
  });

  test('in a scope ends with the scope', async () => {
    const mode = await manager.withLock(file, 'S', SHARED, async ({ lock }) => {
      await lock.upgrade();
      expect(await manager.tryAcquire(file, 'T', SHARED)).toBeNull();
      return lock.mode;
    });
    expect(mode).toBe('exclusive');
    expect(await holders()).toEqual([]);
  });

  test('of a detached lock leaves it detached', async () => {
    const lock = await read('S', { detached: true, timeout: 60_000 });
    await lock.upgrade();
    expect(await manager.check(file)).toMatchObject({ mode: 'exclusive', detached: true });
    await manager.close();
    manager = at.manager();
    expect(await holders()).toEqual(['S']);
  });
});

describe('downgrade', () => {
  test('lets readers in, and leaves no moment to a writer', async () => {
    const lock = await manager.acquire(file, 'S');
    const { token } = lock;
    const reader = await lineUp(manager, () => read('R', { wait: 20_000 }));
    const writer = await lineUp(manager, () => manager.acquire(file, 'W', { wait: 20_000 }));
    expect(await lock.downgrade()).toBe(lock);
    expect([lock.mode, lock.token]).toEqual(['shared', token]);
    await reader.turn;
    expect(await holders()).toEqual(['S', 'R']);
    expect(await waiting(manager)).toMatchObject([{ storyId: 'W' }]);
    await lock.release();
    await manager.release(file, 'R');
    expect((await writer.turn).mode).toBe('exclusive');
  });

  test('of a lock that was given up is refused, and a reader stays one', async () => {
    const lock = await read('S');
    expect((await lock.downgrade()).mode).toBe('shared');
    await lock.release();
    expect((await rejection(lock.downgrade())).code).toBe('ECOMPROMISED');
  });

  test('of a detached lock lets readers in too', async () => {
    const lock = await manager.acquire(file, 'S', { detached: true, timeout: 60_000 });
    expect((await lock.downgrade()).mode).toBe('shared');
    expect(await manager.check(file)).toMatchObject({ mode: 'shared', detached: true });
  });

  test('keeps what another manager of the process wants of the lock', async () => {
    const lock = await manager.acquire(file, 'S');
    const other = await at.manager().acquire(file, 'S');
    expect((await lock.downgrade()).mode).toBe('exclusive');
    expect(await manager.tryAcquire(file, 'T', SHARED)).toBeNull();
    await other.release();
    await until(() => manager.tryAcquire(file, 'T', SHARED));
  });
});

describe('each scope wants its own kind', () => {
  const modeNow = async () => (await manager.check(file))?.mode ?? 'free';

  test('a scope that writes inside one that reads leaves a reader', async () => {
    await manager.withLock(file, 'S', SHARED, async ({ lock }) => {
      await manager.withLock(file, 'S', async ({ lock: inner }) => {
        expect([inner.token, inner.mode]).toEqual([lock.token, 'exclusive']);
        expect(await modeNow()).toBe('exclusive');
      });
      expect(await modeNow()).toBe('shared');
    });
    expect(await modeNow()).toBe('free');
  });

  test('a scope that reads inside one that writes leaves a writer', async () => {
    await manager.withLock(file, 'S', async () => {
      await manager.withLock(file, 'S', SHARED, async ({ lock }) => {
        expect(lock.mode).toBe('exclusive');
      });
      expect(await modeNow()).toBe('exclusive');
    });
    expect(await modeNow()).toBe('free');
  });

  test('two that overlap end as they began, whichever ends first', async () => {
    const gates = [gate(), gate()];
    const begun = [gate(), gate()];
    const hold = (i, options) =>
      manager.withLock(file, 'S', options, () => {
        begun[i].resolve();
        return gates[i].promise;
      });
    const reading = hold(0, SHARED);
    await begun[0].promise;
    const writing = hold(1, {});
    await begun[1].promise;
    gates[0].resolve();
    await reading;
    expect(await modeNow()).toBe('exclusive');
    gates[1].resolve();
    await writing;
    expect(await modeNow()).toBe('free');
  });

  test('a lock raised in a scope is as before when the scope ends', async () => {
    const lock = await read('S', { timeout: 60_000 });
    await manager.withLock(file, 'S', SHARED, async ({ lock: inner }) => {
      await inner.upgrade();
      expect(await modeNow()).toBe('exclusive');
    });
    expect(await manager.check(file)).toMatchObject({ mode: 'shared', timeout: 60_000 });
    expect(await lock.release()).toBe(true);
    expect(await modeNow()).toBe('free');
  });

  test('a scope’s lock is lowered and raised, and ends with the scope', async () => {
    await manager.withLock([file, at.path('src')], 'S', { recursive: true }, async ({ locks }) => {
      for (const lock of locks) {
        expect((await lock.downgrade()).mode).toBe('shared');
        expect(await manager.check(lock.filePath)).toMatchObject({ mode: 'shared' });
        expect((await lock.upgrade()).mode).toBe('exclusive');
        expect((await lock.downgrade()).mode).toBe('shared');
        expect(lock.recursive).toBe(true);
        expect(lock.timeout).toBe(Infinity);
      }
      expect((await read('T')).mode).toBe('shared');
    });
    expect(await holders()).toEqual(['T']);
    expect((await manager.status()).totalLocks).toBe(1);
  });

  test('an upgrade in a scope that is refused leaves it a reader, and free at its end', async () => {
    const other = await read('T');
    await manager.withLock(file, 'S', SHARED, async ({ lock }) => {
      expect((await rejection(lock.upgrade({ wait: 20 }))).code).toBe('ELOCKED');
      await other.release();
      expect(await modeNow()).toBe('shared');
    });
    expect(await modeNow()).toBe('free');
  });

  /** A promise and what resolves it. */
  function gate() {
    const made = {};
    made.promise = new Promise((resolve) => Object.assign(made, { resolve }));
    return made;
  }
});

describe('scopes and patches', () => {
  test('scopes of several stories read side by side', async () => {
    await manager.withLock(file, 'A', SHARED, async ({ lock }) => {
      expect(lock.mode).toBe('shared');
      await at.manager().runStory('B', [file], SHARED, async ({ locks }) => {
        expect(locks[0].mode).toBe('shared');
        expect(await holders()).toEqual(['A', 'B']);
      });
      expect(await holders()).toEqual(['A']);
    });
    expect(await holders()).toEqual([]);
  });

  test('a patch under a shared lock is refused, and the file stays', async () => {
    fs.writeFileSync(file, 'one\n');
    const lock = await read('S');
    await read('T');
    const error = await rejection(manager.applyPatch(file, 'S', 'two\n', { lock }));
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOTACQUIRED', path: file });
    expect(error.hint).toEqual(expect.any(String));
    expect((await rejection(manager.applyPatch(file, 'S', 'two\n'))).code).toBe('ELOCKED');
    expect(fs.readFileSync(file, 'utf8')).toBe('one\n');
    await manager.release(file, 'T');
    await lock.upgrade();
    await manager.applyPatch(file, 'S', 'two\n', { lock });
    expect(fs.readFileSync(file, 'utf8')).toBe('two\n');
    expect(path.basename(lock.filePath)).toBe('a.js');
  });

  test('a patch by the only reader leaves it a reader', async () => {
    const lock = await read('S');
    await manager.applyPatch(file, 'S', 'two\n');
    expect(await lock.verify()).toBe(true);
    expect(await manager.check(file)).toMatchObject({ storyId: 'S', mode: 'shared' });
  });
});
