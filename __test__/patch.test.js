'use strict';

/**
 * `applyPatch`, `hash` and `read`: a file is replaced whole or stays as it is, whatever it is
 * replaced by, and nothing that was made on the way stays.
 */

const { createHash } = require('node:crypto');
const fs = require('node:fs');

const { LockError, hash, read } = require('..');
const { makeNobody, smallDisk, testUnless, whyNoMount } = require('./fixtures/machine.js');
const { leftovers } = require('./fixtures/patch-trees.js');
const { Project, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startAll, startProcess } = require('./fixtures/stories.js');

const QUICK = { durable: false };

let at;
let manager;
beforeEach(() => {
  at = project();
  manager = at.manager();
  fs.writeFileSync(at.path('a.txt'), 'one\n');
});
afterEach(cleanUp);

const text = (name = 'a.txt') => fs.readFileSync(at.path(name), 'utf8');
const modeOf = (name) => fs.statSync(at.path(name)).mode & 0o7777;
const patch = (content, options) => manager.applyPatch(at.path('a.txt'), 'AH-1', content, options);
const held = async () => (await manager.status()).totalLocks;

describe('the content', () => {
  const bytes = Buffer.from('\xff\x00\r\nwide', 'latin1');
  const inside = Buffer.concat([Buffer.from('before'), bytes, Buffer.from('after!!!')]);
  const viewOf = (View, width = 1) =>
    new View(Uint8Array.from(bytes).buffer, 0, Math.floor(bytes.length / width));

  test.each([
    ['a string', 'zwölf\n', Buffer.from('zwölf\n')],
    ['an empty string', '', Buffer.alloc(0)],
    ['a Buffer', bytes, bytes],
    ['a part of a Buffer', inside.subarray(6, 6 + bytes.length), bytes],
    ['a Uint8Array', viewOf(Uint8Array), bytes],
    ['a Uint16Array', viewOf(Uint16Array, 2), bytes.subarray(0, 8)],
    ['a Float64Array', viewOf(Float64Array, 8), bytes.subarray(0, 8)],
    ['a DataView', viewOf(DataView), bytes],
    ['a function', (now) => `${now}two\n`, Buffer.from('one\ntwo\n')],
    [
      'an async function',
      async (now) => Buffer.concat([now, bytes]),
      Buffer.concat([Buffer.from('one\n'), bytes]),
    ],
  ])('may be %s', async (_, content, wanted) => {
    const file = at.path('a.txt');
    const sum = createHash('sha256').update(wanted).digest('hex');
    expect(await patch(content)).toEqual({ path: file, hash: sum });
    expect(fs.readFileSync(file).equals(wanted)).toBe(true);
    expect(await read(file)).toEqual({ content: fs.readFileSync(file), hash: sum });
    expect(leftovers(at.root)).toEqual([]);
    expect(await held()).toBe(0);
  });

  test('is given to a function as null where there is no file', async () => {
    const given = [];
    await manager.applyPatch(at.path('new.txt'), 'AH-1', (now) => given.push(now) && 'made');
    expect(given).toEqual([null]);
    expect(text('new.txt')).toBe('made');
  });

  test('of a large file is written whole', async () => {
    const large = Buffer.alloc(8 * 1024 * 1024, 'abcdefg');
    expect(await patch(large, QUICK)).toMatchObject({ hash: hash(large) });
    expect((await read(at.path('a.txt'))).hash).toBe(hash(large));
  });

  test.each([[5], [null], [undefined], [['a']], [{}], [new ArrayBuffer(4)]])(
    'is not %p, which is refused before anything is touched',
    async (content) => {
      const wrong = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' };
      expect(await rejection(patch(content))).toMatchObject(wrong);
      expect(fs.existsSync(at.path('.ai', 'locks'))).toBe(false);
      expect(await rejection(patch(() => content))).toMatchObject(wrong);
      expect(text()).toBe('one\n');
      expect(await held()).toBe(0);
    },
  );

  test('made by a function that fails leaves the file, and the function is heard', async () => {
    for (const fail of [
      () => {
        throw new RangeError('mine');
      },
      () => Promise.reject(new RangeError('mine')),
    ]) {
      const error = await rejection(patch(fail));
      expect(error).toBeInstanceOf(RangeError);
      expect(error.message).toBe('mine');
    }
    expect(text()).toBe('one\n');
    expect(leftovers(at.root)).toEqual([]);
    expect(await held()).toBe(0);
  });

  test('of a function is not written over what came while it was made', async () => {
    const error = await rejection(
      patch((now) => {
        fs.writeFileSync(at.path('a.txt'), 'by somebody who asked nobody\n');
        return `${now}two\n`;
      }),
    );
    expect(error).toMatchObject({ code: 'EBASE', expected: hash('one\n') });
    expect(text()).toBe('by somebody who asked nobody\n');
  });
});

