//! Locks of every kind, one promise after the other; `kinds_model` has the rules as a whole.

#![cfg(target_os = "linux")]

mod common;
#[path = "common/lines.rs"]
mod lines;

#[path = "kinds/cost.rs"]
mod cost;
#[path = "kinds/fences.rs"]
mod fences;
#[path = "kinds/folders.rs"]
mod folders;
#[path = "kinds/force.rs"]
mod force;
#[path = "kinds/handover.rs"]
mod handover;
#[path = "kinds/names.rs"]
mod names;
#[path = "kinds/raising.rs"]
mod raising;
#[path = "kinds/readers.rs"]
mod readers;
#[path = "kinds/unreadable.rs"]
mod unreadable;

use std::sync::Arc;

use common::Project;
use common::child;
use lines::Process;
use storylock::ManualClock;

/// A project with as many processes, and their clock.
fn bench(count: usize) -> (Project, Arc<ManualClock>, Vec<Process>) {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let processes = (0..count).map(|_| Process::new(&project, &clock)).collect();
    (project, clock, processes)
}

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    match role.name.as_str() {
        "asker" => cost::ask(&role),
        _ => handover::play(&role),
    }
}
