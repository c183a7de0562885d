//! One holder: never two living stories on one path, whoever races for it.
//!
//! The races are run by real processes that start each round at the same microsecond, by engines that
//! stand for two copies of the package in one process, and by threads that share an engine.

#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::child::{self, Child, Role};
use common::{Caller, LONG, Project, code, key, only, set};
use storylock::record::Ended;
use storylock::{Clock, Engine, Lease, SystemClock};

/// How many processes race.
const RACERS: usize = 4;
/// How many rounds a race has.
const ROUNDS: usize = 300;
/// The time between two rounds, in µs.
const PERIOD_US: u64 = 4000;

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    match role.name.as_str() {
        "racer" => race(&role),
        "holder" => hold(&role),
        "writer" => write(&role),
        name => unreachable!("no role {name}"),
    }
}

/// Tries for one path a round and tells how it went.
fn race(role: &Role) {
    let project = Project::at(&role.root);
    let caller = project.caller();
    // The first call opens the folder; the rounds are about the race alone.
    caller.status();
    let _ = caller.cleanup("nobody");
    role.say("ready");
    let start: u64 = role.hear().parse().expect("a time");
    for round in 0..ROUNDS as u64 {
        let path = project.file(&format!("round-{round}"));
        while SystemClock.monotonic_us() < start + round * PERIOD_US {
            std::thread::yield_now();
        }
        role.say(&match caller.acquire(&path, &role.argument, Lease::Bound) {
            Ok(grant) => {
                let how = grant.record.reclaimed.map_or("free", |reclaimed| reclaimed.how.as_str());
                format!("won {} {how}", grant.record.token)
            }
            Err(error) if error.code.as_str() == "ELOCKED" => {
                format!("lost {}", error.holder.as_ref().expect("a holder").record.story_id)
            }
            Err(error) => format!("failed {error}"),
        });
    }
    role.hear();
}

/// Takes the locks of all rounds and never gives them up.
fn hold(role: &Role) {
    let project = Project::at(&role.root);
    let caller = project.caller();
    let paths: Vec<String> =
        (0..ROUNDS).map(|round| project.file(&format!("round-{round}"))).collect();
    caller.acquire_all(set(&paths, "the-dead", Lease::Bound)).expect("free paths");
    role.say("holds");
    role.stay();
}

/// Runs a race and answers how each winner came by its lock.
fn run_race(project: &Project) -> Vec<String> {
    let start = |number| Child::start("racer", project.root(), &format!("story-{number}"));
    let mut racers: Vec<Child> = (0..RACERS).map(start).collect();
    racers.iter_mut().for_each(|racer| assert_eq!(racer.hear(), "ready"));
    let start = SystemClock.monotonic_us() + 5 * PERIOD_US;
    racers.iter_mut().for_each(|racer| racer.say(&start.to_string()));
    let mut last_token = 0;
    let mut ways = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let said: Vec<String> = racers.iter_mut().map(Child::hear).collect();
        let won = |said: &&String| said.starts_with("won ");
        assert_eq!(said.iter().filter(won).count(), 1, "round {round} has one winner: {said:?}");
        let winner = said.iter().position(|said| said.starts_with("won ")).expect("counted");
        for (number, said) in said.iter().enumerate().filter(|(number, _)| *number != winner) {
            let right = format!("lost story-{winner}");
            assert_eq!(*said, right, "the refusal of story-{number} names the winner");
        }
        let mut words = said[winner].split(' ').skip(1);
        let token: u64 = words.next().and_then(|token| token.parse().ok()).expect("a token");
        assert!(token > last_token, "tokens rise across processes: {token} after {last_token}");
        last_token = token;
        ways.push(words.next().expect("how").to_owned());
    }
    ways
}

#[test]
fn of_processes_that_race_for_a_free_path_exactly_one_wins() {
    let project = Project::new();
    assert!(run_race(&project).iter().all(|how| how == "free"));
}

#[test]
fn of_processes_that_race_for_the_path_of_a_killed_one_exactly_one_wins() {
    let project = Project::new();
    let mut holder = Child::start("holder", project.root(), "");
    assert_eq!(holder.hear(), "holds");
    holder.kill();
    let ways = run_race(&project);
    assert!(
        ways.iter().all(|how| how == Ended::Died.as_str()),
        "each was the dead one's: {ways:?}"
    );
}

