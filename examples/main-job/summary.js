'use strict';

/** Both runs side by side on one screen, and which of their checks failed. */

const ROWS = [
  ['story processes', ({ stories, starts }) => `${stories} (${starts} starts)`],
  ['killed with SIGKILL', ({ kills }) => kills],
  ['edits made', ({ made }) => made],
  ['edits found in the files', ({ kept }) => kept],
  ['edits lost', ({ lost }) => lost],
  ['edits cut short by a kill', ({ cutShort }) => cutShort],
  ['files damaged otherwise', ({ damaged, strange }) => damaged + strange],
  ['two stories on one file', ({ double }) => double],
  ['refused, tried again', ({ locking, refused }) => (locking ? refused : '-')],
  ['taken over from the killed', ({ locking, reclaimed }) => (locking ? reclaimed : '-')],
  ['locks left', ({ locking, locksLeft }) => (locking ? locksLeft : '-')],
];

/** What must be 0 with locks on. */
const ZERO = {
  lost: 'edits lost',
  double: 'times two stories on one file',
  damaged: 'files damaged',
  strange: 'lines that no story wrote once',
  overtaken: 'locks lost while held',
  locksLeft: 'locks left',
};

function summary(locked, unlocked) {
  const cells = ROWS.map(([name, of]) => [name, String(of(locked)), String(of(unlocked))]);
  const lines = [['', 'locking on', 'locking OFF'], ...cells].map(([name, on, off]) => {
    return `   ${name.padEnd(28)}${on.padStart(16)}${off.padStart(18)}`;
  });
  return { text: lines.join('\n'), failures: failures(locked, unlocked) };
}

function failures(locked, unlocked) {
  const wrong = Object.entries(ZERO).filter(([count]) => locked[count] !== 0);
  return [
    ...wrong.map(([count, name]) => `with locking on: ${locked[count]} ${name}`),
    ...(locked.made === 0 ? ['with locking on: no edit was made'] : []),
    ...(locked.kills === 0 ? ['with locking on: no story was killed'] : []),
    ...(unlocked.lost === 0 ? ['with locking off: no edit was lost, which proves nothing'] : []),
    ...locked.failures,
    ...unlocked.failures,
  ];
}

module.exports = { summary };
