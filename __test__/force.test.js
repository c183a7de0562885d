'use strict';

/**
 * Force release: an operator takes a path from its holder. The holder is told by whom and why, and
 * fenced; who waits goes on in turn; what is done is noted.
 */

const { once } = require('node:events');
const fs = require('node:fs');

const { LockError } = require('..');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');
const { lineUp, waiting } = require('./fixtures/wait-line.js');

const BY = { by: 'ops', reason: 'AH-1 hangs' };

let at;
let manager;
let file;
beforeEach(() => {
  at = project();
  manager = at.manager();
  file = at.path('a.js');
});
afterEach(cleanUp);

/** The notes of what was taken, each as it stands on the disk. */
function notes() {
  const folder = at.path('.ai', 'locks', 'forced');
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .flatMap((name) => JSON.parse(fs.readFileSync(`${folder}/${name}`)));
}

test('the path is free at once, and the answer says whose it was', async () => {
  const lock = await manager.acquire(file, 'AH-1', Infinity);
  const freed = await at.manager().forceRelease(file, BY);
  expect(freed).toEqual({
    removed: [expect.objectContaining({ lockId: lock.lockId, storyId: 'AH-1', token: lock.token })],
    next: [],
    dryRun: false,
  });
  expect(await lock.verify()).toBe(false);
  expect(await lock.release()).toBe(false);
  await manager.acquire(file, 'AH-2');
  const { holder } = await rejection(manager.acquire(file, 'AH-1'));
  expect(Object.keys(freed.removed[0])).toEqual(Object.keys(holder));
});

test('the holder is told by whom and why, in every process that has the lock', async () => {
  const story = await startProcess(at.root);
  await story.do(async ({ manager: mine, held }, name) => {
    held.lock = await mine.acquire(name, 'AH-1', Infinity);
    held.told = new Promise((resolve) => {
      mine.on('compromised', (error, lock) => resolve({ ...error, lockId: lock.lockId }));
    });
  }, file);
  const own = await manager.acquire(file, 'AH-1');
  const aborted = once(own.signal, 'abort');
  const before = Date.now();
  await at.manager().forceRelease(file, BY);
  await aborted;
  const forced = { ...BY, at: expect.any(Number) };
  const loss = own.signal.reason;
  expect(loss).toBeInstanceOf(LockError);
  expect(loss).toMatchObject({ code: 'ECOMPROMISED', path: file, storyId: 'AH-1', forced });
  expect(loss.forced.at).toBeGreaterThanOrEqual(before);
  expect(loss.message).toMatch(/ops.*AH-1 hangs/);
  const told = await story.do(({ held }) => held.told);
  expect(told).toMatchObject({ code: 'ECOMPROMISED', forced, lockId: own.lockId });
  expect(await story.do(({ held }) => held.lock.signal.aborted)).toBe(true);
});

test('what the former holder writes afterwards is refused', async () => {
  fs.writeFileSync(file, 'one\n');
  const lock = await manager.acquire(file, 'AH-1', Infinity);
  await at.manager().forceRelease(file, BY);
  const error = await rejection(manager.applyPatch(file, 'AH-1', 'two\n', { lock }));
  expect(error.code).toMatch(/^(EFENCED|ECOMPROMISED)$/);
  expect(fs.readFileSync(file, 'utf8')).toBe('one\n');
  expect((await rejection(lock.renew())).code).toBe('ECOMPROMISED');
});

test('a scope is told, and its success is none', async () => {
  const scope = manager.withLock(file, 'AH-1', async ({ signal }) => {
    const aborted = once(signal, 'abort');
    await at.manager().forceRelease(file, BY);
    await aborted;
    return 'done';
  });
  expect(await rejection(scope)).toMatchObject({ code: 'ECOMPROMISED', forced: BY });
});

test('who waits goes on in turn, and nobody comes between', async () => {
  await manager.acquire(file, 'AH-1', Infinity);
  const first = await lineUp(manager, () => manager.acquire(file, 'AH-2', { wait: 20_000 }));
  const second = await lineUp(manager, () => manager.acquire(file, 'AH-3', { wait: 20_000 }));
  const freed = manager.forceRelease(file, BY);
  expect(await manager.tryAcquire(file, 'THIEF')).toBeNull();
  const { next } = await freed;
  expect(next.map(({ storyId, place }) => [storyId, place])).toEqual([
    ['AH-2', 1],
    ['AH-3', 2],
  ]);
  expect(Object.keys(next[0]).sort()).toEqual(Object.keys((await waiting(manager))[0]).sort());
  const lock = await first.turn;
  expect(lock.storyId).toBe('AH-2');
  await lock.release();
  expect((await second.turn).storyId).toBe('AH-3');
});

