//! Waiting in turn: who is served when, and what a kill or a hostile hand in between may cost.

mod common;
#[path = "common/lines.rs"]
mod lines;

use std::sync::Arc;

use lines::{Counter, Process, queue_file};
use storylock::call::{Ask, Call, Wait};
use storylock::store::{Done, Step};
use storylock::{Lease, ManualClock, Reply};

use common::{Project, code, set, story, target};

fn bench(count: usize) -> (Project, Arc<ManualClock>, Vec<Process>) {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let processes = (0..count).map(|_| Process::new(&project, &clock)).collect();
    (project, clock, processes)
}

fn wait_for(paths: &[String], story_id: &str) -> Call {
    Call::Acquire(Ask { wait: Wait::Ever, ..set(paths, story_id, Lease::Bound) })
}

fn take(paths: &[String], story_id: &str) -> Call {
    Call::Acquire(set(paths, story_id, Lease::Bound))
}

fn release(path: &str, story_id: &str) -> Call {
    Call::Release { target: target(path), story: story(story_id) }
}

#[test]
fn a_call_that_lines_up_and_gets_its_turn_in_one_batch_is_answered() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut counter = Counter::new(&project, &clock);
    let x = project.file("x");
    counter.call(0, take(std::slice::from_ref(&x), "A"));
    let tickets =
        counter.batch(vec![(1, wait_for(std::slice::from_ref(&x), "B")), (0, release(&x, "A"))]);
    counter.tend();
    assert!(counter.has_locks(1, tickets[0]), "{:?}", counter.answer(1, tickets[0]));
}

#[test]
fn two_waiters_of_one_story_are_served_together() {
    let (project, _, mut all) = bench(3);
    let x = [project.file("x")];
    all[0].take(&x, "A");
    let first = all[1].line_up(&x, "S");
    let second = all[2].line_up(&x, "S");
    all[0].release(&x[0], "A");
    assert!(all[1].has_turn(first));
    assert!(all[2].has_turn(second), "its story has it");
}

#[test]
fn a_waiter_of_a_story_that_got_it_with_a_set_is_served_too() {
    let (project, _, mut all) = bench(4);
    let (x, xy) = ([project.file("x")], project.files(&["x", "y"]));
    all[0].take(&xy, "A");
    let set = all[1].line_up(&xy, "S");
    let single = all[2].line_up(&x, "S");
    assert_eq!(all[0].cleanup("A"), 2);
    assert!(all[1].has_turn(set));
    assert!(all[2].has_turn(single), "its story has it");
}

#[test]
fn what_a_killed_granter_left_in_a_queue_is_no_waiter_for_ever() {
    let (project, _, mut all) = bench(3);
    let x = [project.file("x")];
    all[0].take(&x, "A");
    let id = all[1].line_up(&x, "W");
    let queue = std::fs::read(queue_file(&project, "x")).expect("a queue");
    all[0].release(&x[0], "A");
    // As if the granter had been killed between the record and the queue.
    std::fs::write(queue_file(&project, "x"), queue).expect("a queue put back");
    assert!(all[1].has_turn(id));
    all[1].release(&x[0], "W");
    let taken = all[2].try_take(&x, "B");
    assert!(matches!(taken, Ok(Done::Granted(_))), "{taken:?}");
}

#[test]
fn a_set_half_given_by_a_killed_granter_is_completed_though_part_was_its_own() {
    let (project, _, mut all) = bench(3);
    let (x, xy) = (project.file("x"), project.files(&["x", "y"]));
    all[1].take(std::slice::from_ref(&x), "W");
    all[0].take(&xy[1..], "A");
    let id = all[1].line_up(&xy, "W");
    let queue = std::fs::read(queue_file(&project, "x")).expect("a queue");
    all[0].release(&xy[1], "A");
    std::fs::write(queue_file(&project, "x"), queue).expect("a queue put back");
    for _ in 0..3 {
        all[1].tend();
        all[2].tend();
    }
    assert!(all[1].has_turn(id), "{:?}", all[1].status().waiting);
}

#[test]
fn a_queue_that_cannot_be_written_stops_nobody() {
    a_turn_past_an_unwritable_queue(&[]);
}

#[test]
fn a_queue_that_cannot_be_written_of_a_path_that_the_story_has_stops_nobody() {
    a_turn_past_an_unwritable_queue(&["y"]);
}

