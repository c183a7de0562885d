'use strict';

/**
 * Patches: files written under their locks, fenced.
 *
 * Promises: the new content is in place whole or not at all, and only while the lock that it was
 * written under is current at that very moment; whoever lost the lock meanwhile writes nothing.
 * A lock that the story has already is used and kept; one that is taken here is given up again,
 * whatever happens. What is no file is not written.
 */

const { createHash } = require('node:crypto');
const fs = require('node:fs/promises');
const { invalidType, invalidValue } = require('./errors.js');
const { grantOf, scopeOf } = require('./lock.js');
const { isName } = require('./paths.js');
const { done } = require('./tickets.js');

/** SHA-256 of a content, in hex: what `expect` compares. */
function hash(content) {
  return createHash('sha256').update(bytesOf(content, 'content')).digest('hex');
}

/** A file's content and its hash; `null` and `null` where there is no file. */
async function read(path) {
  try {
    const content = await fs.readFile(path);
    return { content, hash: hash(content) };
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return { content: null, hash: null };
  }
}

/** Refuses a path that can be locked and not written. */
function checkFile(path) {
  if (!isName(path)) return;
  const rule = `must be of a file, and ${path} is a name. A file that is called so is ./${path}.`;
  throw invalidValue('path', rule);
}

/** Writes one file under these locks. `content` may be a function of what it is now. */
async function write(engine, { path, storyId, content, options }, grants) {
  const { expect, parents = false, durable = true } = options;
  let base = expect === null ? 'absent' : (expect ?? 'any');
  let bytes = content;
  if (typeof content === 'function') {
    const current = await read(path);
    bytes = await content(current.content);
    // What was given to the function is what it made its answer for.
    if (base === 'any') base = current.hash ?? 'absent';
  }
  const edit = { path, content: bytesOf(bytes, 'content'), base, parents };
  const changed = await engine.change(storyId, grants, [edit], { durable, check: false });
  const [file] = done(changed);
  return { path: file.path, hash: file.hash };
}

/** The locks of a change: those given, or a scope over the paths while `work` runs. */
async function underLocks(engine, { paths, storyId, options }, work) {
  if (options.lock) return await work(grantsOf(options.lock));
  const { wait, signal, reason } = options;
  const scope = { wait, signal, reason, timeout: Infinity, scope: true };
  const entries = paths.map((path) => ({ path }));
  const locks = done(await engine.acquire(entries, storyId, scope));
  const [grants, scopes] = [locks.map(grantOf), locks.map(scopeOf)];
  let value;
  try {
    value = await work(grants);
  } catch (error) {
    await engine.letGo(grants, scopes);
    throw error;
  }
  done(await engine.letGo(grants, scopes));
  return value;
}

function grantsOf(lock) {
  try {
    return (lock.locks ?? [lock]).map(grantOf);
  } catch {
    throw invalidType('options.lock', 'a Lock or a LockSet of this copy of storylock', lock);
  }
}

/** A content as bytes: text, a Buffer, or any view of an ArrayBuffer. */
function bytesOf(content, name) {
  if (typeof content === 'string') return Buffer.from(content);
  if (Buffer.isBuffer(content)) return content;
  if (ArrayBuffer.isView(content)) {
    return Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  }
  throw invalidType(name, 'a string, a Buffer, a TypedArray or a DataView', content);
}

module.exports = { hash, read, checkFile, write, underLocks, bytesOf };
