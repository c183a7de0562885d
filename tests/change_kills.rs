//! A change of several files that is killed: whoever comes next finds all of it done or none of it, and
//! nothing that was made on the way is left.
//!
//! The kill comes before each system call of the change, one after the other, and, for the engine with all
//! of its threads, at random moments.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::child::{self, Child, Role};
use common::trace::{End, killed_before, traced};
use common::{Caller, Project, names, set, story, target, until};
use storylock::call::{Change, What};
use storylock::change::Staged;
use storylock::files::Files;
use storylock::store::{Acquire, Done, Step, Store};
use storylock::{Call, Key, Kind, Lease, SystemClock, diff, workbench};

/// One file changed and made executable, one removed, one made in a folder that is not there yet, one
/// renamed and changed: every kind of step.
const DIFF: &str = "\
diff --git a/changed.sh b/changed.sh
old mode 100644
new mode 100755
--- a/changed.sh
+++ b/changed.sh
@@ -1,2 +1,2 @@
 one
-two
+TWO
diff --git a/removed.txt b/removed.txt
deleted file mode 100644
--- a/removed.txt
+++ /dev/null
@@ -1 +0,0 @@
-gone
diff --git a/new/made.txt b/new/made.txt
new file mode 100644
--- /dev/null
+++ b/new/made.txt
@@ -0,0 +1 @@
+made
diff --git a/before.txt b/after.txt
similarity index 60%
rename from before.txt
rename to after.txt
--- a/before.txt
+++ b/after.txt
@@ -1,3 +1,3 @@
 a
-b
+B
 c
";

const OLD: [(&str, &str, bool); 3] = [
    ("before.txt", "a\nb\nc\n", false),
    ("changed.sh", "one\ntwo\n", false),
    ("removed.txt", "gone\n", false),
];
const NEW: [(&str, &str, bool); 3] = [
    ("after.txt", "a\nB\nc\n", false),
    ("changed.sh", "one\nTWO\n", true),
    ("new/made.txt", "made\n", false),
];
const TOUCHED: [&str; 5] = ["after.txt", "before.txt", "changed.sh", "new/made.txt", "removed.txt"];

type Tree = BTreeMap<String, (String, bool)>;

fn tree(files: &[(&str, &str, bool)]) -> Tree {
    let file = |(name, content, run): &(&str, &str, bool)| {
        ((*name).to_owned(), ((*content).to_owned(), *run))
    };
    files.iter().map(file).collect()
}

/// The files of a project, with their contents and whether they may be run.
fn found(project: &Project) -> Tree {
    let mut tree = Tree::new();
    walk(project.root(), "", &mut tree);
    tree
}

fn walk(root: &Path, at: &str, tree: &mut Tree) {
    for name in names(&root.join(at)) {
        let below = if at.is_empty() { name } else { format!("{at}/{name}") };
        let path = root.join(&below);
        if below == ".ai" {
            continue;
        }
        if path.is_dir() {
            walk(root, &below, tree);
            continue;
        }
        let mode = path.metadata().expect("a file of the project").mode();
        let content = std::fs::read_to_string(&path).expect("a file of the project");
        tree.insert(below, (content, mode & 0o111 != 0));
    }
}

fn planted() -> Project {
    let project = Project::new();
    for (name, content, _) in OLD {
        std::fs::write(project.root().join(name), content).expect("a file of the project");
    }
    project
}

/// What a change makes beside its files and notes of itself: nothing of it may stay.
fn litter(project: &Project) -> Vec<String> {
    let mut litter: Vec<String> = found(project).into_keys().collect();
    litter.retain(|name| name.contains(".storylock-"));
    litter.extend(names(&project.locks().join("staged")));
    litter.extend(names(&project.locks()).into_iter().filter(|name| name == ".journal"));
    litter
}

#[test]
#[ignore = "no test: what this file's child processes do"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    match role.name.as_str() {
        "changer" => change_by_hand(&role, &project),
        "worker" => {
            let caller = project.caller();
            let grants = locked(&caller, &project, "A");
            role.say("works");
            changed(&caller, &project, "A", grants).expect("nothing is in the way");
            role.say("done");
            role.stay();
        }
        name => unreachable!("no role {name}"),
    }
}

