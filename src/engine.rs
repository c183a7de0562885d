//! The engine: one thread a root, which all managers and worker threads of a process share.
//!
//! Promises: nothing is started before the first call, and the thread ends with its last client; file
//! work never runs on the caller's thread; what is in flight at one time shares one taking of the guard,
//! one writing of the view and one delivery. No thread waits for a lock.
//!
//! # Cancel safety
//! A call whose answer nobody waits for is still carried out. A client that is closed, or dropped, gives
//! up every lock that it took, those granted meanwhile included.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::call::{Call, Port, closed};
use crate::claims::ClientId;
use crate::clock::{Clock, SystemClock};
use crate::desk::{Desk, MakeStore, Request};
use crate::error::Error;
use crate::files::Files;
use crate::ground::STATE;
use crate::workbench;

/// The most calls served under one taking of the guard.
const BATCH: usize = 256;
/// The longest that a busy engine goes on without looking after leases and the ground.
const LONGEST: Duration = Duration::from_secs(1);
/// How long a thread that ends waits for its own changes to be put in place or undone; what is left
/// after that, whoever comes next sweeps.
const LAST_CHANGE: Duration = Duration::from_secs(5);
/// How long a process that exits waits for its locks to be given up; the kernel frees them anyway.
const FAREWELL: Duration = Duration::from_millis(250);

/// The engine of one root.
#[derive(Debug)]
pub struct Engine {
    requests: UnboundedSender<Request>,
    clients: AtomicU64,
    life_line: Arc<Mutex<Option<i32>>>,
}

impl Engine {
    /// The engine of a root in this process: started now, or shared if it runs.
    ///
    /// # Errors
    /// What the system says when it has no thread to spare.
    pub fn of(root: &Path) -> Result<Arc<Engine>, Error> {
        static RUNNING: Mutex<Option<HashMap<PathBuf, Weak<Engine>>>> = Mutex::new(None);
        // Two spellings of a root are one project; one that cannot be resolved fails at its first call.
        let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_default();
        if let Some(engine) = running.get(&root).and_then(Weak::upgrade) {
            return Ok(engine);
        }
        running.retain(|_, engine| engine.strong_count() > 0);
        let engine = Engine::start(&root, Arc::new(SystemClock))?;
        running.insert(root, Arc::downgrade(&engine));
        Ok(engine)
    }

    /// A new engine over the file store of a root, with this clock.
    ///
    /// # Errors
    /// As [`Engine::of`].
    pub fn start(root: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Engine>, Error> {
        let (requests, calls) = unbounded_channel();
        let life_line = Arc::new(Mutex::new(None));
        let engine = Engine { requests, clients: AtomicU64::new(0), life_line };
        let life_line = Arc::clone(&engine.life_line);
        let root = root.to_owned();
        let path = root.clone();
        let locks = root.join(STATE).join("locks");
        let serve = move || {
            let files_clock = Arc::clone(&clock);
            let make: MakeStore =
                Box::new(move || Box::new(Files::new(&root, Arc::clone(&files_clock))));
            run(Desk::new(make, clock), calls, &life_line, locks);
        };
        std::thread::Builder::new()
            .name("storylock".to_owned())
            .spawn(serve)
            .map_err(|cause| Error::system("start a thread for", &path, &cause))?;
        Ok(Arc::new(engine))
    }

    /// A new client, whose messages go to this port.
    pub fn client(self: &Arc<Engine>, port: Arc<dyn Port>) -> Client {
        Client {
            id: self.clients.fetch_add(1, Ordering::Relaxed),
            tickets: AtomicU64::new(0),
            engine: Arc::clone(self),
            port,
            is_closed: AtomicBool::new(false),
            changes: Mutex::new(Some(channel())),
        }
    }
}

/// Serves calls until there is nobody left to make any.
fn run(
    mut desk: Desk,
    mut calls: UnboundedReceiver<Request>,
    life_line: &Mutex<Option<i32>>,
    locks: PathBuf,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Without it every client sees that its calls cannot be taken, and says so.
    let Ok(runtime) = runtime else { return };
    let woken = Arc::new(Notify::new());
    let wake = Arc::clone(&woken);
    desk.on_wake(Arc::new(move || wake.notify_one()));
    let tell_life_line = |desk: &Desk| {
        *life_line.lock().unwrap_or_else(PoisonError::into_inner) = desk.life_line();
    };
    runtime.block_on(async {
        let mut batch = Vec::new();
        let mut tended = Instant::now();
        let (mut back, mut finished) = unbounded_channel();
        loop {
            let rest = desk.tend_in();
            tokio::select! {
                count = calls.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    workbench::take(&mut batch, &mut desk, &back);
                    desk.serve(std::mem::take(&mut batch), tell_life_line);
                    // A stream of calls must not put off for ever what time alone tells.
                    let is_due = |rest: Duration| rest.is_zero() || tended.elapsed() >= LONGEST;
                    if desk.tend_in().is_some_and(is_due) {
                        desk.tend();
                        tended = Instant::now();
                    }
                }
                Some(request) = finished.recv() => desk.serve(vec![request], tell_life_line),
                () = woken.notified() => desk.tend(),
                () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => desk.tend(),
            }
            workbench::finish(&mut desk, &back, &locks);
            tell_life_line(&desk);
        }
        // What is being prepared still comes back, is refused, and leaves nothing.
        let mut is_idle = false;
        while !is_idle {
            let (next_back, next_finished) = unbounded_channel();
            drop(std::mem::replace(&mut back, next_back));
            let mut left = std::mem::replace(&mut finished, next_finished);
            is_idle = true;
            while let Some(request) = left.recv().await {
                is_idle = false;
                desk.serve(vec![request], tell_life_line);
                workbench::finish(&mut desk, &back, &locks);
            }
        }
    });
    desk.leave();
}

