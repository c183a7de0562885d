/**
 * What the types of the package allow, and what they refuse. Compiled by `tsc --noEmit`, never run.
 */

import {
  Lock,
  LockError,
  LockManager,
  LockSet,
  hash,
  lockManager,
  read,
  type AcquireOptions,
  type ActiveLock,
  type Arm,
  type ChangedFile,
  type CheckedHolder,
  type ForceResult,
  type Forced,
  type Holder,
  type LockMode,
  type PathEntry,
  type PatchOptions,
  type PendingLock,
  type Reclaimed,
  type WaitOptions,
  type Writer,
  type WrittenFile,
  type Status,
} from 'storylock';
import * as dropIn from 'storylock/tools/orchestrator/locks.js';

const manager = new LockManager({ root: '/project', timeout: 30_000 });
const project: string = manager.root;
const same: typeof LockManager = dropIn.LockManager;
const ready: LockManager = dropIn.lockManager;
new LockManager();
new LockManager({ queueLimit: 10 });
// @ts-expect-error an option that is not known
new LockManager({ rot: '/project' });
// @ts-expect-error a root is a string
new LockManager({ root: null });
// @ts-expect-error the project is found, not set
manager.root = '/elsewhere';

export async function locks(): Promise<void> {
  const lock: Lock = await manager.acquire('src/app.js', 'AH-011');
  await manager.acquire('src/app.js', 'AH-011', 5000);
  await manager.acquire('src/app.js', 'AH-011', undefined);
  await manager.acquire('src/app.js', 'AH-011', { timeout: Infinity, reason: 'a rewrite' });
  const options: AcquireOptions = { timeout: 5000, detached: true };
  const perhaps: Lock | null = await lockManager.tryAcquire('src/app.js', 'AH-011', options);

  const text: string = lock.lockId + lock.storyId + lock.filePath + lock.mode;
  const numbers: number[] = [lock.acquiredAt, lock.timeout, lock.pid, lock.token];
  const end: number | null = lock.expiresAt;
  const predecessor: Reclaimed | null = lock.reclaimed;
  if (predecessor?.how === 'died') console.log(predecessor.storyId);
  const signal: AbortSignal = lock.signal;
  const again: Lock = await (await lock.renew()).renew(1000);
  const facts: boolean[] = [await lock.verify(), await lock.release()];
  console.log(project, same, ready, text, numbers, end, signal, again, facts, perhaps);

  // @ts-expect-error who asks must be said
  await manager.acquire('src/app.js');
  // @ts-expect-error null is no timeout
  await manager.acquire('src/app.js', 'AH-011', null);
  // @ts-expect-error an option that is not known
  await manager.acquire('src/app.js', 'AH-011', { retries: 3 });
  // @ts-expect-error one path; acquireAll takes several
  await manager.acquire(['src/app.js'], 'AH-011');
  // @ts-expect-error it may be null
  const certain: Lock = await manager.tryAcquire('src/app.js', 'AH-011');
  // @ts-expect-error tokens are drawn, not set
  lock.token = 1;
  // @ts-expect-error locks are acquired, not made
  new Lock();
  console.log(certain);
}

export async function sets(): Promise<void> {
  const paths: readonly string[] = ['a', 'b'];
  const set: LockSet = await manager.acquireAll(paths, 'AH-011', 5000);
  const ids: string[] = set.locks.map((lock) => lock.lockId);
  const facts: boolean[] = [await set.verify(), await (await set.renew(1000)).release()];
  console.log(ids, facts, set.storyId, set.signal.aborted);

  // @ts-expect-error several paths; acquire takes one
  await manager.acquireAll('a', 'AH-011');
}

export async function waiting(): Promise<void> {
  const options: WaitOptions = { wait: Infinity, signal: AbortSignal.timeout(1000) };
  const lock: Lock = await manager.acquire('a', 'AH-011', { ...options, timeout: 5000 });
  const perhaps: Lock | null = await manager.tryAcquire('a', 'AH-011', { wait: 0 });
  const set: LockSet = await manager.acquireAll(['a', 'b'], 'AH-011', options);
  const length: number = await manager.withLock('a', 'AH-011', options, ({ lock: held }) => {
    return held.filePath.length;
  });
  await manager.runStory('AH-011', ['a'], { wait: 5000, reason: 'why' }, ({ locks }) => locks);
  const line: PendingLock[] = (await manager.status()).waiting;
  const first: PendingLock | undefined = line[0];
  const estimate: number | null | undefined = first?.estimate;
  const facts: number[] = first ? [first.since, first.waited, first.place, first.paths] : [];
  const texts: (string | null)[] = first ? [first.storyId, first.filePath, first.reason] : [];
  console.log(lock, perhaps, set, length, estimate, facts, texts);

  // @ts-expect-error a time is in ms
  await manager.acquire('a', 'AH-011', { wait: '5s' });
  // @ts-expect-error the controller's signal, not the controller
  await manager.acquire('a', 'AH-011', { signal: new AbortController() });
  // @ts-expect-error the limit is the manager's
  await manager.acquire('a', 'AH-011', { queueLimit: 1 });
}

