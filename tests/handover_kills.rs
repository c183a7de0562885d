//! A kill between any two system calls while a path is shared, raised, lowered, given away, offered, taken
//! over or taken back: whoever had it has it or has given it up, nobody has what another has, and whoever
//! waits is served.
//!
//! Every deed is done by a real process, once for each of its system calls, and killed before that call.

#![cfg(target_os = "linux")]

mod common;
#[path = "common/lines.rs"]
mod lines;

use std::sync::Arc;

use common::child::{self, Child};
use common::trace::{End, killed_before, traced};
use common::{FOLDER, Project, SHARED, ids, key, order, story};
use lines::{Process, kinded, located};
use storylock::queue::WaiterId;
use storylock::store::{Acquire, Done, Force, Grant, Step, Store};
use storylock::{Kind, ManualClock, Mode};

const PLAIN: Kind = Kind { mode: Mode::Exclusive, recursive: false };

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    let mut process = Process::new(&project, &Arc::new(ManualClock::default()));
    process.cleanup("nobody");
    let x = project.file("x");
    // The grant of x that the parent told of, if it did.
    let (of_x, token) = (key(&x), role.argument.parse().unwrap_or(0));
    let grants = vec![(of_x, token)];
    let step = match role.name.as_str() {
        "join" => Step::Acquire(kinded(&x, SHARED, "A")),
        "leave" => {
            process.has(&x, SHARED, "A");
            Step::Release { path: located(&x), story: story("A") }
        }
        "raise" => Step::Acquire(kinded(&x, FOLDER, "A")),
        "lower" => Step::Lower { key: of_x, token, kind: SHARED },
        "transfer" => Step::Transfer { key: of_x, token, story: story("T") },
        "offer" => Step::Offer { grants, digest: "secret".to_owned() },
        "adopt" => Step::Adopt { grants, digest: "secret".to_owned(), lease: None },
        "force" => {
            let storylock::call::Order { by, reason, story, is_dry } = order("stuck");
            Step::Force(Force { path: located(&x), story, by, reason, is_dry })
        }
        "folder" => Step::Acquire(kinded(&x, FOLDER, "A")),
        "release" => Step::Release { path: located(&x), story: story("A") },
        "cleanup" => Step::Cleanup { story: story("A") },
        name => unreachable!("no role {name}"),
    };
    traced(&role, || process.run(step).expect("nothing is in the way"));
}

/// What the parent had made before the deed.
struct Before {
    x: String,
    grant: Option<Grant>,
    waits: Vec<WaiterId>,
}

/// Does the deed of a role once for each of its system calls, and kills it before that call. The parent
/// prepares, and then checks what is left once all its processes have looked; it is told whether the deed
/// was done.
fn kill_at_every_step(
    role: &str,
    prepare: impl Fn(&mut [Process], &mut Before),
    check: impl Fn(&mut [Process], &Before, bool, &str),
) {
    let clock = Arc::new(ManualClock::default());
    for number in 0.. {
        let project = Project::new();
        let mut all: Vec<Process> = (0..3).map(|_| Process::new(&project, &clock)).collect();
        let mut before = Before { x: project.file("x"), grant: None, waits: Vec::new() };
        prepare(&mut all, &mut before);
        let token = before.grant.as_ref().map_or(0, |grant| grant.record.token);
        let mut child = Child::start(role, project.root(), &token.to_string());
        let end = killed_before(&mut child, number);
        let when = format!("{role}, {end:?}");
        if end == End::Untraceable {
            common::say_skipped("this system lets no process trace its child");
            return;
        }
        for process in &mut all {
            process.tend();
        }
        let is_done = matches!(end, End::Done(_));
        let status = all[2].status();
        assert!(status.unreadable.is_empty(), "{when}: {status:?}");
        check(&mut all, &before, is_done, &when);
        check_the_rest(&project, &clock, all, &when);
        if is_done {
            assert!(number > 15, "{role} was killed at {number} steps, which are not all");
            return;
        }
    }
}

