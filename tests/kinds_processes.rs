//! Real processes, with engines, threads and bells of their own, that take locks of every kind in turn and
//! are killed in between: at no moment have two what one alone can have, and everybody goes on.
//!
//! Each writes into one file, by appending to it, what it has from now on and what it has no more. Read
//! from its beginning, that file must tell of no two in each other's way; who was killed is in nobody's.

#![cfg(target_os = "linux")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

use common::child::{self, Child, Role};
use common::{Caller, FOLDER, Project, SHARED, SHARED_FOLDER, kinds};
use storylock::call::Wait;
use storylock::store::Grant;
use storylock::{Ask, Kind, Lease, Mode};

const PLAIN: Kind = Kind { mode: Mode::Exclusive, recursive: false };
const KINDS: [Kind; 4] = [PLAIN, SHARED, FOLDER, SHARED_FOLDER];
const PATHS: [&str; 4] = ["src", "src/a", "src/a/x", "src/ab"];
const WORKERS: usize = 4;
/// How many turns a worker has.
const TURNS: u64 = 120;
/// How many are killed.
const KILLS: usize = 8;

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    let mut worker = Worker::new(&role);
    for turn in 0..TURNS {
        worker.take_turn();
        if turn % 10 == 0 {
            role.say("a turn");
        }
    }
    role.say("done");
    role.hear();
}

struct Worker {
    name: String,
    project: Project,
    caller: Caller,
    log: File,
    /// Of a chain of numbers without order.
    number: u64,
}

impl Worker {
    fn new(role: &Role) -> Worker {
        let project = Project::at(&role.root);
        let caller = project.caller();
        let log = File::options().append(true).open(project.file("log")).expect("a file");
        let name = role.argument.clone();
        let number = name.bytes().fold(0x9E37_79B9_7F4A_7C15, |sum: u64, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Worker { name, project, caller, log, number }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        self.number ^= self.number << 13;
        self.number ^= self.number >> 7;
        self.number ^= self.number << 17;
        of[(self.number % of.len() as u64) as usize]
    }

    /// One line in one write: what it has of a path from now on, before it has less or once it has more.
    fn tell(&mut self, path: &str, kind: Option<Kind>) {
        let kind = kind.map_or("nothing", |kind| match (kind.mode, kind.recursive) {
            (Mode::Exclusive, false) => "x",
            (Mode::Exclusive, true) => "X",
            (Mode::Shared, false) => "s",
            (Mode::Shared, true) => "S",
        });
        let line = format!("{} {path} {kind}\n", self.name);
        self.log.write_all(line.as_bytes()).expect("a line");
    }

    fn ask(&mut self, wants: &[(&str, Kind)]) -> Option<Vec<Grant>> {
        let paths: Vec<(String, Kind)> =
            wants.iter().map(|(path, kind)| (self.project.file(path), *kind)).collect();
        let ask = Ask { wait: Wait::Ever, ..kinds(&paths, &self.name, Lease::Bound) };
        match self.caller.acquire_all(ask) {
            Ok(grants) => Some(grants),
            Err(error) if error.code.as_str() == "EDEADLK" => None,
            Err(error) => unreachable!("{error}"),
        }
    }

    fn take_turn(&mut self) {
        let mut wants = vec![(self.pick(&PATHS), self.pick(&KINDS))];
        let other = (self.pick(&PATHS), self.pick(&KINDS));
        if other.0 != wants[0].0 && self.pick(&[true, false]) {
            wants.push(other);
        }
        let grants = self.ask(&wants).expect("who has nothing closes no circle");
        for (path, kind) in &wants {
            self.tell(path, Some(*kind));
        }
        std::thread::yield_now();
        let (path, kind) = wants[0];
        match self.pick(&[0, 1, 2]) {
            0 if kind.mode == Mode::Shared => {
                let more = Kind { mode: Mode::Exclusive, ..kind };
                if self.ask(&[(path, more)]).is_some() {
                    self.tell(path, Some(more));
                }
            }
            1 => {
                self.tell(path, Some(SHARED));
                self.caller.lower(&grants[0], SHARED).expect("its own");
            }
            _ => {}
        }
        std::thread::yield_now();
        for ((path, _), grant) in wants.iter().zip(&grants) {
            self.tell(path, None);
            assert!(self.caller.let_go(grant), "{path} was held until now");
        }
    }
}

#[test]
fn processes_that_take_turns_and_are_killed_never_have_what_another_has() {
    let project = Project::new();
    let log = project.file("log");
    File::create(&log).expect("a file");
    let start = |number: usize| {
        let name = format!("story-{number}");
        (Child::start("worker", project.root(), &name), name)
    };
    let mut workers: Vec<(Child, String)> = (0..WORKERS).map(start).collect();
    let mut killed = BTreeSet::new();
    for number in WORKERS..WORKERS + KILLS {
        let place = number % WORKERS;
        // In the midst of its work.
        assert_eq!(workers[place].0.hear(), "a turn");
        workers[place].0.kill();
        let (_, name) = std::mem::replace(&mut workers[place], start(number));
        killed.insert(name);
    }
    for (worker, name) in &mut workers {
        while worker.hear() != "done" {}
        assert!(!killed.contains(name));
    }
    let told = std::fs::read_to_string(&log).expect("what was told");
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() as u64 > TURNS * WORKERS as u64 * 2, "{} lines", lines.len());
    check(&lines, &killed);
    assert_eq!(project.litter(), [""; 0], "nothing is left behind");
}

/// Whether two have what one alone can have.
fn is_conflict(one: (&str, &str), other: (&str, &str)) -> bool {
    let is_folder = |kind: &str| matches!(kind, "X" | "S");
    let is_in = |path: &str, folder: &str| {
        path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    };
    let overlap = one.0 == other.0
        || (is_folder(one.1) && is_in(other.0, one.0))
        || (is_folder(other.1) && is_in(one.0, other.0));
    overlap && [one.1, other.1].iter().any(|kind| matches!(*kind, "x" | "X"))
}

fn check(lines: &[&str], killed: &BTreeSet<String>) {
    let words = |line: &&str| -> (String, String, String) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let [who, path, kind] = words.try_into().expect("three words");
        (who, path, kind)
    };
    let told: Vec<(String, String, String)> = lines.iter().map(words).collect();
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, (who, ..)) in told.iter().enumerate() {
        last.insert(who, place);
    }
    let mut has: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut together = 0;
    for (place, (who, path, kind)) in told.iter().enumerate() {
        has.remove(&(who.as_str(), path.as_str()));
        if kind == "nothing" {
            continue;
        }
        // Whoever was killed has nothing any more from some moment after its last words on.
        let is_dead = |other: &str| killed.contains(other) && last[other] < place;
        has.retain(|(other, at), theirs| {
            let is_in_the_way = other != who && is_conflict((path, kind), (at, theirs));
            assert!(
                !is_in_the_way || is_dead(other),
                "line {place}: {who} has {path} ({kind}) and {other} {at} ({theirs})"
            );
            !is_in_the_way
        });
        has.insert((who, path), kind);
        let others: BTreeSet<&str> = has.keys().map(|(who, _)| *who).collect();
        together = together.max(others.len());
    }
    assert!(together > 1, "nobody ever had anything beside another");
}
