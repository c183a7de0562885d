'use strict';

/** A command's turn: work that may stand in line first, shown meanwhile to whoever watches. */

const { hurdleOf } = require('./queue.js');
const { waitSaid } = require('./words.js');

/**
 * Does work that may stand in line first, and shows the wait to a person at the terminal, until
 * `work` calls what it is given or ends.
 */
async function inTurn({ manager, output }, { storyId, wait = 0 }, work) {
  if (wait === 0) return work(() => {});
  const progress = output.progress(
    () => hurdleOf(manager, storyId),
    (hurdle, waited, age) => waitSaid(hurdle, { root: manager.root, waited, wait, age }),
  );
  try {
    return await work(() => progress.end());
  } finally {
    progress.end();
  }
}

module.exports = { inTurn };
