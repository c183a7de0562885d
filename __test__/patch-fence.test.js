'use strict';

/**
 * Fencing: whoever lost a lock, by whatever, writes nothing under it any more, and leaves the
 * successor's lock alone. Holders are real processes that are stopped, overtaken and continued.
 */

const fs = require('node:fs');

const { LockError } = require('..');
const { diffOf, leftovers } = require('./fixtures/patch-trees.js');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');

const LOST = /^(EFENCED|ECOMPROMISED)$/;

let at;
let manager;
beforeEach(() => {
  at = project();
  manager = at.manager();
  fs.writeFileSync(at.path('a.txt'), 'one\n');
});
afterEach(cleanUp);

const text = (name = 'a.txt') => fs.readFileSync(at.path(name), 'utf8');
const removeState = () => fs.rmSync(at.path('.ai', 'locks'), { recursive: true });

/** A refusal of a write whose lock was lost: it names the file, and the successor if there is one. */
function expectFenced(error, successor) {
  expect(error).toMatchObject({ name: 'LockError', code: expect.stringMatching(LOST) });
  expect(error).toMatchObject({ path: at.path('a.txt'), storyId: 'AH-1' });
  expect(error.message).toContain('a.txt');
  expect(error.hint).toContain('Nothing was written');
  if (successor) expect(error.holder).toMatchObject({ storyId: successor });
}

/** Takes the path over as soon as it can be had, and writes it. */
async function takeOver(storyId = 'AH-2') {
  const lock = await until(() => manager.tryAcquire(at.path('a.txt'), storyId, 60_000));
  await manager.applyPatch(at.path('a.txt'), storyId, `${storyId} wrote\n`, { lock });
  return lock;
}

/** A process that is in the middle of a write: it has read, and has its answer at `goOn()`. */
async function inTheMiddle(leaseMs) {
  const story = await startProcess(at.root);
  const writing = story.do(async ({ manager, held }, timeout) => {
    held.lock = timeout && (await manager.acquire('a.txt', 'AH-1', timeout));
    const gate = new Promise((resolve) => {
      held.goOn = resolve;
    });
    const late = async (now) => {
      held.isInside = true;
      await gate;
      return `${now}late\n`;
    };
    await manager.applyPatch('a.txt', 'AH-1', late, held.lock ? { lock: held.lock } : {});
  }, leaseMs);
  await until(() => story.do(({ held }) => held.isInside));
  return { story, writing, goOn: () => story.do(({ held }) => held.goOn()) };
}

describe('a process that was stopped past its lease and continued', () => {
  test('does not write over its successor', async () => {
    const { story, writing, goOn } = await inTheMiddle(400);
    process.kill(story.pid, 'SIGSTOP');
    const successor = await takeOver();
    process.kill(story.pid, 'SIGCONT');
    await goOn();
    expectFenced(await rejection(writing), 'AH-2');
    expect([text(), await successor.verify()]).toEqual(['AH-2 wrote\n', true]);
    const again = story.do(({ manager, held }) =>
      manager.applyPatch('a.txt', 'AH-1', 'whatever was there\n', { lock: held.lock }),
    );
    expectFenced(await rejection(again), 'AH-2');
    expect(leftovers(at.root)).toEqual([]);
    expect(await story.do(({ held }) => held.lock.release())).toBe(false);
    const renewed = story.do(async ({ held }) => held.lock.renew());
    expect((await rejection(renewed)).code).toBe('ECOMPROMISED');
    expect([text(), await successor.verify()]).toEqual(['AH-2 wrote\n', true]);
  });

  test('does not write although nobody has come since', async () => {
    const { story, writing, goOn } = await inTheMiddle(300);
    process.kill(story.pid, 'SIGSTOP');
    await until(async () => (await manager.check(at.path('a.txt'))) === null);
    process.kill(story.pid, 'SIGCONT');
    await goOn();
    expectFenced(await rejection(writing));
    expect([text(), leftovers(at.root)]).toEqual(['one\n', []]);
  });

  test('does not write once its successor has come and gone', async () => {
    const { story, writing, goOn } = await inTheMiddle(300);
    process.kill(story.pid, 'SIGSTOP');
    await (await takeOver()).release();
    process.kill(story.pid, 'SIGCONT');
    await goOn();
    expectFenced(await rejection(writing));
    expect([text(), leftovers(at.root)]).toEqual(['AH-2 wrote\n', []]);
  });
});

