//! After every deed: what is on the disk, and what is shown of it, is what the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use storylock::key::Key;
use storylock::record::Record;
use storylock::store::{Status, Store};

use crate::bench::Bench;
use crate::deeds::{Kind, PATHS, STORIES, Want};
use crate::rules::conflict;

impl Bench {
    /// Which path and story a record is of.
    pub(crate) fn named(&self, record: &Record) -> (usize, usize) {
        let path = record.extent(Key([0; 32])).path;
        let story = STORIES.iter().position(|id| *id == record.story_id.as_str());
        (self.number(&path), story.expect("a story of ours"))
    }

    fn number(&self, canonical: &std::path::Path) -> usize {
        self.keys[&Key::of(canonical)]
    }

    /// Compares everything. Of several locks that nobody gave up, whoever looks first finds its own
    /// first: `in_any_order`.
    pub(crate) fn compare(&mut self, in_any_order: bool) {
        let status = self.looker.status();
        assert!(status.unreadable.is_empty() && status.error.is_none(), "{status:?}");
        let mut live: BTreeMap<(usize, usize), Record> = BTreeMap::new();
        self.stale.clear();
        for lock in &status.locks {
            let record = lock.holder.record.clone();
            let named = self.named(&record);
            if lock.is_stale {
                self.stale.insert(named);
            } else {
                let remaining = self.model.own(named.0, named.1).map(|own| own.end);
                let end = lock.holder.remaining_ms.map(|ms| ms + self.model.now);
                assert!(remaining.is_none_or(|right| right == end), "{named:?} ends at {end:?}");
                assert!(live.insert(named, record).is_none(), "twice");
            }
        }
        check_that_all_can_stand_together(&live);
        let told: BTreeSet<_> = live.keys().copied().collect();
        let right: BTreeSet<_> =
            self.model.held.iter().map(|hold| (hold.path, hold.story)).collect();
        assert_eq!(words(&told), words(&right), "who holds what");
        self.compare_holds(&live, in_any_order);
        let waits = self.compare_waiters(&status);
        self.compare_view(&right, &waits);
    }

    fn compare_holds(&mut self, live: &BTreeMap<(usize, usize), Record>, in_any_order: bool) {
        let sessions: Vec<_> = self.processes.iter().map(|one| one.store.session()).collect();
        self.model.held.sort_by_key(|hold| hold.number);
        let mut last = self.highest;
        for hold in &mut self.model.held {
            let record = &live[&(hold.path, hold.story)];
            let what = words(&BTreeSet::from([(hold.path, hold.story)]));
            assert_eq!(Kind::of(record.kind()), hold.kind, "{what:?}");
            assert_eq!(record.waiter, hold.waiter, "{what:?}");
            assert_eq!(record.offer, hold.offer, "{what:?}");
            let from = record.raised.as_ref().map(|raised| Kind::of(raised.from));
            assert_eq!(from, hold.from, "{what:?}: what it was raised from");
            assert_eq!(record.detached, hold.detached, "{what:?}");
            match hold.process {
                Some(process) => assert_eq!(Some(record.holder), sessions[process], "{what:?}"),
                None => assert!(!sessions.contains(&Some(record.holder)), "{what:?} is detached"),
            }
            let known = hold.token.unwrap_or(record.token);
            assert_eq!(record.token, known, "{what:?} is the same lock");
            // Later than everything that was there when somebody looked last.
            if hold.number > self.highest {
                assert!(record.token > last, "{what:?}: tokens rise, in the order of grants");
                last = if in_any_order { last } else { record.token };
            }
            hold.token = Some(record.token);
        }
        // From here on a grant's place in the order is its token.
        for hold in &mut self.model.held {
            hold.number = hold.token.unwrap_or_default();
            self.highest = self.highest.max(hold.number);
        }
        self.model.grants = self.model.grants.max(self.highest);
    }

    /// Who waits, in order; the paths and stories of all.
    fn compare_waiters(&self, status: &Status) -> Vec<(usize, usize)> {
        let mut told: Vec<_> = status
            .waiting
            .iter()
            .filter(|one| !self.dead.contains(&one.waiter.id))
            .map(|one| {
                let path = self.number(&one.waiter.extent(Key([0; 32])).path);
                (path, one.place, one.waiter.id, Kind::of(one.waiter.kind()))
            })
            .collect();
        told.sort();
        let mut right = Vec::new();
        let mut waits = Vec::new();
        for path in 0..PATHS.len() {
            let line = self.model.line.iter();
            let line = line.filter_map(|one| {
                let want = one.wants.iter().find(|want| want.path == path)?;
                Some((one, want.kind))
            });
            for ((one, kind), place) in line.zip(1..) {
                right.push((path, place, one.id, kind));
                waits.push((path, one.story));
            }
        }
        assert_eq!(told, right, "who waits, in order");
        waits
    }

    /// The view shows whoever holds and waits; the dead until somebody takes them out.
    fn compare_view(&self, held: &BTreeSet<(usize, usize)>, waits: &[(usize, usize)]) {
        if !self.project.root().join(".ai/progress/locks.json").exists() {
            assert!(held.is_empty());
            return;
        }
        let view = self.project.view();
        let number = |entry: &serde_json::Value| {
            let path = entry["canonical"].as_str().or(entry["filePath"].as_str());
            self.number(&PathBuf::from(path.expect("a path")))
        };
        let story = |entry: &serde_json::Value| {
            STORIES.iter().position(|id| entry["storyId"] == *id).expect("a story of ours")
        };
        let mut shown = BTreeSet::new();
        for entry in view["activeLocks"].as_array().expect("a list") {
            assert_eq!(entry["path"], entry["filePath"]);
            let others = entry["others"].as_array().map_or(&[][..], Vec::as_slice);
            for one in [entry].into_iter().chain(others) {
                shown.insert((number(entry), story(one)));
            }
        }
        assert!(shown.is_superset(held), "{shown:?} is shown, {held:?} is held");
        let rest: BTreeSet<_> = shown.difference(held).copied().collect();
        assert!(rest.is_subset(&self.stale), "{rest:?} is shown, and nobody's");
        let shown = view["waiting"].as_array().map_or(0, Vec::len);
        let is_all = shown == waits.len() || !self.dead.is_empty();
        assert!(is_all && shown >= waits.len(), "{waits:?} wait, and {shown} are shown");
    }
}

fn check_that_all_can_stand_together(live: &BTreeMap<(usize, usize), Record>) {
    let extent =
        |path: usize, record: &Record| Want { path, kind: Kind::of(record.kind()), by_link: false };
    for ((path, story), record) in live {
        for ((other_path, other_story), other) in live {
            let is_together = story == other_story
                || !conflict(extent(*path, record), extent(*other_path, other));
            assert!(is_together, "two have what one alone can have: {record:?} and {other:?}");
        }
    }
}

fn words(all: &BTreeSet<(usize, usize)>) -> Vec<String> {
    all.iter().map(|(path, story)| format!("{} has {}", STORIES[*story], PATHS[*path])).collect()
}
