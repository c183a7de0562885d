//! A lock that an operator takes back.

use storylock::call::{Call, Change, Order, What};
use storylock::change::{Action, Base, Edit};
use storylock::{Kind, Lease};

use crate::common::{
    FOLDER, LONG, Project, SHARED, code, ids, only, order, set, story, target, until,
};

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

#[test]
fn who_had_the_lock_is_told_by_whom_and_why_and_can_write_no_more() {
    let project = Project::new();
    let (mine, operator) = (project.caller(), project.caller());
    let path = project.file("x");
    let grant = mine.acquire(&path, "A", LONG).expect("free");
    let (removed, next) = operator.force(&path, order("stuck since noon")).expect("its order");
    assert_eq!(only(removed).record, grant.record);
    assert_eq!(next, []);
    let edit = Edit {
        target: target(&path),
        action: Action::Write { content: b"late".to_vec(), executable: None },
        base: Base::Any,
        make_parents: false,
    };
    let (what, grants) = (What::Edits(vec![edit]), ids(std::slice::from_ref(&grant)));
    let change =
        Change { story: story("A"), grants, what, durable: false, check: false, under_way: None };
    assert_eq!(code(&mine.call(Call::Change(change))), "EFENCED");
    assert!(!std::path::Path::new(&path).exists());
    let told = mine.loss(&grant);
    assert_eq!(told.code.as_str(), "ECOMPROMISED");
    let forced = told.forced.as_ref().expect("by whom and why");
    assert_eq!((forced.by.as_str(), forced.reason.as_str()), ("operator", "stuck since noon"));
    assert_eq!((forced.story_id.as_str(), forced.token), ("A", grant.record.token));
    assert!(told.message.contains("operator took it back: stuck since noon"), "{told}");
    assert!(!mine.verify(&grant) && !mine.let_go(&grant));
    operator.acquire(&path, "B", LONG).expect("free");
}

#[test]
fn the_next_in_line_gets_it_and_its_former_holder_is_told_why_all_the_same() {
    let project = Project::new();
    let (mine, waits, operator) = (project.caller(), project.caller(), project.caller());
    let path = project.file("x");
    let grant = mine.acquire(&path, "A", Lease::Bound).expect("free");
    let wait = |id: &str| {
        let ask = storylock::Ask { wait: storylock::call::Wait::Ever, ..set(&[&path], id, LONG) };
        waits.submit(Call::Acquire(ask))
    };
    let (first, second) = (wait("B"), wait("C"));
    until("both wait", || operator.status().waiting.len() == 2);
    let dry = Order { is_dry: true, ..order("to see") };
    let told = operator.force(&path, dry).expect("its order");
    assert_eq!(operator.holder(&path).as_deref(), Some("A"), "nothing was done");
    assert!(mine.verify(&grant));
    let (removed, next) = operator.force(&path, order("gone home")).expect("its order");
    let stories = |(removed, next): &(Vec<storylock::holder::Holder>, Vec<_>)| {
        let next = next.iter().map(|one: &storylock::store::Pending| one.waiter.story_id.clone());
        (removed.len(), next.collect::<Vec<_>>())
    };
    let (told, done) = (stories(&told), stories(&(removed, next)));
    assert_eq!(told, done, "it was told beforehand");
    assert_eq!(done, (1, vec![story("B"), story("C")]));
    let granted = waits.answer(first);
    assert!(matches!(granted, Ok(storylock::Reply::Locks(_))), "{granted:?}");
    let told = mine.loss(&grant);
    assert_eq!(told.forced.as_ref().map(|forced| forced.reason.as_str()), Some("gone home"));
    let successor = told.holder.as_ref().expect("who has it now");
    assert_eq!(successor.record.story_id.as_str(), "B");
    waits.release(&path, "B").expect("its own");
    let granted = waits.answer(second);
    assert!(matches!(granted, Ok(storylock::Reply::Locks(_))), "{granted:?}");
}

#[test]
fn one_of_several_readers_alone_can_be_forced_out() {
    let project = Project::new();
    let (one, other, operator) = (project.caller(), project.caller(), project.caller());
    let path = project.file("x");
    let grant = one.take(&path, SHARED, "A").expect("free");
    let stays = other.take(&path, SHARED, "B").expect("shared");
    let only_a = Order { story: Some(story("A")), ..order("asleep") };
    let (removed, _) = operator.force(&path, only_a).expect("its order");
    assert_eq!(only(removed).record.story_id, story("A"));
    let told = one.loss(&grant);
    assert!(told.forced.is_some(), "{told}");
    assert!(other.verify(&stays));
    assert_eq!(other.events().len(), 0);
    let nobody = Order { story: Some(story("Z")), ..order("not there") };
    assert_eq!(operator.force(&path, nobody).expect("its order").0, []);
    assert!(other.verify(&stays));
}

