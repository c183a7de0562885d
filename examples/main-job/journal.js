'use strict';

/**
 * What a story process did, one JSON line a thing, in a file that nobody else writes.
 *
 * An edit is an `intent` line before its write and a `done` line after it. A killed process can
 * leave one intent without its done: that edit may be in the file or not. All others are certain.
 * A line reaches the kernel before `note` returns, so a kill of the process cannot lose it.
 */

const fs = require('node:fs');
const path = require('node:path');

class Journal {
  #file;

  constructor(folder, run) {
    this.#file = fs.openSync(path.join(folder, `${run}.jsonl`), 'ax');
  }

  note(kind, fields = {}) {
    fs.writeSync(this.#file, `${JSON.stringify({ kind, ...fields })}\n`);
  }
}

/** What all journals of a folder say. A last line that a kill cut off is left out. */
function readJournals(folder) {
  return fs.readdirSync(folder).flatMap((name) => {
    const text = fs.readFileSync(path.join(folder, name), 'utf8');
    return text.split('\n').slice(0, -1).map((line) => JSON.parse(line));
  });
}

module.exports = { Journal, readJournals };
