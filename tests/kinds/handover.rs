//! A lock that is given to another story, or taken over by another process.

use storylock::store::{Acquire, Done, Step};
use storylock::{Ask, Call, Key, Kind, Lease, Message, Reply};

use crate::bench;
use crate::common::child::{Child, Role};
use crate::common::desk::HandDesk;
use crate::common::{
    Caller, FOLDER, LONG, Project, SHARED, SHARED_FOLDER, code, ids, key, kinds, only, order, set,
    until,
};
use crate::lines::{Process, kinded};

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

/// What one process tells another of a grant.
fn token_of(project: &Project, name: &str, line: &str) -> (Key, u64) {
    (key(&project.file(name)), line.parse().expect("a token"))
}

pub(crate) fn play(role: &Role) {
    let project = Project::at(&role.root);
    let caller = project.caller();
    match role.name.as_str() {
        // Takes a lock, offers it, and tells what it is told.
        "exporter" => {
            let grant = caller.acquire(&project.file("x"), "A", Lease::Bound).expect("free");
            caller.offer(std::slice::from_ref(&grant), "secret").expect("its own");
            role.say(&grant.record.token.to_string());
            caller.given_up(&grant);
            role.say(if caller.verify(&grant) { "still mine" } else { "given up" });
            role.say(&caller.events().len().to_string());
            role.stay();
        }
        "adopter" => {
            let offered = [token_of(&project, "x", &role.argument)];
            match caller.adopt(&offered, "secret") {
                Ok(grants) => role.say(&only(grants).record.token.to_string()),
                Err(error) => role.say(error.code.as_str()),
            }
            role.stay();
        }
        name => unreachable!("no role {name}"),
    }
}

fn exported(project: &Project) -> (Child, String) {
    let mut exporter = Child::start("exporter", project.root(), "");
    let token = exporter.hear();
    (exporter, token)
}

#[test]
fn of_many_processes_that_adopt_a_lock_one_gets_it_and_its_owner_is_told_once() {
    let project = Project::new();
    let (mut exporter, token) = exported(&project);
    let mut adopters: Vec<Child> =
        (0..4).map(|_| Child::start("adopter", project.root(), &token)).collect();
    let told: Vec<String> = adopters.iter_mut().map(Child::hear).collect();
    let (refused, taken): (Vec<&String>, Vec<&String>) =
        told.iter().partition(|told| *told == "ENOTACQUIRED");
    assert_eq!((refused.len(), taken.len()), (3, 1), "{told:?}");
    let new: u64 = taken[0].parse().expect("a token");
    assert!(new > token.parse().expect("a token"), "whoever had it is fenced");
    assert_eq!(exporter.hear(), "given up");
    assert_eq!(exporter.hear(), "0", "and told nothing else");
}

#[test]
fn the_adopters_life_stands_behind_the_lock_and_the_exporters_no_more() {
    let project = Project::new();
    let caller = project.caller();
    let (mut exporter, token) = exported(&project);
    let mut adopter = Child::start("adopter", project.root(), &token);
    assert_ne!(adopter.hear(), "ENOTACQUIRED");
    exporter.kill();
    let path = project.file("x");
    assert_eq!(caller.holder(&path).as_deref(), Some("A"), "its new owner lives");
    let refused = caller.acquire(&path, "B", LONG).expect_err("held");
    assert_eq!(refused.holder.as_ref().expect("a holder").record.pid, adopter.pid());
    adopter.kill();
    let grant = caller.acquire(&path, "B", LONG).expect("free at once");
    let reclaimed = grant.record.reclaimed.expect("whose it was");
    assert_eq!((reclaimed.story_id.as_str(), reclaimed.pid), ("A", adopter.pid()));
}

#[test]
fn until_it_is_adopted_the_lock_is_the_exporters_whoever_tried_and_died() {
    let project = Project::new();
    let caller = project.caller();
    let (mut exporter, token) = exported(&project);
    let mut adopter = Child::start("adopter", project.root(), "1");
    assert_eq!(adopter.hear(), "ENOTACQUIRED", "no such grant");
    adopter.kill();
    assert_eq!(caller.holder(&project.file("x")).as_deref(), Some("A"));
    exporter.kill();
    let mut late = Child::start("adopter", project.root(), &token);
    assert_eq!(late.hear(), "ENOTACQUIRED", "its owner died with it");
    caller.acquire(&project.file("x"), "B", LONG).expect("free at once");
}

