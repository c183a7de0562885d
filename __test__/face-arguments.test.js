'use strict';

/** What callers may pass: the rest is refused before anything is touched. */

const fs = require('node:fs');
const { inspect } = require('node:util');
const { LockManager } = require('..');
const { project, newManager, cleanUp, rejection } = require('./fixtures/face.js');

let root;
let file;
beforeEach(() => {
  ({ root, file } = project());
});
afterEach(cleanUp);

describe('arguments', () => {
  const TYPE = [TypeError, 'ERR_INVALID_ARG_TYPE'];
  const VALUE = [TypeError, 'ERR_INVALID_ARG_VALUE'];
  const RANGE = [RangeError, 'ERR_OUT_OF_RANGE'];
  const fn = () => 'never';
  const noFn = () => {
    throw new Error('the work must not run');
  };

  const badTexts = [
    [undefined, TYPE],
    [null, TYPE],
    [7, TYPE],
    [Buffer.from('a'), TYPE],
    [new String('a'), TYPE],
    [['a', 7], TYPE],
    ['', VALUE],
    ['a\0b', VALUE],
    ['a\ud800b', VALUE],
    ['x'.repeat(257), VALUE],
  ];
  const badTimeouts = [
    [null, TYPE],
    ['1000', TYPE],
    [true, TYPE],
    [1000n, TYPE],
    [0, RANGE],
    [-1, RANGE],
    [0.5, RANGE],
    [NaN, RANGE],
    [-Infinity, RANGE],
    [2 ** 53, RANGE],
  ];
  const badOptions = [
    ['timeout', TYPE],
    [[], TYPE],
    [() => {}, TYPE],
    [{ retries: 3 }, VALUE],
    [{ retries: undefined }, VALUE],
    [{ toString: 1 }, VALUE],
    [{ retries: 3 }, VALUE],
    [{ mode: 'read' }, VALUE],
    [{ mode: true }, TYPE],
    [{ recursive: 1 }, TYPE],
    [{ reason: 7 }, TYPE],
    [{ reason: 'a\ud800' }, VALUE],
  ];

  const byPath = {
    acquire: (m, value) => m.acquire(value, 'S'),
    tryAcquire: (m, value) => m.tryAcquire(value, 'S'),
    release: (m, value) => m.release(value, 'S'),
    renew: (m, value) => m.renew(value, 'S'),
    check: (m, value) => m.check(value),
    withLock: (m, value) => m.withLock(value, 'S', noFn),
    runStory: (m, value) => m.runStory('S', value, noFn),
    acquireAll: (m, value) => m.acquireAll([file, value], 'S'),
  };
  const byStory = {
    acquire: (m, value) => m.acquire(file, value),
    tryAcquire: (m, value) => m.tryAcquire(file, value),
    acquireAll: (m, value) => m.acquireAll([file], value),
    release: (m, value) => m.release(file, value),
    renew: (m, value) => m.renew(file, value),
    withLock: (m, value) => m.withLock(file, value, noFn),
    runStory: (m, value) => m.runStory(value, file, noFn),
    cleanup: (m, value) => m.cleanup(value),
    cleanupStoryLocks: (m, value) => m.cleanupStoryLocks(value),
  };
  const byTimeout = {
    acquire: (m, value) => m.acquire(file, 'S', value),
    'acquire, as an option': (m, value) => m.acquire(file, 'S', { timeout: value }),
    tryAcquire: (m, value) => m.tryAcquire(file, 'S', value),
    acquireAll: (m, value) => m.acquireAll([file], 'S', value),
    renew: (m, value) => m.renew(file, 'S', value),
  };
  const byOptions = {
    acquire: (m, value) => m.acquire(file, 'S', value),
    tryAcquire: (m, value) => m.tryAcquire(file, 'S', value),
    acquireAll: (m, value) => m.acquireAll([file], 'S', value),
    withLock: (m, value) => m.withLock(file, 'S', value, noFn),
    runStory: (m, value) => m.runStory('S', file, value, noFn),
  };
  const table = [
    ['path', byPath, badTexts],
    ['storyId', byStory, badTexts],
    ['timeout', byTimeout, badTimeouts],
    ['options', byOptions, badOptions],
  ].flatMap(([argument, calls, values]) =>
    Object.entries(calls).map(([name, call]) => [argument, name, call, values]),
  );

  test.each(table)(
    'a bad %s of %s rejects before anything is touched',
    async (_, name, call, values) => {
      const manager = newManager();
      for (const [value, [Kind, code]] of values) {
        if (name === 'acquireAll' && Array.isArray(value) && value.length > 0) continue;
        const promise = call(manager, value);
        expect(promise).toBeInstanceOf(Promise);
        const error = await rejection(promise);
        expect({ value, Kind: error.constructor, code: error.code }).toEqual({ value, Kind, code });
        expect(error.message).toMatch(/^The (argument|value of) '/);
      }
      expect(fs.readdirSync(root)).toEqual([]);
    },
  );

  test.each([
    ['an empty set', () => [[], 'S'], VALUE],
    ['one path instead of a set', () => [file, 'S'], TYPE],
    ['an array-like', () => [{ 0: file, length: 1 }, 'S'], TYPE],
    ['a hole', () => [[file, , file], 'S'], TYPE],
  ])('%s is refused as a set', async (_, args, [Kind, code]) => {
    const error = await rejection(newManager().acquireAll(...args()));
    expect([error.constructor, error.code]).toEqual([Kind, code]);
    expect(fs.readdirSync(root)).toEqual([]);
  });

  test('an empty set is refused by scopes too', async () => {
    const manager = newManager();
    expect((await rejection(manager.withLock([], 'S', noFn))).code).toBe('ERR_INVALID_ARG_VALUE');
    expect((await rejection(manager.runStory('S', [], noFn))).code).toBe('ERR_INVALID_ARG_VALUE');
  });

  test.each([[undefined], [null], ['fn'], [{}]])('%p is no work for a scope', async (work) => {
    const manager = newManager();
    for (const promise of [
      manager.withLock(file, 'S', {}, work),
      manager.runStory('S', file, {}, work),
    ]) {
      expect((await rejection(promise)).code).toBe('ERR_INVALID_ARG_TYPE');
    }
    expect(fs.readdirSync(root)).toEqual([]);
  });

  test('a lease of its own is no option of a scope', async () => {
    const error = await rejection(newManager().withLock(file, 'S', { timeout: 5 }, fn));
    expect(error.code).toBe('ERR_INVALID_ARG_VALUE');
    expect(error.message).toBe(
      "The argument 'options.timeout' is not an option here. " +
        'Known: wait, signal, reason, mode, recursive, glob.',
    );
  });

  test('an unknown option is refused naming the known ones', async () => {
    const error = await rejection(newManager().acquire(file, 'S', { retries: 3 }));
    expect(error.message).toMatch(
      /'options\.retries'.*Known: timeout, wait, signal, reason, detached, mode, recursive\.$/,
    );
  });

  test('a detached lock needs a lease that ends', async () => {
    const options = { detached: true, timeout: Infinity };
    const error = await rejection(newManager().acquire(file, 'S', options));
    expect([error.constructor, error.code]).toEqual([RangeError, 'ERR_OUT_OF_RANGE']);
    expect((await rejection(newManager().acquire(file, 'S', { detached: 1 }))).code).toBe(
      'ERR_INVALID_ARG_TYPE',
    );
  });

  test.each([
    [null, TYPE],
    ['/project', TYPE],
    [[], TYPE],
    [{ root: null }, TYPE],
    [{ root: 7 }, TYPE],
    [{ root: '' }, VALUE],
    [{ root: 'a\0b' }, VALUE],
    [{ root: '\udfff' }, VALUE],
    [{ timeout: null }, TYPE],
    [{ timeout: '1000' }, TYPE],
    [{ timeout: 0 }, RANGE],
    [{ timeout: -1 }, RANGE],
    [{ timeout: NaN }, RANGE],
    [{ timeout: 1.5 }, RANGE],
    [{ dir: '/project' }, VALUE],
  ])('new LockManager(%j) throws at once', (options, [Kind, code]) => {
    let error;
    try {
      new LockManager(options);
    } catch (thrown) {
      error = thrown;
    }
    expect([error?.constructor, error?.code]).toEqual([Kind, code]);
  });

  test('an error of a bad argument leads to the caller', async () => {
    async function theCaller() {
      await newManager().acquire(file, 7);
    }
    expect((await rejection(theCaller())).stack).toMatch(/theCaller/);
  });

  test('where more than one type will do, the error names them all', async () => {
    const manager = newManager();
    const texts = [manager.withLock(7, 'S', noFn), manager.acquire(file, 'S', '5000')];
    expect((await Promise.all(texts.map(rejection))).map((error) => error.message)).toEqual([
      "The argument 'path' must be a string or an object with a path, or an array of these. " +
        'Received 7',
      "The argument 'timeout' must be a number of milliseconds or an object of options. " +
        "Received '5000'",
    ]);
  });

  test('whatever is passed can be shown', async () => {
    const refuse = () => {
      throw new Error('hostile');
    };
    for (const hostile of [new Proxy({}, { get: refuse }), { [inspect.custom]: refuse }]) {
      const error = await rejection(newManager().acquire(hostile, 'S'));
      expect(error.code).toBe('ERR_INVALID_ARG_TYPE');
    }
    const long = await rejection(newManager().acquire(Array(1000).fill('long'), 'S'));
    expect(long.message.length).toBeLessThan(200);
  });
});
