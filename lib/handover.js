'use strict';

/**
 * Handing locks from one process to another: the token that an agent is given.
 *
 * Promises: a token is text of letters, digits, `.`, `-` and `_`, fit for an environment variable;
 * whoever has it, and nobody else, can make the locks that it names their own, once. The secret in
 * it is 16 random bytes; the engine keeps its SHA-256 alone, so what stands on the disk hands
 * nothing over. What is no token is refused before anything is touched, and is not repeated in the
 * error.
 */

const { createHash, randomBytes } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { invalidType, invalidValue } = require('./errors.js');
const { done } = require('./tickets.js');

const PREFIX = 'storylock1.';
const SECRET_BYTES = 16;
/** A set of some ten thousand locks; no system passes on more in an environment or an argument. */
const MAX_LENGTH = 2 * 1024 * 1024;

/** Offers these grants to whoever is given the token that this resolves to. */
async function exported(client, grants, isSet) {
  const secret = randomBytes(SECRET_BYTES).toString('base64url');
  const named = grants.map(({ key, token }) => ({ key, token }));
  const offer = { root: client.root, grants: named, secret, set: isSet };
  const token = PREFIX + Buffer.from(JSON.stringify(offer)).toString('base64url');
  if (token.length > MAX_LENGTH) {
    throw invalidValue('locks', `are too many for one token: ${grants.length}. Export fewer.`);
  }
  done(await client.offer(grants, digestOf(secret)));
  return token;
}

/** What a token says: `{ root, grants, digest, isSet }`. Throws on what is no token. */
function opened(token) {
  if (typeof token !== 'string') throw invalidType('token', 'a string', token);
  if (/^storylock\d+\./.test(token) && !token.startsWith(PREFIX)) {
    throw invalidValue('token', 'is of another version of storylock: use one on both sides.');
  }
  const offer = token.length <= MAX_LENGTH && token.startsWith(PREFIX) ? offerIn(token) : null;
  if (!isOffer(offer)) {
    throw invalidValue(
      'token',
      'is not what export() answered: it is damaged or cut off. Pass it on as it was given, whole.',
    );
  }
  const { root, grants, secret, set } = offer;
  return { root, grants, digest: digestOf(secret), isSet: set };
}

/** Refuses a token of another project than this one. */
function checkProject(offer, root) {
  if (offer.root === root || realPath(offer.root) === realPath(root)) return;
  const rule = `is of the project ${offer.root}, and this manager is of ${root}.`;
  throw invalidValue('token', `${rule} Use LockManager.adopt(token).`);
}

function offerIn(token) {
  const text = token.slice(PREFIX.length);
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.toString('base64url') !== text) return null;
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
}

function isOffer(offer) {
  if (!hasExactly(offer, ['root', 'grants', 'secret', 'set'])) return false;
  const { root, grants, secret, set } = offer;
  return (
    isRoot(root) &&
    Array.isArray(grants) &&
    grants.length > 0 &&
    grants.every(isGrant) &&
    new Set(grants.map(({ key }) => key)).size === grants.length &&
    typeof secret === 'string' &&
    /^[\w-]{22}$/.test(secret) &&
    (set === true || (set === false && grants.length === 1))
  );
}

function isRoot(root) {
  const isText = typeof root === 'string' && root.isWellFormed() && !root.includes('\0');
  return isText && path.resolve(root) === root;
}

function isGrant(grant) {
  if (!hasExactly(grant, ['key', 'token'])) return false;
  const { key, token } = grant;
  const isKey = typeof key === 'string' && /^[0-9a-f]{64}$/.test(key);
  return isKey && Number.isSafeInteger(token) && token >= 0;
}

function hasExactly(value, names) {
  if (typeof value !== 'object' || value === null) return false;
  return (
    Object.keys(value).length === names.length && names.every((name) => Object.hasOwn(value, name))
  );
}

function digestOf(secret) {
  return createHash('sha256').update(secret).digest('hex');
}

function realPath(folder) {
  try {
    return fs.realpathSync(folder);
  } catch {
    return folder;
  }
}

module.exports = { exported, opened, checkProject };
