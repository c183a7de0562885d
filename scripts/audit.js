'use strict';

/**
 * What is known of the dependencies: `npm run audit`.
 *
 * Asks npm for advisories on what is installed, and cargo-deny for advisories, licenses, doubled
 * versions and sources of the crates, as deny.toml has it. Fails when one of them says no: an
 * advisory on what is shipped, a severe one on what is only built with, anything that deny.toml
 * denies. What could not be asked (no network, no cargo-deny) is said plainly and is no failure of
 * the product. `--install` builds cargo-deny into target/tools first where it is missing.
 */

const { spawnSync } = require('node:child_process');
const path = require('node:path');
const { ROOT } = require('./steps.js');

const TOOLS = path.join(ROOT, 'target', 'tools');
const ENV = { ...process.env, PATH: [path.join(TOOLS, 'bin'), process.env.PATH].join(path.delimiter) };

/** What each question came to. */
const answers = [];
const say = (what, verdict, detail = '') => answers.push({ what, verdict, detail });
const GOOD = 'good';
const BAD = 'BAD';
const UNASKED = 'not asked';

function run(command, args, options) {
  const outcome = spawnSync(command, args, { cwd: ROOT, env: ENV, encoding: 'utf8', ...options });
  return { ...outcome, said: `${outcome.stdout ?? ''}${outcome.stderr ?? ''}`.trim() };
}

/** The first line that says what went wrong. */
function complaint({ error, said }) {
  if (error) return error.message;
  const lines = said.split('\n').map((line) => line.trim());
  return lines.find((line) => /error|failed/i.test(line)) ?? lines.at(-1) ?? 'no answer';
}

/** Asks npm; `severity` is the least that counts. */
function npm(what, args, severity) {
  const outcome = run('npm', ['audit', '--json', `--audit-level=${severity}`, ...args]);
  let report = null;
  try {
    report = JSON.parse(outcome.stdout);
  } catch {
    // It had no answer to print.
  }
  const counts = report?.metadata?.vulnerabilities;
  if (!counts) {
    say(what, UNASKED, report?.message ?? complaint(outcome));
    return;
  }
  const found = Object.entries(counts).filter(([name, count]) => name !== 'total' && count > 0);
  const detail = found.map(([name, count]) => `${count} ${name}`).join(', ') || 'none known';
  say(what, outcome.status === 0 ? GOOD : BAD, detail);
}

function denyIsThere() {
  return run('cargo', ['deny', '--version']).status === 0;
}

function installDeny() {
  const args = ['install', '--locked', '--root', TOOLS, 'cargo-deny'];
  return run('cargo', args, { stdio: ['ignore', 'inherit', 'inherit'] }).status === 0;
}

/** Asks cargo-deny for these checks; `offline` says what it answers without the network. */
function deny(what, checks) {
  const outcome = run('cargo', ['deny', '--color', 'never', 'check', '--hide-inclusion-graph', ...checks]);
  if (outcome.status === 0) {
    say(what, GOOD, outcome.said.split('\n').at(-1));
  } else if (/failed to (fetch|open|load) advisory|failed to acquire|error sending request/i.test(outcome.said)) {
    say(what, UNASKED, complaint(outcome));
  } else {
    say(what, BAD, outcome.said);
  }
}

npm('advisories on what is shipped (npm)', ['--omit=dev'], 'low');
npm('severe advisories on what it is built with (npm)', [], 'high');
if (denyIsThere() || (process.argv.includes('--install') && installDeny())) {
  deny('licenses, doubled versions, sources (cargo-deny)', ['bans', 'licenses', 'sources']);
  deny('advisories on the crates (cargo-deny)', ['advisories']);
} else {
  say('the crates (cargo-deny)', UNASKED, 'cargo-deny is not installed; `npm run audit -- --install` builds it');
}

for (const { what, verdict, detail } of answers) {
  console.log(`${verdict.padEnd(10)}${what}${detail ? `: ${detail}` : ''}`);
}
const unasked = answers.filter(({ verdict }) => verdict === UNASKED).length;
if (unasked > 0) console.log(`\n${unasked} of ${answers.length} could not be asked here.`);
process.exit(answers.some(({ verdict }) => verdict === BAD) ? 1 : 0);
