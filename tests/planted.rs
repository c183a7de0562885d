//! What a repository can carry in `.ai/locks` beside records: notes of changes, queues, odd folders. None
//! of it makes storylock touch what is not a change's own, wait, or work without measure.
//!
//! Records, folders and the guard are in `hostile.rs`, journals in `planted_journal.rs`.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::desk::HandDesk;
use common::odd::{BESIDE, ODD, assert_untouched, node, outside, prepared, tree};
use common::{Caller, LONG, Project, code, set};
use serde_json::{Value, json};
use storylock::{Call, Clock, ManualClock};

/// Where a change of a holder that is long dead would have been noted.
fn note_of(project: &Project) -> PathBuf {
    let staged = project.locks().join("staged");
    fs::create_dir_all(&staged).expect("a folder");
    staged.join("7-8")
}

#[test]
fn a_note_of_any_kind_is_in_nobodys_way() {
    for (what, plant) in ODD {
        let (_kept, theirs) = outside();
        let project = prepared();
        let before = tree(&project);
        plant(&note_of(&project), &theirs);
        let caller = project.caller();
        let answer = caller.acquire(&project.file("a"), "A", LONG);
        assert_eq!(code(&answer), "no error", "{what}: {answer:?}");
        assert_eq!(tree(&project), before, "{what}");
        assert_untouched(&theirs, what);
    }
}

#[test]
fn a_note_removes_what_its_change_made_and_nothing_else() {
    let project = prepared();
    let made = [BESIDE, "src/.storylock-7-8-1"].map(|name| project.root().join(name));
    // Another change's, a longer number's, what only begins so, and files of the project.
    let others =
        [".storylock-7-9-0", ".storylock-7-88-0", ".storylock-7-8", "app.js", "src/app.js"]
            .map(|name| project.root().join(name));
    for path in made.iter().chain(&others) {
        fs::write(path, "here").expect("a file");
    }
    let folder = project.root().join(".storylock-7-8-2");
    fs::create_dir(&folder).expect("a folder");
    let all: Vec<&PathBuf> = made.iter().chain(&others).chain([&folder]).collect();
    fs::write(note_of(&project), json!(all).to_string()).expect("a note");
    project.caller().acquire(&project.file("a"), "A", LONG).expect("free");
    assert!(made.iter().all(|path| !path.exists()), "what a dead process had made is swept");
    assert!(others.iter().all(|path| path.exists()), "the rest is not its own");
    assert!(folder.is_dir() && !note_of(&project).exists());
}

#[test]
fn a_note_of_a_living_holder_is_left_alone() {
    let project = prepared();
    let (mine, theirs) = (project.caller(), project.caller());
    let held = mine.acquire(&project.file("a"), "A", LONG).expect("free");
    let name = format!("{}-8", held.record.holder);
    let made = project.root().join(format!(".storylock-{name}-0"));
    fs::write(&made, "being made").expect("a file");
    let note = note_of(&project).with_file_name(&name);
    fs::write(&note, json!([made]).to_string()).expect("a note");
    theirs.acquire(&project.file("b"), "B", LONG).expect("free");
    assert!(made.exists() && note.exists(), "its maker lives");
}

#[test]
fn a_note_removes_nothing_outside_the_project() {
    let (_kept, theirs) = outside();
    let project = prepared();
    symlink(theirs.parent().expect("a folder"), project.root().join("link")).expect("a link");
    let by_link = project.root().join("link").join(BESIDE);
    for path in [&theirs, &by_link] {
        fs::write(note_of(&project), json!([path]).to_string()).expect("a note");
        project.caller().acquire(&project.file("a"), "A", LONG).expect("free");
        assert!(theirs.exists(), "defect 5: {} was removed", path.display());
    }
}

/// A number that the kernel counts for this thread.
fn counted(name: &str) -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").expect("this thread's counts");
    let line = io.lines().find_map(|line| line.strip_prefix(name)).expect("that count");
    line.trim_start_matches(':').trim().parse().expect("a number")
}

fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.step_wall(storylock::SystemClock.wall_ms());
    Arc::new(clock)
}

#[test]
fn a_note_is_read_by_blocks() {
    let project = prepared();
    let paths = vec!["/nowhere/at/all"; 10_000];
    fs::write(note_of(&project), json!(paths).to_string()).expect("a note");
    let mut desk = HandDesk::new(&project, &clock());
    let before = counted("syscr");
    desk.call(Call::Acquire(set(&[project.file("a")], "A", LONG))).expect("free");
    let reads = counted("syscr") - before;
    assert!(reads < 1000, "defect 6: {reads} reads for a note of 180 kB, holding the guard");
}

/// One who waits, of a boot that is over.
fn dead_waiter(number: usize) -> Value {
    json!({
        "id": number, "storyId": format!("Z-{number}"), "filePath": "/x", "since": 1, "timeout": 1000,
        "pid": 1, "holder": number, "boot": "over", "host": "h", "process": {},
    })
}

