//! The folder goes away under a holder (`git clean -fdx` by an agent): the holder is told, nothing crashes,
//! nothing is granted on the lost ground, and tokens go on rising on the new one.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Caller, LONG, Project, code, set, until};
use storylock::store::Grant;
use storylock::{Call, Kind, Lease, Reply};

fn remove(project: &Project, name: &str) {
    std::fs::remove_dir_all(project.root().join(name)).expect("removed");
}

/// A bound and a timed lock.
fn holdings(project: &Project, caller: &Caller) -> [Grant; 2] {
    [
        caller.acquire(&project.file("bound"), "A", Lease::Bound).expect("free"),
        caller.acquire(&project.file("timed"), "A", LONG).expect("free"),
    ]
}

#[test]
fn holders_are_told_though_nobody_calls() {
    let project = Project::new();
    let caller = project.caller();
    let held = holdings(&project, &caller);
    remove(&project, ".ai");
    for grant in &held {
        let lost = caller.loss(grant);
        assert_eq!(lost.code.as_str(), "ECOMPROMISED");
        assert_eq!(lost.path.as_deref(), Some(grant.record.file_path.as_path()));
        assert!(lost.message.contains("the lock folder was removed"), "{lost}");
        assert!(lost.message.contains("Do not write it."), "{lost}");
        assert!(!caller.verify(grant) && !caller.let_go(grant), "it is lost");
        assert_eq!(code(&caller.extend(grant, None)), "ECOMPROMISED");
    }
    assert!(caller.events().is_empty(), "each loss is told once");
}

#[test]
fn holders_are_told_before_the_next_call_is_answered() {
    for removed in [".ai", ".ai/locks"] {
        let project = Project::new();
        let caller = project.caller();
        let held = holdings(&project, &caller);
        remove(&project, removed);
        let next = caller.acquire(&project.file("bound"), "A", LONG).expect("granted anew");
        assert!(next.is_fresh, "{removed}: the lock on lost ground is not this one");
        for grant in &held {
            assert!(next.record.token > grant.record.token, "{removed}: tokens go on rising");
            caller.loss(grant);
        }
        assert!(caller.verify(&next));
        assert_eq!(project.viewed(), [project.file("bound")], "{removed}: the view is new, too");
        assert_eq!(project.records().len(), 1);
    }
}

#[test]
fn verify_and_release_notice_at_once() {
    let project = Project::new();
    let caller = project.caller();
    let held = holdings(&project, &caller);
    remove(&project, ".ai");
    assert!(!caller.verify(&held[0]), "not current the moment the folder is gone");
    assert_eq!(caller.release(&project.file("timed"), "A"), Ok(Reply::Released));
    caller.loss(&held[0]);
    caller.given_up(&held[1]);
}

#[test]
fn a_newcomer_is_granted_what_was_held_on_the_lost_ground_with_a_higher_token() {
    let project = Project::new();
    let (old, new) = (project.caller(), project.caller());
    let [held, _] = holdings(&project, &old);
    remove(&project, ".ai");
    let next = new.acquire(&project.file("bound"), "B", LONG).expect("nothing says otherwise");
    assert!(next.record.token > held.record.token, "a fenced write of the old one is refused");
    let lost = old.loss(&held);
    assert_eq!(lost.story.as_deref(), Some("A"));
    assert_eq!(code(&old.acquire(&project.file("bound"), "A", LONG)), "ELOCKED");
    old.close();
    assert!(new.verify(&next), "the one that lost its lock touches no successor as it leaves");
}

#[test]
fn a_guard_removed_alone_costs_the_locks_and_no_more() {
    let project = Project::new();
    let caller = project.caller();
    let held = holdings(&project, &caller);
    std::fs::remove_file(project.guard()).expect("removed");
    held.iter().for_each(|grant| drop(caller.loss(grant)));
    let next = caller.acquire(&project.file("bound"), "B", LONG).expect("free");
    assert!(next.record.token > held[1].record.token);
    assert!(caller.verify(&next));
    assert_eq!(caller.cleanup("A").expect("cleaned"), 1, "what is left of them can be cleaned up");
}

