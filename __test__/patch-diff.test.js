'use strict';

/**
 * `applyDiff`: what git would make of a diff, or nothing and the reason. All of its files change or
 * none does; nothing outside the project, nor git's or the locks' own state, is ever touched.
 */

const fs = require('node:fs');
const path = require('node:path');

const { LockError, LockManager, hash } = require('..');
const { makeNobody, smallDisk, testUnless, whyNoMount } = require('./fixtures/machine.js');
const trees = require('./fixtures/patch-trees.js');
const { HOME, Project, atEnd, cleanUp, rejection } = require('./fixtures/project.js');
const { startProcess } = require('./fixtures/stories.js');

const { diffOf, gitApplies, leftovers, tree, treeOf } = trees;

afterEach(cleanUp);

const numbered = (count, lineOf) => Array.from({ length: count }, (_, i) => lineOf(i)).join('');

/** A manager of the project at this root. */
function managerOf(root) {
  const manager = new LockManager({ root });
  atEnd(() => manager.close());
  return manager;
}

function applied(root, diff, options) {
  const bytes = typeof diff === 'string' ? Buffer.from(diff, 'latin1') : diff;
  return managerOf(root).applyDiff(bytes, 'AH-1', { durable: false, ...options });
}

/** Applies a diff to two trees of these files, here and by git, and compares. */
async function expectAsGit(files, diff) {
  const [ours, theirs] = [tree(files), tree(files)];
  const before = treeOf(ours);
  expect(gitApplies(theirs, Buffer.from(diff, 'latin1'))).toBe(true);
  const done = await applied(ours, diff);
  const after = treeOf(ours);
  expect(after).toEqual(treeOf(theirs));
  const names = Object.keys({ ...before, ...after });
  const changed = names.filter((name) => before[name] !== after[name]).toSorted();
  expect(done.map(({ path: file }) => path.relative(ours, file)).toSorted()).toEqual(changed);
  for (const { path: file, hash: sum } of done) {
    expect(sum).toBe(fs.existsSync(file) ? hash(fs.readFileSync(file)) : null);
  }
  expect(leftovers(ours)).toEqual([]);
}

/** Applies a diff that must be refused, to a tree that must stay as it is. */
async function refusalOf(root, diff, options) {
  const before = treeOf(root);
  const error = await rejection(applied(root, diff, options));
  expect(treeOf(root)).toEqual(before);
  expect(leftovers(root)).toEqual([]);
  expect(await managerOf(root).status()).toMatchObject({ totalLocks: 0, unreadable: [] });
  return error;
}

const SAMPLE = {
  'bare.txt': `${numbered(5, (i) => `b ${i}\n`)}no newline`,
  'crlf.txt': numbered(12, (i) => `c ${i}\r\n`),
  'dup.txt': numbered(40, (i) => `same ${i % 4}\n`),
  'empty.txt': '',
  'gone.txt': 'bye\nbye\n',
  'long.txt': numbered(60, (i) => `line ${i} of ${i * i}\n`),
  'old/name.txt': numbered(20, (i) => `n ${i}\n`),
  'run.sh': '#!/bin/sh\n',
  'binary.dat': Buffer.from(Array.from({ length: 600 }, (_, i) => (i * i) % 251)),
  'mit Leerzeichen ü.txt': 'u\n',
};

const edit = (root, name, change) => {
  const file = path.join(root, name);
  fs.writeFileSync(file, change(fs.readFileSync(file, 'latin1')), 'latin1');
};
const moved = (root, from, to) => {
  fs.mkdirSync(path.dirname(path.join(root, to)), { recursive: true });
  fs.renameSync(path.join(root, from), path.join(root, to));
};

