//! The file store: locks kept in a project's `.ai/locks`, for all processes of one machine.
//!
//! Promises: a round of steps is decided under the guard and shown in the view before it is answered; if
//! the folder is removed under us, that is noticed at the next round at the latest, nothing is granted on
//! the lost ground, and tokens go on rising on the new one. Nothing is opened before the first round.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::ground::{self, GUARD, Ground, Sight};
use crate::guard::{self, Guard, Held};
use crate::holder::Holder;
use crate::index::{self, Changed};
use crate::key::{Key, Located};
use crate::record::{self, Found, HolderId, Record};
use crate::session::{self, Life};
use crate::shelf::Shelf;
use crate::standing::{self, Standing};
use crate::store::{Done, Listed, Round, Status, Step, Store};
use crate::view::View;

/// The most leases ended on the way of a round that somebody waits for.
const SWEPT_A_ROUND: usize = 32;
/// The most leases ended at once while nobody waits.
const SWEPT_AT_REST: usize = 1024;
/// The least time between two looks for ended leases of others.
const OTHERS: Duration = Duration::from_millis(250);
/// How long a dead process's bound lock stays to tell the next holder whose it was.
const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;
/// How often in a row the ground may vanish before that is an error.
const REMOVALS: usize = 8;

/// Locks kept in files.
pub struct Files {
    root: PathBuf,
    clock: Arc<dyn Clock>,
    site: Option<Site>,
    /// The last token known when the ground was lost.
    sequence: u64,
    view: View,
}

struct Site {
    guard: Guard,
    shelf: Shelf,
}

impl Files {
    /// The file store of a project. Touches nothing yet.
    pub fn new(root: &Path, clock: Arc<dyn Clock>) -> Files {
        let root = root.to_owned();
        Files { root, clock, site: None, sequence: 0, view: View::default() }
    }

    fn open(&mut self) -> Result<(), Error> {
        let ground = Ground::open(&self.root)?;
        let path = ground.locks.path().join(GUARD);
        let guard = Guard::new(ground.guard_file()?, &path).above(self.sequence);
        let shelf = Shelf::new(ground, Arc::clone(&self.clock));
        let mut site = Site { guard, shelf };
        let clock = Arc::clone(&self.clock);
        let mut held = site.guard.lock(&*clock)?;
        let shelf = &mut site.shelf;
        shelf.ground.prove_locks()?;
        shelf.index.catch_up(&shelf.ground.locks, &held, &*clock)?;
        let highest = shelf.index.iter().map(|(_, record)| record.token).max().unwrap_or(0);
        held.raise_sequence(highest)?;
        for holder in shelf.index.holders().collect::<Vec<_>>() {
            let _ = shelf.life(holder);
        }
        let is_forgotten = |record: &Record| {
            let age = clock.wall_ms().saturating_sub(record.acquired_at);
            shelf.dead.contains(&record.holder) && age > REMEMBERED_MS
        };
        let forgotten = shelf.index.iter().filter(|(_, record)| is_forgotten(record));
        let forgotten: Vec<Key> = forgotten.map(|(key, _)| *key).collect();
        let _ = shelf.remove(&mut held, &forgotten);
        shelf.sweep(&mut held, SWEPT_AT_REST);
        session::sweep(&shelf.ground.holders, |holder| shelf.index.is_named(holder));
        drop(held);
        self.site = Some(site);
        Ok(())
    }

