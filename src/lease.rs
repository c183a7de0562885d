//! How long a lock lasts: *timed* leases end at their timeout, *bound* ones with the holding process.
//!
//! Promises: a lease is judged by its own timeout and never by a contender's; a lease taken in this boot
//! is judged by the clock that does not jump; only a record of another boot, or of the old module, is
//! judged by wall time, since it carries nothing else.

use crate::clock::Clock;
use crate::error::Error;

/// The lease when none is asked for, in ms: the old module's.
pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;

/// The largest timeout, in ms: the last whole number that JavaScript counts exactly.
pub const MAX_TIMEOUT_MS: u64 = (1 << 53) - 1;

/// How long a lock lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Ends this many ms after it was granted or last renewed.
    Timed(u64),
    /// Ends when it is released, or with the process that holds it.
    Bound,
}

impl Lease {
    /// The lease for a timeout in ms as JavaScript says it; `Infinity` is a bound one.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE` for anything but a whole number from 1 to 2^53 - 1 or `Infinity`.
    pub fn from_timeout(ms: f64) -> Result<Lease, Error> {
        if ms == f64::INFINITY {
            return Ok(Lease::Bound);
        }
        if ms.fract() != 0.0 || !(1.0..=MAX_TIMEOUT_MS as f64).contains(&ms) {
            let rule = "must be a whole number of milliseconds from 1 to 2^53 - 1, or Infinity.";
            return Err(Error::out_of_range("timeout", format!("{rule} Received {ms}")));
        }
        Ok(Lease::Timed(ms as u64))
    }

    /// The lease's length in ms; `None` for a bound one.
    pub fn timeout_ms(self) -> Option<u64> {
        match self {
            Lease::Timed(ms) => Some(ms),
            Lease::Bound => None,
        }
    }

    /// When a lease granted now ends.
    pub fn deadline(self, clock: &dyn Clock) -> Option<Deadline> {
        let ms = self.timeout_ms()?;
        Some(Deadline {
            monotonic_us: clock.monotonic_us().saturating_add(ms.saturating_mul(1000)),
            wall_ms: clock.wall_ms().saturating_add(ms),
            boot: clock.boot(),
        })
    }
}

/// When a timed lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// On the clock that does not jump, in µs; means nothing in another boot.
    pub monotonic_us: u64,
    /// On the wall, in ms since 1970.
    pub wall_ms: u64,
    /// The boot of `monotonic_us`; empty for a record that carries none.
    pub boot: String,
}

impl Deadline {
    /// Milliseconds until the lease ends, rounded up; 0 when it has ended.
    pub fn remaining_ms(&self, clock: &dyn Clock) -> u64 {
        self.remaining_us(clock).div_ceil(1000)
    }

    /// Microseconds until the lease ends; 0 when it has ended.
    pub fn remaining_us(&self, clock: &dyn Clock) -> u64 {
        if self.boot == clock.boot() {
            self.monotonic_us.saturating_sub(clock.monotonic_us())
        } else {
            self.wall_ms.saturating_sub(clock.wall_ms()).saturating_mul(1000)
        }
    }

    /// Whether the lease has ended.
    pub fn is_over(&self, clock: &dyn Clock) -> bool {
        self.remaining_us(clock) == 0
    }
}

/// Milliseconds as a person says them: `850 ms`, `12 s`, `4 min`, `3 h`, `2 d`.
pub fn spoken(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn only_whole_positive_numbers_and_infinity_are_timeouts() {
        assert_eq!(Lease::from_timeout(f64::INFINITY).expect("bound"), Lease::Bound);
        assert_eq!(Lease::from_timeout(1.0).expect("timed"), Lease::Timed(1));
        let largest = MAX_TIMEOUT_MS as f64;
        assert!(Lease::from_timeout(largest).is_ok());
        for ms in [0.0, -1.0, 0.5, f64::NAN, f64::NEG_INFINITY, largest + 1.0] {
            assert!(Lease::from_timeout(ms).is_err(), "{ms} must be refused");
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_ends_no_lease() {
        let clock = ManualClock::default();
        let deadline = Lease::Timed(1000).deadline(&clock).expect("timed");
        clock.step_wall(4_000_000_000_000);
        assert!(!deadline.is_over(&clock));
        clock.advance(999);
        assert_eq!(deadline.remaining_ms(&clock), 1);
        clock.advance(1);
        assert!(deadline.is_over(&clock));
    }

    #[test]
    fn after_a_reboot_the_wall_decides() {
        let clock = ManualClock::default();
        let deadline = Lease::Timed(1000).deadline(&clock).expect("timed");
        clock.reboot("boot-2");
        assert!(!deadline.is_over(&clock));
        clock.advance(1000);
        assert!(deadline.is_over(&clock));
    }
}
