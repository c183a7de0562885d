'use strict';

/**
 * How the command line says things to people: durations, paths, holders.
 *
 * Promise: whatever a path or a story id holds, what is said is one line and moves no cursor.
 */

const os = require('node:os');
const path = require('node:path');

const { isName } = require('../paths.js');

const UNITS = [
  { name: 'ms', length: 1, below: 1_000 },
  { name: 's', length: 1_000, below: 120_000 },
  { name: 'min', length: 60_000, below: 7_200_000 },
  { name: 'h', length: 3_600_000, below: 172_800_000 },
  { name: 'd', length: 86_400_000, below: Infinity },
];

/** Milliseconds as a person says them: `850 ms`, `12 s`, `4 min`, `3 h`, `2 d`. */
function spoken(ms) {
  const unit = UNITS.find(({ below }) => ms < below);
  return `${Math.round(ms / unit.length)} ${unit.name}`;
}

/** Text for a terminal: control and direction characters are shown, not obeyed. */
function plain(text) {
  return text.replace(
    /[\p{Cc}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu,
    (character) => `\\u{${character.codePointAt(0).toString(16)}}`,
  );
}

/** A path as people of this project say it: relative to its root where it lies within. */
function pathFrom(root, filePath) {
  if (isName(filePath)) return filePath;
  const relative = path.relative(root, filePath);
  const isWithin = relative !== '' && !relative.startsWith('..') && !path.isAbsolute(relative);
  return isWithin ? relative : filePath;
}

/** What is locked: `src/app.js`, `src/app.js, shared`, `src/ and all below`. */
function thingFrom(root, { filePath, mode, recursive }) {
  const named = pathFrom(root, filePath);
  const thing = recursive ? `${named.replace(/\/$/, '')}/ and all below` : named;
  return mode === 'shared' ? `${thing}, shared` : thing;
}

/** `pid 4711 on this host`; a lock of the command line has no process behind it. */
function placeOf({ pid, host, detached }) {
  if (detached) return 'taken on the command line';
  if (!host) return `pid ${pid}`;
  return host === os.hostname() ? `pid ${pid} on this host` : `pid ${pid} on ${host}`;
}

/** How long until this wall time, in ms; null, a lease bound to a process, stays null. */
function msUntil(expiresAt) {
  return expiresAt === null ? null : Math.max(0, expiresAt - Date.now());
}

/** `the lease ends in 30 s`; null stands for a lease bound to a process. */
function endIn(ms) {
  if (ms === null) return 'until it is released or its process ends';
  return `the lease ends in ${spoken(ms)}`;
}

/**
 * `waiting 12 s of 60 s for AH-007 (place 2, lease ends in 18 s): src/app.js`: what is most to the
 * point comes first, as a narrow terminal cuts the rest off. `hurdle` is null if it is not known.
 */
function waitSaid(hurdle, { root, waited, wait, age }) {
  const begun = spoken(waited);
  const soFar = `waiting ${wait === Infinity ? begun : `${begun} of ${spoken(wait)}`}`;
  if (hurdle === null) return soFar;
  const { ahead, holder, place, paths } = hurdle;
  const facts = [`place ${place}`];
  if (holder) {
    const left = holder.remaining === null ? null : Math.max(0, holder.remaining - age);
    facts.push(left === null ? `held by ${placeOf(holder)}` : `lease ends in ${spoken(left)}`);
  }
  const whom = ahead === null ? '' : ` for ${ahead}`;
  const which = paths === 1 ? '' : `, one of ${paths} paths`;
  return plain(`${soFar}${whom} (${facts.join(', ')}): ${thingFrom(root, hurdle)}${which}`);
}

module.exports = { spoken, plain, pathFrom, thingFrom, placeOf, msUntil, endIn, waitSaid };
