//! Leases: a timed lock ends on time, by its own length, by itself; a renewed one begins anew; what ended
//! cannot be brought back over its successor.
//!
//! Time is a clock whose hands the test turns, except where the point is that nobody does anything.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::desk::HandDesk;
use common::{Caller, LONG, PATIENCE, Project, code, set, story, until};
use storylock::record::Ended;
use storylock::store::Grant;
use storylock::{Ask, Call, Clock, Lease, ManualClock, Reply, SystemClock};

/// A project, its clock, and two callers that go by it, each with an engine of its own.
fn two() -> (Project, Arc<ManualClock>, Caller, Caller) {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let (one, other) = (project.caller_by(&clock), project.caller_by(&clock));
    (project, clock, one, other)
}

#[test]
fn a_lease_is_judged_by_its_own_length_and_not_by_a_contenders() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    clock.advance(999);
    let refused = theirs.acquire(&path, "B", Lease::Timed(1)).expect_err("held");
    assert_eq!(refused.holder.as_ref().expect("a holder").remaining_ms, Some(1));
    clock.advance(1);
    assert_eq!(theirs.holder(&path), None, "ended to the millisecond");
    theirs.acquire(&path, "B", Lease::Timed(1)).expect("free");
}

#[test]
fn who_comes_before_an_ended_lease_is_swept_is_told_whose_it_was() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut desk = HandDesk::new(&project, &clock);
    let path = project.file("a");
    desk.call(Call::Acquire(set(&[&path], "A", Lease::Timed(1000)))).expect("free");
    clock.advance(1000);
    let reply = desk.call(Call::Acquire(set(&[&path], "B", LONG))).expect("free");
    let Reply::Locks(grants) = reply else { unreachable!("{reply:?} answers no acquire") };
    let reclaimed =
        grants[0].record.reclaimed.as_ref().expect("a predecessor that gave nothing up");
    assert_eq!((reclaimed.how, reclaimed.story_id.as_str()), (Ended::Expired, "A"));
}

#[test]
fn a_renewed_lease_begins_anew_with_its_own_length_or_another() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    clock.advance(900);
    let renewed = mine.renew(&path, "A", None).expect("its own");
    assert_eq!(renewed.record.token, grant.record.token, "a renewal is no new grant");
    assert_eq!(renewed.record.lock_id, grant.record.lock_id);
    clock.advance(900);
    assert_eq!(theirs.holder(&path).as_deref(), Some("A"), "1.8 s after it was granted");
    mine.extend(&grant, Some(Lease::Timed(5000))).expect("its own");
    clock.advance(4999);
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    clock.advance(1);
    theirs.acquire(&path, "B", LONG).expect("over at last");
}

#[test]
fn a_timed_lease_can_be_bound_and_a_bound_one_timed() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    mine.extend(&grant, Some(Lease::Bound)).expect("its own");
    clock.advance(1_000_000);
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    mine.extend(&grant, Some(Lease::Timed(10))).expect("its own");
    clock.advance(10);
    theirs.acquire(&path, "B", LONG).expect("over");
}

#[test]
fn another_process_of_the_same_story_can_renew() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    clock.advance(900);
    theirs.renew(&path, "A", Some(Lease::Timed(1000))).expect("its story's");
    clock.advance(900);
    assert!(mine.verify(&grant), "renewed by the other");
    mine.status();
    assert!(mine.events().is_empty(), "nothing was lost");
    clock.advance(100);
    mine.status();
    assert_eq!(mine.loss(&grant).code.as_str(), "ECOMPROMISED", "the renewed lease is over, too");
}

#[test]
fn acquiring_again_does_not_undo_the_renewal_of_another_process() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    theirs.renew(&path, "A", Some(Lease::Timed(50_000))).expect("its story's");
    let again = mine.acquire(&path, "A", Lease::Timed(1000)).expect("its own");
    assert_eq!(again.record.lease(), Lease::Timed(50_000));
    clock.advance(49_999);
    assert_eq!(theirs.holder(&path).as_deref(), Some("A"), "renewed for 50 s");
}