/// S waits for x and y, of which it has some already; its place at y cannot be taken out.
fn a_turn_past_an_unwritable_queue(had: &[&str]) {
    let (project, _, mut all) = bench(2);
    let (x, xy) = (project.file("x"), project.files(&["x", "y"]));
    if !had.is_empty() {
        all[1].take(&project.files(had), "S");
    }
    let free: Vec<String> =
        xy.iter().filter(|path| !project.files(had).contains(path)).cloned().collect();
    let holder = all[0].take(&free, "A");
    let one = all[0].line_up(&xy, "S");
    let two = all[0].line_up(std::slice::from_ref(&x), "T");
    all[1].take(&[project.file("z")], "Z");
    all[0].line_up(&project.files(&["x", "z"]), "U");
    // S alone waits for y: its queue is to be removed, which the folder in its place does not let.
    let file = queue_file(&project, "y");
    std::fs::remove_file(&file).expect("a queue");
    std::fs::create_dir_all(file.join("in the way")).expect("a folder instead");
    let mut process = all.remove(0);
    let (done, is_done) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        process.let_go(&holder);
        done.send((process.has_turn(one), process.has_turn(two))).expect("heard");
    });
    let turns = is_done.recv_timeout(std::time::Duration::from_secs(5));
    assert_eq!(turns.ok(), Some((true, false)), "served, and not round and round for ever");
    worker.join().expect("no panic");
}

#[test]
fn a_place_that_was_freed_is_no_reason_to_pass() {
    // S waits for both of A's paths; A, who wants them again with a third, gives them up.
    let (project, _, mut all) = bench(3);
    let (one, two) = (project.file("k1"), project.file("k2"));
    all[0].take(&project.files(&["k1", "k2"]), "A");
    all[2].take(&[project.file("m")], "M");
    let first = all[1].line_up(std::slice::from_ref(&one), "S");
    let second = all[1].line_up(std::slice::from_ref(&two), "S");
    all[0].line_up(&project.files(&["k1", "k2", "m"]), "A");
    assert_eq!(all[0].cleanup("A"), 2);
    // One look at what was handed over, no slow search for what was left lying.
    assert_eq!(all[1].holder(&one).as_deref(), Some("S"), "{:?}", all[1].status().waiting);
    assert_eq!(all[1].holder(&two).as_deref(), Some("S"));
    assert!(all[1].has_turn(first) && all[1].has_turn(second));
}

#[test]
fn the_releaser_does_not_overtake_by_the_lock_that_it_gives_up() {
    let (project, _, mut all) = bench(3);
    let both = project.files(&["k1", "k2"]);
    let m = project.file("m");
    all[0].take(&both, "A");
    all[2].take(std::slice::from_ref(&m), "M");
    all[1].line_up(&both[..1], "S");
    all[1].line_up(&both[1..], "S");
    let mut three = both.clone();
    three.push(m.clone());
    all[0].line_up(&three, "A");
    all[2].release(&m, "M");
    // A has all three again through what it had; now it gives two of them up.
    assert_eq!(all[0].holder(&m).as_deref(), Some("A"));
    all[0].cleanup("A");
    assert_eq!(all[1].holder(&both[0]).as_deref(), Some("S"));
    assert_eq!(all[1].holder(&both[1]).as_deref(), Some("S"));
}

#[test]
fn a_closed_client_whose_place_was_lost_with_the_folder_gets_nothing() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut counter = Counter::new(&project, &clock);
    let x = [project.file("x")];
    counter.call(0, take(&x, "A"));
    let waits = counter.call(1, wait_for(&x, "B"));
    std::fs::remove_dir_all(project.locks()).expect("removed");
    counter.call(1, Call::Close);
    for _ in 0..3 {
        counter.tend();
    }
    let status = Process::new(&project, &clock).status();
    assert!(status.locks.is_empty(), "held by nobody who knows: {:?}", status.locks);
    assert!(matches!(counter.answer(1, waits), Some(Err(_))), "a closed client's call is refused");
}

#[test]
fn a_call_is_called_off_though_its_place_was_lost_with_the_folder() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut counter = Counter::new(&project, &clock);
    let mut other = Process::new(&project, &clock);
    let x = [project.file("x")];
    counter.call(0, take(&x, "A"));
    let waits = counter.call(1, wait_for(&x, "B"));
    std::fs::remove_dir_all(project.locks()).expect("removed");
    other.take(&x, "C");
    counter.batch(vec![(1, Call::Cancel { ticket: waits })]);
    for _ in 0..3 {
        counter.tend();
    }
    let answer = counter.answer(1, waits).expect("answered");
    assert_eq!(code(&answer), "ABORT_ERR");
    other.release(&x[0], "C");
    counter.tend();
    assert_eq!(other.holder(&x[0]), None);
}