#[test]
fn an_offer_is_nothing_once_its_lock_is_another_or_the_secret_is_wrong() {
    let project = Project::new();
    let (mine, other) = (project.caller(), project.caller());
    let path = project.file("x");
    let take = || mine.acquire(&path, "A", LONG).expect("free");
    type After = fn(&Caller, &Caller, &str, &storylock::store::Grant);
    let cases: [(&str, After); 6] = [
        ("let go", |mine, _, _, grant| assert!(mine.let_go(grant))),
        ("released", |_, other, path, _| drop(other.release(path, "A").expect("in its name"))),
        ("cleaned up", |_, other, _, _| assert_eq!(other.cleanup("A"), Ok(1))),
        ("forced", |_, other, path, _| drop(other.force(path, order("stuck")).expect("taken"))),
        ("given away", |mine, _, _, grant| drop(mine.transfer(grant, "B").expect("its own"))),
        ("offered anew", |mine, _, _, grant| {
            mine.offer(std::slice::from_ref(grant), "another").expect("its own");
        }),
    ];
    for (what, happens) in cases {
        let grant = take();
        mine.offer(std::slice::from_ref(&grant), "secret").expect("its own");
        let wrong = other.adopt(&ids(std::slice::from_ref(&grant)), "guessed");
        assert_eq!(code(&wrong), "ENOTACQUIRED", "{what}");
        happens(&mine, &other, &path, &grant);
        let late = other.adopt(&ids(std::slice::from_ref(&grant)), "secret");
        assert_eq!(code(&late), "ENOTACQUIRED", "{what}");
        for story in ["A", "B"] {
            other.cleanup(story).expect("cleaned");
        }
        mine.events();
    }
    let grant = take();
    mine.offer(std::slice::from_ref(&grant), "one").expect("its own");
    mine.offer(std::slice::from_ref(&grant), "two").expect("its own");
    other.adopt(&ids(&[grant]), "two").expect("the second offer counts");
}

#[test]
fn a_lock_that_is_offered_is_its_owners_until_it_is_taken_over() {
    let project = Project::new();
    let (mine, other) = (project.caller(), project.caller());
    let path = project.file("x");
    let grant = mine.take(&path, SHARED, "A").expect("free");
    mine.offer(std::slice::from_ref(&grant), "secret").expect("its own");
    // Renewed, raised and lowered it is the same grant, and on offer.
    mine.renew(&path, "A", Some(LONG)).expect("its own");
    mine.take(&path, FOLDER, "A").expect("nobody else reads");
    mine.lower(&grant, SHARED_FOLDER).expect("its own");
    assert!(mine.verify(&grant) && mine.events().is_empty());
    let adopted = only(other.adopt(&ids(std::slice::from_ref(&grant)), "secret").expect("offered"));
    assert_eq!((adopted.record.kind(), adopted.record.lease()), (SHARED_FOLDER, LONG));
    assert_eq!(adopted.record.handed_from, Some(grant.record.token));
    assert_eq!(adopted.record.offer, None);
    mine.given_up(&grant);
    assert_eq!(mine.events().len(), 0, "no loss: it wished so");
    mine.close();
    assert!(other.verify(&adopted), "it closes without what it gave away");
}

#[test]
fn a_set_is_adopted_whole_or_not_at_all() {
    let project = Project::new();
    let (mine, other) = (project.caller(), project.caller());
    let paths = project.files(&["a", "b", "c"]);
    let grants = mine.acquire_all(set(&paths, "A", LONG)).expect("free");
    mine.offer(&grants, "secret").expect("its own");
    assert!(mine.let_go(&grants[1]));
    assert_eq!(code(&other.adopt(&ids(&grants), "secret")), "ENOTACQUIRED");
    assert!(mine.verify(&grants[0]) && mine.verify(&grants[2]), "nothing was taken");
    let again = mine.acquire_all(set(&paths, "A", LONG)).expect("its own");
    mine.offer(&again, "another").expect("its own");
    let adopted = other.adopt(&ids(&again), "another").expect("offered");
    assert!(adopted.iter().all(|grant| grant.is_fresh && other.verify(grant)));
    assert_eq!(adopted.len(), 3);
    assert_eq!(code(&mine.offer(&again, "once more")), "ECOMPROMISED", "not its own any more");
}

