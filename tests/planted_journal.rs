//! A journal that a repository carries: it makes storylock touch nothing that is not a change's own, and
//! stops nobody without saying what to remove.
//!
//! Journals of paths outside the project are in `change_kills.rs`.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::Path;

use common::odd::{BESIDE, ODD, assert_untouched, outside, prepared, tree};
use common::{LONG, Project, code};
use serde_json::{Value, json};

const JOURNAL: &str = ".ai/locks/.journal";

fn step(folder: &Path, name: &str, beside: &str, exists: bool, stays: bool) -> Value {
    json!({ "folder": folder, "name": name, "beside": beside, "exists": exists, "stays": stays, "inode": 1 })
}

fn plant_journal(project: &Project, steps: &[Value]) {
    fs::write(project.root().join(JOURNAL), Value::from(steps).to_string()).expect("a journal");
}

#[test]
fn a_journal_of_names_that_are_no_changes_is_removed_and_not_followed() {
    let project = prepared();
    let (root, src) = (project.root(), project.root().join("src"));
    let before = tree(&project);
    let journals = [
        step(root, "..", BESIDE, true, false),
        step(root, ".", BESIDE, true, false),
        step(root, "", BESIDE, true, false),
        step(root, "src/app.js", BESIDE, true, false),
        step(&src, "../app.js", BESIDE, true, false),
        step(root, "app.js", "app.js", true, false),
        step(root, "app.js", "../moved", true, false),
        step(root, "app.js", ".storylock-7/../moved", true, false),
        step(root, "app.js", "", true, false),
        step(root, ".git", BESIDE, true, false),
        step(root, ".Git", BESIDE, true, false),
        step(&root.join(".git"), "config", BESIDE, true, false),
        step(&root.join(".ai/locks"), ".guard", BESIDE, true, false),
        step(&root.join(".ai/locks/holders"), "1", BESIDE, true, false),
        step(&src.join("../.ai/locks"), ".guard", BESIDE, true, false),
        step(Path::new("src"), "app.js", BESIDE, true, false),
        step(Path::new("/"), "app.js", BESIDE, true, false),
        step(Path::new(""), "app.js", BESIDE, true, false),
        step(&root.join("nowhere"), "app.js", BESIDE, true, false),
        json!({ "folder": root, "name": "app.js" }),
        json!(null),
        json!("app.js"),
    ];
    for journal in journals {
        // One step that is refused stops those beside it that would not be.
        plant_journal(&project, &[step(root, "app.js", BESIDE, true, false), journal.clone()]);
        let caller = project.caller();
        let answer = caller.acquire(&project.file("other"), "A", LONG);
        assert_eq!(code(&answer), "no error", "{journal}: {answer:?}");
        assert!(!project.root().join(JOURNAL).exists(), "{journal}: it is removed");
        assert_eq!(tree(&project), before, "{journal}");
    }
}

/// Journals of steps that no change makes: they move folders, or the lock folder itself.
fn moves_of_folders(project: &Project) -> [(&'static str, Value); 5] {
    let root = project.root();
    [
        ("the folder of the state", step(root, ".ai", BESIDE, true, false)),
        ("the folder of the locks", step(&root.join(".ai"), "locks", BESIDE, true, false)),
        ("the folder of the view", step(&root.join(".ai"), "progress", BESIDE, true, false)),
        ("a folder of sources", step(root, "src", BESIDE, true, false)),
        ("a folder put in the place of a file", step(root, "app.js", BESIDE, true, true)),
    ]
}

#[test]
fn a_journal_moves_no_folder() {
    for number in 0..5 {
        let project = prepared();
        fs::create_dir(project.root().join(BESIDE)).expect("a folder");
        let (what, journal) = moves_of_folders(&project)[number].clone();
        if number < 4 {
            fs::remove_dir(project.root().join(BESIDE)).expect("removed");
        }
        let before = tree(&project);
        plant_journal(&project, &[journal]);
        let answer = project.caller().acquire(&project.file("other"), "A", LONG);
        assert_eq!(tree(&project), before, "defect 3: {what} was moved: {:?}", code(&answer));
        assert_eq!(code(&answer), "no error", "defect 3: {what}");
    }
}

#[test]
fn a_journal_that_no_process_of_this_project_wrote_is_not_followed() {
    let project = prepared();
    // Not tracked, so no `git checkout` brings it back.
    fs::write(project.root().join(".env"), "secret").expect("a file");
    plant_journal(&project, &[step(project.root(), ".env", BESIDE, true, false)]);
    project.caller().acquire(&project.file("other"), "A", LONG).expect("free");
    assert!(
        project.root().join(".env").exists(),
        "defect 4: the journal of a repository removed it"
    );
}

#[test]
fn a_journal_of_any_kind_is_removed_or_named_with_the_remedy() {
    for (what, plant) in ODD {
        let (_kept, theirs) = outside();
        let project = prepared();
        let before = tree(&project);
        let journal = project.root().join(JOURNAL);
        plant(&journal, &theirs);
        let caller = project.caller();
        if let Err(refused) = caller.acquire(&project.file("a"), "A", LONG) {
            assert_eq!(refused.path.as_deref(), Some(journal.as_path()), "{what}: {refused}");
            assert!(refused.message.contains("Nothing was granted."), "{what}: {refused}");
            assert!(refused.message.contains("remove it if it is not yours"), "{what}: {refused}");
            assert_eq!(caller.status().locks.len(), 0, "{what}");
            let removed = fs::remove_file(&journal).or_else(|_| fs::remove_dir_all(&journal));
            removed.expect("as the error advised");
            caller.acquire(&project.file("a"), "A", LONG).expect("free now");
        }
        assert!(journal.symlink_metadata().is_err(), "{what}: it is gone");
        assert_eq!(tree(&project), before, "{what}");
        assert_untouched(&theirs, what);
    }
}
