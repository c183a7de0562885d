'use strict';

/**
 * Two copies of the package in one process: two addons, each with an engine of its own, that know
 * nothing of each other. They keep each other out, wait for each other in turn, and go together.
 * That exactly one of them gets a path is in exclusion.test.js.
 */

const fs = require('node:fs');
const path = require('node:path');

const { cleanUp, copyOfPackage, project } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

const STORIES = path.join(__dirname, 'fixtures', 'stories.js');
const WAIT_LINE = path.join(__dirname, 'fixtures', 'wait-line.js');

let at;
let copy;
beforeEach(() => {
  at = project();
  copy = copyOfPackage();
});
afterEach(cleanUp);

/** Does this in a process, given a manager of the package and one of its copy. */
async function withBoth(work, ...args) {
  const story = await startProcess(at.root);
  const both = async (tools, source, copied, root, ...rest) => {
    const other = tools.require(copied);
    const copies = [tools.storylock, other];
    const managers = copies.map((one) => new one.LockManager({ root }));
    return new Function(`return (${source})`)()({ ...tools, copies, managers }, ...rest);
  };
  return { story, answer: await story.do(both, work.toString(), copy, at.root, ...args) };
}

test('they stand in one line, in order of arrival, and each is woken by the other', async () => {
  const { answer } = await withBoth(async ({ managers, require }, line) => {
    const { lineUp } = require(line);
    const held = await managers[0].acquire('a', 'S0', Infinity);
    const turns = [];
    const served = [];
    for (let n = 1; n <= 6; n++) {
      const { turn } = await lineUp(managers[0], () =>
        managers[n % 2].acquire('a', `S${n}`, { wait: 60_000 }),
      );
      turns.push(
        turn.then(async (lock) => {
          served.push(lock.storyId);
          await lock.release();
        }),
      );
    }
    await held.release();
    await Promise.all(turns);
    return served;
  }, WAIT_LINE);
  expect(answer).toEqual(['S1', 'S2', 'S3', 'S4', 'S5', 'S6']);
});

test('a circle of stories through both is refused to the one that would close it', async () => {
  const { answer } = await withBoth(async ({ managers: [one, other], require }, line) => {
    const { lineUp } = require(line);
    await one.acquire('a', 'A', Infinity);
    await other.acquire('b', 'B', Infinity);
    const waits = await lineUp(one, () => one.acquire('b', 'A', { wait: Infinity }));
    const refused = await other.acquire('a', 'B', { wait: Infinity }).catch((error) => error);
    await other.release('b', 'B');
    return { code: refused.code, then: (await waits.turn).storyId };
  }, WAIT_LINE);
  expect(answer).toEqual({ code: 'EDEADLK', then: 'A' });
});

test('a story has one lock in both; who gives it up in one tells the other', async () => {
  const { answer } = await withBoth(async ({ managers: [one, other], pause }) => {
    const mine = await one.acquire('a', 'A', Infinity);
    const again = await other.acquire('a', 'A', Infinity);
    const losses = [];
    one.on('compromised', (error) => losses.push(error.code));
    await again.release();
    while (losses.length === 0) await pause(5);
    return { same: again.token === mine.token, losses, aborted: mine.signal.aborted };
  });
  expect(answer).toEqual({ same: true, losses: ['ECOMPROMISED'], aborted: true });
});

test('a lock of one is no lock to write under in the other, and nothing is written', async () => {
  const { answer } = await withBoth(async ({ managers: [one, other] }) => {
    const lock = await one.acquire('a', 'A', Infinity);
    const refused = await other.applyPatch('a', 'A', 'x', { lock }).catch((error) => error);
    const own = await one.applyPatch('b', 'A', 'x');
    return { name: refused.name, code: refused.code, own: typeof own.hash };
  });
  expect(answer).toEqual({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE', own: 'string' });
  expect(fs.existsSync(at.path('a'))).toBe(false);
});

test('what one changes the other shows, and its patches are fenced by it', async () => {
  const { answer } = await withBoth(async ({ managers: [one, other], storylock }) => {
    const lock = await one.acquire('a', 'A', { timeout: 30_000 });
    const stories = (await other.status()).activeLocks.map(({ storyId }) => storyId);
    await other.cleanup('A');
    await other.acquire('a', 'B', Infinity);
    const late = await one.applyPatch('a', 'A', 'late', { lock }).catch(({ code }) => code);
    await other.applyPatch('a', 'B', 'current');
    return { stories, late, now: String((await storylock.read('a')).content) };
  });
  expect(answer).toEqual({ stories: ['A'], late: 'EFENCED', now: 'current' });
});

test('the locks of both are free when the process is killed, and when it ends by itself', async () => {
  for (const how of ['SIGKILL', 'exit']) {
    const { story } = await withBoth(async ({ managers }) => {
      for (const [n, manager] of managers.entries()) await manager.acquire(`${n}`, 'A', Infinity);
    });
    if (how === 'SIGKILL') await story.kill();
    else await story.do(() => setImmediate(() => process.exit())).then(() => story.ended);
    const { locks } = await at.manager().acquireAll([at.path('0'), at.path('1')], 'B');
    const expected = how === 'SIGKILL' ? expect.objectContaining({ how: 'died' }) : null;
    expect(locks.map(({ reclaimed }) => reclaimed)).toEqual([expected, expected]);
    await at.manager().cleanup('B');
  }
});

test('a copy that only a worker has loaded outlives the worker: its threads may still run', async () => {
  const host = await startProcess(at.root);
  const work = async ({ manager, require, pause }, stories, root, copied) => {
    const fs = require('node:fs');
    const { startWorker } = require(stories);
    await manager.acquire('mine', 'M', Infinity);
    for (let round = 0; round < 8; round++) {
      const worker = await startWorker(root, { home: copied });
      await worker.do(async ({ manager: own }, n) => {
        await own.acquire(`held-${n}`, 'W', Infinity);
        own.acquire('mine', 'W', { wait: Infinity }).catch(() => {});
        own.applyPatch(`file-${n}`, 'W', 'x'.repeat(1_000_000)).catch(() => {});
        for (let more = 0; more < 50; more++) own.acquire(`more-${more}`, 'W').catch(() => {});
        await own.status();
      }, round);
      await pause(Math.random() * 3);
      await worker.terminate();
    }
    const isMapped = fs.readFileSync('/proc/self/maps', 'utf8').includes(`${copied}/`);
    const left = async () => {
      const { activeLocks, waiting } = await manager.status();
      return activeLocks.length - 1 + waiting.length;
    };
    while ((await left()) > 0) await pause(5);
    return { isMapped, mine: (await manager.check('mine')).storyId };
  };
  const answer = await host.do(work, STORIES, at.root, copy);
  expect(answer).toEqual({ isMapped: true, mine: 'M' });
  await host.do(({ manager }) => manager.close().then(() => setImmediate(() => process.disconnect())));
  expect(await host.ended).toMatchObject({ code: 0, signal: null });
  // What a change of the last worker had made is swept by whoever comes next.
  await at.manager().acquire(at.path('next'), 'AH-2');
  expect(fs.readdirSync(at.root).filter((name) => name.startsWith('.storylock-'))).toEqual([]);
});
