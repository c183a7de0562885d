/// <reference types="node" />

import { EventEmitter } from 'node:events';

/*
 * storylock: file locks for orchestrators of parallel coding agents.
 *
 * A story (an id such as AH-011) owns locks on the files that it is about to change. All times
 * are in ms. Every method rejects and never throws; bad arguments are refused before anything is
 * touched, with a TypeError (`ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE`) or a RangeError
 * (`ERR_OUT_OF_RANGE`), calls after `close()` with `ERR_INVALID_STATE`, and everything else with
 * a LockError.
 *
 * Locks are advisory: a program that writes without asking is not stopped.
 *
 * Kinds. A lock is `'exclusive'`, the default, or `'shared'`; and it is of one path, or
 * `recursive`: of a folder with everything below it, whether it exists or not. Two locks of
 * different stories exclude each other if they meet (the same path, or one of them is recursive and
 * the other lies below it) and not both are shared. Locks of one story never exclude each other. A
 * story has at most one lock on one path: to ask for what it covers changes nothing, to ask for
 * more raises it in place, under the same token, once all others that exclude it are gone.
 *
 * Names. A path that begins with `@` is the name of a thing that is no file: `@git/index`,
 * `@port/3000`. It is `@` and segments between single `/`, of which none is empty, `.` or `..`. It
 * belongs to the project, wherever one stands, and everything here holds for it but patches. A file
 * of that name is written `./@git/index`.
 *
 * Fairness. Those who wait are served in order of arrival, over all processes, threads and
 * managers of a project. Why it holds: a place in line is numbered and written down under the one
 * lock under which everything changes, and so is every grant; a path that is given up, or whose
 * holder has died, passes to the first living waiter in that same step, so there is no moment in
 * which somebody else could find it free. Nobody overtakes: not who comes later, not who asks
 * again and again, not who has just given the path up, not readers past one who waits to write.
 * - A set takes nothing until it can take everything. While it waits, its paths that are free are
 *   kept for it, so single paths cannot starve it; and since nobody waits for it longer than its
 *   place in line says, it cannot starve them.
 * - The dead, and those who left, are skipped.
 * - One who waits may be passed by a story that it is itself waiting for, directly or through
 *   others: otherwise neither would ever go on. Where no story asks for more while it holds, as
 *   with sets asked for at once, there is no such passing.
 *
 * Deadlock. A request that would close a circle of stories, each waiting for what the next one
 * holds, is refused at once with `EDEADLK`, and the others go on.
 *
 * Cancel safety. A wait that is called off (by its `signal`, by the end of its `wait`, by
 * `close()`, by the death of its process or worker) leaves nothing behind: no lock, and no place
 * in line. Why it holds: whether the turn or the end came first is decided under that same lock,
 * once; a turn that was given to one who has left passes on to the next in the step that finds
 * it. So of the two exactly one is told.
 */

/** How a manager finds its project, and how long its locks last. */
export interface LockManagerOptions {
  /**
   * The project's folder. Default: `STORYLOCK_ROOT`; else the nearest folder from the working
   * directory upward that has `.ai`, else `.git`, else `package.json`; else the working
   * directory. It is looked up at the first call.
   */
  root?: string | undefined;
  /** The lease of a lock for which none is asked, in ms. Default: 30000. */
  timeout?: number | undefined;
  /**
   * How many may wait for one path before a request to wait is refused with `EQUEUEFULL`, from 1
   * to 100000. Default: 1000.
   */
  queueLimit?: number | undefined;
  /**
   * How much of what happens is kept in `.ai/progress/locks.history.jsonl`: `false` for nothing that
   * this process does. Default: files of 8 MiB, four old ones beside the youngest. It holds for all
   * managers of the project in this process, from the first call on.
   */
  history?: false | HistoryLimits | undefined;
}

/** How much history is kept. */
export interface HistoryLimits {
  /** The size at which a file is rotated, in bytes, from 4096 to 2^40. Default: 8388608. */
  maxBytes?: number | undefined;
  /** How many rotated files stay, from 0 to 100. Default: 4. */
  keep?: number | undefined;
}

/**
 * What can happen to a lock: `acquired` at once or `granted` in turn; `refused`, `queued`, `left` (a
 * waiter was called off); `renewed`, `raised` and `lowered` in kind, `transferred`; `released`,
 * `cleaned` with all of its story's, `expired`, `reclaimed` from one who had ended, `lost` with the
 * lock folder, `forced`; `patched` is a file changed under it.
 */
export type LockEventType =
  | 'acquired'
  | 'refused'
  | 'queued'
  | 'granted'
  | 'left'
  | 'renewed'
  | 'raised'
  | 'lowered'
  | 'released'
  | 'cleaned'
  | 'expired'
  | 'reclaimed'
  | 'lost'
  | 'forced'
  | 'transferred'
  | 'patched';

