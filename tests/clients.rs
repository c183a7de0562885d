//! Clients: each call is answered once, each loss told once, and a client that ends gives up what it took
//! and nothing else.

mod common;

use common::{Caller, LONG, Project, code, set, target, until};
use storylock::{Call, Lease, Message, Reply};

fn free(caller: &Caller, path: &str) -> bool {
    caller.check(path).expect("a look that the system allows").is_none()
}

#[test]
fn closing_gives_up_every_lock_of_this_client_and_no_other() {
    let project = Project::new();
    let engine = project.engine();
    let (mine, also) = (Caller::of(&engine), Caller::of(&engine));
    let paths = project.files(&["a", "b", "c", "d"]);
    mine.acquire(&paths[0], "A", Lease::Bound).expect("free");
    mine.acquire(&paths[1], "A", LONG).expect("free");
    also.acquire(&paths[2], "A", LONG).expect("free");
    mine.acquire(&paths[3], "A", LONG).expect("free");
    also.acquire(&paths[3], "A", LONG).expect("its story's");
    mine.close();
    assert!(free(&also, &paths[0]) && free(&also, &paths[1]), "given up");
    assert!(!free(&also, &paths[2]) && !free(&also, &paths[3]), "another client has these");
    assert!(also.events().is_empty(), "nothing of its own was lost");
    also.close();
    assert_eq!(project.records().len(), 0);
}

#[test]
fn a_closed_client_says_so() {
    let project = Project::new();
    let caller = project.caller();
    caller.close();
    let answer = caller.call(Call::Status);
    assert_eq!(code(&answer), "ERR_INVALID_STATE");
    assert!(answer.expect_err("closed").message.contains("new LockManager()"));
}

#[test]
fn what_is_granted_while_the_client_closes_is_given_up_too() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    for _ in 0..50 {
        let caller = project.caller();
        let grant = caller.submit(Call::Acquire(set(&[project.file("a")], "A", Lease::Bound)));
        let closed = caller.submit(Call::Close);
        caller.answer(grant).expect("free");
        assert_eq!(caller.answer(closed), Ok(Reply::Closed));
        assert!(free(&mine, &project.file("a")));
        theirs.acquire(&project.file("a"), "B", LONG).expect("free");
        theirs.release(&project.file("a"), "B").expect("its own");
    }
}

#[test]
fn a_dropped_client_gives_up_its_locks_though_its_engine_lives_on() {
    let project = Project::new();
    let engine = project.engine();
    let (mine, also) = (Caller::of(&engine), Caller::of(&engine));
    mine.acquire(&project.file("a"), "A", Lease::Bound).expect("free");
    drop(mine);
    until("it is given up", || also.acquire(&project.file("a"), "B", LONG).is_ok());
}

#[test]
fn leaving_waits_until_the_locks_are_given_up() {
    let project = Project::new();
    let caller = project.caller();
    caller.acquire_all(set(&project.files(&["a", "b"]), "A", Lease::Bound)).expect("free");
    caller.client().leave();
    assert_eq!(project.records().len(), 0);
    caller.client().leave();
    assert_eq!(code(&caller.call(Call::Status)), "ERR_INVALID_STATE");
}

#[test]
fn calls_in_flight_are_each_answered_once_and_in_order() {
    let project = Project::new();
    let caller = project.caller();
    let mut tickets = Vec::new();
    for number in 0..600 {
        let path = project.file(&format!("f{}", number % 100));
        let story = common::story("A");
        tickets.push(caller.submit(match number % 3 {
            0 => Call::Acquire(set(&[&path], "A", LONG)),
            1 => Call::Check { target: target(&path) },
            _ => Call::Release { target: target(&path), story },
        }));
    }
    for (number, ticket) in tickets.into_iter().enumerate() {
        let reply = caller.answer(ticket).expect("nothing is in the way");
        let is_right = match number % 3 {
            0 => matches!(reply, Reply::Locks(_)),
            1 => matches!(reply, Reply::Holders(_)),
            _ => matches!(reply, Reply::Released),
        };
        assert!(is_right, "call {number} was answered {reply:?}");
    }
    caller.status();
    let lost = |message: &Message| matches!(message, Message::Lost { .. });
    assert!(!caller.events().iter().any(lost), "what a client gives up itself is no loss");
}

