'use strict';

/**
 * Containers of one host, made of pid and mount namespaces: pids mean nothing across them, and the
 * same ones stand for different processes. Whoever lives is not robbed, whoever is killed is noticed
 * everywhere, and a pid is taken for proof of death only where it is known whose it is.
 *
 * That a holder in another container lives and dies likewise is in crash.test.js.
 */

const fs = require('node:fs');
const path = require('node:path');

const { defect } = require('./fixtures/defect.js');
const { CONTAINER, testUnless, whyNoContainer, whyNoMount } = require('./fixtures/machine.js');
const { atEnd, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');

const NESTED = path.join(__dirname, 'fixtures', 'nested.js');

const why = whyNoContainer('--mount-proc');

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

const container = (command = CONTAINER) => startProcess(at.root, { command });

/** Removes all holder files: from then on there is no more than pids to go by. */
function removeHolderFiles() {
  const holders = at.path('.ai', 'locks', 'holders');
  for (const name of fs.readdirSync(holders)) fs.unlinkSync(path.join(holders, name));
}

/** The process of a container as the host sees it. */
function hostPidOf(container) {
  const child = `/proc/${container.pid}/task/${container.pid}/children`;
  return Number(fs.readFileSync(child, 'utf8'));
}

/** Stops a container's process: it lives, and mends nothing. */
function stop(container) {
  const pid = hostPidOf(container);
  process.kill(pid, 'SIGSTOP');
  atEnd(() => container.kill());
  return until(() => /^State:\s+T/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8')));
}

testUnless(why, 'two with the same pid keep each other out, and see each other die', async () => {
  const [one, other] = await startAll(2, () => container());
  const first = await one.call('acquire', 'a', 'AH-1', Infinity);
  expect(await other.call('tryAcquire', 'a', 'AH-2')).toBeNull();
  await one.kill();
  const second = await until(() => other.call('tryAcquire', 'a', 'AH-2', Infinity));
  expect(second.reclaimed).toMatchObject({ storyId: 'AH-1', pid: first.pid, how: 'died' });
  expect(second.pid).toBe(first.pid);
  expect(await at.manager().tryAcquire(at.path('a'), 'AH-3')).toBeNull();
});

testUnless(why, 'who waits in one is served when the holder in another is killed', async () => {
  const [holder, waiter, last] = await startAll(3, () => container());
  await holder.call('acquire', 'a', 'AH-1', Infinity);
  const turn = waiter.call('acquire', 'a', 'AH-2', { wait: 60_000, timeout: Infinity });
  const manager = at.manager();
  await until(async () => (await manager.status()).waiting.length === 1);
  const lastTurn = last.call('acquire', 'a', 'AH-3', { wait: 60_000 });
  await until(async () => (await manager.status()).waiting.length === 2);
  await holder.kill();
  expect(await turn).toMatchObject({ storyId: 'AH-2', reclaimed: { how: 'died' } });
  await waiter.kill();
  expect(await lastTurn).toMatchObject({ storyId: 'AH-3', reclaimed: { storyId: 'AH-2' } });
});

testUnless(why, 'of stories in three and on the host exactly one gets each path', async () => {
  const stories = [...(await startAll(3, () => container())), await startProcess(at.root)];
  const names = Array.from({ length: 30 }, (_, number) => `f${number}`);
  const tryAll = async ({ manager }, name, files) => {
    const locks = await Promise.all(files.map((file) => manager.tryAcquire(file, name, Infinity)));
    return locks.filter((lock) => lock !== null).length;
  };
  const counts = stories.map((story, number) => story.do(tryAll, `S${number}`, names));
  expect((await Promise.all(counts)).reduce((sum, count) => sum + count)).toBe(names.length);
});

describe('with its holder file gone, a holder', () => {
  testUnless(why, 'in another container holds, whoever has its pid here', async () => {
    const [holder, other] = await startAll(2, () => container());
    const { pid } = await holder.call('acquire', 'a', 'AH-1', Infinity);
    await stop(holder);
    removeHolderFiles();
    // Its pid is the asker's own here, and some other process's on the host.
    expect(await other.do(() => process.pid)).toBe(pid);
    expect(await other.call('tryAcquire', 'a', 'AH-2')).toBeNull();
    expect(await at.manager().tryAcquire(at.path('a'), 'AH-2')).toBeNull();
  });

  testUnless(why, 'of a container that is gone holds until somebody says otherwise', async () => {
    const holder = await container();
    await holder.call('acquire', 'a', 'AH-1', Infinity);
    await holder.call('acquire', 'b', 'AH-1', 300);
    await holder.kill();
    removeHolderFiles();
    const manager = at.manager();
    // Nothing proves its death: a bound lock is kept, a timed one ends by its lease.
    const refused = await rejection(manager.acquire(at.path('a'), 'AH-2'));
    expect(refused).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-1' } });
    expect((await manager.acquire(at.path('b'), 'AH-2', { wait: 60_000 })).reclaimed).toMatchObject({
      storyId: 'AH-1',
      how: 'expired',
    });
    expect(await manager.cleanup('AH-1')).toBe(1);
    expect(await manager.acquire(at.path('a'), 'AH-2')).toMatchObject({ storyId: 'AH-2' });
  });

  testUnless(why, 'of the same container is dead once its pid is free or another’s', async () => {
    const inside = await container();
    // A process of the container that holds, is killed, and whose pid then is another's.
    const work = async ({ manager, require }, stories, root) => {
      const { startPid } = require(stories);
      const holder = await startPid(4711, root);
      await holder.call('acquire', 'a', 'AH-1', Infinity);
      const living = await startPid(4811, root);
      await living.call('acquire', 'b', 'AH-1', Infinity);
      process.kill(living.pid, 'SIGSTOP');
      await holder.kill();
      const heir = await startPid(4711, root);
      const fs = require('node:fs');
      for (const name of fs.readdirSync('.ai/locks/holders')) {
        fs.unlinkSync(`.ai/locks/holders/${name}`);
      }
      const dead = await manager.tryAcquire('a', 'AH-2');
      const alive = await manager.tryAcquire('b', 'AH-2');
      process.kill(living.pid, 'SIGCONT');
      return { dead: dead?.reclaimed?.how, alive, isReused: heir.pid === holder.pid };
    };
    const answer = await inside.do(work, NESTED, at.root);
    expect(answer).toEqual({ dead: 'died', alive: null, isReused: true });
  });

  const byProc = 'is not taken for dead by what the /proc of another container says';
  const itsProc = async () => {
    const outer = await container();
    const work = async ({ require }, nested, root) => {
      const { startNested, startPid } = require(nested);
      // Whoever has this pid in the outer container is who /proc tells of in the inner one.
      const first = await startPid(4711, root);
      const inner = await startNested(root);
      const holder = async ({ require: load, held }, name, project) => {
        held.holder = await load(name).startPid(4711, project);
        await held.holder.call('acquire', 'a', 'AH-1', Infinity);
        process.kill(held.holder.pid, 'SIGSTOP');
        return held.holder.pid;
      };
      const pid = await inner.do(holder, nested, root);
      const fs = require('node:fs');
      for (const name of fs.readdirSync('.ai/locks/holders')) {
        fs.unlinkSync(`.ai/locks/holders/${name}`);
      }
      await first.kill();
      const second = await startPid(4711, root);
      const taken = await inner.call('tryAcquire', 'a', 'AH-2');
      const signalled = await inner.do(({ held }) => process.kill(held.holder.pid, 0));
      await second.kill();
      await inner.kill();
      return { pid, signalled, taken: taken && taken.reclaimed };
    };
    const answer = await outer.do(work, NESTED, at.root);
    expect(answer).toEqual({ pid: 4711, signalled: true, taken: null });
  };
  defect(1, byProc, itsProc, why);
});

testUnless(whyNoMount() ?? why, 'where nothing tells of processes locks work all the same', async () => {
  // In front of /proc there is an empty folder.
  const hidden = 'mount -t tmpfs none /proc && exec "$0" "$@"';
  const blind = ['unshare', '--pid', '--fork', '--kill-child', '--mount'];
  const command = [...blind, 'sh', '-c', hidden, process.execPath];
  const [one, other] = await startAll(2, () => container(command));
  await one.call('acquire', 'a', 'AH-1', Infinity);
  expect(await other.call('tryAcquire', 'a', 'AH-2')).toBeNull();
  expect(await at.manager().tryAcquire(at.path('a'), 'AH-3')).toBeNull();
  await stop(one);
  removeHolderFiles();
  expect(await other.call('tryAcquire', 'a', 'AH-2')).toBeNull();
  process.kill(hostPidOf(one), 'SIGCONT');
  // It makes its holder file anew within a second or so.
  await until(() => fs.readdirSync(at.path('.ai', 'locks', 'holders')).length > 0);
  await one.kill();
  const lock = await until(() => other.call('tryAcquire', 'a', 'AH-2'));
  expect(lock.reclaimed).toMatchObject({ storyId: 'AH-1', how: 'died' });
});

const atTwoPlaces = async () => {
  const elsewhere = at.path('elsewhere');
  fs.mkdirSync(elsewhere);
  const mounted = `mount --bind "${at.root}" "${elsewhere}" && exec "$0" "$@"`;
  const command = ['unshare', '--mount', 'sh', '-c', mounted, process.execPath];
  const inside = await startProcess(elsewhere, { command });
  await inside.do(({ manager }, file) => manager.acquire(file, 'AH-1', Infinity), `${elsewhere}/a`);
  expect(await at.manager().tryAcquire(at.path('a'), 'AH-2')).toBeNull();
};
defect(2, 'a project mounted at two places is one project', atTwoPlaces, whyNoMount());
