'use strict';

/**
 * What is held and waited for, as `status()` and `forceRelease()` tell it: always every property.
 */

const { holderOf } = require('./errors.js');

/** The engine's answer as `status()` gives it. */
function statusOf({ locks, waiting, unreadable, lockDirectory, error }, timestamp) {
  const activeLocks = locks.map(activeLockOf);
  const status = {
    activeLocks,
    totalLocks: activeLocks.length,
    staleLocks: activeLocks.filter((lock) => lock.isStale).length,
    waiting: waiting.map(waiterOf),
    lockDirectory,
    timestamp,
    unreadable: [...unreadable],
  };
  return error === undefined ? status : { ...status, error };
}

/** The same where nothing could be looked at. */
function nothingOf(error, lockDirectory, timestamp) {
  const nothing = { locks: [], waiting: [], unreadable: [], lockDirectory, error: error.message };
  return statusOf(nothing, timestamp);
}

function activeLockOf({ holder, isStale, lockFile }) {
  const { heldFor, ...lock } = holderOf(holder);
  return { ...lock, age: heldFor, isStale, lockFile };
}

function waiterOf({ estimate, reason, ...waiter }) {
  return { ...waiter, estimate: estimate ?? null, reason: reason ?? null };
}

module.exports = { statusOf, nothingOf, waiterOf };
