//! The records of a project as the guard's holder reaches them: read, judged, written, removed.
//!
//! Promises: whoever decides reads the record itself, not the index; the index is kept true by every
//! change made here; what has ended is swept without anybody waiting for it.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Clock;
use crate::error::Error;
use crate::ground::Ground;
use crate::guard::Held;
use crate::index::Index;
use crate::key::{Key, Located};
use crate::record::{self, Found, HolderId, Process, Record, Unreadable};
use crate::session::{self, Life, Session};
use crate::standing::{self, Standing};

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
    /// Records of ours that could not be removed when they had to be.
    pub owed: Vec<(Key, u64)>,
    /// Keys changed in this round.
    pub touched: Vec<Key>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) process: Process,
}

impl Shelf {
    /// The records of this ground.
    pub fn new(ground: Ground, clock: Arc<dyn Clock>) -> Shelf {
        Shelf {
            ground,
            index: Index::default(),
            session: None,
            dead: HashSet::new(),
            owed: Vec::new(),
            touched: Vec::new(),
            clock,
            process: session::this_process(),
        }
    }

    /// Removes these records.
    ///
    /// # Errors
    /// What the system says; those before it are removed.
    pub fn remove(&mut self, held: &mut Held<'_>, keys: &[Key]) -> Result<usize, Error> {
        if !keys.is_empty() {
            held.note(keys)?;
        }
        for key in keys {
            self.unlink(key)?;
        }
        Ok(keys.len())
    }

    /// Removes records whose leases have ended, and what is owed. Quietly: what fails is tried again.
    pub fn sweep(&mut self, held: &mut Held<'_>, most: usize) {
        for (key, token) in std::mem::take(&mut self.owed) {
            if matches!(self.current(&key, token), Ok(Some(_)))
                && self.remove(held, &[key]).is_err()
            {
                self.owed.push((key, token));
            }
        }
        for key in self.index.ended(&*self.clock, most) {
            let is_over = match self.found(&key) {
                Ok(Found::Record(record)) => {
                    record.deadline().is_some_and(|deadline| deadline.is_over(&*self.clock))
                }
                Ok(Found::Nothing) => true,
                Ok(Found::Unreadable(_)) | Err(_) => false,
            };
            if is_over {
                let _ = self.remove(held, &[key]);
            }
        }
    }

    /// The record of a key if it is this very grant's.
    pub(crate) fn current(&self, key: &Key, token: u64) -> Result<Option<Record>, Error> {
        Ok(match self.found(key)? {
            Found::Record(record) if record.token == token => Some(*record),
            _ => None,
        })
    }

    pub(crate) fn found(&self, key: &Key) -> Result<Found, Error> {
        record::read(&self.ground.locks, key).map_err(|cause| self.system("read", key, &cause))
    }

    pub(crate) fn unlink(&mut self, key: &Key) -> Result<(), Error> {
        match self.ground.locks.unlink(&key.file_name()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(self.system("remove", key, &cause))
            }
            _ => {
                self.changed(*key, None);
                Ok(())
            }
        }
    }

    pub(crate) fn changed(&mut self, key: Key, record: Option<Record>) {
        self.touched.push(key);
        match record {
            Some(record) => self.index.put(key, record, &*self.clock),
            None => drop(self.index.remove(&key)),
        }
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
        let life = session::life(&self.ground.holders, holder)?;
        if life == Life::Dead {
            self.dead.insert(holder);
        }
        Ok(life)
    }

    pub(crate) fn begin_session(&self, held: &mut Held<'_>) -> Result<Session, Error> {
        Session::start(&self.ground.holders, held.draw()?)
    }

    pub(crate) fn own_session(&mut self, held: &mut Held<'_>) -> Result<HolderId, Error> {
        if let Some(session) = &self.session {
            return Ok(session.id());
        }
        let session = self.begin_session(held)?;
        Ok(self.session.insert(session).id())
    }

    pub(crate) fn unreadable(&self, path: &Located, key: &Key, found: &Unreadable) -> Error {
        found.refusal(path, &self.record_path(key))
    }

    fn no_life(&self, holder: HolderId, cause: &io::Error) -> Error {
        let path = self.ground.holders.path().join(holder.to_string());
        Error::system("ask whether a holder lives by", &path, cause)
    }

    fn record_path(&self, key: &Key) -> PathBuf {
        self.ground.locks.path().join(key.file_name())
    }

    pub(crate) fn system(&self, verb: &str, key: &Key, cause: &io::Error) -> Error {
        Error::system(verb, &self.record_path(key), cause)
    }
}