/// The whole change on one thread, as the engine does it on several.
fn change_by_hand(role: &Role, project: &Project) {
    let mut store = Files::new(project.root(), Arc::new(SystemClock));
    let located = |path: String| (target(&path).locate().expect("located"), Kind::default());
    let acquire = Step::Acquire(Acquire {
        paths: project.files(&TOUCHED).into_iter().map(located).collect(),
        story: story("A"),
        lease: Lease::Bound,
        detached: false,
        reason: None,
        queue: None,
    });
    let done = store.run(&[acquire]).answers.remove(0).expect("free");
    let Done::Granted(grants) = done else { unreachable!("{done:?} answers no acquire") };
    let grants: Vec<(Key, u64)> =
        grants.iter().map(|grant| (grant.key, grant.record.token)).collect();
    traced(role, || {
        let workshop = store.begin_change(&grants).0.expect("a place for notes");
        let edits = diff::edits(DIFF.as_bytes(), project.root()).expect("a diff that applies");
        let staged = Staged::stage(edits, &workshop.covers, &workshop.notes, &workshop.name, false);
        let change = Arc::new(Mutex::new(staged.expect("ready")));
        let step = Step::Commit { grants, story: story("A"), change: Arc::clone(&change) };
        store.run(&[step]).answers.remove(0).expect("nothing is in the way");
        let mut change = change.lock().expect("nobody else has it");
        change.flush().expect("flushed");
        workbench::discard(&mut change, &project.locks().join("staged"));
    });
}

fn locked(caller: &Caller, project: &Project, story_id: &str) -> Vec<(Key, u64)> {
    let grants = caller.acquire_all(set(&project.files(&TOUCHED), story_id, Lease::Bound));
    let grants = grants.expect("free: its holder is dead");
    grants.iter().map(|grant| (grant.key, grant.record.token)).collect()
}

fn changed(
    caller: &Caller,
    project: &Project,
    story_id: &str,
    grants: Vec<(Key, u64)>,
) -> Result<storylock::Reply, storylock::Error> {
    let diff = DIFF.as_bytes().to_vec();
    let what = What::Diff { diff, root: project.root().to_owned() };
    let change = Change {
        story: story(story_id),
        grants,
        what,
        durable: false,
        check: false,
        under_way: None,
    };
    caller.call(Call::Change(change))
}

/// What is there once somebody has taken one of the paths: all of it done, or none.
fn settled(project: &Project, caller: &Caller, when: &str) -> bool {
    let one = project.file("changed.sh");
    caller.acquire(&one, "B", Lease::Bound).unwrap_or_else(|e| unreachable!("{when}: {e}"));
    let tree: Tree =
        found(project).into_iter().filter(|(name, _)| !name.contains(".storylock-")).collect();
    assert!(tree == self::tree(&OLD) || tree == self::tree(&NEW), "{when}: {tree:?}");
    caller.release(&one, "B").expect("its own");
    tree == self::tree(&NEW)
}

/// One more change is all it takes until nothing is left of the killed one.
fn check_that_nothing_stays(project: &Project, caller: &Caller, is_done: bool, when: &str) {
    let grants = locked(caller, project, "C");
    let outcome = changed(caller, project, "C", grants);
    assert_eq!(outcome.is_ok(), !is_done, "{when}: {outcome:?}");
    assert_eq!(found(project), tree(&NEW), "{when}");
    caller.cleanup("C").expect("cleaned");
    until("what was made on the way is gone", || litter(project).is_empty());
}

