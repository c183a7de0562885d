'use strict';

/**
 * The command that `run` runs: started, sent the signals that `run` is sent, and its end told as a
 * shell tells it.
 *
 * Promises: the command has this process's stdin, stdout, stderr and process group; it inherits the
 * life line, so that the locks live as long as it does even if this process is killed; a signal
 * sent to this process reaches it once. Ctrl-C and Ctrl-\ on a terminal reach the whole process
 * group from the terminal itself, so they are not sent on from here.
 */

const { spawn } = require('node:child_process');
const os = require('node:os');

const { isInForeground } = require('./terminal.js');

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'];
const FROM_TERMINAL = new Set(['SIGINT', 'SIGQUIT']);

/** Above those that shell scripts and build tools name themselves: `3>`, `9>`, make's 3 and 4. */
const LIFE_LINE_FD = 19;

const NOT_EXECUTABLE = 126;
const NOT_FOUND = 127;

function stdioWith(lifeLine) {
  const stdio = ['inherit', 'inherit', 'inherit'];
  if (lifeLine === null) return stdio;
  while (stdio.length < LIFE_LINE_FD) stdio.push('ignore');
  return [...stdio, lifeLine];
}

/**
 * Runs `[file, ...args]` to its end. Answers its exit code, 128 + n when signal n ended it, 126
 * when it cannot be executed and 127 when it is not found, which `note` is told of. Never rejects.
 */
function runChild([file, ...args], { env, lifeLine, note }) {
  return new Promise((resolve) => {
    const listeners = new Map();
    const ended = (code) => {
      for (const [signal, listener] of listeners) process.off(signal, listener);
      resolve(code);
    };
    const failed = (error) => {
      const isMissing = error.code === 'ENOENT';
      note(`${file}: ${isMissing ? 'command not found' : `cannot be run: ${error.message}`}`);
      ended(isMissing ? NOT_FOUND : NOT_EXECUTABLE);
    };

    let child;
    for (const signal of FORWARDED.filter((name) => name in os.constants.signals)) {
      const listener = () => {
        if (!(FROM_TERMINAL.has(signal) && isInForeground())) child?.kill(signal);
      };
      listeners.set(signal, listener);
      process.on(signal, listener);
    }
    try {
      child = spawn(file, args, { env, stdio: stdioWith(lifeLine) });
    } catch (error) {
      failed(error);
      return;
    }
    child.once('error', failed);
    child.once('exit', (code, signal) => ended(code ?? 128 + os.constants.signals[signal]));
  });
}

module.exports = { runChild };
