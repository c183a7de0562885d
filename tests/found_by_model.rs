//! What the model of the protocol, or its making, has found in the engine.

mod common;
#[path = "common/lines.rs"]
mod lines;

use std::sync::Arc;

use lines::{Counter, Process, queue_file};
use storylock::call::{Ask, Call, Wait};
use storylock::{Lease, ManualClock};

use common::{Project, set};

#[test]
fn one_who_lines_up_as_the_first_thing_on_new_ground_has_one_place() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut counter = Counter::new(&project, &clock);
    let mut other = Process::new(&project, &clock);
    let x = [project.file("x")];
    // The store is open when the folder goes.
    counter.call(0, Call::Cleanup { story: common::story("nobody") });
    std::fs::remove_dir_all(project.locks()).expect("removed");
    other.take(&x, "B");
    let waits =
        counter.call(0, Call::Acquire(Ask { wait: Wait::Ever, ..set(&x, "A", Lease::Bound) }));
    for _ in 0..3 {
        counter.tend();
    }
    other.release(&x[0], "B");
    for _ in 0..3 {
        counter.tend();
    }
    assert!(counter.has_locks(0, waits), "{:?}", counter.answer(0, waits));
    assert_eq!(other.holder(&x[0]).as_deref(), Some("A"), "who is told that it has it, has it");
    assert!(!queue_file(&project, "x").exists());
}
