'use strict';

/**
 * What else can stand where storylock keeps its state: devices, giants, files of other users, names
 * that are in the making or will be. What hostile.test.js has (links, FIFOs, damaged records) is not
 * repeated; journals, notes and queues are in tests/planted*.rs.
 */

const fs = require('node:fs');
const path = require('node:path');

const { defect } = require('./fixtures/defect.js');
const { NOBODY, makeNobody, must, testUnless } = require('./fixtures/machine.js');
const { cleanUp, folder, project, rejection } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

const whyNotRoot = process.getuid() === 0 ? null : 'only root makes devices and gives files away';

let at;
let outside;
beforeEach(() => {
  at = project();
  outside = folder();
  fs.writeFileSync(path.join(outside, 'precious'), 'theirs');
});
afterEach(() => {
  // Whatever was planted: nothing was written, made or removed by way of a link.
  expect(fs.readdirSync(outside)).toEqual(['precious']);
  expect(fs.readFileSync(path.join(outside, 'precious'), 'utf8')).toBe('theirs');
  return cleanUp();
});

const inLocks = (...names) => at.path('.ai', 'locks', ...names);

const device = (place, minor) => must('mknod', place, 'c', '1', String(minor));
const sparse = (place) => {
  fs.writeFileSync(place, '');
  fs.truncateSync(place, 2 ** 30);
};
const GIANTS = [
  ['1 GB of nothing', sparse, null],
  ['a device without end (zero)', (place) => device(place, 5), whyNotRoot],
  ['a device that is never ready (null)', (place) => device(place, 3), whyNotRoot],
  ['a device that is full', (place) => device(place, 7), whyNotRoot],
];

describe.each(GIANTS)('%s', (_, plant, why) => {
  testUnless(why, 'in the place of a record counts as held, and holds up no other', async () => {
    fs.mkdirSync(inLocks());
    plant(at.recordFile('a'));
    const manager = at.manager();
    const refused = await rejection(manager.acquire(at.path('a'), 'AH-1'));
    expect(refused).toMatchObject({ code: 'EBADRECORD', path: at.path('a') });
    expect(refused.hint).toContain('remove it');
    expect(await manager.acquire(at.path('b'), 'AH-1')).toMatchObject({ storyId: 'AH-1' });
    expect((await manager.status()).unreadable).toEqual([at.recordFile('a')]);
    expect(at.viewed()).toEqual(['b']);
  });

  testUnless(why, 'in the place of any other file of the state is in nobody’s way', async () => {
    fs.mkdirSync(inLocks('queue'), { recursive: true });
    for (const name of ['holders', 'staged', 'written']) fs.mkdirSync(inLocks(name));
    fs.mkdirSync(at.path('.ai', 'progress'));
    const key = path.basename(at.recordFile('a'), '.lock');
    const places = [`queue/${key}`, `written/${key}`, 'staged/7-8', 'holders/7', 'holders/7.bell'];
    const temporary = ['', 'holders', 'queue', 'staged', 'written', '../progress'];
    for (const name of places) plant(inLocks(name));
    for (const name of temporary) plant(inLocks(name, '.next'));
    plant(at.path('.ai', 'progress', 'locks.json'));
    plant(inLocks('.gitignore'));
    const manager = at.manager();
    await manager.acquire(at.path('a'), 'AH-1', Infinity);
    const turn = at.manager().acquire(at.path('a'), 'AH-2', { wait: Infinity });
    await manager.applyPatch(at.path('a'), 'AH-1', 'new');
    await manager.release(at.path('a'), 'AH-1');
    expect(await turn).toMatchObject({ storyId: 'AH-2' });
    expect(at.viewed()).toEqual(['a']);
    expect(await manager.status()).not.toHaveProperty('error');
    expect(fs.readFileSync(at.path('a'), 'utf8')).toBe('new');
  });
});

