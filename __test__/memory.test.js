'use strict';

/**
 * Memory, handles, threads and files do not grow with what was done, whatever is done.
 *
 * Each kind of operation is done by a process of its own, in stretches; what grows with the work
 * grows in each of them, what the allocator and the collector do comes and goes. So the stretch that
 * grew least is what counts. STORYLOCK_LONG=1 does a million of each (a tenth of that where files are
 * written), and takes a part of an hour.
 */

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const { defect } = require('./fixtures/defect.js');
const { atEnd, cleanUp, folder } = require('./fixtures/project.js');

const FLAT = path.join(__dirname, 'fixtures', 'flat.js');
const { kinds } = require(FLAT);

const IS_LONG = process.env.STORYLOCK_LONG === '1';
const OPERATIONS = IS_LONG ? 1_000_000 : 5_000;
const STRETCHES = 4;
const LIMIT = IS_LONG ? 3_600_000 : 120_000;

/** The pool of threads that files are written on has no more. */
const MOST_WRITERS = 550;

/** What a stretch may seem to take though nothing stays, in kB: pages of the allocator. */
const NOISE_KB = 256;
/** And for each of its operations, in bytes: no object is as small. */
const NOISE_EACH = 4;

afterEach(cleanUp);

/** The stocks that a process took which did this. */
async function stocks(kind, operations) {
  // On a disk that is none, so that a disk is not what is measured.
  const root = fs.existsSync('/dev/shm') ? fs.mkdtempSync('/dev/shm/storylock-test-') : folder();
  atEnd(() => fs.rmSync(root, { recursive: true, force: true }));
  fs.mkdirSync(path.join(root, '.ai'));
  // A young generation that may grow to its usual size would hide what is looked for.
  const flags = ['--expose-gc', '--max-semi-space-size=1'];
  const child = spawn(process.execPath, [...flags, FLAT, kind, root, operations, STRETCHES]);
  atEnd(() => child.kill('SIGKILL'));
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => {
      said[name] += text;
    });
  }
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect({ code, stderr: said.stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(said.stdout);
}

const isWriting = (kind) => kind === 'a patch' || kind === 'a diff that is refused';

async function expectFlat(kind) {
  const operations = IS_LONG && isWriting(kind) ? OPERATIONS / 10 : OPERATIONS;
  const stock = await stocks(kind, operations);
  if (IS_LONG) process.stderr.write(`${kind}: ${JSON.stringify(stock)}\n`);
  const least = (name) =>
    Math.min(...stock.slice(1).map((now, before) => now[name] - stock[before][name]));
  const allowed = NOISE_KB + (NOISE_EACH * operations) / STRETCHES / 1024;
  expect(least('anonymousKB')).toBeLessThan(allowed);
  expect(least('heapKB')).toBeLessThan(allowed);
  for (const name of ['descriptors', 'resources', 'state']) {
    expect({ [name]: stock.at(-1)[name] }).toEqual({ [name]: stock[0][name] });
  }
  // Those that write files go again when nothing was written for a while.
  if (isWriting(kind)) expect(stock.at(-1).threads).toBeLessThan(MOST_WRITERS);
  else expect(stock.at(-1).threads).toBe(stock[0].threads);
}

const FORGOTTEN = 'a manager made and forgotten';

test.each(kinds.filter((kind) => kind !== FORGOTTEN))('%s', expectFlat, LIMIT);

defect(15, FORGOTTEN, () => expectFlat(FORGOTTEN));
