'use strict';

/**
 * Turns: those who wait are served in order of arrival, over all processes, threads and managers
 * of a project; nobody overtakes them; a path passes from hand to hand without ever being free;
 * sets and single paths starve nobody.
 */

const fs = require('node:fs');
const { setTimeout: pause } = require('node:timers/promises');

const { cleanUp, project, until } = require('./fixtures/project.js');
const { startAll, startProcess, startWorker } = require('./fixtures/stories.js');
const { BEFORE_SLOW_LOOK, inLine, lineUp, logged, takeTurn } = require('./fixtures/wait-line.js');

let at;
let manager;
let file;
let log;
beforeEach(() => {
  at = project();
  manager = at.manager();
  file = at.path('a.js');
  log = at.path('log');
  fs.writeFileSync(log, '');
});
afterEach(cleanUp);

const names = (count) => Array.from({ length: count }, (_, number) => `S${number}`);

describe('the order of arrival is the order of the turns', () => {
  test('of six processes that lined up 50 ms apart', async () => {
    const stories = await startAll(6, () => startProcess(at.root));
    const held = await manager.acquire(file, 'FIRST', Infinity);
    const turns = [];
    for (const [number, story] of stories.entries()) {
      await pause(50);
      turns.push(await lineUp(manager, () => story.do(takeTurn, `S${number}`, [file], log)));
    }
    await held.release();
    await Promise.all(turns.map(({ turn }) => turn));
    expect(logged(log)).toEqual(names(6));
  });

  test('of processes, worker threads, managers and spellings of one path', async () => {
    const ask = (story) => (name) => story.do(takeTurn, name, [file], log);
    const here = (other) => (name) =>
      takeTurn({ manager: other, require, pause }, name, [at.path('.', 'x', '..', 'a.js')], log);
    const askers = [
      here(manager),
      ask(await startProcess(at.root)),
      ask(await startWorker(at.root)),
      here(at.manager()),
      ask(await startWorker(at.root)),
      ask(await startProcess(at.root)),
      here(manager),
    ];
    const held = await manager.acquire(file, 'FIRST', Infinity);
    const turns = [];
    for (const [number, asker] of askers.entries()) {
      turns.push(await lineUp(manager, () => asker(`S${number}`)));
    }
    await held.release();
    await Promise.all(turns.map(({ turn }) => turn));
    expect(logged(log)).toEqual(names(7));
  });

  test('of a thousand on one path', async () => {
    const stories = await startAll(4, () => startProcess(at.root));
    const held = await manager.acquire(file, 'FIRST', Infinity);
    const takeTurns = async ({ manager: mine, require: load }, first, count, path, book) => {
      const { appendFileSync } = load('node:fs');
      const turn = async (number) => {
        const lock = await mine.acquire(path, `S${number}`, { wait: 25_000 });
        appendFileSync(book, `S${number}\n`);
        await lock.release();
      };
      await Promise.all(Array.from({ length: count }, (_, number) => turn(first + number)));
    };
    const parts = [];
    for (let part = 0; part < 20; part++) {
      parts.push(stories[part % 4].do(takeTurns, part * 50, 50, file, log));
      await inLine(manager, (part + 1) * 50);
    }
    await held.release();
    await Promise.all(parts);
    expect(logged(log)).toEqual(names(1000));
  });
});

