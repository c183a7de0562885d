'use strict';

/**
 * What can be said on the command line, and which command is meant by it.
 *
 * Promise: the words of the module that this one replaces keep their meaning: `acquire <file>
 * [story]` and `release <file> [story]`, where the story is `cli-session` unless said. What is not
 * understood is refused with a CommanderError, which has been told by then. An option whose value
 * may be left out has it after `=` alone: `--wait src/app.js` waits for ever, for that path.
 */

const fs = require('node:fs');

const { Command, InvalidArgumentError } = require('commander');

const { isName } = require('../paths.js');
const { DEFAULT_STORY, OF_COMMAND, OF_PROGRAM } = require('./help.js');

/** A command whose optional values stand after `=` alone: no word beside them is taken for one. */
class StrictCommand extends Command {
  createCommand(name) {
    return new StrictCommand(name);
  }

  parseOptions(words) {
    const rest = [];
    let at = 0;
    while (at < words.length && words[at] !== '--') {
      const option = this.options.find((one) => one.is(words[at]));
      const end = at + (option?.required ? 2 : 1);
      if (option?.optional) this.#sayAlone(option, words[end]);
      else rest.push(...words.slice(at, end));
      at = end;
    }
    return super.parseOptions([...rest, ...words.slice(at)]);
  }

  /** A number after it may be meant as its value or as a path or story: nobody can tell. */
  #sayAlone(option, next = '') {
    const { long } = option;
    if (/^-?\d+(\.\d+)?(ms|s|m|min|h)?$/i.test(next)) {
      const both = `write ${long}=<ms> if it is a time; if not, put ${long} elsewhere`;
      this.error(`error: '${next}' stands after ${long}: ${both}.`);
    }
    this.setOptionValueWithSource(option.attributeName(), true, 'cli');
  }
}

/**
 * The parser. It calls `perform(name, given)` for a command, `write(text)` for help that was asked
 * for, `note(message)` for what is wrong, and `aside(text)` for usage that was not asked for.
 */