#[test]
fn a_timed_lock_that_is_adopted_begins_its_lease_anew_and_a_detached_one_is_tied_to_its_adopter() {
    let (project, clock, _) = bench(0);
    let (mine, other) = (project.caller_by(&clock), project.caller_by(&clock));
    let path = project.file("x");
    let ask = Ask { detached: true, ..set(&[&path], "A", Lease::Timed(1000)) };
    let grant = only(mine.acquire_all(ask).expect("free"));
    clock.advance(900);
    mine.offer(std::slice::from_ref(&grant), "secret").expect("its own");
    let adopted = only(other.adopt(&ids(&[grant]), "secret").expect("offered"));
    assert!(!adopted.record.detached);
    clock.advance(900);
    assert!(other.verify(&adopted), "it began anew");
    drop(other);
    until("its adopter's engine has ended", || mine.holder(&path).is_none());
}

#[test]
fn waiters_wait_on_when_a_lock_changes_hands() {
    let (project, _, mut all) = bench(3);
    let x = project.file("x");
    let grant = all[0].has(&x, PLAIN, "A");
    let waits = all[2].wait_for(&x, PLAIN, "C");
    let given = all[0].transfer(&grant, "B").expect("in front of those who wait");
    assert_eq!((given.record.story_id.as_str(), given.is_fresh), ("B", true));
    assert_eq!(given.record.handed_from, Some(grant.record.token));
    assert!(given.record.lock_id.starts_with("B-"), "{}", given.record.lock_id);
    let offered =
        all[0].run(Step::Offer { grants: ids(std::slice::from_ref(&given)), digest: "s".into() });
    assert_eq!(offered, Ok(Done::Offered));
    let step = Step::Adopt { grants: ids(&[given]), digest: "s".into(), lease: None };
    assert!(matches!(all[1].run(step), Ok(Done::Granted(_))));
    assert!(!all[2].has_turn(waits));
    drop(all.remove(0));
    assert!(!all[1].has_turn(waits), "its giver had it no more");
    all[0].release(&x, "B");
    assert!(all[1].has_turn(waits));
}

#[test]
fn whoever_is_given_what_it_waits_for_waits_no_more() {
    let (project, _, mut all) = bench(3);
    let (src, x) = (project.file("src"), project.file("src/x"));
    let folder = all[0].has(&src, FOLDER, "A");
    let below = all[1].wait_for(&x, PLAIN, "B");
    let same = all[2].wait_for(&src, SHARED, "B");
    all[0].transfer(&folder, "B").expect("nobody else is in the way");
    // Before anybody has looked.
    assert_eq!(all[0].line(&x), [""; 0]);
    assert_eq!(all[0].line(&src), [""; 0]);
    assert!(all[1].has_turn(below) && all[2].has_turn(same));
}

