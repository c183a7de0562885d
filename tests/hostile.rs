//! Hostile ground: whatever a repository, another version, a careless hand or another user put where locks
//! are kept is refused with an error that names it: never followed, never waited on, never taken for free.

#![cfg(target_os = "linux")]

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::child::{self, Child};
use common::desk::HandDesk;
use common::{Caller, LONG, Project, code, names, only, set, story, until};
use storylock::{Ask, Call, Clock, Engine, Lease, ManualClock, Reply, SystemClock};

/// Where state is kept.
const FOLDERS: [&str; 5] =
    [".ai", ".ai/locks", ".ai/locks/holders", ".ai/locks/queue", ".ai/progress"];

/// A clock that shows the wall's time, since files carry that.
fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.step_wall(SystemClock.wall_ms());
    Arc::new(clock)
}

fn fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
}

/// A folder beside the project with a file that nobody may touch.
struct Outside {
    dir: tempfile::TempDir,
}

const SECRET: &str = "not ours";

impl Outside {
    fn new() -> Outside {
        let dir = tempfile::tempdir().expect("a scratch folder");
        std::fs::write(dir.path().join("file"), SECRET).expect("a file");
        Outside { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    fn assert_untouched(&self, by: &str) {
        assert_eq!(names(self.dir.path()), ["file"], "{by}");
        assert_eq!(std::fs::read_to_string(self.file()).expect("there"), SECRET, "{by}");
    }
}

/// Makes something at a place.
type Plant = fn(&Path, &Outside);

#[test]
fn a_link_in_the_place_of_a_folder_is_refused_and_not_followed() {
    for planted in FOLDERS {
        let (project, outside) = (Project::new(), Outside::new());
        let place = project.root().join(planted);
        std::fs::create_dir_all(place.parent().expect("a parent")).expect("folders");
        symlink(outside.dir.path(), &place).expect("a link");
        let caller = project.caller();
        let refused = caller.acquire(&project.file("a"), "A", LONG).expect_err("a link");
        assert!(matches!(refused.code.as_str(), "ENOTDIR" | "ELOOP"), "{planted}: {refused}");
        assert_eq!(refused.path.as_deref(), Some(place.as_path()), "{planted}");
        assert!(refused.message.contains("follows no links"), "{planted}: {refused}");
        // Looking is refused or finds nothing, and never fails otherwise.
        assert_ne!(code(&caller.check(&project.file("a"))), "EINTERNAL");
        caller.status();
        outside.assert_untouched(planted);
        std::fs::remove_file(&place).expect("the link itself is still there");
        caller.acquire(&project.file("a"), "A", LONG).expect("as the error advised");
    }
}

#[test]
fn a_file_or_fifo_in_the_place_of_a_folder_is_refused() {
    for planted in FOLDERS {
        for is_fifo in [false, true] {
            let project = Project::new();
            let place = project.root().join(planted);
            std::fs::create_dir_all(place.parent().expect("a parent")).expect("folders");
            if is_fifo {
                fifo(&place)
            } else {
                std::fs::write(&place, "x").expect("a file")
            }
            let caller = project.caller();
            let refused = caller.acquire(&project.file("a"), "A", LONG).expect_err("no folder");
            assert_eq!(refused.code.as_str(), "ENOTDIR", "{planted}: {refused}");
            assert_eq!(refused.path.as_deref(), Some(place.as_path()), "{planted}");
            caller.status();
        }
    }
}

#[test]
fn a_guard_that_is_no_file_is_refused() {
    let plant: [(&str, Plant); 3] = [
        ("a link", |guard, outside| symlink(outside.file(), guard).expect("a link")),
        ("a FIFO", |guard, _| fifo(guard)),
        ("a folder", |guard, _| std::fs::create_dir(guard).expect("a folder")),
    ];
    for (what, plant) in plant {
        let (project, outside) = (Project::new(), Outside::new());
        std::fs::create_dir_all(project.locks()).expect("a folder");
        plant(&project.guard(), &outside);
        let caller = project.caller();
        let refused = caller.acquire(&project.file("a"), "A", LONG).expect_err(what);
        assert_eq!(refused.path.as_deref(), Some(project.guard().as_path()), "{what}");
        assert!(refused.message.contains("remove or rename what stands in its place"), "{refused}");
        outside.assert_untouched(what);
    }
}

#[test]
fn a_guard_of_rubbish_is_made_anew_and_tokens_stay_above_all_records() {
    let project = Project::new();
    let path = project.file("a");
    let ask = Ask { detached: true, ..set(&[&path], "A", LONG) };
    let first = only(project.caller().acquire_all(ask).expect("free"));
    for rubbish in [&b""[..], b"x", &[0xFF; 65536], &[b' '; 1_000_000]] {
        std::fs::write(project.guard(), rubbish).expect("rubbish");
        let caller = project.caller();
        assert_eq!(code(&caller.acquire(&path, "B", LONG)), "ELOCKED", "the record stands");
        let next = caller.acquire(&project.file("b"), "B", LONG).expect("free");
        assert!(next.record.token > first.record.token);
        caller.close();
    }
}

#[test]
fn a_guard_overwritten_under_a_holder_costs_no_lock_and_no_order() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let held = mine.acquire(&project.file("a"), "A", LONG).expect("free");
    let file = std::fs::File::options().write(true).open(project.guard()).expect("the guard");
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 0).expect("rubbish");
    assert_eq!(code(&theirs.acquire(&project.file("a"), "B", LONG)), "ELOCKED");
    let next = theirs.acquire(&project.file("b"), "B", LONG).expect("free");
    assert!(next.record.token > held.record.token);
    assert!(mine.verify(&held) && mine.events().is_empty());
    assert_eq!(project.viewed(), project.files(&["a", "b"]));
}

