'use strict';

/**
 * Worker threads: in whatever state one ends, and however it ends, what it had is free, what others
 * have stays theirs, nothing is left on the disk, and the process lives on and ends when it is done.
 *
 * The workers live in a process of their own, so that a crash is seen. That a worker's locks go with
 * it at all, and that calls in flight are answered to nobody, is in crash.test.js.
 */

const fs = require('node:fs');
const path = require('node:path');

const { cleanUp, project, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

const STORIES = path.join(__dirname, 'fixtures', 'stories.js');
const WAIT_LINE = path.join(__dirname, 'fixtures', 'wait-line.js');

/** Workers that end in each state, by each of the ways. */
const ROUNDS = 3;

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

/** What a worker does to get into a state. It holds or wants paths that begin with `w`. */
const STATES = {
  'before its first call': () => {},
  'with calls in flight': ({ manager }) => {
    for (let n = 0; n < 50; n++) manager.acquire(`w${n}`, 'AH-1', Infinity).catch(() => {});
  },
  'holding': async ({ manager }) => {
    await manager.acquireAll(['w0', 'w1', 'w2'], 'AH-1', Infinity);
    await manager.acquire('w3', 'AH-1', 600_000);
  },
  'holding through the ready instance': async ({ storylock }) => {
    await storylock.lockManager.acquire('w0', 'AH-1', Infinity);
  },
  'in a scope within a scope': ({ manager }) =>
    new Promise((resolve) => {
      const forEver = () => new Promise(() => resolve());
      const inner = () => manager.withLock(['w0', 'w1'], 'AH-1', forEver);
      manager.runStory('AH-1', ['w0', 'w2'], inner).catch(() => {});
    }),
  'waiting in line': async ({ manager }) => {
    manager.acquire('mine', 'AH-1', { wait: Infinity }).catch(() => {});
    await manager.status();
  },
  'waiting for a set, some of it held': async ({ manager }) => {
    await manager.acquire('w0', 'AH-1', Infinity);
    manager.acquireAll(['w0', 'w1', 'mine'], 'AH-1', { wait: Infinity }).catch(() => {});
    await manager.status();
  },
  'in the middle of patches': async ({ manager }) => {
    for (let n = 0; n < 8; n++) {
      manager.applyPatch(`w${n}`, 'AH-1', 'new\n'.repeat(100_000)).catch(() => {});
    }
    await manager.status();
  },
  'in the middle of a diff of many files': async ({ manager }) => {
    const added = (name) => `--- /dev/null\n+++ b/${name}\n@@ -0,0 +1 @@\n+new\n`;
    const names = Array.from({ length: 20 }, (_, n) => `w${n}`);
    manager.applyDiff(names.map(added).join(''), 'AH-1').catch(() => {});
    await manager.status();
  },
  'closing': async ({ manager }) => {
    await manager.acquireAll(['w0', 'w1'], 'AH-1', Infinity);
    manager.acquire('w2', 'AH-1').catch(() => {});
    manager.close();
  },
  'closed': async ({ manager }) => {
    await manager.acquire('w0', 'AH-1', Infinity);
    await manager.close();
  },
  'with a lock that is lost': async ({ manager, require }) => {
    const fs = require('node:fs');
    await manager.acquire('w0', 'AH-1', Infinity);
    const records = fs.readdirSync('.ai/locks').filter((name) => name.endsWith('.lock'));
    const isOwn = (name) => fs.readFileSync(`.ai/locks/${name}`, 'utf8').includes('/w0"');
    for (const name of records.filter(isOwn)) fs.unlinkSync(`.ai/locks/${name}`);
  },
};

/** How a worker ends. */
const ENDS = {
  'terminate()': (worker) => worker.terminate(),
  'process.exit()': (worker) => worker.do(() => process.exit(3)),
  'an error that nobody catches': (worker) =>
    worker.do(() => {
      setImmediate(() => {
        throw new Error('nobody');
      });
      return new Promise(() => {});
    }),
};

/**
 * In the host: a lock of its own and one of another worker's stand beside workers that end in this
 * state, by each of the ways. Answers what is left of it all, once no change is under way any more.
 */
const hosting = async ({ manager, held, require, pause }, stories, root, state, ends, rounds) => {
  const { startWorker } = require(stories);
  const parse = (source) => new Function(`return (${source})`)();
  const mine = await manager.acquire('mine', 'AH-9', Infinity);
  held.other = await startWorker(root);
  await held.other.call('acquire', 'theirs', 'AH-8', Infinity);
  for (let round = 0; round < rounds * ends.length; round++) {
    const worker = await startWorker(root);
    await worker.do(parse(state));
    if (round % 2) await pause(Math.random() * 3);
    await parse(ends[round % ends.length])(worker).catch(() => {});
  }
  const names = Array.from({ length: 50 }, (_, number) => `w${number}`);
  // A change that was under way goes on to its end: until then its paths are locked.
  let set = null;
  while (set === null) {
    set = await manager.acquireAll(names, 'AH-2').catch((error) => {
      if (error.code !== 'ELOCKED') throw error;
      return null;
    });
  }
  const reclaimed = set.locks.filter((lock) => lock.reclaimed);
  await set.release();
  const { activeLocks, waiting, unreadable } = await manager.status();
  return {
    mine: (await mine.verify()) && !mine.signal.aborted,
    theirs: (await manager.check('theirs')).storyId,
    held: activeLocks.map(({ storyId }) => storyId).sort(),
    waiting: waiting.length,
    unreadable,
    reclaimed: reclaimed.length,
  };
};

/** In the host: nothing more to do. */
const leaving = async ({ manager, held }) => {
  await held.other.terminate();
  await manager.close();
  setImmediate(() => process.disconnect());
};

test.each(Object.keys(STATES))('a worker that ends %s leaves nothing behind', async (state) => {
  const host = await startProcess(at.root);
  const ends = Object.values(ENDS).map((end) => end.toString());
  const args = [STORIES, at.root, STATES[state].toString(), ends, ROUNDS];
  expect(await host.do(hosting, ...args)).toEqual({
    mine: true,
    theirs: 'AH-8',
    held: ['AH-8', 'AH-9'],
    waiting: 0,
    unreadable: [],
    // Whoever ends in good order leaves nothing to tell of, and so does a thread that is ended.
    reclaimed: 0,
  });
  await host.do(leaving);
  expect(await host.ended).toMatchObject({ code: 0, signal: null });
  const left = (...names) => fs.readdirSync(at.path(...names)).sort();
  expect(left('.ai', 'locks', 'holders')).toEqual([]);
  expect(left('.ai', 'locks', 'queue')).toEqual([]);
  expect(left().filter((name) => name.startsWith('.storylock-'))).toEqual([]);
  for (const name of left().filter((one) => one.startsWith('w'))) {
    expect(fs.readFileSync(at.path(name), 'utf8')).toMatch(/^(new\n)+$/);
  }
});

test('whoever waits behind a worker that ends is served at once', async () => {
  const host = await startProcess(at.root);
  const work = async ({ manager, require }, stories, line, root) => {
    const { startWorker } = require(stories);
    const { lineUp } = require(line);
    const served = [];
    for (let round = 0; round < 5; round++) {
      const [holder, waiter] = [await startWorker(root), await startWorker(root)];
      await holder.call('acquire', 'a', 'AH-1', Infinity);
      const first = await lineUp(manager, () => waiter.call('acquire', 'a', 'AH-2', { wait: 60_000 }));
      const second = await lineUp(manager, () => manager.acquire('a', 'AH-3', { wait: 60_000 }));
      await holder.terminate();
      served.push((await first.turn).storyId);
      await waiter.terminate();
      const lock = await second.turn;
      served.push(lock.storyId);
      await lock.release();
    }
    return served;
  };
  const served = await host.do(work, STORIES, WAIT_LINE, at.root);
  expect(served).toEqual(Array(5).fill(['AH-2', 'AH-3']).flat());
});

test('a waiter that ends in the line keeps nobody behind it waiting', async () => {
  const host = await startProcess(at.root);
  const work = async ({ manager, require }, stories, line, root) => {
    const { startWorker } = require(stories);
    const { lineUp } = require(line);
    const lock = await manager.acquire('a', 'AH-1', Infinity);
    const worker = await startWorker(root);
    await lineUp(manager, () => worker.call('acquire', 'a', 'AH-2', { wait: Infinity }));
    const last = await lineUp(manager, () => manager.acquire('a', 'AH-3', { wait: 60_000 }));
    await worker.terminate();
    await lock.release();
    return (await last.turn).storyId;
  };
  expect(await host.do(work, STORIES, WAIT_LINE, at.root)).toBe('AH-3');
});

/**
 * In a worker: takes turns at a path for ever, by its own manager and the ready instance in turns.
 * It writes its name into the file while it holds it, and tells when it finds another's there.
 */
const contending = async ({ manager, storylock, require }, name, files) => {
  const { appendFileSync, readFileSync, writeFileSync } = require('node:fs');
  const managers = [manager, storylock.lockManager];
  for (let turn = 0; ; turn++) {
    const file = files[turn % files.length];
    const lock = await managers[turn % 2].acquire(file, name, { wait: Infinity, timeout: Infinity });
    writeFileSync(`${file}.by`, name);
    await new Promise((resolve) => setImmediate(resolve));
    const found = readFileSync(`${file}.by`, 'utf8');
    if (found !== name) appendFileSync('doubled', `${name} found ${found}\n`);
    appendFileSync('turns', '.');
    await lock.release();
  }
};

test('many at once, each with two managers, ended at any moment: nobody is let in twice', async () => {
  const host = await startProcess(at.root);
  const work = async ({ require, manager }, stories, root, source, files) => {
    const fs = require('node:fs');
    const { startWorker } = require(stories);
    const turns = () => (fs.existsSync('turns') ? fs.statSync('turns').size : 0);
    const contend = new Function(`return (${source})`)();
    let count = 0;
    const start = async () => {
      const worker = await startWorker(root);
      count += 1;
      worker.do(contend, `AH-${count}`, files).catch(() => {});
      return worker;
    };
    // An engine that its last client has left ends by itself: this one has the host's manager.
    await manager.status();
    const workers = await Promise.all(Array.from({ length: 12 }, start));
    for (let end = 0; end < 24; end++) {
      const before = turns();
      while (turns() < before + 10) await new Promise((resolve) => setTimeout(resolve, 1));
      const victim = end % workers.length;
      await workers[victim].terminate();
      workers[victim] = await start();
    }
    await Promise.all(workers.map((worker) => worker.terminate()));
    const set = await manager.acquireAll(files, 'AFTER');
    await set.release();
    await manager.close();
    setImmediate(() => process.disconnect());
    return { count, turns: turns() };
  };
  const files = ['a', 'b', 'c'].map((name) => at.path(name));
  const { count, turns } = await host.do(work, STORIES, at.root, contending.toString(), files);
  expect(count).toBe(36);
  expect(turns).toBeGreaterThan(240);
  expect(fs.existsSync(at.path('doubled'))).toBe(false);
  expect(await host.ended).toMatchObject({ code: 0, signal: null });
  await until(() => fs.readdirSync(at.path('.ai', 'locks', 'holders')).length === 0);
}, 60_000);