testUnless(whyNotRoot, 'a guard that is a device is refused, and named', async () => {
  fs.mkdirSync(inLocks());
  device(inLocks('.guard'), 5);
  const refused = await rejection(at.manager().acquire(at.path('a'), 'AH-1'));
  expect(refused).toMatchObject({ name: 'LockError', path: inLocks('.guard') });
  expect(refused.hint).toContain('remove or rename');
});

describe('folders for changes and waiters that are something else', () => {
  const KINDS = {
    'a link to a folder': (place) => fs.symlinkSync(outside, place),
    'a link to nothing': (place) => fs.symlinkSync(path.join(outside, 'nowhere'), place),
    'a file': (place) => fs.writeFileSync(place, 'a file'),
    'a FIFO': (place) => must('mkfifo', place),
  };
  const cases = ['queue', 'staged'].flatMap((name) => Object.keys(KINDS).map((kind) => [name, kind]));

  test.each(cases)('.ai/locks/%s is %s: nothing is changed, and it is named', async (name, kind) => {
    fs.mkdirSync(inLocks());
    KINDS[kind](inLocks(name));
    fs.writeFileSync(at.path('a'), 'old');
    const manager = at.manager();
    const refused = await rejection(manager.applyPatch(at.path('a'), 'AH-1', 'new'));
    expect(refused).toMatchObject({ name: 'LockError', path: inLocks(name) });
    expect(refused.code).toMatch(/^(ENOTDIR|ELOOP)$/);
    expect(refused.hint).toContain('remove or rename');
    expect(fs.readFileSync(at.path('a'), 'utf8')).toBe('old');
    await manager.check(at.path('a')).catch((told) => expect(told.path).toBe(inLocks(name)));
    fs.unlinkSync(inLocks(name));
    await manager.applyPatch(at.path('a'), 'AH-1', 'new');
    expect(fs.readFileSync(at.path('a'), 'utf8')).toBe('new');
  });

  test.each(Object.keys(KINDS))('.ai/locks/written is %s: files are changed', async (kind) => {
    fs.mkdirSync(inLocks());
    KINDS[kind](inLocks('written'));
    const manager = at.manager();
    await manager.applyPatch(at.path('a'), 'AH-1', 'new');
    expect(fs.readFileSync(at.path('a'), 'utf8')).toBe('new');
    // Who wrote it last is not known, and nothing else is missing.
    const stale = await rejection(manager.applyPatch(at.path('a'), 'AH-2', 'x', { expect: null }));
    expect(stale).toMatchObject({ code: 'EBASE', writer: null });
  });
});