/// Kills a change before every second of its system calls.
fn kill_at_steps(first: usize, is_newcomer: bool) {
    let mut outcomes = [0, 0];
    for number in (first..).step_by(2) {
        let project = planted();
        // One that was there before must see the journal as well as one that comes then.
        let witness = project.caller();
        witness.cleanup("nobody").expect("cleaned");
        let mut child = Child::start("changer", project.root(), "");
        let end = killed_before(&mut child, number);
        let caller = if is_newcomer { project.caller() } else { witness };
        let when = format!("{end:?}");
        if end == End::Untraceable {
            let skipped = "skipped: this system lets no process trace its child";
            writeln!(std::io::stderr(), "{skipped}").expect("a place to say so");
            return;
        }
        let is_done = settled(&project, &caller, &when);
        outcomes[usize::from(is_done)] += 1;
        check_that_nothing_stays(&project, &caller, is_done, &when);
        if matches!(end, End::Done(_)) {
            assert!(is_done, "{when}: what was answered as done is done");
            assert!(number > 60, "it was killed at {number} steps, which are not all");
            assert!(outcomes.iter().all(|count| *count > 2), "{outcomes:?} before and after");
            return;
        }
    }
}

#[test]
fn a_kill_at_any_step_of_a_change_is_made_good_by_whoever_comes_then() {
    kill_at_steps(0, true);
}

#[test]
fn a_kill_at_any_step_between_is_made_good_by_one_who_was_there_before() {
    kill_at_steps(1, false);
}

#[test]
fn kills_at_random_moments_leave_all_of_a_change_or_none() {
    let mut outcomes = [0, 0];
    for round in 0_u64..200 {
        let project = planted();
        let mut worker = Child::start("worker", project.root(), "");
        assert_eq!(worker.hear(), "works");
        // Spread over what the change takes, in no order.
        std::thread::sleep(Duration::from_micros(round * 7919 % 2000));
        worker.kill();
        let caller = project.caller();
        let when = format!("round {round}");
        let is_done = settled(&project, &caller, &when);
        outcomes[usize::from(is_done)] += 1;
        check_that_nothing_stays(&project, &caller, is_done, &when);
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?} before and after");
}

/// The journal of a killed change of one file, with its new content made as `inode` tells.
fn plant_journal(project: &Project, folder: &Path, name: &str, beside: &str, stays: bool) {
    let inode = std::fs::metadata(folder.join(beside)).map_or(0, |metadata| metadata.ino());
    let step = serde_json::json!({
        "folder": folder, "name": name, "beside": beside, "exists": true, "stays": stays,
        "inode": inode,
    });
    let journal = serde_json::Value::from(vec![step]).to_string();
    std::fs::write(project.locks().join(".journal"), journal).expect("a journal");
}

#[test]
fn a_journal_touches_nothing_outside_the_project() {
    let project = planted();
    project.caller().cleanup("nobody").expect("cleaned");
    let outside = tempfile::tempdir().expect("a folder");
    let outside = outside.path().canonicalize().expect("a canonical path");
    std::fs::write(outside.join("theirs"), "theirs").expect("a file of others");
    let up = "../".repeat(project.root().components().count());
    let detour = project.root().join(up.trim_end_matches('/'));
    let detour = detour.join(outside.strip_prefix("/").expect("an absolute path"));
    std::os::unix::fs::symlink(&outside, project.root().join("link")).expect("a link");
    for folder in [outside.clone(), detour, project.root().join("link")] {
        plant_journal(&project, &folder, "theirs", ".storylock-1-1-0", false);
        // Whether this is refused or passed over, their file stays.
        let _ = project.caller().cleanup("nobody");
        assert!(outside.join("theirs").exists(), "{} was followed", folder.display());
        let _ = std::fs::remove_file(project.locks().join(".journal"));
    }
}

#[test]
fn a_journal_whose_files_were_cleaned_away_does_not_stop_the_project() {
    let project = planted();
    project.caller().cleanup("nobody").expect("cleaned");
    // `git clean -fd` after the kill: what is not tracked goes, what is ignored stays.
    plant_journal(&project, project.root(), "changed.sh", ".storylock-1-1-0", true);
    let caller = project.caller();
    let path = project.file("changed.sh");
    caller.acquire(&path, "B", Lease::Bound).expect("nothing is left to be made good");
}
