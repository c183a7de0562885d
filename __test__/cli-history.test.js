'use strict';

/** `storylock history` and `storylock watch`: what happened, and what happens. Real processes. */

const shell = require('./fixtures/cli-shell.js');

const { onTerminal, project, start, storylock } = shell;

let root;
const { answerOf } = shell.commandsIn(() => root);
beforeEach(async () => {
  root = project();
  await answerOf('acquire', 'src/app.js', 'AH-1', '--reason', 'rename total');
  await answerOf('release', 'src/app.js', 'AH-1');
});
afterEach(shell.cleanUp);

const typesOf = (events) => events.map(({ type }) => type);

test('history answers what happened in every process, the newest first', async () => {
  expect(typesOf(await answerOf('history'))).toEqual(['released', 'acquired']);
  expect(await answerOf('history', '--limit', '1')).toHaveLength(1);
  expect(typesOf(await answerOf('history', '--type', 'acquired', 'lost'))).toEqual(['acquired']);
  expect(await answerOf('history', '--path', 'src/other.js')).toEqual([]);
  expect(await answerOf('history', '--since', '1h', '--story', 'AH-1')).toHaveLength(2);
  expect(await answerOf('history', '--until', '2020-01-01')).toEqual([]);
});

test('history says it in words on a terminal', async () => {
  const { screen } = await onTerminal(['history'], { cwd: root });
  expect(screen).toMatch(/AH-1 released src\/app\.js \(held for /);
  expect(screen).toMatch(/AH-1 locked src\/app\.js \(reason: rename total\)/);
});

test('who takes a lock back is on record, with why', async () => {
  await answerOf('acquire', 'src/app.js', 'AH-1');
  await answerOf('force-release', '--by', 'ops', '--reason', 'AH-1 hangs', 'src/app.js');
  const [forced] = await answerOf('history', '--type', 'forced');
  expect(forced).toMatchObject({ storyId: 'AH-1', by: 'ops', reason: 'AH-1 hangs' });
});

test('what is no moment, number or type is not understood', async () => {
  for (const words of [['--since', 'soon'], ['--limit', 'many'], ['--type', 'stolen']]) {
    const { code } = await storylock(['history', ...words], { cwd: root });
    expect({ words, code }).toEqual({ words, code: 2 });
  }
});

test('watch tells each event once, a line each, until it is interrupted', async () => {
  const watching = start(['watch', '--since', '0'], { cwd: root });
  await watching.says(/"released".*\n/);
  await answerOf('acquire', 'src/b.js', 'AH-2');
  await watching.says(/"AH-2".*\n/);
  watching.child.kill('SIGINT');
  const { code, stdout, stderr } = await watching.ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const events = stdout.trim().split('\n').map((line) => JSON.parse(line));
  expect(events.map(({ seq }) => seq)).toEqual([1, 2, 3]);
});