/** One thing that happened. Times in ms; what does not apply is absent. */
export interface LockEvent {
  /** Rises by one with every event of the project. */
  seq: number;
  /** Since 1970. */
  time: number;
  type: LockEventType;
  /** Whose lock, or who asked. */
  storyId: string;
  /** The absolute path, or the name. */
  path: string;
  /** The path's identity, where links make it another. */
  canonical?: string;
  /** The grant. */
  token?: number;
  pid: number;
  host: string;
  mode: LockMode;
  recursive?: boolean;
  /** How long it had been held. */
  heldFor?: number;
  /** How long it was waited for. */
  waitedFor?: number;
  /** Who was in the way, has it next, had it before, or took it back. */
  by?: string;
  /** The story's own words, or those of who took it back. */
  reason?: string;
  /** Of a refusal: its code. Of what ended by itself: `died` or `expired`. */
  code?: string;
  /** SHA-256 in hex of what was written. */
  hash?: string;
  /** Told later, since whoever did it was killed before it could be. */
  recovered?: boolean;
}

/** Which events. */
export interface EventFilter {
  storyId?: string | undefined;
  /** This path alone. */
  path?: string | undefined;
  types?: LockEventType[] | undefined;
}

/** Which events of the past. */
export interface HistoryOptions extends EventFilter {
  /** From this moment on: a Date, or ms since 1970. */
  since?: Date | number | undefined;
  /** Up to this moment. */
  until?: Date | number | undefined;
  /** At most so many, the newest. Default: 1000. */
  limit?: number | undefined;
}

/** Which events to come. */
export interface WatchOptions extends EventFilter {
  /** After the event of this `seq`; 0 from the oldest that is kept. Default: what comes from now on. */
  since?: number | undefined;
  /** Ends the iteration. */
  signal?: AbortSignal | undefined;
}

/** Whether, and for how long, to wait for a turn. */
export interface WaitOptions {
  /**
   * How long to wait in line for a turn, in ms; `Infinity` for ever. 0, the default, is to try
   * once. When it runs out the place is given up, and the call rejects with `ELOCKED`, `reason`
   * `'wait'`. A call that waits keeps the process alive.
   */
  wait?: number | undefined;
  /**
   * Calls the request off: it rejects with the signal's reason, nothing is taken, and its place in
   * line is gone. Aborted after the grant it has no effect.
   */
  signal?: AbortSignal | undefined;
}

/** Whether others may have the path at the same time. */
export type LockMode = 'exclusive' | 'shared';

/** What kind of lock. */
export interface KindOptions {
  /** `'shared'`: together with other stories that share. Default: `'exclusive'`, with none. */
  mode?: LockMode | undefined;
  /** `true` for a folder with everything below it, existing or not. Default: the path alone. */
  recursive?: boolean | undefined;
}

/** A path with what kind of lock it is to have; what is not said here, the call's options say. */
export interface PathEntry extends KindOptions {
  path: string;
}

/** Whether strings are patterns. */
export interface GlobOptions {
  /**
   * `true`: every string is a pattern of files that exist at the time of the call (with `recursive`
   * also of folders), seen from the working directory; what is made later is not locked. Names and
   * objects with a `path` are what they are, so a file that is yet to be made is named by one.
   *
   * `*`, `**`, `?`, `[a-z]`, `{a,b}`, `@(a|b)`, `!(a)`, and `\` before what is meant as it is; a
   * string that begins with `!` takes away from the others. A name that begins with a dot is
   * matched only by a pattern that says the dot, or by `!(a)`. A link stands for the file that it
   * leads to; no folder is looked into through a link that the pattern does not name. A pattern
   * that matches nothing rejects with `ENOENT`. A folder that matches is locked with all that lies
   * in it.
   */
  glob?: boolean | undefined;
}

/** How a lock is taken. */
export interface AcquireOptions extends WaitOptions, KindOptions {
  /**
   * The lease in ms: the lock ends by itself this long after it was acquired or last renewed. Of a
   * lock that was waited for it begins with the grant.
   * `Infinity` for a bound lease, which ends with the process. Default: the manager's.
   */
  timeout?: number | undefined;
  /** Why, in the story's words: shown to whoever is refused. */
  reason?: string | undefined;
  /**
   * `true` for a lock that outlives this process: its lease alone ends it, so `timeout` must be
   * finite. Its loss is not reported.
   */
  detached?: boolean | undefined;
}

/** How a set of locks is taken. */
export interface AcquireAllOptions extends AcquireOptions, GlobOptions {}

/** How a scope takes its lock. */
export interface ScopeOptions extends WaitOptions, KindOptions {
  /** Why, in the story's words: shown to whoever is refused. */
  reason?: string | undefined;
}

