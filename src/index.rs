//! What all records say, in memory, so that nobody has to read the folder to know.
//!
//! Promise: after [`Index::catch_up`], and while the guard is held, it agrees with every change made
//! under the guard by anyone. A record that somebody put there or took away by hand is known only
//! once its path is touched or the index is built anew; whoever decides a grant reads the record itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use crate::clock::Clock;
use crate::error::Error;
use crate::found::{self, Found, Unreadable};
use crate::ground::Ground;
use crate::guard::{Held, News};
use crate::key::{Key, Target};
use crate::kind::Mode;
use crate::places::Places;
use crate::queue::{self, Waiter, WaiterId};
use crate::record::{HolderId, Record};
use crate::story::Story;
use crate::sys::Dir;
use crate::view;

/// When to look again at an ended lease that could not be removed, in µs.
const LATER_US: u64 = 1_000_000;

/// All records known.
#[derive(Debug, Default)]
pub struct Index {
    pub(crate) known: BTreeMap<Key, Known>,
    /// Ends of leases on the clock that does not jump, in µs.
    ends: BTreeSet<(u64, Key)>,
    holders: HashMap<HolderId, usize>,
    pub(crate) queues: HashMap<Key, Vec<Waiter>>,
    waits: HashMap<Story, BTreeSet<(WaiterId, Key)>>,
    /// Keys whose queues on disk still name one who has been served.
    haunted: HashSet<Key>,
    /// Where the keys are that have records or queues.
    pub(crate) places: Places,
    /// Keys with something that is no record.
    pub(crate) unreadable: HashMap<Key, Unreadable>,
    seen: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Known {
    /// At least one.
    holds: Vec<Record>,
    pub(crate) path: PathBuf,
    end: Option<u64>,
    json: String,
}

/// Which keys may have another record than they had.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// These.
    Keys(Vec<Key>),
    /// Any.
    Everything,
}

impl Default for Changed {
    fn default() -> Changed {
        Changed::Keys(Vec::new())
    }
}

