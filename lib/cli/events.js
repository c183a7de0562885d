'use strict';

/**
 * `history` and `watch`: what happened, and what happens, for people and for programs.
 *
 * Promises: on a terminal a line an event, in words; with `--json`, or where no person reads it,
 * `history` answers one list, and `watch` one event a line, each as soon as it is known. `watch`
 * ends with exit 0 when it is interrupted or its reader goes away.
 */

const { EXIT } = require('./output.js');
const { plain, spoken, thingFrom } = require('./words.js');

/** How each kind of event is said of a story. */
const SAID = {
  acquired: 'locked',
  refused: 'was refused',
  queued: 'waits for',
  granted: 'got in its turn',
  left: 'waits no more for',
  renewed: 'renewed',
  raised: 'asked for more of, and has',
  lowered: 'lowered',
  released: 'released',
  cleaned: 'released, with all it had,',
  expired: 'held to the end of its lease',
  reclaimed: 'left behind',
  lost: 'lost, with the lock folder,',
  forced: 'was made to give up',
  transferred: 'took over',
  patched: 'changed',
};

/** The rest of what is to be said of an event. */
function factsOf({ type, by, code, reason, heldFor, waitedFor, hash, recovered }) {
  const facts = [];
  if (by !== undefined) {
    const how = { refused: 'held by', reclaimed: 'taken up by', transferred: 'from' };
    facts.push(`${how[type] ?? 'by'} ${by}`);
  }
  if (code !== undefined) facts.push(code);
  if (waitedFor !== undefined) facts.push(`after waiting ${spoken(waitedFor)}`);
  if (heldFor !== undefined) facts.push(`held for ${spoken(heldFor)}`);
  if (type === 'patched') facts.push(hash === undefined ? 'removed' : hash.slice(0, 12));
  if (reason !== undefined) facts.push(`reason: ${reason}`);
  if (recovered) facts.push('told later, after a kill');
  return facts;
}

/** `14:03:07.123  AH-011 released src/app.js (held for 4 s)` */
function saidOf(event, root) {
  const time = new Date(event.time).toISOString().replace('T', ' ').replace('Z', '');
  const { storyId, type, path: filePath, mode, recursive } = event;
  const thing = thingFrom(root, { filePath, mode, recursive });
  const facts = factsOf(event);
  const rest = facts.length === 0 ? '' : ` (${facts.join(', ')})`;
  return plain(`${time}  ${storyId} ${SAID[type] ?? type} ${thing}${rest}`);
}

async function history({ manager, output }, { json, ...options }) {
  const events = await manager.history(options);
  const lines = () => events.map((event) => saidOf(event, manager.root)).join('\n');
  const nothing = `Nothing is on record in ${plain(manager.root)}.`;
  await output.answer(events, () => (events.length === 0 ? nothing : lines()), { json });
  return EXIT.DONE;
}

async function watch({ manager, output }, { json, ...options }) {
  const ending = new AbortController();
  const end = () => ending.abort();
  const signals = ['SIGINT', 'SIGTERM'];
  for (const signal of signals) process.once(signal, end);
  try {
    for await (const event of manager.watch({ ...options, signal: ending.signal })) {
      const line = output.isForPerson(json) ? saidOf(event, manager.root) : JSON.stringify(event);
      if (!(await output.text(`${line}\n`))) break;
    }
  } finally {
    for (const signal of signals) process.removeListener(signal, end);
  }
  return EXIT.DONE;
}

module.exports = { history, watch };
