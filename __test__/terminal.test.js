'use strict';

/**
 * What somebody planted for a reader's eyes: escape sequences, line breaks and marks that turn text
 * around, in records, queues and paths. Whatever storylock says of them to a person, as an error's
 * message or on the command line, is text that moves no cursor. As data it is told as it is.
 */

const fs = require('node:fs');

const shell = require('./fixtures/cli-shell.js');
const { cleanUp, project, rejection, until } = require('./fixtures/project.js');

const { onTerminal, storylock } = shell;

/** Clears the screen, in both forms; sets the title; rings; begins a line; turns text around. */
const EVIL = '\u001b[2J\u009b31m\u001b]0;owned\u0007\nstorylock: all is well\r\u202egnp.js\u2066';
/** What moves a cursor, or changes what is read: all but the end of a line. */
const MOVES = /[^\P{Cc}\n\r]|[\u2028\u2029\u202a-\u202e\u2066-\u2069]/u;

let at;
beforeEach(() => {
  at = project();
});
afterEach(async () => {
  shell.cleanUp();
  await cleanUp();
});

const plant = (name, more) => at.plant(name, JSON.stringify(at.oldRecord(name, more)));

/** Plants a queue for a file: a waiter of another container, that nothing proves to be dead. */
function plantWaiter(name, more) {
  const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const key = at.recordFile(name).match(/[0-9a-f]{64}/)[0];
  const waiter = {
    id: 7,
    storyId: 'Z-1',
    filePath: at.path(name),
    since: Date.now(),
    timeout: 600_000,
    pid: 1,
    holder: 7,
    boot,
    host: 'elsewhere',
    process: { started: 1, namespace: 1 },
    ...more,
  };
  fs.mkdirSync(at.path('.ai', 'locks', 'queue'), { recursive: true });
  const file = at.path('.ai', 'locks', 'queue', key);
  fs.writeFileSync(file, JSON.stringify({ version: 1, waiters: [waiter] }));
}

/** Records that say it in each field that is shown, one that can be read and three that cannot. */
function plantAll() {
  const predecessor = { storyId: 'Z', lockId: EVIL, pid: 1, acquiredAt: 1, how: 'died' };
  plant('read', {
    lockId: `OLD-1-${EVIL}`,
    filePath: `/x/${EVIL}`,
    host: EVIL,
    reason: EVIL,
    reclaimed: predecessor,
  });
  plant('kind', { reclaimed: { ...predecessor, how: EVIL } });
  plant('story', { storyId: EVIL });
  plant('type', { acquiredAt: EVIL });
  return ['read', 'kind', 'story', 'type'];
}

/** The screen of a command; it fails when a control character reached it. */
async function screenOf(...words) {
  const { screen } = await onTerminal(words, { cwd: at.root, columns: 160 });
  expect({ words, moves: MOVES.exec(screen)?.[0] }).toEqual({ words, moves: undefined });
  return screen;
}

describe('the command line on a terminal', () => {
  test('status shows what was planted as text', async () => {
    plantAll();
    const screen = await screenOf('status');
    expect(screen).toContain('\\u{1b}[2J');
    expect(screen.match(/^Not readable, and so held:/gm)).toHaveLength(3);
    // No line of it begins as the program's own would.
    expect(screen).not.toMatch(/^storylock:/m);
  });

  test.each(['check', 'acquire', 'release', 'renew'])('%s does', async (command) => {
    for (const name of plantAll()) {
      const words = command === 'check' ? [command, name] : [command, name, 'AH-1'];
      const screen = await screenOf(...words);
      expect(screen.split('\n').filter((line) => line.startsWith('storylock: all'))).toEqual([]);
    }
  });

  test('a wait behind it does, while it lasts and when it is over', async () => {
    plant('a', { reason: EVIL, host: EVIL, filePath: `/x/${EVIL}` });
    const started = ['acquire', '--wait=700', 'a', 'AH-1'];
    const running = shell.startOnTerminal(started, { cwd: at.root, line: (words) => `${words}; :` });
    const { stdout } = await running.ended;
    expect(stdout).toContain('is locked by OLD-1');
    for (const sequence of ['\u001b[2J', '\u009b', '\u001b]0', '\u0007', '\u202e', '\u2066']) {
      expect(stdout).not.toContain(sequence);
    }
  });

  test('status shows who waits as text', async () => {
    plant('a', { timeout: 600_000 });
    plantWaiter('a', { host: EVIL, reason: EVIL, filePath: `/x/${EVIL}` });
    const screen = await screenOf('status');
    expect(screen).toContain('Z-1');
    expect(screen).toMatch(/1 in line/);
  });

  test('run tells of a loss and of a refusal as text', async () => {
    plant('a', { reason: EVIL, host: EVIL });
    const { code, screen } = await onTerminal(
      ['run', '--story', 'AH-1', 'a', '--', 'true'],
      { cwd: at.root },
    );
    expect(code).toBe(1);
    expect(screen).not.toMatch(MOVES);
  });

  test('words of the caller’s own come back as text', async () => {
    for (const words of [
      ['acquire', `--${EVIL}`],
      [EVIL],
      ['acquire', 'a', '--timeout', EVIL],
      ['acquire', 'a', EVIL],
      ['check', `${EVIL}/x`],
      ['acquire', 'a', '--root', `nowhere${EVIL}`],
    ]) {
      await screenOf(...words);
    }
  });

  test('JSON on a terminal moves no cursor either', async () => {
    plantAll();
    for (const words of [['status', '--json'], ['check', 'read', '--json']]) {
      const screen = await screenOf(...words);
      expect(() => JSON.parse(screen)).not.toThrow();
    }
  });

  test('every mark that turns text around is shown', async () => {
    // The Arabic letter mark, the left-to-right and the right-to-left one: Bidi_Control too.
    plant('a', { reason: 'one\u061ctwo\u200ethree\u200ffour' });
    expect((await screenOf('check', 'a')).match(/\p{Bidi_C}/gu)).toBeNull();
  });
});

