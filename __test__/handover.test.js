'use strict';

/**
 * Handing over: a lock goes to another story in the same process, or to another process, without a
 * moment in which it is free; once only; and its life goes with it. Other processes are real, and
 * their deaths are kills.
 */

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const { Lock, LockError, LockManager, LockSet } = require('..');
const { atEnd, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');
const { lineUp } = require('./fixtures/wait-line.js');

let at;
let manager;
let file;
let lost;
beforeEach(() => {
  at = project();
  manager = at.manager();
  file = at.path('a.js');
  lost = jest.fn();
  manager.on('compromised', lost);
});
afterEach(cleanUp);

/** To be done by a story: makes what the token stands for its own. */
const adopt = async ({ storylock, held }, token, options) => {
  held.own = await storylock.LockManager.adopt(token, options);
  return held.own;
};
const verify = ({ held }) => held.own.verify();
const release = ({ held }) => held.own.release();

/** What a token says. */
const contentOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
const tokenOf = (content) =>
  `storylock1.${Buffer.from(JSON.stringify(content)).toString('base64url')}`;

/** A lock is over here, and that is no loss. */
async function expectPassedOn(lock) {
  expect(await lock.verify()).toBe(false);
  expect(await lock.release()).toBe(false);
  expect(lock.signal.aborted).toBe(false);
  expect(lost).not.toHaveBeenCalled();
}

describe('transfer', () => {
  test('gives the lock to another story, with a new token', async () => {
    const lock = await manager.acquire(file, 'A', { timeout: 60_000 });
    const theirs = await lock.transfer({ storyId: 'B' });
    expect(theirs).toBeInstanceOf(Lock);
    expect(theirs).toMatchObject({ storyId: 'B', filePath: file, mode: 'exclusive' });
    expect(theirs.token).toBeGreaterThan(lock.token);
    expect(await manager.check(file)).toMatchObject({ lockId: theirs.lockId, storyId: 'B' });
    await expectPassedOn(lock);
    expect(await theirs.verify()).toBe(true);
    expect(await manager.tryAcquire(file, 'A')).toBeNull();
    expect(await theirs.release()).toBe(true);
  });

  test('comes before all who wait', async () => {
    const lock = await manager.acquire(file, 'A', Infinity);
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'W', { wait: 20_000 }));
    const theirs = await lock.transfer({ storyId: 'B' });
    expect(await manager.check(file)).toMatchObject({ storyId: 'B' });
    await theirs.release();
    expect((await turn).storyId).toBe('W');
  });

  test('keeps the kind of the lock', async () => {
    const folder = await manager.acquire(at.path('src'), 'A', { mode: 'shared', recursive: true });
    await manager.acquire(at.path('src'), 'R', { mode: 'shared' });
    const theirs = await folder.transfer({ storyId: 'B' });
    expect([theirs.mode, theirs.recursive]).toEqual(['shared', true]);
    expect(await manager.tryAcquire(at.path('src/a.js'), 'W')).toBeNull();
  });

  test('fences the story that gave it away', async () => {
    fs.writeFileSync(file, 'one\n');
    const lock = await manager.acquire(file, 'A');
    const theirs = await lock.transfer({ storyId: 'B' });
    const late = await rejection(manager.applyPatch(file, 'A', 'two\n', { lock }));
    expect(late.code).toMatch(/^(EFENCED|ECOMPROMISED)$/);
    await manager.applyPatch(file, 'B', 'three\n', { lock: theirs });
    expect(fs.readFileSync(file, 'utf8')).toBe('three\n');
  });

  test('of a lock that a scope has is refused: the scope gives it up', async () => {
    const scope = manager.withLock(file, 'A', async ({ lock }) => {
      const error = await rejection(lock.transfer({ storyId: 'B' }));
      expect(error.code).toBe('ERR_INVALID_STATE');
      return lock.verify();
    });
    expect(await scope).toBe(true);
    expect(await manager.check(file)).toBeNull();
  });

  test('to the story itself changes nothing, and to one that has the path is refused', async () => {
    const lock = await manager.acquire(file, 'A', { mode: 'shared' });
    const same = await lock.transfer({ storyId: 'A' });
    expect(same.lockId).toBe(lock.lockId);
    await manager.acquire(file, 'B', { mode: 'shared' });
    expect((await rejection(lock.transfer({ storyId: 'B' }))).code).toBe('ERR_INVALID_STATE');
    expect(await lock.verify()).toBe(true);
  });

  test('of what a lock of the giver keeps from the other story is refused', async () => {
    await manager.acquire(at.path('src'), 'A', { recursive: true });
    const lock = await manager.acquire(at.path('src/a.js'), 'A');
    const error = await rejection(lock.transfer({ storyId: 'B' }));
    expect(error).toMatchObject({ code: 'ELOCKED', holder: { filePath: at.path('src') } });
    expect(await lock.verify()).toBe(true);
  });

  test('of what is not held any more is refused', async () => {
    const lock = await manager.acquire(file, 'A');
    await lock.release();
    const error = await rejection(lock.transfer({ storyId: 'B' }));
    expect(error).toBeInstanceOf(LockError);
    expect(error.code).toBe('ECOMPROMISED');
    expect(await manager.check(file)).toBeNull();
  });

  test.each([[undefined], [{}], ['B'], [{ storyId: 7 }], [{ storyId: '' }], [{ to: 'B' }]])(
    'needs a story: %j',
    async (options) => {
      const lock = await manager.acquire(file, 'A');
      const error = await rejection(lock.transfer(options));
      expect(error).toBeInstanceOf(TypeError);
      expect(error.code).toMatch(/^ERR_INVALID_ARG_(TYPE|VALUE)$/);
      expect(await lock.verify()).toBe(true);
    },
  );
});