    /// Does `work` under the guard, on ground that is in place before and after.
    fn under_guard(&mut self, work: impl FnOnce(&mut Shelf, &mut Held<'_>)) -> Result<Seen, Error> {
        let clock = Arc::clone(&self.clock);
        let mut is_new_ground = false;
        for _ in 0..REMOVALS {
            if self.site.is_none() {
                self.open()?;
            }
            let Some(Site { guard, shelf }) = &mut self.site else { continue };
            let mut held = guard.lock(&*clock)?;
            if !in_place(&shelf.ground, held.file())? {
                is_new_ground = true;
                drop(held);
                self.lose();
                continue;
            }
            let changed = shelf.index.catch_up(&shelf.ground.locks, &held, &*clock)?;
            work(shelf, &mut held);
            show(&mut self.view, shelf, &mut held, &*clock);
            shelf.index.is_current(&held);
            let mut changed = changed;
            let touched = std::mem::take(&mut shelf.touched);
            if let Changed::Keys(keys) = &mut changed {
                keys.extend(touched);
            }
            let is_lost = !in_place(&shelf.ground, held.file())?;
            drop(held);
            if is_lost {
                self.lose();
            }
            return Ok(Seen { changed, is_new_ground: is_new_ground || is_lost, is_lost });
        }
        let path = self.root.join(ground::STATE).join("locks");
        let cause = io::Error::from(io::ErrorKind::NotFound);
        Err(Error::system("keep", &path, &cause).hint("Something removes it again and again."))
    }

    fn lose(&mut self) {
        if let Some(site) = self.site.take() {
            self.sequence = site.guard.sequence();
        }
    }

    fn standing(&self, sight: &Sight, record: &Record) -> Result<Standing, Error> {
        let life = |holder| life(sight.holders.as_ref(), holder);
        standing::of_record(record, &*self.clock, life)
            .map_err(|cause| Error::system("look at the holders in", sight.locks.path(), &cause))
    }
}

/// What a round under the guard saw.
struct Seen {
    changed: Changed,
    is_new_ground: bool,
    /// The ground vanished while the work was done: none of it counts.
    is_lost: bool,
}

impl Store for Files {
    fn run(&mut self, steps: &[Step]) -> Round {
        let mut answers = Vec::with_capacity(steps.len());
        let seen = self.under_guard(|shelf, held| {
            answers.extend(steps.iter().map(|step| shelf.step(held, step)));
            shelf.sweep(held, SWEPT_A_ROUND);
        });
        match seen {
            Ok(seen) if seen.is_lost => {
                let locks = self.root.join(ground::STATE).join("locks");
                answers.iter_mut().for_each(|answer| refuse_grants(answer, &locks));
                Round { answers, changed: seen.changed, is_new_ground: true }
            }
            Ok(seen) => Round { answers, changed: seen.changed, is_new_ground: seen.is_new_ground },
            Err(error) => {
                let answers = steps.iter().map(|_| Err(error.clone())).collect();
                Round { answers, changed: Changed::Everything, is_new_ground: false }
            }
        }
    }

    fn tend(&mut self) -> Round {
        let idle = |changed| Round { answers: Vec::new(), changed, is_new_ground: false };
        let nothing = || idle(Changed::Keys(Vec::new()));
        let Some(Site { guard, shelf }) = &self.site else { return nothing() };
        match in_place(&shelf.ground, guard.file()) {
            Ok(true) => {}
            Ok(false) => {
                self.lose();
                return Round { is_new_ground: true, ..nothing() };
            }
            Err(_) => return nothing(),
        }
        let is_quiet = guard::changes_hint(guard.file())
            .is_ok_and(|changes| shelf.index.has_seen(changes))
            && shelf.owed.is_empty()
            && shelf.session.as_ref().is_none_or(|mine| mine.is_in_place(&shelf.ground.holders))
            && self.tend_in().is_none_or(|wait| !wait.is_zero());
        if is_quiet {
            return nothing();
        }
        let tended = self.under_guard(|shelf, held| {
            shelf.sweep(held, SWEPT_AT_REST);
            if let Some(session) = &mut shelf.session {
                let _ = session.mend(&shelf.ground.holders);
            }
        });
        match tended {
            Ok(seen) => Round { is_new_ground: seen.is_new_ground, ..idle(seen.changed) },
            Err(_) => nothing(),
        }
    }

    fn tend_in(&self) -> Option<Duration> {
        let shelf = &self.site.as_ref()?.shelf;
        let view = self.view.is_behind().then(|| self.view.wait(shelf.index.count()));
        let view = view.map(Option::unwrap_or_default);
        let end = shelf.index.next_end_us(&*self.clock).map(Duration::from_micros);
        [view, end.map(|end| if end.is_zero() { end } else { end.max(OTHERS) })]
            .into_iter()
            .flatten()
            .min()
    }

    fn known(&self, key: &Key) -> Option<&Record> {
        self.site.as_ref()?.shelf.index.get(key)
    }

    fn check(&self, path: &Located) -> Result<Option<Holder>, Error> {
        let Some(sight) = Sight::open(&self.root)? else { return Ok(None) };
        for key in [Some(path.key), path.spelled].into_iter().flatten() {
            let file = sight.locks.path().join(key.file_name());
            let found = record::read(&sight.locks, &key)
                .map_err(|cause| Error::system("read", &file, &cause))?;
            match found {
                Found::Nothing => {}
                Found::Record(record) => {
                    if self.standing(&sight, &record)? == Standing::Holds {
                        return Ok(Some(Holder::of(*record, &*self.clock)));
                    }
                }
                Found::Unreadable(found) => {
                    return Err(found.refusal(path, &file));
                }
            }
        }
        Ok(None)
    }

