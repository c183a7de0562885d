'use strict';

/**
 * The verdict: what the files themselves say, held against the journals.
 *
 * Every edit that a journal calls done must stand in its file exactly once, an edit that a kill cut
 * short at most once, nothing else may be there, and a file without its edits must be what it was.
 */

const fs = require('node:fs');
const path = require('node:path');
const { dissect } = require('./edit.js');
const { readJournals } = require('./journal.js');

/** Answers the counts of a run; every one of them is read from disk. */
function examine(ground, { locksLeft }) {
  const { made, begun, counts } = account(readJournals(ground.journals));
  const found = new Map();
  let damaged = 0;
  for (const file of ground.targets) {
    const { ids, rest } = dissect(fs.readFileSync(path.join(ground.tree, file), 'utf8'));
    if (rest !== ground.originals.get(file)) damaged += 1;
    for (const id of ids) found.set(`${id} ${file}`, (found.get(`${id} ${file}`) ?? 0) + 1);
  }
  const kept = [...made].filter((edit) => found.get(edit) === 1).length;
  const strange = [...found].filter(([edit, times]) => times > 1 || !begun.has(edit)).length;
  return {
    made: made.size,
    kept,
    lost: made.size - kept,
    cutShort: begun.size - made.size,
    strange,
    damaged,
    locksLeft,
    ...counts,
  };
}

/** Edits are told apart as `id file`. */
function account(entries) {
  const made = new Set();
  const begun = new Set();
  const counts = { refused: 0, reclaimed: 0, double: 0, overtaken: 0 };
  for (const { kind, id, file } of entries) {
    if (kind === 'intent') begun.add(`${id} ${file}`);
    else if (kind === 'done') made.add(`${id} ${file}`);
    else counts[kind] += 1;
  }
  return { made, begun, counts };
}

module.exports = { examine };
