//! Scopes: `withLock` and `runStory` hold a lock for as long as a function runs, whatever else the same
//! story does with it in the same process.

mod common;

use std::sync::Arc;

use common::desk::HandDesk;
use common::{Caller, LONG, Project, code, only, set};
use storylock::store::Grant;
use storylock::{Ask, Call, Clock, Key, Lease, ManualClock, Message, Reply};

/// Two clients of one engine, and one of another, by one clock.
fn three() -> (Project, Arc<ManualClock>, [Caller; 2], Caller) {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let engine = storylock::Engine::start(project.root(), shared).expect("an engine");
    let mine = [Caller::of(&engine), Caller::of(&engine)];
    let theirs = project.caller_by(&clock);
    (project, clock, mine, theirs)
}

#[test]
fn a_scope_holds_until_it_ends_however_long_that_takes() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    let scope = mine.enter(&path, "A");
    assert_eq!(scope.record.lease(), Lease::Bound);
    clock.advance(1 << 40);
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    assert!(mine.exit(&scope), "it was held to the end");
    theirs.acquire(&path, "B", LONG).expect("free once it has ended");
}

#[test]
fn scopes_nest_and_the_last_one_frees_the_path() {
    let (project, _, [mine, also], theirs) = three();
    let path = project.file("a");
    let outer = mine.enter(&path, "A");
    let inner = mine.enter(&path, "A");
    let third = also.enter(&path, "A");
    assert_eq!((inner.record.token, third.record.token), (outer.record.token, outer.record.token));
    assert!(!inner.is_fresh, "the story has one lock");
    for (caller, scope) in [(&mine, outer), (&also, third)] {
        assert!(caller.exit(&scope));
        assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "a scope is still open");
    }
    assert!(mine.exit(&inner));
    theirs.acquire(&path, "B", LONG).expect("free once the last has ended");
}

#[test]
fn a_scope_on_a_timed_lock_binds_it_and_gives_its_lease_back() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    let scope = mine.enter(&path, "A");
    assert_eq!(scope.record.token, grant.record.token);
    assert_eq!(scope.record.lease(), Lease::Bound, "as the answer says, too");
    clock.advance(10_000);
    assert!(mine.verify(&grant), "bound while the scope is open");
    assert!(mine.exit(&scope));
    assert!(mine.verify(&grant), "the lock that was there before the scope is there after it");
    clock.advance(999);
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "its lease began anew");
    clock.advance(1);
    theirs.acquire(&path, "B", LONG).expect("and ends");
}

#[test]
fn a_plain_lock_that_joins_a_scope_outlives_it_by_its_own_lease() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    let scope = mine.enter(&path, "A");
    let joined = mine.acquire(&path, "A", Lease::Timed(500)).expect("its own");
    assert!(!joined.is_fresh);
    clock.advance(10_000);
    assert!(mine.exit(&scope));
    assert!(mine.verify(&joined), "somebody else of the story still counts on it");
    clock.advance(500);
    theirs.acquire(&path, "B", LONG).expect("over by the lease that it asked for");
}

#[test]
fn a_bound_lock_that_a_scope_joins_stays_bound() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    let grant = mine.acquire(&path, "A", Lease::Bound).expect("free");
    let scope = mine.enter(&path, "A");
    assert!(mine.exit(&scope));
    clock.advance(1 << 40);
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    assert!(mine.let_go(&grant));
    theirs.acquire(&path, "B", LONG).expect("free");
}

#[test]
fn a_scope_on_a_lock_that_another_process_took_leaves_it_as_it_is() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    let grant = theirs.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    let scope = mine.enter(&path, "A");
    assert_eq!(scope.record, grant.record, "another process's lock is not bound to this one");
    assert!(mine.exit(&scope));
    assert!(theirs.verify(&grant), "nor ended by it");
    clock.advance(1000);
    assert!(!theirs.verify(&grant));
}

#[test]
fn a_renewal_under_an_open_scope_is_for_the_time_after_it() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    let scope = mine.enter(&path, "A");
    mine.renew(&path, "A", Some(Lease::Timed(5000))).expect("its own");
    clock.advance(6000);
    assert!(mine.verify(&scope), "a lock is bound while a scope is open on it");
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    assert!(mine.exit(&scope));
    clock.advance(4999);
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED", "it began when the scope ended");
    clock.advance(1);
    theirs.acquire(&path, "B", LONG).expect("over by the renewed lease");
}

#[test]
fn a_scope_binds_its_lock_again_when_another_process_has_renewed_it() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    let scope = mine.enter(&path, "A");
    theirs.renew(&path, "A", Some(Lease::Timed(5000))).expect("its story's");
    // The engine looks within a second of its own accord.
    mine.cleanup("nobody").expect("looked");
    clock.advance(5000);
    assert!(mine.verify(&scope), "a lock is bound while a scope is open on it");
    assert!(mine.exit(&scope));
    theirs.acquire(&path, "B", LONG).expect("and free when it ends");
}