#[test]
fn a_guard_overwritten_while_one_looks_away_hides_no_change() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let held = mine.acquire(&project.file("a"), "A", LONG).expect("free");
    let file = std::fs::File::options().write(true).open(project.guard()).expect("the guard");
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 0).expect("rubbish");
    assert_eq!(theirs.cleanup("A").expect("cleaned"), 1);
    let more = project.files(&["b", "c", "d", "e"]);
    theirs.acquire_all(set(&more, "B", LONG)).expect("free");
    mine.loss(&held);
    mine.acquire(&project.file("f"), "A", LONG).expect("free");
    assert_eq!(project.viewed().len(), 5, "what was given up is shown no more");
}

#[test]
fn a_guard_of_a_later_version_is_refused_and_left_alone() {
    let project = Project::new();
    std::fs::create_dir_all(project.locks()).expect("a folder");
    let later = [&b"storylk2"[..], &[9; 1000]].concat();
    std::fs::write(project.guard(), &later).expect("a guard");
    let caller = project.caller();
    let refused = caller.acquire(&project.file("a"), "A", LONG).expect_err("another version");
    assert_eq!(refused.code.as_str(), "EBADRECORD");
    assert!(refused.message.contains("a later version of storylock"), "{refused}");
    assert_eq!(std::fs::read(project.guard()).expect("read"), later);
}

const UNREADABLE: [(&str, Plant); 9] = [
    ("a link", |place, outside| symlink(outside.file(), place).expect("a link")),
    ("a dangling link", |place, _| symlink("nowhere", place).expect("a link")),
    ("a FIFO", |place, _| fifo(place)),
    ("a folder", |place, _| std::fs::create_dir_all(place.join("full")).expect("a folder")),
    ("10 MB", |place, _| std::fs::write(place, vec![b'{'; 10_000_000]).expect("a file")),
    ("binary", |place, _| std::fs::write(place, [0, 159, 146, 150, 255]).expect("a file")),
    ("nothing at all", |place, _| std::fs::write(place, "").expect("a file")),
    ("half a record", |place, _| {
        std::fs::write(place, r#"{"lockId":"A-1","storyId":"A","fileP"#).expect("a file");
    }),
    ("a later version", |place, _| {
        let text = r#"{"lockId":"A-1","storyId":"A","filePath":"/a","acquiredAt":1,"timeout":1,"pid":1,
            "version":2,"token":7,"holder":7}"#;
        std::fs::write(place, text).expect("a file");
    }),
];

