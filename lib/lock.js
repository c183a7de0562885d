'use strict';

/**
 * What a story holds: a `Lock` for a path, a `LockSet` for several taken together.
 *
 * Promises: every call speaks of exactly this grant, by key and token, and never touches a
 * successor's lock on the same path; `signal` is aborted once, when the lock is lost, with the
 * loss as its reason. A lock that is given up is not lost: its signal stays quiet.
 *
 * The plain properties tell of the moment when the lock was acquired, or last renewed through it.
 */

const { checkTimeout } = require('./arguments.js');
const { done } = require('./tickets.js');

/** What all locks of one grant share: a story that asks again is given another `Lock` of it. */
class Grant {
  #controller = null;

  constructor({ key, token, storyId, filePath }) {
    this.key = key;
    this.token = token;
    this.storyId = storyId;
    this.filePath = filePath;
    /** Scopes open on it, and whether it is held apart from them too: as the engine counts. */
    this.scopes = 0;
    this.isApart = false;
    /** The first lock of it. */
    this.lock = null;
    this.loss = null;
  }

  get signal() {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.loss) this.#controller.abort(this.loss);
    }
    return this.#controller.signal;
  }

  lose(loss) {
    this.loss = loss;
    this.#controller?.abort(loss);
  }
}

let grantOf;

/** A path that is locked. */
class Lock {
  #client;
  #grant;

  static {
    grantOf = (lock) => lock.#grant;
  }

  constructor(client, grant, info) {
    this.#client = client;
    this.#grant = grant;
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
    this.reclaimed = info.reclaimed ? { ...info.reclaimed } : null;
  }

  get signal() {
    return this.#grant.signal;
  }

  async renew(timeout) {
    if (timeout !== undefined) checkTimeout(timeout);
    const info = done(await this.#client.extend(this.#grant, timeout));
    this.timeout = info.timeout;
    this.expiresAt = info.expiresAt ?? null;
    return this;
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

module.exports = { Grant, Lock, LockSet, grantOf };
