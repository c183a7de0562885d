//! Nothing stays stuck: what a killed, stopped or robbed process leaves behind.
//!
//! Every claim about a process is made with a real one, killed by the kernel.

#![cfg(target_os = "linux")]

mod common;

use std::os::fd::BorrowedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::child::{self, Child, Role};
use common::{Caller, LONG, Project, code, set, until};
use storylock::guard::PATIENCE;
use storylock::record::Ended;
use storylock::{Ask, Lease, sys};

const SET: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    match role.name.as_str() {
        "holder" => {
            let caller = project.caller();
            caller.acquire(&project.file("bound"), "A", Lease::Bound).expect("free");
            caller.acquire(&project.file("timed"), "A", LONG).expect("free");
            role.say("holds");
            role.stay();
        }
        "detacher" => {
            let caller = project.caller();
            let ask = set(&project.files(&SET), "A", LONG);
            caller.acquire_all(Ask { detached: true, ..ask }).expect("free");
            caller.acquire(&project.file("bound"), "A", Lease::Bound).expect("free");
            role.say("holds");
            role.stay();
        }
        "worker" => work(&role, &project),
        "guardian" => {
            let guard = std::fs::File::open(project.guard()).expect("a guard");
            sys::lock(&guard).expect("the guard");
            role.say("holds");
            role.hear();
        }
        "parent" => {
            let caller = project.caller();
            caller.acquire(&project.file("bound"), "A", Lease::Bound).expect("free");
            let line = caller.client().life_line().expect("a life line");
            // SAFETY: the engine keeps its holder file open while the caller lives.
            let line = unsafe { BorrowedFd::borrow_raw(line) };
            let line = line.try_clone_to_owned().expect("a second descriptor of the same file");
            let mut heir = Command::new("cat");
            let mut heir = heir.stdin(Stdio::piped()).stdout(line).spawn().expect("cat");
            role.say(&heir.id().to_string());
            // The heir ends when this pipe does; this process is killed while it waits.
            let pipe = heir.stdin.take();
            heir.wait().expect("a child of its own");
            drop(pipe);
        }
        name => unreachable!("no role {name}"),
    }
}

/// Takes and gives up one set over and over, in every way, until it is killed.
fn work(role: &Role, project: &Project) {
    let caller = project.caller();
    let paths = project.files(&SET);
    let is_detached = role.argument == "detached";
    loop {
        let ask = Ask { detached: is_detached, ..set(&paths, "A", LONG) };
        let grants = caller.acquire_all(ask).expect("nobody else is there");
        caller.renew(&paths[3], "A", None).expect("its own");
        caller.let_go(&grants[1]);
        caller.release(&paths[2], "A").expect("its own");
        caller.cleanup("A").expect("its own");
        role.say("a turn");
    }
}

#[test]
fn a_killed_holders_locks_are_free_at_once_and_the_next_is_told_whose_they_were() {
    let project = Project::new();
    let mut holder = Child::start("holder", project.root(), "");
    assert_eq!(holder.hear(), "holds");
    let caller = project.caller();
    for name in ["bound", "timed"] {
        let refused = caller.acquire(&project.file(name), "B", LONG).expect_err("held");
        let theirs = &refused.holder.as_ref().expect("a holder").record;
        assert_eq!((theirs.story_id.as_str(), theirs.pid), ("A", holder.pid()));
    }
    let pid = holder.pid();
    holder.kill();
    assert!(caller.status().locks.iter().all(|lock| lock.is_stale), "the dead hold nothing");
    for name in ["bound", "timed"] {
        let path = project.file(name);
        assert_eq!(caller.holder(&path), None, "{name}: nobody living has it");
        let grant = caller.acquire(&path, "B", LONG).expect("free the moment its holder died");
        let reclaimed = grant.record.reclaimed.expect("the report of a predecessor that crashed");
        assert_eq!(reclaimed.how, Ended::Died);
        assert_eq!((reclaimed.story_id.as_str(), reclaimed.pid), ("A", pid));
        assert_ne!(reclaimed.lock_id, grant.record.lock_id);
    }
}

