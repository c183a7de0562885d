'use strict';

/**
 * Shows a run while it goes on: who holds what, and who was refused.
 *
 * On a terminal a board of a line a story that is drawn again in place, elsewhere a line every half
 * second. It only looks, and counts nothing that the verdict needs.
 */

const path = require('node:path');

const TERMINAL_MS = 150;
const PLAIN_MS = 500;

class Board {
  #crew;
  #terminal = process.stdout.isTTY;
  #drawn = 0;
  #showing = null;
  #timer;

  constructor(crew) {
    this.#crew = crew;
  }

  start() {
    const show = () => (this.#showing ??= this.#show().finally(() => (this.#showing = null)));
    this.#timer = setInterval(show, this.#terminal ? TERMINAL_MS : PLAIN_MS);
  }

  async stop() {
    clearInterval(this.#timer);
    await this.#showing;
    if (this.#terminal) await this.#show();
  }

  async #show() {
    const holders = await this.#crew.holders();
    const seconds = ((Date.now() - this.#crew.began) / 1000).toFixed(1).padStart(4);
    if (this.#terminal) this.#draw(board(this.#crew, holders, seconds));
    else console.log(line(this.#crew, holders, seconds));
  }

  #draw(lines) {
    const width = process.stdout.columns || 80;
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : '';
    const text = lines.map((each) => `\x1b[2K${each.slice(0, width - 1)}\n`).join('');
    process.stdout.write(up + text);
    this.#drawn = lines.length;
  }
}

function board(crew, holders, seconds) {
  const rows = crew.members.map((member) => {
    const { storyId, edits, refused, runs } = member;
    const killed = runs > 1 ? `, killed ${runs - 1}×` : '';
    const counts = `${edits} edits, refused ${refused}×${killed}`;
    return `   ${storyId}  ${counts.padEnd(38)} ${state(crew, member, holders.get(storyId))}`;
  });
  return [...rows, `   ${seconds} s  ${latestRefusal(crew.members)}`];
}

function state({ locking }, member, files = []) {
  if (files.length > 0) return `${locking ? 'holds' : 'edits'} ${files.join(', ')}`;
  if (member.killed) return 'killed, starts again';
  return member.refusedBy ? `refused: ${member.refusedBy} has it` : '';
}

function latestRefusal(members) {
  const latest = members.reduce((a, b) => ((b.refusedAt ?? 0) > (a.refusedAt ?? 0) ? b : a));
  return latest.lastRefusal ?? '';
}

function line({ locking, members }, holders, seconds) {
  const held = [...holders].filter(([, files]) => files.length > 0).sort().map(([story, files]) => {
    return `${story} ${files.map((file) => path.basename(file)).join(' ')}`;
  });
  const sum = (count) => members.reduce((total, member) => total + count(member), 0);
  return [
    `  ${seconds} s  ${sum(({ edits }) => edits)} edits`,
    `${sum(({ runs }) => Math.max(runs - 1, 0))} killed`,
    `${locking ? 'held' : 'edited'}: ${held.join(', ') || 'nothing'}`,
    ...(locking ? [`refused: ${refusals(members).join(', ') || 'nobody'}`] : []),
  ].join(' | ');
}

function refusals(members) {
  const refused = new Map();
  for (const { storyId, refusedBy } of members) {
    if (refusedBy) refused.set(refusedBy, [...(refused.get(refusedBy) ?? []), storyId]);
  }
  return [...refused].map(([holder, stories]) => `${stories.join(' ')} by ${holder}`);
}

module.exports = { Board };