describe('export and adopt', () => {
  test('a process makes the lock of another its own', async () => {
    const agent = await startProcess(at.root);
    const lock = await manager.acquire(file, 'A', Infinity);
    const token = await lock.export();
    expect(token).toMatch(/^[\w.-]+$/);
    expect(await lock.verify()).toBe(true);
    const theirs = await agent.do(adopt, token);
    expect(theirs).toMatchObject({ storyId: 'A', filePath: file, pid: agent.pid });
    expect(theirs.token).toBeGreaterThan(lock.token);
    expect(await manager.check(file)).toMatchObject({ lockId: theirs.lockId, pid: agent.pid });
    await until(() => lock.verify(), (isCurrent) => !isCurrent);
    await expectPassedOn(lock);
    expect(await agent.do(verify)).toBe(true);
    expect(await agent.do(release)).toBe(true);
    expect(await manager.check(file)).toBeNull();
  });

  test('by its environment, as an agent is given it', async () => {
    const lock = await manager.acquire(file, 'A', Infinity);
    const env = ['env', `LOCK=${await lock.export()}`, process.execPath];
    const agent = await startProcess(at.root, { command: env });
    const { storyId } = await agent.do(async ({ storylock, held }) => {
      held.own = await storylock.LockManager.adopt(process.env.LOCK);
      return held.own;
    });
    expect(storyId).toBe('A');
    expect(await agent.do(verify)).toBe(true);
  });

  test('the lock lives on when the process that had it is killed', async () => {
    const [parent, agent] = [await startProcess(at.root), await startProcess(at.root)];
    const token = await parent.do(async ({ manager: mine }, name) => {
      return (await mine.acquire(name, 'A', Infinity)).export();
    }, file);
    await agent.do(adopt, token);
    await parent.kill();
    expect(await agent.do(verify)).toBe(true);
    expect(await manager.tryAcquire(file, 'B')).toBeNull();
    expect((await manager.status()).staleLocks).toBe(0);
  });

  test('the lock ends with the process that adopted it', async () => {
    const agent = await startProcess(at.root);
    const lock = await manager.acquire(file, 'A', Infinity);
    await agent.do(adopt, await lock.export());
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'B', { wait: 20_000 }));
    await agent.kill();
    expect(await turn).toMatchObject({ reclaimed: { storyId: 'A', how: 'died' } });
  });

  test('nobody in line comes between', async () => {
    const agent = await startProcess(at.root);
    const lock = await manager.acquire(file, 'A', Infinity);
    const { turn } = await lineUp(manager, () => manager.acquire(file, 'B', { wait: 20_000 }));
    const theirs = await agent.do(adopt, await lock.export());
    expect(await manager.check(file)).toMatchObject({ lockId: theirs.lockId });
    await agent.do(release);
    expect((await turn).storyId).toBe('B');
  });

  test('a set is adopted as a set, whole', async () => {
    const agent = await startProcess(at.root);
    const ports = { path: '@port', recursive: true };
    const shared = { path: at.path('b'), mode: 'shared' };
    const set = await manager.acquireAll([file, ports, shared], 'A', Infinity);
    const kinds = ({ locks }) => locks.map((one) => [one.filePath, one.mode, one.recursive]);
    const theirs = await agent.do(adopt, await set.export());
    expect(kinds(theirs)).toEqual(kinds(set));
    const isSet = ({ held, storylock }) => held.own instanceof storylock.LockSet;
    expect(await agent.do(isSet)).toBe(true);
    expect(await set.verify()).toBe(false);
    expect(set.signal.aborted).toBe(false);
    expect(await set.release()).toBe(false);
    expect((await manager.status()).totalLocks).toBe(3);
    expect(await agent.do(release)).toBe(true);
    expect((await manager.status()).totalLocks).toBe(0);
  });

  test('a lease is kept, or made another', async () => {
    const lock = await manager.acquire(file, 'A', 60_000);
    const kept = await at.manager().adopt(await lock.export());
    expect(kept.timeout).toBe(60_000);
    const longer = await at.manager().adopt(await kept.export(), { timeout: 90_000 });
    expect(longer.timeout).toBe(90_000);
    const bound = await at.manager().adopt(await longer.export(), { timeout: Infinity });
    expect([bound.timeout, bound.expiresAt]).toEqual([Infinity, null]);
  });

  test('in the same process: by a manager, or by one that stands behind all', async () => {
    const lock = await manager.acquire(file, 'A');
    const mine = await manager.adopt(await lock.export());
    await expectPassedOn(lock);
    expect(mine).toBeInstanceOf(Lock);
    const theirs = await LockManager.adopt(await mine.export());
    atEnd(() => theirs.release());
    await expectPassedOn(mine);
    expect(await theirs.verify()).toBe(true);
    const set = await manager.acquireAll([at.path('b'), at.path('c')], 'A');
    const adopted = await LockManager.adopt(await set.export());
    atEnd(() => adopted.release());
    expect(adopted).toBeInstanceOf(LockSet);
    expect(adopted.storyId).toBe('A');
  });

  test('a scope whose lock went to another process ends well', async () => {
    const agent = await startProcess(at.root);
    for (const paths of [file, [file, at.path('b')]]) {
      const value = await manager.withLock(paths, 'A', async ({ lock, locks, signal }) => {
        for (const one of locks ?? [lock]) await agent.do(adopt, await one.export());
        expect(signal.aborted).toBe(false);
        return 'handed on';
      });
      expect(value).toBe('handed on');
      expect(lost).not.toHaveBeenCalled();
      expect(await agent.do(verify)).toBe(true);
      await agent.call('cleanup', 'A');
    }
  });

  test('a scope whose lock was adopted, used and given up meanwhile ends well', async () => {
    const agent = await startProcess(at.root);
    const use = async ({ storylock }, token) => {
      return (await storylock.LockManager.adopt(token)).release();
    };
    const scope = manager.withLock(file, 'A', async ({ lock }) => {
      return agent.do(use, await lock.export());
    });
    expect(await scope).toBe(true);
    expect(lost).not.toHaveBeenCalled();
  });

  test('a lock that is adopted by nobody stays whose it was', async () => {
    await manager.withLock(file, 'A', async ({ lock }) => {
      await lock.export();
      await lock.renew();
      expect(await lock.verify()).toBe(true);
      expect(await manager.tryAcquire(file, 'B')).toBeNull();
    });
    expect(await manager.check(file)).toBeNull();
  });

  test('a scope whose lock was offered, and then lost, is told so', async () => {
    const scope = manager.withLock(file, 'A', async ({ lock }) => {
      await lock.export();
      await at.manager().release(file, 'A');
    });
    expect((await rejection(scope)).code).toBe('ECOMPROMISED');
    expect(lost).toHaveBeenCalledTimes(1);
  });
});

