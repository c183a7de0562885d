//! A kill between any two system calls leaves a state that the next comer understands: sets are held
//! whole or not at all, a renewed lock is never free, and nothing has to be cleaned by hand.
//!
//! Every deed is done by a real process, once for each of its system calls, and killed before that call.

#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::child::{self, Child};
use common::trace::{End, killed_before, traced};
use common::{Caller, LONG, Project, key, set, story, target, until};
use storylock::files::Files;
use storylock::store::{Acquire, Step, Store};
use storylock::{Clock, Kind, Lease, ManualClock, SystemClock};

const SET: [&str; 3] = ["dead", "rubbish", "free"];

/// The clock of parent and child: a minute on, so that rubbish planted now has been there for a lease.
fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.step_wall(SystemClock.wall_ms() + 60_000);
    Arc::new(clock)
}

fn acquire(project: &Project, names: &[&str], lease: Lease, detached: bool) -> Step {
    let located =
        |name: &&str| (target(&project.file(name)).locate().expect("located"), Kind::default());
    Step::Acquire(Acquire {
        paths: names.iter().map(located).collect(),
        story: story("A"),
        lease,
        detached,
        reason: None,
        queue: None,
    })
}

fn run(store: &mut Files, step: Step) {
    store.run(&[step]).answers.remove(0).expect("nothing is in the way");
}

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    let mut store = Files::new(project.root(), clock());
    let located = || target(&project.file("free")).locate().expect("located");
    let prepare = |store: &mut Files| run(store, Step::Cleanup { story: story("nobody") });
    let take_all = |store: &mut Files| run(store, acquire(&project, &SET, LONG, true));
    let step = match role.name.as_str() {
        "opener" => acquire(&project, &SET, Lease::Bound, false),
        "taker" => {
            prepare(&mut store);
            acquire(&project, &SET, Lease::Bound, false)
        }
        "detacher" => {
            prepare(&mut store);
            acquire(&project, &SET, LONG, true)
        }
        "renewer" => {
            take_all(&mut store);
            Step::Renew { path: located(), story: story("A"), lease: Some(Lease::Timed(900_000)) }
        }
        "releaser" => {
            take_all(&mut store);
            Step::Release { path: located(), story: story("A") }
        }
        "cleaner" => {
            take_all(&mut store);
            Step::Cleanup { story: story("A") }
        }
        name => unreachable!("no role {name}"),
    };
    traced(&role, || run(&mut store, step));
}

/// Plants what a kill and a careless hand may have left at two of the paths.
fn plant(project: &Project, caller: &Caller) {
    let ask = storylock::Ask { detached: true, ..set(&project.files(&["dead"]), "Z", LONG) };
    let dead = common::only(caller.acquire_all(ask).expect("free"));
    // A detached lock whose holder file is still there was never granted.
    let holder = project.locks().join("holders").join(dead.record.holder.to_string());
    std::fs::write(holder, "{}").expect("the holder file of a dead process");
    std::fs::write(project.record("rubbish"), "half a rec").expect("rubbish");
}

/// The paths that somebody living holds.
fn living(caller: &Caller) -> Vec<String> {
    let living = caller.status().locks.into_iter().filter(|lock| !lock.is_stale);
    let mut living: Vec<String> = living.map(|lock| lock.holder.record.path_text()).collect();
    living.sort();
    living
}

/// Kills the role before each of its system calls and looks at what is left; `is_left_right` is told
/// which paths are held, and whether the deed was done.
fn kill_at_every_step(role: &str, is_left_right: impl Fn(&Project, &[String], bool) -> bool) {
    for number in 0.. {
        let project = Project::new();
        let clock = clock();
        // One that has looked before, so that it must learn of what was done from the notes of it.
        let caller = project.caller_by(&clock);
        if role != "opener" {
            plant(&project, &caller);
        }
        let mut child = Child::start(role, project.root(), "");
        let end = killed_before(&mut child, number);
        let is_done = match end {
            End::At(_) => false,
            End::Done(_) => true,
            End::Untraceable => {
                common::say_skipped("this system lets no process trace its child");
                return;
            }
        };
        let held = living(&caller);
        assert!(is_left_right(&project, &held, is_done), "{role}, {end:?}: {held:?} are held");
        check_the_rest(&project, &caller, &held, &format!("{role}, {end:?}"));
        drop(caller);
        until("a newcomer has swept the files of the dead", || {
            project.caller_by(&clock).cleanup("nobody").expect("cleaned");
            project.holders().is_empty()
        });
        if is_done {
            assert!(number > 20, "{role} was killed at {number} steps, which are not all");
            return;
        }
    }
}

/// Whatever was left, the next comer gets along with it.
fn check_the_rest(project: &Project, caller: &Caller, held: &[String], when: &str) {
    let highest = caller.status().locks.iter().map(|lock| lock.holder.record.token).max();
    let removed = caller.cleanup("A").expect("cleaned");
    assert!(removed >= held.len(), "{when}: what was held could be cleaned up");
    let grants = caller.acquire_all(set(&project.files(&SET), "B", Lease::Bound));
    let grants = grants.unwrap_or_else(|error| unreachable!("{when}: {error}"));
    for grant in &grants {
        assert!(Some(grant.record.token) > highest, "{when}: tokens rise");
    }
    let mut shown = project.files(&SET);
    shown.sort();
    assert_eq!(project.viewed(), shown, "{when}: the view shows what is held");
    assert_eq!(caller.cleanup("B").expect("cleaned"), SET.len());
    let aside = format!("{}.unreadable-", key(&project.file("rubbish")));
    let mut litter = project.litter();
    litter.retain(|name| !name.starts_with(&aside));
    assert!(litter.is_empty(), "{when}: {litter:?} is left behind");
}

#[test]
fn a_kill_while_the_folders_are_made_and_a_set_is_taken_leaves_nothing_held() {
    kill_at_every_step("opener", |_, held, _| held.is_empty());
}

#[test]
fn a_kill_while_a_set_is_taken_leaves_nothing_held() {
    kill_at_every_step("taker", |_, held, _| held.is_empty());
}

#[test]
fn a_kill_while_a_set_is_detached_leaves_all_of_it_held_or_nothing() {
    kill_at_every_step("detacher", |project, held, is_done| {
        held == sorted(project) || (held.is_empty() && !is_done)
    });
}

#[test]
fn a_kill_while_a_lock_is_renewed_never_leaves_it_free() {
    kill_at_every_step("renewer", |project, held, _| held == sorted(project));
}

#[test]
fn a_kill_while_a_lock_is_released_leaves_it_held_or_free_and_the_others_alone() {
    kill_at_every_step("releaser", |project, held, is_done| {
        let others = project.files(&["dead", "rubbish"]);
        held == others || (held == sorted(project) && !is_done)
    });
}

#[test]
fn a_kill_while_a_story_is_cleaned_up_leaves_whole_locks_or_none() {
    kill_at_every_step("cleaner", |_, held, is_done| held.is_empty() || !is_done);
}

fn sorted(project: &Project) -> Vec<String> {
    let mut paths = project.files(&SET);
    paths.sort();
    paths
}
