'use strict';

/** Makes a fresh checkout ready to run, before `npm start`. Quick when nothing has changed. */

const { install, build } = require('./steps.js');

install();
build();