/** Every kind of change at once. */
const everything = (root) => {
  edit(root, 'long.txt', (text) =>
    text
      .replace('line 5 ', 'LINE 5 ')
      .replace('line 30 of 900\n', '')
      .replace('line 50 ', 'x\nline 50 '),
  );
  edit(root, 'dup.txt', (text) =>
    text.split('\n').with(10, 'changed').toSpliced(25, 0, 'in').join('\n'),
  );
  edit(root, 'crlf.txt', (text) => text.replace('c 4', 'C 4'));
  edit(root, 'bare.txt', (text) => `${text} still`);
  fs.rmSync(path.join(root, 'gone.txt'));
  moved(root, 'old/name.txt', 'new/name.txt');
  edit(root, 'new/name.txt', (text) => text.replace('n 3', 'N 3'));
  fs.chmodSync(path.join(root, 'run.sh'), 0o755);
  trees.write(root, { 'deep/er/made.txt': 'made\n' });
};

describe('as git applies it', () => {
  test.each([
    ['a change', (root) => edit(root, 'long.txt', (text) => text.replace('line 7', 'seven'))],
    [
      'several hunks',
      (root) => edit(root, 'long.txt', (text) => text.replace(/line \d*0 of/g, '$&f')),
    ],
    ['a new file', (root) => trees.write(root, { 'x/y/new.txt': 'a\nb\n' })],
    ['a new file without a newline', (root) => trees.write(root, { 'new.txt': 'a\nb' })],
    ['a new file that is empty', (root) => trees.write(root, { 'new.txt': '' })],
    [
      'a new file that may be run',
      (root) => {
        trees.write(root, { 'new.sh': 'x\n' });
        fs.chmodSync(path.join(root, 'new.sh'), 0o755);
      },
    ],
    ['a deletion', (root) => fs.rmSync(path.join(root, 'gone.txt'))],
    ['a deletion of an empty file', (root) => fs.rmSync(path.join(root, 'empty.txt'))],
    ['a file that becomes empty', (root) => trees.write(root, { 'gone.txt': '' })],
    ['an empty file that is filled', (root) => trees.write(root, { 'empty.txt': 'x\n' })],
    ['a rename', (root) => moved(root, 'old/name.txt', 'else/where.txt')],
    [
      'a rename with changes',
      (root) => {
        moved(root, 'long.txt', 'longer.txt');
        edit(root, 'longer.txt', (text) => `${text}more\n`);
      },
    ],
    [
      'two files that swap their names',
      (root) => {
        moved(root, 'long.txt', 'x');
        moved(root, 'dup.txt', 'long.txt');
        moved(root, 'x', 'dup.txt');
      },
    ],
    ['a mode', (root) => fs.chmodSync(path.join(root, 'run.sh'), 0o755)],
    [
      'a mode with a change',
      (root) => {
        fs.chmodSync(path.join(root, 'run.sh'), 0o755);
        edit(root, 'run.sh', (text) => `${text}exit\n`);
      },
    ],
    ['a newline at the end that is added', (root) => edit(root, 'bare.txt', (text) => `${text}\n`)],
    [
      'a newline at the end that is removed',
      (root) => edit(root, 'gone.txt', (text) => text.trimEnd()),
    ],
    [
      'a change without a newline at the end',
      (root) => edit(root, 'bare.txt', (text) => `${text}!`),
    ],
    ['CRLF', (root) => edit(root, 'crlf.txt', (text) => text.replace('c 5', 'C 5'))],
    ['CRLF that becomes LF', (root) => edit(root, 'crlf.txt', (text) => text.replaceAll('\r', ''))],
    ['CRLF with a last line of LF', (root) => edit(root, 'crlf.txt', (text) => `${text}end\n`)],
    [
      'a binary change',
      (root) => edit(root, 'binary.dat', (text) => `${text.slice(0, 300)}\0${text.slice(310)}`),
    ],
    ['a new binary file', (root) => trees.write(root, { 'new.dat': Buffer.from([0, 1, 2, 255]) })],
    ['a binary deletion', (root) => fs.rmSync(path.join(root, 'binary.dat'))],
    ['a name with spaces and umlauts', (root) => edit(root, 'mit Leerzeichen ü.txt', () => 'U\n')],
    [
      'lines that look like a diff',
      (root) => edit(root, 'gone.txt', () => '-- a\n++ b\n@@ -1 +1 @@\n'),
    ],
    ['everything at once', everything],
  ])('%s', async (_, change) => {
    await expectAsGit(SAMPLE, diffOf(SAMPLE, change));
  });

  const shifted = (text) => ({ ...SAMPLE, 'long.txt': text(SAMPLE['long.txt']) });
  test.each([
    ['further down', shifted((text) => `${numbered(17, (i) => `new ${i}\n`)}${text}`)],
    ['further up', shifted((text) => text.split('\n').slice(2).join('\n'))],
    ['in parts', shifted((text) => text.replace('line 20 of', 'a\nb\nc\nline 20 of'))],
  ])('hunks that match %s', async (_, files) => {
    await expectAsGit(files, diffOf(SAMPLE, everything));
  });

  test.each([
    ['the nearest', 'x\n'],
    ['the nearest, further up', 'x\ny\nz\n'],
  ])('a hunk that matches in several places goes to %s', async (_, above) => {
    const files = { 'a.txt': numbered(200, (i) => `${['a', 'b', 'c', 'd'][i % 4]}\n`) };
    const diff = diffOf(files, (root) =>
      edit(root, 'a.txt', (text) => text.split('\n').with(101, 'B').join('\n')),
    );
    const more = { 'a.txt': `${above}${files['a.txt']}` };
    await expectAsGit(more, diff);
  });

  test('several diffs of one file, one after the other', async () => {
    const first = diffOf(SAMPLE, (root) => edit(root, 'gone.txt', (text) => `${text}1\n`));
    const middle = { ...SAMPLE, 'gone.txt': `${SAMPLE['gone.txt']}1\n` };
    const second = diffOf(middle, (root) => edit(root, 'gone.txt', (text) => `${text}2\n`));
    await expectAsGit(SAMPLE, first + second);
  });

  test('a mail with a commit in it, as format-patch makes it', async () => {
    const mail =
      'From 1 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] x\n\nwhy\n---\n long.txt | 2 +-\n\n';
    const diff = diffOf(SAMPLE, (root) =>
      edit(root, 'long.txt', (text) => text.replace('line 7', '7')),
    );
    await expectAsGit(SAMPLE, `${mail}${diff}-- \n2.43.0\n\n`);
  });

  test('a plain unified diff of several files, without a word of git', async () => {
    const diff = diffOf(SAMPLE, (root) => {
      edit(root, 'long.txt', (text) => text.replace('line 7', 'seven'));
      edit(root, 'crlf.txt', (text) => text.replace('c 5', 'C 5'));
    });
    await expectAsGit(SAMPLE, diff.replace(/^(diff|index) .*\n/gm, ''));
  });

  test('a plain unified diff after one of git is refused, as nothing tells where it belongs', async () => {
    const diff = diffOf(SAMPLE, (root) => {
      edit(root, 'crlf.txt', (text) => text.replace('c 5', 'C 5'));
      edit(root, 'long.txt', (text) => text.replace('line 7', 'seven'));
    });
    const root = tree(SAMPLE);
    const mixed = diff.replace(/^diff .*long.txt\nindex .*\n/m, '');
    const error = await refusalOf(root, mixed);
    expect(error.code).toBe('ERR_INVALID_ARG_VALUE');
    expect(error.message).toContain('a file without its `diff --git` line');
  });

  test("this project's own history", async () => {
    const most = 8;
    const isCheckout = fs.existsSync(path.join(HOME, '.git'));
    const history = isCheckout ? trees.changes(HOME, most) : [];
    const isPlain = ({ diff }) => !/^(new|old|deleted file) (file )?mode 1[26]0000$/m.test(diff);
    for (const { commit, diff } of history.filter(isPlain)) {
      const [ours, theirs] = [0, 1].map(() => trees.checkedOut(HOME, `${commit}^`));
      expect({ commit, applies: gitApplies(theirs, diff) }).toEqual({ commit, applies: true });
      await applied(ours, diff);
      expect({ commit, tree: treeOf(ours) }).toEqual({ commit, tree: treeOf(theirs) });
      expect(leftovers(ours)).toEqual([]);
    }
  });

  test("a history made of this project's sources, there and back", async () => {
    const repository = trees.ownRepository();
    const sources = Object.keys(treeOf(repository));
    for (let round = 0; round < 5; round++) {
      const [a, b, c, d] = [0, 1, 2, 3].map((n) => sources[(round * 5 + n * 3) % sources.length]);
      for (const name of new Set([a, b])) {
        if (!fs.existsSync(path.join(repository, name))) continue;
        edit(repository, name, (text) =>
          text
            .split('\n')
            .flatMap((line, i) => (i % 23 === round ? [] : i % 31 === 3 ? [line, line] : line))
            .join('\n'),
        );
      }
      if (fs.existsSync(path.join(repository, c)))
        moved(repository, c, `moved/${round}/${path.basename(c)}`);
      if (fs.existsSync(path.join(repository, d))) fs.rmSync(path.join(repository, d));
      trees.write(repository, { [`made/${round}.txt`]: numbered(round, (i) => `${i}\n`) });
      fs.chmodSync(path.join(repository, 'index.js'), round % 2 ? 0o644 : 0o755);
      trees.commit(repository);
    }
    const back = (commit) => trees.git(repository, 'diff', '--binary', '-M', commit, `${commit}^`);
    for (const { commit, diff } of trees.changes(repository, 5)) {
      for (const [from, change] of [
        [`${commit}^`, diff],
        [commit, back(commit)],
      ]) {
        const [ours, theirs] = [0, 1].map(() => trees.checkedOut(repository, from));
        expect({ from, applies: gitApplies(theirs, change) }).toEqual({ from, applies: true });
        await applied(ours, change);
        expect({ from, tree: treeOf(ours) }).toEqual({ from, tree: treeOf(theirs) });
      }
    }
  });
});