export async function kinds(): Promise<void> {
  const module: Lock = await manager.acquire('src', 'AH-011', { recursive: true });
  const reader: Lock | null = await manager.tryAcquire('a', 'AH-011', { mode: 'shared' });
  const mode: LockMode = module.mode;
  const isFolder: boolean = module.recursive;
  const entries: readonly (string | PathEntry)[] = ['a', { path: 'src', mode: 'shared' }];
  const set: LockSet = await manager.acquireAll(entries, 'AH-011', { recursive: true });
  const again: Lock | undefined = await reader?.upgrade({ wait: 5000 });
  const lowered: Lock = await module.downgrade();
  const held: CheckedHolder | null = await manager.check('@git/index');
  const others: Holder[] = held?.others ?? [];
  const sizes: number[] = [
    await manager.withLock({ path: 'a', mode: 'shared' }, 'S', ({ lock }) => lock.token),
    await manager.withLock(entries, 'S', { glob: true }, ({ locks }) => locks.length),
    await manager.withLock('src/*.js', 'S', { glob: true }, ({ locks }) => locks.length),
    await manager.runStory('S', 'src/*.js', { glob: true }, ({ locks }) => locks.length),
    await manager.runStory('S', 'src', { recursive: true }, ({ lock }) => lock.token),
  ];
  await manager.acquireAll(['src/*.js'], 'AH-011', { glob: true });
  console.log(mode, isFolder, set, again, lowered, others, sizes);

  // @ts-expect-error there are two modes
  await manager.acquire('a', 'AH-011', { mode: 'read' });
  // @ts-expect-error one path is no pattern
  await manager.acquire('a*', 'AH-011', { glob: true });
  // @ts-expect-error a pattern gives several locks
  await manager.withLock('a*', 'S', { glob: true }, ({ lock }) => lock);
  // @ts-expect-error an entry has a path
  await manager.acquireAll([{ mode: 'shared' }], 'AH-011');
  // @ts-expect-error a patch takes an exclusive lock
  await manager.applyPatch('a', 'AH-011', 'text', { mode: 'shared' });
}

export async function handover(): Promise<void> {
  const lock: Lock = await manager.acquire('a', 'AH-011');
  const theirs: Lock = await lock.transfer({ storyId: 'AH-012' });
  const set: LockSet = await manager.acquireAll(['a', 'b'], 'AH-011');
  const tokens: string[] = [await theirs.export(), await set.export()];
  const adopted: Lock | LockSet = await LockManager.adopt(tokens[0] ?? '', { timeout: 5000 });
  await manager.adopt(tokens[1] ?? '');
  if (adopted instanceof Lock) console.log(adopted.token);

  // @ts-expect-error the story is named
  await lock.transfer('AH-012');
  // @ts-expect-error a wait is not for this
  await manager.adopt('storylock1.', { wait: 5000 });
}

export async function force(): Promise<void> {
  const freed: ForceResult = await manager.forceRelease('a', { by: 'ops', reason: 'stuck' });
  const whose: string[] = freed.removed.map(({ storyId }) => storyId);
  const next: PendingLock | undefined = freed.next[0];
  await manager.forceRelease('a', { by: 'o', reason: 'r', storyId: 'AH-011', dryRun: true });
  console.log(whose, next?.mode, next?.recursive, freed.dryRun);

  // @ts-expect-error why must be said
  await manager.forceRelease('a', { by: 'ops' });
  // @ts-expect-error who and why must be said
  await manager.forceRelease('a');
}

export async function disposal(): Promise<void> {
  await using lock = await manager.acquire('a', 'AH-011');
  await using set = await manager.acquireAll(['b', 'c'], 'AH-011');
  console.log(lock.token, set.locks.length);
}

export async function scopes(): Promise<void> {
  const length: number = await manager.withLock('a', 'AH-011', async ({ lock, signal }) => {
    signal.throwIfAborted();
    return lock.filePath.length;
  });
  const count: number = await manager.withLock(['a', 'b'], 'AH-011', ({ locks }) => locks.length);
  await manager.withLock('a', 'AH-011', { reason: 'a rewrite' }, () => undefined);
  const done: string = await manager.runStory('AH-011', ['a'], async ({ locks, signal }) => {
    return `${locks.length} ${signal.aborted}`;
  });
  await manager.runStory('AH-011', 'a', { reason: 'a rewrite' }, ({ lock }) => lock.renew());
  console.log(length, count, done);

  // @ts-expect-error a scope's lease is bound: it has no timeout
  await manager.withLock('a', 'AH-011', { timeout: 5000 }, () => undefined);
  // @ts-expect-error one path gives one lock
  await manager.withLock('a', 'AH-011', ({ locks }) => locks);
  // @ts-expect-error a scope is for some work
  await manager.withLock('a', 'AH-011');
}

