//! One root's calls, served a batch at a time: who is told what, and who has lost what.
//!
//! Promises: every call is answered exactly once, in one delivery a batch to each client; every loss of a
//! lock is told once to those who have it. A panic in here answers its batch with an error and counts
//! every lock as lost rather than go on in doubt.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::call::{Call, Message, Port};
use crate::change::Staged;
use crate::claims::{ClientId, Holding};
use crate::clock::Clock;
use crate::error::Error;
use crate::holdings::{Holdings, LockId};
use crate::index::Changed;
use crate::key::{Key, Target};
use crate::kind::Mode;
use crate::record::Record;
use crate::store::{Step, Store, Wake, Workshop};
use crate::story::Story;
use crate::sys;
use crate::waits::Waits;

/// How often a process that holds locks looks whether the ground is still there.
const WATCH: Duration = Duration::from_secs(1);

/// How soon those line up again whose places were lost.
const AGAIN: Duration = Duration::from_millis(5);

/// Which client gave a story's lock up by name.
pub(crate) type GivenUp = HashMap<(Key, Story), ClientId>;

/// A call on its way.
pub struct Request {
    /// Who asks.
    pub client: ClientId,
    /// Where the answer goes.
    pub port: Arc<dyn Port>,
    /// The number that the answer will carry.
    pub ticket: u64,
    /// What is asked.
    pub call: Call,
    /// Told when the call was served, for those who cannot wait for a delivery.
    pub served: Option<std::sync::mpsc::SyncSender<()>>,
}

/// Makes the store, at first and after a panic.
pub type MakeStore = Box<dyn Fn() -> Box<dyn Store> + Send>;

/// One root's calls, served one batch at a time.
pub struct Desk {
    make_store: MakeStore,
    pub(crate) store: Box<dyn Store>,
    pub(crate) holdings: Holdings,
    ports: HashMap<ClientId, Arc<dyn Port>>,
    pub(crate) clock: Arc<dyn Clock>,
    mail: HashMap<ClientId, Vec<Message>>,
    pub(crate) waits: Waits,
    /// Changes in place that are to be flushed before they are answered.
    pub(crate) committed: Vec<(ClientId, u64, Arc<Mutex<Staged>>)>,
    /// Changes that came to nothing, and what they made is to be removed.
    pub(crate) dropped: Vec<(ClientId, u64, Arc<Mutex<Staged>>, Error)>,
    /// Locks whose leases are not yet what their claims want.
    pub(crate) unsettled: HashSet<LockId>,
    wake: Option<Wake>,
}

impl Desk {
    /// A desk over the store that `make_store` makes.
    pub fn new(make_store: MakeStore, clock: Arc<dyn Clock>) -> Desk {
        Desk {
            store: make_store(),
            make_store,
            holdings: Holdings::default(),
            ports: HashMap::new(),
            clock,
            mail: HashMap::new(),
            waits: Waits::default(),
            committed: Vec::new(),
            dropped: Vec::new(),
            unsettled: HashSet::new(),
            wake: None,
        }
    }

    /// Has `wake` called whenever [`Desk::tend`] has something to do that time does not tell.
    pub fn on_wake(&mut self, wake: Wake) {
        self.store.on_wake(Arc::clone(&wake));
        self.wake = Some(wake);
    }

