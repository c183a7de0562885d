'use strict';

/**
 * `--wait`: standing in line on the command line, and what a person sees of it. Real processes
 * throughout, on real pseudo-terminals where a person is meant.
 */

const fs = require('node:fs');
const path = require('node:path');

const { LockManager } = require('..');
const shell = require('./fixtures/cli-shell.js');

const { onTerminal, project, screenOf, start, startOnTerminal, storylock, until } = shell;

let root;
const { answerOf, refusalOf, holderOf, isFree } = shell.commandsIn(() => root);
beforeEach(() => {
  root = project();
});
afterEach(shell.cleanUp);

const exists = (name) => fs.existsSync(path.join(root, name));

/** Those in line, once there are so many. */
async function inLine(count) {
  const manager = new LockManager({ root });
  const isRight = (status) => status.waiting.length === count;
  const { waiting } = await until(() => manager.status(), isRight);
  await manager.close();
  return waiting;
}

/** Starts a command that has to wait; resolves when it stands in line behind so many others. */
async function waiting(args, { behind = 0 } = {}) {
  const running = start(args, { cwd: root });
  await inLine(behind + 1);
  return running;
}

/** The same on a terminal, once it shows a line of this form. */
async function watched(args, { shows = /\(place \d+/, ...options } = {}) {
  const running = startOnTerminal(args, { cwd: root, ...options });
  await running.says(shows);
  return running;
}

/** Long enough for a line to be written, if one were. */
const aWhile = () => new Promise((resolve) => setTimeout(resolve, 900));

describe('acquire --wait', () => {
  test('gets the lock when it is released, with a lease that begins then', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const waiter = await waiting(['acquire', '--wait', 'src/app.js', 'AH-2', '--timeout', '60000']);
    const before = Date.now();
    await answerOf('release', 'src/app.js', 'AH-1');
    const { code, stdout, stderr } = await waiter.ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lock = JSON.parse(stdout);
    expect(lock).toMatchObject({ storyId: 'AH-2', timeout: 60_000, reclaimed: null });
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(before);
    const { lockId } = lock;
    expect(await holderOf('src/app.js')).toMatchObject({ lockId, detached: true });
  });

  test('gets the lock when its lease ends', async () => {
    const { expiresAt } = await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '1000');
    const lock = await answerOf('acquire', 'src/app.js', 'AH-2', '--wait');
    expect(lock).toMatchObject({ reclaimed: { storyId: 'AH-1', how: 'expired' } });
    expect(lock.acquiredAt).toBeGreaterThanOrEqual(expiresAt);
  });

  test('is told at once of a free path, and of a lock that its story has', async () => {
    const first = await answerOf('acquire', '--wait', 'src/app.js', 'AH-1');
    const second = await answerOf('acquire', '--wait', 'src/app.js', 'AH-1');
    expect(second.lockId).toBe(first.lockId);
  });

  test('serves stories in order of arrival', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-0');
    const stories = ['AH-3', 'AH-1', 'AH-2'];
    const waiters = [];
    for (const [behind, story] of stories.entries()) {
      waiters.push(await waiting(['acquire', '--wait', 'src/app.js', story], { behind }));
    }
    expect((await inLine(3)).map(({ storyId }) => storyId)).toEqual(stories);
    let holder = 'AH-0';
    for (const [i, story] of stories.entries()) {
      await answerOf('release', 'src/app.js', holder);
      expect(await waiters[i].ended).toMatchObject({ code: 0, stderr: '' });
      expect((await holderOf('src/app.js')).storyId).toBe(story);
      holder = story;
    }
  });

  test('takes of a set nothing before it can take everything', async () => {
    await answerOf('acquire', 'a', 'AH-1');
    const waiter = await waiting(['acquire', '--wait', '--story', 'AH-2', 'a', 'b'], { behind: 1 });
    expect(await isFree('b')).toBe(true);
    await answerOf('release', 'a', 'AH-1');
    expect(JSON.parse((await waiter.ended).stdout)).toMatchObject([
      { filePath: path.join(root, 'a') },
      { filePath: path.join(root, 'b') },
    ]);
  });

  test('refuses at once what would close a circle of stories, and names it', async () => {
    await answerOf('acquire', 'a', 'AH-1');
    await answerOf('acquire', 'b', 'AH-2');
    const waiter = await waiting(['acquire', '--wait', 'b', 'AH-1']);
    const told = await refusalOf(1, 'acquire', '--wait', 'a', 'AH-2');
    expect(told).toMatch(/^storylock: AH-2 would wait for ever: .*AH-1 waits for b, held by AH-2/);
    await answerOf('cleanup', 'AH-2');
    expect(await waiter.ended).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('a wait with an end', () => {
  test('is refused when its time is up, with who has the path, and leaves the line', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const begun = Date.now();
    const told = await refusalOf(1, 'acquire', '--wait=400', 'src/app.js', 'AH-2');
    expect(Date.now() - begun).toBeGreaterThanOrEqual(400);
    expect(told).toMatch(/^storylock: src\/app\.js is locked by AH-1 \(.*Waited .*\n$/);
    expect(told).toContain('at place 1 in line');
    await inLine(0);
  });

  test('of 0 is to try once', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const told = await refusalOf(1, 'acquire', '--wait=0', 'src/app.js', 'AH-2');
    expect(told).toMatch(/^storylock: src\/app\.js is locked by AH-1 \(/);
    expect(told).not.toContain('Waited');
  });

  test('is refused to run too, and the command is not run', async () => {
    await answerOf('acquire', 'a', 'AH-1');
    const run = ['run', '--story', 'AH-2', '--wait=300', 'a', 'b', '--', 'touch', 'ran'];
    expect(await refusalOf(1, ...run)).toMatch(/^storylock: a is locked by AH-1 \(.*Waited/);
    expect(exists('ran')).toBe(false);
    await inLine(0);
  });
});

describe('where the value of --wait stands', () => {
  test('a word after it stays a path or a story', async () => {
    expect(await answerOf('acquire', '--wait', 'a', 'AH-1')).toMatchObject({ storyId: 'AH-1' });
    expect(await answerOf('acquire', 'b', '--wait', 'AH-1')).toMatchObject({ storyId: 'AH-1' });
    expect(await answerOf('acquire', 'c', 'AH-1', '--wait')).toMatchObject({ storyId: 'AH-1' });
    expect(await answerOf('acquire', '--story', '12', '--wait', './34')).toMatchObject({
      storyId: '12',
      filePath: path.join(root, '34'),
    });
    expect((await answerOf('status')).totalLocks).toBe(4);
  });

  test.each(['5000', '-5', '1.5', '30s'])(
    'what looks like a time after it, %s, is refused: it may be meant as its value',
    async (time) => {
      const told = await refusalOf(2, 'acquire', '--wait', time, 'src/app.js', 'AH-1');
      expect(told).toMatch(`storylock: '${time}' stands after --wait: write --wait=<ms>`);
      expect(fs.readdirSync(path.join(root, '.ai'))).toEqual([]);
    },
  );

  test('it is no option in the place of a value, after -- and in the command', async () => {
    const acquire = ['acquire', '--story', 'AH-1', '--reason', '--wait', '--', '--wait', '500'];
    const [lock] = await answerOf(...acquire);
    expect(lock.filePath).toBe(path.join(root, '--wait'));
    expect(await holderOf('500')).toMatchObject({ reason: '--wait' });
    const words = ['run', '--story', 'AH-1', 'a', '--', 'echo', '--wait', '500'];
    expect(await storylock(words, { cwd: root })).toMatchObject({ stdout: '--wait 500\n' });
  });
});

describe('run --wait', () => {
  const run = (story, ...command) =>
    ['run', '--story', story, '--wait', 'src/app.js', '--', ...command];

  test('starts its command when its turn has come, and passes its exit code on', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const waiter = await waiting(run('AH-2', 'sh', '-c', 'echo ran; exit 7'));
    expect(waiter.stdout).toBe('');
    await answerOf('release', 'src/app.js', 'AH-1');
    expect(await waiter.ended).toMatchObject({ code: 7, stdout: 'ran\n', stderr: '' });
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('lets its commands run one after the other, in order of arrival', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-0');
    const command = (story) => ['sh', '-c', `echo ${story} in >> log; echo ${story} out >> log`];
    const waiters = [];
    for (const [behind, story] of ['AH-3', 'AH-1', 'AH-2'].entries()) {
      waiters.push(await waiting(run(story, ...command(story)), { behind }));
    }
    await answerOf('release', 'src/app.js', 'AH-0');
    for (const waiter of waiters) expect(await waiter.ended).toMatchObject({ code: 0, stderr: '' });
    expect(fs.readFileSync(path.join(root, 'log'), 'utf8').split('\n')).toEqual(
      ['AH-3 in', 'AH-3 out', 'AH-1 in', 'AH-1 out', 'AH-2 in', 'AH-2 out', ''],
    );
  });

  test('gets its turn when another run is killed with its command', async () => {
    const holder = start(run('AH-1', 'sleep', '600'), { cwd: root });
    await until(() => isFree('src/app.js'), (free) => !free);
    const waiter = await waiting(run('AH-2', 'true'));
    process.kill(-holder.child.pid, 'SIGKILL');
    expect(await waiter.ended).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('a signal while one waits', () => {
  const commands = {
    acquire: ['acquire', '--wait', 'src/app.js', 'AH-2'],
    run: ['run', '--story', 'AH-2', '--wait', 'src/app.js', '--', 'touch', 'ran'],
  };
  const cases = Object.keys(commands).flatMap((name) =>
    ['SIGINT', 'SIGTERM'].map((signal) => [signal, name]),
  );

  test.each(cases)('%s ends %s at once, and the next in line is served', async (signal, name) => {
    await answerOf('acquire', 'src/app.js', 'AH-1');
    const first = await waiting(commands[name]);
    const second = await waiting(['acquire', '--wait', 'src/app.js', 'AH-3'], { behind: 1 });
    first.child.kill(signal);
    expect(await first.ended).toEqual({ code: null, signal, stdout: '', stderr: '' });
    await answerOf('release', 'src/app.js', 'AH-1');
    expect(await second.ended).toMatchObject({ code: 0, stderr: '' });
    expect((await holderOf('src/app.js')).storyId).toBe('AH-3');
    expect(exists('ran')).toBe(false);
  });
});

describe('a person at a terminal', () => {
  const acquire = ['acquire', '--wait', 'src/app.js', 'AH-2'];
  const LINE =
    /^storylock: waiting \d+ m?s for AH-1 \(place 1, lease ends in 10 min\): src\/app\.js$/;

  beforeEach(() => answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000'));

  test('sees whom one waits for, the place, how long, and the lease’s end, in a row', async () => {
    const waiter = await watched(acquire);
    await waiter.says(/waiting 1 s .*waiting 2 s /s);
    expect(await screenOf(waiter.stdout)).toMatch(LINE);
  });

  test('sees the answer alone when the turn has come', async () => {
    const waiter = await watched(acquire);
    await answerOf('release', 'src/app.js', 'AH-1');
    const { code, stdout } = await waiter.ended;
    expect(code).toBe(0);
    expect(await screenOf(stdout)).toBe('Locked src/app.js for AH-2: the lease ends in 30 s.');
  });

  test('sees how long one waits at most, and the refusal alone when that is over', async () => {
    const limited = ['acquire', '--wait=3000', 'src/app.js', 'AH-2'];
    const columns = 500;
    const waiter = await watched(limited, { columns, shows: /waiting \d+ m?s of 3 s for AH-1 / });
    const { code, stdout } = await waiter.ended;
    expect(code).toBe(1);
    const screen = await screenOf(stdout, { columns });
    expect(screen).toMatch(/^storylock: src\/app\.js is locked by .*$/);
  });

  test('sees another place, and another to wait for, as the line moves on', async () => {
    const first = await waiting(['run', '--story', 'AH-3', '--wait', 'src/app.js', '--', 'cat']);
    const waiter = await watched(acquire, { shows: /for AH-1 \(place 2, lease ends in 10 min\)/ });
    await answerOf('release', 'src/app.js', 'AH-1');
    await waiter.says(/for AH-3 \(place 1, held by pid \d+ on this host\): src\/app\.js/);
    first.child.stdin.end();
    expect((await waiter.ended).code).toBe(0);
  });

  test('sees of a set a path that is in the way', async () => {
    const set = ['acquire', '--wait', '--story', 'AH-2', 'a', 'src/app.js', 'z'];
    await watched(set, { shows: /for AH-1 \(place 1, .*: src\/app\.js, one of 3 paths/ });
  });

  test('sees who is in front where nobody holds the path yet', async () => {
    await waiting(['acquire', '--wait', '--story', 'AH-3', 'src/app.js', 'b'], { behind: 1 });
    await watched(['acquire', '--wait', 'b', 'AH-2'], { shows: /for AH-3 \(place 2\): b/ });
  });

  test.each([
    ['SIGINT', '\u0003', 130],
    ['SIGQUIT', '\u001c', 131],
  ])('has a clean row after %s from the keyboard', async (_, key, code) => {
    const echoing = (words) => `stty echo; ulimit -c 0; exec ${words}`;
    const waiter = await watched(acquire, { line: echoing });
    waiter.child.stdin.write(key);
    const ended = await waiter.ended;
    expect(ended.code).toBe(code);
    expect(ended.stdout).toContain('^');
    expect(await screenOf(ended.stdout)).toBe('');
    await answerOf('release', 'src/app.js', 'AH-1');
    expect((await answerOf('acquire', 'src/app.js', 'AH-4')).storyId).toBe('AH-4');
  });

  test.each(['SIGTERM', 'SIGHUP'])('has a clean row after %s', async (signal) => {
    const run = ['run', '--story', 'AH-2', '--wait', 'src/app.js', '--', 'touch', 'ran'];
    const waiter = await watched(run);
    const [{ pid }] = await inLine(1);
    process.kill(pid, signal);
    const { code, stdout } = await waiter.ended;
    expect(code).toBe({ SIGTERM: 143, SIGHUP: 129 }[signal]);
    expect(await screenOf(stdout)).toBe('');
    expect(exists('ran')).toBe(false);
  });

  test('sees nothing of the wait any more once the command of run has the terminal', async () => {
    const command = ['sh', '-c', 'echo mine; read line; echo $line'];
    const run = ['run', '--story', 'AH-2', '--wait', 'src/app.js', '--', ...command];
    const waiter = await watched(run);
    await answerOf('release', 'src/app.js', 'AH-1');
    await waiter.says(/mine/);
    await aWhile();
    waiter.child.stdin.write('typed\n');
    const { code, stdout } = await waiter.ended;
    expect(code).toBe(0);
    expect(stdout.slice(stdout.indexOf('mine'))).toBe('mine\r\ntyped\r\n');
    expect(await screenOf(stdout)).toBe('mine\ntyped');
  });

  test.each([40, 2])('sees one row on a terminal of %d columns', async (columns) => {
    const waiter = await watched(acquire, { columns, shows: /(?:\u001b\[0K.*){3}/s });
    const screen = await screenOf(waiter.stdout, { columns });
    expect(screen).toMatch(columns === 2 ? /^…$/ : /^storylock: waiting \d+ m?s for [^\n]*…$/);
    expect(screen).toHaveLength(columns - 1);
  });

  test('sees one row when a path is wide, and no cursor is moved by it', async () => {
    const wide = `${'界'.repeat(20)}\u001b[2J\n👩‍👩‍👧.js`;
    await answerOf('acquire', wide, 'AH-1');
    for (const columns of [80, 110, 200]) {
      const waiter = await watched(['acquire', '--wait', wide, `AH-${columns}`], { columns });
      const screen = await screenOf(waiter.stdout, { columns });
      expect(screen).toMatch(/^storylock: waiting [^\n]*: 界+[^\n]*$/u);
      if (columns === 200) expect(screen).toContain('界\\u{1b}[2J\\u{a}');
    }
  });

  test('sees the line on stderr while stdout is a file with the answer alone', async () => {
    const waiter = await watched(acquire, { line: (words) => `exec ${words} > answer` });
    await answerOf('release', 'src/app.js', 'AH-1');
    const { code, stdout } = await waiter.ended;
    expect({ code, screen: await screenOf(stdout) }).toEqual({ code: 0, screen: '' });
    const answer = fs.readFileSync(path.join(root, 'answer'), 'utf8');
    expect(JSON.parse(answer)).toMatchObject({ storyId: 'AH-2' });
  });

  const unseen = {
    'where stderr is no terminal': { line: (words) => `exec ${words} 2> told` },
    'on a terminal that cannot write over a line': { env: { TERM: 'dumb' } },
    'of a job in the background': { line: (words) => `set -m; ${words} & wait $!` },
  };

  test.each(Object.entries(unseen))('sees nothing %s', async (_, options) => {
    const waiter = startOnTerminal(acquire, { cwd: root, ...options });
    await inLine(1);
    await aWhile();
    expect(waiter.stdout).toBe('');
    await answerOf('release', 'src/app.js', 'AH-1');
    const { code, stdout } = await waiter.ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Locked src\/app\.js for AH-2: the lease ends in 30 s\.\r\n/);
    expect(stdout).not.toContain('\u001b');
    if (exists('told')) expect(fs.readFileSync(path.join(root, 'told'), 'utf8')).toBe('');
  });

  test('nobody is told anything of a wait off a terminal', async () => {
    const waiter = await waiting(acquire);
    await aWhile();
    await answerOf('release', 'src/app.js', 'AH-1');
    expect(await waiter.ended).toMatchObject({ code: 0, stderr: '' });
  });
});

describe('who waits', () => {
  beforeEach(async () => {
    await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000');
    await waiting(['acquire', '--wait', 'src/app.js', 'AH-2']);
    await waiting(['run', '--story', 'AH-3', '--wait', 'b', 'src/app.js', '--', 'true'], {
      behind: 2,
    });
  });

  test('is told by status on a terminal below the locks, in order', async () => {
    const { screen } = await onTerminal(['status'], { cwd: root });
    const [locks, lines, total] = screen.split('\n\n').map((part) => part.split('\n'));
    expect(locks).toEqual([
      expect.stringMatching(/^PATH +STORY +HOLDER +HELD FOR +LEASE LEFT +STATE$/),
      expect.stringMatching(/^src\/app\.js +AH-1 .* 10 min +held$/),
    ]);
    const where = 'pid \\d+ on this host +\\d+ m?s';
    expect(lines).toEqual([
      expect.stringMatching(/^PATH +PLACE +STORY +WAITER +WAITED +HELD BY +LEASE LEFT$/),
      expect.stringMatching(new RegExp(`^b +1 +AH-3 +${where} +- +-$`)),
      expect.stringMatching(new RegExp(`^src/app\\.js +1 +AH-2 +${where} +AH-1 +10 min$`)),
      expect.stringMatching(new RegExp(`^src/app\\.js +2 +AH-3 +${where} +AH-1 +10 min$`)),
    ]);
    expect(total).toEqual([`1 lock in ${root}. 3 in line.`]);
  });

  test('is told by status as JSON, as the JavaScript call answers it', async () => {
    expect((await answerOf('status')).waiting).toMatchObject([
      { storyId: 'AH-3', place: 1, paths: 2 },
      { storyId: 'AH-2', place: 1, paths: 1, pid: expect.any(Number), waited: expect.any(Number) },
      { storyId: 'AH-3', place: 2, paths: 2 },
    ]);
  });

  test('is counted by check on a terminal, by whatever name the path is asked for', async () => {
    fs.symlinkSync('src', path.join(root, 'link'));
    const said = async (file) => (await onTerminal(['check', file], { cwd: root })).screen;
    expect(await said('src/app.js')).toMatch(/^src\/app\.js is locked by AH-1 .* 2 wait for it\.$/);
    expect(await said('link/app.js')).toMatch(/^link\/app\.js is locked .* 2 wait for it\.$/);
    expect(await said('b')).toBe('b is free. 1 waits for it.');
    expect(await said('c')).toBe('c is free.');
  });

  test('is told of a lock by a process as well: no lease ends it', async () => {
    const holder = start(['run', '--story', 'AH-5', 'c', '--', 'cat'], { cwd: root });
    await until(() => isFree('c'), (free) => !free);
    await waiting(['acquire', '--wait', 'c', 'AH-6'], { behind: 3 });
    const { screen } = await onTerminal(['status'], { cwd: root });
    expect(screen).toMatch(/\nc +AH-5 +pid \d+ on this host +\S+ m?s +while held +held\n/);
    expect(screen).toMatch(/\nc +1 +AH-6 +pid \d+ on this host +\S+ m?s +AH-5 +while held\n/);
    holder.child.stdin.end();
  });
});
