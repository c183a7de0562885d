'use strict';

/**
 * What callers may pass, as far as JavaScript can tell: types, option names, the range of a
 * timeout.
 *
 * Every check throws before anything is touched, with the codes of Node.js. What a path or a
 * story id may say (length, NUL, control characters) is the engine's rule, and is checked there.
 */

const { invalidType, invalidValue, outOfRange } = require('./errors.js');

/** What can happen, as the engine tells it. */
const EVENT_TYPES = [
  'acquired',
  'refused',
  'queued',
  'granted',
  'left',
  'renewed',
  'raised',
  'lowered',
  'released',
  'cleaned',
  'expired',
  'reclaimed',
  'lost',
  'forced',
  'transferred',
  'patched',
];

/** The most that can be asked to wait for one path. */
const MAX_QUEUE = 100_000;

/** Text that survives the way into the engine: a lone surrogate would arrive as another text. */
function checkText(value, name) {
  if (typeof value !== 'string') throw invalidType(name, 'a string', value);
  if (!value.isWellFormed()) {
    throw invalidValue(name, 'must be well-formed Unicode: it has half of a surrogate pair.');
  }
}

const ENTRY = 'a string or an object with a path';

/** A path, or an object with a path and what kind of lock it is to have. */
function entryOf(entry, name) {
  if (typeof entry === 'string') {
    checkText(entry, name);
    return entry;
  }
  if (typeof entry?.path !== 'string') throw invalidType(name, ENTRY, entry);
  return optionsOf(entry, OF_ENTRY, name);
}

function setOf(paths) {
  if (!Array.isArray(paths)) throw invalidType('paths', 'an array', paths);
  return Array.from(paths, (entry, i) => entryOf(entry, `paths[${i}]`));
}

/** One path, or an array of them: always an array. */
function oneOrSetOf(path) {
  if (Array.isArray(path)) return setOf(path);
  if (typeof path !== 'string' && typeof path?.path !== 'string') {
    throw invalidType('path', `${ENTRY}, or an array of these`, path);
  }
  return [entryOf(path, 'path')];
}

function checkTimeout(value, name = 'timeout') {
  if (typeof value !== 'number') throw invalidType(name, 'a number of milliseconds', value);
  if (value !== Infinity && !(Number.isSafeInteger(value) && value > 0)) {
    const rule = 'must be a whole number of milliseconds from 1 to 2^53 - 1, or Infinity';
    throw outOfRange(name, rule, value);
  }
}

/** How long to wait for a turn: 0 is to try once. */
function checkWait(value, name) {
  if (typeof value !== 'number') throw invalidType(name, 'a number of milliseconds', value);
  if (value !== Infinity && !(Number.isSafeInteger(value) && value >= 0)) {
    const rule = 'must be a whole number of milliseconds from 0 to 2^53 - 1, or Infinity';
    throw outOfRange(name, rule, value);
  }
}

function checkSignal(value, name) {
  if (!(typeof value?.aborted === 'boolean' && typeof value.addEventListener === 'function')) {
    throw invalidType(name, 'an AbortSignal', value);
  }
}

function checkQueueLimit(value, name) {
  if (typeof value !== 'number') throw invalidType(name, 'a number', value);
  if (!(Number.isInteger(value) && value >= 1 && value <= MAX_QUEUE)) {
    throw outOfRange(name, `must be a whole number from 1 to ${MAX_QUEUE}`, value);
  }
}

/** What a file must be: the hash of its content, or `null` for no file. */
function checkHash(value, name) {
  if (value === null) return;
  if (typeof value !== 'string') throw invalidType(name, 'a string or null', value);
  if (!/^[0-9a-f]{64}$/.test(value)) {
    throw invalidValue(name, 'must be a SHA-256 in 64 lower-case hex digits.');
  }
}

/** A lock, or a set of them, by what it can do: classes differ between copies of the package. */
function checkLock(value, name) {
  if (typeof value?.verify !== 'function') throw invalidType(name, 'a Lock or a LockSet', value);
}

function checkMode(value, name) {
  if (typeof value !== 'string') throw invalidType(name, "'exclusive' or 'shared'", value);
  if (value !== 'exclusive' && value !== 'shared') {
    throw invalidValue(name, "must be 'exclusive' or 'shared'.");
  }
}

function checkFlag(value, name) {
  if (typeof value !== 'boolean') throw invalidType(name, 'a boolean', value);
}

/** How much history is kept: `false` for none. */
function checkHistory(value, name) {
  if (value === false) return;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidType(name, 'false or an object', value);
  }
  optionsOf(value, OF_HISTORY, name);
}

function checkWhole(least, most) {
  return (value, name) => {
    if (typeof value !== 'number') throw invalidType(name, 'a number', value);
    if (!(Number.isInteger(value) && value >= least && value <= most)) {
      throw outOfRange(name, `must be a whole number from ${least} to ${most}`, value);
    }
  };
}