/// Whatever was left, everybody gives up what it has, everybody is served, and nothing stays.
fn check_the_rest(project: &Project, clock: &Arc<ManualClock>, all: Vec<Process>, when: &str) {
    let mut all = all;
    for _ in 0..6 {
        for id in ["A", "B", "T", "W", "V"] {
            all[0].cleanup(id);
            all.iter_mut().for_each(Process::tend);
        }
    }
    assert_eq!(all[0].status().waiting.len(), 0, "{when}: everybody is served");
    drop(all);
    let mut newcomer = Process::new(project, clock);
    let root = project.root().to_str().expect("UTF-8");
    let highest = newcomer.status().locks.iter().map(|lock| lock.holder.record.token).max();
    let grant = newcomer.ask(root, FOLDER, "N");
    let grant = grant.unwrap_or_else(|error| unreachable!("{when}: {error}"));
    assert!(Some(grant.record.token) > highest, "{when}: tokens rise");
    newcomer.let_go(&[grant]);
    // A file that was being made in the folder of queues stays until somebody waits again.
    let is_kept = |name: &String| !matches!(name.as_str(), "forced" | "handed" | ".next");
    let litter: Vec<String> = project.litter().into_iter().filter(is_kept).collect();
    assert_eq!(litter, [""; 0], "{when}: what is left behind");
    newcomer.store.leave();
    common::until("newcomers have swept the files of the dead", || {
        Process::new(project, clock).cleanup("nobody");
        project.holders().is_empty()
    });
}

/// The stories that have x, with the mode and extent of each.
fn having(process: &Process, x: &str) -> Vec<(String, Kind)> {
    let holders = process.store.check(&located(x)).expect("a look");
    holders
        .iter()
        .map(|holder| (holder.record.story_id.to_string(), holder.record.kind()))
        .collect()
}

fn has(process: &Process, x: &str, all: &[(&str, Kind)]) -> bool {
    let all: Vec<(String, Kind)> = all.iter().map(|(id, kind)| ((*id).to_owned(), *kind)).collect();
    having(process, x) == all
}

#[test]
fn a_kill_while_a_reader_joins_leaves_the_others_and_nobody_in_the_way() {
    kill_at_every_step(
        "join",
        |all, before| {
            all[0].has(&before.x, SHARED, "B");
            all[1].has(&before.x, SHARED, "T");
        },
        |all, before, _, when| {
            let x = &before.x;
            assert!(has(&all[2], x, &[("B", SHARED), ("T", SHARED)]), "{when}");
            all[0].release(x, "B");
            assert_eq!(all[1].has(x, PLAIN, "T").record.kind(), PLAIN, "{when}: it is alone");
        },
    );
}

#[test]
fn a_kill_while_a_reader_leaves_leaves_the_others_and_nobody_in_the_way() {
    kill_at_every_step(
        "leave",
        |all, before| {
            all[0].has(&before.x, SHARED, "B");
        },
        |all, before, _, when| {
            assert!(has(&all[2], &before.x, &[("B", SHARED)]), "{when}");
            assert_eq!(all[0].has(&before.x, FOLDER, "B").record.kind(), FOLDER, "{when}");
        },
    );
}

#[test]
fn a_kill_while_a_lock_is_raised_leaves_it_what_it_was_or_more() {
    kill_at_every_step(
        "raise",
        |all, before| before.grant = Some(all[0].has(&before.x, SHARED, "A")),
        |all, before, is_done, when| {
            let mine = before.grant.as_ref().expect("a lock");
            let raised = has(&all[2], &before.x, &[("A", FOLDER)]);
            assert!(raised || (!is_done && has(&all[2], &before.x, &[("A", SHARED)])), "{when}");
            assert_eq!(all[0].store.verify(&mine.key, mine.record.token), Ok(true), "{when}");
            // Its owner can still make of it what it wants.
            all[0].lower(mine, SHARED);
            all[1].has(&before.x, SHARED, "B");
        },
    );
}

