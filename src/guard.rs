//! The guard: one kernel lock a project, held for every change, and the numbers that it keeps.
//!
//! Promises: one process at a time changes anything; the kernel frees the guard when its holder dies, so
//! it is never stale and never broken by force; a wait for it is bounded and ends by naming the process
//! that has it; the sequence rises with every token drawn and never falls.
//!
//! The file is small and of fixed size: a header, and a ring of the keys changed last, so that a process
//! that has looked away for a while learns what to read again without reading everything. A key is
//! noted *before* it is changed: after a kill in between, somebody reads a record again for nothing.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `storylk1` |
//! | 8..16 | sequence: the last token drawn |
//! | 16..24 | the count of changes noted; begins at the first sequence |
//! | 24..32 | how many of them the view shows |
//! | 32..48 | first half of SHA-256 of the boot id |
//! | 48..56 | how many of them the history tells |
//! | 56..64 | zeros |
//! | 64..65536 | 2046 slots of 32 bytes: change *n* is the key in slot *n* mod 2046 |
//!
//! Numbers are little-endian.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::key::Key;
use crate::patience::Patience;
use crate::record::MAX_DRAWN;
use crate::sys;

const MAGIC: &[u8; 8] = b"storylk1";
const HEADER: usize = 64;
const SLOT: usize = 32;
const SLOTS: u64 = 2046;
/// Nobody has noted so many changes.
const MAX_CHANGES: u64 = 1 << 62;

/// How long to wait for the guard before saying who has it. Held properly it is held for well under a
/// millisecond; only a stopped process, or a machine in deep trouble, keeps it for seconds.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The guard of a project, not held.
#[derive(Debug)]
pub struct Guard {
    file: Arc<File>,
    path: PathBuf,
    patience: Patience,
    header: Header,
    /// Whether the header says more here than in the file.
    is_unwritten: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    sequence: u64,
    changes: u64,
    viewed: u64,
    boot: [u8; 16],
    logged: u64,
}

/// What was changed since somebody last looked.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These keys, some perhaps more than once.
    Keys(Vec<Key>),
    /// More than the ring remembers: anything.
    Everything,
}

impl Guard {
    /// A guard on this open file.
    pub fn new(file: File, path: &Path) -> Guard {
        let file = Arc::new(file);
        Guard {
            patience: Patience::new(Arc::clone(&file)),
            file,
            path: path.to_owned(),
            header: Header::default(),
            is_unwritten: false,
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The last token known to be drawn.
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// Starts above this token if the guard turns out to be new.
    #[must_use]
    pub fn above(mut self, sequence: u64) -> Guard {
        self.header.sequence = sequence;
        self
    }

    /// Takes the guard, waiting at most [`PATIENCE`].
    ///
    /// # Errors
    /// `EBUSY` naming the process that has it when the wait was in vain; what the system says.
    pub fn lock(&mut self, clock: &dyn Clock) -> Result<Held<'_>, Error> {
        let failed = |cause: io::Error| Error::system("lock", &self.path, &cause);
        if !self.patience.lock(PATIENCE).map_err(failed)? {
            return Err(self.stuck());
        }
        let mut held = Held { guard: self };
        held.read_header(clock)?;
        Ok(held)
    }

    fn stuck(&self) -> Error {
        let seconds = PATIENCE.as_secs();
        let path = self.path.display();
        let (who, hint) = match sys::guard_blocker(&self.file) {
            Some(pid) => (
                format!("process {pid}"),
                format!(
                    "If it is stopped, `kill -CONT {pid}` lets it go on; ending it frees the guard at once."
                ),
            ),
            None => (
                "another process".to_owned(),
                "Look for a stopped process with this file open and continue or end it.".to_owned(),
            ),
        };
        let message = format!("{who} has held the guard {path} for over {seconds} s.");
        Error::new(Code::System("EBUSY"), message)
            .at(&self.path)
            .hint(format!("Nothing was granted. {hint}"))
    }
}

/// The guard, held until this is dropped. Only through it can anything be changed.
#[derive(Debug)]
pub struct Held<'a> {
    guard: &'a mut Guard,
}