test('through a pipe the data is told as it is, on one line of JSON a string', async () => {
  plantAll();
  const { stdout, stderr } = await storylock(['status'], { cwd: at.root });
  expect(stderr).toBe('');
  const told = JSON.parse(stdout).activeLocks.find(({ reason }) => reason !== null);
  expect(told.reason).toBe(EVIL);
  // As JSON has it: every string is on one line, whatever it holds.
  expect(stdout).not.toMatch(/[^\P{Cc}\n\u0080-\u009f]/u);
});

describe('an error’s message', () => {
  const CONTROL = /\p{Cc}/u;

  test('of what was planted holds no control character', async () => {
    const names = plantAll();
    plantWaiter('late', { host: EVIL, reason: EVIL });
    const manager = at.manager();
    const messages = [];
    for (const name of [...names, 'late']) {
      for (const call of ['acquire', 'renew', 'release', 'check']) {
        const error = await manager[call](at.path(name), 'AH-1').catch((refused) => refused);
        if (error instanceof Error) messages.push(error.message);
      }
    }
    expect(messages.filter((message) => CONTROL.test(message))).toEqual([]);
  });

  test('of a path holds none, whatever failed', async () => {
    const evil = (name) => at.path(`\u001b[2J\n${name}`);
    fs.writeFileSync(evil('file'), 'old');
    fs.mkdirSync(evil('folder'));
    fs.symlinkSync(evil('loop'), evil('loop'));
    const manager = at.manager();
    const other = at.manager();
    const released = await manager.acquire(evil('file'), 'AH-1');
    await released.release();
    await other.acquire(evil('held'), 'AH-2', Infinity);
    const made = '--- /dev/null\n+++ "b/\\033[2J\\nfile"\n@@ -0,0 +1 @@\n+x\n';
    const errors = await Promise.all(
      [
        manager.acquire(evil('held'), 'AH-1'),
        manager.acquire(evil('held'), 'AH-1', { wait: 1 }),
        manager.release(evil('held'), 'AH-1'),
        manager.renew(evil('none'), 'AH-1'),
        manager.acquire(`${evil('loop')}/x`, 'AH-1'),
        manager.applyPatch(evil('file'), 'AH-1', 'x', { expect: '0'.repeat(64) }),
        manager.applyPatch(evil('file'), 'AH-1', 'x', { lock: released }),
        manager.applyPatch(evil('folder'), 'AH-1', 'x'),
        manager.applyPatch(`${evil('none')}/x`, 'AH-1', 'x'),
        manager.applyDiff(made, 'AH-1'),
        at.manager({ root: evil('nowhere') }).acquire('a', 'AH-1'),
      ].map(rejection),
    );
    const bad = errors.filter(({ message }) => CONTROL.test(message));
    expect(bad.map(({ code, message }) => ({ code, message }))).toEqual([]);
  });

  test('is of a length that a person reads, whatever was planted', async () => {
    plant('a', { reason: 'x'.repeat(60_000) });
    const { message } = await rejection(at.manager().acquire(at.path('a'), 'AH-1'));
    expect(message.length).toBeLessThan(5000);
  });

  test('gives a command that a shell reads as one path', async () => {
    const file = at.path('a; touch pwned #');
    await at.manager().acquire(file, 'AH-1');
    const { hint } = await rejection(at.manager().acquire(file, 'AH-2'));
    const [, command] = /`npx storylock check (.*)`/.exec(hint);
    const { stdout } = await new shell.Running('sh', ['-c', `printf '%s\\n' ${command}`], {
      cwd: at.root,
    }).ended;
    expect(stdout).toBe(`${file}\n`);
  });
});

test('the view is JSON whatever was planted, and shows what is held', async () => {
  plantAll();
  await at.manager().acquire(at.path('b'), 'AH-1');
  await until(() => at.viewed().includes('b'));
  const text = fs.readFileSync(at.path('.ai', 'progress', 'locks.json'), 'utf8');
  expect(JSON.parse(text).activeLocks.length).toBeGreaterThan(1);
});
