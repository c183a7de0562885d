'use strict';

/**
 * `LockManager`: what callers talk to.
 *
 * Promises: arguments are checked before anything is touched; every method rejects and never
 * throws; a scope is let go of whatever happens in it, and its work's own error always comes
 * first. Nothing runs in the background and no disk is touched before the first call.
 *
 * No policy lives here: who gets a lock, when a lease ends and what counts as lost is the engine's.
 */

const { EventEmitter } = require('node:events');
const path = require('node:path');
const { Client } = require('./client.js');
const check = require('./arguments.js');
const { LockError, errorOf, holderOf, lossOf, warn } = require('./errors.js');
const { LockSet, grantOf } = require('./lock.js');
const patch = require('./patch.js');
const { done } = require('./tickets.js');

const DEFAULT_TIMEOUT = 30_000;

/** Between the command line and this face: no part of the package's surface. */
const LIFE_LINE = Symbol.for('storylock.lifeLine');

class LockManager extends EventEmitter {
  #options;
  #client = null;
  #closing = null;

  constructor(options) {
    super();
    const { root, timeout = DEFAULT_TIMEOUT, queueLimit } = check.optionsOf(
      options,
      check.OF_MANAGER,
    );
    this.#options = { root: root === undefined ? null : path.resolve(root), timeout, queueLimit };
  }

  get root() {
    return this.#engine.root;
  }