export async function patches(): Promise<void> {
  const base = await read('a');
  const text: string | undefined = base.content?.toString();
  const sum: string = base.hash ?? hash('');
  const options: PatchOptions = { expect: base.hash, parents: true, durable: false };
  const file: WrittenFile = await manager.applyPatch('a', 'AH-011', 'text', options);
  const next: string = file.hash;
  await manager.applyPatch('a', 'AH-011', Buffer.from('bytes'), { expect: null });
  await manager.applyPatch('a', 'AH-011', new Uint16Array(2), { wait: 5000, reason: 'why' });
  await manager.applyPatch('a', 'AH-011', (now) => `${now?.toString() ?? ''}more`);
  await manager.applyPatch('a', 'AH-011', async () => new DataView(new ArrayBuffer(2)));
  const lock: Lock = await manager.acquire('a', 'AH-011');
  const set: LockSet = await manager.acquireAll(['a', 'b'], 'AH-011');
  await manager.applyPatch('a', 'AH-011', 'text', { lock });
  const files: ChangedFile[] = await manager.applyDiff('diff', 'AH-011', { lock: set });
  await manager.applyDiff(Buffer.from('diff'), 'AH-011', { check: true, wait: Infinity });
  const gone: string | null | undefined = files[0]?.hash;
  console.log(text, sum, next, gone);

  // @ts-expect-error a number is no content
  await manager.applyPatch('a', 'AH-011', 5);
  // @ts-expect-error a buffer is no view of itself
  await manager.applyPatch('a', 'AH-011', new ArrayBuffer(2));
  // @ts-expect-error a function answers with a content
  await manager.applyPatch('a', 'AH-011', () => undefined);
  // @ts-expect-error the check is of a diff
  await manager.applyPatch('a', 'AH-011', 'text', { check: true });
  // @ts-expect-error a diff says itself what its files must be
  await manager.applyDiff('diff', 'AH-011', { expect: null });
  // @ts-expect-error the lock, not its token
  await manager.applyPatch('a', 'AH-011', 'text', { lock: lock.token });
}

export async function byName(): Promise<void> {
  const released: true = await manager.release('a', 'AH-011');
  const renewed: Lock = await manager.renew('a', 'AH-011', 5000);
  const holder: Holder | null = await manager.check('a');
  const counts: number[] = [await manager.cleanup('S'), await manager.cleanupStoryLocks('S')];
  const status: Status = await manager.status();
  const first: ActiveLock | undefined = status.activeLocks[0];
  const state: [boolean, number, string] | undefined = first && [
    first.isStale,
    first.age,
    first.lockFile,
  ];
  const closed: void = await manager.close();
  console.log(released, renewed, holder?.remaining, counts, state, closed);
  console.log(status.totalLocks, status.staleLocks, status.unreadable, status.error);
}

export async function errors(): Promise<void> {
  try {
    await manager.acquire('a', 'AH-011');
  } catch (error) {
    if (!(error instanceof LockError)) throw error;
    if (error.code === 'ELOCKED') {
      console.log(error.path, error.hint, error.holder?.storyId, error.holder?.expiresAt);
      const all: readonly Holder[] = error.holders ?? [];
      console.log(all.length);
    }
    if (error.code === 'ECOMPROMISED') {
      const forced: Forced | undefined = error.forced;
      console.log(forced?.by, forced?.reason, forced?.at);
    }
    if (error.code === 'EDEADLK') {
      const circle: readonly Arm[] = error.cycle ?? [];
      console.log(circle.map(({ storyId, path, heldBy }) => `${storyId} ${path} ${heldBy}`));
    }
    if (error.code === 'EBASE') {
      const writer: Writer | null | undefined = error.writer;
      const hashes: (string | null | undefined)[] = [error.expected, error.actual, writer?.hash];
      console.log(writer?.storyId, writer?.at, hashes);
    }
    if (error.code === 'EHUNK') {
      const place: (number | undefined)[] = [error.hunk, error.line];
      console.log(place);
    }
    const ranOut: boolean = error.reason === 'wait';
    const line: (number | undefined)[] = [error.waiters, error.place, error.waitedMs];
    // @ts-expect-error there are two reasons
    console.log(ranOut, line, error.reason === 'waited');
    const system: boolean = error.code === 'ENOSPC';
    // @ts-expect-error it may not be known
    const certain: string = error.path;
    console.log(system, certain, error.cause);
  }
}

manager.on('compromised', (error, lock) => {
  const code: string = error.code;
  const path: string = lock.filePath;
  console.log(code, path);
});
// @ts-expect-error an event that is not emitted
manager.on('compromise', () => undefined);