    /// Serves these calls and delivers the answers.
    pub fn serve(&mut self, mut batch: Vec<Request>, before_delivery: impl FnOnce(&Desk)) {
        let answered = batch.iter().filter(|one| !matches!(one.call, Call::Cancel { .. }));
        let tickets: Vec<(ClientId, u64)> =
            answered.map(|request| (request.client, request.ticket)).collect();
        let mut served = Vec::new();
        for request in &mut batch {
            self.ports.insert(request.client, Arc::clone(&request.port));
            served.extend(request.served.take());
        }
        // What ends something goes by what this very batch begins: a scope that opens keeps the lock
        // that another closes on. A client that closes gives up what it was granted before, and
        // whoever calls after that finds it given up.
        let mut rounds: Vec<Vec<Request>> = Vec::new();
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        let mut closed: Vec<ClientId> = Vec::new();
        for request in batch {
            match request.call {
                Call::Close => {
                    closed.push(request.client);
                    rounds.extend([std::mem::take(&mut begin), std::mem::take(&mut end)]);
                    rounds.push(vec![request]);
                }
                Call::Cancel { .. } | Call::LetGo { scope: true, .. } => end.push(request),
                _ => begin.push(request),
            }
        }
        rounds.extend([begin, end]);
        let work = || {
            for requests in rounds.into_iter().filter(|requests| !requests.is_empty()) {
                self.work(requests);
            }
        };
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.start_over(&tickets);
        }
        before_delivery(self);
        self.deliver();
        for client in closed {
            self.ports.remove(&client);
        }
        for told in served {
            // Nobody waits any more: then nobody needs to know.
            let _ = told.try_send(());
        }
    }

    /// Looks after leases and the ground; call it when [`Desk::tend_in`] has passed.
    pub fn tend(&mut self) {
        let tended = catch_unwind(AssertUnwindSafe(|| {
            let round = self.store.tend();
            let granted = self.absorb(round, &GivenUp::new());
            self.notice_ended();
            self.conclude(granted, &GivenUp::new());
            self.line_up_again();
            self.time_out();
        }));
        if tended.is_err() {
            self.start_over(&[]);
        }
        self.deliver();
    }

    /// How long until [`Desk::tend`] has something to do.
    pub fn tend_in(&self) -> Option<Duration> {
        let watch = (!self.holdings.is_empty()).then_some(WATCH);
        let end = self.holdings.next_end_us(&*self.clock).map(Duration::from_micros);
        let patience = self.waits.next_end_us(&*self.clock).map(Duration::from_micros);
        let displaced = self.waits.has_displaced().then_some(AGAIN);
        let unsettled = (!self.unsettled.is_empty()).then_some(WATCH);
        [watch, end, patience, displaced, unsettled, self.store.tend_in()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Gives everything up: the engine ends.
    pub fn leave(&mut self) {
        let left = self.holdings.take().into_iter();
        let ours =
            left.filter(|(_, holding)| !holding.is_borrowed(self.store.is_ours(&holding.record)));
        let grants: Vec<LockId> = ours.map(|(lock, _)| lock).collect();
        let leaving = self.waits.ids().into_iter();
        let leaving: Vec<Step> =
            leaving.map(|id| Step::Leave { waiter: id, keep: false }).collect();
        let _ = catch_unwind(AssertUnwindSafe(|| {
            // Ground that was removed is not made anew only to give up what went with it.
            if self.store.tend().is_new_ground {
                return;
            }
            if !leaving.is_empty() {
                self.store.run(&leaving);
            }
            if !grants.is_empty() {
                self.store.run(&[Step::LetGo(grants)]);
            }
            self.store.leave();
        }));
    }

    /// Where a change under these grants is prepared.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin_change(&mut self, grants: &[(Key, u64)]) -> Result<Workshop, Error> {
        let (begun, round) = self.store.begin_change(grants);
        // Others were at work meanwhile: turns that came, locks that were lost.
        let granted = self.absorb(round, &GivenUp::new());
        self.conclude(granted, &GivenUp::new());
        self.deliver();
        begun
    }

    /// The changes that were put in place since this was asked last: whose, which call, and what.
    pub fn take_committed(&mut self) -> Vec<(ClientId, u64, Arc<Mutex<Staged>>)> {
        std::mem::take(&mut self.committed)
    }

    /// The changes that came to nothing since this was asked last, and why.
    pub fn take_dropped(&mut self) -> Vec<(ClientId, u64, Arc<Mutex<Staged>>, Error)> {
        std::mem::take(&mut self.dropped)
    }

    /// The port of a client.
    pub fn port(&self, client: ClientId) -> Option<Arc<dyn Port>> {
        self.ports.get(&client).cloned()
    }

    /// A refusal with what is known of who wrote the file last.
    pub fn with_writer(&self, error: Error) -> Error {
        let path = error.path.clone().filter(|_| error.base.is_some());
        let key = path.and_then(|path| path.to_str().and_then(|path| Target::new(path).ok()));
        let key = key.and_then(|target| target.locate().ok()).map(|located| located.key);
        match key.and_then(|key| self.store.writer(&key)) {
            Some(writer) => error.written_by(writer),
            None => error,
        }
    }

    /// The descriptor of the file that keeps this process's locks alive, if it has one.
    pub fn life_line(&self) -> Option<i32> {
        self.store.life_line().map(sys::descriptor)
    }

    /// Reports the locks that are lost, now that these keys may have other records. `given_up` says which
    /// client gave a story's lock up by name: that is no loss to it.
    pub(crate) fn notice(&mut self, changed: &Changed, is_new_ground: bool, given_up: &GivenUp) {
        let locks: Vec<LockId> = match changed {
            Changed::Keys(keys) if !is_new_ground => {
                let of_keys = keys.iter().flat_map(|key| self.holdings.of_key(key));
                of_keys.map(|(lock, _)| lock).collect()
            }
            _ => self.holdings.locks(),
        };
        for lock in locks {
            let Some(holding) = self.holdings.get(&lock) else { continue };
            let (key, token) = lock;
            let known = self.store.known(&key);
            let record = known.iter().find(|record| record.token == token);
            if let Some(record) = record.filter(|record| holding.is_served_by(record)) {
                let record = record.clone();
                self.holdings.refresh(&lock, &record, &*self.clock);
                self.unsettled.insert(lock);
                continue;
            }
            let next = known.iter().find(|record| record.handed_from == Some(token));
            let by = given_up.get(&(key, holding.record.story_id.clone())).copied();
            if let Some(next) = next.filter(|next| next.story_id != holding.record.story_id) {
                // Whoever had it too is not the one who gave it away.
                let error = holding.lost(Some(next), None, false, &*self.clock);
                self.report(lock, error, by);
                continue;
            }
            if next.is_some() || self.store.handed_on(&key, token) {
                // It was handed on, as whoever had it wished.
                if let Some(holding) = self.holdings.remove(&lock) {
                    for client in holding.clients() {
                        self.post(client, Message::GivenUp { key, token });
                    }
                }
                continue;
            }
            let is_next = |record: &&Record| {
                record.mode == Mode::Exclusive || holding.record.mode == Mode::Exclusive
            };
            let successor = known.iter().find(is_next).cloned();
            let forced = self.store.forced(&key, token);
            let error = holding.lost(successor.as_ref(), forced, is_new_ground, &*self.clock);
            self.report(lock, error, by);
        }
    }

    /// Reports what ended though no record changed: leases that ran out, whether or not their records
    /// could be removed yet, and locks of other processes of a story that have died.
    fn notice_ended(&mut self) {
        let mut ended = self.holdings.ended(&*self.clock);
        for lock in self.holdings.locks() {
            let Some(holding) = self.holdings.get(&lock) else { continue };
            let record = &holding.record;
            if !self.store.is_ours(record)
                && matches!(self.store.verify(&lock.0, record.token), Ok(false))
            {
                ended.push(lock);
            }
        }
        for lock in ended {
            let Some(holding) = self.holdings.get(&lock) else { continue };
            let error = holding.lost(None, None, false, &*self.clock);
            self.report(lock, error, None);
        }
    }

    fn report(&mut self, lock: LockId, error: Error, given_up_by: Option<ClientId>) {
        if let Some(holding) = self.holdings.remove(&lock) {
            self.tell_lost(lock.0, &holding, &error, given_up_by);
        }
    }

    /// Tells those who had a lock that it is gone.
    pub(crate) fn tell_lost(
        &mut self,
        key: Key,
        holding: &Holding,
        error: &Error,
        given_up_by: Option<ClientId>,
    ) {
        let token = holding.record.token;
        for client in holding.clients() {
            let message = if given_up_by == Some(client) {
                Message::GivenUp { key, token }
            } else {
                Message::Lost { key, token, error: error.clone() }
            };
            self.post(client, message);
        }
    }

    pub(crate) fn post(&mut self, client: ClientId, message: Message) {
        self.mail.entry(client).or_default().push(message);
    }

    fn deliver(&mut self) {
        for (client, messages) in self.mail.drain() {
            if let Some(port) = self.ports.get(&client) {
                port.deliver(messages);
            }
        }
    }

    /// After a panic nothing is certain: every lock counts as lost, and the store begins anew.
    fn start_over(&mut self, tickets: &[(ClientId, u64)]) {
        self.store = (self.make_store)();
        if let Some(wake) = &self.wake {
            self.store.on_wake(Arc::clone(wake));
        }
        for wait in self.waits.take() {
            self.post(wait.client, Message::Answer(wait.ticket, Err(Error::defect())));
        }
        let answered: HashSet<(ClientId, u64)> = self
            .mail
            .iter()
            .flat_map(|(client, messages)| messages.iter().map(|message| (*client, message)))
            .filter_map(|(client, message)| match message {
                Message::Answer(ticket, _) => Some((client, *ticket)),
                Message::Lost { .. } | Message::GivenUp { .. } => None,
            })
            .collect();
        for (client, ticket) in tickets.iter().filter(|one| !answered.contains(one)) {
            self.post(*client, Message::Answer(*ticket, Err(Error::defect())));
        }
        for ((key, _), holding) in self.holdings.take() {
            let error = holding.lost(None, None, false, &*self.clock);
            self.tell_lost(key, &holding, &error, None);
        }
        self.unsettled.clear();
    }
}