#[test]
fn a_scope_gives_the_lease_back_though_another_process_has_renewed_its_lock() {
    let (project, clock, [mine, _], theirs) = three();
    let path = project.file("a");
    mine.acquire(&path, "A", Lease::Timed(1000)).expect("free");
    let scope = mine.enter(&path, "A");
    theirs.renew(&path, "A", None).expect("its story's, bound as it is");
    assert!(mine.exit(&scope));
    clock.advance(1000);
    mine.status();
    theirs.acquire(&path, "B", LONG).expect("over by the lease from before the scope");
}

#[test]
fn giving_up_a_plain_lock_leaves_the_scope_that_joined_it() {
    let (project, _, [mine, _], theirs) = three();
    let path = project.file("a");
    let plain = mine.acquire(&path, "A", LONG).expect("free");
    let scope = mine.enter(&path, "A");
    assert!(mine.let_go(&plain), "it was there to give up");
    assert!(mine.verify(&scope), "nothing is given up that a scope still needs");
    assert_eq!(code(&theirs.acquire(&path, "B", LONG)), "ELOCKED");
    assert!(mine.exit(&scope));
    theirs.acquire(&path, "B", LONG).expect("free: nobody needs it any more");
}

#[test]
fn a_client_that_closes_ends_its_scopes_and_no_others() {
    let (project, _, [mine, also], theirs) = three();
    let path = project.file("a");
    mine.enter(&path, "A");
    let scope = also.enter(&path, "A");
    mine.close();
    assert!(also.verify(&scope), "another client's scope is open");
    assert!(also.exit(&scope));
    let answer = theirs.acquire(&path, "B", LONG);
    assert_eq!(code(&answer), "no error", "the closed client's scope is still counted");
}

#[test]
fn the_loss_of_a_lock_ends_all_its_scopes_and_is_told_once_to_each_client() {
    let (project, _, [mine, also], theirs) = three();
    let path = project.file("a");
    let scope = mine.enter(&path, "A");
    mine.enter(&path, "A");
    also.enter(&path, "A");
    theirs.cleanup("A").expect("cleaned");
    let next = theirs.acquire(&path, "B", LONG).expect("free");
    mine.status();
    for caller in [&mine, &also] {
        // The engine notices it at its next round at the latest.
        caller.cleanup("nobody").expect("cleaned");
        let error = caller.loss(&scope);
        assert_eq!(error.holder.as_ref().expect("who has it now").record.story_id.as_str(), "B");
        caller.cleanup("nobody").expect("cleaned");
        assert!(caller.events().is_empty(), "told once");
    }
    assert!(!mine.exit(&scope) && !also.exit(&scope));
    assert!(theirs.verify(&next), "the ends of lost scopes touch no successor");
}

#[test]
fn a_set_in_a_scope_gives_up_what_it_took_and_keeps_what_the_story_had() {
    let (project, _, [mine, _], theirs) = three();
    let paths = project.files(&["a", "b"]);
    mine.acquire(&paths[0], "A", LONG).expect("free");
    let ask = Ask { scope: true, ..set(&paths, "A", Lease::Bound) };
    let grants = mine.acquire_all(ask).expect("free, and its own");
    let grants: Vec<(Key, u64)> =
        grants.iter().map(|grant| (grant.key, grant.record.token)).collect();
    let gone = mine.call(Call::LetGo { grants, scope: true, kinds: Vec::new() });
    assert_eq!(gone, Ok(Reply::LetGo(vec![true, true])), "both were held to the end");
    assert_eq!(code(&theirs.acquire(&paths[0], "B", LONG)), "ELOCKED");
    theirs.acquire(&paths[1], "B", LONG).expect("free");
}

fn granted(reply: Result<Reply, storylock::Error>) -> Grant {
    match reply {
        Ok(Reply::Locks(grants)) => only(grants),
        answer => unreachable!("{answer:?} grants nothing"),
    }
}

#[test]
fn a_scope_that_begins_in_the_batch_in_which_another_ends_keeps_the_lock() {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let mut desk = HandDesk::new(&project, &clock);
    let path = project.file("a");
    let begin = || Call::Acquire(Ask { scope: true, ..set(&[&path], "A", Lease::Bound) });
    let end = |grant: &Grant| {
        let grants = vec![(grant.key, grant.record.token)];
        Call::LetGo { grants, scope: true, kinds: Vec::new() }
    };
    for is_end_first in [true, false] {
        let first = granted(desk.call(begin()));
        let mut calls = vec![(0, begin()), (0, end(&first))];
        if is_end_first {
            calls.reverse();
        }
        let mut answers = desk.batch(calls);
        if is_end_first {
            answers.reverse();
        }
        let second = granted(answers.remove(0));
        assert_eq!(answers.remove(0), Ok(Reply::LetGo(vec![true])));
        let call = Call::Verify { key: second.key, token: second.record.token };
        assert_eq!(desk.call(call), Ok(Reply::Verified(true)), "end first: {is_end_first}");
        let lost = |message: &Message| matches!(message, Message::Lost { .. });
        assert!(!desk.events(0).iter().any(lost), "a lock granted is reported lost");
        assert_eq!(desk.call(end(&second)), Ok(Reply::LetGo(vec![true])));
        assert_eq!(project.records().len(), 0, "and it is free in the end");
    }
}
