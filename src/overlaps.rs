//! What is held and wanted where, as far as extents overlap: the index seen by path.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::found::Unreadable;
use crate::index::Index;
use crate::key::Key;
use crate::kind::{Extent, Kind, Mode};
use crate::record::Record;
use crate::story::Story;

impl Index {
    /// The keys with records or queues that may overlap this extent, its own first.
    pub fn near(&self, extent: &Extent) -> Vec<Key> {
        self.places.near(extent)
    }

    /// Those of other stories whose locks conflict with this extent, as far as the records were noted.
    pub fn against(&self, extent: &Extent, story: &Story) -> Vec<(Key, &Record)> {
        let near = self.near(extent).into_iter();
        let holds = near.flat_map(|key| self.get(&key).iter().map(move |record| (key, record)));
        let others = holds.filter(|(_, record)| record.story_id != *story);
        others.filter(|(key, record)| self.extent(*key, record).conflicts(extent)).collect()
    }

    /// What a record is on. A record of the old module knows no links.
    pub fn extent(&self, key: Key, record: &Record) -> Extent {
        let path = self.known.get(&key).map(|known| known.path.clone());
        Extent { key, path: path.unwrap_or_default(), kind: record.kind() }
    }

    /// What is no record, at an extent's path, above it or below it. What cannot be told is all of that.
    pub fn unreadable_near(&self, extent: &Extent) -> Vec<(Key, Unreadable)> {
        if self.unreadable.is_empty() {
            return Vec::new();
        }
        let above: HashSet<Key> = extent.path.ancestors().skip(1).map(Key::of).collect();
        let is_near = |key: &Key, found: &Unreadable| {
            let whole = Kind { mode: Mode::Exclusive, recursive: true };
            match &found.path {
                Some(path) => {
                    let it = Extent { key: *key, path: path.clone(), kind: whole };
                    above.contains(key) || it.overlaps(extent)
                }
                None => above.contains(key) || extent.kind.recursive,
            }
        };
        let near = self.unreadable.iter().filter(|(key, found)| is_near(key, found));
        near.filter(|(key, _)| **key != extent.key).map(|(key, it)| (*key, it.clone())).collect()
    }

    /// What is at a key, as wide as the records and the queue there make it.
    pub fn extent_at(&self, key: &Key) -> Extent {
        let held = self.get(key).iter().map(|record| self.extent(*key, record));
        let wanted = self.queue(key).iter().map(|waiter| waiter.extent(*key));
        let wider =
            |one: Extent, other: Extent| Extent { kind: one.kind.joined(other.kind), ..one };
        let none = || Extent { key: *key, path: PathBuf::new(), kind: Kind::LEAST };
        held.chain(wanted).reduce(wider).unwrap_or_else(none)
    }

    /// Whether anybody waits for anything.
    pub fn is_waited_for(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Whether anybody has, or waits for, a folder with all that is below.
    pub fn has_folders(&self) -> bool {
        self.places.has_folders()
    }
}
