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
const { LockError, errorOf, lossOf, warn } = require('./errors.js');
const handover = require('./handover.js');
const history = require('./history.js');
const { LockSet, grantOf, scopeOf } = require('./lock.js');
const patch = require('./patch.js');
const { absolute, entriesOf } = require('./paths.js');
const { nothingOf, statusOf } = require('./status.js');
const { done } = require('./tickets.js');
const { watch } = require('./watch.js');

const DEFAULT_TIMEOUT = 30_000;

/** Between the command line and this face: no part of the package's surface. */
const LIFE_LINE = Symbol.for('storylock.lifeLine');

/** The managers of the locks that this process was handed, by project. */
const adopters = new Map();

class LockManager extends EventEmitter {
  #options;
  #client = null;
  #closing = null;

  constructor(options) {
    super();
    const given = check.optionsOf(options, check.OF_MANAGER);
    const { root, timeout = DEFAULT_TIMEOUT, queueLimit, history } = given;
    const folder = root === undefined ? null : path.resolve(root);
    this.#options = { root: folder, timeout, queueLimit, history };
  }

  static async adopt(token, options) {
    const { root } = handover.opened(token);
    check.optionsOf(options, check.OF_ADOPT);
    if (!adopters.has(root)) adopters.set(root, new LockManager({ root }));
    return await adopters.get(root).adopt(token, options);
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
    const wanted = check.setOf(paths);
    check.checkText(storyId, 'storyId');
    const { glob, ...lease } = this.#leaseOf(options, check.OF_SET);
    const engine = this.#engine;
    const entries = await entriesOf(wanted, { ...lease, glob }, storyId);
    return new LockSet(engine, storyId, done(await engine.acquire(entries, storyId, lease)));
  }

  async adopt(token, options) {
    const offer = handover.opened(token);
    const { timeout } = check.optionsOf(options, check.OF_ADOPT);
    const engine = this.#engine;
    handover.checkProject(offer, engine.root);
    const locks = done(await engine.adopt(offer.grants, offer.digest, timeout));
    const [lock] = locks;
    return offer.isSet ? new LockSet(engine, lock.storyId, locks) : lock;
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

  async forceRelease(filePath, options) {
    check.checkText(filePath, 'path');
    const given = check.neededOf(options, check.OF_FORCE, ['by', 'reason']);
    const { dryRun = false } = given;
    const { removed, next } = done(await this.#engine.force(filePath, { ...given, dryRun }));
    return { removed, next, dryRun };
  }

  async withLock(paths, storyId, options, fn) {
    const wanted = check.oneOrSetOf(paths);
    check.checkText(storyId, 'storyId');
    const scope = check.scopeOf(options, fn);
    return await this.#inScope(wanted, storyId, scope, Array.isArray(paths));
  }

  async runStory(storyId, paths, options, fn) {
    check.checkText(storyId, 'storyId');
    const wanted = check.oneOrSetOf(paths);
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
    patch.checkFile(filePath);
    check.checkText(storyId, 'storyId');
    const known = check.optionsOf(options, check.OF_PATCH);
    if (typeof content !== 'function') patch.bytesOf(content, 'content');
    const change = { path: path.resolve(filePath), storyId, content, options: known };
    const wanted = { paths: [filePath], storyId, options: known };
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
    return await patch.underLocks(engine, { paths, storyId, options: known }, apply);
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
      return statusOf(done(await this.#engine.status()), timestamp);
    } catch (error) {
      const lockDirectory = this.#client ? path.join(this.#client.root, '.ai', 'locks') : '';
      return nothingOf(error, lockDirectory, timestamp);
    }
  }

  async history(options) {
    const { limit = 1000, ...given } = check.optionsOf(options, check.OF_PAST);
    return await history.read(this.root, { limit, ...filterOf(given) });
  }

  watch(options) {
    const { signal, ...given } = check.optionsOf(options, check.OF_WATCH);
    return watch(this.root, { signal, ...filterOf(given) });
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
    const { root, queueLimit, history: limits } = this.#options;
    const onLoss = (loss, lock) => this.#tell(loss, lock);
    this.#client ??= new Client(root, { queueLimit, history: limits, onLoss });
    return this.#client;
  }

  #ask(filePath, storyId, options) {
    check.checkText(filePath, 'path');
    check.checkText(storyId, 'storyId');
    return this.#engine.acquire([{ path: filePath }], storyId, this.#leaseOf(options));
  }

  #leaseOf(options, checks) {
    const { timeout } = this.#options;
    return { timeout, ...check.leaseOf(options, checks) };
  }

  async #inScope(wanted, storyId, { options: { glob = false, ...ask }, fn }, isArray) {
    const engine = this.#engine;
    const entries = await entriesOf(wanted, { ...ask, glob }, storyId);
    const bound = { ...ask, timeout: Infinity, scope: true };
    const locks = done(await engine.acquire(entries, storyId, bound));
    const grants = locks.map(grantOf);
    const isSet = isArray || glob;
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
      const { failure } = await engine.letGo(grants, locks.map(scopeOf));
      if (failure) warn(`${storyId} may still hold its locks`, errorOf(failure));
      throw error;
    }
    const wereHeld = done(await engine.letGo(grants, locks.map(scopeOf)));
    const lost = grants.find((grant, i) => !wereHeld[i] && !grant.isGoodEnd);
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

/** What events are asked for, as they tell of themselves: absolute paths, ms. */
function filterOf({ path: named, ...filter }) {
  return named === undefined ? filter : { ...filter, path: absolute(named) };
}

module.exports = { LockManager };