#[test]
fn a_lock_is_not_given_where_it_could_not_be_taken() {
    let (project, _, mut all) = bench(3);
    let (src, x, y) = (project.file("src"), project.file("src/x"), project.file("y"));
    // The giver's own folder is above it.
    let folder = all[0].has(&src, FOLDER, "A");
    let file = all[0].has(&x, PLAIN, "A");
    let refused = all[0].transfer(&file, "B").expect_err("A has the folder");
    assert_eq!(refused.code.as_str(), "ELOCKED");
    assert_eq!(only(refused.holders.clone()).record.token, folder.record.token, "{refused}");
    all[0].let_go(&[folder]);
    all[0].transfer(&file, "B").expect("nobody is in the way any more");
    // Who reads it already.
    let mine = all[0].has(&y, SHARED, "A");
    all[1].has(&y, SHARED, "B");
    assert_eq!(code(&all[0].transfer(&mine, "B")), "ERR_INVALID_STATE");
    // One who waits for another who waits for this.
    let z = all[0].has(&project.file("z"), PLAIN, "A");
    all[1].has(&project.file("c"), PLAIN, "C");
    all[1].wait_for(&project.file("z"), PLAIN, "C");
    all[2].wait_for(&project.file("c"), PLAIN, "D");
    assert_eq!(code(&all[0].transfer(&z, "D")), "EDEADLK");
    assert_eq!(all[2].holder(&project.file("z")).as_deref(), Some("A"), "nothing was changed");
    assert_eq!(all[2].line(&project.file("z")), ["C"]);
    assert_eq!(code(&all[0].transfer(&file, "E")), "ECOMPROMISED", "B has it");
    let again = all[0].transfer(&z, "A").expect("its own");
    assert_eq!((again.is_fresh, again.record.token), (false, z.record.token));
}

#[test]
fn a_reader_gives_its_lock_to_a_story_whose_own_reader_died() {
    let (project, _, mut all) = bench(3);
    let x = project.file("x");
    all[0].has(&x, SHARED, "B");
    let mine = all[1].has(&x, SHARED, "A");
    all[2].has(&x, SHARED, "C");
    drop(all.remove(0));
    let given = all[0].transfer(&mine, "B").expect("the dead have nothing");
    assert_eq!(all[1].status().unreadable, [""; 0].map(std::path::PathBuf::from));
    let mut holders = all[1].holders(&x);
    holders.sort();
    assert_eq!(holders, ["B", "C"]);
    all[0].let_go(&[given]);
    assert_eq!(all[1].holders(&x), ["C"]);
}

#[test]
fn a_transfer_waits_for_nobody_though_a_set_is_kept_in_front() {
    // W wants x and y together: y is kept for it. A gives y away all the same, since it is held.
    let (project, _, mut all) = bench(2);
    let (x, y) = (project.file("x"), project.file("y"));
    let mine = all[0].has(&y, PLAIN, "A");
    all[0].has(&x, PLAIN, "A");
    let both = Acquire {
        paths: [kinded(&x, PLAIN, "W").paths, kinded(&y, PLAIN, "W").paths].concat(),
        queue: Some(8),
        ..kinded(&x, PLAIN, "W")
    };
    let asked = all[1].run(Step::Acquire(both));
    let Ok(Done::Queued(waits)) = asked else { unreachable!("{asked:?}") };
    all[0].transfer(&mine, "B").expect("in front of those who wait");
    all[0].release(&x, "A");
    assert!(!all[1].has_turn(waits));
    all[0].release(&y, "B");
    assert!(all[1].has_turn(waits));
}

#[test]
fn the_client_that_gave_a_lock_away_is_told_so_and_has_the_new_one() {
    let project = Project::new();
    let caller = project.caller();
    let path = project.file("x");
    let grant = caller.acquire(&path, "A", Lease::Bound).expect("free");
    let given = caller.transfer(&grant, "B").expect("its own");
    caller.given_up(&grant);
    assert!(caller.events().is_empty() && caller.verify(&given));
    assert!(!caller.let_go(&grant), "that one is gone");
    assert_eq!(caller.holder(&path).as_deref(), Some("B"));
    assert!(caller.let_go(&given));
    assert_eq!(project.records().len(), 0);
    // A lock that belongs to a scope goes with the scope.
    let scoped = caller.enter(&path, "A");
    assert_eq!(code(&caller.transfer(&scoped, "B")), "ERR_INVALID_STATE");
    assert!(caller.exit(&scoped));
}

#[test]
fn a_scope_whose_lock_was_adopted_ends_without_a_loss() {
    let project = Project::new();
    let (mine, other) = (project.caller(), project.caller());
    let path = project.file("x");
    let scoped = mine.enter(&path, "A");
    mine.offer(std::slice::from_ref(&scoped), "secret").expect("its own");
    let adopted =
        only(other.adopt(&ids(std::slice::from_ref(&scoped)), "secret").expect("offered"));
    mine.given_up(&scoped);
    let gone = mine.call(Call::LetGo { grants: ids(&[scoped]), scope: true, kinds: vec![PLAIN] });
    assert_eq!(gone, Ok(Reply::LetGo(vec![false])));
    assert!(!mine.events().iter().any(|told| matches!(told, Message::Lost { .. })));
    assert!(other.verify(&adopted));
}

