'use strict';

const fs = require('node:fs');
const path = require('node:path');

const { cleanUp, newManager: manager, project } = require('./fixtures/face.js');

describe('history', () => {
  let root;
  let locks;
  const at = (name) => path.join(root, name);
  const file = (number) => path.join(root, '.ai/progress', `locks.history.jsonl${number ?? ''}`);
  const types = (events) => events.map(({ type }) => type);

  beforeEach(() => {
    ({ root } = project());
    locks = manager();
  });

  afterEach(cleanUp);

  test('tells what happened, the newest first, with who, what and for how long', async () => {
    const lock = await locks.acquire(at('a.js'), 'A', { reason: 'why' });
    expect(await locks.tryAcquire(at('a.js'), 'B')).toBeNull();
    const waits = locks.acquire(at('a.js'), 'B', { wait: Infinity });
    while ((await locks.status()).waiting.length === 0);
    await lock.release();
    const second = await waits;
    await locks.applyPatch(at('a.js'), 'B', 'x', { lock: second });
    await locks.cleanup('B');
    const events = await locks.history();
    expect(types(events)).toEqual([
      'cleaned', 'patched', 'granted', 'released', 'queued', 'refused', 'acquired',
    ]);
    expect(events.map(({ seq }) => seq)).toEqual([7, 6, 5, 4, 3, 2, 1]);
    const [cleaned, patched, granted, released, queued, refused, acquired] = events;
    const of = (storyId) => ({ storyId, path: at('a.js'), pid: process.pid });
    expect(acquired).toMatchObject({ ...of('A'), token: lock.token, reason: 'why' });
    expect(refused).toMatchObject({ ...of('B'), by: 'A', code: 'ELOCKED' });
    expect(queued).toMatchObject(of('B'));
    expect(released).toMatchObject({ ...of('A'), token: lock.token });
    expect(released.heldFor).toBeGreaterThanOrEqual(released.time - acquired.time);
    expect(granted).toMatchObject({ ...of('B'), token: second.token });
    expect(granted.waitedFor).toBeGreaterThanOrEqual(granted.time - queued.time);
    expect(patched).toMatchObject({ token: second.token, hash: expect.any(String) });
    expect(cleaned).toMatchObject(of('B'));
  });

  test('gives the events that are asked for', async () => {
    for (const story of ['A', 'B']) {
      for (const name of ['a.js', 'b.js']) await (await locks.acquire(at(name), story)).release();
    }
    expect(await locks.history({ storyId: 'A', types: ['released'] })).toHaveLength(2);
    expect(await locks.history({ path: at('b.js') })).toHaveLength(4);
    expect(await locks.history({ path: path.relative('', at('b.js')) })).toHaveLength(4);
    expect((await locks.history({ limit: 3 })).map(({ seq }) => seq)).toEqual([8, 7, 6]);
    expect(await locks.history({ limit: 0 })).toEqual([]);
    expect(await locks.history({ since: Date.now() + 60_000 })).toEqual([]);
    expect(await locks.history({ until: new Date(0) })).toEqual([]);
    await expect(locks.history({ types: ['stolen'] })).rejects.toThrow(TypeError);
    await expect(locks.history({ limit: -1 })).rejects.toThrow(RangeError);
  });

  test('goes on after a line that a kill has torn, and skips what is no event', async () => {
    await (await locks.acquire(at('a.js'), 'A')).release();
    fs.appendFileSync(file(), '{"seq":3,"time":1,"type":"acqu');
    await (await locks.acquire(at('b.js'), 'B')).release();
    expect((await locks.history()).map(({ seq }) => seq)).toEqual([4, 3, 2, 1]);
    const lines = fs.readFileSync(file(), 'utf8').split('\n');
    expect(lines.filter((line) => line.endsWith('"acqu'))).toHaveLength(1);
  });

  test('is rotated by size, reads on through the old files, and lets the oldest go', async () => {
    const small = manager({ history: { maxBytes: 4096, keep: 2 } });
    for (let i = 0; i < 60; i++) await (await small.acquire(at('a.js'), 'A')).release();
    expect(fs.existsSync(file('.2'))).toBe(true);
    expect(fs.existsSync(file('.3'))).toBe(false);
    const seqs = (await small.history()).map(({ seq }) => seq);
    expect(seqs[0]).toBe(120);
    expect(seqs.length).toBeLessThan(120);
    expect(seqs).toEqual(seqs.map((_, i) => 120 - i));
  });

  test('is not written where it is switched off', async () => {
    const silent = manager({ history: false });
    await (await silent.acquire(at('a.js'), 'A')).release();
    expect(fs.existsSync(file())).toBe(false);
    expect(await silent.history()).toEqual([]);
    expect(() => manager({ history: { keep: 101 } })).toThrow(RangeError);
  });

  test('takes no lock from anybody where it cannot be written, and says so', async () => {
    fs.mkdirSync(file(), { recursive: true });
    await (await locks.acquire(at('a.js'), 'A')).release();
    expect((await locks.status()).error).toMatch(/history/);
    fs.rmdirSync(file());
    await (await locks.acquire(at('b.js'), 'B')).release();
    expect((await locks.status()).error).toBeUndefined();
    expect(types(await locks.history())).toContain('released');
  });

  describe('watch', () => {
    const first = async (events, count) => {
      const seen = [];
      for await (const event of events) {
        seen.push(event);
        if (seen.length === count) return seen;
      }
      return seen;
    };

    test('gives what happens from now on, in order', async () => {
      await (await locks.acquire(at('a.js'), 'A')).release();
      let events;
      const watched = first(locks.watch(), 4).then((seen) => (events = seen));
      const other = manager();
      while (!events) await (await other.acquire(at('b.js'), 'B')).release();
      await watched;
      expect(types(events)).toEqual(expect.arrayContaining(['acquired', 'released']));
      const [{ seq }] = events;
      expect(seq).toBeGreaterThan(2);
      expect(events.map((event) => event.seq)).toEqual([seq, seq + 1, seq + 2, seq + 3]);
    });

    test('catches up from the event that is said, through rotated files', async () => {
      const small = manager({ history: { maxBytes: 4096, keep: 100 } });
      for (let i = 0; i < 40; i++) await (await small.acquire(at('a.js'), 'A')).release();
      const events = await first(small.watch({ since: 5 }), 75);
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => 6 + i));
    });

    test('gives only what is asked for', async () => {
      await (await locks.acquire(at('a.js'), 'A')).release();
      await (await locks.acquire(at('b.js'), 'B')).release();
      const events = await first(locks.watch({ since: 0, storyId: 'B' }), 2);
      expect(events.every(({ storyId }) => storyId === 'B')).toBe(true);
    });

    test('ends on return, though somebody waits for an event, and on the signal', async () => {
      await (await locks.acquire(at('a.js'), 'A')).release();
      const events = locks.watch();
      const next = events.next();
      expect(await events.return()).toEqual({ value: undefined, done: true });
      expect(await next).toEqual({ value: undefined, done: true });
      const ending = new AbortController();
      const ended = first(locks.watch({ signal: ending.signal }), 1);
      setImmediate(() => ending.abort());
      expect(await ended).toEqual([]);
    });

    test('goes on when the folder is removed and made anew', async () => {
      await (await locks.acquire(at('a.js'), 'A')).release();
      const watched = first(locks.watch({ since: 2 }), 1);
      await new Promise(setImmediate);
      fs.rmSync(path.join(root, '.ai'), { recursive: true });
      const later = (async () => {
        for (let i = 0; i < 2; i++) await (await locks.acquire(at('b.js'), 'B')).release();
      })();
      await later;
      expect((await watched)[0].seq).toBeGreaterThan(2);
    });
  });
});