#[test]
fn the_dead_fill_no_queue() {
    let (project, _, mut all) = bench(3);
    let x = [project.file("x")];
    all[0].take(&x, "A");
    for number in 0..3 {
        all[1].line_up(&x, &format!("D{number}"));
    }
    drop(all.remove(1));
    let ask = storylock::store::Acquire { queue: Some(3), ..lines::once(&x, "B") };
    let answer = all[1].run(Step::Acquire(ask));
    assert!(matches!(answer, Ok(Done::Queued(_))), "{answer:?}");
}

#[test]
fn a_full_queue_says_so() {
    let (project, _, mut all) = bench(2);
    let x = [project.file("x")];
    all[0].take(&x, "A");
    all[1].line_up(&x, "B");
    all[1].line_up(&x, "C");
    let ask = storylock::store::Acquire { queue: Some(2), ..lines::once(&x, "D") };
    let answer = all[1].run(Step::Acquire(ask));
    assert_eq!(code(&answer), "EQUEUEFULL");
    assert_eq!(answer.expect_err("full").line.waiters, 2);
    assert_eq!(all[1].line(&x[0]), ["B", "C"]);
}

#[test]
fn the_dead_are_skipped_though_the_folder_of_holders_was_removed() {
    let (project, _, mut all) = bench(4);
    let (xy, x) = (project.files(&["x", "y"]), project.file("x"));
    all[0].take(&xy[1..], "Y");
    all[1].take(std::slice::from_ref(&x), "X");
    let waiting = all[2].line_up(&xy, "D");
    let behind = all[3].line_up(std::slice::from_ref(&x), "B");
    std::fs::remove_dir_all(project.locks().join("holders")).expect("removed");
    all[0].tend();
    all[1].tend();
    all[3].tend();
    assert!(!all[2].turns.contains_key(&waiting));
    // In one process all have one pid: to look dead, its waiter must name another.
    let queue = queue_file(&project, "x");
    let text = std::fs::read_to_string(&queue).expect("a queue");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for waiter in json["waiters"].as_array_mut().expect("waiters") {
        if waiter["storyId"] == "D" {
            waiter["pid"] = serde_json::json!(4_194_304_u32);
            waiter["process"]["started"] = serde_json::json!(1);
        }
    }
    std::fs::write(&queue, json.to_string()).expect("written");
    drop(all.remove(2));
    all[1].release(&x, "X");
    for _ in 0..3 {
        all[2].tend();
    }
    assert!(all[2].has_turn(behind), "it stands behind the dead: {:?}", all[2].status().waiting);
}

#[test]
fn a_queue_removed_by_hand_costs_the_places_and_nothing_else() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut counter = Counter::new(&project, &clock);
    let mut other = Process::new(&project, &clock);
    let x = [project.file("x")];
    other.take(&x, "A");
    let waits = counter.call(0, wait_for(&x, "B"));
    for text in [None, Some("{ half a que")] {
        match text {
            None => std::fs::remove_file(queue_file(&project, "x")).expect("a queue"),
            Some(text) => std::fs::write(queue_file(&project, "x"), text).expect("a queue"),
        }
        // Somebody touches the path, so that all look again.
        let answer =
            other.run(Step::Renew { path: lines::located(&x[0]), story: story("A"), lease: None });
        assert!(answer.is_ok());
        counter.tend();
        counter.tend();
        assert_eq!(other.line(&x[0]), ["B"], "it stands in line again");
    }
    other.release(&x[0], "A");
    counter.tend();
    assert!(counter.has_locks(0, waits));
}

#[test]
fn a_hostile_queue_file_freezes_nobody() {
    let (project, _, mut all) = bench(2);
    let (x, xy) = (project.file("x"), project.files(&["x", "y"]));
    all[0].take(&xy, "A");
    all[0].line_up(&xy, "S");
    // A waiter of x who wants something else.
    let queue = queue_file(&project, "x");
    let text = std::fs::read_to_string(&queue).expect("a queue");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut foreign = json["waiters"][0].clone();
    foreign["id"] = serde_json::json!(1);
    foreign["storyId"] = serde_json::json!("H");
    foreign["set"] = serde_json::json!([common::key(&project.file("z")).to_string()]);
    json["waiters"].as_array_mut().expect("waiters").push(foreign);
    std::fs::write(&queue, json.to_string()).expect("written");
    let mut process = all.remove(1);
    let (done, is_done) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        process.release(&x, "A");
        process.release(&xy[1], "A");
        done.send(()).expect("heard");
    });
    is_done.recv_timeout(std::time::Duration::from_secs(5)).expect("it goes round for ever");
    worker.join().expect("no panic");
}