/** A moment: ms since 1970, or a Date. */
function checkMoment(value, name) {
  const ms = value instanceof Date ? value.getTime() : value;
  if (typeof ms !== 'number' || Number.isNaN(ms)) {
    throw invalidType(name, 'a Date or a number of ms since 1970', value);
  }
}

function checkTypes(value, name) {
  if (!Array.isArray(value)) throw invalidType(name, 'an array of event types', value);
  const odd = value.find((type) => !EVENT_TYPES.includes(type));
  if (odd !== undefined) throw invalidValue(name, `must be of: ${EVENT_TYPES.join(', ')}.`);
}

/** A folder that need not exist yet. */
function checkRoot(value, name) {
  checkText(value, name);
  if (value === '' || value.includes('\0')) {
    throw invalidValue(name, 'must name a folder: it must not be empty or contain NUL.');
  }
}

function checkBody(fn) {
  if (typeof fn !== 'function') throw invalidType('fn', 'a function', fn);
}

/** The options that each call takes, with the check of each. */
const OF_MANAGER = {
  root: checkRoot,
  timeout: checkTimeout,
  queueLimit: checkQueueLimit,
  history: checkHistory,
};
const OF_HISTORY = { maxBytes: checkWhole(4096, 2 ** 40), keep: checkWhole(0, 100) };
const OF_EVENTS = { storyId: checkText, path: checkText, types: checkTypes };
const OF_PAST = {
  ...OF_EVENTS,
  since: checkMoment,
  until: checkMoment,
  limit: checkWhole(0, 1_000_000),
};
const OF_WATCH = { ...OF_EVENTS, since: checkWhole(0, 2 ** 53 - 1), signal: checkSignal };
const OF_TURN = { wait: checkWait, signal: checkSignal };
const OF_KIND = { mode: checkMode, recursive: checkFlag };
const OF_ENTRY = { path: checkText, ...OF_KIND };
const OF_ASK = { ...OF_TURN, reason: checkText };
const OF_SCOPE = { ...OF_ASK, ...OF_KIND, glob: checkFlag };
const OF_DIFF = { ...OF_ASK, lock: checkLock, durable: checkFlag, check: checkFlag };
const OF_PATCH = {
  ...OF_ASK,
  lock: checkLock,
  expect: checkHash,
  parents: checkFlag,
  durable: checkFlag,
};
const OF_ACQUIRE = { timeout: checkTimeout, ...OF_ASK, detached: checkFlag, ...OF_KIND };
const OF_SET = { ...OF_ACQUIRE, glob: checkFlag };
const OF_TRANSFER = { storyId: checkText };
const OF_ADOPT = { timeout: checkTimeout };
const OF_FORCE = { by: checkText, reason: checkText, storyId: checkText, dryRun: checkFlag };

/** The options given, checked; those that are undefined are left out. */
function optionsOf(given, checks, what = 'options') {
  if (given === undefined) return {};
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw invalidType(what, 'an object', given);
  }
  const options = {};
  for (const [name, value] of Object.entries(given)) {
    if (!Object.hasOwn(checks, name)) {
      const known = Object.keys(checks).join(', ');
      throw invalidValue(`${what}.${name}`, `is not an option here. Known: ${known}.`);
    }
    if (value === undefined) continue;
    checks[name](value, `${what}.${name}`);
    options[name] = value;
  }
  return options;
}

/** The same where some of the options must be given. */
function neededOf(given, checks, needed) {
  const options = optionsOf(given, checks);
  for (const name of needed) checks[name](options[name], `options.${name}`);
  return options;
}

/** The last argument of `acquire` and the like: a timeout, or options. */
function leaseOf(given, checks = OF_ACQUIRE) {
  if (typeof given === 'number') {
    checkTimeout(given);
    return { timeout: given };
  }
  if (given !== undefined && (typeof given !== 'object' || given === null)) {
    throw invalidType('timeout', 'a number of milliseconds or an object of options', given);
  }
  return optionsOf(given, checks);
}

/** The last arguments of a scope, `[options], fn`. */
function scopeOf(options, fn) {
  if (typeof options === 'function' && fn === undefined) return { options: {}, fn: options };
  checkBody(fn);
  return { options: optionsOf(options, OF_SCOPE), fn };
}

module.exports = {
  OF_ADOPT,
  OF_PAST,
  OF_WATCH,
  OF_DIFF,
  OF_FORCE,
  OF_MANAGER,
  OF_PATCH,
  OF_SET,
  OF_TRANSFER,
  OF_TURN,
  checkText,
  checkTimeout,
  setOf,
  oneOrSetOf,
  optionsOf,
  neededOf,
  leaseOf,
  scopeOf,
};
