'use strict';

/** Names: locks of things that are no files, the same from wherever one stands. */

const fs = require('node:fs');

const { cleanUp, project, rejection } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');
const { lineUp } = require('./fixtures/wait-line.js');

const INDEX = '@git/index';

let at;
let manager;
beforeEach(() => {
  at = project();
  manager = at.manager();
});
afterEach(cleanUp);

test('a name is locked as it is, for one story at a time', async () => {
  const lock = await manager.acquire(INDEX, 'A');
  expect(lock).toMatchObject({ filePath: INDEX, storyId: 'A', mode: 'exclusive' });
  const error = await rejection(manager.acquire(INDEX, 'B'));
  expect(error).toMatchObject({ code: 'ELOCKED', path: INDEX, holder: { filePath: INDEX } });
  expect(error.message).toContain('@git/index is locked by A');
  expect(await lock.release()).toBe(true);
  expect((await manager.acquire(INDEX, 'B')).filePath).toBe(INDEX);
});

test('every call that takes a path takes a name', async () => {
  const set = await manager.acquireAll([INDEX, at.path('a.js')], 'A', { timeout: 60_000 });
  expect(set.locks.map(({ filePath }) => filePath)).toEqual([INDEX, at.path('a.js')]);
  expect(await manager.check(INDEX)).toMatchObject({ storyId: 'A', filePath: INDEX });
  expect((await manager.renew(INDEX, 'A', 70_000)).timeout).toBe(70_000);
  expect((await manager.status()).activeLocks.map(({ filePath }) => filePath)).toContain(INDEX);
  expect(await manager.release(INDEX, 'A')).toBe(true);
  await manager.withLock(INDEX, 'A', async ({ lock }) => expect(await lock.verify()).toBe(true));
  await manager.runStory('B', [INDEX], async ({ locks }) => expect(locks).toHaveLength(1));
  await manager.acquire(INDEX, 'C', { mode: 'shared' });
  await manager.acquire(INDEX, 'D', { mode: 'shared' });
  expect(await manager.cleanup('C')).toBe(1);
  const removed = await manager.forceRelease(INDEX, { by: 'ops', reason: 'stuck' });
  expect(removed.removed).toMatchObject([{ storyId: 'D', filePath: INDEX }]);
});

test('a name is one thing from every folder, and is no file there', async () => {
  fs.mkdirSync(at.path('src/@git'), { recursive: true });
  const story = await startProcess(at.root, { cwd: at.path('src') });
  await story.call('acquire', INDEX, 'A', Infinity);
  expect(await manager.check(INDEX)).toMatchObject({ storyId: 'A' });
  expect(await manager.tryAcquire(INDEX, 'B')).toBeNull();
  for (const name of ['@git/index', 'src/@git/index']) {
    expect(await manager.check(at.path(name))).toBeNull();
    expect(await manager.tryAcquire(at.path(name), 'B')).not.toBeNull();
  }
  const error = await rejection(story.call('acquire', './@git/index', 'A'));
  expect(error).toMatchObject({ code: 'ELOCKED', path: at.path('src/@git/index') });
});

test('a name belongs to its project', async () => {
  await manager.acquire(INDEX, 'A');
  expect(await project().manager().check(INDEX)).toBeNull();
});

test('a name is waited for in turn', async () => {
  const lock = await manager.acquire(INDEX, 'A');
  const { turn } = await lineUp(manager, () => manager.acquire(INDEX, 'B', { wait: 20_000 }));
  await lock.release();
  expect((await turn).filePath).toBe(INDEX);
});

test('a name can be locked with all below it, and meets no file', async () => {
  const ports = await manager.acquire('@port', 'A', { recursive: true });
  expect(await manager.tryAcquire('@port/3000', 'B')).toBeNull();
  expect(await manager.tryAcquire('@ports/3000', 'B')).not.toBeNull();
  const root = await manager.acquire('/', 'B', { recursive: true });
  expect([await ports.verify(), await root.verify()]).toEqual([true, true]);
});

test.each([
  ['@'],
  ['@/'],
  ['@/index'],
  ['@git/'],
  ['@git//index'],
  ['@git/.'],
  ['@git/../index'],
  ['@git/..'],
  ['@git\0'],
])('%j is no name', isNoName);

test.each([['@.'], ['@..'], ['@./index'], ['@../index']])('%j is no name', isNoName);

async function isNoName(name) {
  for (const call of [
    () => manager.acquire(name, 'A'),
    () => manager.acquireAll([name], 'A'),
    () => manager.check(name),
    () => manager.release(name, 'A'),
    () => manager.withLock(name, 'A', () => {}),
    () => manager.forceRelease(name, { by: 'ops', reason: 'stuck' }),
  ]) {
    const error = await rejection(call());
    expect([error.constructor, error.code]).toEqual([TypeError, 'ERR_INVALID_ARG_VALUE']);
  }
  expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
}

test('a patch is of a file: a name is refused, a file that is called so is written', async () => {
  const error = await rejection(manager.applyPatch(INDEX, 'A', 'text'));
  expect([error.constructor, error.code]).toEqual([TypeError, 'ERR_INVALID_ARG_VALUE']);
  expect(error.message).toContain('./@git/index');
  expect(fs.readdirSync(at.root)).toEqual(['.ai']);
  expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
  await manager.applyPatch(at.path('@git/index'), 'A', 'text', { parents: true });
  const hunk = '@@ -1 +1 @@\n-text\n\\ No newline at end of file\n+more\n';
  await manager.applyDiff(`--- a/@git/index\n+++ b/@git/index\n${hunk}`, 'A');
  expect(fs.readFileSync(at.path('@git/index'), 'utf8')).toBe('more\n');
});
