'use strict';

/** What `--help` says beyond the list of options: rules, exit codes, examples. */

const DEFAULT_STORY = 'cli-session';

const WORDS = `
With one word it is a path, and the story is ${DEFAULT_STORY}. With more words the last one is the
story. With --story all words are paths.`;

const OF_PROGRAM = `
Where a command answers, it prints a sentence or a table on a terminal, and JSON with --json or when
stdout is no terminal. Everything else goes to stderr. Paths are seen from the working directory.

Exit codes:
  0  done
  1  refused: locked by another story, not yours, or a failure; stderr says which and what to do
  2  not understood: nothing was touched
  run passes on the exit code of its command

Environment:
  STORYLOCK_ROOT  the project, where --root does not say it. Otherwise it is the nearest folder
                  upward with .ai, else .git, else package.json, else the working directory

Examples:
  storylock acquire src/app.js AH-011
  storylock run --story AH-011 src/app.js -- npm test
  storylock status`;

const OF_COMMAND = {
  acquire: `${WORDS} Several paths are locked all or none.
The lock outlives this command: it ends at its timeout, or by release or cleanup. A story that has
the lock already is told of the lock that it has.

Examples:
  storylock acquire src/app.js AH-011
  storylock acquire --story AH-011 --timeout 600000 src/app.js src/util.js`,
  release: `${WORDS} What is not locked counts as released.

Examples:
  storylock release src/app.js AH-011
  storylock release --story AH-011 src/app.js src/util.js`,
  renew: `${WORDS} Without --timeout the lease begins anew with the length it had.

Examples:
  storylock renew src/app.js AH-011
  storylock renew src/app.js AH-011 --timeout 600000`,
  check: `
Exit 0 when the path is free (JSON: null), 1 when it is locked (JSON: the holder).

Example:
  storylock check src/app.js && echo free`,
  status: `
Examples:
  storylock status
  storylock status --json | jq '.activeLocks[].filePath'`,
  cleanup: `
Answers how many locks were released.

Example:
  storylock cleanup AH-011`,
  run: `
Locks all paths or none, runs the command, and frees them when it ends, whatever happens. If this
process is killed, they live on until the command has ended too. The exit code is the command's;
128 + n when signal n ended it, 126 when it cannot be executed, 127 when it is not found; 1 when the
paths are locked, the command then not being run, and 1 when it ended well but a lock was lost
meanwhile. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are sent on to the command; on a
terminal Ctrl-C and Ctrl-\\ reach it from there. The command finds STORYLOCK_ROOT and
STORYLOCK_STORY in its environment.

Examples:
  storylock run --story AH-011 src/app.js -- npm test
  storylock run --story AH-011 src/a.js src/b.js -- sh -c 'sed -i s/x/y/ src/a.js src/b.js'`,
};

module.exports = { DEFAULT_STORY, OF_PROGRAM, OF_COMMAND };
