//! What the engine's tests share: a project in a scratch folder, and callers that wait for their answers.
//!
//! Promise: nothing in here sleeps for a time that matters. Whoever waits polls, and fails with what it
//! waited for after [`PATIENCE`].

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[cfg(target_os = "linux")]
pub mod child;
pub mod desk;
#[cfg(target_os = "linux")]
pub mod odd;
#[cfg(target_os = "linux")]
pub mod trace;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use storylock::call::{Ask, Call, Message, Order, Port, QUEUE_LIMIT, Reply, Wait};
use storylock::holder::Holder;
use storylock::store::{Grant, Pending, Status};
use storylock::{
    Client, Clock, Engine, Error, Key, Kind, Lease, ManualClock, Mode, Story, SystemClock, Target,
};

/// How long a test waits for what must happen, on the slowest of machines.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A lease that ends in no test.
pub const LONG: Lease = Lease::Timed(600_000);

/// A lock of a path alone, beside others who read.
pub const SHARED: Kind = Kind { mode: Mode::Shared, recursive: false };

/// A lock of a folder with all that is below.
pub const FOLDER: Kind = Kind { mode: Mode::Exclusive, recursive: true };

/// The same, beside others who read.
pub const SHARED_FOLDER: Kind = Kind { mode: Mode::Shared, recursive: true };

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says why a test proves nothing here.
pub fn say_skipped(why: &str) {
    // Not through the harness, which keeps what a test that passes says to itself.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {why}\n"));
}

pub fn story(id: &str) -> Story {
    Story::new(id).expect("a well-formed story id")
}

pub fn target(path: &str) -> Target {
    Target::new(path).expect("a well-formed path")
}

pub fn key(path: &str) -> Key {
    target(path).locate().expect("a path that can be resolved").key
}

/// The set of these paths, for a plain lock.
pub fn set(paths: &[impl AsRef<str>], story_id: &str, lease: Lease) -> Ask {
    Ask {
        targets: paths.iter().map(|path| (target(path.as_ref()), Kind::default())).collect(),
        story: story(story_id),
        lease,
        scope: false,
        detached: false,
        reason: None,
        wait: Wait::No,
        queue_limit: QUEUE_LIMIT,
    }
}

/// The set of these paths in these kinds.
pub fn kinds(paths: &[(String, Kind)], story_id: &str, lease: Lease) -> Ask {
    let none: [&str; 0] = [];
    let targets = paths.iter().map(|(path, kind)| (target(path), *kind)).collect();
    Ask { targets, ..set(&none, story_id, lease) }
}

/// A project.
pub struct Project {
    root: PathBuf,
    is_ours: bool,
}

impl Project {
    /// A new one, in a folder of its own.
    pub fn new() -> Project {
        let root = tempfile::tempdir().expect("a scratch folder").keep();
        Project { root: root.canonicalize().expect("a canonical path"), is_ours: true }
    }