describe('a token is good once', () => {
  const isRefused = async (token, by = at.manager()) => {
    const error = await rejection(by.adopt(token));
    expect(error).toBeInstanceOf(LockError);
    expect(error.code).toBe('ENOTACQUIRED');
    expect(error.hint).toEqual(expect.any(String));
  };

  test('of many processes that try at once, one has the lock', async () => {
    const agents = await Promise.all([1, 2, 3, 4].map(() => startProcess(at.root)));
    const lock = await manager.acquire(file, 'A', Infinity);
    const token = await lock.export();
    const outcomes = await Promise.allSettled(agents.map((agent) => agent.do(adopt, token)));
    const codes = outcomes.map(({ reason }) => reason?.code ?? 'had').sort();
    expect(codes).toEqual(['ENOTACQUIRED', 'ENOTACQUIRED', 'ENOTACQUIRED', 'had']);
    expect((await manager.status()).totalLocks).toBe(1);
  });

  test('used, it is worthless', async () => {
    const lock = await manager.acquire(file, 'A');
    const token = await lock.export();
    const theirs = await at.manager().adopt(token);
    await isRefused(token);
    expect(await theirs.verify()).toBe(true);
  });

  test('a second export makes the first worthless', async () => {
    const lock = await manager.acquire(file, 'A');
    const [first, second] = [await lock.export(), await lock.export()];
    await isRefused(first);
    expect(await lock.verify()).toBe(true);
    expect((await at.manager().adopt(second)).storyId).toBe('A');
  });

  test('with a lock that was given up, passed on, taken away or lost it is worthless', async () => {
    const ends = [
      (lock) => lock.release(),
      (lock) => lock.transfer({ storyId: 'B' }),
      () => manager.forceRelease(file, { by: 'ops', reason: 'stuck' }),
      () => at.manager().cleanup('A'),
    ];
    for (const end of ends) {
      const lock = await manager.acquire(file, 'A');
      const token = await lock.export();
      await end(lock);
      await isRefused(token);
      await manager.cleanup('B');
      expect(await manager.check(file)).toBeNull();
    }
  });

  test('a killed process’s offer ends with it', async () => {
    const parent = await startProcess(at.root);
    const token = await parent.do(async ({ manager: mine }, name) => {
      return (await mine.acquire(name, 'A', Infinity)).export();
    }, file);
    await parent.kill();
    await isRefused(token);
  });

  test('a set goes whole or not at all', async () => {
    const set = await manager.acquireAll([file, at.path('b')], 'A', Infinity);
    const token = await set.export();
    await set.locks[1].release();
    await isRefused(token);
    expect(await set.locks[0].verify()).toBe(true);
  });

  test('its secret cannot be guessed, and is not on the disk', async () => {
    const lock = await manager.acquire(file, 'A');
    const content = contentOf(await lock.export());
    expect(Buffer.from(content.secret, 'base64url')).toHaveLength(16);
    const guess = Buffer.alloc(16, 7).toString('base64url');
    await isRefused(tokenOf({ ...content, secret: guess }));
    const folder = at.path('.ai');
    for (const name of fs.readdirSync(folder, { recursive: true })) {
      const place = path.join(folder, name);
      if (!fs.statSync(place).isFile()) continue;
      expect(fs.readFileSync(place).includes(content.secret)).toBe(false);
    }
    expect((await at.manager().adopt(tokenOf(content))).storyId).toBe('A');
  });

  test('what is adopted of another lock’s grant is not had', async () => {
    const lock = await manager.acquire(file, 'A');
    const other = await manager.acquire(at.path('b'), 'A');
    const content = contentOf(await lock.export());
    const { grants } = contentOf(await other.export());
    await isRefused(tokenOf({ ...content, grants }));
    expect(await other.verify()).toBe(true);
  });
});