/** How a scope takes several locks. */
export interface SetScopeOptions extends ScopeOptions, GlobOptions {}

/** How locks that were handed over are made one's own. */
export interface AdoptOptions {
  /**
   * The lease in ms, from now; `Infinity` for one bound to this process. Default: the lease that
   * the lock has, begun anew.
   */
  timeout?: number | undefined;
}

/** Who takes a lock away, and why: noted beside the locks, and told to the former holder. */
export interface ForceOptions {
  /** Who does it, not empty. */
  by: string;
  /** Why, not empty. */
  reason: string;
  /** From this story alone, where several share. Default: from whoever holds the path. */
  storyId?: string | undefined;
  /** `true` to tell only what would happen. Default: `false`. */
  dryRun?: boolean | undefined;
}

/** Who took a lock away, why and when. */
export interface Forced {
  by: string;
  reason: string;
  /** Since 1970, in ms. */
  at: number;
}

/** What taking a path from its holders did, or would do. */
export interface ForceResult {
  /** Whose locks ended; nobody's if the path was free. */
  removed: Holder[];
  /** Who waits for the path, in order. */
  next: PendingLock[];
  /** Whether nothing was done. */
  dryRun: boolean;
}

/** A file's content: text as UTF-8, or bytes. */
export type Content = string | NodeJS.ArrayBufferView;

/** How files are written under their locks. */
export interface ChangeOptions extends WaitOptions {
  /**
   * A lock, or a set of them, that the story has on all paths of the change: nothing is written
   * unless it is current at that very moment, and it is kept. Without it the story's own lock is
   * used and kept, or one is taken for the write and given up; `wait` and `signal` are for that.
   */
  lock?: Lock | LockSet | undefined;
  /**
   * Whether the files and their folders are flushed, so that a change that was answered outlives
   * the machine's power. Default: `true`. Without it the change is as whole, and much faster.
   */
  durable?: boolean | undefined;
  /** Why, in the story's words: shown to whoever is refused meanwhile. */
  reason?: string | undefined;
}

/** How one file is written. */
export interface PatchOptions extends ChangeOptions {
  /**
   * What the file must be: the hash of its content, or `null` for no file. If it is anything else,
   * nothing is written, and the call rejects with `EBASE`. Default: anything.
   */
  expect?: string | null | undefined;
  /** Whether to make the folders that the file lies in. Default: `false`. */
  parents?: boolean | undefined;
}

/** How a diff is applied. */
export interface DiffOptions extends ChangeOptions {
  /** `true` to tell only whether it could be applied now: nothing is locked or written. */
  check?: boolean | undefined;
}

/** A file that was written. */
export interface WrittenFile {
  /** The absolute path, its links resolved. */
  path: string;
  /** The SHA-256 of its content, in hex. */
  hash: string;
}

/** A file that a diff has changed. */
export interface ChangedFile {
  /** The absolute path, its links resolved. */
  path: string;
  /** The SHA-256 of its content, in hex; `null` if it was removed. */
  hash: string | null;
}

/** A file as it was read. */
export type ReadFile = { content: Buffer; hash: string } | { content: null; hash: null };

/** Who wrote a file last through a lock. */
export interface Writer {
  storyId: string;
  pid: number;
  /** The token of the lock that it was written under. */
  token: number;
  /** Since 1970, in ms. */
  at: number;
  /** The SHA-256 of what was written, in hex; `null` if the file was removed. */
  hash: string | null;
}

/** Who holds a path, as seen at one moment. */
export interface Holder {
  /** Starts with the story id; one of its kind. */
  lockId: string;
  storyId: string;
  /** The absolute path as the story named it, or the name. */
  filePath: string;
  /** Since 1970, in ms. */
  acquiredAt: number;
  /** The lease in ms; `Infinity` for a bound one. */
  timeout: number;
  pid: number;
  /** The fencing token; 0 for a lock that the old module took. */
  token: number;
  /** The machine or container; empty for a lock that the old module took. */
  host: string;
  mode: LockMode;
  /** Whether everything below is locked too. */
  recursive: boolean;
  /** How long it has held, in ms. */
  heldFor: number;
  /** How long its lease still runs, in ms; `null` for a bound one. */
  remaining: number | null;
  /** The lease's end by the wall clock, in ms since 1970; `null` for a bound one. */
  expiresAt: number | null;
  /** Whether its lease alone ends it. */
  detached: boolean;
  /** Why, in the story's words. */
  reason: string | null;
}

/** Who holds a path, and who else shares it. */
export interface CheckedHolder extends Holder {
  /** The other holders; nobody if the lock is exclusive. */
  others: Holder[];
}

