'use strict';

/**
 * What a person at the terminal sees of a wait: a line that is written over twice a second.
 *
 * Promises: nothing at all where no terminal is watching; the line is gone when the wait is over,
 * by Ctrl-C and SIGTERM too, which end this process as they would without it; nothing is looked up
 * but for a line that is seen, at most twice a second, and less often where looking takes long. A
 * look that fails costs the line its facts, and the wait nothing.
 */

const { performance } = require('node:perf_hooks');

const EVERY_MS = 500;
/** A wait that is over sooner is not worth a line. */
const SOON_MS = 200;
/** One part in so many of the time goes into looking, where a look takes long. */
const LOOKING = 20;

const DEADLY = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'];

class Progress {
  #line;
  #look;
  #say;
  #begun = performance.now();
  #facts = null;
  #lookedAt = 0;
  #nextLook = 0;
  #isLooking = false;
  #isOver = false;
  #timer;

  /**
   * Begins. `look` resolves to facts, and `say(facts, waited, age)` makes a line of them: the facts
   * are `null` where none are known, `age` ms old otherwise.
   */
  constructor(line, look, say) {
    this.#line = line;
    this.#look = look;
    this.#say = say;
    this.#timer = setTimeout(() => this.#tick(), SOON_MS);
    for (const signal of DEADLY) process.on(signal, this.#die);
  }

  /** Clears the line for good. May be called twice. */
  end() {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    for (const signal of DEADLY) process.off(signal, this.#die);
    this.#line.clear();
  }

  /** By the signal itself, so that the shell sees the usual end. */
  #die = (signal) => {
    this.end();
    process.kill(process.pid, signal);
  };

  #tick() {
    this.#timer = setTimeout(() => this.#tick(), EVERY_MS);
    if (!this.#line.isSeen()) return;
    if (this.#isLooking || performance.now() < this.#nextLook) this.#draw();
    else this.#lookAgain();
  }

  async #lookAgain() {
    this.#isLooking = true;
    const asked = performance.now();
    this.#facts = await this.#look().catch(() => null);
    this.#lookedAt = performance.now();
    this.#nextLook = this.#lookedAt + (this.#lookedAt - asked) * LOOKING;
    this.#isLooking = false;
    if (!this.#isOver) this.#draw();
  }

  #draw() {
    const now = performance.now();
    this.#line.show(this.#say(this.#facts, now - this.#begun, now - this.#lookedAt));
  }
}

module.exports = { Progress };
