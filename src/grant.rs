//! How a path is taken: what stands there, and the record that takes its place.
//!
//! Promises: a set is written whole or taken back; a record is never longer than what can be read back; a
//! detached lock becomes real in one step, after all its records are written.

use std::io;

use crate::error::{Code, Error};
use crate::found::Found;
use crate::guard::Held;
use crate::key::{Key, Located};
use crate::kind::Extent;
use crate::publish;
use crate::queue::{Waiter, WaiterId};
use crate::record::{self, HolderId, Raised, Reclaimed, Record};
use crate::room::{Room, Stands};
use crate::session::Session;
use crate::shelf::Shelf;
use crate::store::{Acquire, Grant};
use crate::sys;

/// A record that was written, and what stood there before.
type Written = (Key, u64, Vec<Record>);

impl Shelf {
    /// Writes the records of a set that is open, all of them or none.
    pub(crate) fn take(
        &mut self,
        held: &mut Held<'_>,
        ask: &Acquire,
        paths: &[(&Located, Extent)],
        rooms: Vec<Room>,
    ) -> Result<Vec<Grant>, Error> {
        let is_open =
            |((_, extent), room): &(&(&Located, Extent), &Room)| !room.is_mine(extent.kind);
        let open: Vec<Key> =
            paths.iter().zip(&rooms).filter(is_open).map(|((_, extent), _)| extent.key).collect();
        let mut making = None;
        let (mut token, mut holder) = (0, 0);
        if !open.is_empty() {
            holder = if ask.detached {
                making.insert(self.begin_session(held)?).id()
            } else {
                self.own_session(held)?
            };
            token = held.note_grants(&open)?;
        }
        let mut written = Vec::with_capacity(paths.len());
        let mut grants = Vec::with_capacity(paths.len());
        let mut taken = Vec::with_capacity(paths.len());
        for ((path, extent), room) in paths.iter().zip(rooms) {
            let key = extent.key;
            if room.is_mine(extent.kind) {
                let record = room.mine.expect("it is there if it is enough");
                let record = self.with_token(held, key, record)?;
                grants.push(Grant { key, record, is_fresh: false });
                continue;
            }
            let candidate = self.candidate(path, extent, ask, holder);
            let record = self.record(&candidate, token, None, &room);
            if let Err(error) = self.settle_in(key, record.clone(), &room, &mut written) {
                self.undo(written);
                return Err(error);
            }
            taken.push((record.clone(), room));
            let is_fresh = record.raised.is_none();
            grants.push(Grant { key, record, is_fresh });
            // Those who wait for what was taken past them learn whom they wait for now.
            self.alert(extent);
            token += 1;
        }
        // A detached grant becomes real in this one step: its records name a holder file that is gone.
        let made = making.as_ref().map(|session| session.end(&self.ground.holders));
        if let Some(Err(error)) = made {
            self.undo(written);
            return Err(error);
        }
        for (record, room) in taken {
            self.tell_taken(&record, &room, None);
        }
        Ok(grants)
    }

    /// Writes a record among those of its path, and remembers what stood there.
    pub(crate) fn settle_in(
        &mut self,
        key: Key,
        record: Record,
        room: &Room,
        written: &mut Vec<Written>,
    ) -> Result<(), Error> {
        let token = record.token;
        self.write(key, &room.with(record), room.stands)?;
        written.push((key, token, room.before.clone()));
        Ok(())
    }

    /// Gives a record of the old module a token, so that nothing done in its name hits a successor's.
    fn with_token(
        &mut self,
        held: &mut Held<'_>,
        key: Key,
        mut record: Record,
    ) -> Result<Record, Error> {
        if record.is_old() {
            let token = held.note_grants(&[key])?;
            modernise(&mut record, token);
            self.write(key, std::slice::from_ref(&record), Stands::Records)?;
        }
        Ok(record)
    }