/// How many bytes are written until a path behind so many dead waiters is granted.
fn written_past_dead(count: usize) -> u64 {
    let project = prepared();
    let waiters: Vec<Value> = (1..=count).map(dead_waiter).collect();
    let queue = project.locks().join("queue").join(common::key(&project.file("a")).to_string());
    fs::write(queue, json!({ "version": 1, "waiters": waiters }).to_string()).expect("a queue");
    let mut desk = HandDesk::new(&project, &clock());
    let before = counted("wchar");
    desk.call(Call::Acquire(set(&[project.file("a")], "A", LONG))).expect("the dead are skipped");
    counted("wchar") - before
}

#[test]
fn the_dead_in_a_line_are_taken_out_at_once() {
    let (few, many) = (written_past_dead(40), written_past_dead(320));
    // Eight times as many: eight times as much, and not sixty-four.
    assert!(many < few * 16, "defect 7: {few} bytes for 40 dead waiters, {many} for 320");
}

#[test]
fn the_numbers_of_a_planted_queue_crash_nothing_and_let_nobody_overtake() {
    let boot = storylock::SystemClock.boot();
    let plain = dead_waiter(3);
    let with = |more: Value| {
        let mut waiter = plain.clone();
        let (Value::Object(waiter_fields), Value::Object(more)) = (&mut waiter, more) else {
            unreachable!("both are objects")
        };
        waiter_fields.extend(more);
        waiter
    };
    let waiters = [
        with(json!({ "id": u64::MAX })),
        with(json!({ "id": 0 })),
        with(json!({ "since": u64::MAX, "timeout": u64::MAX })),
        with(json!({ "pid": u32::MAX, "process": { "started": u64::MAX, "namespace": u64::MAX } })),
        with(json!({ "holder": u64::MAX })),
        with(json!({ "filePath": "" })),
        with(json!({ "set": [] })),
        with(json!({ "set": ["0".repeat(64)] })),
        with(json!({ "boot": boot, "pid": 0, "process": { "started": 1, "namespace": 1 } })),
    ];
    for waiter in waiters {
        let project = prepared();
        let queue = project.locks().join("queue").join(common::key(&project.file("a")).to_string());
        fs::write(queue, json!({ "version": 1, "waiters": [waiter] }).to_string())
            .expect("a queue");
        let caller = project.caller();
        let mine = caller.acquire(&project.file("b"), "A", LONG).expect("another path is free");
        // It may stand before us, by its words, but it is never us who crash.
        let answer = caller.acquire(&project.file("a"), "A", LONG);
        assert!(
            matches!(code(&answer), "no error" | "ELOCKED" | "EBADRECORD"),
            "{waiter}: {answer:?}"
        );
        assert!(caller.verify(&mine), "{waiter}");
        if let Ok(grant) = &answer {
            assert!(grant.record.token > mine.record.token, "{waiter}: tokens rise");
        }
    }
}

#[test]
fn no_record_is_written_that_cannot_be_read() {
    let project = prepared();
    let mut waiter = dead_waiter(3);
    // Nobody's process, so it may live, for all that is known; and nobody's number.
    waiter["boot"] = json!(storylock::SystemClock.boot());
    waiter["holder"] = json!(u64::MAX);
    let queue = project.locks().join("queue").join(common::key(&project.file("a")).to_string());
    fs::write(queue, json!({ "version": 1, "waiters": [waiter] }).to_string()).expect("a queue");
    let answer = project.caller().acquire(&project.file("a"), "A", LONG);
    assert_ne!(code(&answer), "EBADRECORD", "defect 14: {answer:?}");
}

/// What opens a project and then makes something else of its folders.
fn with_swapped(what: &str, swap: impl Fn(&Path, &Path)) {
    for name in ["holders", "queue", "staged", "written"] {
        let (dir, theirs) = outside();
        let project = prepared();
        let caller = project.caller();
        let held = caller.acquire(&project.file("a"), "A", LONG).expect("free");
        let place = project.locks().join(name);
        let _ = fs::remove_dir_all(&place);
        swap(dir.path(), &place);
        exercise(&project, &caller);
        assert!(caller.verify(&held), "{name} is {what}: the record stands");
        assert_untouched(&theirs, &format!("{name} is {what}"));
    }
}

/// Calls of every kind; what they answer is not the point.
fn exercise(project: &Project, caller: &Caller) {
    let other = project.caller();
    for name in ["a", "b", "c"] {
        let _ = caller.acquire(&project.file(name), "A", LONG);
        let _ = other.acquire(&project.file(name), "B", LONG);
        let _ = other.renew(&project.file(name), "B", None);
    }
    let _ = other.cleanup("B");
    other.status();
}

#[test]
fn folders_replaced_by_links_under_a_running_engine_are_not_followed() {
    with_swapped("a link", |outside, place| symlink(outside, place).expect("a link"));
    with_swapped("a file", |_, place| fs::write(place, "x").expect("a file"));
    with_swapped("a FIFO", |_, place| node(place, rustix::fs::FileType::Fifo, 0));
}
