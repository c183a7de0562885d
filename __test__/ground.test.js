'use strict';

/**
 * The ground under the locks: what is removed, missing or damaged harms nobody. Holders are told
 * that they lost their locks, callers what to do, and tokens go on rising. What cannot be written
 * is in disk.test.js, what was planted in hostile.test.js.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const { LockError } = require('..');
const { must } = require('./fixtures/machine.js');
const { atEnd, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');

/** "Within a few seconds." */
const SOON = 4000;

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

const remove = (...names) => fs.rmSync(at.path(...names), { recursive: true, force: true });

/** A manager and what it is told of its losses. */
function listening() {
  const manager = at.manager();
  const losses = [];
  manager.on('compromised', (error, lock) => losses.push({ error, lock }));
  return { manager, losses };
}

describe('the lock folder removed under its holder', () => {
  const ways = [
    ['rm -rf .ai/locks', () => remove('.ai', 'locks')],
    ['rm -rf .ai', () => remove('.ai')],
    ['mv .ai/locks', () => fs.renameSync(at.path('.ai', 'locks'), at.path('.ai', 'gone'))],
    ['git clean -fdx', () => must('git', '-C', at.root, 'clean', '-fdxq')],
  ];
  beforeEach(() => must('git', 'init', '--quiet', at.root));

  test.each(ways)('by %s: the holder is told, though it makes no call', async (_, way) => {
    const { manager, losses } = listening();
    const set = await manager.acquireAll([at.path('a.js'), at.path('b.js')], 'AH-1', Infinity);
    const { signal } = set.locks[0];
    way();
    expect(fs.existsSync(at.recordFile('a.js'))).toBe(false);
    await until(() => losses.length === 2, Boolean, SOON);
    expect(losses.map(({ lock }) => lock).sort((a, b) => a.token - b.token)).toEqual(set.locks);
    for (const { error, lock } of losses) {
      expect(error).toBeInstanceOf(LockError);
      expect(error).toMatchObject({ code: 'ECOMPROMISED', path: lock.filePath, storyId: 'AH-1' });
      expect(error.message).toContain('the lock folder was removed');
    }
    expect(signal.aborted).toBe(true);
    expect(await set.verify()).toBe(false);
  });

  test.each([
    ['acquire', (lock, manager) => manager.acquire(at.path('b.js'), 'AH-1')],
    ['renew', (lock) => lock.renew()],
    ['release', (lock) => lock.release()],
    ['cleanup', (lock, manager) => manager.cleanup('AH-9')],
  ])('is told at the next call at once: %s', async (_, call) => {
    const { manager, losses } = listening();
    const lock = await manager.acquire(at.path('a.js'), 'AH-1', Infinity);
    remove('.ai');
    await call(lock, manager).catch(() => {});
    expect(losses.map((loss) => loss.lock)).toEqual([lock]);
    expect(lock.signal.aborted).toBe(true);
    expect(await lock.verify()).toBe(false);
  });

  test('leaves a lock that cannot be renewed, verified or given up', async () => {
    const manager = at.manager();
    const lock = await manager.acquire(at.path('a.js'), 'AH-1', Infinity);
    remove('.ai');
    expect(await lock.verify()).toBe(false);
    expect(await rejection(lock.renew())).toMatchObject({ code: 'ECOMPROMISED' });
    expect(await lock.release()).toBe(false);
  });

  test('frees the path for the next comer, whose lock its predecessor does not touch', async () => {
    const story = await startProcess(at.root);
    await story.do(async ({ manager, held }) => {
      held.lock = await manager.acquire('a.js', 'AH-1', Infinity);
    });
    remove('.ai', 'locks');
    const next = await at.manager().acquire(at.path('a.js'), 'AH-2');
    expect(next.token).toBeGreaterThan(await story.do(({ held }) => held.lock.token));
    const answers = await story.do(async ({ held, manager }) => [
      await held.lock.verify(),
      await held.lock.release(),
      await manager.cleanup('AH-1'),
      await manager.close(),
    ]);
    expect(answers).toEqual([false, false, 0, undefined]);
    expect(await next.verify()).toBe(true);
  });

  test('a scope in it rejects with ECOMPROMISED, though its work succeeded', async () => {
    const manager = at.manager();
    const scope = manager.withLock(at.path('a.js'), 'AH-1', async ({ signal }) => {
      remove('.ai');
      await until(() => signal.aborted, Boolean, SOON);
      return 'done';
    });
    expect(await rejection(scope)).toMatchObject({ code: 'ECOMPROMISED', path: at.path('a.js') });
  });

  test('tokens keep rising, for those who were there and for those who come anew', async () => {
    const stories = await startAll(2, () => startProcess(at.root));
    const tokens = [];
    for (let round = 0; round < 6; round++) {
      if (round === 4) stories.push(await startProcess(at.root));
      for (const story of stories) {
        tokens.push((await story.call('acquire', `${tokens.length}.js`, 'AH-1', Infinity)).token);
      }
      remove(...[['.ai'], ['.ai', 'locks'], ['.ai', 'locks', '.guard']][round % 3]);
    }
    expect(tokens).toEqual([...new Set(tokens)].sort((one, other) => one - other));
  });

  test('again and again crashes nobody, and all goes well when it stops', async () => {
    const stories = await startAll(2, () => startProcess(at.root));
    const work = async ({ manager, held }, name) => {
      const codes = new Set();
      manager.on('compromised', ({ code }) => codes.add(code));
      while (!held.isOver) {
        try {
          const set = await manager.acquireAll(['a.js', 'b.js'], name, Infinity);
          await set.renew();
          await set.release();
        } catch ({ code }) {
          codes.add(code);
        }
      }
      return [...codes];
    };
    const working = stories.map((story, number) => story.do(work, `AH-${number}`));
    const tokenNow = () => at.record('a.js')?.token ?? 0;
    for (let round = 0; round < 40; round++) {
      const before = tokenNow();
      try {
        remove('.ai', ...(round % 2 ? ['locks'] : []));
      } catch (error) {
        // They make files faster than these can be removed: then half of it is gone.
        if (error.code !== 'ENOTEMPTY') throw error;
      }
      await until(tokenNow, (token) => token > before);
    }
    for (const story of stories) await story.do(({ held }) => void (held.isOver = true));
    const codes = new Set((await Promise.all(working)).flat());
    for (const code of codes) expect(code).toMatch(/^(ECOMPROMISED|ELOCKED|ENOENT)$/);
    expect(await at.manager().acquire(at.path('a.js'), 'AH-9')).toBeTruthy();
  });
});

