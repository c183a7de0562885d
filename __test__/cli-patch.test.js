'use strict';

/** `patch` and `apply` on the command line: stdin in, an answer and an exit code out. */

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const { LockManager, hash } = require('..');
const shell = require('./fixtures/cli-shell.js');

const { onTerminal, project, start, storylock, until } = shell;

let root;
const { answerOf, isFree } = shell.commandsIn(() => root);
beforeEach(() => {
  root = project();
});
afterEach(shell.cleanUp);

const at = (name) => path.join(root, name);
const text = (name = 'src/app.js') => fs.readFileSync(at(name), 'utf8');

/** Starts a command and gives it this on stdin. */
function begin(args, input, { cwd = root } = {}) {
  const running = start(args, { cwd });
  running.child.stdin.end(input);
  return running;
}

/** Runs a command with this on stdin, which must be done; its JSON. */
async function done(args, input, options) {
  const { code, stdout, stderr } = await begin(args, input, options).ended;
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
  return JSON.parse(stdout);
}

/** The same for one that must be refused with this code: what it is told. */
async function refused(code, args, input) {
  const outcome = await begin(args, input).ended;
  expect({ args, ...outcome }).toMatchObject({ args, code, stdout: '' });
  for (const line of outcome.stderr.trimEnd().split('\n')) expect(line).toMatch(/^storylock: /);
  expect(outcome.stderr).not.toMatch(/^\s+at /m);
  return outcome.stderr;
}

const DIFF = `diff --git a/src/app.js b/src/app.js
--- a/src/app.js
+++ b/src/app.js
@@ -1 +1 @@
-one
+two
diff --git a/src/new.js b/src/new.js
new file mode 100644
--- /dev/null
+++ b/src/new.js
@@ -0,0 +1 @@
+new
`;

