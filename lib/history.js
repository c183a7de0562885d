'use strict';

/**
 * What happened: the events that the engine appends to `.ai/progress/locks.history.jsonl`, read
 * from the newest backwards, through the rotated files.
 *
 * Promises: each event once, newest first, whatever is appended or rotated meanwhile; a torn or
 * foreign line is skipped; memory does not grow with the length of the files. It reads and makes
 * nothing, so it works where nothing may be written.
 */

const fs = require('node:fs/promises');
const path = require('node:path');

/** The youngest file; older ones have `.1`, `.2`, … behind it. */
const NAME = 'locks.history.jsonl';

/** How much is read at a time, in bytes. */
const CHUNK = 64 * 1024;

const NEWLINE = 0x0a;

function fileOf(root, number = 0) {
  const name = number === 0 ? NAME : `${NAME}.${number}`;
  return path.join(root, '.ai', 'progress', name);
}

/** The event of a line, or `null` if it is none. */
function eventOf(line) {
  try {
    const event = JSON.parse(line.toString('utf8'));
    return Number.isSafeInteger(event?.seq) && typeof event.type === 'string' ? event : null;
  } catch {
    return null;
  }
}

/** The file of this number, open, or `null` if there is none. */
async function opened(root, number) {
  try {
    const file = await fs.open(fileOf(root, number), 'r');
    if ((await file.stat()).isFile()) return file;
    await file.close();
    return null;
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null;
    throw error;
  }
}

/** The events of one open file, the last first. */
async function* backwards(file) {
  let end = (await file.stat()).size;
  let rest = Buffer.alloc(0);
  while (end > 0) {
    const start = Math.max(0, end - CHUNK);
    const chunk = Buffer.alloc(end - start);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, start);
    let bytes = Buffer.concat([chunk.subarray(0, bytesRead), rest]);
    let at = bytes.lastIndexOf(NEWLINE);
    while (at !== -1) {
      const event = eventOf(bytes.subarray(at + 1));
      if (event) yield event;
      bytes = bytes.subarray(0, at);
      at = bytes.lastIndexOf(NEWLINE);
    }
    rest = bytes;
    end = start;
  }
  const first = eventOf(rest);
  if (first) yield first;
}

/** All events of a project, the last first. */
async function* events(root) {
  let before = Infinity;
  for (let number = 0; ; number++) {
    const file = await opened(root, number);
    if (!file) return;
    try {
      for await (const event of backwards(file)) {
        // A file that was rotated meanwhile comes again under its next name.
        if (event.seq >= before) continue;
        before = event.seq;
        yield event;
      }
    } finally {
      await file.close();
    }
  }
}

/** Whether an event is one of those asked for. */
function isWanted(event, { storyId, path: wanted, since = -Infinity, until = Infinity, types }) {
  if (storyId !== undefined && event.storyId !== storyId) return false;
  if (wanted !== undefined && event.path !== wanted && event.canonical !== wanted) return false;
  if (types !== undefined && !types.includes(event.type)) return false;
  return event.time >= since && event.time <= until;
}

/** At most `limit` events of those asked for, the last first. */
async function read(root, { limit, ...filter }) {
  const found = [];
  if (limit === 0) return found;
  for await (const event of events(root)) {
    if (isWanted(event, filter)) found.push(event);
    // Wall clocks step, but not by a day: what is that much older is not looked at any more.
    if (found.length >= limit || event.time < (filter.since ?? -Infinity) - 86_400_000) break;
  }
  return found;
}

module.exports = { NAME, eventOf, fileOf, isWanted, opened, read };
