'use strict';

/**
 * What all locks of one grant share: a story that asks again is given another `Lock` of it.
 *
 * Promises: who wants it here is counted as the engine counts; `signal` is aborted once, when the
 * lock is lost, with the loss as its reason.
 */

const { joined } = require('./kinds.js');

class Grant {
  #controller = null;
  #scopes = 0;
  /** Whether it is held apart from scopes too, by whomever. */
  #isApart = false;

  constructor({ key, token, storyId, filePath, detached }) {
    this.key = key;
    this.token = token;
    this.storyId = storyId;
    this.filePath = filePath;
    this.detached = detached;
    /** What is wanted of it here, apart from scopes; null for nothing. */
    this.kind = null;
    /** Whether it was offered to another process, which may have taken it. */
    this.isOffered = false;
    /** The first lock of it. */
    this.lock = null;
    this.loss = null;
  }

  /** Whether its end, if it has ended, is what its story wanted. */
  get isGoodEnd() {
    return this.isOffered && this.loss === null;
  }

  get signal() {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.loss) this.#controller.abort(this.loss);
    }
    return this.#controller.signal;
  }

  /** It is wanted in this kind, for a scope or apart; `isFound` if it was there before. */
  begin(kind, { scope, isFound }) {
    if (scope) this.#scopes += 1;
    else this.kind = this.kind === null ? kind : joined(this.kind, kind);
    // What was there before the first scope has a lease of its own, which no scope ends.
    if (!scope || isFound) this.#isApart = true;
  }

  /** A scope is over, or it is not wanted apart any more: whether anything here holds it still. */
  end(scope) {
    if (scope) {
      this.#scopes -= 1;
    } else {
      this.kind = null;
      this.#isApart = false;
    }
    return this.#scopes > 0 || this.#isApart;
  }

  lose(loss) {
    this.loss = loss;
    this.#controller?.abort(loss);
  }
}

module.exports = { Grant };
