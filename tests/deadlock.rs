//! Deadlock: exactly the request that would close a circle is refused.

mod common;
#[path = "common/lines.rs"]
mod lines;

use std::sync::Arc;

use lines::{Process, waiting};
use storylock::ManualClock;
use storylock::store::{Done, Step};

use common::{Project, code};

fn bench(count: usize) -> (Project, Vec<Process>) {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let processes = (0..count).map(|_| Process::new(&project, &clock)).collect();
    (project, processes)
}

#[test]
fn the_request_that_closes_a_circle_of_three_is_refused_and_names_it() {
    let (project, mut all) = bench(3);
    let paths = project.files(&["x", "y", "z"]);
    for (number, story) in ["A", "B", "C"].iter().enumerate() {
        all[number].take(&paths[number..=number], story);
    }
    let first = all[0].line_up(&paths[1..2], "A");
    all[1].line_up(&paths[2..3], "B");
    let refused = all[2].run(Step::Acquire(waiting(&paths[..1], "C")));
    let error = refused.expect_err("a circle");
    assert_eq!(error.code.as_str(), "EDEADLK");
    let told: Vec<(String, String)> =
        error.circle.iter().map(|arm| (arm.story.clone(), arm.holder.clone())).collect();
    let right = [("C", "A"), ("A", "B"), ("B", "C")];
    assert_eq!(told, right.map(|(one, other)| (one.to_owned(), other.to_owned())));
    assert_eq!(error.circle[0].path, std::path::Path::new(&paths[0]));
    // The others go on.
    all[2].release(&paths[2], "C");
    all[1].tend();
    all[1].cleanup("B");
    assert!(all[0].has_turn(first));
}

#[test]
fn a_circle_through_a_set_is_found() {
    let (project, mut all) = bench(2);
    let paths = project.files(&["x", "y", "z"]);
    all[0].take(&paths[..1], "A");
    all[1].take(&paths[1..2], "B");
    all[0].line_up(&paths[1..3], "A");
    let refused = all[1].run(Step::Acquire(waiting(&[paths[2].clone(), paths[0].clone()], "B")));
    assert_eq!(code(&refused), "EDEADLK");
}

#[test]
fn a_story_that_holds_a_dead_mans_path_closes_no_circle() {
    // D's process died with k2; D works on in another one. Nobody waited for k2.
    let (project, mut all) = bench(4);
    let (k, y) = (project.files(&["k1", "k2"]), project.file("y"));
    all[0].take(&k[1..], "D");
    all[1].take(&k[..1], "T");
    all[2].take(std::slice::from_ref(&y), "S");
    all[3].line_up(std::slice::from_ref(&y), "D");
    drop(all.remove(0));
    let asked = all[1].run(Step::Acquire(waiting(&k, "S")));
    assert!(matches!(asked, Ok(Done::Queued(_))), "invented: {asked:?}");
}

#[test]
fn a_dead_holder_in_the_middle_closes_no_circle_though_nobody_can_take_its_path_yet() {
    let (project, mut all) = bench(5);
    let xm = project.files(&["x", "m"]);
    let (y, t) = (project.file("y"), project.file("t"));
    all[0].take(&xm[..1], "D");
    all[1].take(&xm[1..], "M");
    all[2].take(std::slice::from_ref(&t), "T");
    all[2].line_up(&xm, "T");
    all[3].take(std::slice::from_ref(&y), "S");
    all[4].line_up(std::slice::from_ref(&y), "D");
    drop(all.remove(0));
    let asked = all[2].run(Step::Acquire(waiting(std::slice::from_ref(&t), "S")));
    assert!(matches!(asked, Ok(Done::Queued(_))), "invented: {asked:?}");
}

#[test]
fn a_dead_waiter_closes_no_circle() {
    let (project, mut all) = bench(3);
    let (x, y) = ([project.file("x")], [project.file("y")]);
    all[0].take(&x, "A");
    all[1].take(&y, "B");
    all[2].line_up(&y, "A");
    drop(all.remove(2));
    let asked = all[1].run(Step::Acquire(waiting(&x, "B")));
    assert!(matches!(asked, Ok(Done::Queued(_))), "invented: {asked:?}");
}

#[test]
fn whoever_is_waited_for_passes_one_who_stands_in_front() {
    // W wants x and y; A has x. B has what A waits for, and wants y, which is kept for W.
    let (project, mut all) = bench(4);
    let xy = project.files(&["x", "y"]);
    let b = [project.file("b")];
    all[0].take(&xy[..1], "A");
    all[1].take(&b, "B");
    let set = all[2].line_up(&xy, "W");
    let stranger = all[3].try_take(&xy[1..], "N");
    assert_eq!(code(&stranger), "ELOCKED", "kept for the set");
    let single = all[0].line_up(&b, "A");
    all[1].take(&xy[1..], "B");
    all[1].cleanup("B");
    assert!(all[0].has_turn(single));
    assert!(!all[2].has_turn(set));
    all[0].cleanup("A");
    assert!(all[2].has_turn(set));
}

#[test]
fn a_chain_through_places_in_queues_opens() {
    // W stands in front of V on k, and behind S on q; S waits for r, which V has.
    let (project, mut all) = bench(4);
    let kq = project.files(&["k", "q"]);
    let qr = project.files(&["q", "r"]);
    all[3].take(&kq[..1], "Z");
    all[0].take(&qr[1..], "V");
    let set_s = all[1].line_up(&qr, "S");
    let set_w = all[2].line_up(&kq, "W");
    let single = all[0].line_up(&kq[..1], "V");
    all[3].cleanup("Z");
    // One of them passes; then the others follow.
    for _ in 0..3 {
        for (number, story, id) in [(0, "V", single), (1, "S", set_s), (2, "W", set_w)] {
            if all[number].has_turn(id) {
                all[number].cleanup(story);
            }
        }
    }
    let turns = [(0, single), (1, set_s), (2, set_w)].map(|(number, id)| all[number].has_turn(id));
    assert_eq!(turns, [true; 3], "{:?}", all[0].status().waiting);
}

#[test]
fn a_story_that_waits_in_two_places_is_let_in_nowhere_to_close_a_circle() {
    // S waits for k and for t, which T has; T wants k and m. Were S let in at k, neither would go on.
    let (project, mut all) = bench(4);
    let (k, t) = ([project.file("k")], [project.file("t")]);
    let km = project.files(&["k", "m"]);
    all[0].take(&k, "Z");
    all[3].take(&km[1..], "M");
    all[1].take(&t, "T");
    let first = all[2].line_up(&k, "S");
    let second = all[2].line_up(&t, "S");
    let set = all[1].line_up(&km, "T");
    all[0].cleanup("Z");
    assert!(!all[2].has_turn(first));
    all[3].cleanup("M");
    assert!(all[1].has_turn(set));
    all[1].cleanup("T");
    assert!(all[2].has_turn(first) && all[2].has_turn(second));
}
