'use strict';

/**
 * One holder: of those who try for a path at the same moment exactly one gets it, and nobody is
 * let in while it is held, whoever they are: processes, worker threads, managers, copies of the
 * package.
 */

const fs = require('node:fs');

const { cleanUp, copyOfPackage, folder, project } = require('./fixtures/project.js');
const { contest, startAll, startProcess, startWorker } = require('./fixtures/stories.js');

const ROUNDS = 60;

let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

const names = (prefix) => Array.from({ length: ROUNDS }, (_, number) => `${prefix}${number}.js`);
const paths = (prefix) => names(prefix).map((name) => at.path(name));

/** In every round one alone won, and it is the one that holds now. */
async function expectOneEach(winners, files) {
  expect(winners.filter((won) => won.length !== 1)).toEqual([]);
  const manager = at.manager();
  const holders = await Promise.all(files.map((file) => manager.check(file)));
  expect(holders.map((holder) => holder.storyId)).toEqual(winners.flat());
}

/** Locks of a story that is dead: every one is stale. */
async function leaveBehind(files) {
  const dead = await startProcess(at.root);
  await dead.call('acquireAll', files, 'DEAD', Infinity);
  await dead.kill();
}

/** Locks of the old module that ended long ago, which nobody has looked at yet. */
function leaveOld(prefix) {
  for (const name of names(prefix)) {
    at.plant(name, JSON.stringify(at.oldRecord(name, { acquiredAt: 1000 })));
  }
}

describe.each([
  ['processes', startProcess],
  ['worker threads', startWorker],
])('of four %s exactly one gets', (_, start) => {
  let stories;
  beforeEach(async () => {
    stories = await startAll(4, () => start(at.root));
    // Nobody has to find the project in the first round.
    await Promise.all(stories.map((story) => story.call('release', at.path('none'), 'S')));
  });

  test('a path that is free', async () => {
    await expectOneEach(await contest(stories, paths('f')), paths('f'));
  });

  test('a path that a killed process held', async () => {
    await leaveBehind(paths('d'));
    await expectOneEach(await contest(stories, paths('d')), paths('d'));
  });

  test('a path with a stale lock file of the old module', async () => {
    leaveOld('o');
    await expectOneEach(await contest(stories, paths('o')), paths('o'));
  });

  test('a project that has no lock folder yet', async () => {
    for (let round = 0; round < 5; round++) {
      fs.rmSync(at.path('.ai'), { recursive: true });
      const [winners] = await contest(stories, [at.path(`${round}.js`)]);
      expect(winners).toHaveLength(1);
    }
  });
});

test('of processes and worker threads together exactly one gets a path', async () => {
  const starts = [startProcess, startWorker, startProcess, startWorker];
  const stories = await startAll(4, (number) => starts[number](at.root));
  await expectOneEach(await contest(stories, paths('m')), paths('m'));
});

test('of managers that ask in one breath exactly one gets a path', async () => {
  const link = folder();
  fs.rmdirSync(link);
  fs.symlinkSync(at.root, link);
  const roots = [at.root, at.root, link, `${at.root}/.`];
  const managers = roots.map((root) => at.manager({ root }));
  await leaveBehind(paths('d'));
  leaveOld('o');
  for (const file of [...paths('f'), ...paths('d'), ...paths('o')]) {
    const asked = managers.map((manager, number) => manager.tryAcquire(file, `S${number}`));
    expect((await Promise.all(asked)).filter((lock) => lock !== null)).toHaveLength(1);
  }
});

test('of two copies of the package in one process exactly one gets a path', async () => {
  const story = await startProcess(at.root);
  const copy = copyOfPackage();
  await leaveBehind(paths('d'));
  leaveOld('o');
  const race = async ({ storylock, require, at: moment }, copied, root, files) => {
    const other = require(copied);
    const managers = [storylock, other].map((one) => new one.LockManager({ root }));
    const outcomes = [];
    for (const file of files) {
      const asked = managers.map((manager, number) => manager.tryAcquire(file, `S${number}`));
      outcomes.push((await Promise.all(asked)).map((lock) => lock && lock.token));
      await moment(0);
    }
    return { isOther: other.LockManager !== storylock.LockManager, outcomes };
  };
  const files = [...paths('f'), ...paths('d'), ...paths('o')];
  const { isOther, outcomes } = await story.do(race, copy, at.root, files);
  expect(isOther).toBe(true);
  expect(outcomes.filter((tokens) => tokens.filter(Boolean).length !== 1)).toEqual([]);
});

