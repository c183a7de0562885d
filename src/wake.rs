//! How a process that waits learns that its turn may have come, without asking again and again.
//!
//! Promises: a turn handed over by another process wakes this one through the kernel's file events (the
//! granter writes one byte to the waiter's *bell*, `holders/<number>.bell`); the death of whoever stands in
//! front wakes it through the kernel's own notice of that process. There is one watcher of files a process,
//! for all roots and threads of it, and none while nobody waits. Where either cannot be had, the
//! answer says so, and the one who waits looks by itself every [`BLIND`] instead of every [`SLOW`].
//!
//! It does **not** promise that a wake-up means a turn: whoever wakes looks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::task::AbortHandle;

use crate::record::{HolderId, Process};
use crate::store::Wake;
use crate::sys;

/// How often a waiter looks though nothing woke it.
pub const SLOW: Duration = Duration::from_secs(1);
/// The same where no event will come.
pub const BLIND: Duration = Duration::from_millis(25);

/// Where events go, by the file that they are about. Apart from the watcher, whose thread asks here.
static BELLS: Mutex<Option<HashMap<PathBuf, Wake>>> = Mutex::new(None);
static WATCHER: Mutex<Option<RecommendedWatcher>> = Mutex::new(None);

/// A process whose death matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its holder file.
    pub holder: HolderId,
    /// Its pid.
    pub pid: u32,
    /// Which process of that pid.
    pub process: Process,
}

/// What wakes one store's waiters.
pub struct Watches {
    wake: Wake,
    bell: Option<PathBuf>,
    deaths: HashMap<HolderId, Death>,
}

struct Death {
    task: AbortHandle,
    /// Set when the watch is over: the process ended, or cannot be watched.
    is_over: Arc<AtomicBool>,
}

impl Watches {
    /// Nothing watched yet; `wake` will be called from other threads.
    pub fn new(wake: Wake) -> Watches {
        Watches { wake, bell: None, deaths: HashMap::new() }
    }

    /// Listens for this bell. It may have been rung before anybody listened: whoever begins to, looks.
    pub fn listen(&mut self, bell: &Path) {
        if self.bell.is_none() && subscribe(bell, &self.wake) {
            self.bell = Some(bell.to_owned());
            (self.wake)();
        }
    }

    /// Watches for the death of these, and of nobody else.
    pub fn watch(&mut self, neighbours: &[Neighbour]) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.deaths.retain(|holder, death| {
            let stays = neighbours.iter().any(|neighbour| neighbour.holder == *holder);
            if !stays {
                death.task.abort();
            }
            stays
        });
        for Neighbour { holder, pid, process } in neighbours {
            if self.deaths.contains_key(holder) {
                continue;
            }
            let (pid, process) = (*pid, process.clone());
            let is_over = Arc::new(AtomicBool::new(false));
            let (wake, told) = (Arc::clone(&self.wake), Arc::clone(&is_over));
            let task = runtime.spawn(async move {
                if process.namespace == sys::pid_namespace() {
                    sys::ended(pid, process.started).await;
                }
                told.store(true, Ordering::SeqCst);
                wake();
            });
            self.deaths.insert(*holder, Death { task: task.abort_handle(), is_over });
        }
    }

    /// How long a waiter may sleep at most.
    pub fn patience(&self) -> Duration {
        // A process that ended though its holder file is alive was survived by a child that inherited it.
        let is_blind = self.bell.is_none()
            || self.deaths.values().any(|death| death.is_over.load(Ordering::SeqCst));
        if is_blind { BLIND } else { SLOW }
    }

    /// Watches nothing any more.
    pub fn rest(&mut self) {
        for (_, death) in self.deaths.drain() {
            death.task.abort();
        }
        if let Some(bell) = self.bell.take() {
            unsubscribe(&bell);
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.rest();
    }
}

fn subscribe(bell: &Path, wake: &Wake) -> bool {
    let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if watcher.is_none() {
        *watcher = notify::recommended_watcher(told).ok();
    }
    let Some(watcher) = watcher.as_mut() else { return false };
    with_bells(|bells| bells.insert(bell.to_owned(), Arc::clone(wake)));
    let is_watched = watcher.watch(bell, RecursiveMode::NonRecursive).is_ok();
    if !is_watched {
        with_bells(|bells| bells.remove(bell));
    }
    is_watched
}

fn unsubscribe(bell: &Path) {
    let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(watcher) = watcher.as_mut() {
        // The bell may be gone with its folder; then so is the watch.
        let _ = watcher.unwatch(bell);
    }
    let is_last = with_bells(|bells| {
        bells.remove(bell);
        bells.is_empty()
    });
    if is_last {
        *watcher = None;
    }
}

/// Called on the watcher's thread.
fn told(event: notify::Result<Event>) {
    let Ok(Event { kind: EventKind::Modify(_), paths, .. }) = event else { return };
    let rung: Vec<Wake> =
        with_bells(|bells| paths.iter().filter_map(|path| bells.get(path).cloned()).collect());
    for wake in rung {
        wake();
    }
}

fn with_bells<T>(look: impl FnOnce(&mut HashMap<PathBuf, Wake>) -> T) -> T {
    look(BELLS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}
