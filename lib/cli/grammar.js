'use strict';

/**
 * What can be said on the command line, and which command is meant by it.
 *
 * Promise: the words of the module that this one replaces keep their meaning: `acquire <file>
 * [story]` and `release <file> [story]`, where the story is `cli-session` unless said. What is not
 * understood is refused with a CommanderError, which has been told by then.
 */

const fs = require('node:fs');

const { Command, InvalidArgumentError } = require('commander');

const { DEFAULT_STORY, OF_COMMAND, OF_PROGRAM } = require('./help.js');

/**
 * The parser. It calls `perform(name, given)` for a command, `write(text)` for help that was asked
 * for, `note(message)` for what is wrong, and `aside(text)` for usage that was not asked for.
 */
function grammar({ perform, write, note, aside }) {
  const program = new Command('storylock')
    .description('Locks files for stories: units of work that run side by side.')
    .version(require('../../package.json').version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help')
    .configureHelp({ subcommandTerm: termOf })
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
  const claiming = (name, description) => {
    const command = answering(`${name} <path...>`, description)
      .usage('[options] <path...> [story]')
      .option('--story <id>', 'the story; all words are paths');
    return command.action((words) => {
      const options = command.optsWithGlobals();
      return perform(name, { ...options, ...claimOf(words, options.story, command) });
    });
  };

  claiming('acquire', 'lock paths for a story: all or none')
    .option('--timeout <ms>', 'the length of the lease; 30000 unless said', milliseconds)
    .option('--reason <text>', 'why, for those who ask');
  claiming('release', 'release locks of a story');
  claiming('renew', 'begin leases of a story anew')
    .option('--timeout <ms>', 'the new length of the lease', milliseconds);

  const check = answering('check <path>', 'tell who holds a path');
  check.action((path) => perform('check', { ...check.optsWithGlobals(), path }));

  const status = answering('status', 'tell everything that is held');
  status.action(() => perform('status', status.optsWithGlobals()));

  const cleanup = answering('cleanup <story>', 'release all locks of a story');
  cleanup.action((storyId) => perform('cleanup', { ...cleanup.optsWithGlobals(), storyId }));

  const run = define('run <path...>', 'hold paths for a command')
    .usage('[options] --story <id> <path...> -- <command> [args...]')
    .requiredOption('--story <id>', 'the story')
    .option('--reason <text>', 'why, for those who ask');
  run.action((words) => {
    const { story, ...options } = run.optsWithGlobals();
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

/** A command in the list of commands. */
function termOf(command) {
  return `${command.name()} ${command.usage()}`.replace(' [options]', '');
}

/** A whole number as people write it; its range is the face's rule. */
function milliseconds(text) {
  if (!/^-?\d+$/.test(text)) throw new InvalidArgumentError('A whole number of ms is needed.');
  return Number(text);
}

/** The paths and the story that these words name. */
function claimOf(words, story, command) {
  if (story !== undefined) return { paths: words, storyId: story };
  if (words.length === 1) return { paths: words, storyId: DEFAULT_STORY };
  const last = words.at(-1);
  if (isFile(last)) {
    const meant = `storylock ${command.name()} --story <id> ${words.join(' ')}`;
    const why = `'${last}' stands where the story's id goes, but is a file.`;
    command.error(`error: ${why} For several paths name the story: ${meant}`);
  }
  return { paths: words.slice(0, -1), storyId: last };
}

function isFile(name) {
  try {
    return fs.statSync(name).isFile();
  } catch {
    return false;
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
