//! What a round tells: its events the history, and what is so after it the view.

use std::borrow::Cow;
use std::path::Path;

use crate::error::{Error, Writer};
use crate::guard::{Held, News};
use crate::history::{self, Event, What};
use crate::key::{Key, Located};
use crate::kind::Kind;
use crate::queue::Waiter;
use crate::record::{Ended, Record};
use crate::room::Room;
use crate::shelf::{Shelf, Why};
use crate::store::Acquire;
use crate::story::Story;
use crate::sys;
use crate::view::{self, View};

impl Shelf {
    pub(crate) fn tell(&mut self, event: Event) {
        if !self.history.is_off() {
            self.events.push(event);
        }
    }

    /// A record's lock has something happen to it now.
    pub(crate) fn event(&self, what: What, record: &Record) -> Event {
        Event::of(what, record, self.clock.wall_ms())
    }

    /// A lock was taken or raised, at once or after its turn came.
    pub(crate) fn tell_taken(&mut self, record: &Record, room: &Room, waited: Option<&Waiter>) {
        if self.history.is_off() {
            return;
        }
        let now = self.clock.wall_ms();
        if let Some((before, how)) = &room.ended {
            let by = Some(record.story_id.to_string());
            let code = Some(how.as_str().to_owned());
            self.tell(Event { by, code, ..Event::of(What::Reclaimed, before, now) });
        }
        let what = match (&record.raised, waited) {
            (Some(_), _) if room.mine.is_some() => What::Raised,
            (_, Some(_)) => What::Granted,
            (_, None) => What::Acquired,
        };
        let waited_for = waited.map(|waiter| now.saturating_sub(waiter.since));
        self.tell(Event { waited_for, ..Event::of(what, record, now) });
    }

    /// A lock is given up.
    pub(crate) fn tell_gone(&mut self, key: &Key, token: u64, why: &Why) {
        if self.history.is_off() {
            return;
        }
        let found = self.index.get(key).iter().find(|record| record.token == token);
        let Some(record) = found.cloned() else { return };
        let ended = |how: Ended| Some(how.as_str().to_owned());
        let (what, code, by, reason) = match why {
            Why::Released => (What::Released, None, None, None),
            Why::Cleaned => (What::Cleaned, None, None, None),
            Why::Expired => (What::Expired, ended(Ended::Expired), None, None),
            Why::Died => (What::Reclaimed, ended(Ended::Died), None, None),
            Why::Forced(by, reason) => (What::Forced, None, Some(by.clone()), Some(reason.clone())),
        };
        self.tell(Event { code, by, reason, ..self.event(what, &record) });
    }

    /// One who asked was refused, after so many ms of waiting.
    pub(crate) fn tell_refused(&mut self, ask: &Acquire, error: &Error) {
        let of_it = ask.paths.iter().find(|(path, _)| Some(&path.path) == error.path.as_ref());
        let Some((path, kind)) = of_it.or(ask.paths.first()) else { return };
        let mut event = self.asked(What::Refused, &ask.story, path, *kind);
        event.by = error.holder.as_ref().map(|holder| holder.record.story_id.to_string());
        event.code = Some(error.code.as_str().to_owned());
        self.tell(event);
    }

    /// A file was changed under a lock.
    pub(crate) fn tell_patched(&mut self, path: &Path, writer: &Writer) {
        let Ok(story) = Story::new(writer.story_id.clone()) else { return };
        let located = Located {
            path: path.to_owned(),
            named: String::new(),
            key: Key::of(path),
            canonical: path.to_owned(),
            spelled: None,
        };
        let event = self.asked(What::Patched, &story, &located, Kind::default());
        self.tell(Event { token: Some(writer.token), hash: writer.hash.clone(), ..event });
    }

