//! A folder that is locked with all that is below it.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use storylock::store::{Done, Step};
use storylock::{Clock, Kind, Lease, ManualClock, SystemClock};

use crate::bench;
use crate::common::{FOLDER, LONG, Project, SHARED, SHARED_FOLDER, code, kinds, story};
use crate::lines::{Process, located};

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

#[test]
fn a_folder_is_locked_with_everything_below_it_existing_or_not_and_with_nothing_beside() {
    let (project, _, mut all) = bench(2);
    std::fs::create_dir_all(project.root().join("src/deep")).expect("folders");
    std::fs::write(project.file("src/there.js"), "").expect("a file");
    let src = project.file("src");
    all[0].has(&src, FOLDER, "A");
    for name in ["src", "src/there.js", "src/deep", "src/deep/x/y/z.js", "src/./up/../new.js"] {
        for kind in [PLAIN, FOLDER, SHARED, SHARED_FOLDER] {
            let refused = all[1].ask(&project.file(name), kind, "B");
            assert_eq!(code(&refused), "ELOCKED", "{name}, {kind:?}");
            let error = refused.expect_err("refused");
            let holder = error.holder.as_ref().expect("a holder");
            assert_eq!(holder.record.file_path, std::path::Path::new(&src), "{error}");
        }
    }
    let refused = all[1].ask(&project.file("src/new.js"), PLAIN, "B").expect_err("refused");
    assert!(refused.message.contains("is locked by A (pid "), "{refused}");
    assert!(refused.message.contains(", by the lock on src."), "{refused}");
    for name in ["srcx", "src2/a", "sr", "lib/src/there.js", "src.js"] {
        all[1].has(&project.file(name), FOLDER, "B");
    }
}

#[test]
fn a_folder_waits_for_whoever_has_something_below_it_and_names_them_all() {
    let (project, _, mut all) = bench(3);
    let x = all[0].has(&project.file("src/a/x"), PLAIN, "A");
    all[1].has(&project.file("src/b"), SHARED, "B");
    all[1].has(&project.file("lib"), FOLDER, "B");
    let refused = all[2].ask(&project.file("src"), FOLDER, "C").expect_err("refused");
    let mut named: Vec<&str> =
        refused.holders.iter().map(|holder| holder.record.story_id.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, ["A", "B"], "{refused}");
    all[2].has(&project.file("src"), PLAIN, "C");
    let waits = all[2].wait_for(&project.file("src"), FOLDER, "C");
    all[1].release(&project.file("src/b"), "B");
    assert!(!all[2].has_turn(waits));
    all[0].let_go(&[x]);
    assert!(all[2].has_turn(waits));
    assert_eq!(all[0].holder(&project.file("src/a/x")).as_deref(), Some("C"));
}

#[test]
fn who_waits_below_a_folder_is_served_in_the_moment_that_it_is_given_up() {
    for kind in [FOLDER, SHARED_FOLDER] {
        let (project, _, mut all) = bench(3);
        let (src, x, y) = (project.file("src"), project.file("src/x"), project.file("src/y/z"));
        let folder = all[0].has(&src, kind, "A");
        let (first, second) = (all[1].wait_for(&x, PLAIN, "B"), all[2].wait_for(&y, PLAIN, "C"));
        all[0].let_go(&[folder]);
        // Before anybody has looked.
        assert_eq!(all[0].holder(&x).as_deref(), Some("B"), "{kind:?}");
        assert_eq!(all[0].holder(&y).as_deref(), Some("C"), "{kind:?}");
        assert!(all[1].has_turn(first) && all[2].has_turn(second));
    }
}

#[test]
fn nobody_overtakes_a_folder_that_is_waited_for() {
    let (project, _, mut all) = bench(3);
    let (src, x, y) = (project.file("src"), project.file("src/x"), project.file("src/y"));
    all[0].has(&x, PLAIN, "A");
    let folder = all[1].wait_for(&src, FOLDER, "B");
    let refused = all[2].ask(&y, PLAIN, "C").expect_err("kept for the folder");
    assert!(refused.message.contains("it is kept for B"), "{refused}");
    let behind = all[2].wait_for(&y, SHARED, "C");
    all[0].has(&y, PLAIN, "A");
    all[0].cleanup("A");
    assert!(all[1].has_turn(folder));
    assert!(!all[2].has_turn(behind));
    all[1].cleanup("B");
    assert!(all[2].has_turn(behind));
}