#[test]
fn a_kill_while_a_lock_is_lowered_lets_those_who_wait_in_or_changes_nothing() {
    kill_at_every_step(
        "lower",
        |all, before| {
            before.grant = Some(all[0].has(&before.x, FOLDER, "A"));
            before.waits.push(all[1].wait_for(&before.x, SHARED, "B"));
            before.waits.push(all[1].wait_for(&format!("{}/below", before.x), PLAIN, "W"));
        },
        |all, before, is_done, when| {
            let mine = before.grant.as_ref().expect("a lock");
            let lowered = has(&all[2], &before.x, &[("A", SHARED), ("B", SHARED)]);
            assert!(lowered || (!is_done && has(&all[2], &before.x, &[("A", FOLDER)])), "{when}");
            for waits in &before.waits {
                assert_eq!(all[1].turns.contains_key(waits), lowered, "{when}: whose turn it is");
            }
            assert_eq!(all[0].store.verify(&mine.key, mine.record.token), Ok(true), "{when}");
        },
    );
}

#[test]
fn a_kill_while_a_lock_is_given_away_leaves_it_one_storys() {
    kill_at_every_step(
        "transfer",
        |all, before| {
            before.grant = Some(all[0].has(&before.x, FOLDER, "A"));
            before.waits.push(all[1].wait_for(&before.x, PLAIN, "W"));
            before.waits.push(all[1].wait_for(&format!("{}/below", before.x), PLAIN, "T"));
        },
        |all, before, is_done, when| {
            let mine = before.grant.as_ref().expect("a lock");
            let given = has(&all[2], &before.x, &[("T", FOLDER)]);
            assert!(given || (!is_done && has(&all[2], &before.x, &[("A", FOLDER)])), "{when}");
            let is_current = all[0].store.verify(&mine.key, mine.record.token);
            assert_eq!(is_current, Ok(!given), "{when}: who gave it is fenced");
            assert!(!all[1].turns.contains_key(&before.waits[0]), "{when}");
            assert_eq!(all[1].turns.contains_key(&before.waits[1]), given, "{when}: T has it");
            all[0].release(&before.x, if given { "T" } else { "A" });
            assert!(all[1].has_turn(before.waits[0]) || !given, "{when}");
        },
    );
}

#[test]
fn a_kill_while_a_lock_is_offered_leaves_it_its_owners() {
    kill_at_every_step(
        "offer",
        |all, before| before.grant = Some(all[0].has(&before.x, PLAIN, "A")),
        |all, before, is_done, when| {
            let mine = before.grant.as_ref().expect("a lock");
            assert!(has(&all[2], &before.x, &[("A", PLAIN)]), "{when}");
            let grants = ids(std::slice::from_ref(mine));
            let step = Step::Adopt { grants, digest: "secret".to_owned(), lease: None };
            let adopted = all[1].run(step);
            assert!(adopted.is_ok() || !is_done, "{when}: {adopted:?}");
            let is_current = all[0].store.verify(&mine.key, mine.record.token);
            assert_eq!(is_current, Ok(adopted.is_err()), "{when}");
            assert!(has(&all[2], &before.x, &[("A", PLAIN)]), "{when}");
        },
    );
}

#[test]
fn a_kill_while_a_lock_is_adopted_leaves_it_its_owners_or_frees_it() {
    kill_at_every_step(
        "adopt",
        |all, before| {
            let mine = all[0].has(&before.x, PLAIN, "A");
            let (grants, digest) = (ids(std::slice::from_ref(&mine)), "secret".to_owned());
            assert_eq!(all[0].run(Step::Offer { grants, digest }), Ok(Done::Offered));
            before.grant = Some(mine);
            before.waits.push(all[1].wait_for(&before.x, PLAIN, "W"));
        },
        |all, before, is_done, when| {
            let mine = before.grant.as_ref().expect("a lock");
            let stays = has(&all[2], &before.x, &[("A", PLAIN)]);
            let passed = has(&all[2], &before.x, &[("W", PLAIN)]);
            assert!(passed || (stays && !is_done), "{when}: {:?}", having(&all[2], &before.x));
            assert_eq!(all[1].turns.contains_key(&before.waits[0]), passed, "{when}");
            let is_current = all[0].store.verify(&mine.key, mine.record.token);
            assert_eq!(is_current, Ok(stays), "{when}");
        },
    );
}

