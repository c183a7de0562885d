//! What a repository can carry where storylock keeps its state: links, devices, giants, and a project with
//! files that must stay as they are.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::{Project, names, say_skipped};

/// A name that a change of a holder long dead may have made beside a file.
pub const BESIDE: &str = ".storylock-7-8-0";

/// A project whose folders are made, with some files of its own.
pub fn prepared() -> Project {
    let project = Project::new();
    project.caller().cleanup("nobody").expect("cleaned");
    fs::create_dir_all(project.root().join("src/deep")).expect("folders");
    fs::create_dir_all(project.root().join(".git")).expect("a folder");
    for name in ["app.js", "src/app.js", "src/deep/app.js", ".git/config"] {
        fs::write(project.root().join(name), name).expect("a file");
    }
    project
}

/// Every name of the project but those of its locks, each with what it is.
pub fn tree(project: &Project) -> Vec<String> {
    let mut all = Vec::new();
    walk(project.root(), &mut all);
    all.sort();
    all
}

fn walk(folder: &Path, all: &mut Vec<String>) {
    for name in names(folder) {
        let path = folder.join(name);
        let metadata = path.symlink_metadata().expect("there");
        if path.ends_with(".ai/locks") || path.ends_with(".ai/progress") {
            all.push(format!("{} {}", path.display(), metadata.ino()));
        } else if metadata.is_dir() {
            all.push(path.display().to_string());
            walk(&path, all);
        } else {
            let content = fs::read(&path).unwrap_or_default();
            all.push(format!("{} {content:?}", path.display()));
        }
    }
}

/// Makes something at a place; what is there may be told apart by what `outside` holds.
pub type Plant = fn(&Path, &Path);

pub const ODD: [(&str, Plant); 8] = [
    ("a link", |place, outside| symlink(outside, place).expect("a link")),
    ("a dangling link", |place, _| symlink("nowhere", place).expect("a link")),
    ("a FIFO", |place, _| node(place, rustix::fs::FileType::Fifo, 0)),
    ("a device without end", |place, _| {
        // /dev/zero
        node(place, rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 5));
    }),
    ("a folder", |place, _| fs::create_dir_all(place.join("full")).expect("a folder")),
    ("1 GB of nothing", |place, _| {
        File::create(place).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    }),
    ("binary", |place, _| fs::write(place, [0, 159, 146, 150, 255]).expect("a file")),
    ("nested without end", |place, _| fs::write(place, "[".repeat(60_000)).expect("a file")),
];

pub fn node(place: &Path, kind: rustix::fs::FileType, device: u64) {
    use rustix::fs::{CWD, Mode, mknodat};
    if let Err(cause) = mknodat(CWD, place, kind, Mode::RUSR | Mode::WUSR, device) {
        say_skipped(&format!("no device can be made here: {cause}"));
        fs::write(place, "nothing odd").expect("a file");
    }
}

/// A file of others.
pub fn outside() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let file = dir.path().join(BESIDE);
    fs::write(&file, "theirs").expect("a file");
    (dir, file)
}

pub fn assert_untouched(file: &Path, what: &str) {
    assert_eq!(fs::read_to_string(file).expect("there"), "theirs", "{what}");
    assert_eq!(names(file.parent().expect("a folder")).len(), 1, "{what}");
}