#[test]
fn nobody_waits_for_an_answer_that_was_dropped() {
    // A turn that came for a call answered otherwise passes on, and whoever it passes to is told.
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let (root, files_clock) = (project.root().to_owned(), Arc::clone(&clock));
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fail = Arc::clone(&fails);
    let make = move || -> Box<dyn storylock::Store> {
        let clock = Arc::clone(&files_clock) as Arc<dyn storylock::Clock>;
        let files = storylock::files::Files::new(&root, clock);
        Box::new(Failing { files, fail: Arc::clone(&fail) })
    };
    let mut counter = Counter::over(Box::new(make), &clock);
    let mut other = Process::new(&project, &clock);
    let x = [project.file("x")];
    other.take(&x, "A");
    let impatient = Ask { wait: Wait::For(100), ..set(&x, "B", Lease::Bound) };
    let impatient = counter.call(0, Call::Acquire(impatient));
    let patient = counter.call(1, wait_for(&x, "C"));
    clock.advance(200);
    fails.store(true, std::sync::atomic::Ordering::SeqCst);
    counter.tend();
    fails.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(counter.answer(0, impatient), Some(Err(_))));
    other.release(&x[0], "A");
    for _ in 0..3 {
        counter.tend();
    }
    assert!(counter.has_locks(1, patient), "held by {:?}", other.holder(&x[0]));
}

/// A store whose guard cannot be had for a while.
struct Failing {
    files: storylock::files::Files,
    fail: Arc<std::sync::atomic::AtomicBool>,
}

impl storylock::Store for Failing {
    fn run(&mut self, steps: &[Step]) -> storylock::store::Round {
        if self.fail.load(std::sync::atomic::Ordering::SeqCst) {
            let error =
                storylock::Error::new(storylock::Code::System("EBUSY"), "The guard is held.");
            let answers = steps.iter().map(|_| Err(error.clone())).collect();
            return storylock::store::Round { answers, ..Default::default() };
        }
        self.files.run(steps)
    }

    fn tend(&mut self) -> storylock::store::Round {
        self.files.tend()
    }

    fn tend_in(&self) -> Option<std::time::Duration> {
        self.files.tend_in()
    }

    fn is_ours(&self, record: &storylock::record::Record) -> bool {
        self.files.is_ours(record)
    }

    fn begin_change(
        &mut self,
        grants: &[(storylock::Key, u64)],
    ) -> (Result<storylock::store::Workshop, storylock::Error>, storylock::store::Round) {
        self.files.begin_change(grants)
    }

    fn keep_history(&mut self, limits: Option<storylock::history::Limits>) {
        self.files.keep_history(limits);
    }

    fn forced(&self, key: &storylock::Key, token: u64) -> Option<storylock::error::Forced> {
        self.files.forced(key, token)
    }

    fn handed_on(&self, key: &storylock::Key, token: u64) -> bool {
        self.files.handed_on(key, token)
    }

    fn session(&self) -> Option<storylock::record::HolderId> {
        self.files.session()
    }

    fn writer(&self, key: &storylock::Key) -> Option<storylock::error::Writer> {
        self.files.writer(key)
    }

    fn known(&self, key: &storylock::Key) -> &[storylock::record::Record] {
        self.files.known(key)
    }

    fn check(
        &self,
        path: &storylock::key::Located,
    ) -> Result<Vec<storylock::holder::Holder>, storylock::Error> {
        self.files.check(path)
    }

    fn verify(&self, key: &storylock::Key, token: u64) -> Result<bool, storylock::Error> {
        self.files.verify(key, token)
    }

    fn status(&self) -> storylock::store::Status {
        self.files.status()
    }

    fn on_wake(&mut self, wake: storylock::store::Wake) {
        self.files.on_wake(wake);
    }

    fn life_line(&self) -> Option<&std::fs::File> {
        self.files.life_line()
    }

    fn leave(&mut self) {
        self.files.leave();
    }
}

#[test]
fn the_answer_is_not_a_reply_of_another_kind() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut counter = Counter::new(&project, &clock);
    let x = [project.file("x")];
    let first = counter.call(0, take(&x, "A"));
    let waits = counter.call(1, wait_for(&x, "B"));
    counter.batch(vec![(0, release(&x[0], "A")), (1, Call::Cancel { ticket: waits })]);
    counter.tend();
    assert!(counter.has_locks(0, first));
    let outcome = counter.answer(1, waits).expect("answered once");
    // Whichever came first, what is told is what is so.
    let holder = Process::new(&project, &clock).holder(&x[0]);
    match outcome {
        Ok(Reply::Locks(_)) => assert_eq!(holder.as_deref(), Some("B")),
        _ => assert_eq!(holder, None),
    }
}