#[test]
fn a_renewal_that_is_refused_changes_nothing() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let old = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    assert!(mine.let_go(&old));
    mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    assert_eq!(code(&mine.extend(&old, Some(Lease::Bound))), "ECOMPROMISED");
    let again = mine.acquire(&path, "A", LONG).expect("its own");
    assert_eq!(again.record.lease(), Lease::Timed(1000), "the renewal was of another grant");
    clock.advance(1000);
    assert_eq!(theirs.holder(&path), None);
}

#[test]
fn another_story_can_neither_renew_nor_release() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    let renewal = theirs.renew(&path, "B", Some(LONG)).expect_err("not B's");
    assert_eq!(renewal.code.as_str(), "ENOTACQUIRED");
    let said = format!("Cannot renew lock for {path}: owned by A, not B");
    assert!(renewal.message.contains(&said), "{renewal}");
    let release = theirs.release(&path, "B").expect_err("not B's");
    assert_eq!(release.code.as_str(), "ENOTACQUIRED");
    let said = format!("Cannot release lock for {path}: owned by A, not B");
    assert!(release.message.contains(&said), "{release}");
    assert_eq!(release.holder.as_ref().expect("a holder").record, grant.record);
    clock.advance(999);
    assert!(mine.verify(&grant), "nothing was changed");
    clock.advance(1);
    assert!(!mine.verify(&grant));
}

#[test]
fn a_lease_that_ended_cannot_be_renewed_let_go_or_verified() {
    let (project, clock, mine, _) = two();
    for (name, successor) in [("alone", None), ("succeeded", Some("B")), ("again", Some("A"))] {
        let path = project.file(name);
        let old = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
        clock.advance(1000);
        let theirs = project.caller_by(&clock);
        let next = successor.map(|story| theirs.acquire(&path, story, LONG).expect("free"));
        assert!(!mine.verify(&old), "{name}: verified after its end");
        assert_eq!(code(&mine.extend(&old, Some(LONG))), "ECOMPROMISED", "{name}");
        assert!(!mine.let_go(&old), "{name}: let go of after its end");
        match (&next, successor) {
            (Some(next), Some(story)) => {
                assert!(theirs.verify(next), "{name}: the successor has it still");
                assert_eq!(theirs.holder(&path).as_deref(), Some(story));
                assert_ne!(next.record.lock_id, old.record.lock_id);
            }
            _ => {
                let renewal = mine.renew(&path, "A", None);
                assert_eq!(code(&renewal), "ENOTACQUIRED", "{name}: renewed from the dead");
            }
        }
        drop(theirs);
    }
}

#[test]
fn a_lease_that_ended_is_over_though_its_record_still_stands() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut desk = HandDesk::new(&project, &clock);
    let path = project.file("a");
    let (target, story) = (common::target(&path), story("A"));
    let calls: [fn(&Grant) -> Call; 3] = [
        |old| Call::Extend { key: old.key, token: old.record.token, lease: Some(LONG) },
        |old| Call::Verify { key: old.key, token: old.record.token },
        |old| Call::LetGo {
            grants: vec![(old.key, old.record.token)],
            scope: false,
            kinds: Vec::new(),
        },
    ];
    let asked = calls.into_iter().map(Some).chain([None]);
    let mut answers = Vec::new();
    for ask in asked {
        let reply = desk.call(Call::Acquire(set(&[&path], "A", Lease::Timed(1000))));
        let Ok(Reply::Locks(grants)) = reply else { unreachable!("{reply:?} grants nothing") };
        clock.advance(1000);
        let renew = || Call::Renew { target: target.clone(), story: story.clone(), lease: None };
        assert!(project.record("a").exists(), "nobody has swept it");
        answers.push(desk.call(ask.map_or_else(renew, |ask| ask(&grants[0]))));
        desk.call(Call::Cleanup { story: story.clone() }).expect("cleaned");
    }
    assert_eq!(code(&answers[0]), "ECOMPROMISED");
    assert_eq!(answers[1], Ok(Reply::Verified(false)));
    assert_eq!(answers[2], Ok(Reply::LetGo(vec![false])));
    assert_eq!(code(&answers[3]), "ENOTACQUIRED");
}