#[test]
fn what_is_no_record_counts_as_held_until_it_has_not_changed_for_a_lease() {
    for (what, plant) in UNREADABLE {
        let (project, outside, clock) = (Project::new(), Outside::new(), clock());
        std::fs::create_dir_all(project.locks()).expect("a folder");
        let (path, place) = (project.file("a"), project.record("a"));
        plant(&place, &outside);
        let caller = project.caller_by(&clock);

        let refused = caller.acquire(&path, "A", Lease::Timed(1)).expect_err(what);
        assert_eq!(refused.code.as_str(), "EBADRECORD", "{what}: {refused}");
        assert_eq!(refused.path.as_deref(), Some(Path::new(&path)), "{what}");
        assert!(refused.message.contains(&place.display().to_string()), "{what}: {refused}");
        assert!(refused.message.contains("Nothing was taken."), "{what}: {refused}");
        for answer in [
            caller.check(&path).map(drop),
            caller.release(&path, "A").map(drop),
            caller.renew(&path, "A", None).map(drop),
        ] {
            assert_eq!(code(&answer), "EBADRECORD", "{what}: {answer:?}");
        }
        assert_eq!(
            caller.status().unreadable,
            std::slice::from_ref(&place),
            "{what}: status names the file"
        );
        assert_eq!(caller.cleanup("A").expect("cleaned"), 0, "{what}: it is nobody's");
        caller.acquire(&project.file("b"), "B", LONG).expect("other paths are free");

        clock.advance(31_000);
        let grant = caller.acquire(&path, "A", LONG).expect("unchanged for a lease");
        assert!(caller.verify(&grant), "{what}");
        assert_eq!(grant.record.reclaimed, None, "{what}: it was nobody's");
        let aside =
            project.locks().join(format!("{}.unreadable-{}", grant.key, grant.record.token));
        assert!(aside.symlink_metadata().is_ok(), "{what}: moved aside, not lost");
        assert!(caller.let_go(&grant));
        outside.assert_untouched(what);
    }
}

#[test]
fn what_changed_lately_counts_as_held_again() {
    let (project, clock) = (Project::new(), clock());
    std::fs::create_dir_all(project.locks()).expect("a folder");
    std::fs::write(project.record("a"), "half").expect("a file");
    let caller = project.caller_by(&clock);
    clock.advance(20_000);
    assert_eq!(code(&caller.acquire(&project.file("a"), "A", LONG)), "EBADRECORD");
    // Its writer was merely slow.
    project.plant_old_record("a", "OLD", clock.wall_ms(), 30_000);
    clock.advance(20_000);
    assert_eq!(code(&caller.acquire(&project.file("a"), "A", LONG)), "ELOCKED");
}