describe('nobody overtakes those who wait', () => {
  /**
   * To be done by a story: holds the path as often as this. It gives the path up when all others
   * are in line, and asks for it again in the same breath, once without waiting and once in line.
   * Of the last turns each waits for those that are still to come, and the very last one stays.
   */
  const goRound = async (tools, number, path, book, rounds) => {
    const { manager: mine, require: load, pause: rest } = tools;
    const { appendFileSync } = load('node:fs');
    const name = `S${number}`;
    let lock = await mine.acquire(path, name, { wait: 20_000 });
    let stolen = 0;
    for (let round = 1; ; round++) {
      appendFileSync(book, `${name}\n`);
      const isLast = round === rounds;
      const toCome = isLast ? 2 - number : 2;
      if (toCome === 0) return stolen;
      while ((await mine.status()).waiting.length < toCome) await rest(1);
      const released = lock.release();
      const thief = mine.tryAcquire(path, `${name}-thief`);
      const next = isLast ? null : mine.acquire(path, name, { wait: 20_000 });
      await released;
      if (await thief) stolen += 1;
      if (isLast) return stolen;
      lock = await next;
    }
  };

  /** To be done by a story, until it is told to stop: counts what it tried, and what it got. */
  const poll = async ({ manager: mine, held, require: load }, path, record) => {
    const { readFileSync } = load('node:fs');
    const seen = { tries: 0, won: 0, free: 0, holders: new Set() };
    while (!held.stop) {
      seen.tries += 1;
      const lock = await mine.tryAcquire(path, 'POLLER');
      if (lock) seen.won += 1;
      await lock?.release();
      const holder = await mine.check(path);
      if (!holder) seen.free += 1;
      seen.holders.add(holder?.storyId);
      for (let look = 0; look < 20; look++) {
        try {
          seen.holders.add(JSON.parse(readFileSync(record, 'utf8')).storyId);
        } catch {
          seen.free += 1;
        }
      }
    }
    return { ...seen, holders: [...seen.holders] };
  };
  const stop = ({ held }) => {
    held.stop = true;
  };

  test('not a poller, not the one who gives the path up; and the path is never free', async () => {
    const ROUNDS = 120;
    const stories = await startAll(3, () => startProcess(at.root));
    const poller = await startProcess(at.root);
    const held = await manager.acquire(file, 'FIRST', Infinity);
    const turns = [];
    for (const [number, story] of stories.entries()) {
      const go = () => story.do(goRound, number, file, log, ROUNDS);
      turns.push((await lineUp(manager, go)).turn);
    }
    const polled = poller.do(poll, file, at.recordFile('a.js'));
    await held.release();
    const stolen = await Promise.all(turns);
    await poller.do(stop);
    const { tries, won, free, holders } = await polled;
    expect(stolen).toEqual([0, 0, 0]);
    expect({ won, free }).toEqual({ won: 0, free: 0 });
    expect(tries).toBeGreaterThan(20);
    expect(holders).toEqual(expect.arrayContaining(['S0', 'S1', 'S2']));
    const order = logged(log);
    expect(order).toEqual(order.map((_, number) => `S${number % 3}`));
    expect(order).toHaveLength(3 * ROUNDS);
  });

  test('not one who comes in the moment in which the path is given up', async () => {
    const [holder, waiter, late] = await startAll(3, () => startProcess(at.root));
    const give = async ({ manager: mine, at: moment }, path, time) => {
      await moment(time);
      await mine.release(path, 'HOLDER');
    };
    const come = async ({ manager: mine, require: load, at: moment }, path, book, time) => {
      await moment(time);
      const lock = await mine.acquire(path, 'LATE', { wait: 20_000 });
      load('node:fs').appendFileSync(book, 'LATE\n');
      await lock.release();
    };
    for (let round = 0; round < 60; round++) {
      await holder.call('acquire', file, 'HOLDER', Infinity);
      const { turn } = await lineUp(manager, () => waiter.do(takeTurn, 'EARLY', [file], log));
      const time = Date.now() + 4;
      const given = holder.do(give, file, time);
      await Promise.all([given, turn, late.do(come, file, log, time + (round % 3))]);
    }
    const order = logged(log);
    expect(order).toHaveLength(120);
    expect(order).toEqual(order.map((_, number) => (number % 2 ? 'LATE' : 'EARLY')));
  });
});

test('a turn that comes while its waiter is lining up is noticed at once', async () => {
  const stories = await startAll(3, () => startProcess(at.root));
  const passOn = async ({ manager: mine }, name, path, rounds) => {
    let longest = 0;
    for (let round = 0; round < rounds; round++) {
      const start = performance.now();
      const lock = await mine.acquire(path, name, { wait: 20_000 });
      longest = Math.max(longest, performance.now() - start);
      await lock.release();
    }
    return longest;
  };
  const all = stories.map((story, number) => story.do(passOn, `S${number}`, file, 300));
  expect(Math.max(...(await Promise.all(all)))).toBeLessThan(BEFORE_SLOW_LOOK);
});