#[test]
fn a_dead_mans_lock_below_a_folder_keeps_nobody() {
    let (project, _, mut all) = bench(3);
    let src = project.file("src");
    all[0].has(&project.file("src/x"), PLAIN, "A");
    let waits = all[2].wait_for(&src, FOLDER, "C");
    drop(all.remove(0));
    assert!(all[1].has_turn(waits));
    all[1].release(&src, "C");
    all[0].has(&src, FOLDER, "B");
}

#[test]
fn a_dead_mans_lock_below_a_folder_keeps_nobody_though_another_lived_when_the_line_began() {
    // D's process is dead when the folder is asked for; B lives, and gives up later.
    let (project, _, mut all) = bench(4);
    all[0].has(&project.file("src/d"), PLAIN, "D");
    all[1].has(&project.file("src/b"), PLAIN, "B");
    drop(all.remove(0));
    let waits = all[1].wait_for(&project.file("src"), FOLDER, "C");
    // By a process that has never asked for D's life.
    all[2].release(&project.file("src/b"), "B");
    assert_eq!(all[0].holder(&project.file("src")).as_deref(), Some("C"), "at once");
    assert!(all[1].has_turn(waits));
}

#[test]
fn a_story_has_a_folder_and_files_in_it_side_by_side() {
    let (project, _, mut all) = bench(2);
    let (src, x, y) = (project.file("src"), project.file("src/x"), project.file("src/y"));
    let file = all[0].has(&x, PLAIN, "A");
    let folder = all[0].has(&src, FOLDER, "A");
    assert!(folder.is_fresh && folder.record.token > file.record.token);
    assert!(all[0].has(&y, PLAIN, "A").is_fresh, "a lock of its own");
    all[0].let_go(&[folder]);
    all[1].has(&project.file("src/z"), PLAIN, "B");
    assert_eq!(code(&all[1].ask(&x, PLAIN, "B")), "ELOCKED", "it has that still");
    assert_eq!(code(&all[1].ask(&src, FOLDER, "B")), "ELOCKED");
}

#[test]
fn a_folder_in_a_folder_and_a_folder_above_exclude_each_other() {
    let (project, _, mut all) = bench(2);
    let (src, a, ab) = (project.file("src"), project.file("src/a"), project.file("src/ab"));
    let above = all[0].has(&src, FOLDER, "A");
    assert_eq!(code(&all[1].ask(&a, FOLDER, "B")), "ELOCKED");
    all[0].let_go(&[above]);
    all[0].has(&a, FOLDER, "A");
    assert_eq!(code(&all[1].ask(&src, FOLDER, "B")), "ELOCKED");
    all[1].has(&ab, FOLDER, "B");
    let root = project.root().to_str().expect("UTF-8");
    assert_eq!(code(&all[1].ask(root, FOLDER, "B")), "ELOCKED", "the whole project");
    all[0].cleanup("A");
    all[1].has(root, FOLDER, "B");
    assert_eq!(code(&all[0].ask(&project.file("any"), SHARED, "A")), "ELOCKED");
}

#[test]
fn a_folder_that_is_named_through_a_link_is_the_folder() {
    let (project, _, mut all) = bench(2);
    std::fs::create_dir(project.root().join("src")).expect("a folder");
    symlink("src", project.file("link")).expect("a link");
    symlink("src/new", project.file("dangling")).expect("a link to what is not there yet");
    let folder = all[0].has(&project.file("link"), FOLDER, "A");
    assert_eq!(folder.record.file_path, std::path::Path::new(&project.file("link")), "as named");
    for name in ["src", "src/x", "link/x", "dangling", "dangling/deep"] {
        assert_eq!(code(&all[1].ask(&project.file(name), SHARED, "B")), "ELOCKED", "{name}");
        assert_eq!(all[1].holder(&project.file(name)).as_deref(), Some("A"), "{name}");
    }
    let waits = all[1].wait_for(&project.file("src/x"), PLAIN, "B");
    all[0].let_go(&[folder]);
    assert!(all[1].has_turn(waits));
    assert_eq!(code(&all[0].ask(&project.file("link"), FOLDER, "A")), "ELOCKED");
    all[1].cleanup("B");
    // And the other way round, by a process that was not there then.
    let deep = all[1].has(&project.file("dangling/deep"), PLAIN, "B");
    let mut newcomer = Process::new(&project, &Arc::new(ManualClock::default()));
    assert_eq!(code(&newcomer.ask(&project.file("src/new"), FOLDER, "A")), "ELOCKED");
    all[1].let_go(&[deep]);
    newcomer.has(&project.file("src/new"), FOLDER, "A");
}

