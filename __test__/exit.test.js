'use strict';

/**
 * The end of a process, and its beginning: locks keep no process alive and are free once it has
 * ended, however it ends; an answer that is awaited does keep it; nothing is started before the
 * first call.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');

const { Running } = require('./fixtures/cli-shell.js');
const { HOME, atEnd, cleanUp, project, until } = require('./fixtures/project.js');

/** A process that stays for its locks stays for as long as they last: a minute. */
const AT_ONCE = 5000;

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

/** Runs this function, given the package, in a process of its own, which ends as it likes. */
function run(work) {
  return runScript(`(${work})(require(${JSON.stringify(HOME)}))`);
}

function runScript(source) {
  const running = new Running(process.execPath, ['-e', source], { cwd: at.root });
  atEnd(() => running.child.kill('SIGKILL'));
  return running;
}

/** Keeps the project's guard from everybody until the answer is called. */
async function holdGuard() {
  const child = spawn('flock', [at.path('.ai', 'locks', '.guard'), 'sh', '-c', 'echo held; cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  atEnd(() => child.kill('SIGKILL'));
  await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdout.once('data', resolve);
  });
  return () => child.stdin.end();
}

describe('a process that holds locks ends at once', () => {
  test.each([
    ['when its work is done', '', { code: 0, signal: null }],
    [
      'though it listens for losses',
      "lockManager.on('compromised', () => {}); bound.signal.onabort = () => {};",
      { code: 0, signal: null },
    ],
    ['by process.exit()', 'process.exit(7);', { code: 7, signal: null }],
    [
      'by process.exit() inside a scope',
      "await lockManager.withLock('scope.js', 'AH-1', () => process.exit(7));",
      { code: 7, signal: null },
    ],
    ['by an error that nobody catches', "throw new Error('nobody');", { code: 1, signal: null }],
    [
      'by SIGTERM',
      "process.kill(process.pid, 'SIGTERM'); setInterval(() => {}, 1000);",
      { code: null, signal: 'SIGTERM' },
    ],
  ])('%s, and its locks are free', async (_, end, how) => {
    const running = run(`async ({ lockManager }) => {
      await lockManager.acquire('timed.js', 'AH-1', 60_000);
      const bound = await lockManager.acquire('bound.js', 'AH-1', Infinity);
      console.log('held', Date.now());
      ${end}
    }`);
    const [, since] = await running.says(/held (\d+)/);
    const ended = await running.ended;
    expect(Date.now() - Number(since)).toBeLessThan(AT_ONCE);
    expect(ended).toMatchObject(how);
    const files = ['timed.js', 'bound.js', 'scope.js'].map((name) => at.path(name));
    const { locks } = await at.manager().acquireAll(files, 'AH-2');
    // Only who is killed leaves something to tell of.
    const told = how.signal && { storyId: 'AH-1', how: 'died' };
    const expected = told ? expect.objectContaining(told) : null;
    expect(locks.map(({ reclaimed }) => reclaimed)).toEqual([expected, expected, null]);
  });

  test('even when the guard cannot be had', async () => {
    const running = run(async ({ lockManager }) => {
      await lockManager.acquire('bound.js', 'AH-1', Infinity);
      console.log('held');
      process.stdin.resume().once('end', () => {
        console.log('leaving', Date.now());
      });
    });
    const letGo = await running.says(/held/).then(holdGuard);
    running.child.stdin.end();
    const ended = await running.ended;
    const [, since] = /leaving (\d+)/.exec(ended.stdout);
    expect(Date.now() - Number(since)).toBeLessThan(AT_ONCE);
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    letGo();
    expect(await at.manager().acquire(at.path('bound.js'), 'AH-2')).toMatchObject({
      reclaimed: { storyId: 'AH-1', how: 'died' },
    });
  });
});

