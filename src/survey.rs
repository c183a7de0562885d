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
use crate::ground::Sight;
use crate::holder::Holder;
use crate::index;
use crate::key::{Key, Located};
use crate::queue;
use crate::record::{self, Found, HolderId};
use crate::session::{self, Life};
use crate::standing::{self, Standing};
use crate::store::{Listed, Pending, Status};
use crate::sys::Dir;

/// Who holds a path, if anybody living does.
///
/// # Errors
/// What the system says; `EBADRECORD` for something that cannot be read as a record.
pub fn check(root: &Path, clock: &dyn Clock, path: &Located) -> Result<Option<Holder>, Error> {
    let Some(sight) = Sight::open(root)? else { return Ok(None) };
    for key in [Some(path.key), path.spelled].into_iter().flatten() {
        let file = sight.locks.path().join(key.file_name());
        let failed = |cause: io::Error| Error::system("read", &file, &cause);
        match record::read(&sight.locks, &key).map_err(failed)? {
            Found::Nothing => {}
            Found::Record(record) => {
                let life = |holder| life(sight.holders.as_ref(), holder);
                let standing = standing::of_record(&record, clock, life).map_err(failed)?;
                if standing == Standing::Holds {
                    return Ok(Some(Holder::of(*record, clock)));
                }
            }
            Found::Unreadable(found) => {
                return Err(found.refusal(&path.path, &path.named, &file));
            }
        }
    }
    Ok(None)
}

/// Everything that is held, and who waits.
///
/// # Errors
/// What the system says; what was listed before stays listed.
pub fn list(root: &Path, clock: &dyn Clock, status: &mut Status) -> Result<(), Error> {
    let Some(sight) = Sight::open(root)? else { return Ok(()) };
    let mut lives: HashMap<HolderId, Life> = HashMap::new();
    let mut fronts = HashMap::new();
    for key in index::keys(&sight.locks)? {
        let lock_file = sight.locks.path().join(key.file_name());
        let record = match record::read(&sight.locks, &key) {
            Ok(Found::Record(record)) => record,
            Ok(Found::Nothing) => continue,
            Ok(Found::Unreadable(_)) | Err(_) => {
                status.unreadable.push(lock_file);
                continue;
            }
        };
        let life = |holder| match lives.get(&holder) {
            Some(life) => Ok(*life),
            None => {
                let told = life(sight.holders.as_ref(), holder)?;
                lives.insert(holder, told);
                Ok(told)
            }
        };
        let is_stale = matches!(standing::of_record(&record, clock, life), Ok(Standing::Over(_)));
        let holder = Holder::of(*record, clock);
        fronts.insert(key, (holder.record.waiter, holder.remaining_ms));
        status.locks.push(Listed { holder, is_stale, lock_file });
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

/// By key: the place in the queue that its holder came by, and how long its lease still runs.
type Fronts = HashMap<Key, (Option<u64>, Option<u64>)>;

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
        let (served, estimate_ms) = fronts.get(&key).copied().unwrap_or_default();
        let waiters = queue::read(dir, &key)
            .map_err(|cause| Error::system("read", &dir.path().join(key.to_string()), &cause))?;
        let mut waiters = waiters;
        waiters.retain(|waiter| Some(waiter.id) != served && !is_dead(waiter.holder));
        let waiters = waiters.into_iter();
        waiting.extend(waiters.zip(1..).map(|(waiter, place)| Pending {
            waited_ms: clock.wall_ms().saturating_sub(waiter.since),
            waiter,
            place,
            estimate_ms,
        }));
    }
    waiting.sort_by(|one, other| {
        (&one.waiter.file_path, one.place).cmp(&(&other.waiter.file_path, other.place))
    });
    Ok(())
}

fn life(holders: Option<&Dir>, holder: HolderId) -> io::Result<Life> {
    holders.map_or(Ok(Life::Unknown), |holders| session::life(holders, holder))
}
