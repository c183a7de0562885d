//! File locks for orchestrators of parallel coding agents.
//!
//! A *story* (a unit of agent work, such as AH-011) locks the *paths* that it is about to change. At any
//! moment a path has one living holder at most, whatever is killed, paused or raced, across processes,
//! worker threads and containers of one host; a killed holder's locks are free at once; a set of paths is
//! locked whole or not at all; every grant carries a token that only rises.
//!
//! # Layers
//! A module uses only what stands below it; `tests/layers.rs` keeps it so.
//!
//! | | |
//! |---|---|
//! | [`node`], [`port`], [`asked`], [`told`], [`shapes`] | the Node.js addon (feature `node`) |
//! | [`engine`], [`workbench`] | one thread a root; clients; where files are written |
//! | [`desk`], [`plan`], [`settle`], [`conclude`], [`holdings`], [`claims`], [`waits`] | calls become steps; who in this process has what |
//! | [`call`] | what can be asked and answered |
//! | [`files`], [`steps`], [`fence`], [`force`], [`handover`], [`line`], [`turns`], [`circles`], [`grant`], [`room`], [`tale`], [`shelf`] | the file store: the protocol under the guard |
//! | [`survey`] | looking without the guard |
//! | [`wake`] | how one who waits is woken |
//! | [`store`] | the seam: what any store decides |
//! | [`graph`] | who waits for whom |
//! | [`overlaps`], [`index`], [`places`], [`view`], [`history`] | what all records and queues say; `locks.json` |
//! | [`standing`], [`session`] | does it still hold: leases, and life told by the kernel |
//! | [`change`], [`content`], [`journal`], [`diff`], [`hunks`] | changes to the files themselves |
//! | [`guard`], [`patience`], [`ground`], [`publish`] | one change at a time, on safe ground, never half seen |
//! | [`found`], [`record`], [`queue`], [`holder`] | a held path and its waiters on disk, and in words |
//! | [`key`], [`kind`], [`lease`], [`story`], [`root`], [`clock`], [`error`], [`errno`] | what everything is made of |
//! | [`sys`] | the only module that knows the operating system |
//!
//! # Limits
//! The locks are advisory: a program that writes without asking is not stopped. Two hard links to one
//! file are two paths. Network and user-space file systems are refused.

#[cfg(feature = "node")]
pub mod asked;
pub mod call;
pub mod change;
pub mod circles;
pub mod claims;
pub mod clock;
pub mod conclude;
pub mod content;
pub mod desk;
pub mod diff;
pub mod engine;
pub mod errno;
pub mod error;
pub mod fence;
pub mod files;
pub mod force;
pub mod found;
pub mod grant;
pub mod graph;
pub mod ground;
pub mod guard;
pub mod handover;
pub mod history;
pub mod holder;
pub mod holdings;
pub mod hunks;
pub mod index;
pub mod journal;
pub mod key;
pub mod kind;
pub mod lease;
pub mod line;
#[cfg(feature = "node")]
pub mod node;
pub mod overlaps;
pub mod patience;
pub mod places;
pub mod plan;
#[cfg(feature = "node")]
pub mod port;
pub mod publish;
pub mod queue;
pub mod record;
pub mod room;
pub mod root;
pub mod session;
pub mod settle;
#[cfg(feature = "node")]
pub mod shapes;
pub mod shelf;
pub mod standing;
pub mod steps;
pub mod store;
pub mod story;
pub mod survey;
pub mod sys;
#[doc(hidden)]
pub mod tale;
#[cfg(feature = "node")]
pub mod told;
pub mod turns;
pub mod view;
pub mod waits;
pub mod wake;
pub mod workbench;

pub use call::{Ask, Call, Message, Port, QUEUE_LIMIT, Reply, Wait};
pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{Client, Engine};
pub use error::{Code, Error};
pub use key::{Key, Target};
pub use kind::{Kind, Mode};
pub use lease::Lease;
pub use store::{Force, Grant, Store};
pub use story::Story;