#[test]
fn of_processes_that_race_for_a_path_whose_lease_just_ends_exactly_one_wins() {
    let project = Project::new();
    // Records of the old module, each of which ends at about the time of its round.
    let now = SystemClock.wall_ms();
    for round in 0..ROUNDS as u64 {
        let name = format!("round-{round}");
        project.plant_old_record(&name, "the-late", now, 1 + round * PERIOD_US / 1000);
    }
    run_race(&project);
}

/// Takes one path over and over and checks in the file behind it that nobody else is in.
fn write(role: &Role) {
    let project = Project::at(&role.root);
    let caller = project.caller();
    let path = project.file("counted");
    role.say("ready");
    role.hear();
    let end = std::time::Instant::now() + Duration::from_millis(700);
    let mut edits = 0;
    while std::time::Instant::now() < end {
        let Ok(grant) = caller.acquire(&path, &role.argument, LONG) else { continue };
        edit(Path::new(&path), grant.record.token);
        edits += 1;
        assert!(caller.let_go(&grant), "a lock that was held is there to let go of");
    }
    role.say(&edits.to_string());
}

/// Reads the last token and count, and writes the next: an edit that a second holder would tear.
fn edit(path: &Path, token: u64) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| "0 0".to_owned());
    let (last, count) = text.split_once(' ').expect("a token and a count");
    let last: u64 = last.parse().expect("a token");
    let count: u64 = count.parse().expect("a count");
    assert!(last < token, "the file was written under token {last}, and now under {token}");
    std::thread::yield_now();
    std::fs::write(path, format!("{token} {}", count + 1)).expect("an edit");
}

#[test]
fn no_edit_is_lost_between_processes_that_take_turns_at_one_file() {
    let project = Project::new();
    let start = |number| Child::start("writer", project.root(), &format!("story-{number}"));
    let mut writers: Vec<Child> = (0..RACERS).map(start).collect();
    writers.iter_mut().for_each(|writer| assert_eq!(writer.hear(), "ready"));
    writers.iter_mut().for_each(|writer| writer.say("go"));
    let edits: u64 =
        writers.iter_mut().map(|writer| writer.hear().parse::<u64>().expect("a count")).sum();
    let text = std::fs::read_to_string(project.file("counted")).expect("the edited file");
    let (_, count) = text.split_once(' ').expect("a token and a count");
    assert_eq!(count, edits.to_string(), "every edit made is in the file");
    assert!(edits > RACERS as u64, "the race was one: {edits} edits");
}

/// Lets callers race in threads of this process.
fn race_in_threads(project: &Project, callers: Vec<Caller>) {
    let line = Barrier::new(callers.len());
    let (line, project) = (&line, &project);
    let answers: Vec<Vec<&'static str>> = std::thread::scope(|threads| {
        let run = |(number, caller): (usize, Caller)| {
            threads.spawn(move || {
                let story = format!("story-{number}");
                let enter = |round| {
                    let path = project.file(&format!("round-{round}"));
                    line.wait();
                    code(&caller.acquire(&path, &story, LONG))
                };
                let answers = (0..ROUNDS).map(enter).collect();
                // Nobody leaves, and frees its locks, before the race is over.
                line.wait();
                answers
            })
        };
        let threads: Vec<_> = callers.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("a whole race")).collect()
    });
    for round in 0..ROUNDS {
        let mut codes: Vec<&str> = answers.iter().map(|answers| answers[round]).collect();
        codes.sort_unstable();
        let mut right = vec!["ELOCKED"; codes.len() - 1];
        right.push("no error");
        assert_eq!(codes, right, "round {round} has one winner, and the others are told");
    }
}

#[test]
fn two_copies_of_the_package_in_one_process_exclude_each_other() {
    let project = Project::new();
    let callers = vec![project.caller(), project.caller(), project.caller()];
    race_in_threads(&project, callers);
}

#[test]
fn threads_that_share_an_engine_exclude_each_other() {
    let project = Project::new();
    let engine = project.engine();
    let callers = (0..4).map(|_| Caller::of(&engine)).collect();
    race_in_threads(&project, callers);
}

