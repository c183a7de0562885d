'use strict';

/**
 * A crash: the locks of whoever is killed are free for the next comer at once, who is told whose
 * they were, and nothing has to be cleaned by hand. Processes are really killed and threads
 * really ended.
 */

const fs = require('node:fs');
const path = require('node:path');

const { testUnless, whyNoContainer } = require('./fixtures/machine.js');
const { cleanUp, project, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');

const STORIES = path.join(__dirname, 'fixtures', 'stories.js');

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

describe('a killed process', () => {
  test.each([
    ['bound', Infinity],
    ['timed', 600_000],
  ])('leaves its %s locks free at once, and it is told whose they were', async (_, timeout) => {
    const dead = await startProcess(at.root);
    const { locks } = await dead.call('acquireAll', ['a.js', 'b.js'], 'AH-1', timeout);
    const manager = at.manager();
    expect(await manager.tryAcquire(at.path('a.js'), 'AH-2')).toBeNull();
    await dead.kill('SIGKILL');
    expect(await manager.check(at.path('a.js'))).toBeNull();
    expect((await manager.status()).staleLocks).toBe(2);
    const mine = await manager.acquireAll([at.path('a.js'), at.path('b.js')], 'AH-2');
    expect(mine.locks.map((lock) => lock.reclaimed)).toEqual(
      locks.map(({ lockId, acquiredAt }) => {
        return { storyId: 'AH-1', lockId, acquiredAt, pid: dead.pid, how: 'died' };
      }),
    );
    expect(mine.locks[0].token).toBeGreaterThan(locks[1].token);
  });

  test('is told of to the next holder alone, and to its own story too', async () => {
    const dead = await startProcess(at.root);
    await dead.call('acquire', 'a.js', 'AH-1', Infinity);
    await dead.kill();
    const manager = at.manager();
    const own = await manager.acquire(at.path('a.js'), 'AH-1');
    expect(own.reclaimed).toMatchObject({ storyId: 'AH-1', pid: dead.pid, how: 'died' });
    await own.release();
    expect((await manager.acquire(at.path('a.js'), 'AH-1')).reclaimed).toBeNull();
  });

  test('is dead though its pid is reused, and one that stands still is not', async () => {
    const [dead, stopped] = await startAll(2, () => startProcess(at.root));
    await dead.call('acquire', 'a.js', 'AH-1', Infinity);
    await stopped.call('acquire', 'b.js', 'AH-2', Infinity);
    await dead.kill();
    process.kill(stopped.pid, 'SIGSTOP');
    const record = at.record('a.js');
    fs.writeFileSync(at.recordFile('a.js'), JSON.stringify({ ...record, pid: process.pid }));
    const manager = at.manager();
    expect(await manager.acquire(at.path('a.js'), 'AH-3')).toBeTruthy();
    expect(await manager.tryAcquire(at.path('b.js'), 'AH-3')).toBeNull();
    process.kill(stopped.pid, 'SIGCONT');
  });

  test('leaves no locks behind in the view, and its holder file goes', async () => {
    const [dead, next, last] = await startAll(3, () => startProcess(at.root));
    await dead.call('acquire', 'a.js', 'AH-1', Infinity);
    const holderFile = at.path('.ai', 'locks', 'holders', String(at.record('a.js').holder));
    expect(fs.existsSync(holderFile)).toBe(true);
    await dead.kill();
    await next.call('acquire', 'b.js', 'AH-2');
    expect(at.viewed()).toEqual(['b.js']);
    await next.call('release', 'a.js', 'AH-1');
    expect(at.record('a.js')).toBeNull();
    await last.call('acquire', 'c.js', 'AH-3');
    expect(fs.existsSync(holderFile)).toBe(false);
  });
});

testUnless(whyNoContainer(), 'a holder in another container lives and dies likewise', async () => {
  const command = ['unshare', '--pid', '--fork', '--kill-child', process.execPath];
  const inside = await startProcess(at.root, { command });
  const { pid } = await inside.call('acquire', 'a.js', 'AH-1', Infinity);
  expect(pid).toBeLessThan(10);
  const manager = at.manager();
  expect(await manager.tryAcquire(at.path('a.js'), 'AH-2')).toBeNull();
  await inside.kill();
  const lock = await until(() => manager.tryAcquire(at.path('a.js'), 'AH-2'));
  expect(lock.reclaimed).toMatchObject({ storyId: 'AH-1', pid, how: 'died' });
});

/**
 * Takes sets of paths and gives them up, for ever, with every kind of lease. A holder writes its
 * name into the files and looks whether it is still there in the end; whoever finds another's
 * tells.
 */
const rage = async ({ manager, pause, require }, name, files) => {
  const { appendFileSync, readFileSync, writeFileSync } = require('node:fs');
  const doubled = (file, found) => appendFileSync('doubled', `${name} found ${found} in ${file}\n`);
  for (;;) {
    const wanted = files.filter(() => Math.random() < 0.4);
    if (wanted.length === 0) wanted.push(files[0]);
    const timeout = Math.random() < 0.5 ? Infinity : 600_000;
    const set = await manager.acquireAll(wanted, name, timeout).catch((error) => {
      if (error.code !== 'ELOCKED') appendFileSync('failed', `${name}: ${error.stack}\n`);
      return null;
    });
    if (set) {
      for (const lock of set.locks) appendFileSync(`${lock.filePath}.tokens`, `${lock.token}\n`);
      for (const file of wanted) writeFileSync(file, name);
      await pause(Math.random() * 3);
      for (const file of wanted) {
        const found = readFileSync(file, 'utf8');
        if (found !== name) doubled(file, found);
      }
      if (Math.random() < 0.3) await set.locks[0].renew();
      if (Math.random() < 0.2) await manager.cleanup(name);
      else await set.release();
    }
    await pause(Math.random() * 2);
  }
};

test('after a storm of kills every path is free, and nothing was held twice', async () => {
  const files = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => at.path(name));
  let started = 0;
  const start = async () => {
    const story = await startProcess(at.root);
    started += 1;
    story.do(rage, `AH-${started}`, files);
    return story;
  };
  const raging = await startAll(4, start);
  const linesOf = (name) => {
    const file = path.resolve(at.root, name);
    return fs.existsSync(file) ? fs.readFileSync(file, 'utf8').split('\n').filter(Boolean) : [];
  };
  const tokensOf = (file) => linesOf(`${file}.tokens`).map(Number);
  const grants = () => files.reduce((sum, file) => sum + tokensOf(file).length, 0);
  for (let kill = 0; kill < 25; kill++) {
    const before = grants();
    await until(grants, (count) => count > before + 5);
    const victim = Math.floor(Math.random() * raging.length);
    await raging[victim].kill('SIGKILL');
    raging[victim] = await start();
  }
  await Promise.all(raging.map((story) => story.kill('SIGKILL')));

  expect([...linesOf('doubled'), ...linesOf('failed')]).toEqual([]);
  for (const file of files) {
    const tokens = tokensOf(file);
    expect(tokens).toEqual([...new Set(tokens)].sort((one, other) => one - other));
  }
  const fresh = await startProcess(at.root);
  const { activeLocks, unreadable, error } = await fresh.call('status');
  expect(activeLocks.filter((lock) => !lock.isStale)).toEqual([]);
  expect({ unreadable, error }).toEqual({ unreadable: [], error: undefined });
  const { locks } = await fresh.call('acquireAll', files, 'AFTER');
  expect(locks).toHaveLength(files.length);
  await fresh.call('cleanup', 'AFTER');
  await fresh.kill('SIGTERM');
  await (await startProcess(at.root)).call('acquire', at.path('a'), 'LAST');
  const left = fs.readdirSync(at.path('.ai', 'locks')).sort();
  const record = path.basename(at.recordFile('a'));
  expect(left).toEqual(['.gitignore', '.guard', record, 'holders', 'queue']);
  expect(fs.readdirSync(at.path('.ai', 'locks', 'holders'))).toHaveLength(1);
}, 60_000);

