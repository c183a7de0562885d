//! A disk that is full or read-only: nothing is granted that is not written, a set that fails midway is
//! taken back, what was held is held, and the error names path and remedy.
//!
//! A limit on the size of files, which any user can set, stands in for a disk that fills up in the middle
//! of a set. Where this process may mount, a small file system of its own is filled and made read-only.

#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::process::Command;

use common::child::{self, Child, Role};
use common::{Caller, FOLDER, LONG, Project, SHARED, code, kinds, set, until};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Longer than a short path's record, shorter than a long one's.
const LIMIT: u64 = 2048;

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    match role.name.as_str() {
        "limited" => midway(&project),
        "raising" => raising(&project),
        "full" => full(&project),
        "read-only" => read_only(&role, &project),
        name => unreachable!("no role {name}"),
    }
    role.say("as it must be");
}

/// A command that runs a role behind a line of shell.
fn behind_shell(mut before: Command, line: &str, role: &str, project: &Project) -> Command {
    let run = Child::command(role, project.root(), "");
    before.args(["sh", "-c", line]).arg(run.get_program()).args(run.get_args());
    before.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    before
}

fn limit_files(bytes: Option<u64>) {
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("a limit");
}

#[test]
fn a_set_that_cannot_be_written_to_its_end_is_taken_back() {
    let project = Project::new();
    // Else the signal that comes with the limit would end the process.
    let ignoring = "trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut child = Child::spawn(behind_shell(Command::new("env"), ignoring, "limited", &project));
    assert_eq!(child.hear(), "as it must be");
}

fn midway(project: &Project) {
    let caller = project.caller();
    rewind(project, &caller);
    let had = caller.acquire(&project.file("had"), "A", LONG).expect("free");
    let paths =
        [project.files(&["a", "b", "had"]), vec![project.file(&"d/".repeat(1200))]].concat();

    limit_files(Some(LIMIT));
    let failed = caller.acquire_all(set(&paths, "A", LONG)).expect_err("the last is too long");
    assert_eq!(failed.code.as_str(), "EFBIG", "{failed}");
    assert_eq!(failed.story.as_deref(), Some("A"));
    assert_eq!(project.records().len(), 1, "the others were taken back");
    assert_eq!(project.litter(), Vec::<String>::new());
    assert!(caller.verify(&had) && caller.events().is_empty(), "what it had it has");
    assert_eq!(project.viewed(), [project.file("had")], "and the view says so");

    let other = project.caller();
    other.acquire_all(set(&paths[..2], "B", LONG)).expect("free for anybody");
    assert_eq!(other.cleanup("B").expect("cleaned"), 2);

    limit_files(None);
    caller.acquire_all(set(&paths, "A", LONG)).expect("once there is room");
}

#[test]
fn a_set_that_cannot_be_raised_to_its_end_is_what_it_was() {
    let project = Project::new();
    let ignoring = "trap '' XFSZ; exec \"$0\" \"$@\"";
    let mut child = Child::spawn(behind_shell(Command::new("env"), ignoring, "raising", &project));
    assert_eq!(child.hear(), "as it must be");
}

fn raising(project: &Project) {
    let (caller, reader) = (project.caller(), project.caller());
    rewind(project, &caller);
    let (src, own, long) =
        (project.file("src"), project.file("own"), project.file(&"d/".repeat(1200)));
    let had = caller.take(&src, SHARED, "A").expect("free");
    let all = [(src.clone(), FOLDER), (own.clone(), SHARED), (long, SHARED)];

    limit_files(Some(LIMIT));
    let failed = caller.acquire_all(kinds(&all, "A", LONG)).expect_err("the last is too long");
    assert_eq!(failed.code.as_str(), "EFBIG", "{failed}");
    assert_eq!(project.records().len(), 1, "the others were taken back");
    assert!(caller.verify(&had) && caller.events().is_empty(), "what it had it has");
    let second = reader.take(&src, SHARED, "B").expect("it reads, and no more");
    reader.take(&project.file("src/x"), FOLDER, "B").expect("nobody has all below");

    // Nor does it end what others have who share the path.
    let refused = caller.acquire_all(kinds(&all, "A", LONG)).expect_err("B reads");
    assert_eq!(refused.code.as_str(), "ELOCKED", "{refused}");
    let failed = caller.acquire_all(kinds(&all[1..], "A", LONG)).expect_err("too long");
    assert_eq!(failed.code.as_str(), "EFBIG", "{failed}");
    assert!(caller.verify(&had) && reader.verify(&second));
    limit_files(None);
    reader.cleanup("B").expect("cleaned");
    caller.acquire_all(kinds(&all, "A", LONG)).expect("once there is room");
}

