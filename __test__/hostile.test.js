'use strict';

/**
 * Hostile ground: whatever stands where storylock keeps its state, be it damaged or planted, it
 * neither crashes nor hangs nor grants what is not certain, follows no link, and says what stands
 * in the way and what to do about it.
 */

const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');

const { makeNobody, must } = require('./fixtures/machine.js');
const { atEnd, cleanUp, folder, project, rejection } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

let at;
let outside;
beforeEach(() => {
  at = project();
  outside = folder();
});
afterEach(cleanUp);

/** A refusal that names the path and says what to do. */
function expectRefusal(error, { code, names, hint }) {
  expect(error).toMatchObject({ name: 'LockError', code: expect.stringMatching(code) });
  expect(typeof error.path).toBe('string');
  expect(error.message).toContain(names);
  expect(error.hint).toMatch(hint);
  expect(error.message).toContain(error.hint);
  expect(error.message).not.toMatch(/\u001b|\0/);
}

describe('a record that is no record', () => {
  const put = (content) => at.plant('a.js', content);
  const putRecord = (more) => put(JSON.stringify(at.oldRecord('a.js', more)));
  const linkTo = (content) => {
    fs.writeFileSync(path.join(outside, 'target'), content);
    fs.symlinkSync(path.join(outside, 'target'), at.recordFile('a.js'));
  };
  const kinds = [
    ['is empty', () => put('')],
    ['is truncated', () => put(JSON.stringify(at.oldRecord('a.js')).slice(0, 60))],
    ['is binary', () => put(Buffer.from([0x80, 0, 0xff, 0xfe, 0x1b, 0x5b, 0x32, 0x4a]))],
    ['has 10 MB', () => put(Buffer.alloc(10_000_000, 'x'))],
    ['has 10 MB of valid JSON', () => putRecord({ more: 'x'.repeat(10_000_000) })],
    ['is nested without end', () => put('['.repeat(60_000))],
    ['is JSON of something else', () => put('{"lockId":"x"}')],
    ['has fields of other types', () => putRecord({ storyId: 7 })],
    ['has a story that cannot be', () => putRecord({ storyId: '' })],
    ['has a timeout that is no number', () => putRecord({ timeout: null })],
    ['has a negative time', () => putRecord({ acquiredAt: -1 })],
    ['has no token', () => putRecord({ version: 1, token: 0, holder: 7 })],
    ['is of a later version', () => putRecord({ version: 2, token: 7, holder: 7, more: 'new' })],
    ['is a folder', () => fs.mkdirSync(at.recordFile('a.js'))],
    ['is a FIFO', () => must('mkfifo', at.recordFile('a.js'))],
    ['is a socket', () => plantSocket(at.recordFile('a.js'))],
    ['is a link to a record', () => linkTo(JSON.stringify(at.oldRecord('a.js')))],
    ['is a link to something else', () => linkTo('precious')],
    ['is a link to nothing', () => fs.symlinkSync(path.join(outside, 'no'), at.recordFile('a.js'))],
    ['is a link to a device', () => fs.symlinkSync('/dev/zero', at.recordFile('a.js'))],
  ];

  beforeEach(() => fs.mkdirSync(at.path('.ai', 'locks')));

  test.each(kinds)('and %s counts as held: nothing is granted', async (_, plant) => {
    await plant();
    const found = fs.lstatSync(at.recordFile('a.js'));
    const target = readIfThere(path.join(outside, 'target'));
    const manager = at.manager();
    const file = at.path('a.js');
    const wanted = { code: /^EBADRECORD$/, names: at.recordFile('a.js'), hint: /remove it/ };

    expectRefusal(await rejection(manager.acquire(file, 'AH-1')), wanted);
    expectRefusal(await rejection(manager.tryAcquire(file, 'OLD-1', 1)), wanted);
    expectRefusal(await rejection(manager.acquireAll([at.path('b.js'), file], 'AH-1')), wanted);
    expectRefusal(await rejection(manager.renew(file, 'AH-1')), wanted);
    expectRefusal(await rejection(manager.release(file, 'AH-1')), wanted);
    expectRefusal(await rejection(manager.check(file)), wanted);
    expect(await manager.cleanup('OLD-1')).toBe(0);
    const status = await manager.status();
    expect(status).toMatchObject({ totalLocks: 0, unreadable: [at.recordFile('a.js')] });

    expect((await manager.acquire(at.path('b.js'), 'AH-1')).reclaimed).toBeNull();
    expect(at.viewed()).toEqual(['b.js']);
    expect(fs.lstatSync(at.recordFile('a.js'))).toMatchObject({ ino: found.ino, size: found.size });
    expect(readIfThere(path.join(outside, 'target'))).toBe(target);

    fs.rmSync(at.recordFile('a.js'), { recursive: true });
    expect(await manager.acquire(file, 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });

  test('and may not be read refuses its path alone', async () => {
    fs.chmodSync(at.root, 0o755);
    at.plant('a.js');
    fs.chmodSync(at.recordFile('a.js'), 0);
    for (const name of ['.ai', '.ai/locks']) fs.chmodSync(at.path(name), 0o777);
    const story = await startProcess(at.root);
    await makeNobody(story);
    const wanted = { code: /^EACCES$/, names: at.recordFile('a.js'), hint: /access|owner/ };
    for (const method of ['acquire', 'renew', 'release']) {
      expectRefusal(await rejection(story.call(method, 'a.js', 'AH-1')), wanted);
    }
    expectRefusal(await rejection(story.call('check', 'a.js')), wanted);
    expect(await story.call('status')).toMatchObject({ unreadable: [at.recordFile('a.js')] });
    expect(await story.call('acquire', 'b.js', 'AH-1')).toMatchObject({ storyId: 'AH-1' });
    expect(await story.call('cleanup', 'OLD-1')).toBe(0);
  });

  test('with the numbers of eternity is honoured, and crashes no clock', async () => {
    const eternal = { acquiredAt: Number.MAX_SAFE_INTEGER, timeout: Number.MAX_SAFE_INTEGER };
    at.plant('a.js', JSON.stringify(at.oldRecord('a.js', eternal)));
    const manager = at.manager();
    const error = await rejection(manager.acquire(at.path('a.js'), 'AH-1'));
    expect(error).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'OLD-1' } });
    expect((await manager.status()).activeLocks).toHaveLength(1);
    expect(await manager.release(at.path('a.js'), 'OLD-1')).toBe(true);
  });

  test('that names another path than its own holds only the path it stands for', async () => {
    at.plant('a.js', JSON.stringify(at.oldRecord('other.js')));
    const manager = at.manager();
    expect(await manager.tryAcquire(at.path('a.js'), 'AH-1')).toBeNull();
    expect(await manager.acquire(at.path('other.js'), 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });
});

describe('a folder of the state that is something else', () => {
  const SEEMING = {
    'a link to a folder': (place) => fs.symlinkSync(outside, place),
    'a link to nothing': (place) => fs.symlinkSync(path.join(outside, 'nowhere'), place),
    'a link to itself': (place) => fs.symlinkSync(place, place),
    'a file': (place) => fs.writeFileSync(place, 'a file'),
    'a FIFO': (place) => must('mkfifo', place),
  };
  const places = ['.ai', '.ai/locks', '.ai/locks/holders', '.ai/progress'];
  const cases = places.flatMap((name) => Object.keys(SEEMING).map((kind) => [name, kind]));

  test.each(cases)('%s is %s: nothing is granted or written elsewhere', async (name, kind) => {
    fs.rmSync(at.path('.ai'), { recursive: true });
    fs.mkdirSync(path.dirname(at.path(name)), { recursive: true });
    SEEMING[kind](at.path(name));
    const manager = at.manager();
    const error = await rejection(manager.acquire(at.path('a.js'), 'AH-1'));
    const code = /^(ENOTDIR|ELOOP|EEXIST)$/;
    expectRefusal(error, { code, names: at.path(name), hint: /remove or rename/ });
    expect(error.path).toBe(at.path(name));
    await manager.check(at.path('a.js')).catch((told) => expect(told.path).toBe(at.path(name)));
    expect(await manager.status()).toMatchObject({ totalLocks: 0 });
    expect(fs.readdirSync(outside)).toEqual([]);

    fs.unlinkSync(at.path(name));
    expect(await manager.acquire(at.path('a.js'), 'AH-1')).toMatchObject({ storyId: 'AH-1' });
    expect(at.viewed()).toEqual(['a.js']);
  });
});

describe('a file of the state that is something else', () => {
  test.each([
    ['a folder', (place) => fs.mkdirSync(place)],
    ['a FIFO', (place) => must('mkfifo', place)],
    ['a link to a file', (place) => fs.symlinkSync(path.join(outside, 'target'), place)],
    ['a link to nothing', (place) => fs.symlinkSync(path.join(outside, 'nowhere'), place)],
    ['a device by a link', (place) => fs.symlinkSync('/dev/zero', place)],
  ])('the guard is %s: nothing is granted, and the error says what to remove', async (_, plant) => {
    fs.writeFileSync(path.join(outside, 'target'), 'precious');
    fs.mkdirSync(at.path('.ai', 'locks'));
    const guard = at.path('.ai', 'locks', '.guard');
    await plant(guard);
    const manager = at.manager();
    const error = await rejection(manager.acquire(at.path('a.js'), 'AH-1'));
    expectRefusal(error, { code: /^E[A-Z]+$/, names: guard, hint: /remove or rename/ });
    expect(error.path).toBe(guard);
    expect(fs.readdirSync(outside)).toEqual(['target']);
    expect(fs.readFileSync(path.join(outside, 'target'), 'utf8')).toBe('precious');
    fs.rmSync(guard, { recursive: true });
    expect(await manager.acquire(at.path('a.js'), 'AH-1')).toMatchObject({ storyId: 'AH-1' });
  });

  test.each([
    ['a file', (place) => fs.writeFileSync(place, 'left by a kill')],
    ['a folder', (place) => fs.mkdirSync(path.join(place, 'deep'), { recursive: true })],
    ['a FIFO', (place) => must('mkfifo', place)],
    ['a link', (place) => fs.symlinkSync(path.join(outside, 'target'), place)],
  ])('%s has the name of a file in the making: locks work', async (_, plant) => {
    fs.writeFileSync(path.join(outside, 'target'), 'precious');
    for (const name of ['locks', 'progress']) {
      fs.mkdirSync(at.path('.ai', name));
      plant(at.path('.ai', name, '.next'));
    }
    const manager = at.manager();
    const lock = await manager.acquire(at.path('a.js'), 'AH-1');
    await lock.renew();
    expect(at.viewed()).toEqual(['a.js']);
    expect(await lock.release()).toBe(true);
    expect(fs.readFileSync(path.join(outside, 'target'), 'utf8')).toBe('precious');
  });

  test('a holder file that is something else does not free the lock of the living', async () => {
    const story = await startProcess(at.root);
    await story.call('acquire', 'a.js', 'AH-1', Infinity);
    const { holder } = at.record('a.js');
    const holderFile = at.path('.ai', 'locks', 'holders', String(holder));
    const manager = at.manager();
    for (const plant of [
      () => fs.symlinkSync(__filename, holderFile),
      () => must('mkfifo', holderFile),
      () => fs.mkdirSync(holderFile),
    ]) {
      fs.rmSync(holderFile, { recursive: true, force: true });
      plant();
      const refused = await manager.acquire(at.path('a.js'), 'AH-2').catch((error) => error);
      expect(refused.code).toMatch(/^(ELOCKED|ELOOP)$/);
      expect(at.record('a.js').storyId).toBe('AH-1');
    }
  });

  test('strange names beside the records are left alone', async () => {
    const locks = at.path('.ai', 'locks');
    fs.mkdirSync(path.join(locks, 'holders'), { recursive: true });
    const names = ['README.lock', 'x'.repeat(200), `${'A'.repeat(64)}.lock`, 'holders/notes'];
    for (const name of names) fs.writeFileSync(path.join(locks, name), 'mine');
    fs.writeFileSync(Buffer.concat([Buffer.from(`${locks}/`), Buffer.from([0xff, 0xfe])]), 'mine');
    const manager = at.manager();
    await (await manager.acquire(at.path('a.js'), 'AH-1')).release();
    expect(await manager.status()).toMatchObject({ totalLocks: 0, unreadable: [] });
    for (const name of names) expect(fs.readFileSync(path.join(locks, name), 'utf8')).toBe('mine');
  });
});

describe('a path that is something else', () => {
  test('a loop of links is refused, and the error names it', async () => {
    fs.symlinkSync(at.path('two'), at.path('one'));
    fs.symlinkSync(at.path('one'), at.path('two'));
    const error = await rejection(at.manager().acquire(at.path('one'), 'AH-1'));
    expect(error).toMatchObject({ name: 'LockError', code: 'ELOOP', path: at.path('one') });
    expect(error.message).toContain(at.path('one'));
  });

  test.each([
    ['a FIFO', 'odd', (place) => must('mkfifo', place)],
    ['a folder', 'odd', (place) => fs.mkdirSync(place)],
    ['a link to nothing', 'odd', (place) => fs.symlinkSync(path.join(outside, 'nowhere'), place)],
    ['a name below a file', 'file/odd', () => fs.writeFileSync(at.path('file'), 'a file')],
  ])('%s can be locked like any other: it is not opened', async (_, name, plant) => {
    const place = at.path(name);
    plant(place);
    const manager = at.manager();
    expect(await manager.acquire(place, 'AH-1')).toMatchObject({ filePath: place });
    expect(await manager.tryAcquire(place, 'AH-2')).toBeNull();
  });

  test('a name with control characters is printed so that it moves no cursor', async () => {
    const manager = at.manager();
    const evil = at.path('\u001b[2J\nevil.js');
    await manager.acquire(evil, 'AH-1');
    const error = await rejection(manager.acquire(evil, 'AH-2'));
    expect(error.path).toBe(evil);
    expect(error.message).not.toMatch(/[\u001b\n]/);
  });
});

function readIfThere(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : null;
}

async function plantSocket(place) {
  // A socket's own path is short: it is made elsewhere and moved.
  const made = path.join(outside, 's');
  const server = net.createServer();
  await new Promise((resolve) => server.listen(made, resolve));
  atEnd(() => new Promise((resolve) => server.close(resolve)));
  fs.renameSync(made, place);
}