impl Index {
    /// Learns what others changed since the last time.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn catch_up(
        &mut self,
        ground: &Ground,
        held: &Held<'_>,
        clock: &dyn Clock,
    ) -> Result<Changed, Error> {
        let changed = match self.seen.map(|seen| held.news(seen)).transpose()? {
            Some(News::Keys(mut keys)) => {
                keys.sort_unstable();
                keys.dedup();
                for key in &keys {
                    self.reload(ground, key, clock)?;
                }
                Changed::Keys(keys)
            }
            Some(News::Everything) | None => {
                self.rebuild(ground, clock)?;
                Changed::Everything
            }
        };
        self.seen = Some(held.changes());
        Ok(changed)
    }

    /// Learns of records that nobody noted: put there by the old module, or by hand.
    ///
    /// # Errors
    /// As [`Index::catch_up`].
    pub fn find_strays(&mut self, ground: &Ground, clock: &dyn Clock) -> Result<(), Error> {
        for key in keys(&ground.locks)? {
            if !self.known.contains_key(&key) {
                self.reload(ground, &key, clock)?;
            }
        }
        Ok(())
    }

    /// Whether nothing was noted beyond what it has learnt.
    pub fn has_seen(&self, changes: u64) -> bool {
        self.seen == Some(changes)
    }

    /// Takes note that all changes so far are its own.
    pub fn is_current(&mut self, held: &Held<'_>) {
        self.seen = Some(held.changes());
    }

    fn rebuild(&mut self, ground: &Ground, clock: &dyn Clock) -> Result<(), Error> {
        let mut anew = Index::default();
        let queued = ground.queue.names();
        let queued = queued
            .map_err(|cause| Error::system("read the folder", ground.queue.path(), &cause))?;
        let queued = queued.iter().filter_map(|name| Key::from_hex(name));
        let all: BTreeSet<Key> = keys(&ground.locks)?.into_iter().chain(queued).collect();
        for key in all {
            anew.reload(ground, &key, clock)?;
        }
        *self = anew;
        Ok(())
    }

    /// Looks at a lease that has ended again in a second at the earliest.
    pub fn postpone(&mut self, key: &Key, clock: &dyn Clock) {
        if let Some(known) = self.known.get_mut(key)
            && let Some(end) = known.end
            && end <= clock.monotonic_us()
        {
            self.ends.remove(&(end, *key));
            let later = clock.monotonic_us() + LATER_US;
            self.ends.insert((later, *key));
            known.end = Some(later);
        }
    }

    /// The least time until some lease ends, in µs.
    pub fn next_end_us(&self, clock: &dyn Clock) -> Option<u64> {
        self.ends.first().map(|(end, _)| end.saturating_sub(clock.monotonic_us()))
    }

    /// Reads a key's record and queue again.
    ///
    /// # Errors
    /// As [`Index::catch_up`].
    pub fn reload(&mut self, ground: &Ground, key: &Key, clock: &dyn Clock) -> Result<(), Error> {
        let locks = &ground.locks;
        match found::read(locks, key) {
            Ok(Found::Held(holds)) => self.put(*key, holds, clock),
            Ok(Found::Nothing) => self.remove(key),
            Ok(Found::Unreadable(found)) => {
                self.remove(key);
                self.unreadable.insert(*key, found);
            }
            // Another user's, closed to us: its path is refused when somebody asks for it.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                self.remove(key);
            }
            Err(cause) => {
                return Err(Error::system("read", &locks.path().join(key.file_name()), &cause));
            }
        }
        let queue = queue::read(&ground.queue, key);
        let path = || ground.queue.path().join(key.to_string());
        self.line_up(*key, queue.map_err(|cause| Error::system("read", &path(), &cause))?);
        Ok(())
    }

    /// A queue was written. Whoever has the lock by now waits no more, though its entry may stand.
    pub fn line_up(&mut self, key: Key, mut waiters: Vec<Waiter>) {
        for waiter in self.queues.remove(&key).unwrap_or_default() {
            if let Some(waits) = self.waits.get_mut(&waiter.story_id) {
                waits.remove(&(waiter.id, key));
                if waits.is_empty() {
                    self.waits.remove(&waiter.story_id);
                }
            }
        }
        let served: Vec<WaiterId> = self.get(&key).iter().filter_map(|one| one.waiter).collect();
        let lined_up = waiters.len();
        waiters.retain(|waiter| !served.contains(&waiter.id));
        if waiters.len() < lined_up {
            self.haunted.insert(key);
        } else {
            self.haunted.remove(&key);
        }
        for waiter in &waiters {
            self.waits.entry(waiter.story_id.clone()).or_default().insert((waiter.id, key));
        }
        if !waiters.is_empty() {
            self.queues.insert(key, waiters);
        }
        self.place(key);
    }

    /// Takes note of where a key is, and whether it is a folder with all that is below.
    fn place(&mut self, key: Key) {
        let (held, queue) = (self.known.get(&key), self.queue(&key));
        let is_folder = held.is_some_and(|known| known.holds.iter().any(|one| one.recursive))
            || queue.iter().any(|waiter| waiter.recursive);
        let path = match (held, queue.first()) {
            (Some(known), _) => Some(known.path.clone()),
            (None, Some(waiter)) => Some(waiter.extent(key).path),
            (None, None) => None,
        };
        self.places.set(key, path, is_folder);
    }

    /// A queue that could not be written: this is who waits, whatever the file says.
    pub fn haunt(&mut self, key: Key, waiters: Vec<Waiter>) {
        self.line_up(key, waiters);
        self.haunted.insert(key);
    }

    /// The keys whose queues on disk are to be written anew.
    pub fn haunted(&self) -> Vec<Key> {
        self.haunted.iter().copied().collect()
    }

    /// Whether a key's queue on disk still names the one who has been served. It must be written anew
    /// before that one's record goes: without the record the entry would come to life again.
    pub fn is_haunted(&self, key: &Key) -> bool {
        self.haunted.contains(key)
    }

    /// Who waits for a key, in order.
    pub fn queue(&self, key: &Key) -> &[Waiter] {
        self.queues.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys that somebody waits for.
    pub fn queued(&self) -> impl Iterator<Item = &Key> {
        self.queues.keys()
    }

    /// What a story waits for.
    pub fn waits_of(&self, story: &Story) -> Vec<(WaiterId, Key)> {
        self.waits.get(story).map(|waits| waits.iter().copied().collect()).unwrap_or_default()
    }

    /// Whether some waiter wants a set, some story waits in several places, somebody waits to read, or
    /// waits where a folder is locked with all below it: then one change can open the way for others
    /// elsewhere.
    pub fn is_tangled(&self) -> bool {
        (self.places.has_folders() && !self.queues.is_empty())
            || self.waits.values().any(|waits| waits.len() > 1)
            || self.queues.values().flatten().any(|waiter| waiter.mode == Mode::Shared)
    }

    /// How many wait, a set once for each of its paths.
    pub fn waiting(&self) -> usize {
        self.queues.values().map(Vec::len).sum()
    }

    /// The queues with their keys.
    pub fn queues(&self) -> impl Iterator<Item = (&Key, &[Waiter])> {
        self.queues.iter().map(|(key, waiters)| (key, waiters.as_slice()))
    }

    /// The records of a key were written: those who have it now.
    pub fn put(&mut self, key: Key, holds: Vec<Record>, clock: &dyn Clock) {
        self.forget(&key);
        let Some(first) = holds.first() else { return self.place(key) };
        let ends = holds.iter().filter_map(Record::deadline);
        let ends = ends.map(|at| clock.monotonic_us().saturating_add(at.remaining_us(clock)));
        let end = ends.min();
        if let Some(end) = end {
            self.ends.insert((end, key));
        }
        for record in holds.iter().filter(|record| record.holder != 0) {
            *self.holders.entry(record.holder).or_default() += 1;
        }
        let json = view::entry(&holds);
        let path = path_of(&key, first);
        self.known.insert(key, Known { holds, path, end, json });
        self.place(key);
    }

    /// The records of a key were removed.
    pub fn remove(&mut self, key: &Key) {
        self.forget(key);
        self.place(*key);
    }

    fn forget(&mut self, key: &Key) {
        self.unreadable.remove(key);
        let Some(known) = self.known.remove(key) else { return };
        if let Some(end) = known.end {
            self.ends.remove(&(end, *key));
        }
        for record in &known.holds {
            if let Some(count) = self.holders.get_mut(&record.holder) {
                *count -= 1;
                if *count == 0 {
                    self.holders.remove(&record.holder);
                }
            }
        }
    }

    /// The records of a key.
    pub fn get(&self, key: &Key) -> &[Record] {
        self.known.get(key).map_or(&[], |known| known.holds.as_slice())
    }

    /// The record by which a story has a key.
    pub fn of_story(&self, key: &Key, story: &Story) -> Option<&Record> {
        self.get(key).iter().find(|record| record.story_id == *story)
    }

    /// How many keys have records.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// All records with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.known.iter().flat_map(|(key, known)| known.holds.iter().map(move |one| (key, one)))
    }

    /// The view's entries: who has a path, and that in JSON.
    pub fn entries(&self) -> impl Iterator<Item = (&[Record], &str)> {
        self.known.values().map(|known| (known.holds.as_slice(), known.json.as_str()))
    }

    /// Whether any record names this holder.
    pub fn is_named(&self, holder: HolderId) -> bool {
        self.holders.contains_key(&holder)
            || self.queues.values().flatten().any(|waiter| waiter.holder == holder)
    }

    /// The holders that records name.
    pub fn holders(&self) -> impl Iterator<Item = HolderId> {
        self.holders.keys().copied()
    }

    /// The keys whose leases are due for a look, at most this many.
    pub fn due(&self, clock: &dyn Clock, most: usize) -> Vec<Key> {
        let now = clock.monotonic_us();
        let due = self.ends.iter().take_while(|(end, _)| *end <= now).map(|(_, key)| *key);
        due.take(most).collect()
    }
}

/// Where a record's path is. The old module knew no links: where its record stands, they are followed.
fn path_of(key: &Key, record: &Record) -> PathBuf {
    let path = record.extent(*key).path;
    if !record.is_old() {
        return path;
    }
    let target = path.to_str().and_then(|path| Target::new(path).ok());
    target.and_then(|target| target.canonical().ok()).unwrap_or(path)
}

/// The keys of all record files.
pub fn keys(locks: &Dir) -> Result<Vec<Key>, Error> {
    let names = locks.names();
    let names = names.map_err(|cause| Error::system("read the folder", locks.path(), &cause))?;
    Ok(names.iter().filter_map(|name| Key::from_file_name(name)).collect())
}