/** A predecessor that did not give its lock up: its work on the file may be half done. */
export interface Reclaimed {
  storyId: string;
  lockId: string;
  pid: number;
  /** Since 1970, in ms. */
  acquiredAt: number;
  /** How it ended: its process died, or its lease ran out. */
  how: 'died' | 'expired';
}

/** One held path in a {@link Status}. */
export interface ActiveLock extends Omit<Holder, 'heldFor' | 'remaining'> {
  /** How long it has been held, in ms. */
  age: number;
  /** Whether its lease has ended or its process died, so that the next comer gets it. */
  isStale: boolean;
  /** Where its record stands. */
  lockFile: string;
}

/** One who waits for a path; a set is listed once for each of its paths. */
export interface PendingLock {
  /** The absolute path as the story named it. */
  filePath: string;
  storyId: string;
  pid: number;
  /** The machine or container. */
  host: string;
  /** Since when it waits, in ms since 1970. */
  since: number;
  /** How long it has waited, in ms. */
  waited: number;
  /** Its place in the line for this path, from 1. */
  place: number;
  /** In how many ms the lease in front ends; `null` if that is not known. */
  estimate: number | null;
  /** How many paths it wants at once. */
  paths: number;
  mode: LockMode;
  /** Whether it wants everything below too. */
  recursive: boolean;
  /** Why, in the story's words. */
  reason: string | null;
}

/** Everything that is held and waited for in a project, by every process. */
export interface Status {
  /** Oldest first. */
  activeLocks: ActiveLock[];
  totalLocks: number;
  /** How many of them the next comer gets. */
  staleLocks: number;
  /** Who waits, by path and place. */
  waiting: PendingLock[];
  /** Where the records stand; empty if no project was found. */
  lockDirectory: string;
  /** When this was asked, as `2026-01-31T12:00:00.000Z`. */
  timestamp: string;
  /** Files at a record's name that cannot be read as records; each counts as held. */
  unreadable: string[];
  /** What could not be looked at; absent when everything could. */
  error?: string;
}

/** One arm of a circle: a story that waits for a path, and who holds it. */
export interface Arm {
  storyId: string;
  /** The absolute path. */
  path: string;
  heldBy: string;
}

/** What a refusal, a loss or a failure tells. */
export interface LockErrorDetails {
  code: string;
  reason?: 'held' | 'wait' | undefined;
  path?: string | undefined;
  storyId?: string | undefined;
  holder?: Holder | undefined;
  holders?: readonly Holder[] | undefined;
  forced?: Forced | undefined;
  waiters?: number | undefined;
  place?: number | undefined;
  waitedMs?: number | undefined;
  cycle?: readonly Arm[] | undefined;
  expected?: string | null | undefined;
  actual?: string | null | undefined;
  writer?: Writer | null | undefined;
  hunk?: number | undefined;
  line?: number | undefined;
  hint?: string | undefined;
  cause?: unknown;
}

/**
 * A refusal, a loss, or what the system said. `message` names the path, who is in the way and
 * what to do next; the properties say the same as data, and those that are not known are absent.
 */
export class LockError extends Error {
  constructor(message: string, details?: LockErrorDetails);
  readonly name: 'LockError';
  /**
   * - `ELOCKED`: another story holds the path, or is in front for it. Nothing was taken.
   * - `EDEADLK`: to wait would be to wait for ever, since those in front wait for this story.
   *   Nothing was taken, and nobody was put in line.
   * - `EQUEUEFULL`: as many wait for the path as may.
   * - `ENOTACQUIRED`: the story does not hold what it wants to renew, release or write; what was
   *   handed over is not there any more; or a path is held only with a folder above it.
   * - `ECOMPROMISED`: the lock was held, and was lost. Do not write the file.
   * - `EFENCED`: a file was to be written under a lock that is not current any more, or is not of
   *   this path. Nothing was written.
   * - `EBASE`: the file is not what the change was made for. Nothing was written.
   * - `EHUNK`: a diff does not match the files. Nothing was written.
   * - `EBADRECORD`: what stands at the record's name cannot be read, and counts as held.
   * - `EINTERNAL`: a defect of storylock.
   * - `ENOENT`: a pattern that nothing matches; or what the system says.
   * - the system's own code, such as `ENOSPC`, `EACCES` or `ENOTSUP`.
   */
  readonly code:
    | 'ELOCKED'
    | 'EDEADLK'
    | 'EQUEUEFULL'
    | 'ENOTACQUIRED'
    | 'ECOMPROMISED'
    | 'EFENCED'
    | 'EBASE'
    | 'EHUNK'
    | 'EBADRECORD'
    | 'EINTERNAL'
    | (string & {});
  /** Of `ELOCKED`: whether it was tried once, or the wait has run out. */
  readonly reason?: 'held' | 'wait';
  /** The absolute path, the name, or the pattern without a match, that the call was about. */
  readonly path?: string;
  /** The story that asked. */
  readonly storyId?: string;
  /** Who is in the way; absent if the path is free and kept for one who waits for a set. */
  readonly holder?: Holder;
  /** All who are in the way, `holder` the first of them; absent where that is. */
  readonly holders?: readonly Holder[];
  /** Of a lock that was taken away by {@link LockManager.forceRelease}: by whom, and why. */
  readonly forced?: Forced;
  /** Of `ELOCKED` and `EQUEUEFULL`: how many wait for the path, this request included if it did. */
  readonly waiters?: number;
  /** Of a wait that has run out: the place that it had in line, from 1. */
  readonly place?: number;
  /** Of a wait that has run out: how long it was, in ms. */
  readonly waitedMs?: number;
  /**
   * Of `EDEADLK`: the circle, beginning with this request. Each story waits for what the next one
   * holds; the last one waits for what this story holds.
   */
  readonly cycle?: readonly Arm[];
  /** Of `EBASE`: the hash that the file was to have; `null` for no file. */
  readonly expected?: string | null;
  /** Of `EBASE`: the hash that it has; `null` if there is no file. */
  readonly actual?: string | null;
  /** Of `EBASE`: who wrote it last through a lock; `null` if that is not known. */
  readonly writer?: Writer | null;
  /** Of `EHUNK`: which hunk of the file does not match, from 1. */
  readonly hunk?: number;
  /** Of `EHUNK`: the line of the file that the hunk says it is for, from 1. */
  readonly line?: number;
  /** What to do next. */
  readonly hint?: string;
}

