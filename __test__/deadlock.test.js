'use strict';

/**
 * Deadlock: the request that would close a circle of stories is refused at once, and names the
 * circle; the others go on. No circle is missed and none invented, through any number of processes,
 * paths and sets.
 */

const { LockError } = require('..');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');
const { BEFORE_SLOW_LOOK, lineUp, timed, waiting } = require('./fixtures/wait-line.js');

const WAIT = { wait: 20_000 };

let at;
let manager;
beforeEach(() => {
  at = project();
  manager = at.manager();
});
afterEach(cleanUp);

/** A story in a process of its own that holds these paths. */
async function holder(name, ...paths) {
  const story = await startProcess(at.root);
  if (paths.length > 0) await story.call('acquireAll', paths, name, Infinity);
  return {
    ...story,
    name,
    kill: () => story.kill(),
    ask: (...wanted) => story.call('acquireAll', wanted, name, WAIT),
    lineUp: (...wanted) => lineUp(manager, () => story.call('acquireAll', wanted, name, WAIT)),
    release: (path) => story.call('release', path, name),
  };
}

const arm = (storyId, path, heldBy) => ({ storyId, path: at.path(path), heldBy });

describe('a request that would close a circle is refused at once, and the others go on:', () => {
  test('two stories that want each other’s path', async () => {
    const a = await holder('A', 'x');
    const b = await holder('B', 'y');
    const { turn } = await a.lineUp('y');
    const { value: error, ms } = await timed(() => rejection(b.ask('x')));
    expect(error).toMatchObject({
      name: 'LockError',
      code: 'EDEADLK',
      path: at.path('x'),
      storyId: 'B',
      cycle: [arm('B', 'x', 'A'), arm('A', 'y', 'B')],
    });
    expect(error.message).toMatch(
      /B would wait for ever: B waits for x, held by A; A waits for y, held by B\. Nothing /,
    );
    expect(ms).toBeLessThan(BEFORE_SLOW_LOOK);
    expect(await waiting(manager)).toMatchObject([{ storyId: 'A', filePath: at.path('y') }]);
    expect(await manager.check(at.path('y'))).toMatchObject({ storyId: 'B' });
    await b.release('y');
    expect((await turn).storyId).toBe('A');
  });

  test('three stories in three processes', async () => {
    const [a, b, c] = [await holder('A', 'x'), await holder('B', 'y'), await holder('C', 'z')];
    const first = await a.lineUp('y');
    const second = await b.lineUp('z');
    const error = await rejection(c.ask('x'));
    expect(error.code).toBe('EDEADLK');
    expect(error.cycle).toEqual([arm('C', 'x', 'A'), arm('A', 'y', 'B'), arm('B', 'z', 'C')]);
    await c.release('z');
    await second.turn;
    await b.release('y');
    expect((await first.turn).storyId).toBe('A');
  });

  test('a circle through sets', async () => {
    const a = await holder('A', 'a1', 'a2');
    const b = await holder('B', 'b1');
    const c = await holder('C', 'c1');
    await a.lineUp('free1', 'b1');
    await b.lineUp('c1', 'free2');
    const error = await rejection(c.ask('free3', 'a2', 'c1'));
    expect(error).toMatchObject({ code: 'EDEADLK', storyId: 'C' });
    expect(error.cycle).toEqual([arm('C', 'a2', 'A'), arm('A', 'b1', 'B'), arm('B', 'c1', 'C')]);
    expect((await waiting(manager)).some((one) => one.storyId === 'C')).toBe(false);
    expect(await manager.tryAcquire(at.path('free3'), 'D')).not.toBeNull();
  });

  test('a circle through a story that works in two processes', async () => {
    const a = await holder('A', 'x');
    const b = await holder('B', 'y');
    const alsoA = await holder('A');
    await alsoA.lineUp('y');
    const error = await rejection(b.ask('x'));
    expect(error.cycle).toEqual([arm('B', 'x', 'A'), arm('A', 'y', 'B')]);
    await a.kill();
    expect((await b.ask('x')).storyId).toBe('B');
  });

  test('two stories in one process, whatever the call', async () => {
    const [x, y] = [at.path('x'), at.path('y')];
    await manager.acquire(x, 'A', Infinity);
    await manager.acquire(y, 'B', Infinity);
    await lineUp(manager, () => manager.acquire(y, 'A', WAIT));
    const fn = jest.fn();
    for (const ask of [
      () => manager.acquire(x, 'B', WAIT),
      () => manager.tryAcquire(x, 'B', { wait: 1 }),
      () => manager.acquireAll([at.path('z'), x], 'B', { wait: Infinity }),
      () => manager.withLock(x, 'B', WAIT, fn),
    ]) {
      const error = await rejection(ask());
      expect(error).toBeInstanceOf(LockError);
      expect(error.cycle).toEqual([arm('B', 'x', 'A'), arm('A', 'y', 'B')]);
    }
    expect(fn).not.toHaveBeenCalled();
    // Nobody waits for ever who does not wait at all.
    expect(await rejection(manager.acquire(x, 'B'))).toMatchObject({ reason: 'held' });
  });
});