describe('hash and read', () => {
  test('tell the SHA-256 of the bytes', async () => {
    const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
    expect([hash(''), hash(Buffer.alloc(0)), hash(new Uint8Array())]).toEqual([
      empty,
      empty,
      empty,
    ]);
    expect(hash(new Uint8Array([0xc3, 0xb6]))).toBe(hash('ö'));
    expect(() => hash(1)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
  });

  test('tell null of a file that is not there, and fail where it cannot be read', async () => {
    expect(await read(at.path('none'))).toEqual({ content: null, hash: null });
    expect(await rejection(read(at.root))).toMatchObject({ code: 'EISDIR' });
  });
});

describe('the file', () => {
  test.each([0o644, 0o600, 0o755, 0o444, 0o664])('keeps its mode %o', async (mode) => {
    fs.chmodSync(at.path('a.txt'), mode);
    await patch('two\n');
    expect([text(), modeOf('a.txt')]).toEqual(['two\n', mode]);
  });

  testUnless(
    process.getuid() === 0 ? null : 'only root gives files away',
    'keeps its owner',
    async () => {
      fs.chownSync(at.path('a.txt'), 1234, 5678);
      await patch('two\n');
      expect(fs.statSync(at.path('a.txt'))).toMatchObject({ uid: 1234, gid: 5678 });
    },
  );

  test('that is new has the mode that the process makes files with', async () => {
    const story = await startProcess(at.root);
    const made = await story.do(async ({ manager, require }) => {
      process.umask(0o077);
      await manager.applyPatch('new.txt', 'AH-1', 'secret');
      return require('node:fs').statSync('new.txt').mode & 0o7777;
    });
    expect(made.toString(8)).toBe('600');
  });

  test('is written through a link, which stays', async () => {
    fs.mkdirSync(at.path('real'));
    fs.writeFileSync(at.path('real', 'b.txt'), 'b\n');
    fs.symlinkSync('real/b.txt', at.path('link'));
    fs.symlinkSync('link', at.path('far'));
    fs.symlinkSync('real/dangling.txt', at.path('dangling'));
    const done = await manager.applyPatch(at.path('far'), 'AH-1', 'B\n');
    expect(done.path).toBe(at.path('real', 'b.txt'));
    await manager.applyPatch(at.path('dangling'), 'AH-1', 'D\n');
    expect([text('real/b.txt'), text('real/dangling.txt')]).toEqual(['B\n', 'D\n']);
    const links = ['far', 'link', 'dangling'].map((name) => fs.readlinkSync(at.path(name)));
    expect(links).toEqual(['link', 'real/b.txt', 'real/dangling.txt']);
    expect(leftovers(at.root)).toEqual([]);
  });

  test('that is new needs its folder, or leave to make it', async () => {
    const file = at.path('x', 'y', 'new.txt');
    const error = await rejection(manager.applyPatch(file, 'AH-1', 'new'));
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOENT', path: file });
    expect(error.hint).toContain('parents');
    expect(fs.existsSync(at.path('x'))).toBe(false);
    await manager.applyPatch(file, 'AH-1', 'new', { parents: true });
    expect(text('x/y/new.txt')).toBe('new');
  });

  test('must be a file: a folder or a pipe is refused', async () => {
    fs.mkdirSync(at.path('folder'));
    const error = await rejection(manager.applyPatch(at.path('folder'), 'AH-1', 'x'));
    expect(error).toMatchObject({ name: 'LockError', code: 'EISDIR', path: at.path('folder') });
    expect(leftovers(at.root)).toEqual([]);
    expect(await held()).toBe(0);
  });

  test('has folders made for it that go again when it cannot be written', async () => {
    const file = at.path('x', 'y', 'new.txt');
    const stale = { parents: true, expect: hash('what never was') };
    expect(await rejection(manager.applyPatch(file, 'AH-1', 'new', stale))).toMatchObject({
      code: 'EBASE',
    });
    expect(fs.existsSync(at.path('x'))).toBe(false);
  });
});

describe('expect', () => {
  test('lets the content be made without a lock, and refuses when the file changed', async () => {
    const base = await read(at.path('a.txt'));
    await manager.applyPatch(at.path('a.txt'), 'AH-2', 'theirs\n');
    const error = await rejection(patch('mine\n', { expect: base.hash }));
    expect(error).toBeInstanceOf(LockError);
    expect(error).toMatchObject({
      code: 'EBASE',
      path: at.path('a.txt'),
      expected: hash('one\n'),
      actual: hash('theirs\n'),
      writer: { storyId: 'AH-2', pid: process.pid, hash: hash('theirs\n') },
    });
    expect(Math.abs(Date.now() - error.writer.at)).toBeLessThan(60_000);
    for (const part of [hash('one\n'), hash('theirs\n'), 'AH-2', 'Nothing was written']) {
      expect(error.message).toContain(part);
    }
    expect(text()).toBe('theirs\n');
    expect(leftovers(at.root)).toEqual([]);
    expect(await held()).toBe(0);
    await patch('both\n', { expect: error.actual });
    expect(text()).toBe('both\n');
  });

  test('tells no writer where none is known', async () => {
    const error = await rejection(patch('x', { expect: hash('else') }));
    expect(error).toMatchObject({ code: 'EBASE', actual: hash('one\n'), writer: null });
  });

  test('null is for a file that must not exist', async () => {
    const error = await rejection(patch('x', { expect: null }));
    expect(error).toMatchObject({ code: 'EBASE', expected: null, actual: hash('one\n') });
    await manager.applyPatch(at.path('new.txt'), 'AH-1', 'new', { expect: null });
    expect(text('new.txt')).toBe('new');
  });

  test('of a file that is gone tells so', async () => {
    const gone = manager.applyPatch(at.path('none'), 'AH-1', 'x', { expect: hash('one\n') });
    const told = { code: 'EBASE', expected: hash('one\n'), actual: null };
    expect(await rejection(gone)).toMatchObject(told);
    expect(fs.existsSync(at.path('none'))).toBe(false);
  });

  test.each([
    ['x', 'ERR_INVALID_ARG_VALUE'],
    [hash('').toUpperCase(), 'ERR_INVALID_ARG_VALUE'],
    [5, 'ERR_INVALID_ARG_TYPE'],
  ])('is not %p', async (wrong, code) => {
    expect(await rejection(patch('x', { expect: wrong }))).toMatchObject({ code });
  });

  test('by 8 processes that each add 100 lines loses none', async () => {
    const stories = await startAll(8, () => startProcess(at.root));
    const work = async ({ manager, storylock, require, pause }, name, count) => {
      const file = require('node:path').join(manager.root, 'a.txt');
      let retries = 0;
      for (let line = 0; line < count;) {
        const { content, hash: expect } = await storylock.read(file);
        const options = { expect, durable: false };
        try {
          await manager.applyPatch(file, name, `${content}${name} ${line}\n`, options);
          line += 1;
        } catch (error) {
          if (error.code !== 'EBASE' && error.code !== 'ELOCKED') throw error;
          retries += 1;
          await pause(Math.random() * 20);
        }
      }
      return retries;
    };
    const retries = await Promise.all(stories.map((story, n) => story.do(work, `S${n}`, 100)));
    const lines = text().split('\n').slice(1, -1);
    const wanted = stories.flatMap((_, n) => Array.from({ length: 100 }, (_, i) => `S${n} ${i}`));
    expect(lines.toSorted()).toEqual(wanted.toSorted());
    expect(retries.reduce((sum, each) => sum + each)).toBeGreaterThan(0);
    expect(leftovers(at.root)).toEqual([]);
  });
});

describe('the lock', () => {
  test('that the story has is used and kept', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1', 60_000);
    await patch('two\n');
    await rejection(patch('three\n', { expect: null }));
    expect([text(), await lock.verify()]).toEqual(['two\n', true]);
    expect(await manager.check(at.path('a.txt'))).toMatchObject({ token: lock.token });
    expect(lock.signal.aborted).toBe(false);
  });

  test('that is given is used and kept', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-1');
    await patch('two\n', { lock });
    const set = await manager.acquireAll([at.path('b.txt'), at.path('c.txt')], 'AH-1');
    await manager.applyPatch(at.path('c.txt'), 'AH-1', 'c\n', { lock: set });
    expect([text(), text('c.txt')]).toEqual(['two\n', 'c\n']);
    expect([await lock.verify(), await set.verify()]).toEqual([true, true]);
  });

  test('that is given must be of this path and of this story', async () => {
    const lock = await manager.acquire(at.path('b.txt'), 'AH-1');
    expect(await rejection(patch('x', { lock }))).toMatchObject({ code: 'EFENCED' });
    const theirs = await manager.acquire(at.path('a.txt'), 'AH-2');
    expect(await rejection(patch('x', { lock: theirs }))).toMatchObject({ code: 'EFENCED' });
    expect(text()).toBe('one\n');
  });

  test('of a scope serves in it', async () => {
    await manager.withLock(at.path('a.txt'), 'AH-1', async ({ lock }) => {
      await patch('two\n');
      await patch((now) => `${now}three\n`, { lock });
      expect(await lock.verify()).toBe(true);
    });
    expect([text(), await held()]).toEqual(['two\nthree\n', 0]);
  });

  test('that another story has refuses', async () => {
    await manager.acquire(at.path('a.txt'), 'AH-2', 60_000);
    const error = await rejection(patch('two\n'));
    expect(error).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-2' } });
    expect(text()).toBe('one\n');
  });

  test('is waited for in turn, with a limit, and the wait can be called off', async () => {
    const lock = await manager.acquire(at.path('a.txt'), 'AH-2', 60_000);
    const late = await rejection(patch('x', { wait: 30 }));
    expect(late).toMatchObject({ code: 'ELOCKED', reason: 'wait' });
    const controller = new AbortController();
    const called = rejection(patch('x', { wait: Infinity, signal: controller.signal }));
    await until(async () => (await manager.status()).waiting.length === 1);
    controller.abort(new Error('enough'));
    expect((await called).message).toBe('enough');
    const waiting = patch((now) => `${now}two\n`, { wait: Infinity });
    await until(async () => (await manager.status()).waiting.length === 1);
    fs.writeFileSync(at.path('a.txt'), 'what AH-2 made\n');
    await lock.release();
    await waiting;
    expect([text(), await held()]).toEqual(['what AH-2 made\ntwo\n', 0]);
  });
});