/**
 * A path that a story has locked. Its plain properties tell of the moment when it was acquired,
 * or last renewed, raised or lowered through this object.
 */
export class Lock implements AsyncDisposable {
  private constructor();
  /** Starts with the story id. The same for every `Lock` of one grant. */
  readonly lockId: string;
  readonly storyId: string;
  /** The absolute path as the story named it, or the name. */
  readonly filePath: string;
  /** Since 1970, in ms. */
  readonly acquiredAt: number;
  /** The lease in ms; `Infinity` for a bound one. */
  readonly timeout: number;
  readonly pid: number;
  /** The fencing token: a later grant, of any path to anybody, always has a higher one. */
  readonly token: number;
  /** The lease's end by the wall clock, in ms since 1970; `null` for a bound one. */
  readonly expiresAt: number | null;
  readonly mode: LockMode;
  /** Whether everything below is locked too. */
  readonly recursive: boolean;
  /** Whose lock it was, if that one was not given up; `null` if the path was free. */
  readonly reclaimed: Reclaimed | null;

  /**
   * Aborted when the lock is lost, at once if it was lost before; the reason is the LockError
   * (`ECOMPROMISED`). Giving the lock up, or passing it on, does not abort it. A detached lock's is
   * never aborted.
   */
  get signal(): AbortSignal;

  /**
   * Begins the lease of exactly this grant anew, with its own length or a new one in ms. Resolves
   * to this lock. Never takes a successor's.
   *
   * Rejects with `ECOMPROMISED` when the lock was lost.
   */
  renew(timeout?: number): Promise<this>;

  /**
   * Makes exactly this grant exclusive, under its token and without a moment in which it is not
   * held. Resolves to this lock, at once if it is exclusive already.
   *
   * Waits as {@link LockManager.acquire} does, for the other readers, in front of those who wait
   * for this story anyway. Rejects as that does; two readers of one path that both wait to be its
   * writer are a circle, and the second is refused with `EDEADLK`: one of them must release.
   * Refused or called off, it shares the path as before. Rejects with `ECOMPROMISED` when the lock
   * was lost or given up, also while it waited.
   */
  upgrade(options?: WaitOptions): Promise<this>;

  /**
   * Makes exactly this grant shared, under its token and without a moment in which it is not held;
   * readers in line get their turn. Resolves to this lock. What else of this process wants the lock
   * exclusive, such as another scope of the story, keeps it so: `mode` says what it is.
   *
   * Rejects with `ECOMPROMISED` when the lock was lost.
   */
  downgrade(): Promise<this>;

  /**
   * Passes exactly this grant to another story, without a moment in which the path is free: nobody
   * in line comes between. Resolves to the other story's lock, with a new token. This one is over
   * then: `release()` resolves to `false`, patches under it are refused with `EFENCED`, its
   * `signal` stays quiet.
   *
   * Rejects with `ECOMPROMISED` when the lock was lost; with `ELOCKED` when another lock, the
   * giver's own included, excludes the other story's; with `EDEADLK` when that story waits for one
   * who waits for this; with `ERR_INVALID_STATE` when that story has the path already, or a scope
   * has this lock. Nothing has changed then.
   */
  transfer(options: { storyId: string }): Promise<Lock>;

