'use strict';

/**
 * storylock: file locks for orchestrators of parallel coding agents.
 *
 * The map of the package's face, top down:
 *
 *   lib/manager.js    LockManager: the calls, scopes, the 'compromised' event
 *   lib/lock.js       Lock and LockSet: what a story holds
 *   lib/patch.js      hash, read, and files written under their locks
 *   lib/handover.js   the tokens by which locks go from process to process
 *   lib/client.js     the engine as the face sees it: outcomes, losses, the end of the process
 *   lib/grant.js      what all locks of one grant share
 *   lib/tickets.js    what was asked and not answered yet
 *   lib/status.js     what is held and waited for, as it is told
 *   lib/arguments.js  what callers may pass
 *   lib/kinds.js      exclusive or shared, a path or all below it
 *   lib/paths.js      paths, names of things that are no files, patterns
 *   lib/errors.js     LockError, and the errors of Node.js for a caller's mistakes
 *   native.js         the engine itself, in Rust (generated)
 *
 * Loading it starts nothing: no thread, no listener, no look at the disk before the first call.
 * Types and the documentation of every call: index.d.ts.
 */

const { LockManager } = require('./lib/manager.js');
const { Lock, LockSet } = require('./lib/lock.js');
const { LockError } = require('./lib/errors.js');
const { hash, read } = require('./lib/patch.js');

/** The manager of the project that is found from the working directory at the first call. */
const lockManager = new LockManager();

module.exports = { LockManager, lockManager, LockError, Lock, LockSet, hash, read };
