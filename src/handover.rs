//! How a lock changes hands or kind without ever being free: lowered, given to another story, or taken
//! over by another process.
//!
//! Promises: each is one writing of the record, so at no moment has nobody the path; whoever gives a lock
//! away can write under it no more, since its successor's token is higher; an offer is taken up once.
//! While it is offered the lock stays its owner's, life and lease included.

use crate::circles::Now;
use crate::error::{Code, Error};
use crate::grant::lost;
use crate::graph::{self, Arms};
use crate::ground::HANDED;
use crate::guard::Held;
use crate::history::{Event, What};
use crate::key::Key;
use crate::kind::{Extent, Kind};
use crate::lease::Lease;
use crate::publish;
use crate::record::Record;
use crate::shelf::{Freed, Shelf, Why};
use crate::standing::Standing;
use crate::store::{Done, Grant};
use crate::story::Story;
use crate::sys;

/// As many grants of a path are remembered as handed on.
const MOST_REMEMBERED: usize = 64;

impl Shelf {
    /// Makes a lock weaker, and lets those in line in who can stand beside it now.
    ///
    /// # Errors
    /// `ECOMPROMISED` if the lock is gone; what the system says.
    pub(crate) fn lower(
        &mut self,
        held: &mut Held<'_>,
        key: Key,
        token: u64,
        kind: Kind,
    ) -> Result<Done, Error> {
        self.standing_grant(&key, token)?;
        let record = self.lower_to(held, key, token, kind)?;
        Ok(Done::Renewed(Box::new(Grant { key, record, is_fresh: false })))
    }

    pub(crate) fn lower_to(
        &mut self,
        held: &mut Held<'_>,
        key: Key,
        token: u64,
        kind: Kind,
    ) -> Result<Record, Error> {
        let mut record = self.current(&key, token)?.ok_or_else(lost)?;
        let before = record.extent(key);
        if !before.kind.covers(kind) {
            return Ok(record);
        }
        record.set_kind(kind);
        record.raised = None;
        record.waiter = None;
        held.note(&[key])?;
        self.rewrite(key, token, &record)?;
        self.tell(self.event(What::Lowered, &record));
        if before.kind != kind && self.index.is_waited_for() {
            let near = self.index.near(&before);
            self.pass_on(held, Freed::new(), &near);
        }
        Ok(record)
    }

    /// Gives a lock to another story, in front of all who wait for it.
    ///
    /// # Errors
    /// `ECOMPROMISED` if the lock is gone; `ELOCKED` if others, the giver included, have what keeps that
    /// story from it; `EDEADLK` if it waits itself for somebody who waits for this; `ERR_INVALID_STATE` if it
    /// has the path already; what the system says.
    pub(crate) fn transfer(
        &mut self,
        held: &mut Held<'_>,
        key: Key,
        token: u64,
        story: &Story,
    ) -> Result<Done, Error> {
        let mut record = self.standing_grant(&key, token)?;
        if record.story_id == *story {
            return Ok(Done::Granted(vec![Grant { key, record, is_fresh: false }]));
        }
        let extent = record.extent(key);
        let path = record.file_path.clone();
        let shown = path.strip_prefix(&self.ground.root).unwrap_or(&path).display().to_string();
        let freed = Freed::from([(key, token)]);
        match self.room_of(&extent, story, &freed)? {
            Ok(room) if room.mine.is_some() => {
                let message = format!("{story} has {shown} already.");
                let hint = "Nothing was changed. Release this lock instead of giving it away.";
                return Err(Error::new(Code::Closed, message).at(&path).hint(hint));
            }
            Ok(_) => {}
            Err(blocker) => {
                return Err(self.refusal(blocker, &path, &shown, crate::error::Line::default()));
            }
        }
        self.check_circle(story, &extent, &freed)?;
        let next = held.note_grants(&[key])?;
        record.lock_id = format!("{story}-{next}");
        record.acquired_at = self.clock.wall_ms();
        let giver = std::mem::replace(&mut record.story_id, story.clone());
        self.hand_over(key, token, next, &mut record, giver.to_string())?;
        // What the new owner waits for itself may be open to it now.
        let near = self.index.near(&extent);
        self.pass_on(held, Freed::new(), &near);
        Ok(Done::Granted(vec![Grant { key, record, is_fresh: true }]))
    }

    /// Whether a story that gets this waits itself, directly or through others, for one who waits for it.
    fn check_circle(&mut self, story: &Story, extent: &Extent, freed: &Freed) -> Result<(), Error> {
        let waited_for = graph::reach(&mut Now { shelf: self, freed }, story, Arms::Held);
        for (_, waiter) in self.waiters_against(extent, story, freed) {
            if waited_for.contains(&waiter.story_id) && self.lives(&waiter)? {
                let other = &waiter.story_id;
                let message = format!(
                    "{story} waits for {other}, which waits for {}: they would wait for ever.",
                    waiter.file_path.display()
                );
                let hint = "Nothing was changed. Release it instead, or let the other go on first.";
                return Err(Error::new(Code::Deadlock, message).at(&waiter.file_path).hint(hint));
            }
        }
        Ok(())
    }

