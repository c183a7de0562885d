'use strict';

/**
 * Processes that wait and processes that are waited for: however they end, the line goes on; and
 * a process that waits is none the worse for it: no thread a waiter, no time of the processor,
 * nothing of Node's own pool, and nothing left behind when nobody waits.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const { setTimeout: pause } = require('node:timers/promises');

const { HOME, atEnd, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess, startWorker } = require('./fixtures/stories.js');
const wait = require('./fixtures/wait-line.js');

const { BEFORE_SLOW_LOOK, inLine, lineUp, logged, takeTurn, timed, waiting } = wait;

const WAIT = { wait: 20_000 };

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

/** These many processes in line for the path, behind a holder in this process. */
async function line(count) {
  const stories = await startAll(count, () => startProcess(at.root));
  const held = await manager.acquire(file, 'HOLDER', Infinity);
  const turns = [];
  for (const [number, story] of stories.entries()) {
    const { turn } = await lineUp(manager, () => story.do(takeTurn, `S${number}`, [file], log));
    turns.push(turn);
  }
  return { stories, held, turns };
}

describe('a holder that is killed', () => {
  test('hands the path over at once, and the next one is told whose it was', async () => {
    for (let round = 0; round < 5; round++) {
      const story = await startProcess(at.root);
      const taken = await story.call('acquire', file, 'KILLED', Infinity);
      const { turn } = await lineUp(manager, () => manager.acquire(file, 'NEXT', WAIT));
      const { value: lock, ms } = await timed(async () => {
        process.kill(story.pid, 'SIGKILL');
        return await turn;
      });
      expect(ms).toBeLessThan(BEFORE_SLOW_LOOK);
      const { lockId } = taken;
      expect(lock.reclaimed).toMatchObject({ storyId: 'KILLED', lockId, how: 'died' });
      await lock.release();
    }
  });

  test('hands over to a waiter in another process, though nobody else is awake', async () => {
    const [holder, waiter] = await startAll(2, () => startProcess(at.root));
    await holder.call('acquire', file, 'KILLED', Infinity);
    const { turn } = await lineUp(manager, () => waiter.call('acquire', file, 'NEXT', WAIT));
    const { ms } = await timed(async () => {
      process.kill(holder.pid, 'SIGKILL');
      await turn;
    });
    expect(ms).toBeLessThan(BEFORE_SLOW_LOOK);
  });

  test('with many in line: each gets its turn, in order', async () => {
    const holder = await startProcess(at.root);
    await holder.call('acquire', file, 'KILLED', Infinity);
    const stories = await startAll(4, () => startProcess(at.root));
    const turns = [];
    for (const [number, story] of stories.entries()) {
      turns.push(await lineUp(manager, () => story.do(takeTurn, `S${number}`, [file], log)));
    }
    await holder.kill();
    await Promise.all(turns.map(({ turn }) => turn));
    expect(logged(log)).toEqual(['S0', 'S1', 'S2', 'S3']);
  });
});