test('two copies of the package in two processes keep each other out', async () => {
  const home = copyOfPackage();
  const stories = await Promise.all([startProcess(at.root), startProcess(at.root, { home })]);
  await expectOneEach(await contest(stories, paths('c')), paths('c'));
});

test('a path is one path however it is spelled', async () => {
  fs.mkdirSync(at.path('src'));
  fs.symlinkSync(at.path('src'), at.path('link'));
  const stories = await startAll(2, () => startProcess(at.root));
  for (const [one, other] of [
    ['src/a.js', 'link/a.js'],
    ['src/../src//b.js', at.path('link', 'b.js')],
  ]) {
    expect(await stories[0].call('tryAcquire', one, 'AH-1')).not.toBeNull();
    expect(await stories[1].call('tryAcquire', other, 'AH-2')).toBeNull();
  }
  const spellings = ['src/c.js', 'link/c.js', './src/c.js'];
  const { locks } = await stories[0].call('acquireAll', spellings, 'AH-1');
  expect(locks).toHaveLength(1);
});

/**
 * Takes turns at one path: reads a number in a file and writes the next one back, in two steps
 * that a second holder would come between. Answers the tokens of its turns.
 */
const takeTurns = async ({ manager, pause, require }, name, file, turns) => {
  const { readFileSync, writeFileSync } = require('node:fs');
  const tokens = [];
  while (tokens.length < turns) {
    const lock = await manager.tryAcquire(file, name, tokens.length % 2 ? Infinity : 30_000);
    if (lock) {
      const before = Number(readFileSync(file, 'utf8'));
      await pause(0);
      writeFileSync(file, String(before + 1));
      tokens.push({ token: lock.token, before });
      await lock.release();
    }
    await pause(Math.random() * 2);
  }
  return tokens;
};

test('nobody is let in while a path is held, and tokens rise from turn to turn', async () => {
  const starts = [startProcess, startProcess, startWorker, startWorker];
  const stories = await startAll(4, (number) => starts[number](at.root));
  const file = at.path('count');
  fs.writeFileSync(file, '0');
  const turns = await Promise.all(
    stories.map((story, number) => story.do(takeTurns, `S${number}`, file, 40)),
  );
  expect(fs.readFileSync(file, 'utf8')).toBe('160');
  const inOrder = turns.flat().sort((one, other) => one.before - other.before);
  expect(inOrder.map(({ before }) => before)).toEqual(inOrder.map((_, number) => number));
  const tokens = inOrder.map(({ token }) => token);
  expect(tokens).toEqual([...new Set(tokens)].sort((one, other) => one - other));
});

test('of two sets that overlap one is locked whole and the other not at all', async () => {
  const stories = await startAll(3, () => startProcess(at.root));
  const compete = async ({ manager, at: moment }, name, sets, start) => {
    const outcomes = [];
    for (const [number, set] of sets.entries()) {
      await moment(start + number * 12);
      const locks = await manager.acquireAll(set, name).then(
        (taken) => taken.locks.length,
        (error) => error.code,
      );
      outcomes.push(locks);
    }
    return outcomes;
  };
  const round = (number) => ['a', 'b', 'c'].map((letter) => at.path(`${letter}${number}`));
  const rounds = Array.from({ length: ROUNDS }, (_, number) => round(number));
  const orders = [(set) => set, (set) => [...set].reverse(), ([a, b, c]) => [b, c, a]];
  const start = Date.now() + 40;
  const outcomes = await Promise.all(
    stories.map((story, n) => story.do(compete, `S${n}`, rounds.map(orders[n]), start)),
  );
  const manager = at.manager();
  for (const [number, set] of rounds.entries()) {
    const each = outcomes.map((outcome) => outcome[number]);
    expect([...each].sort()).toEqual([3, 'ELOCKED', 'ELOCKED']);
    const holders = await Promise.all(set.map((file) => manager.check(file)));
    const winner = `S${each.indexOf(3)}`;
    expect(holders.map((holder) => holder.storyId)).toEqual([winner, winner, winner]);
  }
});
