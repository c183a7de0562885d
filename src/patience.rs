//! A kernel lock waited for with a limit, which the kernel's own wait does not have.
//!
//! Promises: a free lock is taken on the spot; a busy one is waited for in the kernel's own queue, not by
//! polling; the wait ends at its limit. The kernel's wait cannot be called off, so it is done by a
//! thread of its own, made at the first wait that a few quick tries could not settle. When a wait ran out
//! and the lock comes after all, that thread hands it to the next who asks, or lets go at once.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys;

/// Tries before the wait becomes the kernel's. A holder is mostly done within some tens of µs.
const QUICK_TRIES: u32 = 20;

/// Waits for the kernel lock of one file.
#[derive(Debug)]
pub struct Patience {
    file: Arc<File>,
    waiter: Option<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    /// Nobody waits.
    Idle,
    /// Somebody waits for the lock.
    Wanted,
    /// Nobody waits any more, but the kernel still does.
    Abandoned,
    /// The lock is taken, for the one who waits.
    Taken,
    /// The kernel said no.
    Failed(io::Error),
    /// No one will ever ask again.
    Over,
}

impl Patience {
    /// For the kernel lock of this file.
    pub fn new(file: Arc<File>) -> Patience {
        Patience { file, waiter: None }
    }

    /// Takes the lock; `false` when it could not be had within the limit.
    ///
    /// # Errors
    /// What the system says.
    pub fn lock(&mut self, limit: Duration) -> io::Result<bool> {
        // While the kernel still waits on this handle a quick try must not succeed beside it: the late
        // answer of that wait would look like a lock to let go of.
        let is_waiting = self.waiter.as_ref().is_some_and(|waiter| waiter.is_in_kernel());
        for _ in 0..if is_waiting { 0 } else { QUICK_TRIES } {
            if sys::try_lock(&self.file)? {
                return Ok(true);
            }
            std::thread::yield_now();
        }
        if self.waiter.is_none() {
            self.waiter = Some(Waiter::start(&self.file)?);
        }
        match &self.waiter {
            Some(waiter) => waiter.wait(limit),
            None => Ok(false),
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            *waiter.state() = State::Over;
            waiter.changed.notify_all();
        }
    }
}

impl Waiter {
    fn start(file: &Arc<File>) -> io::Result<Arc<Waiter>> {
        let waiter = Arc::new(Waiter { state: Mutex::new(State::Idle), changed: Condvar::new() });
        let (file, shared) = (Arc::clone(file), Arc::clone(&waiter));
        std::thread::Builder::new()
            .name("storylock-guard".to_owned())
            .spawn(move || shared.serve(&file))?;
        Ok(waiter)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in_kernel(&self) -> bool {
        !matches!(*self.state(), State::Idle)
    }

    fn wait(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        let mut state = self.state();
        *state = State::Wanted;
        self.changed.notify_all();
        loop {
            match std::mem::replace(&mut *state, State::Idle) {
                State::Taken => return Ok(true),
                State::Failed(cause) => return Err(cause),
                waiting => *state = waiting,
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                *state = State::Abandoned;
                return Ok(false);
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread: one kernel wait at a time, for whoever wants the lock when it comes.
    fn serve(&self, file: &File) {
        loop {
            let mut state = self.state();
            while !matches!(*state, State::Wanted | State::Over) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if matches!(*state, State::Over) {
                return;
            }
            drop(state);
            let answer = sys::lock(file);
            let mut state = self.state();
            match (&*state, answer) {
                (State::Wanted, Ok(())) => *state = State::Taken,
                (State::Wanted, Err(cause)) => *state = State::Failed(cause),
                (over, answer) => {
                    if answer.is_ok() {
                        let _ = sys::unlock(file);
                    }
                    if matches!(over, State::Over) {
                        return;
                    }
                    *state = State::Idle;
                }
            }
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_handles() -> (tempfile::TempDir, File, Arc<File>) {
        let temp = tempfile::tempdir().expect("tempdir");
        let path = temp.path().join("guard");
        std::fs::write(&path, "").expect("write");
        let open = || File::options().read(true).write(true).open(&path).expect("open");
        (temp, open(), Arc::new(open()))
    }

    #[test]
    fn a_wait_ends_at_its_limit_and_a_late_lock_is_let_go() {
        let (_temp, other, mine) = two_handles();
        assert!(sys::try_lock(&other).expect("free"));
        let mut patience = Patience::new(Arc::clone(&mine));
        assert!(!patience.lock(Duration::from_millis(20)).expect("waits"));
        assert!(
            !patience.lock(Duration::from_millis(20)).expect("waits again, with the same thread")
        );
        sys::unlock(&other).expect("unlock");
        // The abandoned kernel wait now succeeds and must not keep the lock.
        let end = Instant::now() + Duration::from_secs(5);
        while !sys::try_lock(&other).expect("try") {
            assert!(Instant::now() < end, "the late lock was never let go");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lock_that_comes_late_stays_with_the_next_who_asks() {
        for _ in 0..50 {
            let (_temp, other, mine) = two_handles();
            assert!(sys::try_lock(&other).expect("free"));
            let mut patience = Patience::new(mine);
            assert!(!patience.lock(Duration::from_millis(2)).expect("waits"));
            sys::unlock(&other).expect("unlock");
            assert!(patience.lock(Duration::from_secs(5)).expect("served"));
            for _ in 0..200 {
                assert!(!sys::try_lock(&other).expect("try"), "the late answer freed the lock");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_wait_is_served_when_the_lock_comes_free() {
        let (_temp, other, mine) = two_handles();
        assert!(sys::try_lock(&other).expect("free"));
        let mut patience = Patience::new(mine);
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            sys::unlock(&other).expect("unlock");
            other
        });
        assert!(patience.lock(Duration::from_secs(5)).expect("served"));
        let other = holder.join().expect("joined");
        assert!(!sys::try_lock(&other).expect("held by the waiter now"));
    }
}
