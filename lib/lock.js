'use strict';

/**
 * What a story holds: a `Lock` for a path, a `LockSet` for several taken together.
 *
 * Promises: every call speaks of exactly this grant, by key and token, and never touches a
 * successor's lock on the same path; `signal` is aborted once, when the lock is lost, with the
 * loss as its reason. A lock that is given up, or passed on to another story or process, is not
 * lost: its signal stays quiet.
 *
 * The plain properties tell of the moment when the lock was acquired, or last changed through it.
 */

const check = require('./arguments.js');
const { exported } = require('./handover.js');
const { done } = require('./tickets.js');

let grantOf;
let scopeOf;

/** A path that is locked. */
class Lock {
  #client;
  #grant;
  /** The kind in which its scope wants it; null if it is no scope's. */
  #scope;

  static {
    grantOf = (lock) => lock.#grant;
    scopeOf = (lock) => lock.#scope;
  }

  constructor(client, grant, info, scope = null) {
    this.#client = client;
    this.#grant = grant;
    this.#scope = scope;
    grant.lock ??= this;
    this.lockId = info.lockId;
    this.storyId = info.storyId;
    this.filePath = info.filePath;
    this.acquiredAt = info.acquiredAt;
    this.timeout = info.timeout;
    this.pid = info.pid;
    this.token = info.token;
    this.expiresAt = info.expiresAt ?? null;
    this.mode = info.mode;
    this.recursive = info.recursive;
    this.reclaimed = info.reclaimed ? { ...info.reclaimed } : null;
  }

  get signal() {
    return this.#grant.signal;
  }

  async renew(timeout) {
    if (timeout !== undefined) check.checkTimeout(timeout);
    return this.#is(done(await this.#client.extend(this.#grant, timeout)));
  }

  async upgrade(options) {
    const turn = check.optionsOf(options, check.OF_TURN);
    return this.#became(done(await this.#client.raise(this.#grant, this.#scope, turn)));
  }

  async downgrade() {
    return this.#became(done(await this.#client.lower(this.#grant, this.#scope)));
  }

  async transfer(options) {
    const { storyId } = check.neededOf(options, check.OF_TRANSFER, ['storyId']);
    return done(await this.#client.transfer(this.#grant, storyId));
  }

  async export() {
    return await exported(this.#client, [this.#grant], false);
  }

  async release() {
    const [wasHeld] = done(await this.#client.letGo([this.#grant]));
    return wasHeld;
  }

  async verify() {
    return done(await this.#client.verify(this.#grant));
  }

  async [Symbol.asyncDispose]() {
    await this.release();
  }

  /** What a claim of another kind has made of it. */
  #became({ info, scope }) {
    this.#scope = scope;
    return this.#is(info);
  }

  /** What the engine says of the grant now. */
  #is({ timeout, expiresAt, mode, recursive }) {
    Object.assign(this, { timeout, expiresAt: expiresAt ?? null, mode, recursive });
    return this;
  }
}

/** Several paths, locked whole or not at all. */
class LockSet {
  #client;
  #signal = null;

  constructor(client, storyId, locks) {
    this.#client = client;
    this.storyId = storyId;
    this.locks = locks;
  }

  get signal() {
    this.#signal ??= AbortSignal.any(this.locks.map((lock) => lock.signal));
    return this.#signal;
  }

  async renew(timeout) {
    await Promise.all(this.locks.map((lock) => lock.renew(timeout)));
    return this;
  }

  async export() {
    return await exported(this.#client, this.locks.map(grantOf), true);
  }

  async release() {
    const wereHeld = done(await this.#client.letGo(this.locks.map(grantOf)));
    return wereHeld.every(Boolean);
  }

  async verify() {
    const areCurrent = await Promise.all(this.locks.map((lock) => lock.verify()));
    return areCurrent.every(Boolean);
  }

  async [Symbol.asyncDispose]() {
    await this.release();
  }
}

module.exports = { Lock, LockSet, grantOf, scopeOf };