describe('patch', () => {
  test('writes what stdin holds, byte for byte, and lets go of the path', async () => {
    const bytes = Buffer.from([0, 255, 13, 10, 0xc3]);
    const answer = await done(['patch', 'src/app.js', '--story', 'AH-1'], bytes);
    expect(answer).toEqual({ path: at('src/app.js'), hash: hash(bytes) });
    expect(fs.readFileSync(at('src/app.js')).equals(bytes)).toBe(true);
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('writes an empty file for an empty stdin, and a large one whole', async () => {
    await done(['patch', 'src/app.js', '--story', 'AH-1'], '');
    expect(text()).toBe('');
    const large = 'x'.repeat(3_000_000);
    await done(['patch', 'src/app.js', '--story', 'AH-1', '--no-durable'], large);
    expect(text() === large).toBe(true);
  });

  test('sees its path from the working directory', async () => {
    await done(['patch', 'app.js', '--story', 'AH-1'], 'two\n', { cwd: at('src') });
    expect(text()).toBe('two\n');
  });

  test('with --expect goes on from what was read, and is refused once that has changed', async () => {
    const args = (expect) => ['patch', 'src/app.js', '--story', 'AH-1', '--expect', expect];
    const { hash: next } = await done(args(hash('one\n')), 'two\n');
    await done(args(next), 'three\n');
    const told = await refused(1, args(next), 'four\n');
    for (const part of [next, hash('three\n'), 'AH-1 was the last to write it']) expect(told).toContain(part);
    expect(text()).toBe('three\n');
  });

  test('with --expect none makes a file that is not there, folders too with --parents', async () => {
    const args = ['patch', 'src/x/new.js', '--story', 'AH-1', '--expect', 'none'];
    expect(await refused(1, args, 'new\n')).toContain('src/x');
    await done([...args, '--parents'], 'new\n');
    expect(text('src/x/new.js')).toBe('new\n');
    expect(await refused(1, args, 'newer\n')).toContain('no file');
  });

  test('is refused while another story has the path, and waits its turn with --wait', async () => {
    await answerOf('acquire', 'src/app.js', 'AH-2');
    const args = ['patch', 'src/app.js', '--story', 'AH-1'];
    expect(await refused(1, args, 'two\n')).toContain('is locked by AH-2');
    expect(await refused(1, [...args, '--wait=50'], 'two\n')).toContain('AH-2');
    const waiter = begin([...args, '--wait'], 'two\n');
    const manager = new LockManager({ root });
    await until(
      () => manager.status(),
      ({ waiting }) => waiting.length === 1,
    );
    await manager.close();
    expect(text()).toBe('one\n');
    await answerOf('release', 'src/app.js', 'AH-2');
    expect(await waiter.ended).toMatchObject({ code: 0, stderr: '' });
    expect(text()).toBe('two\n');
  });

  test('uses the lock that its story has, and leaves it', async () => {
    const { token } = await answerOf('acquire', 'src/app.js', 'AH-1');
    await done(['patch', 'src/app.js', '--story', 'AH-1'], 'two\n');
    const { stdout } = await storylock(['check', 'src/app.js'], { cwd: root });
    expect(JSON.parse(stdout)).toMatchObject({ storyId: 'AH-1', token, detached: true });
  });

  test('locks nothing while its stdin is being written', async () => {
    const slow = start(['patch', 'src/app.js', '--story', 'AH-1'], { cwd: root });
    slow.child.stdin.write('half');
    await answerOf('acquire', 'src/app.js', 'AH-2');
    slow.child.stdin.end(' and half');
    expect(await slow.ended).toMatchObject({ code: 1, stdout: '' });
    expect(text()).toBe('one\n');
  });

  test.each([
    [['patch', 'src/app.js'], '--story'],
    [['patch', '--story', 'AH-1'], 'path'],
    [['patch', 'src/app.js', 'src/b.js', '--story', 'AH-1'], 'arguments'],
    [['patch', 'src/app.js', '--story', ''], 'story'],
    [['patch', 'src/app.js', '--story', 'AH-1', '--expect', 'x'], 'none'],
    [['patch', 'src/app.js', '--story', 'AH-1', '--wait=soon'], 'wait'],
  ])('%j is not understood', async (args, part) => {
    expect(await refused(2, args, 'two\n')).toContain(part);
    expect([text(), fs.readdirSync(at('.ai'))]).toEqual(['one\n', []]);
  });
});

describe('apply', () => {
  test('changes the files of a diff as seen from the root, and lets go of them', async () => {
    const answer = await done(['apply', '--story', 'AH-1'], DIFF, { cwd: at('src') });
    expect(answer).toEqual([
      { path: at('src/app.js'), hash: hash('two\n') },
      { path: at('src/new.js'), hash: hash('new\n') },
    ]);
    expect([text(), text('src/new.js')]).toEqual(['two\n', 'new\n']);
    expect(await isFree('src/app.js')).toBe(true);
  });

  test('with --check tells what would be, and touches nothing', async () => {
    const told = await done(['apply', '--story', 'AH-1', '--check'], DIFF);
    expect([text(), fs.existsSync(at('src/new.js'))]).toEqual(['one\n', false]);
    expect(await done(['apply', '--story', 'AH-1'], DIFF)).toEqual(told);
  });

  test.each([[[]], [['--check']]])('tells which hunk does not match: %j', async (more) => {
    fs.writeFileSync(at('src/app.js'), 'else\n');
    const told = await refused(1, ['apply', '--story', 'AH-1', ...more], DIFF);
    expect(told).toContain('Hunk 1 of src/app.js (at line 1)');
    expect([text(), fs.existsSync(at('src/new.js'))]).toEqual(['else\n', false]);
  });

  test('is refused while another story has one of the paths, and waits with --wait', async () => {
    await answerOf('acquire', 'src/new.js', 'AH-2');
    expect(await refused(1, ['apply', '--story', 'AH-1'], DIFF)).toContain('is locked by AH-2');
    expect(text()).toBe('one\n');
    const waiter = begin(['apply', '--story', 'AH-1', '--wait'], DIFF);
    await answerOf('release', 'src/new.js', 'AH-2');
    expect(await waiter.ended).toMatchObject({ code: 0, stderr: '' });
    expect(text()).toBe('two\n');
  });

  test.each([
    ['nothing', '', 'diff'],
    ['no diff', 'hello\n', 'diff'],
    ['a path outside', DIFF.replaceAll('src/new.js', '../new.js'), '../new.js'],
    ['a path of git', DIFF.replaceAll('src/new.js', '.git/config'), '.git/config'],
  ])('%s is not understood', async (_, diff, part) => {
    expect(await refused(2, ['apply', '--story', 'AH-1'], diff)).toContain(part);
    expect(text()).toBe('one\n');
  });
});

describe('on a terminal', () => {
  test('says what was written', async () => {
    fs.writeFileSync(at('c.diff'), DIFF);
    const from = (file) => ({ cwd: root, line: (words) => `${words} < ${file}` });
    const check = await onTerminal(['apply', '--story', 'AH-1', '--check'], from('c.diff'));
    expect(check).toEqual({ code: 0, screen: 'Would write src/app.js.\nWould write src/new.js.' });
    const apply = await onTerminal(['apply', '--story', 'AH-1'], from('c.diff'));
    expect(apply).toEqual({ code: 0, screen: 'Wrote src/app.js.\nWrote src/new.js.' });
    const patch = await onTerminal(['patch', 'src/app.js', '--story', 'AH-1'], from('c.diff'));
    expect(patch).toEqual({ code: 0, screen: 'Wrote src/app.js.' });
    expect(text()).toBe(DIFF);
  });

  test.each(['patch', 'apply'])('%s --help shows how it is used', async (name) => {
    const { code, stdout, stderr } = await storylock([name, '--help'], { cwd: root });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const part of ['Usage:', '--wait[=ms]', 'Examples:']) expect(stdout).toContain(part);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(101);
  });
});

test('the example of the help: sed through a patch that expects what it read', () => {
  const program = `'${process.execPath}' '${shell.PROGRAM}'`;
  const script = `
    base=$(sha256sum < src/app.js | cut -c 1-64)
    sed s/one/two/ src/app.js | ${program} patch --story AH-1 --expect "$base" src/app.js`;
  execFileSync('sh', ['-ec', script], { cwd: root });
  expect(text()).toBe('two\n');
});