describe('readers', () => {
  test('never see a mixture or a missing file, over 1,000 replacements', async () => {
    const [writer, reader] = await startAll(2, () => startProcess(at.root));
    const size = 30_000;
    fs.writeFileSync(at.path('a.txt'), 'a'.repeat(size));
    const reading = reader.do(async ({ require, held, pause }, length) => {
      const { readFileSync } = require('node:fs');
      const seen = new Set();
      const wrong = [];
      let looks = 0;
      for (held.goesOn = true; held.goesOn; looks += 1) {
        const content = readFileSync('a.txt', 'latin1');
        seen.add(content[0]);
        const isWhole = content.length === length && content === content[0].repeat(length);
        if (!isWhole) wrong.push(content.slice(0, 40));
        if (looks % 50 === 0) await pause(0);
      }
      return { looks, seen: seen.size, wrong };
    }, size);
    await writer.do(async ({ manager }, length) => {
      for (let i = 0; i < 1000; i++) {
        const content = 'abcdefghij'[i % 10].repeat(length);
        await manager.applyPatch('a.txt', 'AH-1', content, { durable: false });
      }
    }, size);
    await reader.do(({ held }) => {
      held.goesOn = false;
    });
    const { looks, seen, wrong } = await reading;
    expect(wrong).toEqual([]);
    expect(seen).toBe(10);
    expect(looks).toBeGreaterThan(100);
    expect(leftovers(at.root)).toEqual([]);
  });
});