  /**
   * Offers exactly this grant to another process, once: resolves to a token, text of letters,
   * digits, `.`, `-` and `_`, for {@link LockManager.adopt} there. Whoever has it can take the
   * lock: give it to the one process only, by its environment or stdin rather than its arguments,
   * which other users can see.
   *
   * Until it is adopted the lock stays this process's own, to use, renew and release, and ends with
   * it: keep it until the other process says that it has the lock. Adopted, it is over here as
   * after {@link transfer}, and a scope over it ends well. A second export makes the first token
   * worthless.
   *
   * Rejects with `ECOMPROMISED` when the lock was lost.
   */
  export(): Promise<string>;

  /**
   * Gives exactly this grant up, never a successor's. Resolves to whether it was held until now:
   * `false` means that it had been lost or given up before, so what was written last may have
   * been overwritten.
   */
  release(): Promise<boolean>;

  /** Resolves to whether this grant is current and its lease runs, as read from the disk now. */
  verify(): Promise<boolean>;

  /** `await using`: releases the lock. A lock that was lost is no error here. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Several paths, locked whole or not at all. */
export class LockSet implements AsyncDisposable {
  private constructor();
  /** In the order asked for; two spellings of one path are one lock. */
  readonly locks: readonly Lock[];
  readonly storyId: string;

  /** Aborted when any of the locks is lost, with that loss as its reason. */
  get signal(): AbortSignal;

  /**
   * Begins all leases anew. Resolves to this set. Rejects with `ECOMPROMISED` when any of the
   * locks was lost; the others are renewed nevertheless.
   */
  renew(timeout?: number): Promise<this>;

  /** Offers all locks to another process, together and once: as {@link Lock.export}. */
  export(): Promise<string>;

  /** Gives all locks up. Resolves to whether every one was held until now. */
  release(): Promise<boolean>;

  /** Resolves to whether every lock is current and its lease runs, as read from the disk now. */
  verify(): Promise<boolean>;

  /** `await using`: releases all locks. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What the work in a scope of one path is given. */
export interface LockScope {
  lock: Lock;
  /** The lock's: aborted when it is lost. Stop writing then. */
  signal: AbortSignal;
}

/** What the work in a scope of several paths is given. */
export interface LockSetScope {
  locks: readonly Lock[];
  /** Aborted when any of the locks is lost. Stop writing then. */
  signal: AbortSignal;
}

/**
 * The locks of a project, shared with every other manager, thread and process in it.
 *
 * Emits `'compromised'` (error, lock) when a lock that was taken through it is lost: its lease
 * ended unrenewed, somebody else took, released or removed it, or the lock folder is gone. Without
 * a listener nothing happens; a listener that fails is reported as a process warning.
 *
 * Starts nothing and touches no disk before its first call, and never keeps the process alive but
 * for an answer that is awaited. A wait takes no thread and no time of the processor: whoever gives
 * a path up wakes the next one. Locks still held when the process exits are given up; after a
 * kill they are free at once.
 */
export class LockManager extends EventEmitter<{ compromised: [error: LockError, lock: Lock] }> {
  /** Throws on a bad option: this alone is not a rejection. */
  constructor(options?: LockManagerOptions);

  /**
   * Makes locks that another process has exported this process's own, once: resolves to a `Lock`,
   * or to a `LockSet` if a set was exported, of the same story, with new tokens. There is no moment
   * in which a path is free, and from now on the locks live and end with this process. One manager
   * for each project stands behind all of them; what is lost is told by `signal`.
   *
   * Rejects with `ENOTACQUIRED` if they were adopted already, offered anew, given up or lost; with
   * `ERR_INVALID_ARG_VALUE` for what is no token. Nothing was taken then.
   */
  static adopt(token: string, options?: AdoptOptions): Promise<Lock | LockSet>;

  /**
   * The same through this manager, whose `'compromised'` tells of losses. A token of another
   * project is refused with `ERR_INVALID_ARG_VALUE`.
   */
  adopt(token: string, options?: AdoptOptions): Promise<Lock | LockSet>;

  /** The project's absolute path, looked up now if it was not before. */
  get root(): string;

  /**
   * Locks a path for a story: resolves to a lock beside which no other story has one that excludes
   * it, or rejects and has taken nothing. A story that holds the path already gets its lock again,
   * as it is, or raised to what is asked for. Whether the file exists does not matter, and links to
   * one file are one path. A number is the lease in ms.
   *
   * Rejects with `ELOCKED` when another story holds what excludes it: `holder` says who, `message`
   * holds `is locked by <story>`. With `wait` it stands in line before that; then also with
   * `EDEADLK` and `EQUEUEFULL`, and with the reason of `signal`.
   *
   * Fair: in order of arrival, and a path that is free is not had while somebody waits for it.
   * Cancel-safe: called off, it has taken nothing; and if the turn came first, it resolves.
   */
  acquire(path: string, storyId: string, options?: number | AcquireOptions): Promise<Lock>;

