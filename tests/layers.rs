//! The architecture, kept by a tool: the table in `src/lib.rs` says which module stands above which, and a
//! module uses only what stands below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The only uses that go upward, each a debt: the user, the used.
const UPWARD: [(&str, &str); 3] = [("error", "holder"), ("queue", "publish"), ("root", "ground")];

/// The only files beside `sys/` that know the operating system, each a debt.
const KNOW_THE_SYSTEM: [&str; 2] = ["errno.rs", "key.rs"];

/// No file is longer.
const MOST_LINES: usize = 400;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All source files: their paths below `src`, and their text.
fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![sources()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(sources()).expect("below it").display().to_string();
                files.insert(name, std::fs::read_to_string(path).expect("a source file"));
            }
        }
    }
    files
}

/// Which module a file belongs to: `sys` for all of `sys/`.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or(file)
}

/// The text without its comments and string literals, which may speak of anything.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let mut pieces = line.split('"');
        let mut plain = pieces.next().unwrap_or_default().to_owned();
        // Every other piece is within quotes; what follows a comment mark outside of them is gone.
        for (number, piece) in pieces.enumerate() {
            if plain.contains("//") {
                break;
            }
            if number % 2 == 1 {
                plain.push_str(piece);
            }
        }
        code.push_str(plain.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The modules that a text names as `crate::module` or in `crate::{…}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => {
                rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
            }
        };
        for item in list.split(',') {
            let name = item.trim().split("::").next().unwrap_or_default();
            used.extend((!name.is_empty()).then(|| name.to_owned()));
        }
    }
    used
}

/// The rows of the table, the highest first.
fn rows() -> Vec<Vec<String>> {
    let lib = std::fs::read_to_string(sources().join("lib.rs")).expect("lib.rs");
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [")).map(|line| {
        let cell = line.split('|').next().unwrap_or_default();
        words(cell).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    });
    rows.collect()
}

/// The row of each module, counted from the top.
fn heights() -> BTreeMap<String, usize> {
    let mut heights = BTreeMap::new();
    for (height, row) in rows().into_iter().enumerate() {
        for module in row {
            let before = heights.insert(module.clone(), height);
            assert_eq!(before, None, "{module} stands in the table once");
        }
    }
    heights
}

#[test]
fn the_table_names_every_module() {
    let modules: BTreeSet<String> =
        files().keys().map(|file| module(file).to_owned()).filter(|name| name != "lib").collect();
    let named: BTreeSet<String> = heights().into_keys().collect();
    assert_eq!(named, modules, "the table in lib.rs and the files in src/");
}

#[test]
fn a_module_uses_only_what_stands_below_it() {
    let heights = heights();
    let mut upward = BTreeSet::new();
    let mut level: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in files() {
        let user = module(&file);
        let Some(height) = heights.get(user) else { continue };
        for used in used(&code(&text)).into_iter().filter(|used| used != user) {
            let Some(other) = heights.get(&used) else {
                unreachable!("{file} uses crate::{used}, which is no module")
            };
            if other < height {
                upward.insert((user.to_owned(), used));
            } else if other == height {
                level.entry(user.to_owned()).or_default().insert(used);
            }
        }
    }
    let known: BTreeSet<(String, String)> =
        UPWARD.iter().map(|(user, used)| (user.to_string(), used.to_string())).collect();
    assert_eq!(upward, known, "left: uses that go upward; right: those known, each still needed");
    assert_eq!(circle(&level), None, "modules of one row use each other in a circle");
}

/// A module that reaches itself.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let reaches = |start: &String| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&String> = vec![start];
        while let Some(user) = open.pop() {
            for used in uses.get(user).into_iter().flatten() {
                if reached.insert(used) {
                    open.push(used);
                }
            }
        }
        reached.contains(start)
    };
    uses.keys().find(|user| reaches(user)).cloned()
}

#[test]
fn only_the_binding_knows_node() {
    for (file, text) in files() {
        let knows = words(&code(&text)).any(|word| word.starts_with("napi"));
        let may =
            matches!(file.as_str(), "node.rs" | "port.rs" | "asked.rs" | "told.rs" | "shapes.rs");
        assert_eq!(knows, may, "{file} and napi");
    }
}

#[test]
fn only_sys_knows_the_operating_system() {
    let system = ["rustix", "target_os", "unix", "windows", "libc"];
    let mut known = BTreeSet::new();
    for (file, text) in files() {
        // Tests may make links and the like.
        let code = code(&text);
        let code = code.split("#[cfg(all(test").next().unwrap_or_default();
        let knows = words(code).any(|word| system.contains(&word));
        if knows && module(&file) != "sys" {
            known.insert(file);
        }
    }
    let debts: BTreeSet<String> = KNOW_THE_SYSTEM.iter().map(|file| file.to_string()).collect();
    assert_eq!(known, debts, "left: files beside sys/ that know the system; right: those known");
}

#[test]
fn only_the_binding_is_unsafe() {
    for (file, text) in files() {
        let is_unsafe = words(&code(&text)).any(|word| word == "unsafe");
        assert!(
            !is_unsafe || matches!(file.as_str(), "node.rs" | "port.rs"),
            "{file} has unsafe code"
        );
    }
}

#[test]
fn no_file_is_long() {
    let lines = files().into_iter().map(|(file, text)| (file, text.lines().count()));
    let long: Vec<_> = lines.filter(|(_, lines)| *lines > MOST_LINES).collect();
    assert!(long.is_empty(), "longer than {MOST_LINES} lines: {long:?}");
}

#[test]
fn a_file_says_first_what_it_is() {
    for (file, text) in files() {
        assert!(text.starts_with("//! "), "{file} begins with what it promises");
    }
}