describe('a worker thread that is terminated', () => {
  /** Ends workers in a process of its own, which is to go on: there the work is done. */
  const inProcess = async (work, ...args) => {
    const story = await startProcess(at.root);
    const outcome = await story.do(work, STORIES, at.root, ...args);
    expect(await story.call('tryAcquire', 'alive.js', 'AH-9')).not.toBeNull();
    return outcome;
  };

  test('frees the locks that it held, bound or timed, and the process goes on', async () => {
    const work = async ({ manager, require }, stories, root) => {
      const { startWorker } = require(stories);
      const worker = await startWorker(root);
      await worker.call('acquire', 'bound.js', 'AH-1', Infinity);
      await worker.call('acquire', 'timed.js', 'AH-1', 600_000);
      const before = await manager.tryAcquire('bound.js', 'AH-2');
      await worker.terminate();
      const { locks } = await manager.acquireAll(['bound.js', 'timed.js'], 'AH-2');
      return { before, after: locks.length };
    };
    expect(await inProcess(work)).toEqual({ before: null, after: 2 });
  });

  test('frees what its pending calls are granted, for the very next call', async () => {
    const work = async ({ manager, require, pause }, stories, root) => {
      const { startWorker } = require(stories);
      let refused = 0;
      for (let round = 0; round < 20; round++) {
        const worker = await startWorker(root);
        worker.do(async ({ manager: own }, number) => {
          for (let n = 0; n < 50; n++) own.acquire(`${number}-${n}.js`, 'AH-1', Infinity);
          await new Promise(() => {});
        }, round);
        if (round % 2) await pause(Math.random() * 3);
        await worker.terminate();
        const names = [0, 25, 49].map((n) => `${round}-${n}.js`);
        const set = await manager.acquireAll(names, 'AH-2').catch(() => null);
        if (set) await set.release();
        else refused += 1;
      }
      const { activeLocks } = await manager.status();
      return { refused, left: activeLocks.length };
    };
    expect(await inProcess(work)).toEqual({ refused: 0, left: 0 });
  });

  test('takes nothing from other threads of its process', async () => {
    const work = async ({ manager, require }, stories, root) => {
      const { startWorker } = require(stories);
      const mine = await manager.acquire('mine.js', 'AH-1', Infinity);
      const [one, other] = [await startWorker(root), await startWorker(root)];
      await one.call('acquire', 'shared.js', 'AH-2', Infinity);
      await other.call('acquire', 'shared.js', 'AH-2', Infinity);
      await one.terminate();
      const shared = await manager.check('shared.js');
      await other.terminate();
      const left = await manager.tryAcquire('shared.js', 'AH-3');
      return { mine: await mine.verify(), shared: shared.storyId, left: left !== null };
    };
    expect(await inProcess(work)).toEqual({ mine: true, shared: 'AH-2', left: true });
  });
});
