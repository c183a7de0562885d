'use strict';

/**
 * One story process: until its time is up it picks one to three files, locks them all, edits each
 * and lets go. A refusal is waited out and tried again. It can be killed at any moment.
 *
 * Without locking it does exactly the same, but for the locks.
 */

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { LockManager } = require('storylock');
const { insert, replace } = require('./edit.js');
const { Journal } = require('./journal.js');
const { Witness } = require('./marker.js');

/** How long an edit takes to think of: between reading the file and writing it. */
const THINKING_MS = [4, 16];
/** How long a refused story does something else before it asks again. */
const RETRY_MS = [5, 30];

const { storyId, run, ground, locking, until } = JSON.parse(process.argv[2]);
const manager = new LockManager({ root: ground.tree });
const journal = new Journal(ground.journals, run);
const witness = new Witness(ground, run);
let edits = 0;

async function main() {
  process.once('disconnect', orphaned);
  while (Date.now() < until) {
    const files = pick(ground.targets);
    const locks = await take(files);
    if (!locks) break;
    tell('in', { files });
    for (const file of files) await edit(file);
    await giveBack(locks);
    tell('out', { edits: files.length });
  }
  if (locking) await manager.cleanup(storyId);
  await manager.close();
  process.off('disconnect', orphaned);
  process.disconnect();
}

function orphaned() {
  process.exit(1);
}

async function take(files) {
  if (!locking) return { locks: [] };
  while (Date.now() < until) {
    try {
      const paths = files.map((file) => path.join(ground.tree, file));
      const locks = await manager.acquireAll(paths, storyId, { reason: `edit ${edits + 1}` });
      for (const { reclaimed } of locks.locks) {
        if (reclaimed) journal.note('reclaimed', { from: reclaimed.storyId, how: reclaimed.how });
      }
      return locks;
    } catch (error) {
      if (error.code !== 'ELOCKED') throw error;
      journal.note('refused', { by: error.holder?.storyId });
      tell('refused', { message: error.message, by: error.holder?.storyId });
      await sleep(between(RETRY_MS));
    }
  }
  return null;
}

async function edit(file) {
  const other = witness.enter(file);
  if (other) journal.note('double', { file, other });
  const id = `${run}#${++edits}`;
  const place = path.join(ground.tree, file);
  const before = fs.readFileSync(place, 'utf8');
  await sleep(between(THINKING_MS));
  journal.note('intent', { id, file });
  replace(place, insert(before, file, id), run);
  journal.note('done', { id, file });
  const joined = other ? null : witness.leave(file);
  if (joined) journal.note('double', { file, other: joined });
}

async function giveBack(locks) {
  if (!locking) return;
  const wereHeld = await locks.release();
  if (!wereHeld) journal.note('overtaken');
}

function pick(files) {
  const rest = [...files];
  const count = 1 + Math.floor(Math.random() * 3);
  return Array.from({ length: count }, () => {
    return rest.splice(Math.floor(Math.random() * rest.length), 1)[0];
  });
}

function between([least, most]) {
  return least + Math.random() * (most - least);
}

/** For the board only: what is counted in the end comes from the journals and the files. */
function tell(kind, fields) {
  process.send({ kind, ...fields });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