#[test]
fn a_detached_lock_outlives_its_process_and_a_bound_one_beside_it_does_not() {
    let project = Project::new();
    let mut detacher = Child::start("detacher", project.root(), "");
    assert_eq!(detacher.hear(), "holds");
    detacher.kill();
    let caller = project.caller();
    for path in project.files(&SET) {
        assert_eq!(code(&caller.acquire(&path, "B", LONG)), "ELOCKED", "{path} lives on");
    }
    caller.acquire(&project.file("bound"), "B", LONG).expect("died with its process");
    assert_eq!(caller.cleanup("A").expect("cleaned"), SET.len(), "and can be cleaned up");
}

/// Kills workers at moments that nobody chose, and looks at what is held then; whatever it is, the next
/// comer gets along with it.
fn kill_workers(argument: &str, is_right: impl Fn([bool; SET.len()]) -> bool) {
    let project = Project::new();
    let caller = project.caller();
    let paths = project.files(&SET);
    for round in 0..100 {
        let mut worker = Child::start("worker", project.root(), argument);
        for _ in 0..round % 4 {
            assert_eq!(worker.hear(), "a turn");
        }
        std::thread::sleep(Duration::from_micros(round * 7919 % 3000));
        worker.kill();
        let living = living(&caller);
        let held = SET.map(|name| living.contains(&project.file(name)));
        assert!(is_right(held), "round {round} left this: {held:?}");
        caller.cleanup("A").expect("cleaned");
        caller.acquire_all(set(&paths, "B", LONG)).expect("all free at once");
        assert_eq!(caller.cleanup("B").expect("cleaned"), SET.len());
        assert_eq!(project.records().len() + project.litter().len(), 0, "round {round} left some");
    }
}

fn living(caller: &Caller) -> Vec<String> {
    let living = caller.status().locks.into_iter().filter(|lock| !lock.is_stale);
    living.map(|lock| lock.holder.record.path_text()).collect()
}

#[test]
fn a_process_killed_at_any_moment_leaves_nothing_held() {
    kill_workers("bound", |held| held.iter().all(|held| !held));
}

#[test]
fn a_process_killed_while_it_detaches_a_set_leaves_all_of_it_or_nothing() {
    kill_workers("detached", |held| match held {
        // Not all granted yet: nothing is. Else the steps that follow in the worker's turn have begun:
        // b is let go, then c is released, then each of the others goes, in any order.
        [_, true, true, ..] => held.iter().all(|held| *held),
        [a, false, true, d, e, f] => a && d && e && f,
        [_, is_b, ..] => !is_b,
    });
}

#[test]
fn a_new_engine_sweeps_the_holder_files_of_the_dead() {
    let project = Project::new();
    for _ in 0..3 {
        let mut holder = Child::start("holder", project.root(), "");
        assert_eq!(holder.hear(), "holds");
        holder.kill();
        let caller = project.caller();
        assert_eq!(caller.cleanup("A").expect("cleaned"), 2);
    }
    project.caller().cleanup("nobody").expect("cleaned");
    assert_eq!(project.holders(), Vec::<String>::new(), "no file of a dead process stays");
}

#[test]
fn a_child_that_inherits_the_life_line_keeps_the_locks_of_a_killed_parent() {
    let project = Project::new();
    let caller = project.caller();
    let path = project.file("bound");
    let mut parent = Child::start("parent", project.root(), "");
    let heir = parent.hear();
    // The heir ends when the pipe to it does, which the parent has: so stop the heir first.
    let heir = rustix::process::Pid::from_raw(heir.parse().expect("a pid")).expect("a pid");
    let signal = |signal| rustix::process::kill_process(heir, signal).expect("a living heir");
    signal(rustix::process::Signal::STOP);
    parent.kill();
    assert_eq!(code(&caller.acquire(&path, "B", LONG)), "ELOCKED", "its heir still lives");
    signal(rustix::process::Signal::KILL);
    until("the heir is gone and the lock with it", || caller.acquire(&path, "B", LONG).is_ok());
}