#[test]
fn a_folder_waits_for_a_lock_of_the_old_module_below_it() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut all = [Process::new(&project, &clock), Process::new(&project, &clock)];
    // They know the ground before the old module, which notes nothing, comes.
    all[0].cleanup("nobody");
    all[1].cleanup("nobody");
    std::fs::create_dir(project.root().join("src")).expect("a folder");
    symlink("src", project.file("link")).expect("a link");
    for name in ["src/old", "link/old"] {
        let record = project.locks().join(key_as_spelled(&project, name));
        project.plant_old_record("src/old", "O", clock.wall_ms(), 1000);
        if name == "link/old" {
            // The old module knew no links: its key is that of the words.
            std::fs::remove_file(project.record("src/old")).expect("planted");
            let text = serde_json::json!({
                "lockId": "O-1", "storyId": "O", "filePath": project.file(name),
                "acquiredAt": clock.wall_ms(), "timeout": 1000, "pid": 1,
            });
            std::fs::write(&record, text.to_string()).expect("a planted record");
        }
        let refused = all[0].ask(&project.file("src"), FOLDER, "A");
        assert_eq!(code(&refused), "ELOCKED", "{name}");
        let error = refused.expect_err("held");
        let holder = error.holder.as_ref().expect("a holder");
        assert_eq!(holder.record.story_id.as_str(), "O", "{error}");
        assert_eq!(code(&all[0].ask(&project.file("src"), SHARED_FOLDER, "A")), "ELOCKED");
        all[0].has(&project.file("src2"), FOLDER, "A");
        let waits = all[1].wait_for(&project.file("src"), FOLDER, "B");
        clock.advance(1000);
        assert!(all[1].has_turn(waits), "{name}: its lease is over");
        all[1].cleanup("B");
        assert!(!record.exists(), "{name}: what is over goes");
    }
}

/// The name of the record by the words of a path alone.
fn key_as_spelled(project: &Project, name: &str) -> String {
    storylock::Key::of(std::path::Path::new(&project.file(name))).file_name()
}

#[test]
fn a_file_asked_for_under_a_folder_is_refused_though_its_record_is_the_old_modules() {
    // The old module took src/x before; A has the folder by now that its lease is over.
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut all = [Process::new(&project, &clock), Process::new(&project, &clock)];
    project.plant_old_record("src/x", "O", clock.wall_ms(), 1000);
    clock.advance(1000);
    all[0].has(&project.file("src"), FOLDER, "A");
    assert_eq!(code(&all[1].ask(&project.file("src/x"), PLAIN, "O")), "ELOCKED");
    assert_eq!(code(&all[1].ask(&project.file("src/x"), PLAIN, "B")), "ELOCKED");
}

#[test]
fn a_set_of_a_folder_and_a_file_in_it_is_one_storys_and_all_or_nothing() {
    let project = Project::new();
    let (caller, other) = (project.caller(), project.caller());
    let (src, x) = (project.file("src"), project.file("src/x"));
    let both = [(src.clone(), FOLDER), (x.clone(), PLAIN), (src.clone(), SHARED)];
    let grants = caller.acquire_all(kinds(&both, "A", LONG)).expect("free");
    assert_eq!(grants.len(), 2, "one path counts once, in the kind that covers both");
    assert_eq!(grants[0].record.kind(), FOLDER);
    let refused = other.acquire_all(kinds(&[(project.file("a"), PLAIN), (x, SHARED)], "B", LONG));
    assert_eq!(code(&refused), "ELOCKED");
    assert_eq!(other.holder(&project.file("a")), None, "nothing of a set that is refused");
    assert_eq!(caller.cleanup("A"), Ok(2));
}

#[test]
fn release_renew_and_cleanup_of_a_file_leave_the_folder_above_alone() {
    let (project, _, mut all) = bench(2);
    let (src, x) = (project.file("src"), project.file("src/x"));
    all[0].has(&src, FOLDER, "A");
    // Nothing is at the path itself.
    let done = all[1].run(Step::Release { path: located(&x), story: story("B") });
    assert_eq!(done, Ok(Done::Released));
    let renewed = all[0].run(Step::Renew { path: located(&x), story: story("A"), lease: None });
    assert_eq!(code(&renewed), "ENOTACQUIRED", "the lock is on the folder");
    assert_eq!(all[1].cleanup("B"), 0);
    assert_eq!(all[1].holder(&x).as_deref(), Some("A"));
    let ends = Some(Lease::Timed(SystemClock.wall_ms()));
    let renewed = all[0].run(Step::Renew { path: located(&src), story: story("A"), lease: ends });
    assert!(matches!(renewed, Ok(Done::Renewed(_))));
}