    /// The one at this root, which somebody else made.
    pub fn at(root: &Path) -> Project {
        Project { root: root.to_owned(), is_ours: false }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The absolute path of a file of the project.
    pub fn file(&self, name: &str) -> String {
        let path = self.root.join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub fn files(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.file(name)).collect()
    }

    pub fn locks(&self) -> PathBuf {
        self.root.join(".ai/locks")
    }

    pub fn guard(&self) -> PathBuf {
        self.locks().join(".guard")
    }

    /// Where the record of a file of the project stands.
    pub fn record(&self, name: &str) -> PathBuf {
        self.locks().join(key(&self.file(name)).file_name())
    }

    /// The names of all records.
    pub fn records(&self) -> Vec<String> {
        let is_record = |name: &String| Key::from_file_name(name).is_some();
        names(&self.locks()).into_iter().filter(is_record).collect()
    }

    /// The names in the folder of records that belong to nothing: what a failure or a kill has left.
    pub fn litter(&self) -> Vec<String> {
        let is_litter = |name: &String| {
            !matches!(name.as_str(), ".gitignore" | ".guard" | "holders" | "queue")
                && Key::from_file_name(name).is_none()
        };
        let queues = names(&self.locks().join("queue")).into_iter();
        names(&self.locks()).into_iter().filter(is_litter).chain(queues).collect()
    }

    /// The numbers of all holder files.
    pub fn holders(&self) -> Vec<String> {
        names(&self.locks().join("holders"))
    }

    /// The view, `locks.json`.
    pub fn view(&self) -> serde_json::Value {
        let path = self.root.join(".ai/progress/locks.json");
        let text = std::fs::read_to_string(&path).expect("a view");
        serde_json::from_str(&text).expect("a view is whole JSON at every moment")
    }

    /// The paths that the view shows, sorted.
    pub fn viewed(&self) -> Vec<String> {
        let view = self.view();
        let locks = view["activeLocks"].as_array().expect("a list of locks");
        let path = |lock: &serde_json::Value| lock["path"].as_str().expect("a path").to_owned();
        let mut paths: Vec<String> = locks.iter().map(path).collect();
        paths.sort();
        paths
    }

    /// A caller with an engine of its own, as another copy of the package would have.
    pub fn caller(&self) -> Caller {
        Caller::of(&self.engine())
    }

    pub fn engine(&self) -> Arc<Engine> {
        Engine::start(&self.root, Arc::new(SystemClock)).expect("an engine")
    }

    /// A caller with an engine of its own that goes by this clock.
    pub fn caller_by(&self, clock: &Arc<ManualClock>) -> Caller {
        let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
        Caller::of(&Engine::start(&self.root, clock).expect("an engine"))
    }

    /// Writes the record of the old module: six fields, and nothing else.
    pub fn plant_old_record(&self, name: &str, story_id: &str, acquired_at: u64, timeout: u64) {
        let path = self.file(name);
        let record = serde_json::json!({
            "lockId": format!("{story_id}-{acquired_at}-x"), "storyId": story_id, "filePath": path,
            "acquiredAt": acquired_at, "timeout": timeout, "pid": 1,
        });
        std::fs::create_dir_all(self.locks()).expect("the folder of records");
        std::fs::write(self.record(name), record.to_string()).expect("a planted record");
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        // An engine that is just leaving may still be at work in there.
        let end = Instant::now() + Duration::from_secs(1);
        while self.is_ours && self.root.exists() && Instant::now() < end {
            if std::fs::remove_dir_all(&self.root).is_err() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

/// The names in a folder, sorted; none where there is no folder.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// A client that waits for its answers, and keeps what else it is told.
pub struct Caller {
    client: Client,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
pub struct Inbox {
    mail: Mutex<Vec<Message>>,
    came: Condvar,
}

impl Port for Inbox {
    fn deliver(&self, messages: Vec<Message>) {
        self.mail().extend(messages);
        self.came.notify_all();
    }
}

impl Inbox {
    fn mail(&self) -> MutexGuard<'_, Vec<Message>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first message that is wanted, waiting for it.
    fn take(&self, what: &str, is_wanted: impl Fn(&Message) -> bool) -> Message {
        let end = Instant::now() + PATIENCE;
        let mut mail = self.mail();
        loop {
            if let Some(place) = mail.iter().position(&is_wanted) {
                return mail.remove(place);
            }
            assert!(Instant::now() < end, "waited in vain for {what}");
            let waited = self.came.wait_timeout(mail, Duration::from_millis(100));
            mail = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes all losses told so far.
    pub fn events(&self) -> Vec<Message> {
        let mut mail = self.mail();
        let all = std::mem::take(&mut *mail);
        let (answers, events) =
            all.into_iter().partition(|message| matches!(message, Message::Answer(..)));
        *mail = answers;
        events
    }

    /// Takes the answer to a call, waiting for it.
    pub fn answer(&self, ticket: u64) -> Result<Reply, Error> {
        let is_it = |message: &Message| matches!(message, Message::Answer(of, _) if *of == ticket);
        match self.take("an answer", is_it) {
            Message::Answer(_, answer) => answer,
            told => unreachable!("{told:?} is no answer"),
        }
    }
}

impl Caller {
    pub fn of(engine: &Arc<Engine>) -> Caller {
        let inbox = Arc::new(Inbox::default());
        let port: Arc<dyn Port> = Arc::clone(&inbox) as Arc<dyn Port>;
        Caller { client: engine.client(port), inbox }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn submit(&self, call: Call) -> u64 {
        self.client.submit(call).expect("an open client")
    }

    pub fn answer(&self, ticket: u64) -> Result<Reply, Error> {
        self.inbox.answer(ticket)
    }

    pub fn call(&self, call: Call) -> Result<Reply, Error> {
        let ticket = self.client.submit(call)?;
        self.answer(ticket)
    }

    pub fn acquire_all(&self, ask: Ask) -> Result<Vec<Grant>, Error> {
        match self.call(Call::Acquire(ask))? {
            Reply::Locks(grants) => Ok(grants),
            reply => unreachable!("{reply:?} answers no acquire"),
        }
    }

    pub fn acquire(&self, path: &str, story_id: &str, lease: Lease) -> Result<Grant, Error> {
        self.acquire_all(set(&[path], story_id, lease)).map(only)
    }

    /// A bound lock of this kind.
    pub fn take(&self, path: &str, kind: Kind, story_id: &str) -> Result<Grant, Error> {
        self.acquire_all(kinds(&[(path.to_owned(), kind)], story_id, Lease::Bound)).map(only)
    }

    pub fn lower(&self, grant: &Grant, kind: Kind) -> Result<Grant, Error> {
        self.one(Call::Lower { key: grant.key, token: grant.record.token, kind })
    }

    pub fn transfer(&self, grant: &Grant, story_id: &str) -> Result<Grant, Error> {
        let (key, token) = (grant.key, grant.record.token);
        self.one(Call::Transfer { key, token, story: story(story_id) })
    }

    pub fn offer(&self, grants: &[Grant], digest: &str) -> Result<Reply, Error> {
        self.call(Call::Offer { grants: ids(grants), digest: digest.to_owned() })
    }

    pub fn adopt(&self, grants: &[(Key, u64)], digest: &str) -> Result<Vec<Grant>, Error> {
        let (grants, digest) = (grants.to_vec(), digest.to_owned());
        match self.call(Call::Adopt { grants, digest, lease: None })? {
            Reply::Locks(grants) => Ok(grants),
            reply => unreachable!("{reply:?} answers no adoption"),
        }
    }

    /// Whose locks were taken back, and who waits.
    pub fn force(&self, path: &str, order: Order) -> Result<(Vec<Holder>, Vec<Pending>), Error> {
        match self.call(Call::Force { target: target(path), order })? {
            Reply::Forced(removed, next) => Ok((removed, next)),
            reply => unreachable!("{reply:?} answers no force"),
        }
    }

    /// Begins a scope.
    pub fn enter(&self, path: &str, story_id: &str) -> Grant {
        let ask = Ask { scope: true, ..set(&[path], story_id, Lease::Bound) };
        only(self.acquire_all(ask).expect("a scope on a free path"))
    }

    /// Ends a scope.
    pub fn exit(&self, grant: &Grant) -> bool {
        self.give_up(grant, true)
    }

    pub fn let_go(&self, grant: &Grant) -> bool {
        self.give_up(grant, false)
    }

    fn give_up(&self, grant: &Grant, scope: bool) -> bool {
        let grants = vec![(grant.key, grant.record.token)];
        match self.call(Call::LetGo { grants, scope, kinds: Vec::new() }) {
            Ok(Reply::LetGo(gone)) => gone == [true],
            answer => unreachable!("{answer:?} answers no letting go"),
        }
    }

    pub fn release(&self, path: &str, story_id: &str) -> Result<Reply, Error> {
        self.call(Call::Release { target: target(path), story: story(story_id) })
    }

    pub fn renew(&self, path: &str, story_id: &str, lease: Option<Lease>) -> Result<Grant, Error> {
        self.one(Call::Renew { target: target(path), story: story(story_id), lease })
    }

    pub fn extend(&self, grant: &Grant, lease: Option<Lease>) -> Result<Grant, Error> {
        self.one(Call::Extend { key: grant.key, token: grant.record.token, lease })
    }

    fn one(&self, call: Call) -> Result<Grant, Error> {
        match self.call(call)? {
            Reply::Locks(grants) => Ok(only(grants)),
            reply => unreachable!("{reply:?} answers no renewal"),
        }
    }

    pub fn verify(&self, grant: &Grant) -> bool {
        let call = Call::Verify { key: grant.key, token: grant.record.token };
        match self.call(call).expect("a look that the system allows") {
            Reply::Verified(is_current) => is_current,
            reply => unreachable!("{reply:?} answers no verify"),
        }
    }

    pub fn check(&self, path: &str) -> Result<Option<Holder>, Error> {
        match self.call(Call::Check { target: target(path) })? {
            Reply::Holders(holders) => Ok(holders.into_iter().next()),
            reply => unreachable!("{reply:?} answers no check"),
        }
    }

    /// Which story holds the path.
    pub fn holder(&self, path: &str) -> Option<String> {
        let holder = self.check(path).expect("a look that the system allows");
        holder.map(|holder| holder.record.story_id.to_string())
    }

    pub fn cleanup(&self, story_id: &str) -> Result<usize, Error> {
        match self.call(Call::Cleanup { story: story(story_id) })? {
            Reply::Cleaned(count) => Ok(count),
            reply => unreachable!("{reply:?} answers no cleanup"),
        }
    }

    pub fn status(&self) -> Status {
        match self.call(Call::Status) {
            Ok(Reply::Status(status)) => *status,
            answer => unreachable!("{answer:?}: status never fails"),
        }
    }

    pub fn close(&self) {
        assert_eq!(self.call(Call::Close).expect("closes always"), Reply::Closed);
    }

    /// The losses told so far.
    pub fn events(&self) -> Vec<Message> {
        self.inbox.events()
    }

    /// The report of the loss of this grant, waited for.
    pub fn loss(&self, grant: &Grant) -> Error {
        let is_it = |message: &Message| match message {
            Message::Lost { key, token, .. } => (*key, *token) == (grant.key, grant.record.token),
            _ => false,
        };
        match self.inbox.take("the report of a loss", is_it) {
            Message::Lost { error, .. } => error,
            told => unreachable!("{told:?} is no loss"),
        }
    }

    /// The quiet note that this grant was given up by name, waited for.
    pub fn given_up(&self, grant: &Grant) {
        let is_it = |message: &Message| match message {
            Message::GivenUp { key, token } => (*key, *token) == (grant.key, grant.record.token),
            _ => false,
        };
        self.inbox.take("the note of a giving up", is_it);
    }
}

/// What grants are known by.
pub fn ids(grants: &[Grant]) -> Vec<(Key, u64)> {
    grants.iter().map(|grant| (grant.key, grant.record.token)).collect()
}

/// An operator's order to take back all that is there.
pub fn order(reason: &str) -> Order {
    Order { by: "operator".to_owned(), reason: reason.to_owned(), story: None, is_dry: false }
}

/// The only one there is.
pub fn only<T: std::fmt::Debug>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// The code of the refusal or failure that this must be.
pub fn code<T: std::fmt::Debug>(answer: &Result<T, Error>) -> &'static str {
    match answer {
        Err(error) => error.code.as_str(),
        Ok(_) => "no error",
    }
}
