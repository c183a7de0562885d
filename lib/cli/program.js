'use strict';

/**
 * storylock's command line as a program: words in, exit code out.
 *
 * Promises: exit 0 done, 1 refused, 2 not understood, before anything was touched; nothing is
 * thrown and no stack trace is shown, whatever fails. The engine is loaded for a command only, so
 * that help is there even where it cannot be.
 */

const { CommanderError } = require('commander');

const { grammar } = require('./grammar.js');
const { EXIT, Output, exitCodeOf } = require('./output.js');

const commands = {
  ...require('./commands.js'),
  ...require('./events.js'),
  ...require('./patch.js'),
};

/**
 * Runs the command line on these words and answers the exit code. `face` gives the LockManager
 * class and the ready instance. Never rejects.
 */
async function main(argv, face, output = new Output()) {
  try {
    return await performed(argv, face, output);
  } catch (error) {
    output.note(messageOf(error));
    return exitCodeOf(error);
  }
}

/** An error's message, without the modules that Node.js lists in it when one is missing. */
function messageOf(error) {
  return error instanceof Error ? error.message.split('\nRequire stack:', 1)[0] : String(error);
}

async function performed(argv, face, output) {
  let code = EXIT.DONE;
  let help = '';
  const program = grammar({
    perform: async (name, { root, ...given }) => {
      const { LockManager, lockManager } = face();
      const manager = root === undefined ? lockManager : new LockManager({ root });
      code = await commands[name]({ manager, output }, given);
    },
    write: (text) => {
      help += text;
    },
    note: (message) => output.note(message),
    aside: (text) => output.aside(text),
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) return EXIT.USAGE;
    await output.text(help);
  }
  return code;
}

module.exports = { main };