describe('a write in the middle of which its lock goes', () => {
  const ways = [
    ['is cleaned up by another process', () => manager.cleanup('AH-1')],
    ['is released by name by another process', () => manager.release(at.path('a.txt'), 'AH-1')],
    ['is deleted with the whole folder', removeState],
    ['is deleted alone', () => fs.rmSync(at.recordFile('a.txt'))],
  ];

  test.each(ways)('%s, and is taken over: nothing is written', async (_, take) => {
    const { writing, goOn } = await inTheMiddle(0);
    await take();
    const successor = await takeOver();
    await goOn();
    expectFenced(await rejection(writing));
    expect([text(), await successor.verify()]).toEqual(['AH-2 wrote\n', true]);
    expect(leftovers(at.root)).toEqual([]);
  });

  test.each(ways)('%s, and nobody comes: nothing is written', async (_, take) => {
    const { writing, goOn } = await inTheMiddle(0);
    await take();
    await goOn();
    expectFenced(await rejection(writing));
    expect([text(), leftovers(at.root)]).toEqual(['one\n', []]);
  });

  test('in its own process: nothing is written', async () => {
    const late = async (now) => {
      await manager.release(at.path('a.txt'), 'AH-1');
      return `${now}late\n`;
    };
    expectFenced(await rejection(manager.applyPatch(at.path('a.txt'), 'AH-1', late)));
    expect(text()).toBe('one\n');
  });
});

describe('an old Lock', () => {
  const patchUnder = (lock) =>
    manager.applyPatch(at.path('a.txt'), 'AH-1', 'by the old lock\n', { lock });

  test('that was released writes nothing', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1');
    await lock.release();
    const error = await rejection(patchUnder(lock));
    expect(error).toBeInstanceOf(LockError);
    expectFenced(error);
    expect([text(), (await manager.status()).totalLocks]).toEqual(['one\n', 0]);
  });

  test('whose lease ended writes nothing', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1', 20);
    await until(async () => !(await lock.verify()));
    expectFenced(await rejection(patchUnder(lock)));
    expect(text()).toBe('one\n');
  });

  test('that was overtaken writes nothing, and its successor is named', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1', 20);
    const successor = await takeOver();
    expectFenced(await rejection(patchUnder(lock)), 'AH-2');
    expect(await lock.release()).toBe(false);
    expect((await rejection(lock.renew())).code).toBe('ECOMPROMISED');
    expect([text(), await successor.verify()]).toEqual(['AH-2 wrote\n', true]);
  });

  test('of a story that has the path anew writes nothing: its token is an old one', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1', 20);
    await until(async () => !(await lock.verify()));
    const successor = await takeOver('AH-1');
    expect(successor.token).toBeGreaterThan(lock.token);
    expectFenced(await rejection(patchUnder(lock)));
    expect([text(), await successor.verify()]).toEqual(['AH-1 wrote\n', true]);
  });

  test('of a folder that was deleted and made anew writes nothing', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1');
    removeState();
    const successor = await takeOver();
    expectFenced(await rejection(patchUnder(lock)));
    expect([text(), await successor.verify()]).toEqual(['AH-2 wrote\n', true]);
  });

  test('of another manager that was closed writes nothing', async () => {
    const other = at.manager();
    const lock = await other.acquire(at.path('a.txt'), 'AH-1');
    await other.close();
    expectFenced(await rejection(patchUnder(lock)));
    expect(text()).toBe('one\n');
  });

  test('among those of a diff: none of its files is written', async () => {
    const files = { 'a.txt': 'one\n', 'b.txt': 'one\n' };
    fs.writeFileSync(at.path('b.txt'), 'one\n');
    const diff = diffOf(files, (root) => {
      for (const name of Object.keys(files)) fs.writeFileSync(`${root}/${name}`, 'two\n');
    });
    const paths = Object.keys(files).map((name) => at.path(name));
    const set = await manager.acquireAll(paths, 'AH-1');
    await set.locks[0].release();
    expectFenced(await rejection(manager.applyDiff(diff, 'AH-1', { lock: set })));
    expect([text(), text('b.txt'), leftovers(at.root)]).toEqual(['one\n', 'one\n', []]);
  });
});

test('leases that end at any moment of a write: what is written is in the order of tokens', async () => {
  const stories = await startAll(4, () => startProcess(at.root));
  fs.writeFileSync(at.path('a.txt'), '');
  const work = async ({ manager, pause }, name, rounds) => {
    const outcomes = { written: [], refused: {} };
    for (let round = 0; round < rounds; round++) {
      const lock = await manager.tryAcquire('a.txt', name, 1 + (round % 9));
      if (lock === null) {
        await pause(1);
        continue;
      }
      const append = (now) => `${now}${lock.token}\n`;
      try {
        await manager.applyPatch('a.txt', name, append, { lock, durable: false });
        outcomes.written.push(lock.token);
      } catch (error) {
        outcomes.refused[error.code] = (outcomes.refused[error.code] ?? 0) + 1;
      }
      if (round % 3 === 0) await lock.release();
    }
    return outcomes;
  };
  const outcomes = await Promise.all(stories.map((story, n) => story.do(work, `S${n}`, 150)));
  const tokens = text().split('\n').filter(Boolean).map(Number);
  const answered = outcomes.flatMap(({ written }) => written).toSorted((a, b) => a - b);
  expect(tokens).toEqual(answered);
  const codes = new Set(outcomes.flatMap(({ refused }) => Object.keys(refused)));
  expect([...codes].filter((code) => !LOST.test(code) && code !== 'EBASE')).toEqual([]);
  expect(codes.size).toBeGreaterThan(0);
  expect(leftovers(at.root)).toEqual([]);
});
