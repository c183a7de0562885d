'use strict';

/**
 * What each command does: one call of the face, its answer on stdout, an exit code.
 *
 * Promises: the JSON of a command is what the JavaScript call of the same name answers; a refusal
 * is thrown, for the program to tell; a lock taken here belongs to no process, so it outlives the
 * command and ends with its lease. Only `run` holds locks itself, while its command runs.
 */

const { runChild } = require('./child.js');
const { EXIT } = require('./output.js');
const { queueLength, withHolders } = require('./queue.js');
const { statusTable } = require('./table.js');
const { inTurn } = require('./turn.js');
const { endIn, msUntil, pathFrom, placeOf, plain, spoken } = require('./words.js');

/** The face's own way to hand a process's locks on to a child process. */
const LIFE_LINE = Symbol.for('storylock.lifeLine');

async function acquire({ manager, output }, { paths, storyId, timeout, wait, reason, json }) {
  const options = { timeout, wait, reason, detached: true };
  const { locks } = await inTurn({ manager, output }, { storyId, wait }, () =>
    manager.acquireAll(paths, storyId, options),
  );
  await output.answer(oneOrAll(locks), () => saidOf('Locked', locks, manager.root), { json });
  return EXIT.DONE;
}

async function renew({ manager, output }, { paths, storyId, timeout, json }) {
  return each(paths, output, (path) => manager.renew(path, storyId, timeout), async (locks) => {
    await output.answer(oneOrAll(locks), () => saidOf('Renewed', locks, manager.root), { json });
  });
}

async function release({ manager, output }, { paths, storyId, json }) {
  return each(paths, output, (path) => manager.release(path, storyId), async () => {
    await output.answer(true, () => `Released ${paths.map(plain).join(', ')}.`, { json });
  });
}

async function check({ manager, output }, { path, json }) {
  const holder = await manager.check(path);
  const say = async () => holderSaid(path, holder, await queueLength(manager, path, holder));
  await output.answer(holder, say, { json });
  return holder === null ? EXIT.DONE : EXIT.REFUSED;
}

async function status({ manager, output }, { json }) {
  const answer = await manager.status();
  const say = async () => {
    const waiting = await withHolders(manager, answer.waiting);
    return statusTable({ ...answer, waiting }, manager.root, output.width);
  };
  await output.answer(answer, say, { json });
  if (answer.error === undefined) return EXIT.DONE;
  output.note(answer.error);
  return EXIT.REFUSED;
}

async function cleanup({ manager, output }, { storyId, json }) {
  const count = await manager.cleanup(storyId);
  const said = `Released ${count} ${count === 1 ? 'lock' : 'locks'} of ${plain(storyId)}.`;
  await output.answer(count, () => said, { json });
  return EXIT.DONE;
}

/**
 * Holds the paths while the command runs, and answers its exit code. A command that ends well after
 * a lock was lost counts as refused: what it wrote may have crossed another story's work.
 */
async function run({ manager, output }, { paths, storyId, wait, reason, command }) {
  let code = null;
  let isLossTold = false;
  const held = async ({ signal }) => {
    signal.addEventListener('abort', () => {
      isLossTold = true;
      output.note(`${signal.reason.message} The command runs on without its lock.`);
    });
    code = await runChild(command, {
      env: { ...process.env, STORYLOCK_ROOT: manager.root, STORYLOCK_STORY: storyId },
      lifeLine: manager[LIFE_LINE](),
      note: (message) => output.note(message),
    });
  };
  try {
    await inTurn({ manager, output }, { storyId, wait }, (begin) =>
      manager.withLock(paths, storyId, { wait, reason }, (scope) => {
        begin();
        return held(scope);
      }),
    );
  } catch (error) {
    if (code === null) throw error;
    if (!isLossTold) output.note(error.message);
    return code || EXIT.REFUSED;
  }
  return code;
}

/** Does one path after the other, tells of those refused, and answers only when none was. */
async function each(paths, output, work, answer) {
  const done = [];
  const refusals = [];
  for (const path of paths) {
    try {
      done.push(await work(path));
    } catch (error) {
      refusals.push(error);
    }
  }
  if (refusals.length === 0) {
    await answer(done);
    return EXIT.DONE;
  }
  for (const error of refusals.slice(0, -1)) output.note(error.message);
  throw refusals.at(-1);
}

function oneOrAll(locks) {
  return locks.length === 1 ? locks[0] : locks;
}

function saidOf(verb, locks, root) {
  return locks.map((lock) => lockSaid(verb, lock, root)).join('\n');
}

function lockSaid(verb, { filePath, storyId, expiresAt, reclaimed }, root) {
  const said = `${verb} ${pathFrom(root, filePath)} for ${storyId}: ${endIn(msUntil(expiresAt))}.`;
  if (!reclaimed) return plain(said);
  const ended = reclaimed.how === 'died' ? 'its process died' : 'its lease ended';
  return plain(`${said} ${reclaimed.storyId} had it until ${ended}: look at what it left behind.`);
}

function holderSaid(path, holder, waiters) {
  const line = waiters === 0 ? '' : ` ${waiters} ${waiters === 1 ? 'waits' : 'wait'} for it.`;
  if (holder === null) return `${plain(path)} is free.${line}`;
  const { storyId, heldFor, remaining, reason } = holder;
  const facts = [placeOf(holder), `held for ${spoken(heldFor)}`, endIn(remaining)];
  if (reason) facts.push(`reason: ${reason}`);
  return plain(`${path} is locked by ${storyId} (${facts.join(', ')}).${line}`);
}

module.exports = { acquire, renew, release, check, status, cleanup, run };