describe('all or nothing', () => {
  const three = () => ({
    'a.txt': 'a\n',
    'b.txt': 'b\n',
    'sub/c.txt': numbered(30, (i) => `c ${i}\n`),
  });
  const diff = diffOf.bind(null, three(), (root) => {
    edit(root, 'a.txt', () => 'A\n');
    edit(root, 'b.txt', () => 'B\n');
    edit(root, 'sub/c.txt', (text) => text.replace('c 2\n', 'C 2\n').replace('c 25\n', 'C 25\n'));
  });

  const removal = diffOf.bind(null, three(), (root) => {
    edit(root, 'a.txt', () => 'A\n');
    fs.rmSync(path.join(root, 'b.txt'));
    moved(root, 'sub/c.txt', 'sub/d.txt');
  });

  test('a hunk of the third file does not match: EHUNK tells file, hunk and line', async () => {
    const root = tree({ ...three(), 'sub/c.txt': three()['sub/c.txt'].replace('c 24', 'c 42') });
    const error = await refusalOf(root, diff());
    expect(error).toBeInstanceOf(LockError);
    const file = path.join(root, 'sub', 'c.txt');
    expect(error).toMatchObject({ code: 'EHUNK', path: file, storyId: 'AH-1', hunk: 2, line: 23 });
    expect(error.message).toContain('Hunk 2 of sub/c.txt (at line 23)');
    expect(error.message).toContain('Nothing was written');
  });

  test.each([
    [
      'a file to be changed that is not there',
      (root) => fs.rmSync(path.join(root, 'sub/c.txt')),
      diff,
    ],
    [
      'a file to be made that is there',
      () => {},
      () => diffOf({ x: '' }, (root) => trees.write(root, { 'b.txt': 'new\n' })),
    ],
    [
      'a file to be removed that is another',
      (root) => edit(root, 'b.txt', () => 'else\n'),
      () => diffOf(three(), (root) => fs.rmSync(path.join(root, 'b.txt'))),
    ],
    [
      'a file to be removed that is longer',
      (root) => edit(root, 'b.txt', (text) => `${text}more\n`),
      () => diffOf(three(), (root) => fs.rmSync(path.join(root, 'b.txt'))),
    ],
    [
      'a new name that is taken',
      (root) => trees.write(root, { 'z.txt': 'z\n' }),
      () => diffOf(three(), (root) => moved(root, 'a.txt', 'z.txt')),
    ],
  ])('%s: EHUNK', async (_, prepare, diffFor) => {
    const root = tree(three());
    prepare(root);
    expect((await refusalOf(root, diffFor())).code).toBe('EHUNK');
  });

  test('a path that another story holds: ELOCKED, and no other stays locked', async () => {
    const root = tree(three());
    const other = managerOf(root);
    await other.acquire(path.join(root, 'b.txt'), 'AH-2');
    const before = treeOf(root);
    const error = await rejection(applied(root, diff()));
    expect(error).toMatchObject({ code: 'ELOCKED', holder: { storyId: 'AH-2' } });
    expect(treeOf(root)).toEqual(before);
    expect(await other.status()).toMatchObject({ totalLocks: 1 });
  });

  test('under locks that are given, which must be of all its paths', async () => {
    const root = tree(three());
    const manager = managerOf(root);
    const names = ['a.txt', 'b.txt', 'sub/c.txt'].map((name) => path.join(root, name));
    const some = await manager.acquireAll(names.slice(0, 2), 'AH-1');
    const options = { durable: false };
    const before = treeOf(root);
    const error = await rejection(manager.applyDiff(diff(), 'AH-1', { ...options, lock: some }));
    expect(error).toMatchObject({ code: 'EFENCED', path: names[2] });
    expect(treeOf(root)).toEqual(before);
    const all = await manager.acquireAll(names, 'AH-1');
    await manager.applyDiff(diff(), 'AH-1', { ...options, lock: all });
    expect(await all.verify()).toBe(true);
    expect(fs.readFileSync(names[1], 'utf8')).toBe('B\n');
  });

  test.each([
    ['the folder of the third', 'sub', 0o555],
    ['the project', '.', 0o555],
  ])('%s may not be written: EACCES', async (_, name, mode) => {
    const root = tree({ ...three(), '.ai/keep': '' });
    fs.chmodSync(path.join(root, '.ai'), 0o777);
    for (const each of ['.', 'sub']) fs.chmodSync(path.join(root, each), 0o777);
    const before = treeOf(root);
    const story = await startProcess(root);
    await makeNobody(story);
    fs.chmodSync(path.join(root, name), mode);
    const error = await rejection(story.call('applyDiff', diff(), 'AH-1'));
    expect(error).toMatchObject({ name: 'LockError', code: 'EACCES' });
    expect(error.path.startsWith(root)).toBe(true);
    expect(treeOf(root)).toEqual(before);
    expect(leftovers(root)).toEqual([]);
    fs.chmodSync(path.join(root, name), 0o777);
    await story.call('applyDiff', diff(), 'AH-1');
    expect(fs.readFileSync(path.join(root, 'b.txt'), 'utf8')).toBe('B\n');
  });

  const whyNoOther = process.getuid() === 0 ? null : 'only root can make files of others';
  const sticky = 0o1777;
  testUnless(
    whyNoOther,
    'the third may not be replaced: EPERM, and the two before go back',
    async () => {
      const root = tree({ ...three(), '.ai/keep': '' });
      fs.chmodSync(path.join(root, '.ai'), 0o777);
      fs.chmodSync(root, 0o777);
      const before = treeOf(root);
      const story = await startProcess(root);
      await makeNobody(story);
      // Everybody may make files there, but only their owners may rename them.
      fs.chmodSync(path.join(root, 'sub'), sticky);
      for (const check of [diff(), removal()]) {
        const error = await rejection(story.call('applyDiff', check, 'AH-1'));
        const told = { name: 'LockError', code: 'EPERM', path: path.join(root, 'sub/c.txt') };
        expect(error).toMatchObject(told);
        expect(treeOf(root)).toEqual(before);
        expect(leftovers(root)).toEqual([]);
        expect(await story.call('status')).toMatchObject({ totalLocks: 0 });
      }
    },
  );

  testUnless(whyNoMount(), 'the disk is full at the last file: ENOSPC', async () => {
    const disk = new Project(smallDisk('768k').root);
    const files = { 'a.txt': 'a\n', 'b.txt': 'b\n', 'c.txt': 'c\n' };
    trees.write(disk.root, files);
    fs.mkdirSync(disk.path('.ai'));
    const large = diffOf(files, (root) => {
      edit(root, 'a.txt', () => 'A\n');
      edit(root, 'b.txt', () => 'x'.repeat(300_000));
      edit(root, 'c.txt', () => 'x'.repeat(600_000));
    });
    const story = await startProcess(disk.root);
    const before = treeOf(disk.root);
    const error = await rejection(story.call('applyDiff', large, 'AH-1'));
    expect(error).toMatchObject({ name: 'LockError', code: 'ENOSPC', path: disk.path('c.txt') });
    expect(treeOf(disk.root)).toEqual(before);
    expect(leftovers(disk.root)).toEqual([]);
  });

  test('two names of one file in a diff: both changes are in it, or it is refused', async () => {
    const root = tree({ 'a.txt': 'one\ntwo\n' });
    fs.symlinkSync('a.txt', path.join(root, 'b.txt'));
    const both = ['a', 'b'].map((name, i) => {
      const lines = i === 0 ? '-one\n+ONE\n two\n' : ' one\n-two\n+TWO\n';
      const files = `--- a/${name}.txt\n+++ b/${name}.txt\n`;
      return `diff --git a/${name}.txt b/${name}.txt\n${files}@@ -1,2 +1,2 @@\n${lines}`;
    });
    const error = await applied(root, both.join('')).then(
      () => null,
      (failure) => failure,
    );
    const now = fs.readFileSync(path.join(root, 'a.txt'), 'utf8');
    expect(now).toBe(error === null ? 'ONE\nTWO\n' : 'one\ntwo\n');
  });
});