function grammar({ perform, write, note, aside }) {
  const program = new StrictCommand('storylock')
    .description('Locks files for stories: units of work that run side by side.')
    .version(require('../../package.json').version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help')
    .configureHelp({ subcommandTerm: termOf, optionTerm })
    .configureOutput({
      writeOut: write,
      writeErr: aside,
      outputError: (text) => note(text.replace(/^error: /, '').trim().replace(/\s+/g, ' ')),
    })
    // Global options after a command are declared for each: only so does `--` reach the command.
    .enablePositionalOptions()
    .exitOverride();
  described(program, 'storylock', OF_PROGRAM);

  const define = (usage, description) => {
    const command = program.command(usage).description(description);
    const name = command.name();
    return described(command, `storylock ${name}`, OF_COMMAND[name]);
  };
  const answering = (usage, description) =>
    define(usage, description).option('--json', 'answer JSON on a terminal too');
  const waiting = (command) =>
    command.option('--wait [ms]', 'stand in line: for ever, or so many ms', milliseconds);
  const choosing = (command) =>
    command
      .option('--shared', 'as one of several readers')
      .option('--recursive', 'folders with everything below them')
      .option('--glob', 'the paths are patterns of files that exist');
  const claiming = (name, description) => {
    const command = answering(`${name} <path...>`, description)
      .usage('[options] <path...> [story]')
      .option('--story <id>', 'the story; all words are paths');
    return command.action((words) => {
      const options = optionsOf(command);
      return perform(name, { ...options, ...claimOf(words, options, command) });
    });
  };

  choosing(waiting(claiming('acquire', 'lock paths for a story: all or none')))
    .option('--timeout <ms>', 'the length of the lease; 30000 unless said', milliseconds)
    .option('--reason <text>', 'why, for those who ask');
  claiming('release', 'release locks of a story');
  claiming('renew', 'begin leases of a story anew')
    .option('--timeout <ms>', 'the new length of the lease', milliseconds);

  const check = answering('check <path>', 'tell who holds a path');
  check.action((path) => perform('check', { ...optionsOf(check), path }));

  const status = answering('status', 'tell everything that is held');
  status.action(() => perform('status', optionsOf(status)));

  const cleanup = answering('cleanup <story>', 'release all locks of a story');
  cleanup.action((storyId) => perform('cleanup', { ...optionsOf(cleanup), storyId }));

  const force = answering('force-release <path>', 'take a path from whoever holds it')
    .usage('[options] --by <name> --reason <text> <path>')
    .requiredOption('--by <name>', 'who takes it, for the note')
    .requiredOption('--reason <text>', 'why, for the note and the former holder')
    .option('--story <id>', 'from this story alone')
    .option('--dry-run', 'tell only what would happen');
  force.action((path) => {
    const { story, ...options } = optionsOf(force);
    return perform('force-release', { ...options, storyId: story, path });
  });

  const telling = (name, description) =>
    answering(name, description)
      .option('--story <id>', 'of this story alone')
      .option('--path <path>', 'of this path alone')
      .option('--type <type...>', 'of these types alone');
  const past = telling('history', 'tell what happened, the newest first')
    .option('--since <time>', 'from this moment on', moment)
    .option('--until <time>', 'up to this moment', moment)
    .option('--limit <count>', 'so many at most; 1000 unless said', count);
  past.action(() => perform('history', eventsOf(past)));

  const watch = telling('watch', 'tell what happens, as it does').option(
    '--since <seq>',
    'after the event of this number',
    count,
  );
  watch.action(() => perform('watch', eventsOf(watch)));

  const writing = (usage, description) =>
    waiting(answering(usage, description))
      .requiredOption('--story <id>', 'the story')
      .option('--no-durable', 'do not wait until the disk has it');

  const patch = writing('patch <path>', 'write what stdin holds to a file, under its lock')
    .usage('[options] --story <id> <path> < content')
    .option('--expect <hash>', 'what the file must be: its SHA-256, or none', expectation)
    .option('--parents', 'make the folders that it lies in');
  patch.action((path) => {
    const { story, expect, ...options } = optionsOf(patch);
    const base = expect === 'none' ? null : expect;
    return perform('patch', { ...options, storyId: story, path, expect: base });
  });

  const apply = writing('apply', 'change files as a diff on stdin says: all or none')
    .usage('[options] --story <id> < change.diff')
    .option('--check', 'tell only whether it could be done');
  apply.action(() => {
    const { story, ...options } = optionsOf(apply);
    return perform('apply', { ...options, storyId: story });
  });

  const run = choosing(waiting(define('run <path...>', 'hold paths for a command')))
    .usage('[options] --story <id> <path...> -- <command> [args...]')
    .requiredOption('--story <id>', 'the story')
    .option('--reason <text>', 'why, for those who ask');
  run.action((words) => {
    const { story, ...options } = optionsOf(run);
    const parts = splitAtDashes(words, program.rawArgs, run);
    return perform('run', { ...options, storyId: story, ...parts });
  });

  return program;
}

function described(command, name, help) {
  return command
    .option('--root <dir>', 'the project that the locks belong to')
    .showHelpAfterError(`storylock: \`${name} --help\` tells how it is used.`)
    .addHelpText('after', help);
}

/** An option in the list of options. */
function optionTerm({ flags }) {
  return flags.replace(' [', '[=');
}

/** A command in the list of commands. */
function termOf(command) {
  return `${command.name()} ${command.usage()}`.replace(' [options]', '');
}

/** The options of a command, those of the program among them. */
function optionsOf(command) {
  const options = command.optsWithGlobals();
  return options.wait === true ? { ...options, wait: Infinity } : options;
}

/** Which events the options of a command name. */
function eventsOf(command) {
  const { story, type, ...options } = optionsOf(command);
  return { ...options, storyId: story, types: type };
}

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A moment: an ISO 8601 date, ms since 1970, or so long ago as `10m`, `2h`, `7d`. */
function moment(text) {
  const [, number, unit] = /^(\d+)(s|m|h|d)$/.exec(text) ?? [];
  if (unit) return Date.now() - number * UNITS[unit];
  const ms = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (Number.isNaN(ms)) {
    const forms = 'A date, ms since 1970, or an age such as 10m, 2h or 7d is needed.';
    throw new InvalidArgumentError(forms);
  }
  return ms;
}

function count(text) {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('A whole number is needed.');
  return Number(text);
}

/** A whole number as people write it; its range is the face's rule. */
function milliseconds(text) {
  const ms = /^-?\d+$/.test(text) ? Number(text) : NaN;
  if (!Number.isFinite(ms)) throw new InvalidArgumentError('A whole number of ms is needed.');
  return ms;
}

/** What a file must be: the hash of its content, or `none`. */
function expectation(text) {
  if (!/^([0-9a-f]{64}|none)$/.test(text)) {
    throw new InvalidArgumentError('A SHA-256 in 64 lower-case hex digits is needed, or none.');
  }
  return text;
}

/** The paths and the story that these words name. */
function claimOf(words, { story, recursive = false, glob = false }, command) {
  if (story !== undefined) return { paths: words, storyId: story };
  if (words.length === 1) return { paths: words, storyId: DEFAULT_STORY };
  const last = words.at(-1);
  const other = whatElse(last, { recursive, glob });
  if (other !== null) {
    const flags = [recursive ? '--recursive ' : '', glob ? '--glob ' : ''].join('');
    const meant = `storylock ${command.name()} ${flags}--story <id> ${words.join(' ')}`;
    const why = `'${last}' stands where the story's id goes, but is ${other}.`;
    command.error(`error: ${why} For several paths name the story: ${meant}`);
  }
  return { paths: words.slice(0, -1), storyId: last };
}

/** What a word in the place of the story may be meant as; null if nothing else comes to mind. */
function whatElse(word, { recursive, glob }) {
  if (isName(word)) return 'the name of a thing';
  if (glob && /[*?[\]{}!]/.test(word)) return 'a pattern';
  const stat = statOf(word);
  if (stat?.isFile()) return 'a file';
  return recursive && stat?.isDirectory() ? 'a folder' : null;
}

function statOf(name) {
  try {
    return fs.statSync(name);
  } catch {
    return null;
  }
}

/** The paths before the first `--` and the command after it, which the parser gives as one list. */
function splitAtDashes(words, argv, command) {
  const length = argv.includes('--') ? argv.length - argv.indexOf('--') - 1 : 0;
  const paths = words.slice(0, Math.max(0, words.length - length));
  const tail = words.slice(paths.length);
  if (!tail[0]) command.error("error: no command is given: write it after '--'");
  if (paths.length === 0) command.error("error: no path is given: write the paths before '--'");
  return { paths, command: tail };
}

module.exports = { grammar };
