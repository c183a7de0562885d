//! A change is made under a lock of the file or of a folder above it, that its story has alone.

use std::path::PathBuf;

use storylock::call::{Ask, Change, Wait, What};
use storylock::change::{Action, Base, Edit};
use storylock::store::Grant;
use storylock::{Call, Error, Kind, Lease, Message, Reply};

use crate::bench;
use crate::common::{
    Caller, FOLDER, Project, SHARED, SHARED_FOLDER, code, ids, names, set, story, target,
};
use crate::lines::Counter;

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

fn write(caller: &Caller, paths: &[String], id: &str, grants: &[Grant]) -> Result<Reply, Error> {
    let edit = |path: &String| Edit {
        target: target(path),
        action: Action::Write { content: b"new".to_vec(), executable: None },
        base: Base::Any,
        make_parents: true,
    };
    let what = What::Edits(paths.iter().map(edit).collect());
    let (story, grants) = (story(id), ids(grants));
    caller.call(Call::Change(Change {
        story,
        grants,
        what,
        durable: false,
        check: false,
        under_way: None,
    }))
}

fn is_new(path: &str) -> bool {
    std::fs::read(path).is_ok_and(|content| content == b"new")
}

#[test]
fn a_folders_lock_is_for_every_file_below_it_and_for_no_other() {
    let project = Project::new();
    let caller = project.caller();
    let folder = [caller.take(&project.file("src"), FOLDER, "A").expect("free")];
    let files = project.files(&["src/a", "src/deep/new/b"]);
    write(&caller, &files, "A", &folder).expect("below the folder");
    assert!(files.iter().all(|path| is_new(path)));
    for name in ["srcx/a", "lib/a", "a"] {
        let path = project.file(name);
        let refused = write(&caller, &[files[0].clone(), path.clone()], "A", &folder);
        assert_eq!(code(&refused), "EFENCED", "{name}");
        let error = refused.expect_err("beside the folder");
        assert_eq!(error.path, Some(PathBuf::from(&path)), "{error}");
        assert!(!std::path::Path::new(&path).exists());
    }
    assert_eq!(names(&project.root().join(".ai/locks/staged")), [""; 0], "nothing is left");
}

#[test]
fn the_lock_of_a_folder_alone_is_for_nothing_below_it() {
    let project = Project::new();
    let caller = project.caller();
    let folder = [caller.take(&project.file("src"), PLAIN, "A").expect("free")];
    let path = project.file("src/a");
    assert_eq!(code(&write(&caller, std::slice::from_ref(&path), "A", &folder)), "EFENCED");
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn readers_do_not_write() {
    let project = Project::new();
    let caller = project.caller();
    let path = project.file("src/a");
    std::fs::create_dir(project.root().join("src")).expect("a folder");
    std::fs::write(&path, "old").expect("a file");
    let file = caller.take(&path, SHARED, "A").expect("free");
    let folder = caller.take(&project.file("src"), SHARED_FOLDER, "A").expect("free");
    for grants in [vec![file.clone()], vec![folder.clone()], vec![folder.clone(), file.clone()]] {
        let refused = write(&caller, std::slice::from_ref(&path), "A", &grants);
        assert_eq!(code(&refused), "ENOTACQUIRED", "{refused:?}");
        let error = refused.expect_err("shared");
        assert!(error.message.contains("readers do not write"), "{error}");
    }
    assert!(!is_new(&path));
    let file = caller.take(&path, PLAIN, "A").expect("nobody else reads");
    write(&caller, std::slice::from_ref(&path), "A", &[folder, file])
        .expect("one of them is its own alone");
    assert!(is_new(&path));
}

#[test]
fn one_who_lowered_its_lock_writes_no_more_until_it_is_raised_again() {
    let project = Project::new();
    let caller = project.caller();
    let path = project.file("a");
    let grant = [caller.take(&path, PLAIN, "A").expect("free")];
    caller.lower(&grant[0], SHARED).expect("its own");
    assert_eq!(code(&write(&caller, std::slice::from_ref(&path), "A", &grant)), "ENOTACQUIRED");
    caller.take(&path, PLAIN, "A").expect("nobody else reads");
    write(&caller, std::slice::from_ref(&path), "A", &grant).expect("the same lock");
    assert!(is_new(&path));
}

#[test]
fn one_who_gave_its_lock_away_writes_no_more() {
    let project = Project::new();
    let (caller, other) = (project.caller(), project.caller());
    let path = project.file("src/a");
    let given = [caller.take(&project.file("src"), FOLDER, "A").expect("free")];
    let next = caller.transfer(&given[0], "B").expect("nobody is in the way");
    assert_eq!(code(&write(&caller, std::slice::from_ref(&path), "A", &given)), "EFENCED");
    assert_eq!(code(&write(&caller, std::slice::from_ref(&path), "B", &given)), "EFENCED");
    caller.offer(std::slice::from_ref(&next), "secret").expect("its own");
    let adopted = other.adopt(&ids(std::slice::from_ref(&next)), "secret").expect("offered");
    assert_eq!(code(&write(&caller, std::slice::from_ref(&path), "B", &[next])), "EFENCED");
    assert!(!std::path::Path::new(&path).exists());
    write(&other, std::slice::from_ref(&path), "B", &adopted).expect("its own by now");
    assert!(is_new(&path));
}

#[test]
fn a_folder_named_through_a_link_is_the_lock_of_what_is_below_it() {
    let project = Project::new();
    let caller = project.caller();
    std::fs::create_dir(project.root().join("src")).expect("a folder");
    std::os::unix::fs::symlink("src", project.file("link")).expect("a link");
    let folder = [caller.take(&project.file("link"), FOLDER, "A").expect("free")];
    for name in ["link/a", "src/b"] {
        write(&caller, &[project.file(name)], "A", &folder).expect("below the folder");
    }
    // The link leads elsewhere from now on: what is locked stays what it was.
    std::fs::remove_file(project.file("link")).expect("the link");
    std::os::unix::fs::symlink("lib", project.file("link")).expect("a link");
    assert_eq!(code(&write(&caller, &[project.file("link/c")], "A", &folder)), "EFENCED");
    write(&caller, &[project.file("src/c")], "A", &folder).expect("below the folder");
}

#[test]
fn while_a_change_begins_nobodys_turn_and_nobodys_loss_is_forgotten() {
    let (project, clock, mut others) = bench(1);
    let mut counter = Counter::new(&project, &clock);
    let (x, y) = (project.file("x"), project.file("y"));
    others[0].has(&x, PLAIN, "B");
    let take = |path: &str| Call::Acquire(set(&[path], "A", Lease::Bound));
    let mine = counter.call(0, take(&y));
    let Some(Ok(Reply::Locks(grants))) = counter.answer(0, mine) else { unreachable!("y is free") };
    let wait = Ask { wait: Wait::Ever, ..set(&[&x], "C", Lease::Bound) };
    let waits = counter.call(0, Call::Acquire(wait));
    // Both in the time between two looks of this process; then the change is the first to look.
    others[0].release(&x, "B");
    others[0].cleanup("A");
    let _ = counter.desk.begin_change(&ids(&grants));
    for _ in 0..3 {
        counter.tend();
    }
    assert!(counter.has_locks(0, waits), "x is C's: {:?}", others[0].holder(&x));
    let lost = |told: &Message| matches!(told, Message::Lost { key, .. } if *key == grants[0].key);
    assert_eq!(counter.events(0).iter().filter(|told| lost(told)).count(), 1, "y is lost");
}
