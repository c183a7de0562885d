//! A file system that does not enforce the kernel's locks is refused at opening: everything rests on them.
//!
//! A library loaded in front of the system's own makes `flock` say yes to everybody, as some network file
//! systems do.

#![cfg(target_os = "linux")]

mod common;

use std::process::Command;

use common::child::{self, Child};
use common::{LONG, Project, code, names};

const YES_TO_ALL: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn flock(_file: i32, _operation: i32) -> i32 {
    0
}
"#;

#[test]
#[ignore = "no test: what this file's child process does"]
fn role() {
    let Some(role) = child::role() else { return };
    let project = Project::at(&role.root);
    let caller = project.caller();
    for _ in 0..2 {
        let refused = caller.acquire(&project.file("a"), "A", LONG);
        assert_eq!(code(&refused), "ENOTSUP", "{refused:?}");
        let error = refused.expect_err("refused");
        assert!(error.message.contains("does not enforce kernel file locks"), "{error}");
        assert!(error.message.contains("Nothing was granted. Keep the project on a"), "{error}");
        assert_eq!(error.path.as_deref(), Some(project.locks().as_path()));
    }
    assert_eq!(project.records().len() + project.holders().len(), 0, "nothing was written");
    assert_eq!(caller.check(&project.file("a")), Ok(None), "looking is no harm");
    assert_eq!(caller.status().locks.len(), 0);
    role.say("refused");
}

#[test]
fn where_flock_lets_everybody_in_nothing_is_granted() {
    let project = Project::new();
    let source = project.file("yes.rs");
    let library = project.file("yes.so");
    std::fs::write(&source, YES_TO_ALL).expect("a source file");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--edition=2024", "--crate-type=cdylib", "-o", &library, &source])
        .status();
    assert!(built.expect("the compiler that built this test").success());

    let mut command = Child::command("", project.root(), "");
    command.env("LD_PRELOAD", library);
    let mut child = Child::spawn(command);
    assert_eq!(child.hear(), "refused");
    drop(child);
    let caller = project.caller();
    caller.acquire(&project.file("a"), "A", LONG).expect("on a kernel that enforces its locks");
    assert_eq!(names(&project.locks().join("holders")).len(), 1);
}
