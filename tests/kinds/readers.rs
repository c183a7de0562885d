//! A path that several stories have at one time, to read.

use std::sync::Arc;

use storylock::store::{Acquire, Done, Step};
use storylock::{Clock, Kind, Lease, ManualClock};

use crate::bench;
use crate::common::{FOLDER, Project, SHARED, SHARED_FOLDER, code};
use crate::lines::{Process, kinded};

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

fn detached(path: &str, kind: Kind, story_id: &str, ms: u64) -> Step {
    let lease = Lease::Timed(ms);
    Step::Acquire(Acquire { detached: true, lease, ..kinded(path, kind, story_id) })
}

#[test]
fn many_read_and_who_wants_to_write_is_told_of_all_of_them() {
    let (project, _, mut all) = bench(3);
    let x = project.file("x");
    let first = all[0].has(&x, SHARED, "A");
    all[1].has(&x, SHARED, "B");
    all[2].has(&x, SHARED_FOLDER, "C");
    assert_eq!(all[0].holders(&x), ["A", "B", "C"]);
    let refused = all[2].ask(&x, PLAIN, "D").expect_err("read by three");
    let named: Vec<&str> =
        refused.holders.iter().map(|holder| holder.record.story_id.as_str()).collect();
    assert_eq!(named, ["A", "B", "C"]);
    assert_eq!(refused.holder, refused.holders.first().cloned());
    assert!(refused.message.contains("x is locked by A (pid "), "{refused}");
    assert!(refused.message.contains(" and 2 others."), "{refused}");

    let text = std::fs::read_to_string(project.record("x")).expect("a record");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&json["storyId"], &json["mode"]), (&"A".into(), &"shared".into()), "the first's");
    assert_eq!(json["token"], first.record.token);
    let others = json["others"].as_array().expect("the other readers");
    let others: Vec<_> = others.iter().map(|other| other["storyId"].clone()).collect();
    assert_eq!(others, ["B", "C"]);
    let shown = &project.view()["activeLocks"][0];
    assert_eq!((&shown["path"], &shown["storyId"]), (&x.into(), &"A".into()));
    assert_eq!(shown["others"].as_array().map(Vec::len), Some(2));
    let listed: Vec<u64> =
        all[0].status().locks.iter().map(|lock| lock.holder.record.token).collect();
    assert!(listed.len() == 3 && listed.is_sorted(), "{listed:?}");
}

#[test]
fn when_the_first_reader_leaves_the_next_is_the_first() {
    let (project, _, mut all) = bench(2);
    let x = project.file("x");
    all[0].has(&x, SHARED, "A");
    let second = all[1].has(&x, SHARED, "B");
    all[0].release(&x, "A");
    assert_eq!(all[0].holders(&x), ["B"]);
    assert_eq!(project.view()["activeLocks"][0]["storyId"], "B");
    let held = &all[1].status().locks;
    assert_eq!(held[0].holder.record.token, second.record.token, "the lock that it had");
    all[1].release(&x, "B");
    assert_eq!(project.records().len(), 0);
}

#[test]
fn who_writes_waits_for_all_readers_and_not_for_the_dead() {
    let (project, clock, mut all) = bench(4);
    let x = project.file("x");
    for (number, story) in ["A", "B", "C"].iter().enumerate() {
        all[number].has(&x, SHARED, story);
    }
    let waits = all[3].wait_for(&x, PLAIN, "W");
    all[0].release(&x, "A");
    assert!(!all[3].has_turn(waits));
    drop(all.remove(1));
    assert!(!all[2].has_turn(waits), "C reads still");
    let done = all[1].run(detached(&x, SHARED, "C", 100));
    assert!(matches!(done, Ok(Done::Granted(_))), "covered: {done:?}");
    all[1].release(&x, "C");
    assert!(all[2].has_turn(waits), "at {} ms", clock.wall_ms());
    let grant = &all[2].turns[&waits][0];
    assert_eq!(grant.record.reclaimed, None, "a reader leaves nothing half done");
}