describe('what was removed or damaged beside the records', () => {
  test('holder files: the living keep their locks, the dead lose theirs at once', async () => {
    const stories = await startAll(2, () => startProcess(at.root));
    await stories[0].call('acquire', 'a.js', 'AH-1', Infinity);
    await stories[1].call('acquire', 'b.js', 'AH-2', Infinity);
    const holders = at.path('.ai', 'locks', 'holders');
    for (const name of fs.readdirSync(holders)) fs.unlinkSync(path.join(holders, name));
    const manager = at.manager();
    expect(await manager.tryAcquire(at.path('a.js'), 'AH-3')).toBeNull();
    await stories[1].kill();
    expect(await manager.tryAcquire(at.path('a.js'), 'AH-3')).toBeNull();
    const { reclaimed } = await manager.acquire(at.path('b.js'), 'AH-3');
    expect(reclaimed).toMatchObject({ storyId: 'AH-2', how: 'died' });
  });

  test('the folder of holder files: the next lock is granted, others are kept', async () => {
    const stories = await startAll(2, () => startProcess(at.root));
    const lock = await stories[0].call('acquire', 'a.js', 'AH-1', Infinity);
    await stories[1].call('release', 'none.js', 'AH-2');
    remove('.ai', 'locks', 'holders');
    expect(await stories[1].call('tryAcquire', 'a.js', 'AH-2')).toBeNull();
    expect((await stories[1].call('acquire', 'b.js', 'AH-2')).token).toBeGreaterThan(lock.token);
    expect(await stories[0].call('tryAcquire', 'b.js', 'AH-1')).toBeNull();
    expect(await stories[0].call('acquire', 'c.js', 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });

  test.each([
    ['emptied', () => fs.truncateSync(at.path('.ai', 'locks', '.guard'))],
    ['cut short', () => fs.truncateSync(at.path('.ai', 'locks', '.guard'), 40)],
    ['rubbish', () => fs.writeFileSync(at.path('.ai', 'locks', '.guard'), Buffer.alloc(5000, 'x'))],
  ])('the guard %s: what is held stays held, and tokens keep rising', async (_, damage) => {
    const story = await startProcess(at.root);
    const { token } = await story.call('acquire', 'a.js', 'AH-1', Infinity);
    damage();
    const manager = at.manager();
    expect(await manager.tryAcquire(at.path('a.js'), 'AH-2')).toBeNull();
    const lock = await manager.acquire(at.path('b.js'), 'AH-2');
    expect(lock.token).toBeGreaterThan(token);
    expect((await story.call('acquire', 'c.js', 'AH-1')).token).toBeGreaterThan(lock.token);
  });

  test('a guard of a later version: nothing is granted, and the error says why', async () => {
    const guard = at.path('.ai', 'locks', '.guard');
    fs.mkdirSync(at.path('.ai', 'locks'));
    fs.writeFileSync(guard, 'storylk2');
    const error = await rejection(at.manager().acquire(at.path('a.js'), 'AH-1'));
    expect(error).toMatchObject({ name: 'LockError', code: 'EBADRECORD', path: guard });
    expect(error.message).toContain('later version');
    expect(error.hint).toContain('same version');
  });

  test.each([
    ['is rubbish', (view) => fs.writeFileSync(view, '{"activeLocks": [{]')],
    ['is empty', (view) => fs.writeFileSync(view, '')],
    ['has 10 MB', (view) => fs.writeFileSync(view, Buffer.alloc(10_000_000, '['))],
    ['is a FIFO', (view) => must('mkfifo', view)],
    ['is a folder', (view) => fs.mkdirSync(`${view}/deep`, { recursive: true })],
    ['is missing, with its folder', () => remove('.ai', 'progress')],
  ])('locks.json that %s: locks work, and it is right again', async (_, damage) => {
    const manager = at.manager();
    await manager.acquire(at.path('a.js'), 'AH-1');
    remove('.ai', 'progress', 'locks.json');
    damage(at.path('.ai', 'progress', 'locks.json'));
    const fresh = await startProcess(at.root);
    await fresh.call('acquire', 'b.js', 'AH-2');
    await manager.acquire(at.path('c.js'), 'AH-1');
    await until(() => at.viewed(), (files) => String(files) === 'a.js,b.js,c.js', SOON);
    expect(await manager.status()).not.toHaveProperty('error');
  });

  test('locks.json that is a link is replaced, and not followed', async () => {
    fs.writeFileSync(at.path('precious'), 'untouched');
    fs.mkdirSync(at.path('.ai', 'progress'));
    fs.symlinkSync(at.path('precious'), at.path('.ai', 'progress', 'locks.json'));
    await at.manager().acquire(at.path('a.js'), 'AH-1');
    expect(at.viewed()).toEqual(['a.js']);
    expect(fs.lstatSync(at.path('.ai', 'progress', 'locks.json')).isFile()).toBe(true);
    expect(fs.readFileSync(at.path('precious'), 'utf8')).toBe('untouched');
  });
});

describe('what is missing', () => {
  test('.ai is made when it is needed, and not to look', async () => {
    remove('.ai');
    const manager = at.manager();
    expect(await manager.check(at.path('a.js'))).toBeNull();
    expect(await manager.status()).toMatchObject({ totalLocks: 0 });
    expect(fs.existsSync(at.path('.ai'))).toBe(false);
    expect(await manager.acquire(at.path('a.js'), 'AH-1')).toBeTruthy();
    expect(at.viewed()).toEqual(['a.js']);
    expect(fs.readFileSync(at.path('.ai', 'locks', '.gitignore'), 'utf8')).toBe('*\n');
  });

  test('the project: nothing is made, and the error names it and what to look at', async () => {
    const { manager, losses } = listening();
    const lock = await manager.acquire(at.path('a.js'), 'AH-1');
    remove();
    const error = await rejection(manager.acquire(at.path('b.js'), 'AH-1'));
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOENT', path: at.root });
    expect(error.hint).toContain('project folder');
    expect((await manager.status()).error).toContain(at.root);
    await until(() => losses.length === 1, Boolean, SOON);
    expect(await lock.verify()).toBe(false);
    expect(fs.existsSync(at.root)).toBe(false);
    fs.mkdirSync(at.root);
    expect(await manager.acquire(at.path('a.js'), 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });
});

test('while a stopped process has the guard nothing is granted, and it is named', async () => {
  const manager = at.manager();
  const lock = await manager.acquire(at.path('a.js'), 'AH-1', Infinity);
  const guard = at.path('.ai', 'locks', '.guard');
  const keeper = spawn('flock', [guard, 'sh', '-c', 'echo held; cat'], { stdio: 'pipe' });
  atEnd(() => keeper.kill('SIGKILL'));
  await new Promise((resolve) => keeper.stdout.once('data', resolve));
  const error = await rejection(manager.acquire(at.path('b.js'), 'AH-1'));
  expect(error).toMatchObject({ name: 'LockError', code: 'EBUSY', path: guard });
  expect(error.message).toMatch(new RegExp(`process \\d+ has held the guard ${guard}`));
  expect(error.hint).toContain('kill -CONT');
  expect(lock.signal.aborted).toBe(false);
  expect(await manager.check(at.path('a.js'))).toMatchObject({ storyId: 'AH-1' });
  keeper.stdin.end();
  expect(await until(() => manager.tryAcquire(at.path('b.js'), 'AH-1'))).toBeTruthy();
  expect(await lock.verify()).toBe(true);
});
