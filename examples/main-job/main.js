'use strict';

/**
 * The main job, on real input: `npm start`.
 *
 * Copies this project's own sources to a scratch folder and lets story processes patch overlapping
 * files of it for some seconds, while some of them are killed. First with locks, then without. What
 * happened is then read from the files themselves, not from what the stories say of it.
 *
 * Exits with 1 if a check fails with locks on, or if the run without locks lost nothing and so
 * proves nothing. The scratch folder is removed, unless a check failed.
 */

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { Board } = require('./board.js');
const { Crew } = require('./crew.js');
const { plant } = require('./tree.js');
const { examine } = require('./verdict.js');
const { summary } = require('./summary.js');

const USAGE = 'usage: npm start -- [--stories 10] [--seconds 8]';

async function main({ stories, seconds }) {
  const scratch = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), 'storylock-main-job-'));
  const shorter = Math.ceil((seconds * 5) / 8);

  const locked = await run({ scratch, stories, seconds, locking: true });
  const unlocked = await run({ scratch, stories, seconds: shorter, locking: false });

  const { text, failures } = summary(locked, unlocked);
  console.log(`\n${text}`);
  if (failures.length > 0) {
    console.log(`\nFAILED\n   ${failures.join('\n   ')}\nThe files are kept in ${scratch}`);
    process.exitCode = 1;
    return;
  }
  fs.rmSync(scratch, { recursive: true, force: true });
  console.log('\nEvery check passed.');
}

async function run({ scratch, stories, seconds, locking }) {
  const place = path.join(scratch, locking ? 'with-locks' : 'without-locks');
  const ground = plant(place);
  console.log(`\n== Locking ${locking ? 'on' : 'OFF'}: ${stories} story processes patch ` +
    `${ground.targets.length} of ${ground.files} files for ${seconds} s`);
  console.log(`   ${ground.tree}`);

  const crew = new Crew({ ground, stories, locking, until: Date.now() + seconds * 1000 });
  const board = new Board(crew);
  board.start();
  try {
    await crew.work();
  } finally {
    await board.stop();
  }
  return { ...examine(ground, await crew.remains()), ...crew.tally(), locking };
}

function options() {
  const { values } = parseArgs({
    options: {
      stories: { type: 'string', default: '10' },
      seconds: { type: 'string', default: '8' },
    },
  });
  return { stories: whole(values, 'stories', 2, 100), seconds: whole(values, 'seconds', 2, 3600) };
}

function whole(values, name, least, most) {
  const number = Number(values[name]);
  if (Number.isInteger(number) && number >= least && number <= most) return number;
  throw new RangeError(`--${name} is a whole number from ${least} to ${most}`);
}

let wanted;
try {
  wanted = options();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
main(wanted);
