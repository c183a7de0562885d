//! What a plain file costs where folders are locked: one look for each folder above it at most.

use std::sync::Arc;

use storylock::ManualClock;

use crate::common::child::{Child, Role};
use crate::common::trace::{End, killed_before, traced};
use crate::common::{FOLDER, Project, SHARED, SHARED_FOLDER};
use crate::lines::Process;

/// Where the file that is asked for lies.
const FILE: &str = "a/b/c/d/file";
/// How many folders are above it in the project.
const ABOVE: usize = 4;

/// The child: knows the ground, and then takes the file.
pub(crate) fn ask(role: &Role) {
    let project = Project::at(&role.root);
    let mut process = Process::new(&project, &Arc::new(ManualClock::default()));
    process.cleanup("nobody");
    let file = project.file(FILE);
    let grant = traced(role, || process.ask(&file, SHARED, "A"));
    grant.expect("nobody is in the way");
}

/// How many system calls it takes to take the file, beside what `prepare` has locked.
fn calls(prepare: impl Fn(&Project, &mut Process)) -> Option<usize> {
    let project = Project::new();
    let mut others = Process::new(&project, &Arc::new(ManualClock::default()));
    others.cleanup("nobody");
    prepare(&project, &mut others);
    let mut child = Child::start("asker", project.root(), "");
    match killed_before(&mut child, usize::MAX) {
        End::Done(calls) => Some(calls),
        End::Untraceable => {
            crate::common::say_skipped("this system lets no process trace its child");
            None
        }
        End::At(call) => unreachable!("there is no call of number {call}"),
    }
}

#[test]
fn a_plain_file_costs_no_more_where_many_other_things_are_locked() {
    let Some(alone) = calls(|project, others| {
        others.has(&project.file("other"), SHARED, "B");
    }) else {
        return;
    };
    const COUNT: usize = 120;
    let many = calls(|project, others| {
        for number in 0..COUNT {
            others.has(&project.file(&format!("a/b/sibling-{number}")), FOLDER, "B");
            others.has(&project.file(&format!("a/b/c/d/file-{number}")), SHARED, "B");
        }
    });
    // The view, which shows them all, is longer.
    assert!(many < Some(alone + COUNT / 8), "{many:?} calls, and {alone} beside one");
}

#[test]
fn a_plain_file_costs_at_most_one_look_for_each_folder_above_it() {
    let Some(alone) = calls(|project, others| {
        others.has(&project.file("other"), SHARED, "B");
    }) else {
        return;
    };
    // All folders above it are locked, to read.
    let all = calls(|project, others| {
        for folder in ["a", "a/b", "a/b/c", "a/b/c/d"] {
            others.has(&project.file(folder), SHARED_FOLDER, "B");
        }
    });
    // Opening, its state, reading it, its end, closing, and whether its holder lives.
    let a_look = 16;
    assert!(all <= Some(alone + ABOVE * a_look), "{all:?} calls, and {alone} alone");
}
