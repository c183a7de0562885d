'use strict';

/** Losses: told to whoever has the lock, and harmless to whoever does not listen. */

const { once } = require('node:events');
const path = require('node:path');
const { LockError } = require('..');
const { project, newManager, cleanUp, rejection } = require('./fixtures/face.js');

let root;
let file;
beforeEach(() => {
  ({ root, file } = project());
});
afterEach(cleanUp);

describe('losses', () => {
  const lose = async (manager, rival) => {
    const told = once(manager, 'compromised');
    await rival.release(file, 'S');
    return told;
  };

  test('a loss is emitted once with the error and the lock, and aborts every signal', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S');
    const again = await manager.acquire(file, 'S');
    const listener = jest.fn();
    manager.on('compromised', listener);
    const early = lock.signal;
    const set = await manager.acquireAll([path.join(root, 'b'), file], 'S');
    const whole = set.signal;
    const [error, told] = await lose(manager, newManager());
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({ code: 'ECOMPROMISED', path: file, storyId: 'S' });
    expect(told).toBe(lock);
    expect(listener.mock.calls).toEqual([[error, lock]]);
    for (const signal of [early, again.signal, whole, set.locks[1].signal]) {
      expect(signal.aborted).toBe(true);
      expect(signal.reason).toBe(error);
    }
    expect(set.locks[0].signal.aborted).toBe(false);
    expect(await lock.release()).toBe(false);
  });

  test('a signal asked for after the loss is aborted already', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S');
    const [error] = await lose(manager, newManager());
    expect(lock.signal.aborted).toBe(true);
    expect(lock.signal.reason).toBe(error);
  });

  test('a lease that ends unrenewed is a loss', async () => {
    const manager = newManager();
    const told = once(manager, 'compromised');
    const lock = await manager.acquire(file, 'S', 20);
    // What waits for the loss must keep the process alive: held locks do not.
    const alive = setInterval(() => {}, 1000);
    const [error, lost] = await told;
    clearInterval(alive);
    expect(lost).toBe(lock);
    expect(error.code).toBe('ECOMPROMISED');
    expect((await rejection(lock.renew())).code).toBe('ECOMPROMISED');
  });

  test('a listener that fails harms nobody and is told as a warning', async () => {
    const manager = newManager();
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation();
    const last = jest.fn();
    manager.on('compromised', () => {
      throw new Error('thrown by a listener');
    });
    manager.on('compromised', async () => {
      throw new Error('rejected by a listener');
    });
    manager.on('compromised', () => {
      throw undefined;
    });
    manager.on('compromised', last);
    await manager.acquire(file, 'S');
    await lose(manager, newManager());
    await manager.status();
    expect(last).toHaveBeenCalledTimes(1);
    const texts = warned.mock.calls.map(([text]) => text).sort();
    expect(texts).toEqual([
      "A 'compromised' listener failed: rejected by a listener",
      "A 'compromised' listener failed: thrown by a listener",
      "A 'compromised' listener failed: undefined",
    ]);
    expect(warned.mock.calls[0][1]).toMatchObject({ type: 'StorylockWarning' });
  });

  test('listeners are called with the manager as this, and once means once', async () => {
    const manager = newManager();
    const rival = newManager();
    const seen = [];
    manager.on('compromised', function () {
      seen.push(['on', this === manager]);
    });
    manager.once('compromised', function () {
      seen.push(['once', this === manager]);
    });
    for (let i = 0; i < 2; i++) {
      await manager.acquire(file, 'S');
      await lose(manager, rival);
    }
    expect(seen).toEqual([
      ['on', true],
      ['once', true],
      ['on', true],
    ]);
  });

  test('without a listener a loss harms nothing', async () => {
    const manager = newManager();
    const lock = await manager.acquire(file, 'S');
    const aborted = once(lock.signal, 'abort');
    await newManager().release(file, 'S');
    await aborted;
    expect(await manager.check(file)).toBeNull();
  });

  test('a lock given up by one manager is lost for another that shares it', async () => {
    const ways = [
      (manager) => manager.release(file, 'S'),
      (manager) => manager.cleanup('S'),
    ];
    for (const giveUp of ways) {
      const [manager, other] = [newManager(), newManager()];
      const [own, told] = [jest.fn(), jest.fn()];
      manager.on('compromised', own);
      other.on('compromised', told);
      const lock = await manager.acquire(file, 'S');
      const shared = await other.acquire(file, 'S');
      expect(shared.lockId).toBe(lock.lockId);
      await giveUp(manager);
      expect(await shared.verify()).toBe(false);
      expect(told).toHaveBeenCalledTimes(1);
      expect(shared.signal.aborted).toBe(true);
      expect(own).not.toHaveBeenCalled();
      expect(lock.signal.aborted).toBe(false);
    }
  });

  test('a lock that two managers share is held until both have given it up', async () => {
    const [manager, other] = [newManager(), newManager()];
    const lock = await manager.acquire(file, 'S');
    const shared = await other.acquire(file, 'S');
    expect(await lock.release()).toBe(true);
    expect(await shared.verify()).toBe(true);
    expect(await manager.tryAcquire(file, 'OTHER')).toBeNull();
    expect(await shared.release()).toBe(true);
    expect(await manager.check(file)).toBeNull();
  });

  test('a lock that is given up is not lost', async () => {
    const manager = newManager();
    const listener = jest.fn();
    manager.on('compromised', listener);
    const signals = [];
    const giveUp = [
      (lock) => lock.release(),
      () => manager.release(file, 'S'),
      () => manager.cleanup('S'),
      () => manager.cleanupStoryLocks('S'),
      () => manager.close(),
    ];
    for (const way of giveUp) {
      const lock = await manager.acquire(file, 'S');
      signals.push(lock.signal);
      await way(lock);
    }
    await newManager().status();
    expect(signals.map((signal) => signal.aborted)).toEqual(giveUp.map(() => false));
    expect(listener).not.toHaveBeenCalled();
  });
});
