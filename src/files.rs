//! The file store: locks kept in a project's `.ai/locks`, for all processes of one machine.
//!
//! Promises: a round of steps is decided under the guard and shown in the view before it is answered; if
//! the folder is removed under us, that is noticed at the next round at the latest, nothing is granted on
//! the lost ground, and tokens go on rising on the new one. Nothing is opened before the first round.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Forced, Writer};
use crate::ground::{self, FORCED, GUARD, Ground, HANDED, WRITTEN};
use crate::guard::{self, Guard, Held};
use crate::history::{Event, History, Limits, What};
use crate::holder::Holder;
use crate::index::Changed;
use crate::journal;
use crate::key::{Key, Located};
use crate::queue::WaiterId;
use crate::record::{HolderId, Record};
use crate::session::{self, Session};
use crate::shelf::{Shelf, Why};
use crate::standing::{self, Standing};
use crate::store::{self, Round, Status, Step, Store, Wake, Workshop};
use crate::survey;
use crate::view::View;
use crate::wake::{self, Watches};

/// The most leases ended on the way of a round that somebody waits for.
const SWEPT_A_ROUND: usize = 32;
/// The most leases ended at once while nobody waits.
const SWEPT_AT_REST: usize = 1024;
/// The least time between two looks for ended leases of others.
const OTHERS: Duration = Duration::from_millis(250);
/// The least time between two looks at a lease that ends in front of a waiter.
const SOONEST: Duration = Duration::from_millis(1);
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
    watches: Option<Watches>,
    /// How much history is kept, if any.
    limits: Option<Limits>,
    /// Whether ground was lost that nobody was told of yet, and whose places in line went with it.
    is_new_ground: bool,
    displaced: Vec<WaiterId>,
    /// What became of the locks that went with lost ground, to be told on the new.
    lost: Vec<Event>,
    /// In how many µs, from when, a lease in front of our waiters may end.
    turn_us: Option<u64>,
}

struct Site {
    guard: Guard,
    shelf: Shelf,
}

