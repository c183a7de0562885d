'use strict';

/**
 * The engine as the face sees it: calls in, outcomes and losses out.
 *
 * Promises: what an answer changes here is done in the engine's order, before any caller goes on;
 * a loss is told once. What is still held when the process exits is given up, as far as `'exit'`
 * is emitted (after a kill the kernel sees to it). Nothing is listened to before the first lock
 * is asked for.
 */

const native = require('../native.js');
const { errorOf, holderOf } = require('./errors.js');
const { Grant, Lock } = require('./lock.js');
const { Tickets } = require('./tickets.js');

class Client {
  #native;
  #onLoss;
  #tickets = new Tickets();
  /** The grant of each key, from its answer until it is given up or lost. */
  #held = new Map();

  constructor(root, onLoss) {
    this.#onLoss = onLoss;
    try {
      this.#native = new native.Client(root, (answers) => this.#settle(answers));
    } catch (failure) {
      throw errorOf(failure);
    }
  }

  get root() {
    return this.#native.root;
  }

  /**
   * All of these paths or none: their locks. A request that `signal` calls off while it waits has
   * no place in the queue any more; which of the two came first is the engine's to say.
   */
  async acquire(paths, storyId, { signal, ...options }) {
    signal?.throwIfAborted();
    const submitted = this.#native.acquire(paths, storyId, options);
    if (typeof submitted === 'number') leaveAtExit(this);
    const outcome = this.#tickets.outcome(submitted, ({ locks }) =>
      locks.map((info) => new Lock(this, this.#granted(info, options), info)),
    );
    if (!signal || typeof submitted !== 'number') return outcome;
    const callOff = () => this.#native.cancel(submitted);
    signal.addEventListener('abort', callOff, { once: true });
    try {
      const settled = await outcome;
      if (settled.failure?.code === 'ABORT_ERR') throw signal.reason;
      return settled;
    } finally {
      signal.removeEventListener('abort', callOff);
    }
  }

  /** Gives these grants up, or ends one scope on each: whether each was held until now. */
  letGo(grants, scope = false) {
    const submitted = this.#native.letGo(grants.map(nameOf), scope);
    return this.#tickets.outcome(submitted, ({ released }) => {
      grants.forEach((grant, i) => this.#end(grant, scope && released[i]));
      return [...released];
    });
  }

  /** Changes files under these grants, fenced: each file's path and hash. */
  change(storyId, grants, edits, options) {
    const submitted = this.#native.change(storyId, grants.map(nameOf), edits, options);
    return this.#tickets.outcome(submitted, ({ files }) => files.map(fileOf));
  }

  /** The same as a diff says. */
  apply(storyId, grants, diff, options) {
    const submitted = this.#native.apply(storyId, grants.map(nameOf), diff, options);
    return this.#tickets.outcome(submitted, ({ files }) => files.map(fileOf));
  }

  /** The paths that a diff touches. */
  outline(diff) {
    return this.#tickets.outcome(this.#native.outline(diff), ({ paths }) => paths);
  }

  /** Whatever lock the story has on the path. */
  release(path, storyId) {
    return this.#tickets.outcome(this.#native.release(path, storyId), () => true);
  }

  /** The story's lock on the path with its lease begun anew. */
  renew(path, storyId, timeout) {
    return this.#tickets.outcome(
      this.#native.renew(path, storyId, timeout),
      ({ locks: [info] }) => {
        const grant = this.#find(info.key, info.token) ?? new Grant(info);
        return new Lock(this, grant, info);
      },
    );
  }

  /** The same for exactly this grant: what the engine says of it now. */
  extend({ key, token }, timeout) {
    const submitted = this.#native.extend(key, token, timeout);
    return this.#tickets.outcome(submitted, ({ locks: [info] }) => info);
  }

  verify({ key, token }) {
    return this.#tickets.outcome(this.#native.verify(key, token), ({ current }) => current);
  }

  check(path) {
    return this.#tickets.outcome(this.#native.check(path), ({ holders: [holder] }) =>
      holder ? holderOf(holder) : null,
    );
  }

  cleanup(storyId) {
    return this.#tickets.outcome(this.#native.cleanup(storyId), ({ count }) => count);
  }

  status() {
    return this.#tickets.outcome(this.#native.status(), ({ status }) => status);
  }

  close() {
    return this.#tickets.outcome(this.#native.close(), () => {
      this.#held.clear();
      inUse.delete(this);
    });
  }

  leave() {
    this.#native.leave();
  }

  lifeLine() {
    return this.#native.lifeLine();
  }

  #settle(answers) {
    for (const answer of answers) {
      if ('ticket' in answer) this.#tickets.settle(answer);
      else this.#over(answer);
    }
  }

  #find(key, token) {
    const grant = this.#held.get(key);
    return grant?.token === token ? grant : undefined;
  }

  /** A detached lock is nobody's here: the engine tells no loss of it. */
  #granted(info, { scope, detached }) {
    const known = this.#find(info.key, info.token);
    const grant = known ?? new Grant(info);
    if (detached) return grant;
    if (!known) this.#held.set(grant.key, grant);
    if (scope) grant.scopes += 1;
    // What was there before the first scope has a lease of its own, which no scope ends.
    if (!scope || (!known && !info.fresh)) grant.isApart = true;
    return grant;
  }

  #end(grant, isScopeEnd) {
    if (isScopeEnd) grant.scopes -= 1;
    if (isScopeEnd && (grant.scopes > 0 || grant.isApart)) return;
    if (this.#find(grant.key, grant.token)) this.#held.delete(grant.key);
  }

  /** A grant is over that was not let go of here: given up by path or by story, or lost. */
  #over({ key, token, failure }) {
    const grant = this.#find(key, token);
    if (!grant) return;
    this.#held.delete(key);
    if (!failure) return;
    const loss = errorOf(failure);
    grant.lose(loss);
    this.#onLoss(loss, grant.lock);
  }
}

function nameOf({ key, token }) {
  return { key, token };
}

function fileOf({ path, hash }) {
  return { path, hash: hash ?? null };
}

const inUse = new Set();
let isExitWatched = false;

function leaveAtExit(client) {
  inUse.add(client);
  if (isExitWatched) return;
  isExitWatched = true;
  process.once('exit', () => {
    for (const one of inUse) {
      try {
        one.leave();
      } catch {
        // The kernel gives up what is left; the exit code must stay the program's own.
      }
    }
  });
}

module.exports = { Client };