#[test]
fn giving_up_by_path_or_story_is_no_loss_to_the_only_client_that_had_it() {
    let project = Project::new();
    let caller = project.caller();
    let paths = project.files(&["a", "b"]);
    let grants = caller.acquire_all(set(&paths, "A", LONG)).expect("free");
    caller.release(&paths[0], "A").expect("its own");
    caller.given_up(&grants[0]);
    assert_eq!(caller.cleanup("A").expect("cleaned"), 1);
    caller.given_up(&grants[1]);
    assert!(caller.events().is_empty(), "each is told once");
}

#[test]
fn a_lock_given_up_by_name_is_a_loss_to_the_other_client_that_had_it() {
    let project = Project::new();
    let engine = project.engine();
    let (mine, also) = (Caller::of(&engine), Caller::of(&engine));
    for way in ["release", "cleanup"] {
        let path = project.file(way);
        let grant = mine.acquire(&path, "A", LONG).expect("free");
        also.acquire(&path, "A", LONG).expect("its story's");
        match way {
            "release" => drop(mine.release(&path, "A").expect("its own")),
            _ => drop(mine.cleanup("A").expect("cleaned")),
        }
        assert!(free(&mine, &path), "{way}: it is free");
        also.loss(&grant);
        mine.given_up(&grant);
        assert!(also.events().is_empty() && mine.events().is_empty(), "{way}: told once");
    }
}

#[test]
fn a_lock_that_two_clients_have_is_free_when_both_have_let_go() {
    let project = Project::new();
    let engine = project.engine();
    let (mine, also) = (Caller::of(&engine), Caller::of(&engine));
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", LONG).expect("free");
    also.acquire(&path, "A", LONG).expect("its story's");
    assert!(mine.let_go(&grant), "it was there to let go of");
    assert!(!free(&mine, &path) && also.verify(&grant), "the other client has it still");
    assert!(also.let_go(&grant));
    assert!(free(&mine, &path));
    assert!(also.events().is_empty() && mine.events().is_empty(), "nothing was lost");
}

#[test]
fn a_lock_let_go_by_another_process_is_a_loss_to_the_one_that_took_it() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", LONG).expect("free");
    theirs.acquire(&path, "A", LONG).expect("its story's");
    assert!(theirs.let_go(&grant));
    mine.loss(&grant);
    assert!(free(&mine, &path) && theirs.events().is_empty());
}

#[test]
fn another_process_that_cleans_up_a_story_is_a_loss_to_its_holder() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let grant = mine.acquire(&project.file("a"), "A", LONG).expect("free");
    assert_eq!(theirs.cleanup("A").expect("cleaned"), 1);
    let lost = mine.loss(&grant);
    assert!(lost.message.contains("it was given up elsewhere"), "{lost}");
    assert!(!mine.verify(&grant) && !mine.let_go(&grant));
    assert_eq!(project.viewed(), Vec::<String>::new());
}

#[test]
fn cleanup_leaves_the_locks_of_other_stories_alone() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    mine.acquire_all(set(&project.files(&["a", "b"]), "A", LONG)).expect("free");
    let other = mine.acquire(&project.file("c"), "AB", LONG).expect("free");
    theirs.acquire(&project.file("d"), "A", LONG).expect("free");
    assert_eq!(theirs.cleanup("A").expect("cleaned"), 3, "of every process");
    assert_eq!(theirs.cleanup("A").expect("cleaned"), 0);
    assert!(mine.verify(&other));
}

#[test]
fn releasing_what_nobody_holds_is_no_error() {
    let project = Project::new();
    let caller = project.caller();
    assert_eq!(caller.release(&project.file("a"), "A"), Ok(Reply::Released));
}

#[test]
#[cfg(target_os = "linux")]
fn an_engine_ends_its_threads_and_files_with_its_last_client() {
    use common::child::{self, Child};
    if let Some(role) = child::role() {
        let project = Project::at(&role.root);
        let count = |folder: &str| common::names(std::path::Path::new(folder)).len();
        let counts = || (count("/proc/self/task"), count("/proc/self/fd"));
        let before = counts();
        for _ in 0..20 {
            let caller = project.caller();
            caller.acquire(&project.file("a"), "A", LONG).expect("free");
            caller.close();
        }
        until("all threads and files are gone", || counts() <= before);
        role.say("gone");
        return;
    }
    let project = Project::new();
    let name = "an_engine_ends_its_threads_and_files_with_its_last_client";
    let mut command = Child::command_of(name, "", project.root(), "");
    command.env_remove("RUST_BACKTRACE");
    let mut child = Child::spawn(command);
    assert_eq!(child.hear(), "gone");
}
