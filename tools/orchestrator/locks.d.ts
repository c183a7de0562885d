/** The drop-in for the plain-JavaScript module of this path: the same two exports. */
export { LockManager, lockManager } from '../../index.js';