    /// Frees detached locks that came through a queue from the life of the process that waited.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn detach(
        &mut self,
        held: &mut Held<'_>,
        grants: &mut [Grant],
    ) -> Result<(), Error> {
        let mine = self.session.as_ref().map(Session::id);
        let is_tied =
            |grant: &&mut Grant| grant.record.detached && Some(grant.record.holder) == mine;
        let mut tied: Vec<&mut Grant> = grants.iter_mut().filter(is_tied).collect();
        if tied.is_empty() {
            return Ok(());
        }
        let making = self.begin_session(held)?;
        held.note(&tied.iter().map(|grant| grant.key).collect::<Vec<_>>())?;
        for grant in &mut tied {
            grant.record.holder = making.id();
            self.rewrite(grant.key, grant.record.token, &grant.record)?;
        }
        let made = making.end(&self.ground.holders);
        if made.is_err() {
            // While its file stands, its life is what holds them: they go back to this process's.
            for grant in &mut tied {
                grant.record.holder = mine.unwrap_or_default();
                self.rewrite(grant.key, grant.record.token, &grant.record)?;
            }
        }
        made
    }

    /// What an asker looks like in a queue, and its record is made from.
    pub(crate) fn candidate(
        &self,
        path: &Located,
        extent: &Extent,
        ask: &Acquire,
        holder: HolderId,
    ) -> Waiter {
        Waiter {
            mode: extent.kind.mode,
            recursive: extent.kind.recursive,
            canonical: (path.canonical != path.path).then(|| path.canonical.clone()),
            id: 0,
            story_id: ask.story.clone(),
            file_path: path.path.clone(),
            since: self.clock.wall_ms(),
            timeout: ask.lease.timeout_ms(),
            pid: std::process::id(),
            holder,
            boot: self.clock.boot(),
            host: sys::host().to_owned(),
            process: self.process.clone(),
            detached: ask.detached,
            reason: ask.reason.clone(),
            set: Vec::new(),
        }
    }

    /// The record by which a candidate holds its path from now on: its story's own, raised, or a new one.
    pub(crate) fn record(
        &self,
        candidate: &Waiter,
        token: u64,
        waiter: Option<WaiterId>,
        room: &Room,
    ) -> Record {
        if let Some(mine) = &room.mine {
            let from = mine.kind();
            let mut record = mine.clone();
            if record.is_old() {
                modernise(&mut record, token);
            }
            record.set_kind(from.joined(candidate.kind()));
            record.waiter = waiter;
            record.raised = Some(Raised { by: candidate.holder, from });
            return record;
        }
        let mut record = Record {
            lock_id: format!("{}-{token}", candidate.story_id),
            story_id: candidate.story_id.clone(),
            file_path: candidate.file_path.clone(),
            acquired_at: self.clock.wall_ms(),
            timeout: None,
            pid: candidate.pid,
            version: record::VERSION,
            token,
            expires_at: None,
            deadline: None,
            boot: String::new(),
            holder: candidate.holder,
            detached: candidate.detached,
            host: candidate.host.clone(),
            process: candidate.process.clone(),
            reason: candidate.reason.clone(),
            mode: candidate.mode,
            recursive: candidate.recursive,
            canonical: candidate.canonical.clone(),
            raised: None,
            offer: None,
            handed_from: None,
            waiter,
            reclaimed: room.ended.as_ref().map(|(record, how)| Reclaimed::from(record, *how)),
            others: Vec::new(),
        };
        record.set_lease(candidate.lease(), &*self.clock);
        record
    }

    /// Writes the records of a key in the place of what stands there.
    ///
    /// # Errors
    /// What the system says; what was there is untouched then.
    pub(crate) fn write(
        &mut self,
        key: Key,
        holds: &[Record],
        stands: Stands,
    ) -> Result<(), Error> {
        self.exorcise(&[key])?;
        let name = key.file_name();
        let locks = &self.ground.locks;
        let bytes = Record::to_bytes(holds);
        if bytes.len() as u64 > record::MAX_BYTES {
            // It could not be read back, and would count as rubbish one day.
            let message =
                format!("{} stories share the path already, as many as can.", holds.len());
            return Err(Error::new(Code::QueueFull, message)
                .hint("Nothing was taken. Work on something else and try again later."));
        }
        let written = match stands {
            Stands::Records => publish::replace(locks, &name, &bytes),
            Stands::Rubbish => {
                // Moved aside, not lost: whoever made it may want it back.
                self.move_aside(&key, holds.first().map_or(0, |one| one.token))
                    .and_then(|()| publish::create(&self.ground.locks, &name, &bytes))
            }
            Stands::Nothing => publish::create(locks, &name, &bytes),
        };
        // If the name is taken, somebody who knows no guard was a moment quicker: the old module, perhaps.
        written.map_err(|cause| self.system("write", &key, &cause))?;
        self.changed(key, holds.to_vec());
        Ok(())
    }

    /// Moves what is no record out of a record's name.
    pub(crate) fn move_aside(&self, key: &Key, number: u64) -> io::Result<()> {
        let aside = format!("{key}.unreadable-{number}");
        self.ground.locks.rename_new(&key.file_name(), &aside)
    }

    /// Writes one story's record of a key anew, found by the token that it has there.
    ///
    /// # Errors
    /// `ECOMPROMISED` if it is not there any more; what the system says.
    pub(crate) fn rewrite(&mut self, key: Key, token: u64, record: &Record) -> Result<(), Error> {
        let Found::Held(mut holds) = self.found(&key)? else { return Err(lost()) };
        let Some(one) = holds.iter_mut().find(|one| one.token == token) else {
            return Err(lost());
        };
        one.clone_from(record);
        // A dead process of the story that it is given to may have left a record.
        let is_other = |one: &Record| one.story_id != record.story_id;
        holds.retain(|one| one.token == record.token || is_other(one));
        self.write(key, &holds, Stands::Records)
    }

    /// Puts back what stood there before a set that fails midway. What cannot be now is owed.
    pub(crate) fn undo(&mut self, written: Vec<Written>) {
        for (key, token, before) in written.into_iter().rev() {
            let was_there = before.iter().any(|one| one.token == token);
            if self.put_back(key, before).is_err() && !was_there {
                self.owed.push((key, token));
            }
        }
    }

    /// Leaves these records of a key, or none.
    ///
    /// # Errors
    /// What the system says; what was there is untouched then.
    pub(crate) fn put_back(&mut self, key: Key, holds: Vec<Record>) -> Result<(), Error> {
        if holds.is_empty() { self.unlink(&key) } else { self.write(key, &holds, Stands::Records) }
    }
}

/// Makes a record of the old module one of ours, under this token.
fn modernise(record: &mut Record, token: u64) {
    record.token = token;
    // No process stands behind it: a number that no holder file has.
    record.holder = token;
    record.detached = true;
    record.version = record::VERSION;
    record.boot = String::new();
}

/// What one is told whose lock is gone when it is to be changed.
pub(crate) fn lost() -> Error {
    Error::new(Code::Compromised, "The lock was lost: it ended, or was given up.")
        .hint("Acquire it again, and read the file anew: others may have changed it.")
}