#[test]
fn a_later_versions_record_holds_for_as_long_as_the_holder_that_it_names() {
    let (project, clock) = (Project::new(), clock());
    let (path, place) = (project.file("a"), project.record("a"));
    let caller = project.caller_by(&clock);
    let living = caller.acquire(&project.file("b"), "B", Lease::Bound).expect("free");
    let holder = living.record.holder;
    std::fs::write(&place, format!(r#"{{"version":2,"holder":{holder}}}"#)).expect("a file");
    clock.advance(1_000_000);
    let newcomer = project.caller_by(&clock);
    assert_eq!(code(&newcomer.acquire(&path, "A", LONG)), "EBADRECORD", "its holder lives");
    caller.close();
    drop(caller);
    until("its holder is gone", || newcomer.acquire(&path, "A", LONG).is_ok());
}

#[test]
fn a_temporary_file_of_any_kind_is_in_nobodys_way() {
    let plant: [(&str, Plant); 4] = [
        ("a link", |place, outside| symlink(outside.file(), place).expect("a link")),
        ("a FIFO", |place, _| fifo(place)),
        ("a file", |place, _| std::fs::write(place, "left by a kill").expect("a file")),
        ("a folder", |place, _| std::fs::create_dir_all(place.join("full")).expect("a folder")),
    ];
    for (what, plant) in plant {
        let (project, outside) = (Project::new(), Outside::new());
        for folder in [".ai/locks", ".ai/progress"] {
            std::fs::create_dir_all(project.root().join(folder)).expect("a folder");
            plant(&project.root().join(folder).join(".next"), &outside);
        }
        let caller = project.caller();
        let grant = caller.acquire(&project.file("a"), "A", LONG);
        let grant = grant.unwrap_or_else(|error| unreachable!("{what} is in the way: {error}"));
        assert_eq!(project.viewed(), [project.file("a")], "{what}");
        caller.renew(&project.file("a"), "A", None).expect("renewed");
        assert!(caller.let_go(&grant));
        assert_eq!(project.viewed(), Vec::<String>::new(), "{what}");
        outside.assert_untouched(what);
    }
}

#[test]
fn a_view_of_any_kind_is_replaced_and_never_read() {
    let plant: [(&str, Plant); 5] = [
        ("a link", |place, outside| symlink(outside.file(), place).expect("a link")),
        ("a FIFO", |place, _| fifo(place)),
        ("rubbish", |place, _| std::fs::write(place, "{\"activeLocks\":[{").expect("a file")),
        ("10 MB", |place, _| std::fs::write(place, vec![b'['; 10_000_000]).expect("a file")),
        ("a folder", |place, _| std::fs::create_dir_all(place.join("full")).expect("a folder")),
    ];
    for (what, plant) in plant {
        let (project, outside) = (Project::new(), Outside::new());
        let progress = project.root().join(".ai/progress");
        std::fs::create_dir_all(&progress).expect("a folder");
        plant(&progress.join("locks.json"), &outside);
        let caller = project.caller();
        let paths = project.files(&["a", "b"]);
        for number in 0..2 {
            caller.acquire(&paths[number], "A", LONG).expect("the view takes no lock from anybody");
            assert_eq!(caller.status().error, None, "{what}: at writing {number}");
            assert_eq!(project.viewed(), paths[..=number], "{what}");
        }
        outside.assert_untouched(what);
    }
}

#[test]
fn a_queue_of_any_kind_is_in_nobodys_way() {
    let plant: [(&str, Plant); 6] = [
        ("a link", |place, outside| symlink(outside.file(), place).expect("a link")),
        ("a dangling link", |place, _| symlink("nowhere", place).expect("a link")),
        ("a FIFO", |place, _| fifo(place)),
        ("a socket", |place, _| {
            std::os::unix::net::UnixListener::bind(place).expect("a socket");
        }),
        ("a folder", |place, _| std::fs::create_dir_all(place.join("full")).expect("a folder")),
        ("rubbish", |place, _| std::fs::write(place, "{\"version\":1,\"wai").expect("a file")),
    ];
    for (what, plant) in plant {
        let (project, outside) = (Project::new(), Outside::new());
        let queue = project.locks().join("queue");
        std::fs::create_dir_all(&queue).expect("folders");
        let path = project.file("a");
        // A socket's path is short: bound from within.
        let name = common::key(&path).to_string();
        let short = project.root().join("s");
        plant(&short, &outside);
        std::fs::rename(short, queue.join(name)).expect("put in its place");
        let caller = project.caller();
        let answer = caller.acquire(&path, "A", LONG);
        assert_eq!(code(&answer), "no error", "{what}: {answer:?}");
        caller.acquire(&project.file("b"), "A", LONG).expect("nor in the way of other paths");
        caller.release(&path, "A").expect("its own");
        assert_eq!(caller.status().error, None, "{what}");
        outside.assert_untouched(what);
    }
}

#[test]
fn a_gitignore_that_is_a_link_is_not_written_through() {
    let (project, outside) = (Project::new(), Outside::new());
    std::fs::create_dir_all(project.locks()).expect("a folder");
    symlink(outside.dir.path().join("new"), project.locks().join(".gitignore")).expect("a link");
    project.caller().acquire(&project.file("a"), "A", LONG).expect("free");
    outside.assert_untouched(".gitignore");
}

#[test]
fn a_record_whose_holder_file_is_no_file_is_judged_without_it() {
    let plant: [(&str, Plant); 4] = [
        ("a link", |place, outside| symlink(outside.file(), place).expect("a link")),
        ("a dangling link", |place, _| symlink("nowhere", place).expect("a link")),
        ("a FIFO", |place, _| fifo(place)),
        ("a folder", |place, _| std::fs::create_dir(place).expect("a folder")),
    ];
    for (what, plant) in plant {
        let (project, outside) = (Project::new(), Outside::new());
        std::fs::create_dir_all(project.locks().join("holders")).expect("folders");
        plant(&project.locks().join("holders/7"), &outside);
        // Bound, and of a boot that is over, as a repository may carry it.
        let text = format!(
            r#"{{"lockId":"Z-1","storyId":"Z","filePath":"/z","acquiredAt":1,"timeout":null,"pid":1,
            "version":1,"token":7,"boot":"over","holder":7,"path":"{what}"}}"#
        );
        std::fs::write(project.record("a"), text).expect("a record");
        let caller = project.caller();
        let answer = caller.acquire(&project.file("a"), "A", LONG);
        assert_eq!(code(&answer), "no error", "{what}: {answer:?}");
        outside.assert_untouched(what);
    }
}