    fn asked(&self, what: What, story: &Story, path: &Located, kind: Kind) -> Event {
        Event {
            seq: 0,
            time: self.clock.wall_ms(),
            what,
            story_id: story.clone(),
            path: path.path.clone(),
            canonical: (path.canonical != path.path).then(|| path.canonical.clone()),
            token: None,
            pid: std::process::id(),
            host: sys::host().to_owned(),
            mode: kind.mode,
            recursive: kind.recursive,
            held_for: None,
            waited_for: None,
            by: None,
            reason: None,
            code: None,
            hash: None,
            recovered: false,
        }
    }

    /// A waiter joins its queues, or leaves one: refused if `error` says why.
    pub(crate) fn tell_waiter(&mut self, what: What, waiter: &Waiter, error: Option<&Error>) {
        if self.history.is_off() {
            return;
        }
        let now = self.clock.wall_ms();
        let holder = error.and_then(|error| error.holder.as_ref());
        self.tell(Event {
            seq: 0,
            time: now,
            what,
            story_id: waiter.story_id.clone(),
            path: waiter.file_path.clone(),
            canonical: waiter.canonical.clone(),
            token: None,
            pid: waiter.pid,
            host: waiter.host.clone(),
            mode: waiter.mode,
            recursive: waiter.recursive,
            held_for: None,
            waited_for: (what != What::Queued).then(|| now.saturating_sub(waiter.since)),
            by: holder.map(|holder| holder.record.story_id.to_string()),
            reason: waiter.reason.clone(),
            code: error.map(|error| error.code.as_str().to_owned()),
            hash: None,
            recovered: false,
        });
    }

    /// Writes what the round did into the history, what a kill kept from being written first.
    pub(crate) fn write_history(&mut self, held: &mut Held<'_>, before: u64) {
        let mut events = std::mem::take(&mut self.events);
        let is_behind = held.logged() != before;
        if self.history.is_off() {
            held.set_logged();
            return;
        }
        if held.logged() == held.changes() && events.is_empty() {
            return;
        }
        if self.history.is_homeless() {
            // Somebody removed its folder alone.
            let _ = self.ground.mend();
        }
        if is_behind && let Ok(News::Keys(keys)) = held.news(held.logged()) {
            // What this very round did is in its own events.
            let own: Vec<Option<u64>> = events.iter().map(|event| event.token).collect();
            let held_now = |key: &Key| self.index.get(key);
            let now = self.clock.wall_ms();
            let missing = history::missing(&self.ground.progress, &keys, held_now, now);
            let mut missing = missing.unwrap_or_default();
            missing.retain(|event| !own.contains(&event.token));
            missing.append(&mut events);
            events = missing;
        }
        if self.history.append(&self.ground.progress, &mut events) {
            held.set_logged();
        }
    }

    /// Writes the view if it is behind and due.
    pub(crate) fn show(&mut self, view: &mut View, held: &mut Held<'_>) {
        let is_behind = !held.is_viewed();
        view.set_behind(is_behind);
        if is_behind && view.is_homeless() {
            // Somebody removed its folder alone.
            let _ = self.ground.mend();
        }
        if !is_behind || view.wait(self.index.count() + self.index.waiting()).is_some() {
            return;
        }
        let clock = &*self.clock;
        let holds = |record: &Record| !record.is_over(clock) && !self.dead.contains(&record.holder);
        let entries = self.index.entries().filter_map(|(holders, json)| {
            if holders.iter().all(holds) {
                return Some(Cow::Borrowed(json));
            }
            let living: Vec<Record> = holders.iter().filter(|one| holds(one)).cloned().collect();
            (!living.is_empty()).then(|| Cow::Owned(view::entry(&living)))
        });
        let lives = |waiter: &&Waiter| !self.dead.contains(&waiter.holder);
        let waiters =
            self.index.queues().flat_map(|(_, queue)| queue.iter().filter(lives).zip(1..));
        let written = view.write(&self.ground.progress, entries, waiters, clock.wall_ms());
        view.set_behind(!(written && held.note_viewed().is_ok()));
    }
}