describe('before the first call', () => {
  test('nothing is started, listened to or written', async () => {
    const seen = `() => ({
      threads: fs.readdirSync('/proc/self/task').length,
      descriptors: fs.readdirSync('/proc/self/fd').length,
      listeners: process.eventNames().map((name) => [String(name), process.listenerCount(name)]),
      files: fs.readdirSync('.', { recursive: true }).sort(),
    })`;
    const bare = runScript(`console.log(JSON.stringify((${seen})()))`);
    const running = run(`({ LockManager, lockManager }) => {
      const seen = ${seen};
      const loaded = seen();
      new LockManager({ timeout: 10 }).on('compromised', () => {});
      const { root } = lockManager;
      console.log(JSON.stringify({ loaded, made: seen(), root }));
    }`);
    const without = JSON.parse((await bare.ended).stdout);
    const { loaded, made, root } = JSON.parse((await running.ended).stdout);
    expect(root).toBe(at.root);
    expect(loaded).toEqual(without);
    expect(made).toEqual(without);
    expect(without.files).toEqual(['.ai']);
  });

  test('a call that is refused for its arguments starts nothing either', async () => {
    const running = run(async ({ lockManager }) => {
      const { readdirSync } = require('node:fs');
      const threads = () => readdirSync('/proc/self/task').length;
      const before = threads();
      const calls = [
        lockManager.acquire('', 'AH-1'),
        lockManager.acquire('a\0b', 'AH-1'),
        lockManager.acquire('a', 'A\nH'),
        lockManager.acquire('a', 'AH-1', -1),
        lockManager.acquireAll([], 'AH-1'),
        lockManager.release(7, 'AH-1'),
        lockManager.renew('a', 'AH-1', NaN),
        lockManager.check('x'.repeat(5000)),
        lockManager.cleanup('x'.repeat(257)),
      ];
      const codes = (await Promise.allSettled(calls)).map(({ reason }) => reason?.code);
      const started = threads() - before;
      console.log(JSON.stringify({ codes, started, files: readdirSync('.ai') }));
    });
    const { codes, started, files } = JSON.parse((await running.ended).stdout);
    expect(codes.filter((code) => !/^ERR_/.test(code))).toEqual([]);
    expect({ started, files }).toEqual({ started: 0, files: [] });
  });

  test('one thread serves all managers of a project, however many locks they hold', async () => {
    const running = run(async ({ LockManager }) => {
      const { readdirSync, readFileSync } = require('node:fs');
      const named = () =>
        readdirSync('/proc/self/task')
          .map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim())
          .filter((name) => name.startsWith('storylock'));
      const managers = [1, 2, 3].map(() => new LockManager());
      for (const [n, manager] of managers.entries()) {
        await manager.acquireAll(Array.from({ length: 200 }, (_, i) => `${n}-${i}`), 'AH-1');
      }
      console.log(JSON.stringify(named()));
    });
    expect(JSON.parse((await running.ended).stdout)).toEqual(['storylock']);
  });
});

describe('an answer that is awaited keeps the process alive', () => {
  test('until it is there, though nothing else does', async () => {
    const running = run(({ lockManager }) => {
      lockManager.acquire('a.js', 'AH-1').then(({ storyId }) => console.log('granted', storyId));
    });
    expect(await running.ended).toMatchObject({ code: 0, stdout: 'granted AH-1\n', stderr: '' });
  });

  test('also when it is long in coming', async () => {
    await at.manager().release(at.path('none'), 'AH-1');
    const letGo = await holdGuard();
    const running = run(({ lockManager }) => {
      console.log('asking');
      for (const name of ['a', 'b', 'c']) {
        lockManager.acquire(name, 'AH-1').then(() => console.log('granted', name));
      }
      lockManager.status().then(() => console.log('told'));
    });
    await running.says(/asking/);
    // It waits for the guard, in the kernel's own queue.
    await until(() => fs.readFileSync('/proc/locks', 'utf8'), (locks) => {
      return new RegExp(`-> FLOCK +ADVISORY +WRITE ${running.child.pid} `).test(locks);
    });
    expect(running.child.exitCode).toBeNull();
    letGo();
    const { code, stdout } = await running.ended;
    expect(code).toBe(0);
    const [, ...said] = stdout.trim().split('\n');
    expect(said.sort()).toEqual(['granted a', 'granted b', 'granted c', 'told']);
  });

  test('and not a moment longer, after a refusal too', async () => {
    await at.manager().acquire(at.path('a.js'), 'AH-1');
    const running = run(({ lockManager }) => {
      lockManager.acquire('a.js', 'AH-2').catch(({ code }) => console.log(code, Date.now()));
    });
    const [, since] = await running.says(/ELOCKED (\d+)/);
    await running.ended;
    expect(Date.now() - Number(since)).toBeLessThan(AT_ONCE);
  });
});