#[test]
fn each_of_several_readers_who_are_forced_out_is_told_why() {
    let project = Project::new();
    let (one, other, operator) = (project.caller(), project.caller(), project.caller());
    let path = project.file("x");
    let first = one.take(&path, SHARED, "A").expect("free");
    let second = other.take(&path, SHARED, "B").expect("shared");
    assert_eq!(operator.force(&path, order("all out")).expect("its order").0.len(), 2);
    for (caller, grant) in [(&one, &first), (&other, &second)] {
        let told = caller.loss(grant);
        let forced = told.forced.as_ref().map(|forced| forced.reason.as_str());
        assert_eq!(forced, Some("all out"), "{told}");
    }
}

#[test]
fn who_lost_a_lock_by_force_twice_is_told_the_reason_of_each() {
    let project = Project::new();
    let (mine, operator) = (project.caller(), project.caller());
    let path = project.file("x");
    for reason in ["first", "second"] {
        let grant = mine.acquire(&path, "A", LONG).expect("free");
        operator.force(&path, order(reason)).expect("its order");
        let told = mine.loss(&grant);
        let forced = told.forced.as_ref().map(|forced| forced.reason.as_str());
        assert_eq!(forced, Some(reason), "{told}");
    }
    // One that is lost otherwise is not said to be forced.
    let grant = mine.acquire(&path, "A", LONG).expect("free");
    operator.release(&path, "A").expect("in its name");
    assert_eq!(mine.loss(&grant).forced, None);
}

#[test]
fn what_is_only_part_of_a_folder_is_refused_and_the_folder_named() {
    let project = Project::new();
    let (mine, operator) = (project.caller(), project.caller());
    let (src, x) = (project.file("src"), project.file("src/x"));
    let folder = mine.take(&src, FOLDER, "A").expect("free");
    for is_dry in [true, false] {
        let refused = operator.force(&x, Order { is_dry, ..order("stuck") });
        assert_eq!(code(&refused), "ENOTACQUIRED");
        let error = refused.expect_err("part of a folder");
        assert_eq!(error.holder.as_ref().expect("a holder").record, folder.record, "{error}");
        assert!(error.message.contains(&format!("name {src}.")), "{error}");
    }
    assert!(mine.verify(&folder));
    // A lock of the file itself can be taken back, and the folder stays.
    let file = mine.take(&x, PLAIN, "A").expect("its own");
    let (removed, _) = operator.force(&x, order("stuck")).expect("its order");
    assert_eq!(only(removed).record.token, file.record.token);
    assert!(mine.verify(&folder) && !mine.verify(&file));
}

#[test]
fn where_nobody_is_nothing_is_removed() {
    let project = Project::new();
    let operator = project.caller();
    let nothing = (Vec::new(), Vec::new());
    assert_eq!(operator.force(&project.file("x"), order("nothing")), Ok(nothing.clone()));
    operator.take(&project.file("src/x"), PLAIN, "A").expect("free");
    assert_eq!(operator.force(&project.file("src"), order("nothing")), Ok(nothing), "below it");
}

#[test]
fn a_dead_mans_lock_and_what_is_no_record_can_be_cleared_away() {
    let project = Project::new();
    let (operator, path) = (project.caller(), project.file("x"));
    operator.cleanup("nobody").expect("opened");
    std::fs::write(project.record("x"), "half a rec").expect("rubbish");
    assert_eq!(code(&operator.acquire(&path, "B", LONG)), "EBADRECORD");
    let dry = Order { is_dry: true, ..order("to see") };
    assert_eq!(operator.force(&path, dry).expect("its order").0, []);
    assert_eq!(code(&operator.acquire(&path, "B", LONG)), "EBADRECORD", "nothing was done");
    assert_eq!(operator.force(&path, order("rubbish")).expect("its order").0, []);
    operator.acquire(&path, "B", LONG).expect("free");
    let aside = project.litter();
    assert!(only(aside).contains(".unreadable-"), "moved aside, not lost");
}
