//! The records of a project as the guard's holder reaches them: read, judged, written, removed.
//!
//! Promises: whoever decides reads the record itself, not the index; the index is kept true by every
//! change made here; what has ended is swept without anybody waiting for it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Error;
use crate::found::{self, Found, Unreadable};
use crate::ground::{Ground, STAGED};
use crate::guard::Held;
use crate::history::{Event, History};
use crate::index::Index;
use crate::journal;
use crate::key::{Key, Located};
use crate::kind::{Extent, Kind};
use crate::queue::WaiterId;
use crate::record::{HolderId, Process, Record};
use crate::session::{self, Life, Session};
use crate::standing::{self, Standing};
use crate::store::Workshop;
use crate::story::Story;

/// Grants that are being given up: their records still stand, and hold nobody up.
pub(crate) type Freed = HashSet<(Key, u64)>;

/// Why a lock is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its story wished it.
    Released,
    /// With all of its story's.
    Cleaned,
    /// Its lease ran out.
    Expired,
    /// Its process is long dead.
    Died,
    /// Somebody took it back: who, and why.
    Forced(String, String),
}

/// The open records.
pub struct Shelf {
    /// The folders.
    pub ground: Ground,
    /// What the records say.
    pub index: Index,
    /// This process's life, once it has taken a lock.
    pub session: Option<Session>,
    /// Holders known to be dead; their numbers are never used again.
    pub dead: HashSet<HolderId>,
    /// Holders that were found alive in this round: each is asked about once.
    pub(crate) alive: HashSet<HolderId>,
    /// Records of ours that could not be removed when they had to be.
    pub owed: Vec<(Key, u64)>,
    /// Keys changed in this round.
    pub touched: Vec<Key>,
    /// Those of this process who wait.
    pub waiting: BTreeMap<WaiterId, Own>,
    /// By story, whom it waits for: for as long as nothing changes.
    pub(crate) reach: HashMap<Story, HashSet<Story>>,
    /// What happened in this round.
    pub(crate) events: Vec<Event>,
    pub(crate) history: History,
    /// Whose bells are to be rung once the guard is let go of.
    pub rung: HashSet<HolderId>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) process: Process,
}

/// One of this process who waits.
#[derive(Clone, Debug)]
pub struct Own {
    /// The story.
    pub story: Story,
    /// What it wants, in the order asked for.
    pub extents: Vec<Extent>,
}

impl Own {
    /// The keys of what it wants.
    pub fn keys(&self) -> Vec<Key> {
        self.extents.iter().map(|extent| extent.key).collect()
    }
}

impl Shelf {
    /// The records of this ground.
    pub fn new(ground: Ground, clock: Arc<dyn Clock>, history: History) -> Shelf {
        Shelf {
            ground,
            index: Index::default(),
            session: None,
            dead: HashSet::new(),
            alive: HashSet::new(),
            owed: Vec::new(),
            touched: Vec::new(),
            waiting: BTreeMap::new(),
            reach: HashMap::new(),
            events: Vec::new(),
            history,
            rung: HashSet::new(),
            clock,
            process: session::this_process(),
        }
    }