describe('what is no token is refused before anything is touched', () => {
  const KEY = createHash('sha256').update('a').digest('hex');
  const good = {
    root: '/nowhere/at/all',
    grants: [{ key: KEY, token: 7 }],
    secret: 'AAAAAAAAAAAAAAAAAAAAAA',
    set: false,
  };

  test.each([
    ['no string', undefined],
    ['null', null],
    ['bytes', Buffer.from(tokenOf(good))],
    ['nothing', ''],
    ['its beginning alone', 'storylock1.'],
    ['another version', tokenOf(good).replace('1.', '2.')],
    ['no version', tokenOf(good).slice('storylock1.'.length)],
    ['a cut one', tokenOf(good).slice(0, -3)],
    ['one with a blank', `${tokenOf(good)} `],
    ['one with a newline', `${tokenOf(good)}\n`],
    ['padding', `${tokenOf({ ...good, root: '/nowhere/at/al' })}=`],
    ['no JSON', `storylock1.${Buffer.from('{').toString('base64url')}`],
    ['no UTF-8', `storylock1.${Buffer.from([0x22, 0xff, 0x22]).toString('base64url')}`],
    ['null in it', tokenOf(null)],
    ['an array', tokenOf([good])],
    ['more than it may have', tokenOf({ ...good, more: 1 })],
    ['no root', tokenOf({ ...good, root: undefined })],
    ['a relative root', tokenOf({ ...good, root: 'src' })],
    ['a root that is not plain', tokenOf({ ...good, root: '/a/../b' })],
    ['a root with NUL', tokenOf({ ...good, root: '/a\0b' })],
    ['a root with half a character', tokenOf({ ...good, root: '/a\ud800' })],
    ['no grants', tokenOf({ ...good, grants: [] })],
    ['a grant twice', tokenOf({ ...good, grants: [good.grants[0], good.grants[0]], set: true })],
    ['several grants that are no set', tokenOf({
      ...good,
      grants: [good.grants[0], { key: KEY.replace(/./, '0'), token: 8 }],
    })],
    ['a key that is none', tokenOf({ ...good, grants: [{ key: '../../x', token: 7 }] })],
    ['a key in capitals', tokenOf({ ...good, grants: [{ key: KEY.toUpperCase(), token: 7 }] })],
    ['a number below 0', tokenOf({ ...good, grants: [{ key: KEY, token: -1 }] })],
    ['a number beyond 2^53', tokenOf({ ...good, grants: [{ key: KEY, token: 2 ** 53 }] })],
    ['a number as text', tokenOf({ ...good, grants: [{ key: KEY, token: '7' }] })],
    ['a grant with more', tokenOf({ ...good, grants: [{ key: KEY, token: 7, x: 1 }] })],
    ['a short secret', tokenOf({ ...good, secret: 'AAAA' })],
    ['a secret of other letters', tokenOf({ ...good, secret: '!'.repeat(22) })],
    ['a set that is neither', tokenOf({ ...good, set: 1 })],
    ['too much', `storylock1.${'A'.repeat(3 * 1024 * 1024)}`],
  ])('%s', async (_, token) => {
    for (const call of [() => LockManager.adopt(token), () => manager.adopt(token)]) {
      const error = await rejection(call());
      expect(error).toBeInstanceOf(TypeError);
      expect(error.code).toMatch(/^ERR_INVALID_ARG_(TYPE|VALUE)$/);
      expect(error.message).toMatch(/^The argument 'token' /);
      expect(error.message).not.toContain(good.secret);
      expect(error.message.length).toBeLessThan(300);
    }
    expect(fs.readdirSync(at.path('.ai'))).toEqual([]);
  });

  test('a token of another project is refused by a manager', async () => {
    const lock = await manager.acquire(file, 'A');
    const other = project();
    const error = await rejection(other.manager().adopt(await lock.export()));
    expect(error.code).toBe('ERR_INVALID_ARG_VALUE');
    expect(error.message).toContain(at.root);
    expect(fs.readdirSync(other.path('.ai'))).toEqual([]);
  });

  test('a project by another of its names is the same one', async () => {
    const link = `${at.root}-link`;
    fs.symlinkSync(at.root, link);
    atEnd(() => fs.unlinkSync(link));
    const lock = await manager.acquire(file, 'A');
    const theirs = await at.manager({ root: link }).adopt(await lock.export());
    expect(await theirs.verify()).toBe(true);
  });

  test('a bad option is refused, and the token stays good', async () => {
    const lock = await manager.acquire(file, 'A');
    const token = await lock.export();
    for (const options of [{ timeout: 0 }, { timeout: '5' }, { wait: 5 }, 5]) {
      for (const adopting of [LockManager.adopt(token, options), manager.adopt(token, options)]) {
        expect((await rejection(adopting)).code).toMatch(/^ERR_/);
      }
    }
    expect(await lock.verify()).toBe(true);
    expect((await manager.adopt(token)).storyId).toBe('A');
  });
});
