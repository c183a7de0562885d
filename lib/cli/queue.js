'use strict';

/**
 * Who waits for whom: what `status()` tells of those in line, joined with who holds what they want.
 *
 * Promises: a path is the same path however it is spelled, since it is the engine that says who
 * holds it; what cannot be looked at counts as held by nobody that is known, and fails nothing.
 * The two may be of two moments.
 */

const os = require('node:os');
const path = require('node:path');

/** Each of these waiters with its `holder`; each path is asked about once. */
async function withHolders(manager, waiters) {
  const holders = new Map();
  for (const { filePath } of waiters) {
    if (holders.has(filePath)) continue;
    holders.set(filePath, await manager.check(filePath).catch(() => null));
  }
  return waiters.map((waiter) => ({ ...waiter, holder: holders.get(waiter.filePath) }));
}

/**
 * What keeps this process from its turn for the story: its place in one of the lines that it stands
 * in, with `ahead`, the story to wait for there, if one is known. `null` when it is in no line.
 */
async function hurdleOf(manager, storyId) {
  const { waiting } = await manager.status();
  const isOwn = ({ pid, host }) => pid === process.pid && host === os.hostname();
  const own = waiting.filter((waiter) => waiter.storyId === storyId && isOwn(waiter));
  // A set waits for several paths; the first one in the way is told.
  for (const place of own) {
    const [{ holder }] = await withHolders(manager, [place]);
    if (holder && holder.storyId !== storyId) return { ...place, holder, ahead: holder.storyId };
  }
  for (const place of own) {
    const inFront = waiting.findLast(
      (other) =>
        other.filePath === place.filePath &&
        other.place < place.place &&
        other.storyId !== storyId,
    );
    if (inFront) return { ...place, holder: null, ahead: inFront.storyId };
  }
  return own.length === 0 ? null : { ...own[0], holder: null, ahead: null };
}

/** How many wait for the path, of which this is the holder. */
async function queueLength(manager, filePath, holder) {
  const absolute = path.resolve(filePath);
  const { waiting } = await manager.status();
  const waiters = await withHolders(manager, waiting);
  const isSame = (waiter) =>
    waiter.filePath === absolute || (holder !== null && waiter.holder?.lockId === holder.lockId);
  return waiters.filter(isSame).length;
}

module.exports = { withHolders, hurdleOf, queueLength };