describe('no circle is invented:', () => {
  test('a chain is none, however long', async () => {
    const names = ['A', 'B', 'C', 'D'];
    const stories = await Promise.all(names.map((name) => holder(name, name)));
    const turns = [];
    for (const [number, story] of stories.slice(0, 3).entries()) {
      turns.push(await story.lineUp(names[number + 1]));
    }
    const outsider = await lineUp(manager, () => manager.acquire(at.path('A'), 'E', WAIT));
    await stories[3].release('D');
    for (const number of [2, 1, 0]) {
      await turns[number].turn;
      await stories[number].release(names[number]);
    }
    expect((await outsider.turn).storyId).toBe('E');
  });

  test('the dead hold nothing and wait for nothing', async () => {
    const a = await holder('A', 'x');
    const b = await holder('B', 'y');
    await a.lineUp('y');
    await a.kill();
    expect((await b.ask('x')).storyId).toBe('B');
  });

  test('a story does not hold what a dead process of it held', async () => {
    const dead = await holder('D', 'a');
    const alive = await holder('D');
    const other = await holder('B', 'b');
    const s = await holder('S', 'x');
    await alive.lineUp('x');
    await dead.kill();
    const { turn } = await s.lineUp('a', 'b');
    await other.release('b');
    expect((await turn).storyId).toBe('S');
  });

  test('a lease that ends, a waiter that left, and one whose wait ran out', async () => {
    const [x, y] = [at.path('x'), at.path('y')];
    await manager.acquire(y, 'B', Infinity);
    const timedA = await manager.acquire(x, 'A', 150);
    const abort = new AbortController();
    const options = { wait: Infinity, signal: abort.signal };
    const { turn } = await lineUp(manager, () => manager.acquire(y, 'A', options));
    expect((await rejection(manager.acquire(x, 'B', WAIT))).code).toBe('EDEADLK');
    abort.abort();
    await rejection(turn);
    const lock = await manager.acquire(x, 'B', WAIT);
    expect(lock.reclaimed).toMatchObject({ lockId: timedA.lockId, how: 'expired' });
    await lock.release();
    await manager.acquire(x, 'A', Infinity);
    expect((await rejection(manager.acquire(y, 'A', { wait: 10 }))).code).toBe('ELOCKED');
    expect((await rejection(manager.acquire(x, 'B', { wait: 10 }))).code).toBe('ELOCKED');
  });

  test('a story waits for what it holds itself without waiting', async () => {
    const [x, y] = [at.path('x'), at.path('y')];
    await manager.acquire(x, 'A', Infinity);
    const held = await manager.acquire(y, 'B', Infinity);
    const { turn } = await lineUp(manager, () => manager.acquireAll([x, y], 'A', WAIT));
    await held.release();
    expect((await turn).locks).toHaveLength(2);
  });
});

describe('a circle through a place in a line is no deadlock:', () => {
  test('a set gives way to the story that it waits for', async () => {
    const [p, q, r] = ['p', 'q', 'r'].map((name) => at.path(name));
    await manager.acquire(p, 'S', Infinity);
    const heldByU = await manager.acquire(q, 'U', Infinity);
    const set = await lineUp(manager, () => manager.acquireAll([q, r], 'SET', WAIT));
    // r is free, but kept for the set, which waits for U, which waits for S, which wants r.
    const kept = await lineUp(manager, () => manager.acquire(r, 'S', WAIT));
    const { turn } = await lineUp(manager, () => manager.acquire(p, 'U', WAIT));
    expect((await kept.turn).storyId).toBe('S');
    await manager.cleanup('S');
    await turn;
    await heldByU.release();
    expect((await set.turn).locks).toHaveLength(2);
  });

  test('nor is one let in whose other wait would close a circle', async () => {
    const [p, q] = [at.path('p'), at.path('q')];
    const first = await manager.acquire(p, 'H', Infinity);
    const held = await manager.acquire(q, 'W', Infinity);
    const sForP = await lineUp(manager, () => manager.acquire(p, 'S', WAIT));
    const sForQ = await lineUp(manager, () => manager.acquire(q, 'S', WAIT));
    const wForP = await lineUp(manager, () => manager.acquire(p, 'W', WAIT));
    await first.release();
    // S is in front, but waits for W elsewhere: W goes first.
    await (await wForP.turn).release();
    expect((await sForP.turn).storyId).toBe('S');
    await held.release();
    expect((await sForQ.turn).storyId).toBe('S');
  });
});

test('of paths taken in any order every circle is refused, and none invented', async () => {
  const paths = ['x', 'y', 'z'].map((name) => at.path(name));
  const stories = await startAll(4, () => startProcess(at.root));
  /** Answers how often it met a circle, and each circle that was none. */
  const wander = async ({ manager: mine }, name, all, rounds) => {
    const outcome = { done: 0, circles: 0, invented: [] };
    const shuffled = () => {
      const drawn = all.map((path) => ({ path, by: Math.random() }));
      return drawn.sort((one, other) => one.by - other.by).map(({ path }) => path);
    };
    while (outcome.done < rounds) {
      try {
        for (const path of shuffled().slice(0, 2)) await mine.acquire(path, name, { wait: 10_000 });
        outcome.done += 1;
      } catch (error) {
        if (error.code !== 'EDEADLK') throw error;
        outcome.circles += 1;
        // The circle stands until this story gives something up: what it says can be looked up.
        const { activeLocks, waiting: line } = await mine.status();
        for (const { storyId, path, heldBy } of error.cycle) {
          const holds = activeLocks.some((one) => one.filePath === path && one.storyId === heldBy);
          const waits = line.some((one) => one.filePath === path && one.storyId === storyId);
          if (!holds || (storyId !== name && !waits)) outcome.invented.push(error.message);
        }
      }
      await mine.cleanup(name);
    }
    return outcome;
  };
  const outcomes = await Promise.all(
    stories.map((story, number) => story.do(wander, `S${number}`, paths, 120)),
  );
  expect(outcomes.flatMap(({ invented }) => invented)).toEqual([]);
  expect(outcomes.map(({ done }) => done)).toEqual([120, 120, 120, 120]);
  expect(outcomes.reduce((sum, { circles }) => sum + circles, 0)).toBeGreaterThan(0);
  await until(async () => (await manager.status()).totalLocks === 0);
});
