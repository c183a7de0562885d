'use strict';

/**
 * A disk that takes nothing more, or nothing at all: nothing is granted that is not certain, what
 * is held stays held and can be given up, and the error names the path and what to do.
 */

const fs = require('node:fs');

const { makeNobody, smallDisk, testUnless, whyNoMount } = require('./fixtures/machine.js');
const { Project, cleanUp, project, rejection, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

afterEach(cleanUp);

describe('a folder that cannot be written', () => {
  /** Nothing is granted, and the error names the path and the remedy; looking works as before. */
  async function expectNoGrant(story, where, code, remedy) {
    for (const method of ['acquire', 'tryAcquire']) {
      const error = await rejection(story.call(method, 'a.js', 'AH-2'));
      expect(error).toMatchObject({ name: 'LockError', code });
      expect(error.path.startsWith(where.root)).toBe(true);
      expect(error.message).toContain(error.path);
      expect(error.hint).toContain(remedy);
    }
    expect(where.record('a.js')).toBeNull();
    expect(await story.call('check', 'a.js')).toBeNull();
    expect(await story.call('check', 'old.js')).toMatchObject({ storyId: 'OLD-1' });
    expect(await story.call('status')).toMatchObject({ totalLocks: 1 });
  }

  test.each(['.ai/locks', '.ai'])('because this user may not write %s: EACCES', async (name) => {
    const at = project();
    fs.chmodSync(at.root, 0o755);
    at.plant('old.js');
    fs.chmodSync(at.path(name), 0o555);
    const story = await startProcess(at.root);
    await makeNobody(story);
    await expectNoGrant(story, at, 'EACCES', 'write access');
  });

  testUnless(whyNoMount(), 'because its file system is read-only: EROFS', async () => {
    const disk = smallDisk('1m');
    const where = new Project(disk.root);
    where.plant('old.js');
    disk.remount('ro');
    const story = await startProcess(disk.root);
    await expectNoGrant(story, where, 'EROFS', 'writable');
    disk.remount('rw');
    expect(await story.call('acquire', 'a.js', 'AH-2')).toBeTruthy();
  });
});

describe('a full disk', () => {
  let disk;
  const fill = () => {
    const ballast = fs.openSync(disk.path('ballast'), 'a');
    try {
      for (;;) fs.writeSync(ballast, Buffer.alloc(4096));
    } catch (error) {
      if (error.code !== 'ENOSPC') throw error;
    } finally {
      fs.closeSync(ballast);
    }
  };
  const freeSome = (bytes) => {
    const ballast = disk.path('ballast');
    fs.truncateSync(ballast, Math.max(0, fs.statSync(ballast).size - bytes));
  };
  const isFull = (error) => {
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOSPC' });
    expect(error.path.startsWith(disk.root)).toBe(true);
    expect(error.message).toContain(error.path);
    expect(error.hint).toContain('Free some space');
  };
  const testFull = (name, work) => testUnless(whyNoMount(), name, async () => {
    disk = new Project(smallDisk('512k').root);
    await work(await startProcess(disk.root));
  });

  testFull('from the start: nothing is granted until there is space', async (story) => {
    fill();
    isFull(await rejection(story.call('acquire', 'a.js', 'AH-1')));
    isFull(await rejection(story.call('acquireAll', ['a.js', 'b.js'], 'AH-1')));
    expect(await story.call('check', 'a.js')).toBeNull();
    expect(await story.call('status')).toMatchObject({ totalLocks: 0 });
    freeSome(400_000);
    expect(await story.call('acquire', 'a.js', 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });

  testFull('that fills up: what is held stays held and can be released', async (story) => {
    await story.do(async ({ manager, held }) => {
      held.lock = await manager.acquire('a.js', 'AH-1', Infinity);
      await manager.acquire('b.js', 'AH-1', Infinity);
    });
    fill();
    isFull(await rejection(story.call('acquire', 'c.js', 'AH-1')));
    expect(await story.do(({ held }) => held.lock.verify())).toBe(true);
    isFull(await rejection(story.do(({ held }) => held.lock.renew(60_000))));
    expect(await story.do(({ held }) => held.lock.verify())).toBe(true);
    expect(await story.call('release', 'b.js', 'AH-1')).toBe(true);
    expect(await story.do(({ held }) => held.lock.release())).toBe(true);
    expect([disk.record('a.js'), disk.record('b.js')]).toEqual([null, null]);
    expect((await story.call('status')).error).toContain('The view could not be written');
    freeSome(100_000);
    await until(() => disk.viewed(), (files) => files.length === 0);
    expect(await story.call('acquire', 'c.js', 'AH-1')).toMatchObject({ storyId: 'AH-1' });
    expect(await story.call('status')).not.toHaveProperty('error');
  });

  testFull('in the middle of a set: none of it is locked', async (story) => {
    await story.call('acquire', 'z.js', 'AH-1', Infinity);
    fill();
    freeSome(5 * 4096);
    const files = Array.from({ length: 40 }, (_, number) => `${number}.js`);
    isFull(await rejection(story.call('acquireAll', files, 'AH-1')));
    expect(files.filter((name) => disk.record(name) !== null)).toEqual([]);
    const { activeLocks, unreadable } = await story.call('status');
    expect(activeLocks.map((lock) => lock.filePath)).toEqual([disk.path('z.js')]);
    expect(unreadable).toEqual([]);
    freeSome(400_000);
    expect((await story.call('acquireAll', files, 'AH-1')).locks).toHaveLength(40);
  });
});
