'use strict';

/**
 * An edit: one line of its own put into a file, recognisable for ever.
 *
 * The file is replaced in one step (a temp file, then a rename), so a killed story leaves it as it
 * was or as it should be, never cut short.
 */

const fs = require('node:fs');
const path = require('node:path');

const MARK = /\[edit (AH-\d{3}\.\d+#\d+)\]/;
const COMMENTS = {
  '.js': ['// ', ''],
  '.ts': ['// ', ''],
  '.rs': ['// ', ''],
  '.md': ['<!-- ', ' -->'],
};

/** How a comment opens and closes in a file of this name; nothing where that is not known. */
function commentOf(file) {
  return COMMENTS[path.extname(file)];
}

/** The content with the edit's line put in at some place. */
function insert(content, file, id) {
  const [open, close] = commentOf(file);
  const lines = content.split('\n');
  const at = Math.floor(Math.random() * lines.length);
  lines.splice(at, 0, `${open}[edit ${id}]${close}`);
  return lines.join('\n');
}

/** Takes a content apart: the ids of the edits in it, and what it is without them. */
function dissect(content) {
  const ids = [];
  const rest = content.split('\n').filter((line) => {
    const id = MARK.exec(line)?.[1];
    if (id) ids.push(id);
    return !id;
  });
  return { ids, rest: rest.join('\n') };
}

function replace(file, content, run) {
  const temp = path.join(path.dirname(file), `.${path.basename(file)}.${run}.tmp`);
  fs.writeFileSync(temp, content);
  fs.renameSync(temp, file);
}

module.exports = { commentOf, insert, dissect, replace };