describe('check', () => {
  test('tells what would be, and touches nothing', async () => {
    const root = tree(SAMPLE);
    const diff = diffOf(SAMPLE, everything);
    const before = treeOf(root);
    const told = await applied(root, diff, { check: true });
    expect(treeOf(root)).toEqual(before);
    expect(await applied(root, diff)).toEqual(told);
    expect((await refusalOf(root, diff, { check: true })).code).toBe('EHUNK');
  });

  test('asks nobody who holds a lock', async () => {
    const root = tree(SAMPLE);
    await managerOf(root).acquire(path.join(root, 'long.txt'), 'AH-2');
    await applied(root, diffOf(SAMPLE, everything), { check: true });
  });
});

const addition = (name) =>
  `diff --git a/${name} b/${name}\nnew file mode 100644\n` +
  `--- /dev/null\n+++ b/${name}\n@@ -0,0 +1 @@\n+x\n`;

describe('a path that must not be touched', () => {
  test.each([
    ['../outside.txt'],
    ['a/../../outside.txt'],
    ['/etc/outside.txt'],
    ['.git/config'],
    ['.git/hooks/pre-commit'],
    ['sub/.git/config'],
    ['.GIT/config'],
    ['.ai/locks/.guard'],
    ['.ai/locks/x.lock'],
    ['.ai/progress/../locks/x.lock'],
    ['link/outside.txt'],
    ['way/in/outside.txt'],
    ['locks/x.lock'],
    ['dangling'],
  ])('%s is refused', async (name) => {
    const root = tree({
      'sub/a.txt': 'a\n',
      '.git/config': 'git\n',
      '.ai/locks/.gitignore': '*\n',
    });
    const outside = tree({});
    fs.mkdirSync(path.join(outside, 'in'));
    fs.symlinkSync(outside, path.join(root, 'link'));
    fs.symlinkSync(outside, path.join(root, 'way'));
    fs.symlinkSync('.ai/locks', path.join(root, 'locks'));
    fs.symlinkSync(path.join(outside, 'outside.txt'), path.join(root, 'dangling'));
    const git = treeOf(path.join(root, '.git'));
    const locks = treeOf(path.join(root, '.ai'));
    const rename =
      `diff --git a/sub/a.txt b/${name}\nsimilarity index 100%\n` +
      `rename from sub/a.txt\nrename to ${name}\n`;
    for (const diff of [addition(name), `${addition('fine.txt')}${addition(name)}`, rename]) {
      const error = await rejection(applied(root, diff));
      expect(error).toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' });
      expect(error.message).toMatch(/must not touch|does not do|must be/);
    }
    expect(treeOf(outside)).toEqual({});
    expect(Object.keys(treeOf(root)).toSorted()).toEqual([
      'dangling',
      'link',
      'locks',
      'sub/a.txt',
      'way',
    ]);
    expect(treeOf(path.join(root, '.git'))).toEqual(git);
    expect(treeOf(path.join(root, '.ai'))).toEqual(locks);
  });

  test.each([
    ['a link', 'new file mode 120000'],
    ['a submodule', 'new file mode 160000'],
  ])('%s is refused', async (_, mode) => {
    const root = tree({});
    const error = await refusalOf(root, addition('a').replace('new file mode 100644', mode));
    expect(error).toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' });
  });

  test('a binary change whose content is left out is refused', async () => {
    const diff = 'diff --git a/a b/a\nindex 1..2 100644\nBinary files a/a and b/a differ\n';
    const error = await refusalOf(tree({ a: '\0' }), diff);
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
    expect(error.message).toContain('--binary');
  });
});