#[test]
fn a_folder_put_in_the_place_of_another_is_other_ground() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let [held, _] = holdings(&project, &mine);
    let (here, aside) = (project.file(".ai"), project.file("aside"));
    std::fs::rename(&here, &aside).expect("moved aside");
    let next = theirs.acquire(&project.file("bound"), "B", LONG).expect("new ground");
    assert!(mine.loss(&held).message.contains("no longer locked by A"));
    std::fs::rename(&here, project.file("aside-2")).expect("moved aside");
    std::fs::rename(&aside, &here).expect("put back");
    theirs.loss(&next);
    // What was held there counts no more: whoever had it was told so.
    let again = theirs.acquire(&project.file("bound"), "C", LONG).expect("free");
    assert!(again.record.token > next.record.token, "tokens rise across every change of ground");
    assert!(!mine.verify(&held));
}

#[test]
fn the_folder_of_the_view_removed_alone_comes_back_and_costs_nothing() {
    let project = Project::new();
    let caller = project.caller();
    let held = holdings(&project, &caller);
    remove(&project, ".ai/progress");
    caller.acquire(&project.file("c"), "A", LONG).expect("free");
    assert!(held.iter().all(|grant| caller.verify(grant)), "no lock is lost with the view");
    let path = project.root().join(".ai/progress/locks.json");
    let waited = std::time::Instant::now();
    while !path.exists() && waited.elapsed() < Duration::from_secs(3) {
        caller.cleanup("nobody").expect("cleaned");
    }
    assert!(path.exists(), "the view is written again: {:?}", caller.status().error);
    assert_eq!(project.viewed().len(), 3);
    assert_eq!(caller.status().error, None);
}

#[test]
fn the_folder_of_the_holder_files_removed_alone_takes_no_lock() {
    let project = Project::new();
    let (mine, theirs) = (project.caller(), project.caller());
    let [held, _] = holdings(&project, &mine);
    remove(&project, ".ai/locks/holders");
    assert_eq!(code(&theirs.acquire(&project.file("bound"), "B", LONG)), "ELOCKED");
    assert!(mine.verify(&held));
    mine.acquire(&project.file("c"), "A", LONG).expect("goes on");
    let newcomer = project.caller();
    newcomer.acquire(&project.file("d"), "B", LONG).expect("makes the folder anew");
    assert_eq!(code(&newcomer.acquire(&project.file("bound"), "B", LONG)), "ELOCKED");
    assert!(mine.events().is_empty(), "nothing was lost");
}

#[test]
fn a_project_that_is_gone_is_a_typed_error_and_no_crash() {
    let project = Project::new();
    let inner = Project::at(&project.root().join("inner"));
    std::fs::create_dir(inner.root()).expect("a folder");
    let caller = inner.caller();
    let [held, _] = holdings(&inner, &caller);
    remove(&project, "inner");
    let refused = caller.acquire(&inner.file("x"), "A", LONG).expect_err("there is no project");
    assert_eq!(refused.code.as_str(), "ENOENT", "{refused}");
    assert!(refused.message.contains("Check that the project folder still exists."), "{refused}");
    caller.loss(&held);
    assert!(caller.status().error.is_some(), "and status says why it shows nothing");
    std::fs::create_dir(inner.root()).expect("a folder");
    let next = caller.acquire(&inner.file("x"), "A", LONG).expect("goes on");
    assert!(next.record.token > held.record.token);
}

