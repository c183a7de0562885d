//! Where the locked and wanted paths are, so that what overlaps is found without looking at all of them.
//!
//! Promise: a path's way costs one look for each folder above it, and none at all while nobody has or
//! wants a folder with all below it; a folder's way costs what is below it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::key::Key;
use crate::kind::Extent;

/// The paths of keys.
#[derive(Debug, Default)]
pub struct Places {
    /// In order of their names, so that what is below a folder stands together.
    ordered: BTreeSet<(PathBuf, Key)>,
    paths: HashMap<Key, PathBuf>,
    /// The keys that somebody has, or wants, with all that is below.
    folders: HashSet<Key>,
}

impl Places {
    /// A key is at this path now, or nowhere; `is_folder` if with all that is below.
    pub fn set(&mut self, key: Key, path: Option<PathBuf>, is_folder: bool) {
        if is_folder {
            self.folders.insert(key);
        } else {
            self.folders.remove(&key);
        }
        if self.paths.get(&key) == path.as_ref() {
            return;
        }
        if let Some(path) = self.paths.remove(&key) {
            self.ordered.remove(&(path, key));
        }
        if let Some(path) = path {
            self.ordered.insert((path.clone(), key));
            self.paths.insert(key, path);
        }
    }

    /// Whether anybody has, or wants, a folder with all that is below.
    pub fn has_folders(&self) -> bool {
        !self.folders.is_empty()
    }

    /// The keys that may overlap this extent, its own first.
    pub fn near(&self, extent: &Extent) -> Vec<Key> {
        let mut near = vec![extent.key];
        if extent.path.as_os_str().is_empty() {
            return near;
        }
        if self.has_folders() {
            for above in extent.path.ancestors() {
                let there = self.from(above).take_while(|(path, _)| path == above);
                near.extend(there.map(|(_, key)| *key).filter(|key| self.folders.contains(key)));
            }
        }
        if extent.kind.recursive {
            let inside = self.from(&extent.path);
            let inside = inside.take_while(|(path, _)| path.starts_with(&extent.path));
            near.extend(inside.map(|(_, key)| *key));
        }
        near[1..].sort_unstable();
        near.dedup();
        let mut others = near.split_off(1);
        others.retain(|key| *key != extent.key);
        near.extend(others);
        near
    }

    fn from(&self, path: &Path) -> impl Iterator<Item = &(PathBuf, Key)> {
        self.ordered.range((path.to_owned(), Key([0; 32]))..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{Kind, Mode};

    fn key(path: &str) -> Key {
        Key::of(Path::new(path))
    }

    fn near(places: &Places, path: &str, recursive: bool) -> Vec<String> {
        let kind = Kind { mode: Mode::Exclusive, recursive };
        let near = places.near(&Extent { key: key(path), path: path.into(), kind });
        let named = |key: &Key| places.paths.get(key).map(|path| path.display().to_string());
        let mut named: Vec<String> = near[1..].iter().filter_map(named).collect();
        named.sort();
        named
    }

    #[test]
    fn what_is_above_and_below_is_near_and_namesakes_are_not() {
        let mut places = Places::default();
        for (path, is_folder) in [
            ("/p/src", true),
            ("/p/src/a", false),
            ("/p/src/a/x", false),
            ("/p/src/a-b", false),
            ("/p/src/ab", true),
            ("/p/lib", false),
        ] {
            places.set(key(path), Some(path.into()), is_folder);
        }
        assert_eq!(near(&places, "/p/src/a", false), ["/p/src"]);
        assert_eq!(near(&places, "/p/src/a", true), ["/p/src", "/p/src/a/x"]);
        assert_eq!(near(&places, "/p/src/ab/c/d", false), ["/p/src", "/p/src/ab"]);
        assert_eq!(near(&places, "/p/lib/x", true), [""; 0]);
        places.set(key("/p/src"), Some("/p/src".into()), false);
        places.set(key("/p/src/ab"), None, false);
        assert_eq!(near(&places, "/p/src/a", false), [""; 0]);
        assert!(!places.has_folders());
    }
}
