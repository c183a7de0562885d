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
const { endIn, msUntil, placeOf, plain, spoken, thingFrom } = require('./words.js');

/** The face's own way to hand a process's locks on to a child process. */
const LIFE_LINE = Symbol.for('storylock.lifeLine');

async function acquire({ manager, output }, given) {
  const { paths, storyId, timeout, wait, reason, glob, json } = given;
  const options = { timeout, wait, reason, detached: true, ...kindOf(given) };
  const { locks } = await inTurn({ manager, output }, { storyId, wait }, () =>
    manager.acquireAll(paths, storyId, options),
  );
  // How many files match is not known to who asks: a list for any number.
  const answer = glob ? locks : oneOrAll(locks);
  await output.answer(answer, () => saidOf('Locked', locks, manager.root), { json });
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
  const say = async () => {
    return holderSaid(path, holder, await queueLength(manager, path, holder), manager.root);
  };
  await output.answer(holder, say, { json });
  return holder === null ? EXIT.DONE : EXIT.REFUSED;
}

async function status({ manager, output }, { json }) {
  const answer = await manager.status();
  const say = async () => {
    const waiting = await withHolders(manager, answer.waiting, answer.activeLocks);
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

async function forceRelease({ manager, output }, { path, by, reason, storyId, dryRun, json }) {
  const freed = await manager.forceRelease(path, { by, reason, storyId, dryRun });
  await output.answer(freed, () => freedSaid(path, freed), { json });
  return EXIT.DONE;
}

/**
 * Holds the paths while the command runs, and answers its exit code. A command that ends well after
 * a lock was lost counts as refused: what it wrote may have crossed another story's work.
 */
async function run({ manager, output }, given) {
  const { paths, storyId, wait, reason, command } = given;
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
      manager.withLock(paths, storyId, { wait, reason, ...kindOf(given) }, (scope) => {
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

/** What kind of locks the options ask for. */
function kindOf({ shared = false, recursive, glob }) {
  return { mode: shared ? 'shared' : 'exclusive', recursive, glob };
}

function oneOrAll(locks) {
  return locks.length === 1 ? locks[0] : locks;
}

function saidOf(verb, locks, root) {
  return locks.map((lock) => lockSaid(verb, lock, root)).join('\n');
}

function lockSaid(verb, lock, root) {
  const { storyId, expiresAt, reclaimed } = lock;
  const said = `${verb} ${thingFrom(root, lock)} for ${storyId}: ${endIn(msUntil(expiresAt))}.`;
  if (!reclaimed) return plain(said);
  const ended = reclaimed.how === 'died' ? 'its process died' : 'its lease ended';
  return plain(`${said} ${reclaimed.storyId} had it until ${ended}: look at what it left behind.`);
}

function holderSaid(path, holder, waiters, root) {
  const line = waiters === 0 ? '' : ` ${waiters} ${waiters === 1 ? 'waits' : 'wait'} for it.`;
  if (holder === null) return `${plain(path)} is free.${line}`;
  const all = [holder, ...holder.others].map((one) => `${one.storyId} (${factsOf(one, root)})`);
  return plain(`${path} is locked by ${all.join(' and ')}.${line}`);
}

function factsOf(holder, root) {
  const { heldFor, remaining, reason, mode, recursive } = holder;
  const facts = [placeOf(holder), `held for ${spoken(heldFor)}`, endIn(remaining)];
  if (recursive) facts.unshift(`has ${thingFrom(root, holder)}`);
  else if (mode === 'shared') facts.unshift('shared');
  if (reason) facts.push(`reason: ${reason}`);
  return facts.join(', ');
}

function freedSaid(path, { removed, next, dryRun }) {
  if (removed.length === 0) return `${plain(path)} is free: there is nothing to take.`;
  const from = removed.map((holder) => `${holder.storyId} (${placeOf(holder)})`).join(' and ');
  const would = dryRun ? 'Would take' : 'Took';
  const line = next.length === 0 ? '' : ` Next in line: ${next.map(storyOf).join(', ')}.`;
  return plain(`${would} ${path} from ${from}.${line}`);
}

function storyOf({ storyId }) {
  return storyId;
}

module.exports = {
  acquire,
  renew,
  release,
  check,
  status,
  cleanup,
  'force-release': forceRelease,
  run,
};