#[test]
fn a_client_that_closes_leaves_the_successors_of_its_ended_leases_alone() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    clock.advance(1000);
    let next = theirs.acquire(&path, "A", LONG).expect("free");
    mine.close();
    assert!(theirs.verify(&next), "closing touched a later lock of the same story");
}

#[test]
fn an_ended_lease_goes_by_itself_from_the_disk_and_from_the_view() {
    let project = Project::new();
    let caller = project.caller();
    let began = Instant::now();
    let grant = caller.acquire(&project.file("a"), "A", Lease::Timed(300)).expect("free");
    caller.acquire(&project.file("b"), "A", LONG).expect("free");
    assert_eq!(project.viewed(), project.files(&["a", "b"]), "shown before the answer came");
    until("the record is gone", || !project.record("a").exists());
    assert!(began.elapsed() >= Duration::from_millis(300), "it ended before its time");
    until("the view shows it no more", || project.viewed() == [project.file("b")]);
    let lost = caller.loss(&grant);
    assert!(lost.message.contains("its lease ended"), "{lost}");
    assert!(began.elapsed() < PATIENCE / 2);
}

#[test]
fn the_ended_lease_of_another_process_goes_by_itself_too() {
    let project = Project::new();
    let caller = project.caller();
    caller.cleanup("nobody").expect("cleaned");
    let other = project.caller();
    let ask = set(&[project.file("a")], "A", Lease::Timed(200));
    other.acquire_all(Ask { detached: true, ..ask }).expect("free");
    // Learns of the lock, as any call does.
    caller.cleanup("nobody").expect("cleaned");
    drop(other);
    until("the record is gone", || project.records().is_empty());
    until("the view shows it no more", || project.viewed().is_empty());
}

#[test]
fn a_step_of_the_wall_clock_neither_ends_nor_prolongs_a_lease() {
    let (project, clock, mine, theirs) = two();
    for (name, wall_ms) in [("forward", 4_000_000_000_000), ("back", 1_000)] {
        let path = project.file(name);
        let grant = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
        clock.step_wall(wall_ms);
        assert!(mine.verify(&grant), "a step {name} ended the lease");
        assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "{name}");
        clock.advance(999);
        assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "{name}");
        clock.advance(1);
        theirs.acquire(&path, "B", LONG).expect("over on time");
    }
}

#[test]
fn after_a_reboot_a_detached_lease_ends_by_the_wall_and_tokens_still_rise() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let path = project.file("a");
    let before = project.caller_by(&clock);
    let ask = Ask { detached: true, ..set(&[&path], "A", Lease::Timed(1000)) };
    let old = common::only(before.acquire_all(ask).expect("free"));
    drop(before);
    clock.reboot("boot-2");
    let after = project.caller_by(&clock);
    assert_eq!(code(&after.acquire(&path, "B", LONG)), "ELOCKED", "its wall time is not over");
    clock.advance(1000);
    let next = after.acquire(&path, "B", LONG).expect("over");
    assert!(next.record.token > old.record.token);
}

#[test]
fn the_lease_of_one_hold_does_not_end_a_later_hold_by_the_same_story() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let first = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    assert!(mine.let_go(&first));
    clock.advance(500);
    let second = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    clock.advance(500);
    assert!(mine.verify(&second), "the first hold's timer ended the second");
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    assert!(!mine.let_go(&first) && mine.verify(&second), "nor does letting go of the first");
}

#[test]
fn a_detached_lease_cannot_become_bound() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let ask = Ask { detached: true, ..set(&[&path], "A", Lease::Timed(1000)) };
    mine.acquire_all(ask).expect("free");
    let renewal = mine.renew(&path, "A", Some(Lease::Bound));
    assert_eq!(code(&renewal), "ERR_OUT_OF_RANGE", "nothing would ever end it");
    clock.advance(1000);
    theirs.acquire(&path, "B", LONG).expect("over");
}

#[test]
fn a_detached_lease_is_renewed_by_path_and_outlives_its_client() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let ask = Ask { detached: true, ..set(&[&path], "A", Lease::Timed(1000)) };
    mine.acquire_all(ask).expect("free");
    mine.close();
    clock.advance(900);
    theirs.renew(&path, "A", None).expect("its story's");
    clock.advance(900);
    assert_eq!(theirs.holder(&path).as_deref(), Some("A"));
    theirs.release(&path, "A").expect("its story's");
    assert_eq!(theirs.holder(&path), None);
}

