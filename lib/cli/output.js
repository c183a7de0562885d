'use strict';

/**
 * Where the command line's words go, and what they mean to the shell.
 *
 * Promises: stdout carries the answer and nothing else, as JSON unless a person reads it on a
 * terminal; everything else goes to stderr, each line as `storylock: <message>`, never a stack
 * trace; a reader that went away (EPIPE) is no failure. A wait is shown on stderr only if that is
 * a terminal, and nothing of it stays there.
 */

const { Progress } = require('./progress.js');
const { Line } = require('./terminal.js');
const { plain } = require('./words.js');

/** The exit codes. A command that `run` runs adds its own. */
const EXIT = { DONE: 0, REFUSED: 1, USAGE: 2 };

const PREFIX = 'storylock: ';

const MISTAKES = new Set(['ERR_INVALID_ARG_TYPE', 'ERR_INVALID_ARG_VALUE', 'ERR_OUT_OF_RANGE']);

/** What an error means to the shell: the caller's mistake, or a refusal. */
function exitCodeOf(error) {
  return MISTAKES.has(error?.code) ? EXIT.USAGE : EXIT.REFUSED;
}

class Output {
  #stdout;
  #stderr;

  constructor(stdout = process.stdout, stderr = process.stderr) {
    this.#stdout = stdout;
    this.#stderr = stderr;
    // Each write tells its own caller; without a listener the stream would throw as well.
    for (const stream of [stdout, stderr]) stream.on('error', () => {});
  }

  /**
   * Prints the answer: `value` as JSON, what the JavaScript call of the same name answers, or
   * what `say()` resolves to for a person. An infinite timeout is null in JSON.
   */
  async answer(value, say, { json = false } = {}) {
    const text = this.isForPerson(json) ? await say() : this.#json(value);
    await this.text(`${text}\n`);
  }

  /** On a terminal no text of others may move the cursor, in JSON either. */
  #json(value) {
    const text = JSON.stringify(value, null, 2);
    if (!this.#stdout.isTTY) return text;
    const escape = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
    const odd = /[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
    return text.replace(odd, escape);
  }

  /** Whether a person reads stdout, and no JSON is asked for. */
  isForPerson(json = false) {
    return Boolean(this.#stdout.isTTY) && !json;
  }

  /**
   * Prints text on stdout as it is: whether there is still a reader. Rejects when it cannot be
   * written for another cause than EPIPE.
   */
  text(text) {
    return new Promise((resolve, reject) => {
      this.#stdout.write(text, (error) => {
        if (!error || error.code === 'EPIPE') resolve(!error);
        else reject(new Error(`The answer could not be written to stdout: ${error.message}.`));
      });
    });
  }

  /** The width of the terminal in columns; Infinity where it has none. */
  get width() {
    return this.#stdout.columns || Infinity;
  }

  /** Tells of something on stderr. */
  note(message) {
    this.#stderr.write(`${PREFIX}${plain(message)}\n`);
  }

  /**
   * Shows a wait to whoever watches stderr, until `end()` of what this answers; see Progress.
   */
  progress(look, say) {
    if (!Line.isPossibleOn(this.#stderr)) return { end() {} };
    const said = (...known) => `${PREFIX}${say(...known)}`;
    return new Progress(new Line(this.#stderr), look, said);
  }

  /** Prints text on stderr as it is. */
  aside(text) {
    this.#stderr.write(text);
  }
}

module.exports = { EXIT, Output, exitCodeOf };