describe('sets', () => {
  test('a set takes nothing until it can take all, and what is free is kept for it', async () => {
    const [x, y] = [at.path('x'), at.path('y')];
    const story = await startProcess(at.root);
    const held = await manager.acquire(x, 'HOLDER', Infinity);
    const set = await lineUp(manager, () => story.do(takeTurn, 'SET', [y, x], log));
    expect(await manager.check(y)).toBeNull();
    expect((await manager.status()).activeLocks.map((lock) => lock.storyId)).toEqual(['HOLDER']);
    expect(await manager.tryAcquire(y, 'QUICK')).toBeNull();
    const ask = (name, path) => () => takeTurn({ manager, require, pause }, name, [path], log);
    const afterX = await lineUp(manager, ask('AFTER-X', x));
    const afterY = await lineUp(manager, ask('AFTER-Y', y));
    await held.release();
    await Promise.all([set.turn, afterX.turn, afterY.turn]);
    const order = logged(log);
    expect(order[0]).toBe('SET');
    expect(order.slice(1).sort()).toEqual(['AFTER-X', 'AFTER-Y']);
  });

  test('those in front of a set are served before it, whatever they want of it', async () => {
    const [x, y] = [at.path('x'), at.path('y')];
    const held = await manager.acquireAll([x, y], 'HOLDER', Infinity);
    const ask = (name, paths) => () => takeTurn({ manager, require, pause }, name, paths, log);
    const turns = [
      await lineUp(manager, ask('FRONT-Y', [y])),
      await lineUp(manager, ask('SET', [x, y])),
      await lineUp(manager, ask('BACK-X', [x])),
    ];
    await manager.release(x, 'HOLDER');
    expect((await manager.check(x))?.storyId).toBeUndefined();
    await held.release();
    await Promise.all(turns.map(({ turn }) => turn));
    expect(logged(log)).toEqual(['FRONT-Y', 'SET', 'BACK-X']);
  });

  test('a thousand rounds of sets that cross end, each with both paths to itself', async () => {
    const paths = [at.path('x'), at.path('y')];
    for (const path of paths) fs.writeFileSync(path, '0');
    const stories = await startAll(4, () => startProcess(at.root));
    const cross = async ({ manager: mine, require: load }, name, wanted, rounds) => {
      const { readFileSync, writeFileSync } = load('node:fs');
      for (let round = 0; round < rounds; round++) {
        const set = await mine.acquireAll(wanted, name, { wait: 20_000 });
        for (const path of wanted) writeFileSync(path, `${Number(readFileSync(path)) + 1}`);
        if (!(await set.release())) throw new Error('The set was lost.');
      }
    };
    const order = (number) => (number % 2 ? [...paths].reverse() : paths);
    await Promise.all(stories.map((story, n) => story.do(cross, `S${n}`, order(n), 250)));
    expect(paths.map((path) => fs.readFileSync(path, 'utf8'))).toEqual(['1000', '1000']);
  });

  test('sets and single paths that want the same all have turns, none waits for long', async () => {
    const [x, y, z] = ['x', 'y', 'z'].map((name) => at.path(name));
    const wanted = [[x], [y], [z], [x, y], [z, y, x]];
    const stories = await startAll(5, () => startProcess(at.root));
    /** Answers how many turns others had at most between its asking and its own. */
    const goOn = async ({ manager: mine, pause: rest, require: load }, paths, book, rounds) => {
      const { appendFileSync, statSync } = load('node:fs');
      const passed = [];
      for (let round = 0; round < rounds; round++) {
        const before = statSync(book).size;
        const set = await mine.acquireAll(paths, `${process.pid}`, { wait: 20_000 });
        passed.push(statSync(book).size - before);
        appendFileSync(book, '.');
        await rest(4);
        await set.release();
      }
      return Math.max(...passed);
    };
    const all = await Promise.all(
      stories.map((story, number) => story.do(goOn, wanted[number], log, 60)),
    );
    // Each of the four others is in front of it once; the rest is for one that is slow to ask.
    expect(Math.max(...all)).toBeLessThan(40);
    await until(async () => (await manager.status()).totalLocks === 0);
  });
});
