//! What the tests of waiting share: a store worked by hand, and a desk whose answers may stay out.
//!
//! Each [`Process`] stands for one: it has a store of its own, so a holder file of its own. Dropped
//! without a word it is a killed one, since its kernel locks go with its files.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use storylock::call::{Call, Message, Port, QUEUE_LIMIT, Reply};
use storylock::desk::{Desk, Request};
use storylock::files::Files;
use storylock::key::{Key, Located};
use storylock::queue::WaiterId;
use storylock::store::{Acquire, Done, Grant, Status, Step, Store};
use storylock::{Clock, Error, Kind, Lease, ManualClock};

use crate::common::{self, Project, key, story, target};

/// A store worked by hand, with what came for its waiters.
pub struct Process {
    pub store: Files,
    /// The turns that came and were not taken out yet.
    pub turns: BTreeMap<WaiterId, Vec<Grant>>,
    /// In the order in which they came.
    pub order: Vec<WaiterId>,
    pub displaced: Vec<WaiterId>,
}

pub fn located(path: &str) -> Located {
    target(path).locate().expect("a path that can be resolved")
}

/// A request for these paths that waits.
pub fn waiting(paths: &[String], story_id: &str) -> Acquire {
    Acquire { queue: Some(QUEUE_LIMIT), ..once(paths, story_id) }
}

/// A request for these paths, now or never.
pub fn once(paths: &[String], story_id: &str) -> Acquire {
    Acquire {
        paths: paths.iter().map(|path| (located(path), Kind::default())).collect(),
        story: story(story_id),
        lease: Lease::Bound,
        detached: false,
        reason: None,
        queue: None,
    }
}

/// A request for this path in this kind, now or never.
pub fn kinded(path: &str, kind: Kind, story_id: &str) -> Acquire {
    let mut ask = once(&[], story_id);
    ask.paths = vec![(located(path), kind)];
    ask
}

impl Process {
    /// Lines up for a lock of this kind; panics if it need not.
    pub fn wait_for(&mut self, path: &str, kind: Kind, story_id: &str) -> WaiterId {
        let ask = Acquire { queue: Some(QUEUE_LIMIT), ..kinded(path, kind, story_id) };
        match self.run(Step::Acquire(ask)) {
            Ok(Done::Queued(id)) => id,
            answer => unreachable!("{story_id} must wait for {path}: {answer:?}"),
        }
    }

    /// Takes a lock of this kind at once; panics if it cannot.
    pub fn has(&mut self, path: &str, kind: Kind, story_id: &str) -> Grant {
        match self.ask(path, kind, story_id) {
            Ok(grant) => grant,
            Err(error) => unreachable!("{story_id} must get {path}: {error}"),
        }
    }

    /// Asks for a lock of this kind, now or never.
    pub fn ask(&mut self, path: &str, kind: Kind, story_id: &str) -> Result<Grant, Error> {
        match self.run(Step::Acquire(kinded(path, kind, story_id)))? {
            Done::Granted(grants) => Ok(common::only(grants)),
            done => unreachable!("{done:?} answers no request"),
        }
    }

    pub fn transfer(&mut self, grant: &Grant, story_id: &str) -> Result<Grant, Error> {
        let (key, token) = (grant.key, grant.record.token);
        match self.run(Step::Transfer { key, token, story: story(story_id) })? {
            Done::Granted(grants) => Ok(common::only(grants)),
            done => unreachable!("{done:?} answers no transfer"),
        }
    }

    pub fn lower(&mut self, grant: &Grant, kind: Kind) {
        let (key, token) = (grant.key, grant.record.token);
        let done = self.run(Step::Lower { key, token, kind });
        assert!(matches!(done, Ok(Done::Renewed(_))), "{done:?}");
    }

    /// All stories that have the path, or a folder above it with all below.
    pub fn holders(&self, path: &str) -> Vec<String> {
        let holders = self.store.check(&located(path)).expect("a look that the system allows");
        holders.iter().map(|holder| holder.record.story_id.to_string()).collect()
    }

    pub fn new(project: &Project, clock: &Arc<ManualClock>) -> Process {
        Process::by(project, Arc::clone(clock) as Arc<dyn Clock>)
    }

    pub fn by(project: &Project, clock: Arc<dyn Clock>) -> Process {
        let store = Files::new(project.root(), clock);
        Process { store, turns: BTreeMap::new(), order: Vec::new(), displaced: Vec::new() }
    }

    pub fn run(&mut self, step: Step) -> Result<Done, Error> {
        let mut round = self.store.run(&[step]);
        self.order.extend(round.granted.iter().map(|(id, _)| *id));
        self.turns.extend(round.granted);
        self.displaced.extend(round.displaced);
        round.answers.remove(0)
    }

    pub fn tend(&mut self) {
        let round = self.store.tend();
        self.order.extend(round.granted.iter().map(|(id, _)| *id));
        self.turns.extend(round.granted);
        self.displaced.extend(round.displaced);
    }

    /// Lines up; panics if it need not.
    pub fn line_up(&mut self, paths: &[String], story_id: &str) -> WaiterId {
        match self.run(Step::Acquire(waiting(paths, story_id))) {
            Ok(Done::Queued(id)) => id,
            answer => unreachable!("{story_id} must wait for {paths:?}: {answer:?}"),
        }
    }

    /// Takes at once; panics if it cannot.
    pub fn take(&mut self, paths: &[String], story_id: &str) -> Vec<Grant> {
        match self.run(Step::Acquire(once(paths, story_id))) {
            Ok(Done::Granted(grants)) => grants,
            answer => unreachable!("{story_id} must get {paths:?}: {answer:?}"),
        }
    }

