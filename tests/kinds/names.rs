//! Things that are no files: `@git/index`, `@port/3000`.

use storylock::call::{Change, What};
use storylock::change::{Action, Base, Edit};
use storylock::{Call, Kind, Target};

use crate::bench;
use crate::common::{FOLDER, Project, SHARED, code, ids, names, story, target};

const PLAIN: Kind = Kind { mode: storylock::Mode::Exclusive, recursive: false };

#[test]
fn a_name_is_locked_as_it_is_and_makes_no_file() {
    let (project, _, mut all) = bench(2);
    let grant = all[0].has("@git/index", PLAIN, "A");
    assert_eq!(grant.record.file_path, std::path::Path::new("@git/index"));
    assert_eq!(grant.record.canonical, None);
    let refused = all[1].ask("@git/index", SHARED, "B").expect_err("held");
    assert!(refused.message.starts_with("@git/index is locked by A (pid "), "{refused}");
    assert_eq!(project.viewed(), ["@git/index"]);
    assert_eq!(names(project.root()), [".ai"], "nothing of it is in the project");
    // Names are a project's own.
    let (_other, _, mut others) = bench(1);
    others[0].has("@git/index", PLAIN, "B");
    all[0].let_go(&[grant]);
    all[1].has("@git/index", SHARED, "B");
}

#[test]
fn all_names_below_a_name_are_locked_with_it_and_namesakes_are_not() {
    let (_project, _, mut all) = bench(2);
    all[0].has("@port", FOLDER, "A");
    for name in ["@port", "@port/3000", "@port/tcp/22"] {
        assert_eq!(code(&all[1].ask(name, SHARED, "B")), "ELOCKED", "{name}");
    }
    for name in ["@ports", "@porter/3000", "@git"] {
        all[1].has(name, FOLDER, "B");
    }
    let waits = all[1].wait_for("@port/3000", PLAIN, "B");
    all[0].release("@port", "A");
    assert!(all[1].has_turn(waits));
    assert_eq!(code(&all[0].ask("@port", FOLDER, "A")), "ELOCKED");
}

#[test]
fn a_file_that_is_called_like_a_name_is_another_thing() {
    let (project, _, mut all) = bench(2);
    let file = project.file("@git/index");
    all[0].has("@git/index", PLAIN, "A");
    all[1].has(&file, PLAIN, "B");
    let root = project.root().to_str().expect("UTF-8");
    let refused = all[0].ask(root, FOLDER, "A").expect_err("B has a file in it");
    assert_eq!(refused.holders.len(), 1, "no name is in a folder: {refused}");
    all[1].release(&file, "B");
    all[1].has("@elsewhere", PLAIN, "B");
    all[0].has(root, FOLDER, "A");
    assert_eq!(Target::new("./@git").map(|target| target.is_name()), Ok(false));
}

#[test]
fn what_is_no_name_is_refused_before_anything_is_touched() {
    for name in ["@", "@/", "@a/", "@a//b", "@a/../b", "@./b", "@..", "@a/.", "@/a", "@a\0"] {
        let refused = Target::new(name);
        assert_eq!(code(&refused), "ERR_INVALID_ARG_VALUE", "{name:?}");
    }
    for name in ["@a", "@a b/c", "@a@b", "@npm/install", "@ä/…", "@a/..b", "@@scope/a"] {
        assert_eq!(Target::new(name).map(|target| target.is_name()), Ok(true), "{name:?}");
    }
}

#[test]
fn nothing_is_written_to_a_name() {
    let project = Project::new();
    let caller = project.caller();
    let grant = caller.take("@git", FOLDER, "A").expect("free");
    let edit = Edit {
        target: target("@git/index"),
        action: Action::Write { content: b"x".to_vec(), executable: None },
        base: Base::Any,
        make_parents: true,
    };
    let change = Change {
        story: story("A"),
        grants: ids(&[grant]),
        what: What::Edits(vec![edit]),
        durable: false,
        check: false,
        under_way: None,
    };
    let refused = caller.call(Call::Change(change)).expect_err("no file");
    assert_eq!(refused.code.as_str(), "ERR_INVALID_ARG_VALUE", "{refused}");
    assert_eq!(names(project.root()), [".ai"]);
}