  /**
   * As {@link acquire}, but resolves to `null` instead of rejecting with `ELOCKED`, at once or when
   * the `wait` has run out. As fair and as cancel-safe: without `wait` it overtakes nobody either.
   */
  tryAcquire(
    path: string,
    storyId: string,
    options?: number | AcquireOptions,
  ): Promise<Lock | null>;

  /**
   * Locks all of these paths, or none of them. Duplicates and two spellings of a path count once,
   * as the stronger kind of the two. Two stories that want `[a, b]` and `[b, a]` cannot block each
   * other. With `glob` the strings are patterns.
   *
   * Rejects as {@link acquire}; `ELOCKED` names the first path that is in the way.
   *
   * Fair: it stands in the line of each path under one number, takes nothing until it can take
   * everything, and is served before whoever came later for any of them. Cancel-safe: called off,
   * it has taken none of them and stands in no line.
   */
  acquireAll(
    paths: readonly (string | PathEntry)[],
    storyId: string,
    options?: number | AcquireAllOptions,
  ): Promise<LockSet>;

  /**
   * Gives up whatever lock the story has on the path, whoever took it. Resolves to `true`, also
   * when nothing was locked. The path passes to the first in line in the same step: to ask for it
   * again is to stand behind all who wait.
   *
   * Rejects when another story holds the path; its lock stays.
   */
  release(path: string, storyId: string): Promise<true>;

  /**
   * Begins the lease of the story's lock anew, with its own length or a new one in ms.
   *
   * Rejects with `ENOTACQUIRED` when the story does not hold the path, or its lease has ended.
   */
  renew(path: string, storyId: string, timeout?: number): Promise<Lock>;

  /**
   * Resolves to who holds the path, itself or with a folder that it lies in, or `null` if nobody
   * living does; `others` are those who share it.
   */
  check(path: string): Promise<CheckedHolder | null>;

  /**
   * Takes a path from whoever holds it, without harming anybody else: it passes to the first in
   * line in the same step. The former holder is told (`signal`, `'compromised'`, with `forced`),
   * and what it patches afterwards is refused. Who did it and why is noted beside the locks.
   * Resolves to whose locks ended and who waits; to `removed: []` if nobody held the path. For
   * operators: the story itself is not stopped, and may go on writing without asking.
   *
   * Rejects with `ENOTACQUIRED` when the path is held only with a folder above it, and names that
   * folder; nothing is done then.
   */
  forceRelease(path: string, options: ForceOptions): Promise<ForceResult>;

  /**
   * Holds a path while `fn` runs: no timeout ends the lock, and it is let go of whatever happens.
   * Scopes of one story on one path nest; the last one to end frees it. Resolves to what `fn`
   * resolves to.
   *
   * Rejects as {@link acquire} before `fn` is called; with whatever `fn` rejects with; with
   * `ECOMPROMISED` if the lock was lost while `fn` ran, even if `fn` succeeded. The `signal` that
   * `fn` is given tells at once.
   *
   * A lock that another process has adopted while `fn` ran, after {@link Lock.export}, is no loss.
   *
   * As fair and as cancel-safe as {@link acquire}: `options.signal` ends the wait, never `fn`.
   */
  withLock<T>(
    path: string | PathEntry,
    storyId: string,
    fn: (scope: LockScope) => T | PromiseLike<T>,
  ): Promise<T>;
  withLock<T>(
    path: string | PathEntry,
    storyId: string,
    options: ScopeOptions | undefined,
    fn: (scope: LockScope) => T | PromiseLike<T>,
  ): Promise<T>;
  /** The same for several paths, or what patterns stand for: all or none. */
  withLock<T>(
    paths: readonly (string | PathEntry)[],
    storyId: string,
    fn: (scope: LockSetScope) => T | PromiseLike<T>,
  ): Promise<T>;
  withLock<T>(
    paths: readonly (string | PathEntry)[],
    storyId: string,
    options: SetScopeOptions | undefined,
    fn: (scope: LockSetScope) => T | PromiseLike<T>,
  ): Promise<T>;
  withLock<T>(
    pattern: string | PathEntry,
    storyId: string,
    options: SetScopeOptions & { glob: true },
    fn: (scope: LockSetScope) => T | PromiseLike<T>,
  ): Promise<T>;