#[test]
fn a_reader_does_not_overtake_who_waits_to_write_unless_that_one_is_dead() {
    let (project, _, mut all) = bench(4);
    let x = project.file("x");
    all[0].has(&x, SHARED, "A");
    let writes = all[1].wait_for(&x, PLAIN, "W");
    let refused = all[2].ask(&x, SHARED, "B").expect_err("behind the writer");
    assert!(refused.message.contains("it is kept for W"), "{refused}");
    let reads = all[2].wait_for(&x, SHARED, "B");
    let also = all[3].wait_for(&x, SHARED, "C");
    assert!(!all[2].has_turn(reads));
    drop(all.remove(1));
    assert!(all[1].has_turn(reads) && all[2].has_turn(also));
    assert_eq!(all[0].holders(&x), ["A", "B", "C"]);
    assert!(!all[0].turns.contains_key(&writes));
}

#[test]
fn readers_in_a_row_are_let_in_together() {
    let (project, _, mut all) = bench(4);
    let x = project.file("x");
    all[0].has(&x, PLAIN, "A");
    let first = all[1].wait_for(&x, SHARED, "B");
    let second = all[2].wait_for(&x, SHARED, "C");
    let writes = all[3].wait_for(&x, PLAIN, "W");
    let last = all[3].wait_for(&x, SHARED, "D");
    all[0].release(&x, "A");
    assert_eq!(all[0].holders(&x), ["B", "C"]);
    assert!(all[1].has_turn(first) && all[2].has_turn(second));
    all[1].release(&x, "B");
    all[2].release(&x, "C");
    assert!(all[3].has_turn(writes) && !all[3].has_turn(last));
    all[3].release(&x, "W");
    assert!(all[3].has_turn(last));
}

#[test]
fn who_stops_waiting_to_write_lets_the_readers_behind_it_in() {
    let (project, _, mut all) = bench(3);
    let x = project.file("x");
    all[0].has(&x, SHARED, "A");
    let writes = all[1].wait_for(&x, PLAIN, "W");
    let reads = all[2].wait_for(&x, SHARED, "B");
    all[1].leave_line(writes, false);
    assert_eq!(all[0].holders(&x), ["A", "B"], "before anybody has looked");
    assert!(all[2].has_turn(reads));
}

#[test]
fn a_reader_may_pass_a_writer_that_waits_for_it_in_the_moment_that_it_does() {
    // W waits to write x, which R1 reads; R2, behind it, has b. When R1 waits for b, W waits for R2.
    let (project, _, mut all) = bench(3);
    let (x, b) = (project.file("x"), project.file("b"));
    all[0].has(&x, SHARED, "R1");
    all[1].has(&b, PLAIN, "R2");
    all[2].wait_for(&x, PLAIN, "W");
    let reads = all[1].wait_for(&x, SHARED, "R2");
    all[0].wait_for(&b, PLAIN, "R1");
    assert_eq!(all[2].holders(&x), ["R1", "R2"], "before anybody has looked");
    assert!(all[1].has_turn(reads));
}

#[test]
fn one_who_releases_several_paths_is_gone_from_all_of_them() {
    // T, who reads x as well, waits for x and y together.
    let (project, _, mut all) = bench(2);
    let (x, y) = (project.file("x"), project.file("y"));
    all[0].has(&x, SHARED, "S");
    all[0].has(&y, PLAIN, "S");
    all[1].has(&x, SHARED, "T");
    let both = Acquire {
        paths: [kinded(&x, SHARED, "T").paths, kinded(&y, PLAIN, "T").paths].concat(),
        queue: Some(8),
        ..kinded(&x, SHARED, "T")
    };
    let Ok(Done::Queued(waits)) = all[1].run(Step::Acquire(both)) else { unreachable!("S has y") };
    assert_eq!(all[0].cleanup("S"), 2);
    assert_eq!(all[0].holders(&y), ["T"]);
    assert_eq!(all[0].holders(&x), ["T"], "S has given x up");
    assert!(all[1].has_turn(waits));
}