#[test]
fn a_token_at_the_end_of_all_numbers_makes_no_token_fall() {
    for token in [u64::MAX, u64::MAX - 1, 1 << 53, (1 << 53) - 1] {
        let project = Project::new();
        std::fs::create_dir_all(project.locks()).expect("a folder");
        let text = format!(
            r#"{{"lockId":"Z-1","storyId":"Z","filePath":"/z","acquiredAt":1,"timeout":1,"pid":1,
            "version":1,"token":{token},"boot":"over","holder":7}}"#
        );
        std::fs::write(project.record("z"), text).expect("a record");
        let caller = project.caller();
        let mut last = 0;
        for _ in 0..3 {
            let grant = caller.acquire(&project.file("a"), "A", LONG);
            let Ok(grant) = grant else {
                assert_eq!(code(&grant), "EBADRECORD", "{token}: {grant:?}");
                continue;
            };
            let next = grant.record.token;
            assert!(next > last, "{token}: {next} after {last}");
            // JavaScript counts no further.
            assert!(next < 1 << 53, "{token}: {next} is no number that JavaScript can tell apart");
            last = next;
            assert!(caller.let_go(&grant));
        }
    }
}

#[test]
fn a_guard_at_the_end_of_all_numbers_makes_no_token_fall() {
    // The sequence, the count of changes, and how many of them the view shows.
    for place in [8, 16, 24] {
        for value in [u64::MAX, u64::MAX - 1, 1 << 53] {
            let project = Project::new();
            project.caller().cleanup("nobody").expect("cleaned");
            let mut guard = std::fs::read(project.guard()).expect("a guard");
            guard[place..place + 8].copy_from_slice(&u64::to_le_bytes(value));
            std::fs::write(project.guard(), guard).expect("a guard");
            let caller = project.caller();
            let mut last = 0;
            for _ in 0..4 {
                let grant = caller.acquire(&project.file("a"), "A", LONG);
                let Ok(grant) = grant else {
                    assert_eq!(code(&grant), "EBADRECORD", "{value} at {place}: {grant:?}");
                    continue;
                };
                let next = grant.record.token;
                assert!(next > last && next < 1 << 53, "{value} at {place}: {next} after {last}");
                last = next;
                assert!(caller.let_go(&grant));
            }
        }
    }
}

#[test]
fn a_record_overwritten_by_hand_is_no_reason_to_spin() {
    let clock = clock();
    for (what, text) in [("rubbish", "half a rec".to_owned()), ("a longer lease", String::new())] {
        let project = Project::new();
        let mut desk = HandDesk::new(&project, &clock);
        let path = project.file("a");
        desk.call(Call::Acquire(set(&[&path], "A", Lease::Timed(1000)))).expect("free");
        if text.is_empty() {
            project.plant_old_record("a", "B", clock.wall_ms(), 600_000);
        } else {
            std::fs::write(project.record("a"), text).expect("overwritten");
        }
        clock.advance(1000);
        desk.tend();
        assert_eq!(desk.events(0).len(), 1, "{what}: the lease is over, and its holder is told");
        assert!(project.record("a").exists(), "{what}: what is there now is somebody else's");
        desk.assert_rests();
    }
}

#[test]
fn what_the_old_module_put_in_the_place_of_a_lock_is_left_alone() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let grants = mine.acquire_all(set(&project.files(&["a", "b", "c"]), "A", LONG)).expect("free");
    for name in ["a", "b", "c"] {
        // It knows no guard, and takes over what it holds for stale.
        project.plant_old_record(name, "B", SystemClock.wall_ms(), 600_000);
    }
    assert!(!mine.let_go(&grants[0]));
    assert_eq!(code(&mine.release(&project.file("b"), "A")), "ENOTACQUIRED");
    mine.cleanup("A").expect("cleaned");
    for name in ["a", "b", "c"] {
        let path = project.file(name);
        assert_eq!(theirs.holder(&path).as_deref(), Some("B"), "{name} is B's");
        assert_eq!(code(&mine.acquire(&path, "A", LONG)), "ELOCKED");
    }
}

