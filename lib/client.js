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
const { errorOf, goneOf, holderOf } = require('./errors.js');
const { Grant } = require('./grant.js');
const { areUsual, asked, kindsOf } = require('./kinds.js');
const { Lock, grantOf } = require('./lock.js');
const { waiterOf } = require('./status.js');
const { Tickets } = require('./tickets.js');

class Client {
  #native;
  /** How much history is kept, to be said before the first call; undefined for the usual. */
  #history;
  #queueLimit;
  #onLoss;
  #tickets = new Tickets();
  /** The grants, each from its answer until it is given up or lost. */
  #held = new Map();

  constructor(root, { queueLimit, history, onLoss }) {
    this.#history = history;
    this.#queueLimit = queueLimit;
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

  get #engine() {
    if (this.#history !== undefined) {
      const { maxBytes = 8 * 1024 * 1024, keep = 4 } = this.#history || {};
      const limits = this.#history === false ? null : { maxBytes, keep };
      this.#history = undefined;
      this.#tickets.outcome(this.#native.keepHistory(limits), () => true);
    }
    return this.#native;
  }

  /**
   * All of these entries or none: their locks. A request that `signal` calls off while it waits has
   * no place in the queue any more; which of the two came first is the engine's to say.
   */
  async acquire(entries, storyId, { signal, mode, recursive, ...options }) {
    signal?.throwIfAborted();
    const wanted = asked(entries, { mode, recursive });
    const submitted = this.#engine.acquire(wanted.paths, storyId, {
      ...options,
      kinds: areUsual(wanted.kinds) ? undefined : wanted.kinds,
      queueLimit: this.#queueLimit,
    });
    if (typeof submitted === 'number') leaveAtExit(this);
    const outcome = this.#tickets.outcome(submitted, ({ locks }) => {
      const kinds = kindsOf(locks, wanted);
      return locks.map((info, i) => {
        const grant = this.#granted(info, kinds[i], options);
        return new Lock(this, grant, info, options.scope ? kinds[i] : null);
      });
    });
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

  /**
   * Gives these grants up, or ends the scope on each that wants it in this kind: whether each was
   * held until now.
   */
  letGo(grants, scopes = null) {
    const isScope = scopes !== null;
    const submitted = this.#engine.letGo(grants.map(nameOf), isScope, scopes);
    return this.#tickets.outcome(submitted, ({ released }) => {
      grants.forEach((grant, i) => {
        const isWanted = grant.end(isScope);
        if (!(isWanted && released[i])) this.#forget(grant);
      });
      return [...released];
    });
  }

  /** Changes files under these grants, fenced: each file's path and hash. */
  change(storyId, grants, edits, options) {
    const submitted = this.#engine.change(storyId, grants.map(nameOf), edits, options);
    return this.#tickets.outcome(submitted, ({ files }) => files.map(fileOf));
  }

  /** The same as a diff says. */
  apply(storyId, grants, diff, options) {
    const submitted = this.#engine.apply(storyId, grants.map(nameOf), diff, options);
    return this.#tickets.outcome(submitted, ({ files }) => files.map(fileOf));
  }

  /** The paths that a diff touches. */
  outline(diff) {
    return this.#tickets.outcome(this.#native.outline(diff), ({ paths }) => paths);
  }

  /** Whatever lock the story has on the path. */
  release(path, storyId) {
    return this.#tickets.outcome(this.#engine.release(path, storyId), () => true);
  }

  /** The story's lock on the path with its lease begun anew. */
  renew(path, storyId, timeout) {
    return this.#tickets.outcome(
      this.#engine.renew(path, storyId, timeout),
      ({ locks: [info] }) => {
        const grant = this.#find(info.key, info.token) ?? new Grant(info);
        return new Lock(this, grant, info);
      },
    );
  }

  /** The same for exactly this grant: what the engine says of it now. */
  extend({ key, token }, timeout) {
    const submitted = this.#engine.extend(key, token, timeout);
    return this.#tickets.outcome(submitted, ({ locks: [info] }) => info);
  }

  verify({ key, token }) {
    return this.#tickets.outcome(this.#native.verify(key, token), ({ current }) => current);
  }

  /** This claim on exactly this grant as an exclusive one, in turn behind the other readers. */
  async raise(grant, scope, turn) {
    return await this.#claimAnew(grant, scope, 'exclusive', turn);
  }

  /** This claim on exactly this grant as a shared one. */
  async lower(grant, scope) {
    if (scope !== null) {
      const outcome = await this.#claimAnew(grant, scope, 'shared', {});
      if (outcome.failure) return outcome;
      // What has become of the lock is known when the old claim has ended.
      const renewed = await this.extend(grant);
      return renewed.failure ? renewed : { value: { ...outcome.value, info: renewed.value } };
    }
    const kind = { mode: 'shared', recursive: grant.kind?.recursive ?? false };
    const submitted = this.#engine.lower(grant.key, grant.token, kind);
    return this.#tickets.outcome(submitted, ({ locks: [info] }) => {
      if (grant.kind !== null) grant.kind = kind;
      return { info, scope: null };
    });
  }

  /** This grant to another story: its lock. */
  transfer({ key, token }, storyId) {
    const submitted = this.#engine.transfer(key, token, storyId);
    return this.#tickets.outcome(submitted, ({ locks: [info] }) => this.#lockOf(info));
  }

  /** Offers these grants to whoever knows the secret of this digest. */
  offer(grants, digest) {
    return this.#tickets.outcome(this.#engine.offer(grants.map(nameOf), digest), () => {
      for (const grant of grants) grant.isOffered = true;
    });
  }

  /** Makes grants that were offered so this process's own: their locks. */
  adopt(grants, digest, timeout) {
    const submitted = this.#engine.adopt(grants, digest, timeout);
    if (typeof submitted === 'number') leaveAtExit(this);
    return this.#tickets.outcome(submitted, ({ locks }) => locks.map((info) => this.#lockOf(info)));
  }

  /** Takes the path from whoever holds it: who did, and who is next. */
  force(path, options) {
    return this.#tickets.outcome(this.#engine.force(path, options), ({ removed, next }) => ({
      removed: removed.map(holderOf),
      next: next.map(waiterOf),
    }));
  }

  check(path) {
    return this.#tickets.outcome(this.#native.check(path), ({ holders: [holder, ...others] }) =>
      holder ? { ...holderOf(holder), others: others.map(holderOf) } : null,
    );
  }

  cleanup(storyId) {
    return this.#tickets.outcome(this.#engine.cleanup(storyId), ({ count }) => count);
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
    const grant = this.#held.get(idOf({ key, token }));
    return grant?.key === key ? grant : undefined;
  }

  /** A lock that came to this client otherwise than by being asked for. */
  #lockOf(info) {
    const { mode, recursive, detached } = info;
    return new Lock(this, this.#granted(info, { mode, recursive }, { detached }), info);
  }

  /** A detached lock is nobody's here: the engine tells no loss of it. */
  #granted(info, kind, { scope = false, detached }) {
    const known = this.#find(info.key, info.token);
    const grant = known ?? new Grant(info);
    if (detached) return grant;
    if (!known) this.#held.set(idOf(grant), grant);
    grant.begin(kind, { scope, isFound: !known && !info.fresh });
    return grant;
  }

  /**
   * Claims exactly this grant in another mode, in place of the claim that there is: the scope of
   * that kind, or the one apart from scopes. Refused, nothing has changed.
   */
  async #claimAnew(grant, scope, mode, { wait, signal }) {
    const current = await this.verify(grant);
    if (current.failure) return current;
    if (!current.value) throw goneOf(grant);
    const kind = { mode, recursive: scope?.recursive ?? false };
    // Once the lock is lost, to wait on would be to wait for another one.
    const ends = signal ? AbortSignal.any([signal, grant.signal]) : grant.signal;
    const { filePath, storyId, detached } = grant;
    const options = { ...kind, wait, signal: ends, detached, scope: scope !== null };
    let outcome;
    try {
      outcome = await this.acquire([{ path: filePath }], storyId, options);
    } catch (error) {
      throw error === grant.loss ? goneOf(grant) : error;
    }
    if (outcome.failure) return outcome;
    const [info] = outcome.value;
    const found = grantOf(info);
    if (found.key !== grant.key || found.token !== grant.token) {
      await this.letGo([found], scope && [kind]);
      throw goneOf(grant);
    }
    if (scope) await this.letGo([grant], [scope]);
    return { value: { info, scope: scope && kind } };
  }

  #forget(grant) {
    if (this.#find(grant.key, grant.token)) this.#held.delete(idOf(grant));
  }

  /** A grant is over that was not let go of here: given up by path or by story, or lost. */
  #over({ key, token, failure }) {
    const grant = this.#find(key, token);
    if (!grant) return;
    this.#held.delete(idOf(grant));
    if (!failure) return;
    const loss = errorOf(failure);
    grant.lose(loss);
    this.#onLoss(loss, grant.lock);
  }
}

/** No two grants have one token, but those of the old module, which are one a path. */
function idOf({ key, token }) {
  return token === 0 ? key : token;
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
