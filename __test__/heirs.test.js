'use strict';

/**
 * Child processes of a holder: they inherit no handle of storylock's unless they are handed the life
 * line on purpose, so the locks end with the holder though a child lives on.
 *
 * What `storylock run` hands to its command is in run.test.js.
 */

const fs = require('node:fs');

const { atEnd, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

/** In a story: has every kind of handle open that storylock ever opens. */
const opened = async ({ manager, storylock, held }, root) => {
  held.other = new storylock.LockManager({ root });
  await manager.acquire('mine', 'AH-1', Infinity);
  await manager.applyPatch('patched', 'AH-1', 'x');
  // A bell and its watcher: its own handles of the kernel.
  manager.acquire('theirs', 'AH-1', { wait: Infinity }).catch(() => {});
  await manager.status();
};

/** What a child tells of its open files: a line each, without its own look at them. */
const LIST = `
  const fs = require('node:fs');
  const names = fs.readdirSync('/proc/self/fd').flatMap((fd) => {
    try { return [fs.readlinkSync('/proc/self/fd/' + fd)]; } catch { return []; }
  });
  require('node:fs').writeFileSync(process.argv[1], names.sort().join('\\n'));
`;

/** In a story: the ways to start a child that lists its open files; each ends when it has. */
const STARTS = {
  'spawn with all of its stdio': ({ spawn }, list, file) =>
    spawn(process.execPath, ['-e', list, file], { stdio: 'inherit' }),
  'spawn through a shell': ({ spawn }, list, file) =>
    spawn(`"$NODE" -e "$LIST" "${file}"`, {
      shell: true,
      env: { ...process.env, NODE: process.execPath, LIST: list },
    }),
  'spawn detached': ({ spawn }, list, file) =>
    spawn(process.execPath, ['-e', list, file], { stdio: 'ignore', detached: true }),
  'spawn with a channel, as fork does': ({ spawn }, list, file) =>
    spawn(process.execPath, ['-e', list, file], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }),
};

describe('a child inherits nothing', () => {
  test.each(Object.keys(STARTS))('%s', async (name) => {
    const theirs = await startProcess(at.root);
    await theirs.call('acquire', 'theirs', 'AH-2', Infinity);
    const story = await startProcess(at.root);
    const start = async ({ require }, source, list, file) => {
      const childProcess = require('node:child_process');
      const child = new Function(`return (${source})`)()(childProcess, list, file);
      await new Promise((resolve) => child.once('exit', resolve));
    };
    const filesOf = async (file) => {
      await story.do(start, STARTS[name].toString(), LIST, at.path(file));
      return fs.readFileSync(at.path(file), 'utf8').split('\n');
    };
    const kind = (link) => link.replace(/\d+/g, 'N');
    const before = await filesOf('before');
    await story.do(opened, at.root);
    const after = await filesOf('after');
    expect(after.filter((link) => link.includes('/.ai/'))).toEqual([]);
    expect(after.map(kind)).toEqual(before.map(kind));
    // The story itself has them: the list sees such things.
    const own = fs.readdirSync(`/proc/${story.pid}/fd`).flatMap((fd) => {
      const link = `/proc/${story.pid}/fd/${fd}`;
      return fs.existsSync(link) ? [fs.readlinkSync(link)] : [];
    });
    expect(own.some((link) => link.includes('/.ai/locks/holders/'))).toBe(true);
    expect(own.some((link) => link.includes('inotify'))).toBe(true);
  });

  test('from a worker thread, while locks come and go in another', async () => {
    const story = await startProcess(at.root);
    const work = async ({ manager, require }, list, root) => {
      const { execFileSync } = require('node:child_process');
      const { Worker } = require('node:worker_threads');
      const source = `
        const { execFileSync } = require('node:child_process');
        const { parentPort, workerData } = require('node:worker_threads');
        for (let n = 0; n < 8; n++) {
          execFileSync(process.execPath, ['-e', workerData.list, workerData.root + '/list' + n]);
        }
        parentPort.postMessage('done');
      `;
      const worker = new Worker(source, { eval: true, workerData: { list, root } });
      let isOver = false;
      worker.once('message', () => {
        isOver = true;
      });
      const failed = new Promise((_, reject) => worker.once('error', reject));
      const busy = (async () => {
        while (!isOver) {
          const { locks } = await manager.acquireAll(['a', 'b'], 'AH-1');
          for (const lock of locks) await lock.release();
          await manager.applyPatch('patched', 'AH-1', 'x', { durable: false });
        }
      })();
      await Promise.race([busy, failed]);
      return execFileSync('true').length;
    };
    await story.do(work, LIST, at.root);
    for (let n = 0; n < 8; n++) {
      const links = fs.readFileSync(at.path(`list${n}`), 'utf8').split('\n');
      expect(links.filter((link) => link.startsWith(at.root))).toEqual([]);
    }
  });
});

/** In a story: starts a child that lives on, with this stdio; its pid. */
const leaveChild = async ({ manager, require }, withLifeLine) => {
  const { spawn } = require('node:child_process');
  const lifeLine = manager[Symbol.for('storylock.lifeLine')]();
  // The shell starts another that inherits what it has, and waits for it.
  const child = spawn('sh', ['-c', 'sleep 600 & echo $!; wait'], {
    stdio: ['ignore', 'pipe', 'ignore', ...(withLifeLine ? [lifeLine] : [])],
    detached: true,
  });
  child.unref();
  const said = await new Promise((resolve) => child.stdout.once('data', resolve));
  child.stdout.destroy();
  return { child: child.pid, grandchild: Number(said) };
};

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function end(pid) {
  if (isAlive(pid)) process.kill(pid, 'SIGKILL');
}

/** A holder that was killed, and what it left alive. */
async function killedWith(withLifeLine) {
  const story = await startProcess(at.root);
  await story.call('acquire', 'a', 'AH-1', Infinity);
  const left = await story.do(leaveChild, withLifeLine);
  atEnd(() => Object.values(left).forEach(end));
  await story.kill();
  return left;
}

describe('the locks of a holder that was killed', () => {
  test('are free at once though its children live on', async () => {
    const { child, grandchild } = await killedWith(false);
    const lock = await at.manager().acquire(at.path('a'), 'AH-2');
    expect(lock.reclaimed).toMatchObject({ storyId: 'AH-1', how: 'died' });
    expect([isAlive(child), isAlive(grandchild)]).toEqual([true, true]);
  });

  test('live on with a child that was handed the life line, and with its heirs', async () => {
    const { child, grandchild } = await killedWith(true);
    const manager = at.manager();
    const refused = () => rejection(manager.acquire(at.path('a'), 'AH-2'));
    expect(await refused()).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-1' } });
    end(child);
    await until(() => !isAlive(child));
    expect(await refused()).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-1' } });
    const waiting = manager.acquire(at.path('a'), 'AH-2', { wait: 60_000 });
    end(grandchild);
    expect((await waiting).reclaimed).toMatchObject({ storyId: 'AH-1', how: 'died' });
  });
});

test('a holder that releases is free of its lock, whatever its heirs have open', async () => {
  const story = await startProcess(at.root);
  await story.call('acquire', 'a', 'AH-1', Infinity);
  const left = await story.do(leaveChild, true);
  atEnd(() => Object.values(left).forEach(end));
  await story.call('release', 'a', 'AH-1');
  const lock = await at.manager().acquire(at.path('a'), 'AH-2');
  expect(lock.reclaimed).toBeNull();
  await story.do(() => setImmediate(() => process.exit()));
  await story.ended;
  expect(isAlive(left.child)).toBe(true);
});