describe('names that will be needed', () => {
  defect(12, 'what stands at both names of a file in the making is in nobody’s way', async () => {
    for (const name of ['.next', '.next.aside']) {
      fs.mkdirSync(inLocks(name, 'full'), { recursive: true });
    }
    const lock = await at.manager().acquire(at.path('a'), 'AH-1');
    expect(lock.storyId).toBe('AH-1');
  });

  defect(13, 'a holder file’s next number that is taken is passed over', async () => {
    // A guard whose numbers are known: the first that is drawn here is the next one.
    fs.mkdirSync(inLocks('holders'), { recursive: true });
    const guard = Buffer.alloc(65_536);
    guard.write('storylk1');
    const last = 2n ** 52n;
    for (const place of [8, 16]) guard.writeBigUInt64LE(last, place);
    fs.writeFileSync(inLocks('.guard'), guard);
    for (let next = 1n; next < 20n; next++) {
      fs.symlinkSync(path.join(outside, 'precious'), inLocks('holders', String(last + next)));
    }
    expect(await at.manager().acquire(at.path('a'), 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });
});

describe('files of another user', () => {
  const shared = () => {
    fs.chmodSync(at.root, 0o777);
    fs.mkdirSync(inLocks());
    for (const place of [at.path('.ai'), inLocks()]) fs.chmodSync(place, 0o777);
  };

  testUnless(whyNotRoot, 'a record is honoured, and ends by its lease, whoever owns it', async () => {
    shared();
    const record = at.oldRecord('a', { acquiredAt: Date.now() - 29_000 });
    at.plant('a', JSON.stringify(record));
    fs.chownSync(at.recordFile('a'), NOBODY, NOBODY);
    const manager = at.manager();
    expect(await manager.tryAcquire(at.path('a'), 'AH-1')).toBeNull();
    const lock = await manager.acquire(at.path('a'), 'AH-1', { wait: 60_000 });
    expect(lock.reclaimed).toMatchObject({ storyId: 'OLD-1', how: 'expired' });
    expect(fs.statSync(at.recordFile('a')).uid).toBe(0);
  });

  testUnless(whyNotRoot, 'a project of root’s refuses another user, and says what to do', async () => {
    await (await at.manager().acquire(at.path('a'), 'AH-1')).release();
    fs.chmodSync(at.root, 0o755);
    const story = await startProcess(at.root);
    await makeNobody(story);
    const before = fs.readdirSync(inLocks(), { recursive: true }).sort();
    for (const call of [
      () => story.call('acquire', 'a', 'AH-2'),
      () => story.call('acquireAll', ['a', 'b'], 'AH-2'),
      () => story.call('applyPatch', 'a', 'AH-2', 'x'),
    ]) {
      const refused = await rejection(call());
      expect(refused).toMatchObject({ name: 'LockError', code: 'EACCES' });
      expect(refused.hint).toMatch(/write access|owner/);
    }
    expect(fs.readdirSync(inLocks(), { recursive: true }).sort()).toEqual(before);
    // Looking is allowed, as far as the files are readable.
    await at.manager().acquire(at.path('a'), 'AH-1', Infinity);
    expect(await story.call('check', 'a')).toMatchObject({ storyId: 'AH-1' });
    expect(await story.call('status')).toMatchObject({ totalLocks: 1, staleLocks: 0 });
  });

  testUnless(whyNotRoot, 'two users who share a project keep each other out, alive or dead', async () => {
    fs.chmodSync(at.root, 0o777);
    // As a shared folder has it: what is made belongs to all.
    fs.chmodSync(at.path('.ai'), 0o777);
    const story = await startProcess(at.root);
    await makeNobody(story);
    await story.call('acquire', 'a', 'AH-1', Infinity);
    const manager = at.manager();
    const refused = await rejection(manager.acquire(at.path('a'), 'AH-2'));
    expect(refused).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-1' } });
    await story.kill();
    const lock = await manager.acquire(at.path('a'), 'AH-2');
    expect(lock.reclaimed).toMatchObject({ storyId: 'AH-1', how: 'died' });
  });

  testUnless(whyNotRoot, 'a file that is patched stays its owner’s', async () => {
    fs.writeFileSync(at.path('a'), 'old');
    fs.chmodSync(at.path('a'), 0o640);
    fs.chownSync(at.path('a'), NOBODY, NOBODY);
    await at.manager().applyPatch(at.path('a'), 'AH-1', 'new');
    const { uid, gid, mode } = fs.statSync(at.path('a'));
    expect({ uid, gid, mode: mode & 0o777 }).toEqual({ uid: NOBODY, gid: NOBODY, mode: 0o640 });
  });

  testUnless(whyNotRoot, 'a folder that may not be read is refused, and named', async () => {
    fs.chmodSync(at.root, 0o755);
    await (await at.manager().acquire(at.path('a'), 'AH-1')).release();
    const story = await startProcess(at.root);
    await makeNobody(story);
    for (const place of [inLocks(), at.path('.ai')]) {
      fs.chmodSync(place, 0);
      const refused = await rejection(story.call('acquire', 'a', 'AH-2'));
      expect(refused).toMatchObject({ name: 'LockError', code: 'EACCES' });
      expect(refused.path.startsWith(place)).toBe(true);
      expect((await story.call('status')).error).toContain(place);
      fs.chmodSync(place, 0o755);
    }
  });
});
