'use strict';

/**
 * The stories of a run: starts their processes, kills some of them with SIGKILL, starts those again
 * as the same story, and waits for all of them to end by themselves.
 *
 * `members` says what each story is known to do just now; it is for looking at, not for counting.
 */

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { LockManager } = require('storylock');
const { noteKill } = require('./marker.js');

const STORY = path.join(__dirname, 'story.js');
const KILL_EVERY_MS = 300;
/** How long after its time a story may still need before it is called stuck. */
const OVERTIME_MS = 10_000;

class Crew {
  #ground;
  #until;
  #manager;
  #failures = [];
  #kills = 0;

  constructor({ ground, stories, locking, until }) {
    this.#ground = ground;
    this.#until = until;
    this.#manager = new LockManager({ root: ground.tree });
    this.locking = locking;
    this.began = Date.now();
    this.members = Array.from({ length: stories }, (_, i) => ({
      storyId: `AH-${String(i + 1).padStart(3, '0')}`,
      runs: 0,
      files: [],
      edits: 0,
      refused: 0,
    }));
  }

  /** Resolves when every story has ended. */
  async work() {
    const killing = this.#killSome();
    await Promise.all(this.members.map((member) => this.#play(member)));
    await killing;
  }

  /** Who holds what: with locks what their own status says, without them who is at work on what. */
  async holders() {
    if (!this.locking) return new Map(this.members.map(({ storyId, files }) => [storyId, files]));
    const { activeLocks } = await this.#manager.status();
    const held = new Map();
    for (const { storyId, filePath } of activeLocks) {
      const file = path.relative(this.#ground.tree, filePath);
      held.set(storyId, [...(held.get(storyId) ?? []), file]);
    }
    return held;
  }

  /** What is left of the locks when all stories have ended: in the status, and as files. */
  async remains() {
    const { activeLocks, lockDirectory, error } = await this.#manager.status();
    await this.#manager.close();
    if (error) this.#failures.push(`status could not look: ${error}`);
    const names = fs.existsSync(lockDirectory) ? fs.readdirSync(lockDirectory) : [];
    const files = names.filter((name) => name.endsWith('.lock'));
    return { locksLeft: Math.max(activeLocks.length, files.length) };
  }

  tally() {
    const starts = this.members.reduce((sum, { runs }) => sum + runs, 0);
    return { stories: this.members.length, starts, kills: this.#kills, failures: this.#failures };
  }

  /** Plays a story to its end. A killed one comes back even when time is up, to clean up. */
  async #play(member) {
    for (;;) {
      const { code, signal, stderr } = await this.#start(member);
      if (member.killed && signal === 'SIGKILL') continue;
      if (code !== 0) this.#failures.push(`${member.run} failed: ${stderr || signal || code}`);
      return;
    }
  }

  async #start(member) {
    member.run = `${member.storyId}.${++member.runs}`;
    member.killed = false;
    const { storyId, run } = member;
    const { originals, ...ground } = this.#ground;
    const task = { storyId, run, ground, locking: this.locking, until: this.#until };
    const child = spawn(process.execPath, [STORY, JSON.stringify(task)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    member.child = child;
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.on('message', (message) => hear(member, message));
    const stuck = setTimeout(() => {
      stderr += `still running ${OVERTIME_MS / 1000} s after its time`;
      child.kill('SIGKILL');
    }, this.#until + OVERTIME_MS - Date.now());
    const [code, signal] = await once(child, 'close');
    clearTimeout(stuck);
    member.files = [];
    return { code, signal, stderr: stderr.trim() };
  }

  async #killSome() {
    while (Date.now() + KILL_EVERY_MS < this.#until) {
      await sleep(KILL_EVERY_MS);
      this.#kill();
    }
  }

  /** Kills a story in the middle of its work; one that does nothing only if there is no other. */
  #kill() {
    const alive = this.members.filter(({ child, killed }) => child?.connected && !killed);
    const busy = alive.filter(({ files }) => files.length > 0);
    const candidates = busy.length > 0 ? busy : alive;
    const victim = candidates[Math.floor(Math.random() * candidates.length)];
    if (!victim) return;
    noteKill(this.#ground.kills, victim.run);
    victim.killed = victim.child.kill('SIGKILL');
    if (victim.killed) this.#kills += 1;
  }
}

function hear(member, message) {
  if (message.kind === 'in') Object.assign(member, { files: message.files, refusedBy: null });
  if (message.kind === 'out') {
    member.files = [];
    member.edits += message.edits;
  }
  if (message.kind === 'refused') {
    member.refused += 1;
    member.refusedAt = Date.now();
    member.refusedBy = message.by;
    member.lastRefusal = message.message;
  }
}

module.exports = { Crew };