    /// Gives these grants up: each path passes to whoever's turn it is, without a gap, or its record goes.
    ///
    /// # Errors
    /// What the system says; the others are given up all the same.
    pub(crate) fn vacate(
        &mut self,
        held: &mut Held<'_>,
        gone: &[(Key, u64)],
        why: &Why,
    ) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        for (key, token) in gone {
            self.tell_gone(key, *token, why);
        }
        let keys: BTreeSet<Key> = gone.iter().map(|(key, _)| *key).collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        held.note(&keys)?;
        self.exorcise(&keys)?;
        let freed: Freed = gone.iter().copied().collect();
        let is_wanted = |key: &Key| !self.index.queue(key).is_empty();
        let has_folders = self.index.has_folders() && self.index.is_waited_for();
        if has_folders {
            // One path's record is not another's: it is gone before anything above or below is given.
            let near: Vec<Key> =
                keys.iter().flat_map(|key| self.index.near(&self.index.extent_at(key))).collect();
            let answer = self.take_out(&keys, &freed);
            self.pass_on(held, Freed::new(), &near);
            return answer;
        }
        let passed = if keys.iter().any(is_wanted) {
            self.pass_on(held, freed.clone(), &[])
        } else {
            HashSet::new()
        };
        let left: Vec<Key> = keys.into_iter().filter(|key| !passed.contains(key)).collect();
        self.take_out(&left, &freed)
    }

    /// Takes these grants out of the records of these keys.
    fn take_out(&mut self, keys: &[Key], gone: &Freed) -> Result<(), Error> {
        let mut answer = Ok(());
        for key in keys {
            let others = match self.found(key) {
                Ok(Found::Held(mut holds)) => {
                    holds.retain(|record| !gone.contains(&(*key, record.token)));
                    holds
                }
                Ok(Found::Nothing) => Vec::new(),
                Ok(Found::Unreadable(_)) => continue,
                Err(error) => {
                    answer = Err(error);
                    continue;
                }
            };
            answer = answer.and(self.put_back(*key, others));
        }
        answer
    }

    /// Ends leases that ran out, and gives up what is owed. Quietly: what fails is tried again.
    pub fn sweep(&mut self, held: &mut Held<'_>, most: usize) {
        for (key, token) in std::mem::take(&mut self.owed) {
            if matches!(self.current(&key, token), Ok(Some(_)))
                && self.vacate(held, &[(key, token)], &Why::Released).is_err()
            {
                self.owed.push((key, token));
            }
        }
        for key in self.index.due(&*self.clock, most) {
            // Those in line get it as the ended one's successors, and are told whose it was.
            let extent = self.index.extent_at(&key);
            let over: Vec<(Key, u64)> = match self.unstick(held, &[extent]).and(self.found(&key)) {
                Ok(Found::Held(holds)) => {
                    let over = holds.iter().filter(|record| record.is_over(&*self.clock));
                    over.map(|record| (key, record.token)).collect()
                }
                _ => Vec::new(),
            };
            let is_gone = !over.is_empty() && self.vacate(held, &over, &Why::Expired).is_ok();
            if !is_gone {
                // Changed by somebody who knows no guard, or not to be had now: look again later.
                let _ = self.reload(&key);
                self.index.postpone(&key, &*self.clock);
            }
        }
    }

    /// Has the index read a key's record and queue again.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn reload(&mut self, key: &Key) -> Result<(), Error> {
        self.touched.push(*key);
        self.index.reload(&self.ground, key, &*self.clock)
    }

    /// The record of a key if it is this very grant's.
    pub(crate) fn current(&self, key: &Key, token: u64) -> Result<Option<Record>, Error> {
        Ok(match self.found(key)? {
            Found::Held(holds) => holds.into_iter().find(|record| record.token == token),
            _ => None,
        })
    }

    pub(crate) fn found(&self, key: &Key) -> Result<Found, Error> {
        found::read(&self.ground.locks, key).map_err(|cause| self.system("read", key, &cause))
    }

    pub(crate) fn unlink(&mut self, key: &Key) -> Result<(), Error> {
        match self.ground.locks.unlink(&key.file_name()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(self.system("remove", key, &cause))
            }
            _ => {
                self.changed(*key, Vec::new());
                Ok(())
            }
        }
    }

    pub(crate) fn changed(&mut self, key: Key, holds: Vec<Record>) {
        self.touched.push(key);
        self.reach.clear();
        self.index.put(key, holds, &*self.clock);
    }

    /// Whether a record holds its path.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn standing(&mut self, record: &Record) -> Result<Standing, Error> {
        let clock = Arc::clone(&self.clock);
        standing::of_record(record, &*clock, |holder| self.life(holder))
            .map_err(|cause| self.no_life(record.holder, &cause))
    }

    pub(crate) fn standing_of_unreadable(&mut self, found: &Unreadable) -> Result<Standing, Error> {
        let clock = Arc::clone(&self.clock);
        standing::of_unreadable(found, &*clock, |holder| self.life(holder))
            .map_err(|cause| self.no_life(found.holder.unwrap_or_default(), &cause))
    }

    /// Whether a holder lives.
    ///
    /// # Errors
    /// What the system says.
    pub fn life(&mut self, holder: HolderId) -> io::Result<Life> {
        if self.session.as_ref().is_some_and(|mine| mine.id() == holder) {
            return Ok(Life::Alive);
        }
        if self.dead.contains(&holder) {
            return Ok(Life::Dead);
        }
        if self.alive.contains(&holder) {
            return Ok(Life::Alive);
        }
        let life = session::life(&self.ground.holders, holder)?;
        match life {
            Life::Dead => drop(self.dead.insert(holder)),
            Life::Alive => drop(self.alive.insert(holder)),
            Life::Unknown => {}
        }
        Ok(life)
    }

    pub(crate) fn begin_session(&mut self, held: &mut Held<'_>) -> Result<Session, Error> {
        let id = held.draw()?;
        match Session::start(&self.ground.holders, id) {
            // Somebody removed the folder alone.
            Err(error) if error.code.as_str() == "ENOENT" => {
                self.ground.mend()?;
                Session::start(&self.ground.holders, id)
            }
            started => started,
        }
    }

    /// Where a change is prepared; sweeps what dead processes left of theirs.
    pub(crate) fn begin_change(
        &mut self,
        held: &mut Held<'_>,
        grants: &[(Key, u64)],
    ) -> Result<Workshop, Error> {
        self.sweep_changes();
        let holder = self.own_session(held)?;
        let name = format!("{holder}-{}", held.draw()?);
        let cover = |(key, token): &(Key, u64)| {
            let record = self.index.get(key).iter().find(|record| record.token == *token);
            let unknown = Extent { key: *key, path: PathBuf::new(), kind: Kind::default() };
            record.map_or(unknown, |record| self.index.extent(*key, record))
        };
        let covers = grants.iter().map(cover).collect();
        Ok(Workshop { notes: self.ground.annex(STAGED)?, name, covers })
    }

    /// Removes what changes of dead processes left behind.
    pub(crate) fn sweep_changes(&mut self) {
        let Ok(Some(notes)) = self.ground.annex_if_there(STAGED) else { return };
        let mut dead = HashSet::new();
        for name in notes.names().unwrap_or_default() {
            let holder = name.split('-').next().and_then(|number| number.parse().ok());
            if let Some(holder) = holder
                && !matches!(self.life(holder), Ok(Life::Alive) | Err(_))
            {
                dead.insert(holder);
            }
        }
        if !dead.is_empty() {
            journal::sweep(&notes, &self.ground.root, |holder| dead.contains(&holder));
        }
    }

    /// Makes this process's holder file anew if somebody removed it. Quietly: it is tried again.
    pub(crate) fn mend_session(&mut self) {
        let Some(session) = &mut self.session else { return };
        if !session.is_in_place(&self.ground.holders) {
            let _ = self.ground.mend();
            let _ = session.mend(&self.ground.holders);
        }
    }

    /// Removes this process's holder file, if nothing names it any more.
    pub(crate) fn end_session(&mut self, held: &Held<'_>, session: &Session) {
        let is_known = self.index.catch_up(&self.ground, held, &*self.clock).is_ok();
        if is_known && !self.index.is_named(session.id()) {
            let _ = session.end(&self.ground.holders);
        }
    }

    /// Makes the bell that others ring when a turn comes for this process.
    pub(crate) fn hang_bell(&mut self) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.hang_bell(&self.ground.holders)
    }

    pub(crate) fn own_session(&mut self, held: &mut Held<'_>) -> Result<HolderId, Error> {
        if let Some(session) = &self.session {
            return Ok(session.id());
        }
        let session = self.begin_session(held)?;
        Ok(self.session.insert(session).id())
    }

    pub(crate) fn unreadable(&self, key: &Key, found: &Unreadable, path: &Located) -> Error {
        found.refusal(&path.path, &path.named, &self.record_path(key))
    }

    pub(crate) fn no_life(&self, holder: HolderId, cause: &io::Error) -> Error {
        let path = self.ground.holders.path().join(holder.to_string());
        Error::system("ask whether a holder lives by", &path, cause)
    }

    pub(crate) fn record_path(&self, key: &Key) -> PathBuf {
        self.ground.locks.path().join(key.file_name())
    }

    pub(crate) fn system(&self, verb: &str, key: &Key, cause: &io::Error) -> Error {
        Error::system(verb, &self.record_path(key), cause)
    }
}