describe('a waiter that is killed is skipped:', () => {
  test.each([
    ['at the head', [0]],
    ['in the middle', [2]],
    ['at the end', [4]],
    ['here and there', [0, 1, 3]],
  ])('%s', async (_, killed) => {
    const { stories, held, turns } = await line(5);
    await Promise.all(killed.map((number) => stories[number].kill()));
    const left = [0, 1, 2, 3, 4].filter((number) => !killed.includes(number));
    const { ms } = await timed(async () => {
      await held.release();
      await Promise.all(left.map((number) => turns[number]));
    });
    expect(logged(log)).toEqual(left.map((number) => `S${number}`));
    expect(ms).toBeLessThan(BEFORE_SLOW_LOOK);
    await until(async () => (await manager.status()).totalLocks === 0);
    expect(await waiting(manager)).toEqual([]);
  });

  test('while the path is held: it counts in no line any more', async () => {
    const { stories } = await line(2);
    await stories[0].kill();
    await inLine(manager, 1);
    const error = await rejection(manager.acquire(file, 'S'));
    expect(error).toMatchObject({ code: 'ELOCKED', waiters: 1 });
    const small = at.manager({ queueLimit: 2 });
    expect(await rejection(small.acquire(file, 'S', { wait: 1 }))).toMatchObject({
      code: 'ELOCKED',
      place: 2,
    });
  });

  test('between the grant and its wake-up', async () => {
    const { stories, held, turns } = await line(3);
    process.kill(stories[0].pid, 'SIGSTOP');
    await held.release();
    expect(await manager.check(file)).toMatchObject({ storyId: 'S0', pid: stories[0].pid });
    const { ms } = await timed(async () => {
      await stories[0].kill();
      await Promise.all(turns.slice(1));
    });
    expect(logged(log)).toEqual(['S1', 'S2']);
    expect(ms).toBeLessThan(BEFORE_SLOW_LOOK);
  });

  test('between the grant of a set and its wake-up: all of it passes on', async () => {
    const story = await startProcess(at.root);
    const other = at.path('b.js');
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    await lineUp(manager, () => story.call('acquireAll', [other, file], 'SET', WAIT));
    const next = await lineUp(manager, () => manager.acquireAll([file, other], 'NEXT', WAIT));
    process.kill(story.pid, 'SIGSTOP');
    await held.release();
    expect(await manager.check(other)).toMatchObject({ storyId: 'SET' });
    await story.kill();
    const { locks } = await next.turn;
    expect(locks.map((lock) => lock.reclaimed?.storyId)).toEqual(['SET', 'SET']);
  });
});

describe('a process that waits', () => {
  /** A program that says when it waits, and what came of it. */
  function program(after = '') {
    const script = `
      const { LockManager } = require(${JSON.stringify(HOME)});
      const manager = new LockManager({ root: ${JSON.stringify(at.root)} });
      manager.acquire(${JSON.stringify(file)}, 'S', { wait: Infinity })
        .then((lock) => console.log(lock.storyId), (error) => console.log(error.code));
      ${after}`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    atEnd(() => child.kill('SIGKILL'));
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      said += text;
    });
    const ended = new Promise((resolve) => {
      child.once('close', (code, signal) => resolve({ code, signal, said }));
    });
    return { child, ended };
  }

  test('is kept alive by that, and ends by itself when it has its answer', async () => {
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    const { ended } = program();
    await inLine(manager, 1);
    await pause(50);
    expect(await waiting(manager)).toHaveLength(1);
    await held.release();
    expect(await ended).toEqual({ code: 0, signal: null, said: 'S\n' });
  });

  test.each(['SIGTERM', 'SIGINT'])('ends on %s, and leaves its place', async (name) => {
    const held = await manager.acquire(file, 'HOLDER', Infinity);
    const { child, ended } = program();
    await inLine(manager, 1);
    child.kill(name);
    expect(await ended).toEqual({ code: null, signal: name, said: '' });
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'NEXT', WAIT));
    await held.release();
    expect((await turn).storyId).toBe('NEXT');
  });

  test('leaves its place at process.exit()', async () => {
    await manager.acquire(file, 'HOLDER', Infinity);
    const { ended } = program('setTimeout(() => process.exit(3), 300);');
    await inLine(manager, 1);
    expect((await ended).code).toBe(3);
    expect(await waiting(manager)).toEqual([]);
  });
});

test('a worker terminated while it waits frees its places, and is granted nothing', async () => {
  const held = await manager.acquire(file, 'HOLDER', Infinity);
  for (let round = 0; round < 10; round++) {
    const worker = await startWorker(at.root);
    await lineUp(manager, () => worker.call('acquire', file, 'DEAD-1', WAIT));
    await lineUp(manager, () => worker.call('acquireAll', [file, at.path('b')], 'DEAD-2', WAIT));
    const behind = await lineUp(manager, () => manager.acquire(file, 'NEXT', WAIT));
    // Given up in the moment of the end: before, with, or after it.
    if (round % 3 === 0) await worker.terminate();
    const released = manager.release(file, 'HOLDER');
    await Promise.all([released, worker.terminate()]);
    const lock = await behind.turn;
    expect(lock.storyId).toBe('NEXT');
    const { activeLocks, waiting: line_ } = await manager.status();
    expect(activeLocks.map((one) => one.storyId)).toEqual(['NEXT']);
    expect(line_).toEqual([]);
    await lock.release();
    await manager.acquire(file, 'HOLDER', Infinity);
  }
  await held.release();
});