#[test]
fn a_stopped_holder_of_the_guard_is_named_and_everything_goes_on_when_it_does() {
    let project = Project::new();
    let (caller, other) = (project.caller(), project.caller());
    let path = project.file("a");
    let grant = caller.acquire(&path, "A", LONG).expect("free");
    other.status();
    let mut guardian = Child::start("guardian", project.root(), "");
    assert_eq!(guardian.hear(), "holds");
    guardian.stop();

    let began = Instant::now();
    let refused = caller.acquire(&project.file("b"), "A", LONG).expect_err("the guard is taken");
    let waited = began.elapsed();
    assert_eq!(refused.code.as_str(), "EBUSY");
    assert!(waited >= PATIENCE && waited < 2 * PATIENCE, "it waited {waited:?}");
    let pid = guardian.pid();
    let hint = format!("kill -CONT {pid}");
    assert!(refused.message.contains(&format!("process {pid} has held the guard")), "{refused}");
    assert!(refused.message.contains(&hint), "{refused}");
    assert!(refused.message.contains("Nothing was granted."), "{refused}");
    assert_eq!(refused.path.as_deref(), Some(project.guard().as_path()));
    assert!(caller.verify(&grant), "what was held is held");

    let waiting = storylock::Call::Acquire(set(&[project.file("b")], "B", LONG));
    let waiting = other.submit(waiting);
    guardian.say("let go");
    guardian.go_on();
    other.answer(waiting).expect("granted as soon as the guard is free");
    assert!(began.elapsed() < 3 * PATIENCE, "not a wait later");
    caller.acquire(&project.file("c"), "A", LONG).expect("the first one goes on too");
    assert!(caller.events().is_empty(), "nothing was lost");
}

#[test]
fn a_killed_holder_of_the_guard_frees_it_at_once() {
    let project = Project::new();
    let caller = project.caller();
    caller.cleanup("nobody").expect("cleaned");
    let mut guardian = Child::start("guardian", project.root(), "");
    assert_eq!(guardian.hear(), "holds");
    let began = Instant::now();
    let waiting = caller.submit(storylock::Call::Acquire(set(&[project.file("a")], "A", LONG)));
    guardian.kill();
    caller.answer(waiting).expect("granted when the kernel freed the guard");
    assert!(began.elapsed() < PATIENCE, "nothing was broken by force");
}

#[test]
fn a_holder_file_removed_by_hand_takes_no_lock_and_is_made_anew() {
    let project = Project::new();
    let mine = project.caller();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Bound).expect("free");
    let file = project.locks().join("holders").join(grant.record.holder.to_string());
    std::fs::remove_file(&file).expect("the holder file");
    let theirs = project.caller();
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "its process lives");
    assert_eq!(theirs.holder(&path).as_deref(), Some("A"), "for those who look, too");
    until("the holder file is made anew", || file.exists());
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "told by the kernel again");
    assert!(mine.verify(&grant) && mine.events().is_empty(), "nothing was lost");
}

#[test]
fn without_a_holder_file_a_stopped_process_holds_and_a_dead_one_does_not() {
    let project = Project::new();
    let mut holder = Child::start("holder", project.root(), "");
    assert_eq!(holder.hear(), "holds");
    // Stopped, so that it cannot make its file anew.
    holder.stop();
    for id in project.holders() {
        std::fs::remove_file(project.locks().join("holders").join(id)).expect("a holder file");
    }
    let caller = project.caller();
    for name in ["bound", "timed"] {
        let answer = caller.acquire(&project.file(name), "B", LONG);
        assert_eq!(code(&answer), "ELOCKED", "a stopped process lives");
    }
    holder.kill();
    for name in ["bound", "timed"] {
        let grant = caller.acquire(&project.file(name), "B", LONG).expect("free");
        assert_eq!(grant.record.reclaimed.expect("a predecessor").how, Ended::Died);
    }
}

#[test]
fn an_engine_that_leaves_frees_its_locks_and_leaves_no_file_but_its_folders() {
    let project = Project::new();
    let caller = project.caller();
    caller.acquire_all(set(&project.files(&SET), "A", Lease::Bound)).expect("free");
    drop(caller);
    until("the engine has left", || project.records().is_empty() && project.holders().is_empty());
    assert_eq!(project.litter(), Vec::<String>::new());
    assert_eq!(project.viewed(), Vec::<String>::new(), "the view shows that nothing is held");
}
