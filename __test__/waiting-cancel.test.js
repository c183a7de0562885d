'use strict';

/**
 * Calling a wait off: by a signal, by a wait that runs out, by closing the manager. Of a turn that
 * comes in the same moment exactly one outcome is told, and what was granted to one who left passes
 * on at once.
 */

const { getEventListeners, setMaxListeners } = require('node:events');
const fs = require('node:fs');
const { setTimeout: pause } = require('node:timers/promises');

const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');
const { BEFORE_SLOW_LOOK, inLine, lineUp, timed, waiting } = require('./fixtures/wait-line.js');

let at;
let manager;
let file;
let controller;
let signal;
beforeEach(() => {
  at = project();
  manager = at.manager();
  file = at.path('a.js');
  controller = new AbortController();
  ({ signal } = controller);
});
afterEach(cleanUp);

/** One outcome as text. */
const told = (promise) =>
  promise.then(
    (lock) => (lock ? 'granted' : 'null'),
    (error) => (error instanceof DOMException ? error.name : error.code),
  );

/** How often each outcome was told. */
function tally(outcomes) {
  const counts = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

describe('a signal', () => {
  const ask = () => manager.acquire(file, 'S', { wait: Infinity, signal });
  const ways = [
    ['acquire', (...given) => manager.acquire(file, 'S', ...given)],
    ['tryAcquire', (...given) => manager.tryAcquire(file, 'S', ...given)],
    ['acquireAll', (...given) => manager.acquireAll([at.path('b'), file], 'S', ...given)],
    ['withLock', (...given) => manager.withLock(file, 'S', ...given, () => 'done')],
    ['runStory', (...given) => manager.runStory('S', [file], ...given, () => 'done')],
  ];

  test.each(ways)('aborted already: %s rejects with its reason', async (_, way) => {
    const reason = { why: 'not needed any more' };
    controller.abort(reason);
    expect(await rejection(way({ wait: Infinity, signal }))).toBe(reason);
    expect(await rejection(way({ signal }))).toBe(reason);
    expect(await manager.check(file)).toBeNull();
    expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
  });

  test.each(ways)('aborted in line: %s rejects with it, and its place is gone', async (_, way) => {
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    const { turn } = await lineUp(manager, () => way({ wait: Infinity, signal }));
    const behind = await lineUp(manager, () => manager.acquire(file, 'NEXT', { wait: 20_000 }));
    const reason = new Error('not needed any more');
    controller.abort(reason);
    expect(await rejection(turn)).toBe(reason);
    expect(await waiting(manager)).toMatchObject([{ storyId: 'NEXT', place: 1 }]);
    await held.release();
    expect((await behind.turn).storyId).toBe('NEXT');
    expect((await manager.status()).totalLocks).toBe(1);
  });

  test('aborted without a reason gives an AbortError, a timeout a TimeoutError', async () => {
    await manager.acquire(file, 'HOLDER', Infinity);
    const { turn } = await lineUp(manager, ask);
    controller.abort();
    expect(await rejection(turn)).toBe(signal.reason);
    expect(signal.reason.name).toBe('AbortError');
    const late = AbortSignal.timeout(30);
    const error = await rejection(manager.acquire(file, 'S', { wait: Infinity, signal: late }));
    expect(error.name).toBe('TimeoutError');
  });

  test('aborted after the grant has no effect', async () => {
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    const { turn } = await lineUp(manager, ask);
    await held.release();
    const lock = await turn;
    controller.abort();
    expect(await lock.verify()).toBe(true);
    expect(lock.signal.aborted).toBe(false);
    expect(await manager.check(file)).toMatchObject({ lockId: lock.lockId });
  });

  test('is not listened to any longer than the call takes', async () => {
    const listeners = () => getEventListeners(signal, 'abort').length;
    const held = await manager.acquire(file, 'HOLDER', { timeout: Infinity, signal });
    await rejection(manager.acquire(file, 'S', { signal }));
    await rejection(manager.acquire(file, 'S', { wait: 10, signal }));
    expect(listeners()).toBe(0);
    const { turn } = await lineUp(manager, ask);
    expect(listeners()).toBe(1);
    await held.release();
    await turn;
    expect(listeners()).toBe(0);
  });

  test('of many waits calls off all of them and nobody else', async () => {
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    setMaxListeners(60, signal);
    const turns = [];
    for (let number = 0; number < 60; number++) {
      const options = { wait: Infinity, signal: number % 3 ? signal : undefined };
      turns.push(
        manager.acquire(file, `S${number}`, options).then(
          (lock) => lock.release().then(() => 'granted'),
          (error) => error.name,
        ),
      );
    }
    await inLine(manager, 60);
    controller.abort();
    await inLine(manager, 20);
    await held.release();
    expect(tally(await Promise.all(turns))).toEqual({ granted: 20, AbortError: 40 });
  });
});

describe('a turn that comes in the same moment', () => {
  const ROUNDS = 150;

  test('as the abort: one outcome, and the next one has the path at once', async () => {
    const [holder, next] = await startAll(2, () => startProcess(at.root));
    const give = async ({ manager: mine, at: moment }, path, time) => {
      await moment(time);
      await mine.release(path, 'HOLDER');
    };
    const outcomes = [];
    for (let round = 0; round < ROUNDS; round++) {
      const abort = new AbortController();
      await holder.call('acquire', file, 'HOLDER', Infinity);
      const options = { wait: Infinity, signal: abort.signal };
      const { turn } = await lineUp(manager, () => manager.acquire(file, 'S', options));
      const behind = await lineUp(manager, () => next.call('acquire', file, 'NEXT', { wait: 900 }));
      const time = Date.now() + 3;
      const given = holder.do(give, file, time);
      // Around the moment of the grant, a little earlier or later from round to round.
      while (performance.timeOrigin + performance.now() < time + (round % 10) / 5);
      abort.abort();
      outcomes.push(await told(turn));
      if (outcomes.at(-1) === 'granted') await manager.release(file, 'S');
      await given;
      // Not after the look that it takes every second though nothing wakes it: its wait is shorter.
      expect((await behind.turn).storyId).toBe('NEXT');
      await next.call('release', file, 'NEXT');
    }
    expect(Object.keys(tally(outcomes)).sort()).toEqual(['AbortError', 'granted']);
    expect(await manager.status()).toMatchObject({ totalLocks: 0, waiting: [] });
  });

  test('as the abort, in one breath of one process', async () => {
    const outcomes = [];
    const orders = [
      (release, abort) => [release(), abort()],
      (release, abort) => [abort(), release()],
      (release, abort) => [release(), setImmediate(abort)],
    ];
    for (let round = 0; round < ROUNDS; round++) {
      const abort = new AbortController();
      const held = await manager.acquire(file, 'HOLDER', Infinity);
      const turn = manager.acquire(file, 'S', { wait: Infinity, signal: abort.signal });
      const behind = manager.acquire(file, 'NEXT', { wait: 900 });
      if (round % 2) await inLine(manager, 2);
      orders[round % 3](
        () => held.release(),
        () => abort.abort(),
      );
      outcomes.push(await told(turn));
      if (outcomes.at(-1) === 'granted') await manager.release(file, 'S');
      await (await behind).release();
    }
    expect(Object.keys(tally(outcomes)).sort()).toEqual(['AbortError', 'granted']);
    expect(await manager.status()).toMatchObject({ totalLocks: 0, waiting: [] });
  });

  test('as the end of the wait: one outcome, and the next one has the path at once', async () => {
    const [holder, next] = await startAll(2, () => startProcess(at.root));
    const give = async ({ manager: mine, at: moment }, path, time) => {
      await moment(time);
      await mine.release(path, 'HOLDER');
    };
    const outcomes = [];
    for (let round = 0; round < ROUNDS; round++) {
      await holder.call('acquire', file, 'HOLDER', Infinity);
      const wait = 15;
      const time = Date.now() + wait + (round % 4);
      const turn = told(manager.acquire(file, 'S', { wait }));
      const behind = next.call('acquire', file, 'NEXT', { wait: 900 });
      const given = holder.do(give, file, time);
      outcomes.push(await turn);
      if (outcomes.at(-1) === 'granted') await manager.release(file, 'S');
      await given;
      expect((await behind).storyId).toBe('NEXT');
      await next.call('release', file, 'NEXT');
    }
    expect(Object.keys(tally(outcomes)).sort()).toEqual(['ELOCKED', 'granted']);
    expect(await manager.status()).toMatchObject({ totalLocks: 0, waiting: [] });
  });

  test('as the close of the manager: the next one has the path, and nothing is left', async () => {
    const outcomes = [];
    for (let round = 0; round < 60; round++) {
      const closing = at.manager();
      const held = await manager.acquire(file, 'HOLDER', Infinity);
      const turn = closing.acquire(file, 'S', { wait: Infinity });
      const behind = manager.acquire(file, 'NEXT', { wait: 900 });
      if (round % 2) await inLine(manager, 2);
      const acts = [() => held.release(), () => closing.close()];
      if (round % 3) acts.reverse();
      await Promise.all(acts.map((act) => act()));
      outcomes.push(await told(turn));
      await (await behind).release();
    }
    for (const outcome of Object.keys(tally(outcomes))) {
      expect(['granted', 'ERR_INVALID_STATE']).toContain(outcome);
    }
    expect(await manager.status()).toMatchObject({ totalLocks: 0, waiting: [] });
  });

  test('a turn that came while the process was stopped still counts', async () => {
    const story = await startProcess(at.root);
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    const { turn } = await lineUp(manager, () => story.call('acquire', file, 'S', { wait: 400 }));
    process.kill(story.pid, 'SIGSTOP');
    await held.release();
    expect(await manager.check(file)).toMatchObject({ storyId: 'S' });
    await pause(500);
    process.kill(story.pid, 'SIGCONT');
    expect((await turn).storyId).toBe('S');
    expect(await manager.check(file)).toMatchObject({ storyId: 'S' });
  });
});

describe('the close of a manager', () => {
  test('answers those who wait through it, and frees their places', async () => {
    const closing = at.manager();
    await manager.acquire(file, 'HOLDER', Infinity);
    const { turn } = await lineUp(manager, () => closing.acquire(file, 'S', { wait: Infinity }));
    const set = await lineUp(manager, () =>
      closing.acquireAll([file, at.path('b')], 'SET', { wait: Infinity }),
    );
    const stays = await lineUp(manager, () => manager.acquire(file, 'NEXT', { wait: 20_000 }));
    await closing.close();
    for (const one of [turn, set.turn]) {
      expect((await rejection(one)).code).toBe('ERR_INVALID_STATE');
    }
    expect(await waiting(manager)).toMatchObject([{ storyId: 'NEXT', place: 1 }]);
    await manager.release(file, 'HOLDER');
    expect((await stays.turn).storyId).toBe('NEXT');
  });
});

describe('when the lock folder is removed', () => {
  let holder;
  beforeEach(async () => {
    holder = await startProcess(at.root);
    await holder.call('acquire', file, 'HOLDER', Infinity);
  });
  const remove = () => fs.renameSync(at.path('.ai'), at.path('gone'));

  test('those who wait line up again, and are served', async () => {
    const story = await startProcess(at.root);
    const turns = [
      await lineUp(manager, () => manager.acquire(file, 'S1', { wait: 20_000 })),
      await lineUp(manager, () => story.call('acquire', file, 'S2', { wait: 20_000 })),
      await lineUp(manager, () => manager.acquireAll([file, at.path('b')], 'S3', { wait: 20_000 })),
    ];
    remove();
    const served = [];
    await Promise.all(
      turns.map(async ({ turn }) => {
        const got = await turn;
        served.push(got.storyId);
        await manager.release(file, got.storyId);
      }),
    );
    expect(served.sort()).toEqual(['S1', 'S2', 'S3']);
    expect(await waiting(manager)).toEqual([]);
  });

  test.each([
    ['an abort', { wait: Infinity }, () => controller.abort(), 'AbortError'],
    ['the close', { wait: Infinity }, () => manager.close(), 'ERR_INVALID_STATE'],
    ['the end of the wait', { wait: 300 }, () => {}, 'ELOCKED'],
  ])('%s still ends a wait', async (_, options, end, outcome) => {
    const other = at.manager();
    const { turn } = await lineUp(manager, () =>
      manager.acquire(file, 'S', { ...options, signal }),
    );
    // One who begins to wait looks once more; after so many calls that look is behind it.
    for (let call = 0; call < 30; call++) await manager.check(file);
    remove();
    await holder.call('acquire', file, 'AGAIN', Infinity);
    // A call of the same process notices the loss, in the moment in which the other is ended.
    const noticed = other.acquire(at.path('b'), 'OTHER');
    end();
    const nothing = pause(5000, 'nothing', { ref: false });
    const { value, ms } = await timed(() => Promise.race([told(turn), nothing]));
    expect(value).toBe(outcome);
    expect(ms).toBeLessThan(options.wait === 300 ? 2000 : BEFORE_SLOW_LOOK);
    await noticed;
    await until(async () => (await waiting(other)).length === 0);
  });
});
