//! Time, from two clocks that are never mixed up.
//!
//! Leases count on a clock that does not jump and stands still while the machine is suspended
//! (`CLOCK_MONOTONIC` on Linux), so neither a step of the wall clock nor a laptop's sleep ends a lease.
//! Its readings mean something only within one boot, so each is kept with the boot's id. Wall time is
//! for people, and for records of another boot or of the old module, which carry nothing else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys;

/// A source of time. All of the engine's time comes from one, so that tests can turn the hands.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds on the clock that does not jump.
    fn monotonic_us(&self) -> u64;
    /// Milliseconds since 1970 on the wall.
    fn wall_ms(&self) -> u64;
    /// The boot that `monotonic_us` belongs to.
    fn boot(&self) -> String;
}

/// The machine's own clocks.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic_us(&self) -> u64 {
        sys::monotonic_us()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn boot(&self) -> String {
        sys::boot_id().to_owned()
    }
}

/// A clock that stands still until told to move: leases are tested without sleeping.
#[derive(Debug)]
pub struct ManualClock {
    monotonic_us: AtomicU64,
    wall_ms: AtomicU64,
    boot: Mutex<String>,
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock {
            monotonic_us: AtomicU64::new(1_000_000_000),
            wall_ms: AtomicU64::new(1_700_000_000_000),
            boot: Mutex::new("boot-1".to_owned()),
        }
    }
}

impl ManualClock {
    /// Lets this many milliseconds pass on both clocks.
    pub fn advance(&self, ms: u64) {
        self.monotonic_us.fetch_add(ms * 1000, Ordering::SeqCst);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn step_wall(&self, ms: u64) {
        self.wall_ms.store(ms, Ordering::SeqCst);
    }

    /// Starts another boot: the clock that does not jump begins anew.
    pub fn reboot(&self, boot: &str) {
        self.monotonic_us.store(1_000_000, Ordering::SeqCst);
        *self.boot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = boot.to_owned();
    }
}

impl Clock for ManualClock {
    fn monotonic_us(&self) -> u64 {
        self.monotonic_us.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn boot(&self) -> String {
        self.boot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}