test('it is noted who did it, when, why, and whose lock it was', async () => {
  const lock = await manager.acquire(file, 'AH-1');
  const before = Date.now();
  await manager.forceRelease(file, BY);
  const { storyId, token } = lock;
  expect(notes()).toEqual([expect.objectContaining({ ...BY, storyId, token })]);
  expect(notes()[0].at).toBeGreaterThanOrEqual(before);
});

describe('a dry run', () => {
  test('tells the same and changes nothing', async () => {
    const lock = await manager.acquire(file, 'AH-1', Infinity);
    await lineUp(manager, () => manager.acquire(file, 'AH-2', { wait: 20_000 }));
    const dry = await manager.forceRelease(file, { ...BY, dryRun: true });
    expect(dry).toMatchObject({
      removed: [{ lockId: lock.lockId }],
      next: [{ storyId: 'AH-2', place: 1 }],
      dryRun: true,
    });
    expect(await lock.verify()).toBe(true);
    expect(lock.signal.aborted).toBe(false);
    expect(notes()).toEqual([]);
    expect(await waiting(manager)).toHaveLength(1);
  });
});

describe('of several readers', () => {
  beforeEach(async () => {
    for (const name of ['AH-1', 'AH-2', 'AH-3']) {
      await manager.acquire(file, name, { mode: 'shared', timeout: Infinity });
    }
  });

  test('all go', async () => {
    const { removed } = await manager.forceRelease(file, BY);
    expect(removed.map(({ storyId }) => storyId)).toEqual(['AH-1', 'AH-2', 'AH-3']);
    expect(await manager.check(file)).toBeNull();
  });

  test('the one goes that is named', async () => {
    const { removed } = await manager.forceRelease(file, { ...BY, storyId: 'AH-2' });
    expect(removed.map(({ storyId }) => storyId)).toEqual(['AH-2']);
    const holder = await manager.check(file);
    expect([holder.storyId, ...holder.others.map(({ storyId }) => storyId)]).toEqual([
      'AH-1',
      'AH-3',
    ]);
    const none = await manager.forceRelease(file, { ...BY, storyId: 'AH-2' });
    expect(none.removed).toEqual([]);
  });
});

test('nobody is there: nothing is removed, noted or made', async () => {
  expect(await manager.forceRelease(file, BY)).toEqual({ removed: [], next: [], dryRun: false });
  expect(notes()).toEqual([]);
});

test('a dead holder’s lock goes as well', async () => {
  const story = await startProcess(at.root);
  await story.call('acquire', file, 'AH-1', Infinity);
  await story.kill();
  await manager.forceRelease(file, BY);
  await until(async () => (await manager.status()).totalLocks, (count) => count === 0);
});

describe('a folder', () => {
  test('that is locked whole is taken by its own path, and not by one in it', async () => {
    const lock = await manager.acquire(at.path('src'), 'AH-1', { recursive: true });
    const error = await rejection(manager.forceRelease(at.path('src/a.js'), BY));
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOTACQUIRED' });
    expect(error.message).toContain('src');
    expect(error.holder).toMatchObject({ lockId: lock.lockId, filePath: at.path('src') });
    expect(await lock.verify()).toBe(true);
    expect(notes()).toEqual([]);
    const { removed } = await manager.forceRelease(at.path('src'), BY);
    expect(removed).toMatchObject([{ lockId: lock.lockId, recursive: true }]);
  });

  test('that is taken leaves what is held in it', async () => {
    const inside = await manager.acquire(at.path('src/a.js'), 'AH-1');
    await manager.acquire(at.path('src'), 'AH-1', { recursive: true });
    await manager.forceRelease(at.path('src'), BY);
    expect(await inside.verify()).toBe(true);
    expect(await manager.check(at.path('src/b.js'))).toBeNull();
  });
});

describe('who and why', () => {
  const TYPE = 'ERR_INVALID_ARG_TYPE';
  const VALUE = 'ERR_INVALID_ARG_VALUE';

  test.each([
    [undefined, TYPE],
    [{}, TYPE],
    [{ by: 'ops' }, TYPE],
    [{ reason: 'stuck' }, TYPE],
    [{ by: 7, reason: 'stuck' }, TYPE],
    [{ by: '', reason: 'stuck' }, VALUE],
    [{ by: 'ops', reason: ' \n' }, VALUE],
    [{ by: 'ops', reason: '\ud800' }, VALUE],
    [{ ...BY, storyId: 7 }, TYPE],
    [{ ...BY, storyId: '' }, VALUE],
    [{ ...BY, dryRun: 'yes' }, TYPE],
    [{ ...BY, force: true }, VALUE],
  ])('must be said, in words: %j', async (options, code) => {
    expect((await rejection(manager.forceRelease(file, options))).code).toBe(code);
    expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
  });
});