    fn verify(&self, key: &Key, token: u64) -> Result<bool, Error> {
        let Some(Site { guard, shelf }) = &self.site else { return Ok(false) };
        if !in_place(&shelf.ground, guard.file())? {
            return Ok(false);
        }
        let found = shelf.current(key, token)?;
        let is_over =
            |record: &Record| record.deadline().is_some_and(|end| end.is_over(&*self.clock));
        Ok(found.is_some_and(|record| !is_over(&record)))
    }

    fn status(&self) -> Status {
        let lock_directory = self.root.join(ground::STATE).join("locks");
        let mut status = Status { lock_directory, ..Status::default() };
        match self.list(&mut status) {
            Err(error) => status.error = Some(error.message.clone()),
            Ok(()) => {
                let behind = self.view.error();
                status.error =
                    behind.map(|cause| format!("The view could not be written: {cause}."));
            }
        }
        status
    }

    fn life_line(&self) -> Option<&std::fs::File> {
        Some(self.site.as_ref()?.shelf.session.as_ref()?.file())
    }

    fn leave(&mut self) {
        if let Some(Site { mut guard, shelf }) = self.site.take()
            && let Some(session) = shelf.session
        {
            // Under the guard, so that nobody takes the file for a dead one's and sweeps it meanwhile.
            let _held = guard.lock(&*self.clock);
            let _ = session.end(&shelf.ground.holders);
        }
    }
}

impl Files {
    fn list(&self, status: &mut Status) -> Result<(), Error> {
        let Some(sight) = Sight::open(&self.root)? else { return Ok(()) };
        let mut lives: HashMap<HolderId, Life> = HashMap::new();
        for key in index::keys(&sight.locks)? {
            let lock_file = sight.locks.path().join(key.file_name());
            let record = match record::read(&sight.locks, &key) {
                Ok(Found::Record(record)) => record,
                Ok(Found::Nothing) => continue,
                Ok(Found::Unreadable(_)) | Err(_) => {
                    status.unreadable.push(lock_file);
                    continue;
                }
            };
            let life = |holder| match lives.get(&holder) {
                Some(life) => Ok(*life),
                None => {
                    let told = life(sight.holders.as_ref(), holder)?;
                    lives.insert(holder, told);
                    Ok(told)
                }
            };
            // What cannot be asked about counts as held.
            let standing = standing::of_record(&record, &*self.clock, life);
            let is_stale = matches!(standing, Ok(Standing::Over(_)));
            let holder = Holder::of(*record, &*self.clock);
            status.locks.push(Listed { holder, is_stale, lock_file });
        }
        status
            .locks
            .sort_by_key(|listed| (listed.holder.record.acquired_at, listed.holder.record.token));
        Ok(())
    }
}

fn life(holders: Option<&crate::sys::Dir>, holder: HolderId) -> io::Result<Life> {
    holders.map_or(Ok(Life::Unknown), |holders| session::life(holders, holder))
}

fn in_place(ground: &Ground, guard: &std::fs::File) -> Result<bool, Error> {
    ground
        .is_in_place(guard)
        .map_err(|cause| Error::system("look at", &ground.locks.path().join(GUARD), &cause))
}

fn refuse_grants(answer: &mut Result<Done, Error>, locks: &Path) {
    if matches!(answer, Ok(Done::Granted(_) | Done::Renewed(_))) {
        let message = format!("{} was removed while the lock was being taken.", locks.display());
        *answer = Err(Error::new(Code::Compromised, message)
            .at(locks)
            .hint("Nothing was granted. Try again, and keep `git clean -x` away from .ai."));
    }
}

/// Writes the view if it is behind and due.
fn show(view: &mut View, shelf: &Shelf, held: &mut Held<'_>, clock: &dyn Clock) {
    let is_behind = !held.is_viewed();
    view.set_behind(is_behind);
    if !is_behind || view.wait(shelf.index.count()).is_some() {
        return;
    }
    let holds = |record: &Record| {
        let is_over = record.deadline().is_some_and(|deadline| deadline.is_over(clock));
        !is_over && !shelf.dead.contains(&record.holder)
    };
    let entries = shelf.index.entries().filter(|(record, _)| holds(record));
    let written =
        view.write(&shelf.ground.progress, entries.map(|(_, json)| json), clock.wall_ms());
    if written && held.note_viewed().is_ok() {
        view.set_behind(false);
    }
}
