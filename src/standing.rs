//! Whether what stands at a path still holds it: the one judgement that decides every takeover.
//!
//! Promise: fails closed. "Ended" is said only on proof: the record's own lease is over, or the kernel
//! (or, where its holder file is gone, the process table of the same boot and namespace) says that its
//! process is. Everything doubtful holds.

use std::io;

use crate::clock::Clock;
use crate::found::Unreadable;
use crate::lease::DEFAULT_TIMEOUT_MS;
use crate::record::{Ended, HolderId, Record};
use crate::session::{Life, life_of_process};

/// Whether a record holds its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Holds,
    /// It does no more: the next comer gets the path.
    Over(Ended),
}

/// The judgement of a record; `life` asks the kernel about a holder file.
///
/// # Errors
/// What the system says when it will not tell: then nothing is certain.
pub fn of_record(
    record: &Record,
    clock: &dyn Clock,
    life: impl FnOnce(HolderId) -> io::Result<Life>,
) -> io::Result<Standing> {
    if record.is_over(clock) {
        return Ok(Standing::Over(Ended::Expired));
    }
    if record.is_old() {
        return Ok(Standing::Holds);
    }
    let life = match life(record.holder)? {
        // A detached lock loses its holder file when it is granted: from then on its lease decides.
        Life::Unknown if record.detached => Life::Alive,
        Life::Unknown => life_of_process(record.pid, &record.process, &record.boot, clock),
        told => told,
    };
    Ok(if life == Life::Dead { Standing::Over(Ended::Died) } else { Standing::Holds })
}

/// The judgement of something that is no record: it holds while whoever it names lives, and until it
/// has not changed for as long as a lease lasts, its own if it names one.
///
/// # Errors
/// As [`of_record`].
pub fn of_unreadable(
    found: &Unreadable,
    clock: &dyn Clock,
    life: impl FnOnce(HolderId) -> io::Result<Life>,
) -> io::Result<Standing> {
    if let Some(holder) = found.holder
        && life(holder)? == Life::Alive
    {
        return Ok(Standing::Holds);
    }
    let unchanged_ms = clock.wall_ms().saturating_sub(found.changed_ms);
    let is_over = unchanged_ms >= found.timeout_ms.unwrap_or(0).max(DEFAULT_TIMEOUT_MS);
    Ok(if is_over { Standing::Over(Ended::Expired) } else { Standing::Holds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::lease::Lease;
    use crate::story::Story;

    fn record(clock: &ManualClock, lease: Lease) -> Record {
        let mut record = Record {
            lock_id: "S-1".to_owned(),
            story_id: Story::new("S").expect("well-formed"),
            file_path: "/p/a".into(),
            acquired_at: clock.wall_ms(),
            timeout: None,
            pid: 1,
            version: 1,
            token: 1,
            expires_at: None,
            deadline: None,
            boot: String::new(),
            holder: 1,
            detached: false,
            host: String::new(),
            process: crate::record::Process::default(),
            reason: None,
            mode: crate::kind::Mode::Exclusive,
            recursive: false,
            canonical: None,
            raised: None,
            offer: None,
            handed_from: None,
            waiter: None,
            reclaimed: None,
            others: Vec::new(),
        };
        record.set_lease(lease, clock);
        record
    }

    #[test]
    fn a_lease_ends_by_its_own_timeout_though_its_holder_lives() {
        let clock = ManualClock::default();
        let record = record(&clock, Lease::Timed(100));
        let judge = || of_record(&record, &clock, |_| Ok(Life::Alive)).expect("judged");
        assert_eq!(judge(), Standing::Holds);
        clock.advance(100);
        assert_eq!(judge(), Standing::Over(Ended::Expired));
    }

    #[test]
    fn a_dead_holder_is_over_at_once_and_an_unknown_one_holds() {
        let clock = ManualClock::default();
        let record = record(&clock, Lease::Bound);
        let judge = |life| of_record(&record, &clock, |_| Ok(life)).expect("judged");
        assert_eq!(judge(Life::Dead), Standing::Over(Ended::Died));
        assert_eq!(judge(Life::Unknown), Standing::Holds, "nothing is known of its process");
        clock.reboot("boot-2");
        let judge = |life| of_record(&record, &clock, |_| Ok(life)).expect("judged");
        assert_eq!(judge(Life::Unknown), Standing::Over(Ended::Died), "no process outlives a boot");
    }

    #[test]
    fn a_detached_lock_is_made_while_its_holder_file_stands_and_lives_by_its_lease_after() {
        let clock = ManualClock::default();
        let mut record = record(&clock, Lease::Timed(100));
        record.detached = true;
        record.boot = "another".to_owned();
        let judge = |life| of_record(&record, &clock, |_| Ok(life)).expect("judged");
        assert_eq!(judge(Life::Dead), Standing::Over(Ended::Died), "killed before it was granted");
        assert_eq!(judge(Life::Unknown), Standing::Holds);
        clock.advance(100);
        let judge = |life| of_record(&record, &clock, |_| Ok(life)).expect("judged");
        assert_eq!(judge(Life::Unknown), Standing::Over(Ended::Expired));
    }

    #[test]
    fn the_unreadable_holds_for_a_lease_and_longer_while_its_holder_lives() {
        let clock = ManualClock::default();
        let found = Unreadable {
            why: String::new(),
            changed_ms: clock.wall_ms(),
            holder: Some(1),
            timeout_ms: None,
            path: None,
        };
        let judge = |life| of_unreadable(&found, &clock, |_| Ok(life)).expect("judged");
        assert_eq!(judge(Life::Unknown), Standing::Holds);
        clock.advance(DEFAULT_TIMEOUT_MS);
        assert_eq!(judge(Life::Alive), Standing::Holds);
        assert_eq!(judge(Life::Unknown), Standing::Over(Ended::Expired));
    }
}