impl Held<'_> {
    /// The open file.
    pub fn file(&self) -> &File {
        &self.guard.file
    }

    /// How many changes were ever noted.
    pub fn changes(&self) -> u64 {
        self.guard.header.changes
    }

    /// Whether the view shows every change.
    pub fn is_viewed(&self) -> bool {
        self.guard.header.viewed == self.guard.header.changes
    }

    /// How many changes the history tells.
    pub fn logged(&self) -> u64 {
        self.guard.header.logged
    }

    /// The history tells every change noted so far; written with the next number that is.
    pub fn set_logged(&mut self) {
        let header = &mut self.guard.header;
        self.guard.is_unwritten |= header.logged != header.changes;
        header.logged = header.changes;
    }

    /// Writes what has not been written yet.
    pub fn settle(&mut self) {
        if self.guard.is_unwritten {
            // What cannot be written is found out again by whoever comes next.
            let _ = self.write_header(self.guard.header);
        }
    }

    /// Raises the sequence to at least this.
    ///
    /// # Errors
    /// What the system says.
    pub fn raise_sequence(&mut self, floor: u64) -> Result<(), Error> {
        if self.guard.header.sequence < floor {
            self.write_header(Header { sequence: floor, ..self.guard.header })?;
        }
        Ok(())
    }

    /// Draws a number that no one ever had.
    ///
    /// # Errors
    /// What the system says; the number is then lost, which is no harm.
    pub fn draw(&mut self) -> Result<u64, Error> {
        let sequence = self.guard.header.sequence.saturating_add(1);
        self.write_header(Header { sequence, ..self.guard.header })?;
        Ok(sequence)
    }

    /// Notes that these keys are about to change.
    ///
    /// # Errors
    /// What the system says; nothing must be changed then.
    pub fn note(&mut self, keys: &[Key]) -> Result<(), Error> {
        self.note_drawing(keys, 0)
    }

    /// Notes that these keys are about to be granted, and draws a token for each: the first is
    /// answered, the others follow it.
    ///
    /// # Errors
    /// What the system says; nothing must be changed then.
    pub fn note_grants(&mut self, keys: &[Key]) -> Result<u64, Error> {
        let first = self.guard.header.sequence.saturating_add(1);
        self.note_drawing(keys, keys.len() as u64)?;
        Ok(first)
    }

    fn note_drawing(&mut self, keys: &[Key], tokens: u64) -> Result<(), Error> {
        let Header { sequence, changes: first_slot, .. } = self.guard.header;
        let changes = first_slot.saturating_add(keys.len() as u64);
        // The header first: a slot beyond the count would overwrite a note that is still needed.
        self.write_header(Header {
            sequence: sequence.saturating_add(tokens),
            changes,
            ..self.guard.header
        })?;
        for (number, key) in (first_slot..).zip(keys) {
            self.write(&key.0, slot(number))?;
        }
        Ok(())
    }

    /// Notes that the view shows everything noted so far.
    ///
    /// # Errors
    /// What the system says.
    pub fn note_viewed(&mut self) -> Result<(), Error> {
        let viewed = self.guard.header.changes;
        self.write_header(Header { viewed, ..self.guard.header })
    }

    /// What was changed after the first `seen` changes.
    ///
    /// # Errors
    /// What the system says.
    pub fn news(&self, seen: u64) -> Result<News, Error> {
        let changes = self.guard.header.changes;
        if seen > changes || changes - seen > SLOTS {
            return Ok(News::Everything);
        }
        let mut keys = Vec::with_capacity((changes - seen) as usize);
        for number in seen..changes {
            let mut key = [0; SLOT];
            self.read(&mut key, slot(number))?;
            keys.push(Key(key));
        }
        Ok(News::Keys(keys))
    }

    fn read_header(&mut self, clock: &dyn Clock) -> Result<(), Error> {
        self.guard.is_unwritten = false;
        let mut bytes = [0; HEADER];
        self.read(&mut bytes, 0)?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut boot = [0; 16];
        boot.copy_from_slice(&bytes[32..48]);
        let (sequence, changes, viewed) = (number(8), number(16), number(24));
        let known = Header { sequence, changes, viewed, boot, logged: number(48) };
        if &bytes[..8] == MAGIC {
            self.guard.header = known;
        } else if &bytes[..7] == b"storylk" {
            return Err(Error::new(
                Code::BadRecord,
                format!("{} was made by a later version of storylock.", self.guard.path.display()),
            )
            .at(&self.guard.path)
            .hint("Nothing was granted. Use the same version in every process of a project."));
        } else {
            // A guard of our own past was lost with its file; what we remember still counts.
            let sequence = self.guard.header.sequence.saturating_add(1).max(now_us(clock));
            // Far from every number of changes that anybody has seen: all must look at everything.
            let changes = sequence;
            self.write(&[0; HEADER + SLOTS as usize * SLOT], 0)?;
            return self.write_header(Header {
                sequence,
                changes,
                viewed: u64::MAX,
                boot: boot_digest(clock),
                logged: changes,
            });
        }
        if boot != boot_digest(clock) {
            // Nothing is flushed, so a power cut may have taken the last numbers with it.
            let sequence = self.guard.header.sequence.saturating_add(1).max(now_us(clock));
            let boot = boot_digest(clock);
            self.write_header(Header { sequence, boot, ..self.guard.header })?;
        }
        Ok(())
    }

    /// What cannot be written has not happened.
    fn write_header(&mut self, header: Header) -> Result<(), Error> {
        if header.sequence > MAX_DRAWN || header.changes > MAX_CHANGES {
            let path = &self.guard.path;
            let message = format!("The numbers in {} are at their end.", path.display());
            return Err(Error::new(Code::BadRecord, message).at(path).hint(
                "Nothing was granted. Only numbers that somebody wrote into it get there: remove the file when no story runs.",
            ));
        }
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&header.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.changes.to_le_bytes());
        bytes[24..32].copy_from_slice(&header.viewed.to_le_bytes());
        bytes[32..48].copy_from_slice(&header.boot);
        bytes[48..56].copy_from_slice(&header.logged.to_le_bytes());
        self.write(&bytes, 0)?;
        self.guard.header = header;
        self.guard.is_unwritten = false;
        Ok(())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        sys::write_at(&self.guard.file, bytes, at)
            .map_err(|cause| Error::system("write", &self.guard.path, &cause))
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), Error> {
        sys::read_at(&self.guard.file, bytes, at)
            .map_err(|cause| Error::system("read", &self.guard.path, &cause))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It cannot fail on an open file; if it did, the guard would stay held and others would say so.
        let _ = sys::unlock(&self.guard.file);
    }
}

/// How many changes were ever noted, read without the guard: a hint whether a look is worth while.
pub fn changes_hint(guard: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    sys::read_at(guard, &mut bytes, 16)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Where the note of a change stands.
fn slot(number: u64) -> u64 {
    HEADER as u64 + (number % SLOTS) * SLOT as u64
}

fn now_us(clock: &dyn Clock) -> u64 {
    clock.wall_ms().saturating_mul(1000)
}

fn boot_digest(clock: &dyn Clock) -> [u8; 16] {
    let digest = Sha256::digest(clock.boot());
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}