/// One user of an engine: a manager in JavaScript.
pub struct Client {
    id: ClientId,
    tickets: AtomicU64,
    engine: Arc<Engine>,
    port: Arc<dyn Port>,
    is_closed: AtomicBool,
    /// Every change that is under way has a clone of the sender: the channel ends with the last.
    changes: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Client {
    /// Asks for something; the answer carries the ticket.
    ///
    /// # Errors
    /// `ERR_INVALID_STATE` after [`Call::Close`], or when the engine is gone.
    pub fn submit(&self, mut call: Call) -> Result<u64, Error> {
        if let Call::Change(change) = &mut call {
            change.under_way = self.changes().as_ref().map(|(sender, _)| sender.clone());
        }
        let is_close = matches!(call, Call::Close);
        if self.is_closed.fetch_or(is_close, Ordering::SeqCst) {
            return Err(closed());
        }
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.send(ticket, call, None)?;
        Ok(ticket)
    }

    /// Calls an acquisition off if it still waits; its own answer tells which came first.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn cancel(&self, ticket: u64) -> Result<(), Error> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        self.send(u64::MAX, Call::Cancel { ticket }, None)
    }

    /// Gives up every lock of this client, waiting for it a fraction of a second at most, and for the
    /// changes that it has under way a few seconds at most: they leave nothing beside the files.
    pub fn leave(&self) {
        let (served, wait) = std::sync::mpsc::sync_channel(1);
        let is_closed = self.is_closed.swap(true, Ordering::SeqCst);
        if !is_closed && self.send(u64::MAX, Call::Close, Some(served)).is_ok() {
            let _ = wait.recv_timeout(FAREWELL);
        }
        if let Some((sender, changes)) = self.changes().take() {
            drop(sender);
            let _ = changes.recv_timeout(LAST_CHANGE);
        }
    }

    fn changes(&self) -> MutexGuard<'_, Option<(Sender<()>, Receiver<()>)>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor of the file that keeps this process's locks alive: a child process that
    /// inherits it keeps them too. `None` before the first lock.
    pub fn life_line(&self) -> Option<i32> {
        *self.engine.life_line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(
        &self,
        ticket: u64,
        call: Call,
        served: Option<std::sync::mpsc::SyncSender<()>>,
    ) -> Result<(), Error> {
        let port = Arc::clone(&self.port);
        let request = Request { client: self.id, port, ticket, call, served };
        self.engine.requests.send(request).map_err(|_| closed())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            let _ = self.send(u64::MAX, Call::Close, None);
        }
    }
}
