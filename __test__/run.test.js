'use strict';

/**
 * `storylock run`: locks that are held exactly as long as a command runs. Real processes
 * throughout.
 */

const fs = require('node:fs');
const path = require('node:path');

const shell = require('./fixtures/cli-shell.js');

const { PROGRAM, onTerminal, project, start, startOnTerminal, storylock, until } = shell;

const COMMAND = path.join(__dirname, 'fixtures', 'cli-command.js');
const NODE = process.execPath;

let root;
const { answerOf, holderOf, isFree } = shell.commandsIn(() => root);
beforeEach(() => {
  root = project();
});
afterEach(shell.cleanUp);

/** `run --story AH-1 src/app.js -- …` to its end. */
const runOf = (...command) => {
  const args = ['run', '--story', 'AH-1', 'src/app.js', '--', ...command];
  return storylock(args, { cwd: root });
};

/** The same with the waiting command, once it is ready; with its pid. */
async function waiting({ paths = ['src/app.js'], words = [], env } = {}) {
  const args = ['run', '--story', 'AH-1', ...paths, '--', NODE, COMMAND, ...words];
  const running = start(args, { cwd: root, env });
  const [, pid] = await running.says(/ready (\d+)\n/);
  return { running, pid: Number(pid) };
}

describe('the exit code is the command’s', () => {
  test.each([0, 1, 2, 7, 255])('%d', async (code) => {
    expect(await runOf('sh', '-c', `exit ${code}`)).toMatchObject({ code, stdout: '', stderr: '' });
    expect(await isFree('src/app.js')).toBe(true);
  });

  test.each([
    ['SIGTERM', 143],
    ['SIGKILL', 137],
    ['SIGINT', 130],
  ])('128 + n when %s ended it', async (signal, code) => {
    const outcome = await runOf('sh', '-c', `kill -${signal.slice(3)} $$`);
    expect(outcome).toMatchObject({ code, stderr: '' });
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('127 when it is not found', async () => {
    const { code, stderr } = await runOf('no-such-command-here');
    expect(code).toBe(127);
    expect(stderr).toBe('storylock: no-such-command-here: command not found\n');
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('126 when it cannot be executed', async () => {
    for (const name of ['./src/app.js', './src', './src/app.js/x']) {
      const { code, stderr } = await runOf(name);
      expect({ name, code }).toEqual({ name, code: 126 });
      expect(stderr).toMatch(/^storylock: \.\/src.* cannot be run: .*\n$/);
    }
    expect(await isFree('src/app.js')).toBe(true);
  });
});

describe('the command', () => {
  test('has stdin, stdout, stderr, words and environment', async () => {
    const script = 'cat; echo "$@" "$STORYLOCK_STORY" "$STORYLOCK_ROOT"; echo aside >&2';
    const words = ['sh', '-c', script, 'sh', '--story', '--', '-x'];
    const running = start(['run', '--story', 'AH-1', 'src/app.js', '--', ...words], { cwd: root });
    running.child.stdin.end('typed\n');
    expect(await running.ended).toMatchObject({
      code: 0,
      stdout: `typed\n--story -- -x AH-1 ${root}\n`,
      stderr: 'aside\n',
    });
  });

  test('runs while the locks are held for its story, without an end in time', async () => {
    const { code, stdout } = await runOf(NODE, PROGRAM, 'check', 'src/app.js');
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      storyId: 'AH-1',
      filePath: path.join(root, 'src', 'app.js'),
      timeout: null,
      remaining: null,
      detached: false,
    });
  });

  test('is not run when a path is locked, and no other path stays locked', async () => {
    await storylock(['acquire', 'b', 'AH-2'], { cwd: root });
    const args = ['run', '--story', 'AH-1', 'a', 'b', '--', 'touch', 'ran'];
    const { code, stdout, stderr } = await storylock(args, { cwd: root });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/^storylock: b is locked by AH-2 /);
    expect(fs.existsSync(path.join(root, 'ran'))).toBe(false);
    expect(await isFree('a')).toBe(true);
  });

  test('holds the lock that its story had before, bound while it runs', async () => {
    const before = await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000');
    const { running } = await waiting();
    const { lockId } = before;
    expect(await holderOf('src/app.js')).toMatchObject({ lockId, timeout: null, detached: false });
    running.child.stdin.write('stop\n');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
  });

  test('leaves that lock as it found it, with its lease begun anew', async () => {
    const timeout = 600_000;
    const before = await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', `${timeout}`);
    await until(Date.now, (now) => now > before.expiresAt - timeout + 500);
    const begun = Date.now();
    expect(await runOf('true')).toMatchObject({ code: 0, stderr: '' });
    const after = await holderOf('src/app.js');
    expect(after).toMatchObject({ lockId: before.lockId, timeout, detached: true });
    expect(after.expiresAt).toBeGreaterThanOrEqual(begun + timeout);
    expect(await answerOf('release', 'src/app.js', 'AH-1')).toBe(true);
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('leaves it so when it failed or was killed too', async () => {
    const before = await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '600000');
    for (const [end, code] of [['exit 3', 3], ['kill -9 $$', 137]]) {
      expect(await runOf('sh', '-c', end)).toMatchObject({ code, stderr: '' });
      const { lockId } = before;
      expect(await holderOf('src/app.js')).toMatchObject({ lockId, timeout: 600_000 });
    }
  });

  test('keeps such a lock for as long as it runs, whatever lease is left', async () => {
    const before = await answerOf('acquire', 'src/app.js', 'AH-1', '--timeout', '1000');
    const { running } = await waiting();
    await until(Date.now, (now) => now > before.expiresAt + 200);
    const { lockId } = before;
    expect(await holderOf('src/app.js')).toMatchObject({ lockId });
    running.child.stdin.write('stop\n');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    expect(await holderOf('src/app.js')).toMatchObject({ lockId, timeout: 1000, detached: true });
    await until(() => isFree('src/app.js'), Boolean);
  });

  test('may run inside another of the same story, and frees nothing of it', async () => {
    const inner = [NODE, PROGRAM, 'run', '--story', 'AH-1', 'src/app.js', 'b', '--', 'true'];
    const script = `"$@" && ${NODE} ${PROGRAM} check src/app.js`;
    const { code, stdout, stderr } = await runOf('sh', '-c', script, 'sh', ...inner);
    expect({ code, stderr }).toEqual({ code: 1, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ storyId: 'AH-1', timeout: null });
    expect(await isFree('src/app.js')).toBe(true);
    expect(await isFree('b')).toBe(true);
  });
});

describe('signals', () => {
  const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'];

  test.each(SIGNALS)('%s is sent on to the command, once', async (signal) => {
    const { running } = await waiting({ words: ['200'] });
    running.child.kill(signal);
    const { code, stdout, stderr } = await running.ended;
    expect({ code, stderr }).toEqual({ code: 7, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^ready \\d+\ngot ${signal}\n$`));
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('a command that goes on after a signal keeps its locks', async () => {
    const { running } = await waiting({ words: ['600000'] });
    running.child.kill('SIGTERM');
    await running.says(/got SIGTERM\n/);
    expect(await isFree('src/app.js')).toBe(false);
    running.child.stdin.write('stop\n');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
  });

  test('Ctrl-C on a terminal reaches the command once', async () => {
    const args = ['run', '--story', 'AH-1', 'src/app.js', '--', NODE, COMMAND, '300'];
    const running = startOnTerminal(args, { cwd: root });
    await running.says(/ready \d+/);
    running.child.stdin.write('\u0003');
    const { code, stdout } = await running.ended;
    expect(code).toBe(7);
    expect(stdout.match(/got SIGINT/g)).toHaveLength(1);
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('SIGTERM is sent on from a terminal too', async () => {
    const script = `process.kill(process.ppid, 'SIGTERM'); setTimeout(() => {}, 60000)`;
    const args = ['run', '--story', 'AH-1', 'src/app.js', '--', NODE, '-e', script];
    const { code } = await onTerminal(args.map((word) => word.replaceAll("'", '"')), { cwd: root });
    expect(code).toBe(143);
  });
});

describe('whatever happens', () => {
  test('the locks are free when the command fails', async () => {
    const { running } = await waiting();
    expect(await isFree('src/app.js')).toBe(false);
    running.child.stdin.write('fail\n');
    expect(await running.ended).toMatchObject({ code: 5, stderr: '' });
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('the locks are free when the command is killed', async () => {
    const { running, pid } = await waiting({ paths: ['a', 'b'] });
    process.kill(pid, 'SIGKILL');
    expect(await running.ended).toMatchObject({ code: 137, stderr: '' });
    expect(await isFree('a')).toBe(true);
    expect(await isFree('b')).toBe(true);
  });

  test('when run is killed the locks live as long as its command, and no longer', async () => {
    const { running, pid } = await waiting();
    running.child.kill('SIGKILL');
    await new Promise((resolve) => running.child.once('exit', resolve));
    const acquire = ['acquire', 'src/app.js', 'AH-2'];
    const refused = await storylock(acquire, { cwd: root });
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toContain('src/app.js is locked by AH-1 (');
    expect((await holderOf('src/app.js')).storyId).toBe('AH-1');

    process.kill(pid, 'SIGKILL');
    await running.ended;
    const { code, stdout } = await storylock(acquire, { cwd: root });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      storyId: 'AH-2',
      reclaimed: { storyId: 'AH-1', how: 'died' },
    });
  });

  test('when run and its command are killed together the locks are free at once', async () => {
    const { running } = await waiting();
    process.kill(-running.child.pid, 'SIGKILL');
    await running.ended;
    expect(await isFree('src/app.js')).toBe(true);
    const { screen } = await onTerminal(['status'], { cwd: root });
    expect(screen).toMatch(/\nsrc\/app\.js +AH-1 .* 0 ms +stale: free to take\n\n1 lock /);
    const { code } = await storylock(['acquire', 'src/app.js', 'AH-2'], { cwd: root });
    expect(code).toBe(0);
  });

  test('status on a terminal tells who holds what while a command runs', async () => {
    const { running } = await waiting();
    const { screen } = await onTerminal(['status'], { cwd: root });
    const where = `pid ${running.child.pid} on this host`;
    const row = `\nsrc/app.js +AH-1 +${where} +\\S+ m?s +while held +held\n`;
    expect(screen).toMatch(new RegExp(row));
  });

  test('a lock that is lost while the command runs is told, and is no success', async () => {
    const { running } = await waiting();
    fs.rmSync(path.join(root, '.ai', 'locks'), { recursive: true });
    await until(() => running.stderr, (told) => told.endsWith('\n'));
    expect(running.stderr).toMatch(/^storylock: .*src\/app\.js.* runs on without its lock\.\n$/);
    running.child.stdin.write('stop\n');
    expect((await running.ended).code).toBe(1);
    expect(running.stderr.match(/storylock:/g)).toHaveLength(1);
  });

  test('a lost lock does not hide that the command failed', async () => {
    const { running } = await waiting();
    await storylock(['release', 'src/app.js', 'AH-1'], { cwd: root });
    await until(() => running.stderr, (told) => told.endsWith('\n'));
    running.child.stdin.write('fail\n');
    expect((await running.ended).code).toBe(5);
  });
});