#[test]
fn every_spelling_of_a_path_is_one_lock() {
    let project = Project::new();
    std::fs::create_dir(project.file("src")).expect("a folder");
    std::os::unix::fs::symlink("src", project.file("link")).expect("a link");
    let (mine, theirs) = (project.caller(), project.caller());
    mine.acquire(&project.file("link/app.js"), "A", LONG).expect("free");
    for spelling in ["src/app.js", "src/./x/../app.js", "link/app.js", "link//app.js"] {
        let path = format!("{}/{spelling}", project.root().display());
        let answer = theirs.acquire(&path, "B", LONG);
        assert_eq!(code(&answer), "ELOCKED", "{spelling} is the path that A holds: {answer:?}");
        let again = mine.acquire(&path, "A", LONG).expect("its own");
        assert!(!again.is_fresh, "{spelling} is the lock that A has already");
    }
    mine.release(&project.file("src/app.js"), "A").expect("released");
    theirs.acquire(&project.file("link/app.js"), "B", LONG).expect("free by every spelling");
}

#[test]
fn a_link_laid_while_its_target_is_locked_leads_to_the_same_lock() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    mine.acquire(&project.file("new.js"), "A", LONG).expect("free");
    std::os::unix::fs::symlink("new.js", project.file("later.js")).expect("a dangling link");
    assert_eq!(code(&theirs.acquire(&project.file("later.js"), "B", LONG)), "ELOCKED");
    assert_eq!(theirs.holder(&project.file("later.js")).as_deref(), Some("A"));
}

#[test]
fn two_spellings_of_a_root_share_one_engine() {
    let project = Project::new();
    let elsewhere = Project::new();
    std::os::unix::fs::symlink(project.root(), elsewhere.file("link")).expect("a link");
    let engine = Engine::of(project.root()).expect("an engine");
    let same = Engine::of(Path::new(&elsewhere.file("link"))).expect("an engine");
    assert!(Arc::ptr_eq(&engine, &same), "one project has one engine in a process");
    let other = Engine::of(elsewhere.root()).expect("an engine");
    assert!(!Arc::ptr_eq(&engine, &other));
}

#[test]
fn the_same_story_has_the_same_lock_in_every_process() {
    let project = Project::new();
    let path = project.file("a");
    let (one, other) = (project.caller(), project.caller());
    let first = one.acquire(&path, "A", LONG).expect("free");
    let again = other.acquire(&path, "A", Lease::Timed(1)).expect("its own");
    assert!(first.is_fresh && !again.is_fresh);
    assert_eq!(again.record.lock_id, first.record.lock_id);
    assert_eq!(again.record, first.record, "asking again does not change the lease");
    assert!(first.record.lock_id.starts_with("A"), "a lock id starts with its story");
}

#[test]
fn a_refusal_says_who_holds_and_what_to_do() {
    let project = Project::new();
    let path = project.file("a");
    let (mine, theirs) = (project.caller(), project.caller());
    let ask = storylock::Ask { reason: Some("a fix".to_owned()), ..set(&[&path], "A", LONG) };
    let held = only(mine.acquire_all(ask).expect("free"));
    let refused = theirs.acquire(&path, "B", LONG).expect_err("held");
    let pid = std::process::id();
    for part in [
        format!("{path} is locked by A (pid {pid} on this host, held for "),
        "lease ends in ".to_owned(),
        "reason: a fix".to_owned(),
        "Nothing was taken.".to_owned(),
        format!("storylock check {path}"),
    ] {
        assert!(refused.message.contains(&part), "{part:?} is missing: {}", refused.message);
    }
    assert!(refused.is_conflict());
    assert_eq!(refused.path.as_deref(), Some(Path::new(&path)));
    assert_eq!(refused.story.as_deref(), Some("B"));
    assert_eq!(refused.holder.as_ref().expect("a holder").record, held.record);
    assert_eq!(key(&path), held.key);
}

#[test]
fn tokens_rise_with_every_grant_whatever_ends_the_one_before() {
    let project = Project::new();
    let path = project.file("a");
    let (one, other) = (project.caller(), project.caller());
    let mut last = 0;
    for round in 0..50 {
        let caller = if round % 2 == 0 { &one } else { &other };
        let grant = caller.acquire(&path, "A", LONG).expect("free");
        assert!(grant.record.token > last, "{} after {last}", grant.record.token);
        last = grant.record.token;
        match round % 3 {
            0 => drop(caller.let_go(&grant)),
            1 => drop(caller.release(&path, "A").expect("released")),
            _ => assert_eq!(caller.cleanup("A").expect("cleaned"), 1),
        }
    }
}