    /// Lets whoever knows the secret of this digest take these locks over, once.
    ///
    /// # Errors
    /// `ECOMPROMISED` if one of them is gone; what the system says.
    pub(crate) fn offer(
        &mut self,
        held: &mut Held<'_>,
        grants: &[(Key, u64)],
        digest: &str,
    ) -> Result<Done, Error> {
        for (key, token) in grants {
            self.standing_grant(key, *token)?;
        }
        held.note(&grants.iter().map(|(key, _)| *key).collect::<Vec<_>>())?;
        for (key, token) in grants {
            let mut record = self.current(key, *token)?.ok_or_else(lost)?;
            record.offer = Some(digest.to_owned());
            self.rewrite(*key, *token, &record)?;
        }
        Ok(Done::Offered)
    }

    /// Takes locks over that were offered under this digest: all or none. This process's life stands behind
    /// them from now on, and their leases begin anew.
    ///
    /// # Errors
    /// `ENOTACQUIRED` if one of them was taken over already, given up or lost; what the system says, then
    /// those written so far stay taken over and are given up.
    pub(crate) fn adopt(
        &mut self,
        held: &mut Held<'_>,
        grants: &[(Key, u64)],
        digest: &str,
        lease: Option<Lease>,
    ) -> Result<Done, Error> {
        let mut records = Vec::with_capacity(grants.len());
        for (key, token) in grants {
            let record = self.current(key, *token)?;
            let offered = record.filter(|record| record.offer.as_deref() == Some(digest));
            let Some(record) = offered else { return Err(not_offered()) };
            if self.standing(&record)? != Standing::Holds {
                return Err(not_offered());
            }
            records.push(record);
        }
        let holder = self.own_session(held)?;
        let keys: Vec<Key> = grants.iter().map(|(key, _)| *key).collect();
        let first = held.note_grants(&keys)?;
        let mut taken = Vec::with_capacity(grants.len());
        for (((key, token), mut record), next) in grants.iter().zip(records).zip(first..) {
            let giver = (record.holder, record.pid);
            record.holder = holder;
            record.detached = false;
            record.pid = std::process::id();
            record.process = self.process.clone();
            sys::host().clone_into(&mut record.host);
            record.set_lease(lease.unwrap_or(record.lease()), &*self.clock);
            record.lock_id = format!("{}-{next}", record.story_id);
            let giver = format!("pid {}", giver.1);
            if let Err(error) = self.hand_over(*key, *token, next, &mut record, giver) {
                let given: Vec<(Key, u64)> =
                    taken.iter().map(|grant: &Grant| (grant.key, grant.record.token)).collect();
                let _ = self.vacate(held, &given, &Why::Released);
                return Err(error);
            }
            taken.push(Grant { key: *key, record, is_fresh: true });
        }
        Ok(Done::Granted(taken))
    }

    /// Writes a record that has changed hands, under its new token.
    fn hand_over(
        &mut self,
        key: Key,
        from: u64,
        token: u64,
        record: &mut Record,
        giver: String,
    ) -> Result<(), Error> {
        record.token = token;
        record.handed_from = Some(from);
        record.offer = None;
        record.waiter = None;
        record.raised = None;
        self.rewrite(key, from, record)?;
        self.leave_trail(&key, from);
        let event = self.event(What::Transferred, record);
        self.tell(Event { by: Some(giver), ..event });
        // Those who wait for it wait for somebody else now.
        self.alert(&record.extent(key));
        Ok(())
    }

    /// Leaves word that a grant was handed on and not lost, for its former owner, who may look when the
    /// successor's record is gone too. Without it the owner is told of a loss, which is less than the truth.
    fn leave_trail(&self, key: &Key, from: u64) {
        let mut tokens: Vec<u64> = self.ground.noted(HANDED, key).unwrap_or_default();
        tokens.push(from);
        let tokens = &tokens[tokens.len().saturating_sub(MOST_REMEMBERED)..];
        let bytes = serde_json::to_vec(tokens).unwrap_or_default();
        let _ = self
            .ground
            .annex(HANDED)
            .map(|notes| publish::replace(&notes, &key.to_string(), &bytes));
    }

    /// The record of a grant that holds.
    ///
    /// # Errors
    /// `ECOMPROMISED` if it does not.
    pub(crate) fn standing_grant(&mut self, key: &Key, token: u64) -> Result<Record, Error> {
        let record = self.current(key, token)?.ok_or_else(lost)?;
        if self.standing(&record)? == Standing::Holds { Ok(record) } else { Err(lost()) }
    }
}

fn not_offered() -> Error {
    let message = "Nothing is to be had for this token: it was adopted already, or its lock was given up or lost.";
    Error::new(Code::NotAcquired, message)
        .hint("Nothing was taken. Ask whoever exported it for another, or acquire the lock.")
}