describe('what is no diff', () => {
  const wrong = { name: 'TypeError', code: 'ERR_INVALID_ARG_VALUE' };

  test.each([[''], ['hello\n'], ['\0\0\0'], ['diff --git a/a b/a\n'], ['@@ -1 +1 @@\n-a\n+b\n']])(
    '%j is refused',
    async (diff) => {
      expect(await refusalOf(tree({ a: 'a\n' }), diff)).toMatchObject(wrong);
    },
  );

  test.each([[5], [null], [undefined], [{}]])('%p is refused', async (diff) => {
    const error = await rejection(managerOf(tree({})).applyDiff(diff, 'AH-1'));
    expect(error).toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' });
  });

  const change = (text) => `diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n${text}`;
  const whole = change('-one\n+ONE\n two\n');
  test.each([
    ['more lines in a hunk than it says', change('-one\n+ONE\n two\n+three\n'), null],
    ['fewer lines in a hunk than it says', change('-one\n+ONE\n'), null],
    ['a stray line before the file names', whole.replace('---', 'x\n---'), 'ONE\ntwo\n'],
    ['a stray line after the file names', whole.replace('@@ -', 'x\n@@ -'), 'ONE\ntwo\n'],
    ['a hunk after a stray line', `${whole}x\n@@ -2 +2 @@\n-two\n+TWO\n`, 'ONE\nTWO\n'],
    ['a file without a change before another', `diff --git a/b b/b\n${whole}`, 'ONE\ntwo\n'],
  ])('%s: nothing is left out in silence', async (_, diff, complete) => {
    const root = tree({ a: 'one\ntwo\n', b: 'b\n' });
    const failure = await applied(root, diff).then(
      () => null,
      (error) => error,
    );
    const now = fs.readFileSync(path.join(root, 'a'), 'utf8');
    if (failure === null) expect(now).toBe(complete);
    else expect([failure.code, now]).toEqual(['ERR_INVALID_ARG_VALUE', 'one\ntwo\n']);
  });
});