#[test]
fn the_longest_lease_overflows_nothing() {
    let (project, clock, mine, theirs) = two();
    let path = project.file("a");
    let longest = Lease::from_timeout(storylock::lease::MAX_TIMEOUT_MS as f64).expect("a lease");
    let grant = mine.acquire(&path, "A", longest).expect("free");
    clock.advance(1 << 40);
    assert!(mine.verify(&grant));
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
}

#[test]
fn the_old_modules_lock_is_honoured_until_its_wall_time_is_over() {
    let (project, clock, caller, _) = two();
    let path = project.file("a");
    project.plant_old_record("a", "OLD", clock.wall_ms(), 30_000);
    assert_eq!(caller.holder(&path).as_deref(), Some("OLD"));
    clock.advance(29_999);
    let refused = caller.acquire(&path, "B", Lease::Timed(1)).expect_err("held");
    assert!(refused.message.contains("is locked by OLD"), "{refused}");
    clock.advance(1);
    caller.acquire(&path, "B", LONG).expect("over");
}

#[test]
fn the_old_modules_lock_can_be_joined_renewed_released_and_cleaned_up() {
    let (project, clock, caller, _) = two();
    let path = project.file("a");
    project.plant_old_record("a", "OLD", clock.wall_ms(), 30_000);
    let joined = caller.acquire(&path, "OLD", LONG).expect("its story's");
    assert!(!joined.is_fresh && joined.record.lock_id.starts_with("OLD-"));
    clock.advance(20_000);
    caller.renew(&path, "OLD", None).expect("its story's");
    clock.advance(20_000);
    assert_eq!(caller.holder(&path).as_deref(), Some("OLD"), "40 s after it was taken");
    caller.release(&path, "OLD").expect("its story's");
    assert_eq!(caller.holder(&path), None);
    project.plant_old_record("b", "OLD", clock.wall_ms(), 30_000);
    assert_eq!(caller.cleanup("OLD").expect("cleaned"), 1, "one that came from nowhere, too");
}

#[test]
fn the_old_modules_lock_goes_by_itself_once_it_is_over() {
    let project = Project::new();
    project.plant_old_record("a", "OLD", SystemClock.wall_ms(), 300);
    project.plant_old_record("b", "OLD", 1_000, 30_000);
    let caller = project.caller();
    // The first change opens the folder and finds what is there.
    caller.cleanup("nobody").expect("cleaned");
    until("both records are gone", || project.records().is_empty());
    until("the view shows none", || project.viewed().is_empty());
}

#[test]
fn the_old_modules_lock_on_a_link_is_honoured_by_that_spelling() {
    #[cfg(unix)]
    {
        let (project, clock, caller, _) = two();
        std::fs::write(project.file("real"), "").expect("a file");
        std::os::unix::fs::symlink("real", project.file("link")).expect("a link");
        let path = project.file("link");
        project.plant_old_record("real", "OLD", clock.wall_ms(), 30_000);
        let spelled = storylock::Key::of(std::path::Path::new(&path)).file_name();
        std::fs::rename(project.record("real"), project.locks().join(spelled)).expect("renamed");
        assert_eq!(code(&caller.acquire(&path, "B", LONG)), "ELOCKED");
        assert_eq!(caller.holder(&path).as_deref(), Some("OLD"));
        caller.release(&path, "OLD").expect("its story's");
        caller.acquire(&path, "B", LONG).expect("free");
    }
}

#[test]
fn an_old_lock_is_no_reason_to_spin_when_the_wall_clock_is_set_back() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    project.plant_old_record("a", "OLD", clock.wall_ms(), 1000);
    let mut desk = HandDesk::new(&project, &clock);
    desk.call(Call::Cleanup { story: story("nobody") }).expect("cleaned");
    clock.step_wall(clock.wall_ms() - 3_600_000);
    clock.advance(1000);
    desk.assert_rests();
    clock.advance(3_600_000);
    desk.tend();
    assert!(project.records().is_empty(), "it ends by the wall, an hour later");
}
