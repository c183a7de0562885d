'use strict';

/**
 * What happens: the events of all processes of a project, as they come.
 *
 * Promises: every event after the beginning once, in order of `seq`, also those that came while the
 * reader was slow; the file is the only buffer, so memory stays flat. Events of the file system
 * wake it; where there are none, it looks twice a second. It ends on `return()` and on the signal, and
 * keeps the process alive only while somebody waits for the next event.
 *
 * Events that were rotated out of the last kept file before they were read are gone: the next
 * event's `seq` shows the gap.
 */

const fs = require('node:fs');
const path = require('node:path');

const { NAME, eventOf, fileOf, isWanted, opened } = require('./history.js');

/** How often it looks though nothing woke it, in ms. */
const SLOW = 500;

/** How much is read at a time, in bytes. */
const CHUNK = 64 * 1024;

/** Follows the events of a project; those alone that `filter` wants. */
function watch(root, { signal, ...options }) {
  signal?.throwIfAborted();
  const ending = new AbortController();
  const signals = signal ? [signal, ending.signal] : [ending.signal];
  const events = follow(root, { ...options, signal: AbortSignal.any(signals) });
  return {
    next: () => events.next(),
    // Whoever waits for an event meanwhile is told that there is none any more.
    return: (value) => {
      ending.abort();
      return events.return(value);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

async function* follow(root, { signal, since, ...filter }) {
  const bell = new Bell(path.dirname(fileOf(root)), signal);
  const reader = new Reader(root);
  try {
    await reader.begin(since);
    while (!signal.aborted) {
      const events = await reader.next();
      for (const event of events) {
        if (isWanted(event, filter)) yield event;
        if (signal.aborted) return;
      }
      if (events.length === 0) await bell.wait();
    }
  } finally {
    bell.close();
    await reader.close();
  }
}

/** Rings when something happens in the folder, when time is up, or when the signal comes. */
class Bell {
  #watcher = null;
  #folder;
  #signal;
  #hasRung = false;
  #ring = null;
  #wake = () => {
    this.#hasRung = true;
    this.#ring?.();
  };

  constructor(folder, signal) {
    this.#folder = folder;
    this.#signal = signal;
    signal.addEventListener('abort', this.#wake);
    this.#listen();
  }

  /** The folder may be made, or made anew, at any time. */
  #listen() {
    if (this.#watcher) return;
    try {
      this.#watcher = fs.watch(this.#folder, { persistent: false }, (_, name) => {
        if (name === null || name === NAME) this.#wake();
      });
      this.#watcher.on('error', () => this.#deaf());
    } catch {
      this.#deaf();
    }
  }

  #deaf() {
    this.#watcher?.close();
    this.#watcher = null;
  }

  async wait() {
    if (!this.#hasRung) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, SLOW);
        this.#ring = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#ring = null;
    this.#hasRung = false;
    if (!fs.existsSync(this.#folder)) this.#deaf();
    this.#listen();
  }

  close() {
    this.#deaf();
    this.#signal.removeEventListener('abort', this.#wake);
  }
}

/** Reads events in order, from file to file as they are rotated. */
class Reader {
  #root;
  #file = null;
  #inode = 0;
  #at = 0;
  #rest = Buffer.alloc(0);
  #seen = 0;

  constructor(root) {
    this.#root = root;
  }

  /** After event `since`; after the last one there is now, if that is not said. */
  async begin(since) {
    if (since !== undefined) {
      this.#seen = since;
      return;
    }
    await this.#open(0);
    if (this.#file) this.#at = (await this.#file.stat()).size;
  }

  /** The next events; none if there are none yet. */
  async next() {
    for (;;) {
      if (!this.#file && !(await this.#openNext())) return [];
      const events = await this.#read();
      if (events.length > 0) return events;
      if (!(await this.#isOver())) return [];
      // What was appended before it was rotated away is read first.
      const last = await this.#read();
      await this.close();
      if (last.length > 0) return last;
    }
  }

  async close() {
    const file = this.#file;
    this.#file = null;
    await file?.close();
  }

  async #open(number) {
    this.#file = await opened(this.#root, number);
    this.#at = 0;
    this.#rest = Buffer.alloc(0);
    this.#inode = this.#file ? (await this.#file.stat()).ino : 0;
    return this.#file !== null;
  }

  /** Opens the oldest file that has what was not seen yet; the youngest, if none has. */
  async #openNext() {
    let oldest = 0;
    while (await this.#hasUnseen(oldest + 1)) oldest += 1;
    return await this.#open(oldest);
  }

  async #hasUnseen(number) {
    const file = await opened(this.#root, number);
    if (!file) return false;
    try {
      const { size } = await file.stat();
      const tail = Buffer.alloc(Math.min(size, CHUNK));
      await file.read(tail, 0, tail.length, size - tail.length);
      const lines = tail.toString('utf8').trimEnd().split('\n');
      const last = lines.map((line) => eventOf(Buffer.from(line))).findLast(Boolean);
      return last !== undefined && last.seq > this.#seen;
    } finally {
      await file.close();
    }
  }

  /** Whether the file has another name now, or none. */
  async #isOver() {
    try {
      const { ino } = await fs.promises.stat(fileOf(this.#root));
      return ino !== this.#inode;
    } catch (error) {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return true;
      throw error;
    }
  }

  async #read() {
    const chunk = Buffer.alloc(CHUNK);
    const { bytesRead } = await this.#file.read(chunk, 0, CHUNK, this.#at);
    this.#at += bytesRead;
    const bytes = Buffer.concat([this.#rest, chunk.subarray(0, bytesRead)]);
    const end = bytes.lastIndexOf(0x0a);
    this.#rest = bytes.subarray(end + 1);
    const events = [];
    let from = 0;
    while (from <= end) {
      const to = bytes.indexOf(0x0a, from);
      const event = eventOf(bytes.subarray(from, to));
      from = to + 1;
      if (!event || event.seq <= this.#seen) continue;
      this.#seen = event.seq;
      events.push(event);
    }
    // A chunk of lines that were seen, or of half a line, is no end.
    return events.length === 0 && bytesRead > 0 ? await this.#read() : events;
  }
}

module.exports = { watch };