describe('a diff that was damaged', () => {
  const NASTY = [
    '--- a/x',
    '+++ b/x',
    '@@ -1 +1 @@',
    '@@ -0,0 +1,99999999999999999999 @@',
    '@@ -18446744073709551615,3 +1 @@',
    'diff --git a/dup.txt b/dup.txt',
    'diff --git "a/\\303" b/x',
    '\\ No newline at end of file',
    '',
    '+',
    '-',
    ' ',
    '\0',
    'GIT binary patch',
    'literal 5',
    'rename from long.txt',
    'rename to ../x',
    'copy from dup.txt',
    'copy to other.txt',
    'deleted file mode 100644',
    'new file mode 120000',
    'old mode 100755',
    'index 0..1 160000',
  ];

  /** A generator of numbers that is the same in every run. */
  const below = (seed) => {
    let state = seed;
    return (limit) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * limit);
    };
  };

  const damaged = (diff, pick) => {
    const lines = diff.split('\n');
    for (let count = 1 + pick(3); count > 0; count--) {
      const at = pick(lines.length);
      const other = pick(lines.length);
      switch (pick(7)) {
        case 0:
          lines.splice(at, 1 + pick(4));
          break;
        case 1:
          lines.splice(at, 0, lines[at]);
          break;
        case 2:
          [lines[at], lines[other]] = [lines[other], lines[at]];
          break;
        case 3: {
          const column = pick(lines[at].length + 1);
          const character = String.fromCharCode(pick(256));
          lines[at] = `${lines[at].slice(0, column)}${character}${lines[at].slice(column + 1)}`;
          break;
        }
        case 4:
          lines[at] = lines[at].replace(/\d+/g, (number) =>
            Math.max(0, Number(number) + pick(5) - 2),
          );
          break;
        case 5:
          lines.length = Math.max(1, at);
          break;
        default:
          lines.splice(at, 0, NASTY[pick(NASTY.length)]);
      }
    }
    return lines.join('\n');
  };

  test('changes what git would change, or nothing', async () => {
    const rounds = 300;
    const { 'binary.dat': _, ...files } = SAMPLE;
    const diff = diffOf(files, everything);
    const [ours, theirs] = [tree({}), tree({})];
    const manager = managerOf(ours);
    const outcomes = { applied: 0, refused: 0 };
    const reset = (root) => {
      for (const name of fs.readdirSync(root)) {
        if (name !== '.ai') fs.rmSync(path.join(root, name), { recursive: true });
      }
      trees.write(root, files);
    };
    reset(ours);
    const before = treeOf(ours);
    for (let seed = 1; seed <= rounds; seed++) {
      const bytes = Buffer.from(damaged(diff, below(seed)), 'latin1');
      const outcome = await manager.applyDiff(bytes, 'AH-1', { durable: false }).then(
        () => 'applied',
        (error) => error,
      );
      const after = treeOf(ours);
      if (outcome === 'applied') {
        outcomes.applied += 1;
        reset(theirs);
        if (gitApplies(theirs, bytes)) {
          expect({ seed, tree: after }).toEqual({ seed, tree: treeOf(theirs) });
        }
        reset(ours);
      } else {
        outcomes.refused += 1;
        expect({ seed, tree: after }).toEqual({ seed, tree: before });
        const codes = [
          'EHUNK',
          'EBASE',
          'ERR_INVALID_ARG_VALUE',
          'ENAMETOOLONG',
          'ENOTDIR',
          'EISDIR',
        ];
        expect({ seed, isKnown: codes.includes(outcome.code) ? true : outcome.stack }).toEqual({
          seed,
          isKnown: true,
        });
      }
      expect(leftovers(ours)).toEqual([]);
    }
    expect(outcomes.applied).toBeGreaterThan(20);
    expect(outcomes.refused).toBeGreaterThan(100);
  });
});