#[test]
fn a_kill_while_a_lock_is_taken_back_leaves_it_its_holders_or_the_next_ones() {
    kill_at_every_step(
        "force",
        |all, before| {
            all[0].has(&before.x, SHARED, "A");
            all[0].has(&before.x, SHARED, "B");
            before.waits.push(all[1].wait_for(&before.x, PLAIN, "W"));
        },
        |all, before, is_done, when| {
            let stays = has(&all[2], &before.x, &[("A", SHARED), ("B", SHARED)]);
            let passed = has(&all[2], &before.x, &[("W", PLAIN)]);
            assert!(passed || (stays && !is_done), "{when}: {:?}", having(&all[2], &before.x));
            assert_eq!(all[1].turns.contains_key(&before.waits[0]), passed, "{when}");
        },
    );
}

#[test]
fn a_kill_while_a_folder_is_taken_leaves_nothing_held_above_or_below() {
    kill_at_every_step(
        "folder",
        |all, before| {
            all[0].has(&format!("{}y", before.x), FOLDER, "B");
        },
        |all, before, _, when| {
            assert!(has(&all[2], &before.x, &[]), "{when}");
            let below = all[1].has(&format!("{}/deep/below", before.x), PLAIN, "T");
            assert_eq!(below.record.reclaimed, None, "{when}: nobody had that");
            all[1].has(&before.x, FOLDER, "T");
        },
    );
}

#[test]
fn a_kill_while_a_folder_of_another_process_is_released_serves_those_below_or_nobody() {
    kill_at_every_step(
        "release",
        |all, before| {
            all[0].has(&before.x, FOLDER, "A");
            before.waits.push(all[1].wait_for(&format!("{}/a", before.x), PLAIN, "W"));
            before.waits.push(all[2].wait_for(&format!("{}/b", before.x), PLAIN, "V"));
            before.waits.push(all[2].wait_for(&before.x, SHARED, "B"));
        },
        |all, before, is_done, when| {
            let stays = has(&all[2], &before.x, &[("A", FOLDER)]);
            let passed = has(&all[2], &before.x, &[("B", SHARED)]);
            assert!(passed || (stays && !is_done), "{when}: {:?}", having(&all[2], &before.x));
            for (number, waits) in [1, 2, 2].into_iter().zip(&before.waits) {
                assert_eq!(all[number].turns.contains_key(waits), passed, "{when}");
            }
        },
    );
}

#[test]
fn a_kill_while_a_set_of_several_kinds_is_handed_over_leaves_its_waiter_all_of_it_or_none() {
    kill_at_every_step(
        "cleanup",
        |all, before| {
            let (x, y) = (before.x.clone(), format!("{}.also", before.x));
            all[0].has(&x, PLAIN, "A");
            all[0].has(&y, PLAIN, "A");
            let paths = [kinded(&x, SHARED, "W").paths, kinded(&y, FOLDER, "W").paths].concat();
            let ask = Acquire { paths, queue: Some(8), ..kinded(&x, SHARED, "W") };
            let Ok(Done::Queued(id)) = all[1].run(Step::Acquire(ask)) else {
                unreachable!("A has both")
            };
            before.waits.push(id);
            before.waits.push(all[2].wait_for(&x, SHARED, "B"));
        },
        |all, before, is_done, when| {
            let (x, y) = (&before.x, format!("{}.also", before.x));
            let passed = has(&all[0], x, &[("W", SHARED), ("B", SHARED)])
                && has(&all[0], &y, &[("W", FOLDER)]);
            let part = (having(&all[0], x), having(&all[0], &y));
            let stays = part.0.iter().chain(&part.1).any(|(id, _)| id == "A");
            assert!(passed || (stays && !is_done), "{when}: {part:?}");
            assert_eq!(all[1].turns.contains_key(&before.waits[0]), passed, "{when}: {part:?}");
            if let Some(grants) = all[1].turns.get(&before.waits[0]) {
                let kinds: Vec<Kind> = grants.iter().map(|grant| grant.record.kind()).collect();
                assert_eq!(kinds, [SHARED, FOLDER], "{when}: what was asked for and no more");
            }
        },
    );
}