/// Makes changes until the guard's next notes stand at its beginning, below the limit.
fn rewind(project: &Project, caller: &Caller) {
    const RING: u64 = 2046;
    caller.cleanup("nobody").expect("cleaned");
    let guard = std::fs::read(project.guard()).expect("the guard");
    let changes = u64::from_le_bytes(guard[16..24].try_into().expect("eight bytes"));
    let left = (2 * RING - changes % RING) / 2;
    let paths: Vec<String> = (0..left).map(|number| project.file(&format!("p{number}"))).collect();
    if left > 0 {
        caller.acquire_all(set(&paths, "A", LONG)).expect("free");
        caller.cleanup("A").expect("cleaned");
        caller.events();
    }
}

/// Runs a role on a small file system of its own, if this process may mount one.
fn run_on_small_disk(role: &str) {
    let project = Project::new();
    let is_root = rustix::process::geteuid().is_root();
    let flags = if is_root { "--mount" } else { "--user --map-root-user --mount" };
    let root = project.root().display();
    let mount = format!("mount -t tmpfs -o size=256k,mode=0777 storylock {root}");
    let may_mount = Command::new("unshare")
        .args(flags.split(' '))
        .args(["sh", "-c", &mount])
        .output()
        .is_ok_and(|output| output.status.success());
    if !may_mount {
        common::say_skipped("no file system may be mounted here");
        return;
    }
    let mut shell = Command::new("unshare");
    shell.args(flags.split(' '));
    let shell = behind_shell(shell, &format!("{mount} && exec \"$0\" \"$@\""), role, &project);
    let mut child = Child::spawn(shell);
    assert_eq!(child.hear(), "as it must be");
}

#[test]
fn a_full_disk_grants_nothing_and_takes_nothing_away() {
    run_on_small_disk("full");
}

/// Fills the disk; answers with the file that does.
fn fill(project: &Project) -> String {
    let path = project.file("filler");
    let mut filler = std::fs::File::create(&path).expect("a file");
    while filler.write_all(&[7; 512]).is_ok() {}
    path
}

fn full(project: &Project) {
    let filler = fill(project);
    let caller = project.caller();
    let path = project.file("a");
    let first = caller.acquire(&path, "A", LONG).expect_err("no room for as much as the guard");
    assert_eq!(first.code.as_str(), "ENOSPC", "{first}");
    assert!(first.message.contains("Nothing was changed. Free some space"), "{first}");
    assert!(first.path.is_some());
    std::fs::remove_file(&filler).expect("removed");

    let had = caller.acquire(&path, "A", LONG).expect("once there is room");
    let filler = fill(project);
    let refused = caller.acquire_all(set(&project.files(&["b", "c"]), "A", LONG));
    assert_eq!(code(&refused), "ENOSPC", "{refused:?}");
    assert!(caller.verify(&had) && caller.events().is_empty(), "what it had it has");
    assert_eq!(project.litter(), Vec::<String>::new(), "no half file is left");
    assert_eq!(code(&caller.renew(&path, "A", None)), "ENOSPC", "a renewal needs room, too");
    assert!(caller.verify(&had), "and the lease goes on as it was");
    assert_eq!(caller.holder(&path).as_deref(), Some("A"));
    assert!(caller.let_go(&had), "to give up needs no room");
    assert_eq!(project.records().len(), 0);
    std::fs::remove_file(filler).expect("removed");
    caller.acquire_all(set(&project.files(&["b", "c"]), "A", LONG)).expect("goes on");
    until("the view is right again", || project.viewed() == project.files(&["b", "c"]));
    assert_eq!(caller.status().error, None);
}

#[test]
fn a_disk_made_read_only_grants_nothing_and_is_still_looked_at() {
    run_on_small_disk("read-only");
}

fn read_only(role: &Role, project: &Project) {
    let remount = |how: &str| {
        let done =
            Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&role.root).status();
        done.is_ok_and(|status| status.success())
    };
    let caller = project.caller();
    let path = project.file("a");
    let had = caller.acquire(&path, "A", LONG).expect("free");
    // An open guard would keep the file system writable: leave, and come again.
    let detach = storylock::Ask { detached: true, ..set(&[project.file("d")], "D", LONG) };
    caller.acquire_all(detach).expect("free");
    drop((caller, had));
    until("the engine has left", || project.holders().is_empty());
    until("the disk is read-only", || remount("ro"));

    let caller = project.caller();
    let refused = caller.acquire(&path, "A", LONG).expect_err("read-only");
    assert_eq!(refused.code.as_str(), "EROFS", "{refused}");
    assert!(refused.message.contains("Make that file system writable"), "{refused}");
    assert!(!refused.message.contains("remove"), "that would be no help: {refused}");
    assert_eq!(code(&caller.release(&project.file("d"), "D")), "EROFS");
    assert_eq!(caller.holder(&project.file("d")).as_deref(), Some("D"), "looking needs no writing");
    let status = caller.status();
    assert_eq!(status.locks.len(), 1, "{status:?}");

    assert!(remount("rw"), "writable again");
    caller.acquire(&path, "A", LONG).expect("goes on");
    goes_on(&caller, project);
}

fn goes_on(caller: &Caller, project: &Project) {
    caller.release(&project.file("d"), "D").expect("its story's");
    assert_eq!(project.viewed(), [project.file("a")]);
}
