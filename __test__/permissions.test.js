'use strict';

/**
 * The permissions of everything that is made, whatever the process's umask is. State: folders 0755,
 * files 0644, less what the umask takes; so nobody else can write where locks are kept. Files and
 * folders that a patch makes: as any program of that umask makes them. A file that is patched keeps
 * its mode, and nobody who may not read it may read what is being written for it.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');

const { defect } = require('./fixtures/defect.js');
const { atEnd, cleanUp, HOME, project, until } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');


let at;
beforeEach(() => {
  at = project();
});
afterEach(cleanUp);

const modeOf = (file) => fs.lstatSync(file).mode & 0o7777;
const octal = (mode) => mode.toString(8);

const MASKS = [0o000, 0o022, 0o027, 0o077];
const EACH_MASK = MASKS.map((mask) => [octal(mask), mask]);

/** A story that makes files with this umask, in a project that nobody has locked in yet. */
async function masked(mask) {
  fs.rmdirSync(at.path('.ai'));
  const story = await startProcess(at.root);
  await story.do((_, given) => void process.umask(given), mask);
  return story;
}

/** Names below a folder, with their modes. */
function modesIn(...names) {
  const top = at.path(...names);
  return fs.readdirSync(top, { recursive: true }).map((name) => {
    const file = `${top}/${name}`;
    return { name, mode: modeOf(file), isFolder: fs.lstatSync(file).isDirectory() };
  });
}

test.each(EACH_MASK)('of the state, with a umask of %s', async (_, mask) => {
  const story = await masked(mask);
  await story.do(async ({ manager, storylock }, root) => {
    const other = new storylock.LockManager({ root });
    await manager.acquire('a', 'AH-1', Infinity);
    await manager.applyPatch('patched', 'AH-1', 'x');
    other.acquire('a', 'AH-2', { wait: Infinity }).catch(() => {});
    await other.status();
  }, at.root);
  // One that is stopped in the middle of a change has its note and its new content there.
  const changing = await startProcess(at.root);
  await changing.do(({ manager }, given) => {
    process.umask(given);
    manager.applyPatch('big', 'AH-3', Buffer.alloc(200_000_000)).catch(() => {});
  }, mask);
  await until(() => fs.readdirSync(at.path('.ai', 'locks', 'staged')).length > 0);
  process.kill(changing.pid, 'SIGSTOP');
  const made = [{ name: '.ai', mode: modeOf(at.path('.ai')), isFolder: true }, ...modesIn('.ai')];
  process.kill(changing.pid, 'SIGCONT');

  const wrong = made.filter(({ mode, isFolder }) => mode !== ((isFolder ? 0o755 : 0o644) & ~mask));
  expect(wrong.map(({ name, mode }) => `${name} ${octal(mode)}`)).toEqual([]);
  const kinds = [/\.guard$/, /\.gitignore$/, /[0-9a-f]{64}\.lock$/, /holders\/\d+$/, /\.bell$/];
  const more = [/queue\/[0-9a-f]{64}$/, /staged\/[\d-]+$/, /written\/[0-9a-f]{64}$/, /locks\.json$/];
  for (const kind of [...kinds, ...more]) {
    expect(made.some(({ name }) => kind.test(name)) || `no ${kind}`).toBe(true);
  }
});

const added = (name) => `--- /dev/null\n+++ b/${name}\n@@ -0,0 +1 @@\n+x\n`;
const ADDED = added('added');
const SCRIPT = `diff --git a/script b/script\nnew file mode 100755\n${added('script')}`;
const CHANGED = '--- a/a\n+++ b/a\n@@ -1 +1 @@\n-new\n+newer\n';

test.each(EACH_MASK)('of what a change makes, with a umask of %s', async (_, mask) => {
  const story = await masked(mask);
  await story.call('applyPatch', 'new/deep/file', 'AH-1', 'x', { parents: true });
  await story.call('applyDiff', ADDED, 'AH-1');
  for (const name of ['new/deep/file', 'added']) {
    expect(octal(modeOf(at.path(name)))).toBe(octal(0o666 & ~mask));
  }
  for (const name of ['new', 'new/deep']) {
    expect(octal(modeOf(at.path(name)))).toBe(octal(0o777 & ~mask));
  }
  await story.call('applyDiff', SCRIPT, 'AH-1');
  expect(modeOf(at.path('script')) & 0o100).toBe(0o100);
});

test('of a new script: no more than the umask leaves', async () => {
  for (const mask of MASKS) {
    fs.mkdirSync(at.path('.ai'), { recursive: true });
    const story = await masked(mask);
    await story.call('applyDiff', SCRIPT, 'AH-1');
    expect(octal(modeOf(at.path('script')))).toBe(octal(0o777 & ~mask));
    await story.call('close');
    fs.rmSync(at.path('script'));
    fs.rmSync(at.path('.ai'), { recursive: true });
  }
});

test.each(EACH_MASK)('of a file that is patched stay, with a umask of %s', async (_, mask) => {
  const story = await masked(mask);
  for (const mode of [0o600, 0o640, 0o644, 0o666, 0o755, 0o777, 0o4711, 0o2755]) {
    fs.writeFileSync(at.path('a'), 'old');
    fs.chmodSync(at.path('a'), mode);
    await story.call('applyPatch', 'a', 'AH-1', 'new\n');
    expect(octal(modeOf(at.path('a')))).toBe(octal(mode));
    await story.call('applyDiff', CHANGED, 'AH-1');
    expect(octal(modeOf(at.path('a')))).toBe(octal(mode));
  }
});

/** What is made beside a file while it is patched, as it stands when part of it is written. */
async function beside(story) {
  const found = () => fs.readdirSync(at.root).find((name) => name.startsWith('.storylock-'));
  await until(() => found() && fs.statSync(at.path(found())).size > 0);
  process.kill(story.pid, 'SIGSTOP');
  return found();
}

test('what is written for a private file is never readable for others', async () => {
  fs.writeFileSync(at.path('secret'), 'old');
  fs.chmodSync(at.path('secret'), 0o600);
  const story = await masked(0o022);
  const content = 400_000_000;
  await story.do(({ manager }, length) => {
    manager.applyPatch('secret', 'AH-1', Buffer.alloc(length, 'x')).catch(() => {});
  }, content);
  const name = await beside(story);
  const { size } = fs.statSync(at.path(name));
  const mode = modeOf(at.path(name));
  await story.kill();
  expect(size).toBeLessThan(content);
  expect(octal(mode & 0o077)).toBe('0');
});

defect(23, 'nobody else can open the guard, for whoever opens it can hold it', async () => {
  const story = await masked(0o022);
  await story.call('acquire', 'a', 'AH-1');
  expect(octal(modeOf(at.path('.ai', 'locks', '.guard')) & 0o077)).toBe('0');
});

test('the command line makes what it makes with the same modes', async () => {
  fs.rmdirSync(at.path('.ai'));
  const script = `umask 000; exec "$0" ${HOME}/tools/orchestrator/locks.js acquire a AH-1 --root .`;
  const child = spawn('sh', ['-c', script, process.execPath], { cwd: at.root, stdio: 'ignore' });
  atEnd(() => child.kill('SIGKILL'));
  expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(0);
  const open = modesIn('.ai').filter(({ mode }) => (mode & 0o022) !== 0);
  expect(open).toEqual([]);
});