#[test]
fn one_process_adopts_its_own_offer_and_other_clients_of_it_are_told() {
    let project = Project::new();
    let engine = project.engine();
    let (one, other) = (Caller::of(&engine), Caller::of(&engine));
    let path = project.file("src");
    let ask = kinds(&[(path.clone(), FOLDER)], "A", Lease::Bound);
    let first = only(one.acquire_all(ask.clone()).expect("free"));
    let joined = only(other.acquire_all(ask).expect("its story's"));
    assert_eq!(joined.record.token, first.record.token);
    one.offer(std::slice::from_ref(&first), "secret").expect("its own");
    let adopted = only(other.adopt(&ids(std::slice::from_ref(&first)), "secret").expect("offered"));
    one.given_up(&first);
    other.given_up(&joined);
    assert!(one.events().is_empty() && other.events().is_empty());
    assert!(other.let_go(&adopted));
    assert_eq!(project.records().len(), 0);
}

fn is_loss(told: &Message) -> bool {
    matches!(told, Message::Lost { .. })
}

#[test]
fn who_exported_a_lock_is_told_of_no_loss_though_it_looks_late() {
    // The adopter is done with it before its owner looks again.
    type After = fn(&mut Process, &storylock::store::Grant);
    let cases: [(&str, After); 3] = [
        ("gives it up", |adopter, grant| adopter.let_go(std::slice::from_ref(grant))),
        ("gives it away", |adopter, grant| drop(adopter.transfer(grant, "T").expect("its own"))),
        ("exports it on", |adopter, grant| {
            let (grants, digest) = (ids(std::slice::from_ref(grant)), "on".to_owned());
            let offer = Step::Offer { grants: grants.clone(), digest: digest.clone() };
            assert_eq!(adopter.run(offer), Ok(Done::Offered));
            assert!(adopter.run(Step::Adopt { grants, digest, lease: None }).is_ok());
        }),
    ];
    for (what, happens) in cases {
        let (project, clock, mut all) = bench(1);
        let mut owner = HandDesk::new(&project, &clock);
        let asked = owner.call(Call::Acquire(set(&[project.file("x")], "A", Lease::Bound)));
        let Ok(Reply::Locks(grants)) = asked else { unreachable!("{asked:?}") };
        let offer = Call::Offer { grants: ids(&grants), digest: "secret".to_owned() };
        assert_eq!(owner.call(offer), Ok(Reply::Offered));
        let step = Step::Adopt { grants: ids(&grants), digest: "secret".to_owned(), lease: None };
        let Ok(Done::Granted(adopted)) = all[0].run(step) else { unreachable!("it is offered") };
        happens(&mut all[0], &adopted[0]);
        owner.tend();
        let told = owner.events(0);
        assert_eq!(told.len(), 1, "the adopter {what}: {told:?}");
        assert!(!told.iter().any(is_loss), "the adopter {what}, as its owner wished: {told:?}");
    }
}

#[test]
fn whoever_shared_a_lock_that_another_client_gave_away_is_told_of_the_loss() {
    let project = Project::new();
    let engine = project.engine();
    let (giver, here, elsewhere) = (Caller::of(&engine), Caller::of(&engine), project.caller());
    let path = project.file("x");
    let grant = giver.acquire(&path, "A", LONG).expect("free");
    here.acquire(&path, "A", LONG).expect("its story's");
    elsewhere.acquire(&path, "A", LONG).expect("its story's");
    giver.transfer(&grant, "B").expect("nobody is in the way");
    giver.given_up(&grant);
    let told = elsewhere.loss(&grant);
    assert_eq!(told.code.as_str(), "ECOMPROMISED", "{told}");
    here.loss(&grant);
}