describe('waiting costs next to nothing:', () => {
  /** To be done by a story: 64 waits that `held.abort` calls off; answers when all are in line. */
  const wait64 = async ({ manager: mine, held, pause: rest, require: load }, path) => {
    held.abort = new AbortController();
    load('node:events').setMaxListeners(64, held.abort.signal);
    const options = { wait: Infinity, signal: held.abort.signal };
    held.turns = Array.from({ length: 64 }, (_, number) =>
      mine.acquire(path, `S${number}`, options).catch((error) => error.name),
    );
    while ((await mine.status()).waiting.length < 64) await rest(5);
  };
  const leave64 = async ({ held }) => {
    held.abort.abort();
    return await Promise.all(held.turns);
  };
  /** To be done by a story: what its process has. */
  const belongings = ({ require: load }) => {
    const { readdirSync, readlinkSync } = load('node:fs');
    const links = readdirSync('/proc/self/fd').map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    });
    const watches = links.filter((link) => /inotify|pidfd/.test(link)).length;
    return { threads: readdirSync('/proc/self/task').length, watches };
  };

  let story;
  beforeEach(async () => {
    story = await startProcess(at.root);
    await manager.acquire(file, 'HOLDER', Infinity);
    // Whatever starts at the first call has started.
    await story.call('tryAcquire', file, 'S');
    await story.do(({ require: load }, path) => load('node:fs/promises').readdir(path), at.root);
  });

  test('no thread a waiter, and nothing is left running when nobody waits', async () => {
    const before = await story.do(belongings);
    await story.do(wait64, file);
    const during = await story.do(belongings);
    expect(during.threads).toBeLessThanOrEqual(before.threads + 2);
    expect(new Set(await story.do(leave64))).toEqual(new Set(['AbortError']));
    await until(async () => (await story.do(belongings)).threads <= before.threads);
    await until(async () => (await story.do(belongings)).watches <= before.watches);
    const bells = () => {
      const names = fs.readdirSync(at.path('.ai', 'locks', 'holders'));
      return names.filter((name) => name.endsWith('.bell'));
    };
    expect(bells()).toHaveLength(1);
    await story.call('close');
    await until(() => bells().length === 0);
    await until(async () => (await story.do(belongings)).threads < before.threads);
  });

  test('no time of the processor', async () => {
    await story.do(wait64, file);
    const { user, system } = await story.do(async ({ pause: rest }) => {
      await rest(100);
      const start = process.cpuUsage();
      await rest(1500);
      return process.cpuUsage(start);
    });
    expect((user + system) / 1_500_000).toBeLessThan(0.03);
  });

  test('nothing of Node’s pool: files are read as quickly with 64 waits as without', async () => {
    const read = async ({ require: load }, path) => {
      const { readFile } = load('node:fs/promises');
      const times = [];
      for (let count = 0; count < 300; count++) {
        const start = performance.now();
        await Promise.all([1, 2, 3, 4].map(() => readFile(path)));
        times.push(performance.now() - start);
      }
      return times.sort((one, other) => one - other)[150];
    };
    fs.writeFileSync(file, 'x'.repeat(1000));
    const [without, with64] = [[], []];
    for (let round = 0; round < 3; round++) {
      without.push(await story.do(read, file));
      await story.do(wait64, file);
      with64.push(await story.do(read, file));
      await story.do(leave64);
    }
    expect(Math.min(...with64)).toBeLessThan(3 * Math.min(...without));
  });
});
