'use strict';

/**
 * Tickets: what has been asked of the engine and not answered yet.
 *
 * Promises: each ticket is answered once; what an answer changes here (`take`) is done while its
 * batch is read, in the engine's order, before any caller goes on. A failure is an outcome, not
 * yet an error: `done` makes the error in the caller's own async function, so that its stack
 * trace leads there and a refusal that nobody wants as an error costs none.
 */

const { errorOf } = require('./errors.js');

class Tickets {
  #open = new Map();

  /** What comes of it: `{ value }`, made from the answer by `take`, or `{ failure }`. */
  outcome(submitted, take) {
    if (typeof submitted !== 'number') return Promise.resolve({ failure: submitted });
    return new Promise((resolve) => this.#open.set(submitted, { resolve, take }));
  }

  settle(answer) {
    const { resolve, take } = this.#open.get(answer.ticket);
    this.#open.delete(answer.ticket);
    resolve(answer.kind === 'failed' ? { failure: answer.failure } : { value: take(answer) });
  }
}

/** The value of an outcome. Throws what it failed with. */
function done(outcome) {
  if (outcome.failure) throw errorOf(outcome.failure);
  return outcome.value;
}

module.exports = { Tickets, done };
