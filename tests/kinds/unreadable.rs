//! What cannot be read is in everybody's way, above and below it too, until it is known to be rubbish.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use storylock::{Clock, Kind, ManualClock, SystemClock};

use crate::common::{FOLDER, Project, SHARED, SHARED_FOLDER, code};
use crate::lines::Process;

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

/// Longer than what is no record counts as held.
const LATER_MS: u64 = 30_001;

/// Two processes by the wall's clock, since files carry that, once something stands at a record's name.
fn around(project: &Project, name: &str, text: &str) -> (Arc<ManualClock>, Vec<Process>) {
    let clock = ManualClock::default();
    clock.step_wall(SystemClock.wall_ms());
    let clock = Arc::new(clock);
    std::fs::create_dir_all(project.locks()).expect("the folder of records");
    std::fs::write(project.record(name), text).expect("planted");
    let processes = (0..2).map(|_| Process::new(project, &clock)).collect();
    (clock, processes)
}

/// The record of somebody, of a version to come.
fn of_a_later_version(project: &Project, name: &str) -> String {
    serde_json::json!({
        "lockId": "L-1", "storyId": "L", "filePath": project.file(name), "acquiredAt": 1,
        "timeout": null, "pid": 1, "version": 99, "token": 7, "holder": 8, "mode": "intent",
        "recursive": true,
    })
    .to_string()
}

#[test]
fn what_is_no_record_below_a_folder_keeps_everybody_from_the_folder() {
    let project = Project::new();
    for text in ["half a rec", "", &of_a_later_version(&project, "src/x")] {
        let (clock, mut all) = around(&project, "src/x", text);
        for kind in [FOLDER, SHARED_FOLDER] {
            let refused = all[0].ask(&project.file("src"), kind, "A");
            assert_eq!(code(&refused), "EBADRECORD", "{text:?}");
            let error = refused.expect_err("in the way");
            let file = project.record("src/x").display().to_string();
            assert!(error.message.contains(&file), "the file that is in the way: {error}");
        }
        // Beside it, and the folder alone: nobody is hindered who can be told apart.
        all[0].has(&project.file("src"), PLAIN, "A");
        all[0].has(&project.file("lib"), PLAIN, "A");
        clock.advance(LATER_MS);
        all[1].has(&project.file("src/x"), SHARED, "A");
        all[1].has(&project.file("src"), FOLDER, "A");
        assert_eq!(all[0].cleanup("A"), 3);
        all[0].tend();
    }
}

#[test]
fn what_is_no_record_at_a_folder_keeps_everybody_from_what_is_below_it() {
    let project = Project::new();
    for text in ["half a rec", &of_a_later_version(&project, "src")] {
        let (clock, mut all) = around(&project, "src", text);
        for name in ["src", "src/x", "src/deep/y"] {
            for kind in [PLAIN, SHARED, SHARED_FOLDER] {
                let refused = all[0].ask(&project.file(name), kind, "A");
                assert_eq!(code(&refused), "EBADRECORD", "{name}, {text:?}");
            }
        }
        all[0].has(&project.file("srcx"), PLAIN, "A");
        clock.advance(LATER_MS);
        all[0].has(&project.file("src/x"), PLAIN, "A");
        assert_eq!(all[1].holder(&project.file("src/x")).as_deref(), Some("A"), "{text:?}");
        all[0].has(&project.file("src"), FOLDER, "A");
        assert_eq!(all[0].cleanup("A"), 3);
    }
}

#[test]
fn what_names_no_path_is_in_the_way_of_every_folder() {
    let project = Project::new();
    let (clock, mut all) = around(&project, "any/where", "half a rec");
    assert_eq!(code(&all[0].ask(&project.file("src"), FOLDER, "A")), "EBADRECORD");
    all[0].has(&project.file("src/x"), PLAIN, "A");
    clock.advance(LATER_MS);
    all[0].has(&project.file("src"), FOLDER, "A");
}

#[test]
fn several_who_have_what_one_alone_can_have_are_no_record() {
    let project = Project::new();
    let (_, mut all) = around(&project, "none", "");
    let x = project.file("x");
    all[0].has(&x, SHARED, "A");
    all[1].has(&x, SHARED, "B");
    let text = std::fs::read_to_string(project.record("x")).expect("a record");
    for (what, to) in [
        ("\"mode\":\"shared\"", "\"mode\":\"exclusive\""),
        ("\"storyId\":\"B\"", "\"storyId\":\"A\""),
        ("\"mode\":\"shared\"", "\"mode\":\"intent\""),
        ("\"others\":[{", "\"others\":[7,{"),
    ] {
        std::fs::write(project.record("x"), text.replacen(what, to, 1)).expect("tampered");
        assert_eq!(code(&all[0].ask(&x, SHARED, "C")), "EBADRECORD", "{to}");
        assert_eq!(code(&all[0].ask(&x, SHARED, "A")), "EBADRECORD", "{to}");
        let shown = all[1].status();
        assert!(shown.unreadable.contains(&project.record("x")), "{to}: {shown:?}");
    }
    std::fs::write(project.record("x"), text).expect("put right");
    all[0].has(&x, SHARED, "C");
}

#[test]
fn a_reader_that_may_not_be_asked_about_counts_as_alive() {
    let project = Project::new();
    let (_, mut all) = around(&project, "none", "");
    let x = project.file("x");
    let mine = all[0].has(&x, SHARED, "A");
    // In the place of its life stands what can be neither locked nor asked.
    let life = project.locks().join("holders").join(mine.record.holder.to_string());
    drop(all.remove(0));
    std::fs::remove_file(&life).expect("a holder file");
    symlink("elsewhere", &life).expect("a link");
    let refused = all[0].ask(&x, PLAIN, "B");
    assert_eq!(code(&refused), "ELOCKED", "{refused:?}");
    all[0].has(&x, SHARED, "B");
    assert_eq!(all[0].holders(&x), ["A", "B"]);
}

#[test]
fn a_record_that_another_user_closed_is_in_the_way_of_its_folder() {
    let project = Project::new();
    let (_, mut all) = around(&project, "src/x", "closed");
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(project.record("src/x"), closed).expect("its mode");
    if std::fs::read(project.record("src/x")).is_ok() {
        crate::common::say_skipped("this user may read what is closed");
        return;
    }
    let refused = all[0].ask(&project.file("src"), FOLDER, "A");
    assert!(refused.is_err(), "what cannot be read is not free");
}
