//! What is held and who waits, read off the disk without the guard and without making anything.
//!
//! Promises: it works where nothing may be written, and while somebody else has the guard; each record is
//! whole, since records are replaced in one step, but two of them may be of two moments. What cannot be
//! asked about counts as held.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::clock::Clock;
use crate::error::Error;
use crate::found::{self, Found};
use crate::ground::Sight;
use crate::holder::Holder;
use crate::index;
use crate::key::{Key, Located};
use crate::queue;
use crate::record::{HolderId, Record};
use crate::session::{self, Life};
use crate::standing::{self, Standing};
use crate::store::{Listed, Pending, Status};
use crate::sys::Dir;

/// Who holds a path, by a lock on it or on a folder above it: all of them, if anybody living does. One
/// look for the path, and one for each folder above it.
///
/// # Errors
/// What the system says; `EBADRECORD` for something that cannot be read as a record.
pub fn check(root: &Path, clock: &dyn Clock, path: &Located) -> Result<Vec<Holder>, Error> {
    let Some(sight) = Sight::open(root)? else { return Ok(Vec::new()) };
    let mut holders = Vec::new();
    let mut look = |key: &Key, is_it: &dyn Fn(&Record) -> bool| {
        let file = sight.locks.path().join(key.file_name());
        let failed = |cause: io::Error| Error::system("read", &file, &cause);
        match found::read(&sight.locks, key).map_err(failed)? {
            Found::Nothing => {}
            Found::Held(holds) => {
                for record in holds.into_iter().filter(is_it) {
                    let life = |holder| life(sight.holders.as_ref(), holder);
                    let standing = standing::of_record(&record, clock, life).map_err(failed)?;
                    if standing == Standing::Holds {
                        holders.push(Holder::of(record, clock));
                    }
                }
            }
            Found::Unreadable(found) => {
                let life = |holder| life(sight.holders.as_ref(), holder);
                // Once it is known to be rubbish, the next comer gets the path.
                if standing::of_unreadable(&found, clock, life).map_err(failed)? == Standing::Holds
                {
                    return Err(found.refusal(&path.path, &path.named, &file));
                }
            }
        }
        Ok(())
    };
    for key in [Some(path.key), path.spelled].into_iter().flatten() {
        look(&key, &|_| true)?;
    }
    for folder in path.canonical.ancestors().skip(1).filter(|one| !one.as_os_str().is_empty()) {
        look(&Key::of(folder), &|record| record.recursive)?;
    }
    Ok(holders)
}

/// Everything that is held, and who waits.
///
/// # Errors
/// What the system says; what was listed before stays listed.
pub fn list(root: &Path, clock: &dyn Clock, status: &mut Status) -> Result<(), Error> {
    let Some(sight) = Sight::open(root)? else { return Ok(()) };
    let mut lives: HashMap<HolderId, Life> = HashMap::new();
    let mut fronts = Fronts::new();
    for key in index::keys(&sight.locks)? {
        let lock_file = sight.locks.path().join(key.file_name());
        let holds = match found::read(&sight.locks, &key) {
            Ok(Found::Held(holds)) => holds,
            Ok(Found::Nothing) => continue,
            Ok(Found::Unreadable(_)) | Err(_) => {
                status.unreadable.push(lock_file);
                continue;
            }
        };
        for record in holds {
            let life = |holder| match lives.get(&holder) {
                Some(life) => Ok(*life),
                None => {
                    let told = life(sight.holders.as_ref(), holder)?;
                    lives.insert(holder, told);
                    Ok(told)
                }
            };
            let standing = standing::of_record(&record, clock, life);
            let is_stale = matches!(standing, Ok(Standing::Over(_)));
            let holder = Holder::of(record, clock);
            let front: &mut Front = fronts.entry(key).or_default();
            front.served.extend(holder.record.waiter);
            front.remaining_ms = match (front.is_held, front.remaining_ms, holder.remaining_ms) {
                (false, _, first) => first,
                // All who share it must be gone.
                (true, Some(one), Some(other)) => Some(one.max(other)),
                (true, ..) => None,
            };
            front.is_held = true;
            status.locks.push(Listed { holder, is_stale, lock_file: lock_file.clone() });
        }
    }
    let by_age = |one: &Listed| (one.holder.record.acquired_at, one.holder.record.token);
    status.locks.sort_by_key(by_age);
    match &sight.queue {
        Some(queue) => {
            let mut is_dead = |holder| {
                let told = lives.entry(holder).or_insert_with(|| {
                    life(sight.holders.as_ref(), holder).unwrap_or(Life::Unknown)
                });
                *told == Life::Dead
            };
            list_waiting(queue, clock, &fronts, &mut is_dead, &mut status.waiting)
        }
        None => Ok(()),
    }
}

/// What stands in front of a key's queue.
#[derive(Debug, Default)]
struct Front {
    /// The places in the queue that its holders came by.
    served: Vec<u64>,
    /// How long their leases still run.
    remaining_ms: Option<u64>,
    is_held: bool,
}

/// By key.
type Fronts = HashMap<Key, Front>;

fn list_waiting(
    dir: &Dir,
    clock: &dyn Clock,
    fronts: &Fronts,
    is_dead: &mut dyn FnMut(HolderId) -> bool,
    waiting: &mut Vec<Pending>,
) -> Result<(), Error> {
    let names = dir.names();
    let names = names.map_err(|cause| Error::system("read the folder", dir.path(), &cause))?;
    for key in names.iter().filter_map(|name| Key::from_hex(name)) {
        let front = fronts.get(&key);
        let served = front.map_or(&[][..], |front| front.served.as_slice());
        let estimate_ms = front.and_then(|front| front.remaining_ms);
        let waiters = queue::read(dir, &key)
            .map_err(|cause| Error::system("read", &dir.path().join(key.to_string()), &cause))?;
        let mut waiters = waiters;
        waiters.retain(|waiter| !served.contains(&waiter.id) && !is_dead(waiter.holder));
        let waiters = waiters.into_iter();
        let told = |(waiter, place)| Pending::of(waiter, place, estimate_ms, clock);
        waiting.extend(waiters.zip(1..).map(told));
    }
    waiting.sort_by(|one, other| {
        (&one.waiter.file_path, one.place).cmp(&(&other.waiter.file_path, other.place))
    });
    Ok(())
}

fn life(holders: Option<&Dir>, holder: HolderId) -> io::Result<Life> {
    holders.map_or(Ok(Life::Unknown), |holders| session::life(holders, holder))
}