  /**
   * Runs a whole story: as {@link withLock}, and then every lock that the story still has, taken by
   * whomever, is given up as by {@link cleanup}, also when `fn` failed or the locks were refused.
   * Waits as {@link acquire} does, as fair and as cancel-safe.
   */
  runStory<T>(
    storyId: string,
    path: string | PathEntry,
    fn: (scope: LockScope) => T | PromiseLike<T>,
  ): Promise<T>;
  runStory<T>(
    storyId: string,
    path: string | PathEntry,
    options: ScopeOptions | undefined,
    fn: (scope: LockScope) => T | PromiseLike<T>,
  ): Promise<T>;
  runStory<T>(
    storyId: string,
    paths: readonly (string | PathEntry)[],
    fn: (scope: LockSetScope) => T | PromiseLike<T>,
  ): Promise<T>;
  runStory<T>(
    storyId: string,
    paths: readonly (string | PathEntry)[],
    options: SetScopeOptions | undefined,
    fn: (scope: LockSetScope) => T | PromiseLike<T>,
  ): Promise<T>;
  runStory<T>(
    storyId: string,
    pattern: string | PathEntry,
    options: SetScopeOptions & { glob: true },
    fn: (scope: LockSetScope) => T | PromiseLike<T>,
  ): Promise<T>;

  /**
   * Replaces a file, whole or not at all, and only while the story's lock on it is current at that
   * very moment: a story that lost its lock cannot overwrite its successor's work. Readers see the
   * old content or the new one. The mode is kept, the owner where the system allows it; a link is
   * written through and stays. A lock that the story has is used and kept; otherwise one is taken
   * and given up again, whatever happens. It takes an exclusive lock of the path, or a recursive
   * one of a folder above it.
   *
   * `content` may be a function of what the file is, `null` for no file: it is called under the
   * lock, and what it resolves to is written only if the file is still what it was given.
   *
   * Rejects with `ELOCKED` before anything is touched; with `ENOTACQUIRED` when `lock` is a shared
   * one; with `ERR_INVALID_ARG_VALUE` for a name; with `EFENCED` when the lock was lost; with
   * `EBASE` when the file is not what `expect` says; with whatever the function rejects with; with
   * what the system says. The file is untouched then.
   */
  applyPatch(
    path: string,
    storyId: string,
    content: Content | ((current: Buffer | null) => Content | PromiseLike<Content>),
    options?: PatchOptions,
  ): Promise<WrittenFile>;

  /**
   * Applies a unified diff as git makes it, to all of its files or to none, fenced as
   * {@link applyPatch}: changes, new files, deletions, renames, modes, binary ones by `--binary`.
   * Its paths are seen from the project's root, and are locked as one set. If the process is killed
   * in the middle, whoever has the guard next, at the next call of anybody, finishes the change
   * first.
   *
   * Rejects with `EHUNK` naming file, hunk and line where the diff does not match; with
   * `ERR_INVALID_ARG_VALUE` for what is no diff, and for paths that leave the project or lead into
   * `.git` or `.ai/locks`; otherwise as {@link applyPatch}. No file is touched then.
   */
  applyDiff(diff: Content, storyId: string, options?: DiffOptions): Promise<ChangedFile[]>;

  /**
   * Resolves to everything that is held and waited for, by every process, as read from the disk
   * now. Never rejects: what could not be looked at is told by `error`.
   */
  status(): Promise<Status>;

  /** Gives up every lock of the story, whoever took it. Resolves to how many there were. */
  cleanup(storyId: string): Promise<number>;

  /** {@link cleanup} by its old name. */
  cleanupStoryLocks(storyId: string): Promise<number>;

  /**
   * Resolves to what happened, the newest first, by all processes, rotated files included. Memory
   * does not grow with the files, only with what is asked for.
   */
  history(options?: HistoryOptions): Promise<LockEvent[]>;

  /**
   * What happens from now on, by all processes, in order: each event once, also those that come
   * while the last one is looked at. Ends on `break`, `return()` and the signal. Keeps the process
   * alive while an event is waited for.
   */
  watch(options?: WatchOptions): AsyncIterableIterator<LockEvent>;

  /**
   * Gives up every lock taken through this manager, for good; detached ones stay. Who waits through
   * it is refused with `ERR_INVALID_STATE` and out of line. May be called twice. Later calls reject
   * with `ERR_INVALID_STATE`, and `status()` tells so.
   */
  close(): Promise<void>;
}

/** The SHA-256 of a content in hex: what `expect` compares. Throws on what is no content. */
export function hash(content: Content): string;

/**
 * Resolves to a file's content and its hash, of one look: for `expect`. Where there is no file both
 * are `null`. Takes no lock and needs none.
 */
export function read(path: string): Promise<ReadFile>;

/** A ready manager of the project around the working directory. */
export const lockManager: LockManager;
