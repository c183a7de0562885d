'use strict';

/** The package as a process sees it: loading, leaving, importing. */

const fs = require('node:fs');
const path = require('node:path');
const { lockManager, LockManager } = require('..');
const { PACKAGE, project, cleanUp, run } = require('./fixtures/face.js');

let root;
let file;
beforeEach(() => {
  ({ root, file } = project());
});
afterEach(cleanUp);

describe('the package', () => {
  test('loading it starts nothing and looks at nothing', () => {
    const script = `
      const fs = require('node:fs');
      const seen = () => ({
        events: process.eventNames().map((name) => [String(name), process.listenerCount(name)]),
        threads: process.platform === 'linux' ? fs.readdirSync('/proc/self/task').length : 0,
        files: fs.readdirSync(process.argv[2]),
        handles: process.getActiveResourcesInfo().filter((kind) => kind !== 'TTYWrap'),
      });
      fs.mkdirSync(process.argv[2] + '/.ai');
      const before = seen();
      const { lockManager, LockManager } = require(process.argv[1]);
      new LockManager({ root: process.argv[2] });
      const after = seen();
      console.log(JSON.stringify({ before, after, listeners: lockManager.eventNames() }));
    `;
    const { before, after, listeners } = run(script);
    expect(after).toEqual(before);
    expect(listeners).toEqual([]);
  });

  test('one exit listener comes with the first lock, however many managers there are', () => {
    const script = `
      const { LockManager } = require(process.argv[1]);
      const count = () => process.listenerCount('exit');
      (async () => {
        const managers = [1, 2, 3].map(() => new LockManager({ root: process.argv[2] }));
        const before = count();
        await managers[0].status();
        await managers[0].check('/tmp/a');
        const looked = count();
        for (const manager of managers) await manager.acquire('/tmp/a', 'S', Infinity);
        const locked = count();
        for (const manager of managers) await manager.close();
        const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'].map((name) => process.listenerCount(name));
        console.log(JSON.stringify({ looked: looked - before, locked: locked - before, signals }));
      })();
    `;
    expect(run(script)).toEqual({ looked: 0, locked: 1, signals: [0, 0, 0] });
  });

  test.each([
    ['ends by itself', ''],
    ['calls process.exit()', 'process.exit(0);'],
  ])('a process that holds locks and %s is not kept alive and gives them up', (_, end) => {
    const script = `
      const { LockManager } = require(process.argv[1]);
      (async () => {
        const one = new LockManager({ root: process.argv[2] });
        const two = new LockManager({ root: process.argv[2] });
        await one.acquire('/tmp/a', 'S', Infinity);
        await two.acquire('/tmp/b', 'T', Infinity);
        console.log(JSON.stringify(process.exitCode ?? 0));
        ${end}
      })();
    `;
    expect(run(script)).toBe(0);
    const left = fs.readdirSync(path.join(root, '.ai', 'locks'));
    expect(left.filter((name) => name.endsWith('.lock'))).toEqual([]);
  });

  test('its names can be imported from an ES module', () => {
    const script = `
      import all, { LockManager, lockManager, LockError, Lock, LockSet, hash, read } from 'storylock';
      import dropIn, { lockManager as same } from 'storylock/tools/orchestrator/locks.js';
      const names = [LockManager, LockError, Lock, LockSet, hash, read].map((one) => one.name);
      const isReady = lockManager instanceof LockManager && same === lockManager;
      const wholes = [all, dropIn].map((one) => Object.keys(one));
      console.log(JSON.stringify({ names, isReady, wholes }));
    `;
    expect(run(script, { args: ['--input-type=module'], cwd: PACKAGE })).toEqual({
      names: ['LockManager', 'LockError', 'Lock', 'LockSet', 'hash', 'read'],
      isReady: true,
      wholes: [
        ['LockManager', 'lockManager', 'LockError', 'Lock', 'LockSet', 'hash', 'read'],
        ['LockManager', 'lockManager'],
      ],
    });
  });

  test('the ready manager finds its project at its first call', () => {
    const project = path.join(root, 'project');
    const deep = path.join(project, 'src', 'deep');
    fs.mkdirSync(deep, { recursive: true });
    fs.writeFileSync(path.join(project, 'package.json'), '{}');
    const script = `
      const { lockManager } = require(process.argv[1]);
      process.chdir(process.argv[2] + '/project/src/deep');
      console.log(JSON.stringify(lockManager.root));
    `;
    expect(run(script)).toBe(project);
    expect(run(script, { env: { STORYLOCK_ROOT: deep } })).toBe(deep);
    expect(lockManager).toBeInstanceOf(LockManager);
  });
});
