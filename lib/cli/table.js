'use strict';

/**
 * `status` for a person: who holds what and how, since when and until when, and who waits for it.
 *
 * Promise: nothing is cut off; where the terminal is too narrow for it, paths go over several
 * lines.
 */

const Table = require('cli-table3');

const { folded, widthOf } = require('./terminal.js');
const { placeOf, plain, spoken, thingFrom } = require('./words.js');

const HELD = ['PATH', 'STORY', 'HOLDER', 'HELD FOR', 'LEASE LEFT', 'STATE'];
const WAITING = ['PATH', 'PLACE', 'STORY', 'WAITER', 'WAITED', 'HELD BY', 'LEASE LEFT'];
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

function heldRow(lock, root) {
  return [
    plain(thingFrom(root, lock)),
    plain(lock.storyId),
    plain(placeOf(lock)),
    spoken(lock.age),
    leftOf(lock),
    lock.isStale ? 'stale: free to take' : 'held',
  ];
}

/** A waiter with a holder in its way; there is none where others in line are. */
function waitingRow({ holder, ...waiter }, root) {
  return [
    plain(thingFrom(root, waiter)),
    String(waiter.place),
    plain(waiter.storyId),
    plain(placeOf(waiter)),
    spoken(waiter.waited),
    holder ? plain(holder.storyId) : '-',
    holder ? leftOf(holder) : '-',
  ];
}

function leftOf({ isStale = false, remaining }) {
  if (isStale) return spoken(0);
  return remaining === null ? 'while held' : spoken(remaining);
}

/**
 * The width of the path column that lets all the others keep theirs; null when all fits as it is.
 */
function pathWidth(rows, width) {
  const widest = (column) => rows.reduce((most, row) => Math.max(most, widthOf(row[column])), 0);
  const others = rows[0].slice(1).reduce((sum, _, i) => sum + GAP.length + widest(i + 1), 0);
  const left = width - others;
  return widest(0) <= left ? null : Math.max(left, LEAST_PATH_WIDTH);
}

function tableOf(rows, width) {
  const narrowed = pathWidth(rows, width);
  const fit = ([path, ...rest]) =>
    narrowed === null ? [path, ...rest] : [folded(path, narrowed).join('\n'), ...rest];
  const table = new Table(BARE);
  table.push(...rows.map(fit));
  return table.toString().replace(/ +$/gm, '');
}

/**
 * The answer of `status()`, each of its waiters with its `holder`, as tables with a line of totals,
 * and what could not be read.
 */
function statusTable(status, root, width) {
  const { activeLocks, totalLocks, staleLocks, waiting, unreadable } = status;
  const held = activeLocks.map((lock) => heldRow(lock, root));
  const inLine = waiting.map((waiter) => waitingRow(waiter, root));
  const tables = [[HELD, ...held], [WAITING, ...inLine]].filter((rows) => rows.length > 1);

  const count = totalLocks === 0 ? 'No' : totalLocks;
  const stale = staleLocks === 0 ? '' : `, ${staleLocks} of them stale`;
  const line = inLine.length === 0 ? '' : ` ${inLine.length} in line.`;
  const total = `${count} ${totalLocks === 1 ? 'lock' : 'locks'} in ${plain(root)}${stale}.${line}`;
  const odd = unreadable.map((what) => `Not readable, and so held: ${plain(what)}`);
  return [...tables.flatMap((rows) => [tableOf(rows, width), '']), total, ...odd].join('\n');
}

module.exports = { statusTable };
