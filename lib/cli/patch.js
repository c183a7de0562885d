'use strict';

/**
 * `patch` and `apply`: files written under their locks, with the new content on stdin.
 *
 * Promises: all of stdin is read before anything is locked, so no lock waits for whoever writes
 * there; the file is replaced whole or stays as it is; the lock is given up again, unless the story
 * had it before. The JSON of each is what the JavaScript call of the same name answers.
 */

const { EXIT } = require('./output.js');
const { inTurn } = require('./turn.js');
const { pathFrom, plain } = require('./words.js');

async function patch({ manager, output }, { path, storyId, json, ...options }) {
  const content = await stdin();
  const { expect, parents, durable, wait } = options;
  const file = await inTurn({ manager, output }, { storyId, wait }, () =>
    manager.applyPatch(path, storyId, content, { expect, parents, durable, wait }),
  );
  await output.answer(file, () => fileSaid(file, manager.root), { json });
  return EXIT.DONE;
}

async function apply({ manager, output }, { storyId, json, check, durable, wait }) {
  const diff = await stdin();
  const files = await inTurn({ manager, output }, { storyId, wait }, () =>
    manager.applyDiff(diff, storyId, { check, durable, wait }),
  );
  const say = () => files.map((file) => fileSaid(file, manager.root, check)).join('\n');
  await output.answer(files, say, { json });
  return EXIT.DONE;
}

async function stdin() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function fileSaid({ path, hash }, root, isCheck = false) {
  const did = hash === null ? 'Removed' : 'Wrote';
  const would = hash === null ? 'Would remove' : 'Would write';
  return plain(`${isCheck ? would : did} ${pathFrom(root, path)}.`);
}

module.exports = { patch, apply };
