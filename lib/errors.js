'use strict';

/**
 * Errors, written for the one who must act.
 *
 * The engine answers with failures as plain data; they become errors here, where the caller
 * awaits, so that stack traces lead to the caller. `code` tells what happened and never changes
 * between versions; `message` names the path, who is in the way, and what to do next; the
 * properties say the same as data.
 */

const { inspect } = require('node:util');

/** A refusal, a loss, or what the system said. */
class LockError extends Error {
  constructor(message, details) {
    super(message, details);
    assignKnown(this, details);
  }
}
Object.defineProperty(LockError.prototype, 'name', {
  value: 'LockError',
  configurable: true,
  writable: true,
});

const DETAILS = [
  'code',
  'reason',
  'path',
  'storyId',
  'holder',
  'holders',
  'forced',
  'waiters',
  'place',
  'waitedMs',
  'cycle',
  'expected',
  'actual',
  'writer',
  'hunk',
  'line',
  'hint',
];

/** What is not known is left out, so that a printed error shows facts alone. */
function assignKnown(error, details = {}) {
  for (const name of DETAILS) {
    if (details[name] !== undefined) error[name] = details[name];
  }
  return error;
}

/** The error kinds of Node.js for a caller's mistakes; everything else is a LockError. */
const MISTAKES = new Map([
  ['ERR_INVALID_ARG_TYPE', TypeError],
  ['ERR_INVALID_ARG_VALUE', TypeError],
  ['ERR_OUT_OF_RANGE', RangeError],
  ['ERR_INVALID_STATE', Error],
]);

/** The error that a failure is. */
function errorOf(failure) {
  const details = detailsOf(failure);
  const Mistake = MISTAKES.get(failure.code);
  if (Mistake) return assignKnown(new Mistake(failure.message), details);
  return new LockError(failure.message, details);
}

/** What the engine tells with every failure is kept where it means something. */
function detailsOf({ holder, holders, forced, waiters, cycle, base, ...failure }) {
  const details = { ...failure };
  if (base) {
    details.expected = base.expected ?? null;
    details.actual = base.actual ?? null;
    details.writer = base.writer ? { ...base.writer, hash: base.writer.hash ?? null } : null;
  }
  if (holder) details.holder = holderOf(holder);
  if (holders?.length > 0) details.holders = holders.map(holderOf);
  if (forced) details.forced = { ...forced };
  if (failure.code === 'ELOCKED') {
    details.reason = failure.waitedMs === undefined ? 'held' : 'wait';
  }
  if (failure.code === 'ELOCKED' || failure.code === 'EQUEUEFULL') details.waiters = waiters;
  if (cycle?.length > 0) details.cycle = cycle.map((arm) => ({ ...arm }));
  return details;
}

/**
 * Why a scope's lock was gone before its work ended, with a stack trace that leads to the scope.
 * What was lost is told already, as the signal's reason; what was given up by name meanwhile is
 * told here.
 */
function lossOf(grant) {
  const what = 'was no longer locked by';
  const how = ' when the work in its scope ended: it was released or cleaned up meanwhile.';
  return endOf(grant, what, how, LEAVE_IT);
}

/** Why a lock cannot be raised that is not current any more. */
function goneOf(grant) {
  return endOf(grant, 'is no longer locked by', ': it was given up.', ACQUIRE_IT);
}

const LEAVE_IT = 'Leave that to the scope: it gives its locks up when its work ends.';
const ACQUIRE_IT = 'Acquire it again, and read the file anew.';

function endOf({ loss, filePath, storyId }, what, how, hint) {
  if (loss) return new LockError(loss.message, { ...loss, cause: loss });
  const message = `${filePath} ${what} ${storyId}${how} ${hint}`;
  return new LockError(message, { code: 'ECOMPROMISED', path: filePath, storyId, hint });
}

/** A holder as `check()`, `error.holder` and `status()` tell it: always every property. */
function holderOf(info) {
  return {
    lockId: info.lockId,
    storyId: info.storyId,
    filePath: info.filePath,
    acquiredAt: info.acquiredAt,
    timeout: info.timeout,
    pid: info.pid,
    token: info.token,
    host: info.host,
    mode: info.mode,
    recursive: info.recursive,
    heldFor: info.heldFor,
    remaining: info.remaining ?? null,
    expiresAt: info.expiresAt ?? null,
    detached: info.detached,
    reason: info.reason ?? null,
  };
}

function invalidType(name, expected, actual) {
  const message = `The argument '${name}' must be ${expected}. Received ${shown(actual)}`;
  return errorOf({ code: 'ERR_INVALID_ARG_TYPE', message });
}

function invalidValue(name, rule) {
  return errorOf({ code: 'ERR_INVALID_ARG_VALUE', message: `The argument '${name}' ${rule}` });
}

function outOfRange(name, rule, actual) {
  const message = `The value of '${name}' is out of range. It ${rule}. Received ${shown(actual)}`;
  return errorOf({ code: 'ERR_OUT_OF_RANGE', message });
}

function shown(value) {
  const text = inspect(value, { depth: 0, breakLength: Infinity, customInspect: false });
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** Tells of an error that nobody can be given: it must not become an uncaught exception. */
function warn(what, error) {
  process.emitWarning(`${what}: ${error instanceof Error ? error.message : shown(error)}`, {
    type: 'StorylockWarning',
    detail: error instanceof Error ? error.stack : undefined,
  });
}

module.exports = {
  LockError,
  errorOf,
  lossOf,
  goneOf,
  holderOf,
  invalidType,
  invalidValue,
  outOfRange,
  warn,
};