#[test]
fn ground_removed_again_and_again_makes_errors_and_never_two_holders() {
    let project = Project::new();
    let is_over = AtomicBool::new(false);
    let callers = [project.caller(), project.caller()];
    let told: Vec<HashMap<&'static str, u32>> = std::thread::scope(|threads| {
        let remover = threads.spawn(|| {
            for _ in 0..150 {
                // Somebody else is at work in there: what cannot be removed now is removed next time.
                let _ = std::fs::remove_dir_all(project.root().join(".ai"));
                std::thread::sleep(Duration::from_micros(1500));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let work = |(number, caller)| {
            let (project, is_over) = (&project, &is_over);
            threads.spawn(move || hammer(project, caller, number, is_over))
        };
        let workers: Vec<_> = callers.iter().enumerate().map(work).collect();
        remover.join().expect("removed often enough");
        workers.into_iter().map(|worker| worker.join().expect("no crash")).collect()
    });
    for (caller, told) in callers.iter().zip(told) {
        let known = ["no error", "ELOCKED", "ECOMPROMISED", "ENOENT"];
        let unknown: Vec<_> = told.iter().filter(|(code, _)| !known.contains(*code)).collect();
        assert!(unknown.is_empty(), "none of these is what happened: {unknown:?} in {told:?}");
        assert!(told["no error"] > 0, "{told:?}");
        let grants = caller.acquire_all(set(&project.files(&["x"]), "Z", LONG));
        until("it goes on once it is left alone", || grants.is_ok());
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "no test: what this file's child process does"]
fn role() {
    use storylock::files::Files;
    use storylock::store::{Acquire, Done, Step, Store};
    let Some(role) = common::child::role() else { return };
    let project = Project::at(&role.root);
    let mut store = Files::new(project.root(), std::sync::Arc::new(storylock::SystemClock));
    store.run(&[Step::Cleanup { story: common::story("nobody") }]);
    let steps = [Step::Acquire(Acquire {
        paths: vec![(
            common::target(&project.file("a")).locate().expect("located"),
            Kind::default(),
        )],
        story: common::story("A"),
        lease: LONG,
        detached: false,
        reason: None,
        queue: None,
    })];
    let round = common::trace::traced(&role, || store.run(&steps));
    role.say(match round.answers[..] {
        [Ok(Done::Granted(_))] => "granted",
        [Err(_)] => "refused",
        _ => "neither",
    });
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_is_granted_on_ground_that_goes_before_the_grant_is_done() {
    use common::child::Child;
    use common::trace::{End, interrupted_before};
    for number in 0.. {
        let project = Project::new();
        let mut child = Child::start("", project.root(), "");
        let mut was_shown = true;
        let end = interrupted_before(&mut child, number, || {
            // The last step that others see.
            was_shown = project.viewed() == [project.file("a")];
            std::fs::remove_dir_all(project.root().join(".ai")).expect("removed");
        });
        if end == End::Untraceable {
            common::say_skipped("this system lets no process trace its child");
            return;
        }
        let answer = child.hear();
        let is_right = answer == "refused" || (answer == "granted" && was_shown);
        let is_there = project.record("a").exists();
        assert!(is_right || is_there, "{end:?}: {answer}, and there is no record");
        if matches!(end, End::Done(_)) {
            assert!(number > 20, "there are more steps than {number}");
            return;
        }
    }
}

/// Takes and gives up a lock until told to stop; which codes it was answered, how often. Tokens must rise.
fn hammer(
    project: &Project,
    caller: &Caller,
    number: usize,
    is_over: &AtomicBool,
) -> HashMap<&'static str, u32> {
    let mut told = HashMap::new();
    let mut last = 0;
    while !is_over.load(Ordering::SeqCst) {
        let answer = caller.acquire(&project.file("a"), &format!("story-{number}"), LONG);
        *told.entry(code(&answer)).or_default() += 1;
        if let Ok(grant) = answer {
            assert!(grant.record.token > last, "{} after {last}", grant.record.token);
            last = grant.record.token;
            let grants = vec![(grant.key, grant.record.token)];
            let gone = caller.call(Call::LetGo { grants, scope: false, kinds: Vec::new() });
            assert!(matches!(code(&gone), "no error" | "ENOENT"), "{gone:?}");
        }
    }
    told
}
