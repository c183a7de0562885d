'use strict';

/**
 * A person's terminal: whether this process has it, and a line of it that is written over.
 *
 * Promises: the line is one row whatever its text and the terminal's width; it is written only
 * while this process is in the foreground, so that a job in the background leaves the shell's own
 * line alone. The cursor rests where the line begins, so that what is typed or echoed meanwhile
 * (`^C`) stays on that row too. A row that a narrowed terminal has folded is cleared in part only.
 */

const fs = require('node:fs');
const readline = require('node:readline');
const tty = require('node:tty');

const widthOf = require('string-width');

/** Where a terminal does not tell its width. */
const USUAL_COLUMNS = 80;

const graphemes = new Intl.Segmenter();

/** Whether a terminal's Ctrl-C comes to this process, and so to its children too. */
function isInForeground() {
  if (![0, 1, 2].some((fd) => tty.isatty(fd))) return false;
  try {
    // proc(5): after the name in brackets come state, ppid, pgrp, session, tty_nr, tpgid.
    const stat = fs.readFileSync('/proc/self/stat', 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[2] === fields[5];
  } catch {
    return true;
  }
}

/** The text in pieces of at most so many columns, no character being torn apart. */
function folded(text, columns) {
  const pieces = [''];
  let width = 0;
  for (const { segment } of graphemes.segment(text)) {
    width += widthOf(segment);
    if (width > columns && pieces.at(-1) !== '') {
      pieces.push('');
      width = widthOf(segment);
    }
    pieces.push(pieces.pop() + segment);
  }
  return pieces;
}

/** As much of the text as so many columns take, `…` standing for the rest. */
function fitted(text, columns) {
  if (widthOf(text) <= columns) return text;
  return columns < 2 ? '…' : `${folded(text, columns - 1)[0]}…`;
}

/** A row of a terminal that is written over. */
class Line {
  #stream;
  #isShown = false;

  constructor(stream) {
    this.#stream = stream;
  }

  /** Whether the stream is a terminal that can do this. */
  static isPossibleOn(stream) {
    return Boolean(stream.isTTY) && process.env.TERM !== 'dumb';
  }

  /** Whether this process may write it now. */
  isSeen() {
    return isInForeground();
  }

  /** Writes the text, without control characters, over what stood there. */
  show(text) {
    if (!this.isSeen()) return;
    const stream = this.#stream;
    readline.cursorTo(stream, 0);
    // The last column stays free: terminals differ in where the cursor goes from there.
    stream.write(fitted(text, (stream.columns || USUAL_COLUMNS) - 1));
    readline.clearLine(stream, 1);
    readline.cursorTo(stream, 0);
    this.#isShown = true;
  }

  clear() {
    if (!this.#isShown || !this.isSeen()) return;
    readline.cursorTo(this.#stream, 0);
    readline.clearLine(this.#stream, 0);
    this.#isShown = false;
  }
}

module.exports = { Line, folded, isInForeground, widthOf };