describe('what is made on the way', () => {
  test('is swept by a later call when its maker was killed', async () => {
    const rounds = 12;
    for (let round = 0; round < rounds; round++) {
      const story = await startProcess(at.root);
      story.do(async ({ manager }) => {
        for (let i = 0; ; i++) {
          await manager.applyPatch('a.txt', 'AH-1', `${i}\n`.repeat(20_000), { durable: false });
        }
      });
      await new Promise((resolve) => setTimeout(resolve, 20 + ((round * 7) % 13)));
      await story.kill();
      const lines = new Set(text().split('\n').slice(0, -1));
      expect(lines.size).toBe(1);
    }
    await patch('mine\n');
    expect([text(), leftovers(at.root)]).toEqual(['mine\n', []]);
  }, 20_000);

  test('goes when the folder may not be written: EACCES, and the file stays', async () => {
    fs.chmodSync(at.root, 0o755);
    fs.mkdirSync(at.path('shut'));
    fs.writeFileSync(at.path('shut', 'a.txt'), 'one\n');
    fs.chmodSync(at.path('shut'), 0o555);
    fs.chmodSync(at.path('.ai'), 0o777);
    const story = await startProcess(at.root);
    await makeNobody(story);
    const error = await rejection(story.call('applyPatch', 'shut/a.txt', 'AH-1', 'two\n'));
    expect(error).toMatchObject({
      name: 'LockError',
      code: 'EACCES',
      path: at.path('shut', 'a.txt'),
    });
    expect(text('shut/a.txt')).toBe('one\n');
    expect(leftovers(at.root)).toEqual([]);
    fs.chmodSync(at.path('shut'), 0o755);
  });

  testUnless(whyNoMount(), 'goes when the disk is full: ENOSPC, and the file stays', async () => {
    const disk = new Project(smallDisk('512k').root);
    fs.writeFileSync(disk.path('a.txt'), 'one\n');
    const story = await startProcess(disk.root);
    const patchThere = (content) => story.call('applyPatch', 'a.txt', 'AH-1', content);
    const error = await rejection(patchThere('x'.repeat(600_000)));
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOSPC', path: disk.path('a.txt') });
    expect(fs.readFileSync(disk.path('a.txt'), 'utf8')).toBe('one\n');
    expect(leftovers(disk.root)).toEqual([]);
    await patchThere('x'.repeat(100_000));
    expect(fs.statSync(disk.path('a.txt')).size).toBe(100_000);
  });
});