#[test]
fn names_that_are_no_records_are_left_alone() {
    let project = Project::new();
    std::fs::create_dir_all(project.locks().join("holders")).expect("folders");
    let hex = "0123456789abcdef".repeat(4);
    let mine = [
        format!("{hex}.lock.bak"),
        format!("{}.lock", hex.to_uppercase()),
        format!("{}.lock", &hex[1..]),
        "notes.txt".to_owned(),
        "holders/notes.txt".to_owned(),
        "holders/-1".to_owned(),
    ];
    for name in &mine {
        std::fs::write(project.locks().join(name), "mine").expect("a file");
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xFF\xFE.lock");
    std::fs::write(project.locks().join(odd), "mine").expect("a name that is no text");
    let caller = project.caller();
    caller.acquire(&project.file("a"), "A", LONG).expect("free");
    assert_eq!(caller.status().locks.len(), 1);
    caller.cleanup("A").expect("cleaned");
    for name in &mine {
        assert!(project.locks().join(name).exists(), "{name} is somebody's");
    }
}

#[test]
fn a_path_with_more_missing_folders_than_any_has_is_no_danger() {
    let project = Project::new();
    let caller = project.caller();
    let deep = project.file(&"y/".repeat((4090 - project.root().as_os_str().len()) / 2));
    let grant = caller.acquire(&deep, "A", LONG).expect("free");
    assert!(caller.let_go(&grant));
}

#[test]
fn a_loop_of_links_is_refused_with_the_systems_own_code() {
    let project = Project::new();
    symlink("loop", project.file("loop")).expect("a link");
    let caller = project.caller();
    let refused = caller.acquire(&project.file("loop/x"), "A", LONG).expect_err("a loop");
    assert_eq!(refused.code.as_str(), "ELOOP", "{refused}");
    assert_eq!(refused.story.as_deref(), Some("A"));
    let mixed = project.files(&["a", "loop/x"]);
    assert_eq!(code(&caller.acquire_all(set(&mixed, "A", LONG))), "ELOOP");
    assert_eq!(caller.holder(&project.file("a")), None, "all or nothing");
}

#[test]
#[ignore = "no test: what this file's child process does"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    let engine = Engine::of(project.root()).expect("an engine");
    let caller = Caller::of(&engine);
    let refused = caller.acquire(&project.file("closed"), "A", LONG).expect_err("not readable");
    assert_eq!(refused.code.as_str(), "EACCES", "{refused}");
    assert!(refused.message.contains("Give this user write access"), "{refused}");
    assert!(refused.message.contains(".lock"), "it names the file: {refused}");
    assert_eq!(code(&caller.check(&project.file("closed"))), "EACCES");
    caller.acquire(&project.file("open"), "A", LONG).expect("other paths are free");
    let call = Call::Cleanup { story: story("A") };
    assert_eq!(caller.call(call), Ok(Reply::Cleaned(1)));
    let status = caller.status();
    assert_eq!(status.unreadable, [project.record("closed")], "{status:?}");
    role.say("gets along");
    role.hear();
    caller.acquire(&project.file("open"), "A", LONG).expect_err("the folder is closed");
    assert_eq!(code(&caller.acquire(&project.file("b"), "A", LONG)), "EACCES");
    role.say("refused");
}

#[test]
fn what_another_user_has_closed_is_refused_and_the_rest_goes_on() {
    let project = Project::new();
    std::fs::create_dir_all(project.locks()).expect("a folder");
    std::fs::write(project.record("closed"), "{}").expect("a file");
    let queue = project.locks().join("queue");
    std::fs::create_dir(&queue).expect("a folder");
    let queue_file = queue.join(common::key(&project.file("closed")).to_string());
    std::fs::write(&queue_file, "{}").expect("a file");
    let set_mode = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("permissions");
    };
    set_mode(&queue_file, 0o000);
    for folder in [".", ".ai", ".ai/locks", ".ai/locks/queue"] {
        set_mode(&project.root().join(folder), 0o777);
    }
    set_mode(&project.record("closed"), 0o000);
    let mut command = Child::command("", project.root(), "");
    if rustix::process::geteuid().is_root() {
        // Root may read everything: be nobody.
        command.uid(65534).gid(65534);
    }
    let mut child = Child::spawn(command);
    assert_eq!(child.hear(), "gets along");
    set_mode(&project.locks(), 0o555);
    child.say("go on");
    assert_eq!(child.hear(), "refused");
}