  async acquire(filePath, storyId, options) {
    const [lock] = done(await this.#ask(filePath, storyId, options));
    return lock;
  }

  async tryAcquire(filePath, storyId, options) {
    const outcome = await this.#ask(filePath, storyId, options);
    if (outcome.failure?.code === 'ELOCKED') return null;
    const [lock] = done(outcome);
    return lock;
  }

  async acquireAll(paths, storyId, options) {
    check.checkPaths(paths);
    check.checkText(storyId, 'storyId');
    const locks = done(await this.#engine.acquire(paths, storyId, this.#leaseOf(options)));
    return new LockSet(this.#engine, storyId, locks);
  }

  async release(filePath, storyId) {
    check.checkText(filePath, 'path');
    check.checkText(storyId, 'storyId');
    return done(await this.#engine.release(filePath, storyId));
  }

  async renew(filePath, storyId, timeout) {
    check.checkText(filePath, 'path');
    check.checkText(storyId, 'storyId');
    if (timeout !== undefined) check.checkTimeout(timeout);
    return done(await this.#engine.renew(filePath, storyId, timeout));
  }

  async check(filePath) {
    check.checkText(filePath, 'path');
    return done(await this.#engine.check(filePath));
  }

  async withLock(paths, storyId, options, fn) {
    const wanted = check.pathsOf(paths);
    check.checkText(storyId, 'storyId');
    const scope = check.scopeOf(options, fn);
    return await this.#inScope(wanted, storyId, scope, Array.isArray(paths));
  }

  async runStory(storyId, paths, options, fn) {
    check.checkText(storyId, 'storyId');
    const wanted = check.pathsOf(paths);
    const scope = check.scopeOf(options, fn);
    let hasBegun = false;
    const work = (given) => {
      hasBegun = true;
      return scope.fn(given);
    };
    let value;
    try {
      value = await this.#inScope(wanted, storyId, { ...scope, fn: work }, Array.isArray(paths));
    } catch (error) {
      // An argument that was refused has touched nothing, and neither must this.
      if (hasBegun || error instanceof LockError) {
        await this.cleanup(storyId).catch((second) =>
          warn(`${storyId} was not cleaned up`, second),
        );
      }
      throw error;
    }
    await this.cleanup(storyId);
    return value;
  }

  async applyPatch(filePath, storyId, content, options) {
    check.checkText(filePath, 'path');
    check.checkText(storyId, 'storyId');
    const known = check.optionsOf(options, check.OF_PATCH);
    if (typeof content !== 'function') patch.bytesOf(content, 'content');
    const change = { path: path.resolve(filePath), storyId, content, options: known };
    const { queueLimit } = this.#options;
    const wanted = { paths: [filePath], storyId, options: known, queueLimit };
    const engine = this.#engine;
    return await patch.underLocks(engine, wanted, (grants) => patch.write(engine, change, grants));
  }

  async applyDiff(diff, storyId, options) {
    const bytes = patch.bytesOf(diff, 'diff');
    check.checkText(storyId, 'storyId');
    const known = check.optionsOf(options, check.OF_DIFF);
    const { durable = true, check: isCheck = false } = known;
    const engine = this.#engine;
    const paths = done(await engine.outline(bytes));
    const apply = async (grants) =>
      done(await engine.apply(storyId, grants, bytes, { durable, check: isCheck }));
    if (isCheck) return await apply([]);
    const { queueLimit } = this.#options;
    return await patch.underLocks(engine, { paths, storyId, options: known, queueLimit }, apply);
  }

  async cleanup(storyId) {
    check.checkText(storyId, 'storyId');
    return done(await this.#engine.cleanup(storyId));
  }

  async cleanupStoryLocks(storyId) {
    return await this.cleanup(storyId);
  }

  async status() {
    const timestamp = new Date().toISOString();
    try {
      const told = done(await this.#engine.status());
      const { locks, waiting, unreadable, lockDirectory, error } = told;
      const activeLocks = locks.map(statusOf);
      const staleLocks = activeLocks.filter((lock) => lock.isStale).length;
      const status = {
        activeLocks,
        totalLocks: activeLocks.length,
        staleLocks,
        waiting: waiting.map(waiterOf),
        lockDirectory,
        timestamp,
        unreadable: [...unreadable],
      };
      return error === undefined ? status : { ...status, error };
    } catch (error) {
      const lockDirectory = this.#client ? path.join(this.#client.root, '.ai', 'locks') : '';
      const nothing = { activeLocks: [], totalLocks: 0, staleLocks: 0, waiting: [] };
      return { ...nothing, lockDirectory, timestamp, unreadable: [], error: error.message };
    }
  }

  async close() {
    this.#closing ??= this.#engine.close();
    done(await this.#closing);
  }

  /** The descriptor by which a child process keeps the locks alive; `null` before the first. */
  [LIFE_LINE]() {
    return this.#engine.lifeLine();
  }

  get #engine() {
    this.#client ??= new Client(this.#options.root, (loss, lock) => this.#tell(loss, lock));
    return this.#client;
  }

  #ask(filePath, storyId, options) {
    check.checkText(filePath, 'path');
    check.checkText(storyId, 'storyId');
    return this.#engine.acquire([filePath], storyId, this.#leaseOf(options));
  }

  #leaseOf(options) {
    const { timeout, queueLimit } = this.#options;
    return { timeout, queueLimit, ...check.leaseOf(options) };
  }

  async #inScope(paths, storyId, { options, fn }, isSet) {
    const engine = this.#engine;
    const { queueLimit } = this.#options;
    const bound = { queueLimit, ...options, timeout: Infinity, scope: true };
    const locks = done(await engine.acquire(paths, storyId, bound));
    const grants = locks.map(grantOf);
    const held = isSet ? new LockSet(engine, storyId, locks) : locks[0];
    let value;
    try {
      value = await fn({
        ...(isSet ? { locks } : { lock: held }),
        get signal() {
          return held.signal;
        },
      });
    } catch (error) {
      const { failure } = await engine.letGo(grants, true);
      if (failure) warn(`${storyId} may still hold its locks`, errorOf(failure));
      throw error;
    }
    const wereHeld = done(await engine.letGo(grants, true));
    const lost = grants.find((grant, i) => !wereHeld[i]);
    if (lost) throw lossOf(lost);
    return value;
  }

  /** One by one: a listener that throws harms neither the others nor the process. */
  #tell(loss, lock) {
    for (const listener of this.rawListeners('compromised')) {
      const failed = (error) => warn("A 'compromised' listener failed", error);
      try {
        const answer = listener.call(this, loss, lock);
        if (typeof answer?.then === 'function') answer.then(undefined, failed);
      } catch (error) {
        failed(error);
      }
    }
  }
}

function statusOf({ holder, isStale, lockFile }) {
  const { heldFor, ...lock } = holderOf(holder);
  return { ...lock, age: heldFor, isStale, lockFile };
}

function waiterOf({ estimate, reason, ...waiter }) {
  return { ...waiter, estimate: estimate ?? null, reason: reason ?? null };
}

module.exports = { LockManager };
