//! The life of a process, told by the kernel: `.ai/locks/holders/<number>`.
//!
//! Promises: while the process lives it has the kernel lock on its holder file, and nobody else can have
//! it; the moment it ends, however it ends, the kernel frees the lock, so whoever asks knows. No pid can
//! be reused into a wrong answer, nothing is written while a lock is held, and it is right across the
//! containers of one host.
//!
//! It does **not** tell more than that: a stopped process lives. The handle is not inherited by programs
//! that the process starts, unless it is handed to them on purpose.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::Error;
use crate::record::{HolderId, Process};
use crate::sys::{self, Dir};

/// How long the maker of a holder file waits for those who happen to be looking at it.
const LOOKERS: Duration = Duration::from_millis(500);

const BELL: &str = ".bell";

/// What the kernel says of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It lives.
    Alive,
    /// It has ended.
    Dead,
    /// Its holder file is gone, which alone proves nothing.
    Unknown,
}

/// A holder file with its kernel lock held.
#[derive(Debug)]
pub struct Session {
    id: HolderId,
    file: File,
    has_bell: bool,
}

impl Session {
    /// Makes the holder file of this number and takes its kernel lock. Call it under the guard: until
    /// the lock is taken a sweeper would take the file for a dead one's.
    ///
    /// # Errors
    /// What the system says; no file is left then.
    pub fn start(holders: &Dir, id: HolderId) -> Result<Session, Error> {
        Ok(Session { id, file: locked_file(holders, id)?, has_bell: false })
    }

    /// Makes the holder file anew if somebody removed it. Call it under the guard.
    ///
    /// # Errors
    /// As [`Session::start`]; others then go by the process's pid.
    pub fn mend(&mut self, holders: &Dir) -> Result<(), Error> {
        if !self.is_in_place(holders) {
            self.file = locked_file(holders, self.id)?;
            self.has_bell = false;
        }
        Ok(())
    }

    /// The number.
    pub fn id(&self) -> HolderId {
        self.id
    }

    /// The open holder file: a child process that inherits it keeps the session alive.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether its file is still where others look for it.
    pub fn is_in_place(&self, holders: &Dir) -> bool {
        let there = holders.entry(&self.id.to_string());
        let mine = Dir::entry_of(&self.file);
        matches!((there, mine), (Ok(there), Ok(mine)) if there.identity == mine.identity)
    }

    /// Makes the bell: a file whose change tells this process that a turn may have come.
    ///
    /// # Errors
    /// What the system says.
    pub fn hang_bell(&mut self, holders: &Dir) -> Result<(), Error> {
        if self.has_bell {
            return Ok(());
        }
        let name = bell_name(self.id);
        let made = holders.open_or_create(&name);
        made.map_err(|cause| Error::system("make", &holders.path().join(&name), &cause))?;
        self.has_bell = true;
        Ok(())
    }

    /// Whether the bell hangs.
    pub fn has_bell(&self) -> bool {
        self.has_bell
    }

    /// Where the bell is, once it is made.
    pub fn bell(&self, holders: &Dir) -> Option<PathBuf> {
        self.has_bell.then(|| holders.path().join(bell_name(self.id)))
    }

    /// Removes the holder file. Whatever still names it is then on its own.
    ///
    /// # Errors
    /// What the system says.
    pub fn end(&self, holders: &Dir) -> Result<(), Error> {
        if self.has_bell {
            let _ = holders.unlink(&bell_name(self.id));
        }
        let name = self.id.to_string();
        match holders.unlink(&name) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::system("remove the holder file", &holders.path().join(name), &cause))
            }
            _ => Ok(()),
        }
    }
}

fn locked_file(holders: &Dir, id: HolderId) -> Result<File, Error> {
    let name = id.to_string();
    let path = holders.path().join(&name);
    let failed = |cause: io::Error| Error::system("make the holder file", &path, &cause);
    let mut file = holders.create_new(&name).map_err(failed)?;
    let mut lock = || {
        let patience = Instant::now() + LOOKERS;
        while !sys::try_lock(&file)? {
            if Instant::now() > patience {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            std::thread::yield_now();
        }
        let told = serde_json::json!({ "pid": std::process::id(), "host": sys::host() });
        file.write_all(told.to_string().as_bytes())
    };
    if let Err(cause) = lock() {
        let _ = holders.unlink(&name);
        return Err(failed(cause));
    }
    Ok(file)
}

/// Asks the kernel whether the process behind a holder file lives.
///
/// # Errors
/// What the system says: then nothing is known, and the holder must count as alive.
pub fn life(holders: &Dir, id: HolderId) -> io::Result<Life> {
    let file = match holders.open_read(&id.to_string()) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Life::Unknown),
        Err(cause) => match holders.entry(&id.to_string()) {
            Ok(entry) if !entry.is_file => return Ok(Life::Unknown),
            _ => return Err(cause),
        },
    };
    if !Dir::entry_of(&file)?.is_file {
        return Ok(Life::Unknown);
    }
    Ok(if sys::try_lock_shared(&file)? { Life::Dead } else { Life::Alive })
}

/// What can be said of a process when its holder file is gone: dead if it was of another boot,
/// or if its pid is free or another's now; otherwise unknown.
pub fn life_of_process(pid: u32, process: &Process, boot: &str, clock: &dyn Clock) -> Life {
    if boot != clock.boot() {
        return Life::Dead;
    }
    if process.namespace != sys::pid_namespace() || process.started.is_none() {
        return Life::Unknown;
    }
    match sys::started(pid) {
        started if started == process.started => Life::Alive,
        Some(_) => Life::Dead,
        None if sys::is_no_process(pid) => Life::Dead,
        None => Life::Unknown,
    }
}

/// This process, as its records name it.
pub fn this_process() -> Process {
    Process { started: sys::started(std::process::id()), namespace: sys::pid_namespace() }
}

/// The dead whose holder files can go: those that `is_named` by no record. Call it under the guard.
pub fn sweep(holders: &Dir, is_named: impl Fn(HolderId) -> bool) {
    let Ok(names) = holders.names() else { return };
    for name in names {
        let is_gone = match name.strip_suffix(BELL).unwrap_or(&name).parse::<HolderId>() {
            // A bell outlives its holder file by nothing but a kill.
            Ok(id) if name.ends_with(BELL) => matches!(life(holders, id), Ok(Life::Unknown)),
            Ok(id) => matches!(life(holders, id), Ok(Life::Dead)) && !is_named(id),
            Err(_) => false,
        };
        if is_gone {
            let _ = holders.unlink(&name);
        }
    }
}

/// Rings a process's bell, if it has one: one byte, always the same.
pub fn ring(holders: &Dir, id: HolderId) {
    if let Ok(bell) = holders.open_write(&bell_name(id)) {
        let _ = sys::write_at(&bell, b"!", 0);
    }
}

fn bell_name(id: HolderId) -> String {
    format!("{id}{BELL}")
}