impl Files {
    /// The file store of a project. Touches nothing yet.
    pub fn new(root: &Path, clock: Arc<dyn Clock>) -> Files {
        let root = root.to_owned();
        Files {
            root,
            clock,
            site: None,
            sequence: 0,
            view: View::default(),
            watches: None,
            turn_us: None,
            limits: Some(Limits::default()),
            is_new_ground: false,
            displaced: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn open(&mut self) -> Result<(), Error> {
        let ground = Ground::open(&self.root)?;
        let path = ground.locks.path().join(GUARD);
        let guard = Guard::new(ground.guard_file()?, &path).above(self.sequence);
        let mut shelf = Shelf::new(ground, Arc::clone(&self.clock), History::new(self.limits));
        shelf.events.append(&mut self.lost);
        let mut site = Site { guard, shelf };
        let clock = Arc::clone(&self.clock);
        let mut held = site.guard.lock(&*clock)?;
        let before = held.changes();
        let shelf = &mut site.shelf;
        shelf.ground.prove_locks(held.file())?;
        journal::recover(&shelf.ground.locks, &self.root)?;
        shelf.index.catch_up(&shelf.ground, &held, &*clock)?;
        let highest = shelf.index.iter().map(|(_, record)| record.token).max().unwrap_or(0);
        // What we knew counts too, where another's folder was put in the place of ours.
        held.raise_sequence(highest.max(self.sequence))?;
        for holder in shelf.index.holders().collect::<Vec<_>>() {
            let _ = shelf.life(holder);
        }
        let is_forgotten = |record: &Record| {
            let age = clock.wall_ms().saturating_sub(record.acquired_at);
            shelf.dead.contains(&record.holder) && age > REMEMBERED_MS
        };
        let forgotten = shelf.index.iter().filter(|(_, record)| is_forgotten(record));
        let forgotten: Vec<(Key, u64)> =
            forgotten.map(|(key, record)| (*key, record.token)).collect();
        let _ = shelf.vacate(&mut held, &forgotten, &Why::Died);
        shelf.sweep(&mut held, SWEPT_AT_REST);
        shelf.sweep_changes();
        session::sweep(&shelf.ground.holders, |holder| shelf.index.is_named(holder));
        shelf.write_history(&mut held, before);
        held.settle();
        drop(held);
        self.site = Some(site);
        Ok(())
    }

    /// Does `work` under the guard, on ground that is in place before and after.
    fn under_guard(&mut self, work: impl FnOnce(&mut Shelf, &mut Held<'_>)) -> Result<Seen, Error> {
        let clock = Arc::clone(&self.clock);
        for _ in 0..REMOVALS {
            if self.site.is_none() {
                self.open()?;
            }
            let Some(Site { guard, shelf }) = &mut self.site else { continue };
            let mut held = guard.lock(&*clock)?;
            let before = held.changes();
            if !shelf.ground.is_in_place(held.file())? {
                drop(held);
                self.lose();
                continue;
            }
            shelf.alive.clear();
            shelf.reach.clear();
            journal::recover(&shelf.ground.locks, &self.root)?;
            let mut changed = shelf.index.catch_up(&shelf.ground, &held, &*clock)?;
            work(shelf, &mut held);
            let (granted, mut displaced) = shelf.collect(&mut held);
            shelf.write_history(&mut held, before);
            shelf.show(&mut self.view, &mut held);
            held.settle();
            shelf.index.is_current(&held);
            let touched = std::mem::take(&mut shelf.touched);
            if let Changed::Keys(keys) = &mut changed {
                keys.extend(touched);
            }
            let is_lost = !shelf.ground.is_in_place(held.file()).unwrap_or(false);
            drop(held);
            for holder in std::mem::take(&mut shelf.rung) {
                if shelf.session.as_ref().is_none_or(|mine| mine.id() != holder) {
                    session::ring(&shelf.ground.holders, holder);
                }
            }
            if is_lost {
                self.lose();
            }
            self.attend();
            displaced.append(&mut self.displaced);
            let is_new_ground = std::mem::take(&mut self.is_new_ground);
            let answers = Vec::new();
            let round = Round { answers, changed, granted, displaced, is_new_ground };
            return Ok(Seen { round, is_lost });
        }
        let path = self.root.join(ground::STATE).join("locks");
        let cause = io::Error::from(io::ErrorKind::NotFound);
        Err(Error::system("keep", &path, &cause).hint("Something removes it again and again."))
    }

    /// Sees to it that this process is woken when a turn may come for one of its waiters.
    fn attend(&mut self) {
        let Some(watches) = &mut self.watches else { return };
        match &mut self.site {
            Some(Site { shelf, .. }) if !shelf.waiting.is_empty() => {
                let (neighbours, end) = shelf.in_front_of_us();
                self.turn_us = end.map(|end| self.clock.monotonic_us().saturating_add(end));
                if let Some(session) = shelf.session.as_mut().filter(|mine| !mine.has_bell()) {
                    // Its folder was removed, and the watch of the old bell with it.
                    watches.rest();
                    let _ = session.hang_bell(&shelf.ground.holders);
                }
                watches.watch(&neighbours);
                let bell = shelf.session.as_ref().and_then(|mine| mine.bell(&shelf.ground.holders));
                if let Some(bell) = bell {
                    watches.listen(&bell);
                }
            }
            _ => {
                self.turn_us = None;
                watches.rest();
            }
        }
    }

    fn lose(&mut self) {
        let Some(Site { guard, shelf }) = self.site.take() else { return };
        self.sequence = guard.sequence();
        self.is_new_ground = true;
        self.displaced.extend(shelf.waiting.keys());
        let mine = shelf.session.as_ref().map(Session::id);
        let ours = shelf.index.iter().filter(|(_, record)| Some(record.holder) == mine);
        self.lost.extend(ours.map(|(_, record)| shelf.event(What::Lost, record)));
    }
}

/// What a round under the guard saw.
struct Seen {
    round: Round,
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
            Ok(seen) => {
                if seen.is_lost {
                    let locks = self.root.join(ground::STATE).join("locks");
                    answers.iter_mut().for_each(|answer| store::refuse_grant(answer, &locks));
                }
                Round { answers, ..seen.counted() }
            }
            Err(error) => Round {
                answers: steps.iter().map(|_| Err(error.clone())).collect(),
                ..Round::default()
            },
        }
    }

    fn tend(&mut self) -> Round {
        let Some(Site { guard, shelf }) = &self.site else { return Round::default() };
        match shelf.ground.is_in_place(guard.file()) {
            Ok(true) => {}
            Ok(false) => {
                self.lose();
                self.is_new_ground = false;
                let displaced = std::mem::take(&mut self.displaced);
                return Round { is_new_ground: true, displaced, ..Round::default() };
            }
            Err(_) => return Round::default(),
        }
        let is_quiet = guard::changes_hint(guard.file())
            .is_ok_and(|changes| shelf.index.has_seen(changes))
            && shelf.owed.is_empty()
            && shelf.waiting.is_empty()
            && shelf.session.as_ref().is_none_or(|mine| mine.is_in_place(&shelf.ground.holders))
            && self.tend_in().is_none_or(|wait| !wait.is_zero());
        if is_quiet {
            return Round::default();
        }
        let tended = self.under_guard(|shelf, held| {
            shelf.sweep(held, SWEPT_AT_REST);
            shelf.unstick_ours(held);
            shelf.mend_session();
        });
        tended.map(Seen::counted).unwrap_or_default()
    }

    fn tend_in(&self) -> Option<Duration> {
        let shelf = &self.site.as_ref()?.shelf;
        let view = self
            .view
            .is_behind()
            .then(|| self.view.wait(shelf.index.count() + shelf.index.waiting()));
        let view = view.map(Option::unwrap_or_default);
        let end = shelf.index.next_end_us(&*self.clock).map(Duration::from_micros);
        let end = end.map(|end| if end.is_zero() { end } else { end.max(OTHERS) });
        let turn = self.turn_us.map(|at| at.saturating_sub(self.clock.monotonic_us()));
        let turn = turn.map(|us| Duration::from_micros(us).max(SOONEST));
        let owed = (!shelf.owed.is_empty()).then_some(wake::SLOW);
        let look = self.watches.as_ref().filter(|_| !shelf.waiting.is_empty());
        [view, end, turn, owed, look.map(Watches::patience)].into_iter().flatten().min()
    }

    fn begin_change(&mut self, grants: &[(Key, u64)]) -> (Result<Workshop, Error>, Round) {
        let mut begun = Err(Error::defect());
        match self.under_guard(|shelf, held| begun = shelf.begin_change(held, grants)) {
            Ok(seen) => (begun, seen.counted()),
            Err(error) => (Err(error), Round::default()),
        }
    }

    fn writer(&self, key: &Key) -> Option<Writer> {
        self.site.as_ref()?.shelf.ground.noted(WRITTEN, key)
    }

    fn keep_history(&mut self, limits: Option<Limits>) {
        self.limits = limits;
        if let Some(site) = &mut self.site {
            site.shelf.history = History::new(limits);
        }
    }

    fn is_ours(&self, record: &Record) -> bool {
        let session = self.site.as_ref().and_then(|site| site.shelf.session.as_ref());
        !record.detached && session.is_some_and(|mine| mine.id() == record.holder)
    }

    fn known(&self, key: &Key) -> &[Record] {
        self.site.as_ref().map_or(&[], |site| site.shelf.index.get(key))
    }

    fn forced(&self, key: &Key, token: u64) -> Option<Forced> {
        let words: Vec<Forced> = self.site.as_ref()?.shelf.ground.noted(FORCED, key)?;
        words.into_iter().find(|forced| forced.token == token)
    }

    fn handed_on(&self, key: &Key, token: u64) -> bool {
        let noted = |site: &Site| site.shelf.ground.noted::<Vec<u64>>(HANDED, key);
        self.site.as_ref().and_then(noted).is_some_and(|tokens| tokens.contains(&token))
    }

    fn session(&self) -> Option<HolderId> {
        Some(self.site.as_ref()?.shelf.session.as_ref()?.id())
    }

    fn check(&self, path: &Located) -> Result<Vec<Holder>, Error> {
        survey::check(&self.root, &*self.clock, path)
    }

    fn verify(&self, key: &Key, token: u64) -> Result<bool, Error> {
        let Some(Site { guard, shelf }) = &self.site else { return Ok(false) };
        if !shelf.ground.is_in_place(guard.file())? {
            return Ok(false);
        }
        let Some(record) = shelf.current(key, token)? else { return Ok(false) };
        if self.is_ours(&record) {
            return Ok(!record.is_over(&*self.clock));
        }
        let life = |holder| session::life(&shelf.ground.holders, holder);
        let standing = standing::of_record(&record, &*self.clock, life)
            .map_err(|cause| shelf.no_life(record.holder, &cause))?;
        Ok(standing == Standing::Holds)
    }

    fn status(&self) -> Status {
        let lock_directory = self.root.join(ground::STATE).join("locks");
        let mut status = Status { lock_directory, ..Status::default() };
        match survey::list(&self.root, &*self.clock, &mut status) {
            Err(error) => status.error = Some(error.message.clone()),
            Ok(()) => {
                let shelf = self.site.as_ref().map(|site| &site.shelf);
                let untold = shelf.and_then(|shelf| shelf.history.error());
                let failed = |what: &str, cause: &io::Error| {
                    format!("The {what} could not be written: {cause}.")
                };
                let unseen = self.view.error().map(|cause| failed("view", cause));
                status.error = unseen.or_else(|| untold.map(|cause| failed("history", cause)));
            }
        }
        status
    }

    fn on_wake(&mut self, wake: Wake) {
        self.watches = Some(Watches::new(wake));
    }

    fn life_line(&self) -> Option<&std::fs::File> {
        Some(self.site.as_ref()?.shelf.session.as_ref()?.file())
    }

    fn leave(&mut self) {
        if let Some(watches) = &mut self.watches {
            watches.rest();
        }
        let Some(Site { mut guard, mut shelf }) = self.site.take() else { return };
        let Some(session) = shelf.session.take() else { return };
        // Closing the holder file tells the kernel, and the kernel everybody, that what still names it is
        // free. Its name goes only when nothing does: without it, life could only be guessed.
        let Ok(held) = guard.lock(&*self.clock) else { return };
        shelf.end_session(&held, &session);
    }
}

impl Seen {
    /// What counts of the round.
    fn counted(mut self) -> Round {
        if self.is_lost {
            self.round.granted.clear();
        }
        self.round
    }
}
