'use strict';

/**
 * `status` for a person: who holds what, since when and until when.
 *
 * Promise: nothing is cut off; where the terminal is too narrow for it, paths go over several
 * lines.
 */

const Table = require('cli-table3');

const { msUntil, pathFrom, placeOf, plain, spoken } = require('./words.js');

const HEAD = ['PATH', 'STORY', 'HOLDER', 'HELD FOR', 'LEASE LEFT', 'STATE'];
const GAP = '   ';
/** A path is not broken into pieces shorter than this. */
const LEAST_PATH_WIDTH = 24;

/** A table without lines, that a person reads and `awk` can. */
const BARE = {
  chars: {
    'top': '', 'top-mid': '', 'top-left': '', 'top-right': '',
    'bottom': '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '',
    'left': '', 'left-mid': '', 'mid': '', 'mid-mid': '',
    'right': '', 'right-mid': '', 'middle': GAP,
  },
  style: { 'head': [], 'border': [], 'padding-left': 0, 'padding-right': 0 },
};

function rowOf(lock, root) {
  const left = lock.isStale ? 0 : msUntil(lock.expiresAt);
  return [
    plain(pathFrom(root, lock.filePath)),
    plain(lock.storyId),
    plain(placeOf(lock)),
    spoken(lock.age),
    left === null ? 'while held' : spoken(left),
    lock.isStale ? 'stale: free to take' : 'held',
  ];
}

/**
 * The width of the path column that lets all the others keep theirs; null when all fits as it is.
 */
function pathWidth(rows, width) {
  const widest = (column) => Math.max(...rows.map((row) => row[column].length));
  const others = HEAD.slice(1).reduce((sum, _, i) => sum + GAP.length + widest(i + 1), 0);
  const left = width - others;
  return widest(0) <= left ? null : Math.max(left, LEAST_PATH_WIDTH);
}

function tableOf(locks, root, width) {
  const rows = [HEAD, ...locks.map((lock) => rowOf(lock, root))];
  const narrowed = pathWidth(rows, width);
  const fitted = narrowed === null ? {} : { colWidths: [narrowed], wordWrap: true };
  const table = new Table({ ...BARE, ...fitted, wrapOnWordBoundary: false });
  table.push(...rows);
  return table.toString().replace(/ +$/gm, '');
}

/** The answer of `status()` as a table with a line of totals, and what could not be read. */
function statusTable({ activeLocks, totalLocks, staleLocks, unreadable }, root, width) {
  const stale = staleLocks === 0 ? '' : `, ${staleLocks} of them stale`;
  const count = totalLocks === 0 ? 'No' : totalLocks;
  const total = `${count} ${totalLocks === 1 ? 'lock' : 'locks'} in ${plain(root)}${stale}.`;
  const odd = unreadable.map((what) => `Not readable, and so held: ${plain(what)}`);
  const table = totalLocks === 0 ? [] : [tableOf(activeLocks, root, width), ''];
  return [...table, total, ...odd].join('\n');
}

module.exports = { statusTable };