#[test]
fn each_readers_lease_ends_by_itself() {
    let (project, clock, mut all) = bench(3);
    let x = project.file("x");
    for (story, ms) in [("A", 100), ("B", 300)] {
        let done = all[0].run(detached(&x, SHARED, story, ms));
        assert!(matches!(done, Ok(Done::Granted(_))), "{done:?}");
    }
    let third = Acquire { lease: Lease::Timed(200), ..kinded(&x, SHARED, "C") };
    assert!(all[1].run(Step::Acquire(third)).is_ok());
    let writes = all[2].wait_for(&x, PLAIN, "W");
    for left in [vec!["B", "C"], vec!["B"], vec!["W"]] {
        clock.advance(100);
        all[2].tend();
        assert_eq!(all[2].holders(&x), left);
    }
    assert!(all[2].turns.contains_key(&writes));
}

#[test]
fn detached_readers_outlive_their_processes_and_others_do_not() {
    let (project, _, mut all) = bench(3);
    let x = project.file("x");
    assert!(all[0].run(detached(&x, SHARED, "A", 1000)).is_ok());
    all[0].has(&x, SHARED, "B");
    let waits = Acquire { queue: Some(8), ..kinded(&x, SHARED, "C") };
    assert!(matches!(all[1].run(Step::Acquire(waits)), Ok(Done::Granted(_))));
    drop(all.remove(0));
    assert_eq!(all[0].holders(&x), ["A", "C"]);
    drop(all.remove(0));
    assert_eq!(all[0].holders(&x), ["A"]);
}

#[test]
fn a_detached_reader_that_waited_outlives_its_process_however_it_learns_of_its_turn() {
    for is_out_of_patience in [false, true] {
        let (project, _, mut all) = bench(3);
        let x = project.file("x");
        all[0].has(&x, PLAIN, "A");
        let Step::Acquire(ask) = detached(&x, SHARED, "B", 1000) else { unreachable!() };
        let asked = all[1].run(Step::Acquire(Acquire { queue: Some(8), ..ask }));
        let Ok(Done::Queued(waits)) = asked else { unreachable!("{asked:?}") };
        all[0].release(&x, "A");
        if is_out_of_patience {
            let kept = all[1].leave_line(waits, true);
            assert!(matches!(kept, Done::Granted(_)), "its turn came first: {kept:?}");
        } else {
            assert!(all[1].has_turn(waits));
        }
        drop(all.remove(1));
        assert_eq!(all[0].holders(&x), ["B"], "out of patience: {is_out_of_patience}");
    }
}

#[test]
fn who_has_more_is_given_what_it_has() {
    let (project, _, mut all) = bench(2);
    let x = project.file("x");
    let all_of_it = all[0].has(&x, FOLDER, "A");
    for kind in [SHARED, SHARED_FOLDER, PLAIN, FOLDER] {
        let again = all[1].has(&x, kind, "A");
        assert!(!again.is_fresh);
        assert_eq!(again.record, all_of_it.record, "{kind:?} changes nothing");
    }
}

#[test]
fn a_lock_of_the_old_module_is_nobodys_to_share_until_it_ends() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut all = [Process::new(&project, &clock), Process::new(&project, &clock)];
    let x = project.file("x");
    project.plant_old_record("x", "O", clock.wall_ms(), 1000);
    assert_eq!(code(&all[0].ask(&x, SHARED, "A")), "ELOCKED");
    // Its own story has more than it asks for.
    let own = all[1].has(&x, SHARED, "O");
    assert_eq!((own.record.kind(), own.record.mode), (PLAIN, storylock::Mode::Exclusive));
    let waits = all[0].wait_for(&x, SHARED, "A");
    all[1].lower(&own, SHARED);
    assert!(all[0].has_turn(waits));
    assert_eq!(all[0].holders(&x), ["O", "A"]);
    clock.advance(1000);
    all[0].tend();
    assert_eq!(all[0].holders(&x), ["A"], "the old one's lease is over");

    let y = project.file("y");
    project.plant_old_record("y", "O", clock.wall_ms(), 1000);
    clock.advance(1000);
    all[0].has(&y, SHARED, "A");
    all[1].has(&y, SHARED, "O");
    assert_eq!(all[0].holders(&y), ["A", "O"]);
}
