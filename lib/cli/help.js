'use strict';

/** What `--help` says beyond the list of options: rules, exit codes, examples. */

const DEFAULT_STORY = 'cli-session';

const WORDS = `
With one word it is a path, and the story is ${DEFAULT_STORY}. With more words the last one is the
story. With --story all words are paths.`;

const WAIT = `
Without --wait a locked path is refused at once. With it the story stands in line until its turn
comes, in order of arrival; with --wait=<ms> for so long at most (0: not at all). When the time is
up, the exit code is 1 and stderr says who holds the path. A wait that could never end, of stories
that wait for each other, is refused at once. A terminal shows whom one waits for; Ctrl-C gives the
place up.`;

const KINDS = `
With --shared other stories may have --shared locks on the same paths meanwhile, and none without.
With --recursive a folder is locked with everything below it, whether it exists or not. With --glob
every path is a pattern: *, **, ?, {a,b}, [a-z], and !pattern for what is not meant. Quote it, so
that the shell leaves it alone. It stands for the files that exist now, folders too with
--recursive; one that nothing matches is refused. Names that begin with a dot are matched only by
patterns that say the dot. A path like @port/3000 is the name of a thing that is no file;
./@port/3000 is a file.`;

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
  storylock acquire --wait=60000 src/app.js AH-011
  storylock run --story AH-011 --wait src/app.js -- npm test
  storylock run --story AH-011 --recursive src/cart -- npm test
  storylock patch --story AH-011 src/app.js < new.js
  storylock apply --story AH-011 < change.diff
  storylock status`;

const OF_COMMAND = {
  acquire: `${WORDS} Several paths are locked all or none.
The lock outlives this command: it ends at its timeout, or by release or cleanup. A story that has
the lock already is told of the lock that it has. With --glob the JSON is always a list.
${KINDS}
${WAIT}
The lease begins when the lock is granted, not when the wait does.

Examples:
  storylock acquire src/app.js AH-011
  storylock acquire --wait src/app.js AH-011
  storylock acquire --wait=60000 src/app.js AH-011 || echo 'not within a minute'
  storylock acquire --story AH-011 --timeout 600000 src/app.js src/util.js
  storylock acquire --shared --recursive src/cart AH-011
  storylock acquire --glob --story AH-011 'src/**/*.js' '!src/generated/**'
  storylock acquire --wait @git/index AH-011`,
  release: `${WORDS} What is not locked counts as released.

Examples:
  storylock release src/app.js AH-011
  storylock release --story AH-011 src/app.js src/util.js`,
  renew: `${WORDS} Without --timeout the lease begins anew with the length it had.

Examples:
  storylock renew src/app.js AH-011
  storylock renew src/app.js AH-011 --timeout 600000`,
  check: `
Exit 0 when the path is free (JSON: null), 1 when it is locked (JSON: the holder; other readers are
in .others), itself or with a folder that it lies in. On a terminal it tells how many wait for it,
too.

Example:
  storylock check src/app.js && echo free`,
  status: `
Tells every lock and, below, everyone who stands in line: for which path, in which place, how long,
who holds the path, and when that lease ends.

Examples:
  storylock status
  storylock status --json | jq '.activeLocks[].filePath'
  storylock status --json | jq '.waiting[] | [.place, .storyId, .filePath]'`,
  cleanup: `
Answers how many locks were released.

Example:
  storylock cleanup AH-011`,
  'force-release': `
For an operator, where a story is stuck and will not give its lock up. The former holder is told who
did it and why, and cannot patch under its lock any more; who waits goes on in turn. The history
keeps it, with who and why. The story itself is not ended: stop it, or it may go on writing without
asking.
Of several readers all go, or with --story that one. A path that is locked only with a folder above
it is refused: name the folder. With --dry-run nothing changes, and the answer says what would.
Exit 0 also when nobody held the path.

Examples:
  storylock force-release --dry-run --by ops --reason 'AH-007 hangs' src/app.js
  storylock force-release --by ops --reason 'AH-007 hangs' src/app.js
  storylock force-release --by ops --reason 'AH-007 hangs' --story AH-007 @port/3000`,
  history: `
Reads the events that every process appends to .ai/progress/locks.history.jsonl, rotated files
included. Types: acquired, refused, queued, granted, left, renewed, raised, lowered, released,
cleaned, expired, reclaimed, lost, forced, transferred, patched. A moment is a date as in ISO 8601,
ms since 1970, or an age.

Examples:
  storylock history --path src/app.js
  storylock history --story AH-011 --since 2h
  storylock history --type forced reclaimed lost --json`,
  watch: `
Tells each event of every process once, in order, until it is interrupted. With --since it begins
after the event of that number, 0 being before the first that is kept.

Examples:
  storylock watch
  storylock watch --path src/app.js --json | jq -r '[.seq, .type, .storyId] | @tsv'`,
  patch: `
Replaces the file by what stdin holds, in one step: readers see the old content or the new. All of
stdin is read first; the path is locked for the write alone, unless the story has it already. If
that lock is lost before the file is in place, nothing is written. The mode is kept, and a link is
written through.
With --expect the file is written only if it still is what was read: nobody need hold a lock while
the new content is being made. Otherwise the exit code is 1 and stderr says who wrote it last.
--expect none is for a file that must not exist yet.
${WAIT}

Examples:
  storylock patch --story AH-011 src/app.js < new.js
  storylock patch --story AH-011 --expect none --parents src/new/app.js < new.js
  base=$(sha256sum < src/app.js | cut -c 1-64)
  sed s/x/y/ src/app.js | storylock patch --story AH-011 --expect "$base" src/app.js`,
  apply: `
Takes a unified diff as git makes it: changes, new files, deletions, renames, modes. Its paths are
seen from the project's root. All of its files are locked as one set and changed all or none; a
kill in the middle is made good by whoever comes next. Where a hunk does not match, the exit code is
1, stderr names file, hunk and line, and nothing is written. What is no diff, or touches a path
outside the project, .git or .ai/locks, is not understood: 2.
--check tells whether every hunk matches now, and locks and writes nothing.
${WAIT}

Examples:
  git diff main feature | storylock apply --story AH-011 --check
  storylock apply --story AH-011 < change.diff
  storylock apply --story AH-011 --wait=60000 < change.diff`,
  run: `
Locks all paths or none, runs the command, and frees them when it ends, whatever happens. If this
process is killed, they live on until the command has ended too. A lock that the story has already,
by acquire, is held meanwhile and then left to it, with its lease begun anew.
The exit code is the command's; 128 + n when signal n ended it, 126 when it cannot be executed, 127
when it is not found; 1 when the paths are locked, the command then not being run, and 1 when it
ended well but a lock was lost meanwhile. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are
sent on to the command; on a terminal Ctrl-C and Ctrl-\\ reach it from there. The command finds
STORYLOCK_ROOT and STORYLOCK_STORY in its environment.
${KINDS}
${WAIT}
The command starts when its turn has come; until then a signal ends this process, and no more.

Examples:
  storylock run --story AH-011 src/app.js -- npm test
  storylock run --story AH-011 --wait src/app.js -- npx prettier --write src/app.js
  storylock run --story AH-011 --wait --recursive src/cart -- npx prettier --write src/cart
  storylock run --story AH-011 --wait @git/index -- git commit -am 'Sum up'
  storylock run --story AH-011 src/a.js src/b.js -- sh -c 'sed -i s/x/y/ src/a.js src/b.js'`,
};

module.exports = { DEFAULT_STORY, OF_PROGRAM, OF_COMMAND };
