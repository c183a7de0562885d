'use strict';

/**
 * Who waits for whom: what `status()` tells of those in line, joined with who holds what they want.
 *
 * Promises: a path is the same path however it is spelled, since it is the engine that says who
 * holds it; what cannot be looked at counts as held by nobody that is known, and fails nothing.
 * Who holds a path below a folder that is waited for is told by the spelling. The two may be of two
 * moments.
 */

const os = require('node:os');
const path = require('node:path');

const { absolute } = require('../paths.js');

/** Each of these waiters with a `holder` in its way, if one is known. Asks once about each path. */
async function withHolders(manager, waiters, activeLocks) {
  const holders = new Map();
  for (const { filePath } of waiters) {
    if (!holders.has(filePath)) holders.set(filePath, await holdersOf(manager, filePath));
  }
  return waiters.map((waiter) => {
    const isHeldBelow = (lock) => !lock.isStale && isBelow(waiter.filePath, lock);
    const below = waiter.recursive ? activeLocks.filter(isHeldBelow) : [];
    const all = [...holders.get(waiter.filePath), ...below];
    return { ...waiter, holder: all.find((holder) => isInTheWay(waiter, holder)) ?? null };
  });
}

/** All who hold the path. */
async function holdersOf(manager, filePath) {
  const holder = await manager.check(filePath).catch(() => null);
  return holder === null ? [] : [holder, ...holder.others];
}

function isInTheWay(waiter, holder) {
  const areReaders = waiter.mode === 'shared' && holder.mode === 'shared';
  return holder.storyId !== waiter.storyId && !areReaders;
}

function isBelow(folder, { filePath }) {
  return filePath.startsWith(`${folder}${path.sep}`);
}

/**
 * What keeps this process from its turn for the story: its place in one of the lines that it stands
 * in, with `ahead`, the story to wait for there, if one is known. `null` when it is in no line.
 */
async function hurdleOf(manager, storyId) {
  const { waiting, activeLocks } = await manager.status();
  const isOwn = ({ pid, host }) => pid === process.pid && host === os.hostname();
  const own = waiting.filter((waiter) => waiter.storyId === storyId && isOwn(waiter));
  // A set waits for several paths; the first one in the way is told.
  for (const place of own) {
    const [{ holder }] = await withHolders(manager, [place], activeLocks);
    if (holder) return { ...place, holder, ahead: holder.storyId };
  }
  for (const place of own) {
    const inFront = waiting.findLast(
      (other) =>
        other.filePath === place.filePath &&
        other.place < place.place &&
        isInTheWay(place, other),
    );
    if (inFront) return { ...place, holder: null, ahead: inFront.storyId };
  }
  return own.length === 0 ? null : { ...own[0], holder: null, ahead: null };
}

/** How many wait for the path, of which this is the holder. */
async function queueLength(manager, filePath, holder) {
  const named = absolute(filePath);
  const { waiting, activeLocks } = await manager.status();
  const waiters = await withHolders(manager, waiting, activeLocks);
  const locks = holder === null ? [] : [holder, ...holder.others].map(({ lockId }) => lockId);
  // Of those who wait for something else in a folder that is held, none waits for this path.
  const isMeant = (waiter) => !holder.recursive || isBelow(named, waiter);
  const isSame = (waiter) =>
    waiter.filePath === named || (locks.includes(waiter.holder?.lockId) && isMeant(waiter));
  return waiters.filter(isSame).length;
}

module.exports = { withHolders, hurdleOf, queueLength };
