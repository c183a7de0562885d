//! All or nothing: a set of paths is locked whole or not at all, whatever refuses or fails on the way.

mod common;

use common::{Caller, LONG, Project, code, key, only, set, until};
use storylock::store::Grant;
use storylock::{Ask, Call, Lease};

fn keys_of(grants: &[Grant]) -> Vec<String> {
    grants.iter().map(|grant| grant.record.path_text()).collect()
}

#[test]
fn a_set_is_granted_in_the_order_asked_for_with_tokens_that_rise() {
    let project = Project::new();
    let caller = project.caller();
    let paths = project.files(&["c", "a", "b"]);
    let grants = caller.acquire_all(set(&paths, "A", LONG)).expect("free");
    assert_eq!(keys_of(&grants), paths);
    assert!(grants.windows(2).all(|two| two[0].record.token < two[1].record.token));
    assert!(grants.iter().all(|grant| grant.is_fresh && caller.verify(grant)));
    let mut shown = paths;
    shown.sort();
    assert_eq!(project.viewed(), shown, "what was just acquired is in the view");
}

#[test]
fn duplicates_and_spellings_of_a_path_count_once() {
    let project = Project::new();
    let caller = project.caller();
    std::fs::create_dir(project.file("src")).expect("a folder");
    let mut paths = project.files(&["src/a", "src/./a", "src/x/../a", "src//a", "src/a"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("src", project.file("link")).expect("a link");
        paths.push(project.file("link/a"));
    }
    let grant = only(caller.acquire_all(set(&paths, "A", LONG)).expect("free"));
    assert_eq!(grant.record.path_text(), project.file("src/a"), "as it was named first");
    assert_eq!(project.records().len(), 1);
    assert!(caller.let_go(&grant), "given up once, and that is all");
    assert_eq!(project.records().len(), 0);
}

#[test]
fn a_refused_set_holds_nothing_and_leaves_nothing() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    mine.acquire(&project.file("c"), "A", LONG).expect("free");
    let paths = project.files(&["a", "b", "c", "d"]);
    let refused = theirs.acquire_all(set(&paths, "B", LONG)).expect_err("c is held");
    assert_eq!(refused.code.as_str(), "ELOCKED");
    assert_eq!(refused.path.as_deref(), Some(std::path::Path::new(&paths[2])), "which one");
    assert!(refused.message.starts_with(&format!("{} is locked by A", paths[2])), "{refused}");
    assert_eq!((project.records().len(), project.litter().len()), (1, 0), "no other file is there");
    assert_eq!(project.viewed(), [project.file("c")]);
    mine.acquire_all(set(&paths, "A", LONG)).expect("all the others are free");
}

#[test]
fn what_a_story_has_of_a_set_already_it_keeps_as_it_is() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let had = mine.acquire(&project.file("b"), "A", Lease::Bound).expect("free");
    let paths = project.files(&["a", "b"]);
    let grants = mine.acquire_all(set(&paths, "A", LONG)).expect("free, and its own");
    assert_eq!((grants[0].is_fresh, grants[1].is_fresh), (true, false));
    assert_eq!(grants[1].record, had.record);
    assert_eq!(code(&theirs.acquire_all(set(&paths, "B", LONG))), "ELOCKED");
    let refused = mine.acquire_all(set(&project.files(&["b", "a", "x"]), "C", LONG));
    assert_eq!(code(&refused), "ELOCKED", "another story of the same client is another story");
    assert_eq!(theirs.holder(&project.file("x")), None);
}

#[test]
fn crossing_sets_never_deadlock_and_never_overlap() {
    let project = Project::new();
    let callers: Vec<Caller> = (0..3).map(|_| project.caller()).collect();
    let paths = project.files(&["a", "b", "c"]);
    std::thread::scope(|threads| {
        for (number, caller) in callers.iter().enumerate() {
            let (project, paths) = (&project, &paths);
            threads.spawn(move || {
                let mine = [paths[number].clone(), paths[(number + 1) % 3].clone()];
                let mut won = 0;
                until("each has had its turns", || {
                    let story = format!("story-{number}");
                    let answer = caller.acquire_all(set(&mine, &story, LONG));
                    let Ok(grants) = answer else { return false };
                    // One of the three can have two of the three paths at a time.
                    let inside = project.root().join("inside");
                    let entered = std::fs::File::create_new(&inside);
                    assert!(entered.is_ok(), "two crossing sets are held at once");
                    std::fs::remove_file(inside).expect("left");
                    grants.iter().for_each(|grant| assert!(caller.let_go(grant)));
                    won += 1;
                    won == 40
                });
            });
        }
    });
}

#[test]
fn a_set_larger_than_the_guards_ring_is_one_set() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    theirs.cleanup("nobody").expect("looked");
    let paths: Vec<String> = (0..2100).map(|number| project.file(&format!("f{number}"))).collect();
    mine.acquire_all(set(&paths, "A", Lease::Bound)).expect("free");
    assert_eq!(theirs.status().locks.len(), paths.len());
    assert_eq!(code(&theirs.acquire_all(set(&paths[2099..], "B", LONG))), "ELOCKED");
    assert_eq!(theirs.cleanup("A").expect("cleaned"), paths.len(), "the other knows them all");
    assert_eq!(project.records().len(), 0);
    until("the view shows none", || project.viewed().is_empty());
}

#[test]
fn letting_go_of_a_set_tells_of_each_lock_whether_it_was_there() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let paths = project.files(&["a", "b", "c"]);
    let grants = mine.acquire_all(set(&paths, "A", LONG)).expect("free");
    theirs.release(&paths[1], "A").expect("its story's");
    let next = theirs.acquire(&paths[1], "B", LONG).expect("free");
    let grants = grants.iter().map(|grant| (grant.key, grant.record.token)).collect();
    let gone = mine.call(Call::LetGo { grants, scope: false, kinds: Vec::new() });
    assert_eq!(gone, Ok(storylock::Reply::LetGo(vec![true, false, true])));
    assert!(theirs.verify(&next), "the successor's lock is left alone");
}

#[test]
fn a_reason_that_fits_no_record_is_refused_before_anything_is_touched() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let path = project.file("a");
    let ask = Ask { reason: Some("x".repeat(100_000)), ..set(&[&path], "A", LONG) };
    match mine.acquire_all(ask) {
        Err(error) => assert_eq!(error.code.as_str(), "ERR_INVALID_ARG_VALUE", "{error}"),
        // If it is granted it must be a lock like any other.
        Ok(grants) => {
            assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
            assert!(mine.verify(&grants[0]) && mine.let_go(&grants[0]));
        }
    }
}

#[test]
fn a_long_path_and_a_long_story_fit_a_record() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    // Control characters take six bytes each in JSON: the longest record that a path can make.
    let mut path = project.file("");
    while path.len() + 201 < 4095 {
        path.push('/');
        path.push_str(&"\u{1}".repeat(200));
    }
    let story = "é".repeat(128);
    let grant = mine.acquire(&path, &story, LONG).expect("free");
    assert_eq!(grant.key, key(&path));
    let refused = theirs.acquire(&path, "B", LONG).expect_err("held");
    assert_eq!(refused.code.as_str(), "ELOCKED");
    assert!(!refused.message.chars().any(char::is_control), "fit to print");
    assert!(mine.verify(&grant) && mine.let_go(&grant));
}
