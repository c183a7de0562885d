//! One root's calls, served a batch at a time: who is told what, and who has lost what.
//!
//! Promises: every call is answered exactly once, in one delivery a batch to each client; every loss of a
//! lock is told once to those who have it. A panic in here answers its batch with an error and counts
//! every lock as lost rather than go on in doubt.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, Message, Port};
use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::holdings::{ClientId, Holdings};
use crate::index::Changed;
use crate::key::Key;
use crate::store::{Step, Store};
use crate::sys;

/// How often a process that holds locks looks whether the ground is still there.
const WATCH: Duration = Duration::from_secs(1);

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
    clock: Arc<dyn Clock>,
    mail: HashMap<ClientId, Vec<Message>>,
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
        }
    }

    /// Serves these calls and delivers the answers.
    pub fn serve(&mut self, mut batch: Vec<Request>, before_delivery: impl FnOnce(&Desk)) {
        let tickets: Vec<(ClientId, u64)> =
            batch.iter().map(|request| (request.client, request.ticket)).collect();
        let mut served = Vec::new();
        for request in &mut batch {
            self.ports.insert(request.client, Arc::clone(&request.port));
            served.extend(request.served.take());
        }
        // A client that closes gives up what this very batch grants it, too.
        let is_close = |request: &Request| matches!(request.call, Call::Close);
        let (closing, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_close);
        let closed: Vec<ClientId> = closing.iter().map(|request| request.client).collect();
        let work = || {
            self.work(batch);
            self.work(closing);
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
            self.notice(&round.changed, round.is_new_ground, &HashSet::new());
            self.notice_ended();
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
        [watch, end, self.store.tend_in()].into_iter().flatten().min()
    }

    /// Gives everything up: the engine ends.
    pub fn leave(&mut self) {
        let left = self.holdings.take().into_iter().filter(|(_, holding)| holding.is_ours);
        let grants: Vec<(Key, u64)> =
            left.map(|(key, holding)| (key, holding.record.token)).collect();
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if !grants.is_empty() {
                self.store.run(&[Step::LetGo(grants)]);
            }
            self.store.leave();
        }));
    }

    /// The descriptor of the file that keeps this process's locks alive, if it has one.
    pub fn life_line(&self) -> Option<i32> {
        self.store.life_line().map(sys::descriptor)
    }

    /// Reports the locks that are lost, now that these keys may have other records. `given_up` are those
    /// that the only client which had them gave up by name.
    pub(crate) fn notice(
        &mut self,
        changed: &Changed,
        is_new_ground: bool,
        given_up: &HashSet<Key>,
    ) {
        let keys = match changed {
            Changed::Keys(keys) if !is_new_ground => keys.clone(),
            _ => self.holdings.keys(),
        };
        for key in keys {
            let Some(holding) = self.holdings.get_mut(&key) else { continue };
            let known = self.store.known(&key);
            match known {
                Some(record) if record.token == holding.record.token => {
                    let record = record.clone();
                    self.holdings.refresh(&key, &record);
                }
                known => {
                    let error = holding.lost(known, is_new_ground, &*self.clock);
                    self.report(&key, error, given_up.contains(&key));
                }
            }
        }
    }

    /// Reports the leases that ended, whether or not their records could be removed yet.
    fn notice_ended(&mut self) {
        for key in self.holdings.ended(&*self.clock) {
            let Some(holding) = self.holdings.get_mut(&key) else { continue };
            let error = holding.lost(None, false, &*self.clock);
            self.report(&key, error, false);
        }
    }

    fn report(&mut self, key: &Key, error: Error, is_given_up: bool) {
        let Some(holding) = self.holdings.remove(key) else { return };
        let token = holding.record.token;
        for client in holding.clients {
            self.post(
                client,
                if is_given_up {
                    Message::GivenUp { key: *key, token }
                } else {
                    Message::Lost { key: *key, token, error: error.clone() }
                },
            );
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
            self.post(*client, Message::Answer(*ticket, Err(defect())));
        }
        for (key, holding) in self.holdings.take() {
            let error = holding.lost(None, false, &*self.clock);
            for client in holding.clients {
                let token = holding.record.token;
                self.post(client, Message::Lost { key, token, error: error.clone() });
            }
        }
    }
}

/// What a caller is told when this library is at fault.
pub(crate) fn defect() -> Error {
    Error::new(Code::Internal, "storylock met a defect of its own and gave up its locks.")
        .hint("Nothing was granted. Please report it with what led to it.")
}