    pub fn try_take(&mut self, paths: &[String], story_id: &str) -> Result<Done, Error> {
        self.run(Step::Acquire(once(paths, story_id)))
    }

    pub fn release(&mut self, path: &str, story_id: &str) {
        let done = self.run(Step::Release { path: located(path), story: story(story_id) });
        assert_eq!(done, Ok(Done::Released));
    }

    pub fn cleanup(&mut self, story_id: &str) -> usize {
        match self.run(Step::Cleanup { story: story(story_id) }) {
            Ok(Done::Cleaned(count)) => count,
            answer => unreachable!("{answer:?}"),
        }
    }

    pub fn let_go(&mut self, grants: &[Grant]) {
        let grants = grants.iter().map(|grant| (grant.key, grant.record.token)).collect();
        let done = self.run(Step::LetGo(grants));
        assert!(matches!(done, Ok(Done::LetGo(_))), "{done:?}");
    }

    pub fn leave_line(&mut self, id: WaiterId, keep: bool) -> Done {
        self.run(Step::Leave { waiter: id, keep }).expect("a line that can be left")
    }

    /// Whether the turn of a waiter has come, once it has looked.
    pub fn has_turn(&mut self, id: WaiterId) -> bool {
        self.tend();
        self.turns.contains_key(&id)
    }

    pub fn status(&self) -> Status {
        self.store.status()
    }

    /// Which story holds the path.
    pub fn holder(&self, path: &str) -> Option<String> {
        let holder = self.store.check(&located(path)).expect("a look that the system allows");
        holder.first().map(|holder| holder.record.story_id.to_string())
    }

    /// The stories that wait for the path, in order.
    pub fn line(&self, path: &str) -> Vec<String> {
        let pending = self.status().waiting.into_iter();
        let here = pending.filter(|one| one.waiter.file_path == std::path::Path::new(path));
        here.map(|one| one.waiter.story_id.to_string()).collect()
    }
}

/// Where the queue of a file of the project stands.
pub fn queue_file(project: &Project, name: &str) -> PathBuf {
    queue_of(project, &key(&project.file(name)))
}

pub fn queue_of(project: &Project, key: &Key) -> PathBuf {
    project.locks().join("queue").join(key.to_string())
}

/// Messages that nobody waits for.
#[derive(Default)]
pub struct Letters(Mutex<Vec<Message>>);

impl Port for Letters {
    fn deliver(&self, messages: Vec<Message>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
    }
}

impl Letters {
    /// All answers to a ticket so far; there must never be two.
    pub fn answers(&self, ticket: u64) -> Vec<Result<Reply, Error>> {
        let letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = |message: &Message| match message {
            Message::Answer(of, answer) if *of == ticket => Some(answer.clone()),
            _ => None,
        };
        letters.iter().filter_map(answer).collect()
    }

    /// All that is no answer.
    pub fn events(&self) -> Vec<Message> {
        let letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_event = |message: &&Message| !matches!(message, Message::Answer(..));
        letters.iter().filter(is_event).cloned().collect()
    }
}

/// A desk served by hand whose answers may come later.
pub struct Counter {
    pub desk: Desk,
    letters: BTreeMap<u64, Arc<Letters>>,
    tickets: u64,
}

impl Counter {
    pub fn new(project: &Project, clock: &Arc<ManualClock>) -> Counter {
        let root = project.root().to_owned();
        let files_clock = Arc::clone(clock) as Arc<dyn Clock>;
        let make =
            move || -> Box<dyn Store> { Box::new(Files::new(&root, Arc::clone(&files_clock))) };
        Counter::over(Box::new(make), clock)
    }

    pub fn over(make: storylock::desk::MakeStore, clock: &Arc<ManualClock>) -> Counter {
        let desk = Desk::new(make, Arc::clone(clock) as Arc<dyn Clock>);
        Counter { desk, letters: BTreeMap::new(), tickets: 0 }
    }

    /// Serves these calls of clients as one batch; their tickets.
    pub fn batch(&mut self, calls: Vec<(u64, Call)>) -> Vec<u64> {
        let mut tickets = Vec::with_capacity(calls.len());
        let mut batch = Vec::with_capacity(calls.len());
        for (client, call) in calls {
            let letters = Arc::clone(self.letters.entry(client).or_default());
            let ticket = self.tickets;
            self.tickets += 1;
            let port = letters as Arc<dyn Port>;
            batch.push(Request { client, port, ticket, call, served: None });
            tickets.push(ticket);
        }
        self.desk.serve(batch, |_| {});
        tickets
    }

    pub fn call(&mut self, client: u64, call: Call) -> u64 {
        self.batch(vec![(client, call)]).remove(0)
    }

    /// The one answer to a ticket, if it came.
    pub fn answer(&self, client: u64, ticket: u64) -> Option<Result<Reply, Error>> {
        let mut answers = self.letters.get(&client)?.answers(ticket);
        assert!(answers.len() <= 1, "a call is answered once: {answers:?}");
        answers.pop()
    }

    /// What a client was told beside its answers.
    pub fn events(&self, client: u64) -> Vec<Message> {
        self.letters.get(&client).map(|letters| letters.events()).unwrap_or_default()
    }

    pub fn has_locks(&self, client: u64, ticket: u64) -> bool {
        matches!(self.answer(client, ticket), Some(Ok(Reply::Locks(_))))
    }

    pub fn tend(&mut self) {
        self.desk.tend();
    }
}
