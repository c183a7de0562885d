'use strict';

/**
 * A witness that knows nothing of the locks: finds two stories at work on one file.
 *
 * A story puts a marker, a file that names its run, before it reads its target, and takes it away
 * after its write. Both are steps of the file system in which only one can win. To find somebody
 * else's marker means that two are at work on the file, unless the other was killed: before a kill
 * the killer notes the time, on the clock that all processes share, and only a marker met later is
 * what a killed story left. So no overlap is invented, and none is missed but one that begins in
 * the microseconds between that note and the kill.
 */

const fs = require('node:fs');
const path = require('node:path');

class Witness {
  #markers;
  #kills;
  #run;

  constructor({ markers, kills }, run) {
    this.#markers = markers;
    this.#kills = kills;
    this.#run = run;
  }

  /** Marks a file as worked on. Answers null, or who else is: then it is not marked. */
  enter(file) {
    const marker = this.#markerOf(file);
    const met = process.hrtime.bigint();
    if (this.#put(marker)) return null;
    const other = content(marker);
    if (other === null) return 'one that has just left';
    const killedAt = content(path.join(this.#kills, other));
    if (killedAt === null || BigInt(killedAt) > met) return other;
    return this.#remove(marker, other) ?? (this.#put(marker) ? null : 'one that has just come');
  }

  /** Takes the own marker away. Answers null, or who else has been at work on the file. */
  leave(file) {
    return this.#remove(this.#markerOf(file), this.#run);
  }

  #markerOf(file) {
    return path.join(this.#markers, encodeURIComponent(file));
  }

  #put(marker) {
    const whole = `${marker}.${this.#run}`;
    fs.writeFileSync(whole, this.#run);
    try {
      fs.linkSync(whole, marker);
      return true;
    } catch (error) {
      if (error.code === 'EEXIST') return false;
      throw error;
    } finally {
      fs.unlinkSync(whole);
    }
  }

  #remove(marker, expected) {
    const taken = `${marker}.${this.#run}`;
    try {
      fs.renameSync(marker, taken);
    } catch (error) {
      if (error.code === 'ENOENT') return 'one that took the marker away';
      throw error;
    }
    const found = content(taken);
    fs.unlinkSync(taken);
    return found === expected ? null : found;
  }
}

/** Writes down, as the last thing before it, that a run is killed. */
function noteKill(kills, run) {
  const note = path.join(kills, run);
  fs.writeFileSync(`${note}.tmp`, String(process.hrtime.bigint()));
  fs.renameSync(`${note}.tmp`, note);
}

function content(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw error;
  }
}

module.exports = { Witness, noteKill };
