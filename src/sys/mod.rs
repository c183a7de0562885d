//! The one place that knows which system this is.
//!
//! Everything the engine asks of an operating system stands here under one name: kernel locks on files,
//! folders opened without following links, renames that do not clobber or that exchange, clocks, boots
//! and processes. Linux is what is built and tested. `portable` serves macOS and Windows with the standard
//! library alone; it is written with care and **untested**.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "portable.rs")]
mod imp;

pub use imp::{
    Dir, boot_id, dress, ended, guard_blocker, host, is_executable, is_no_process, monotonic_us,
    new_file_mode, pid_namespace, started, sync_folder, unsuited_filesystem,
};

use std::fs::{File, TryLockError};
use std::io;

/// What stands at a name, the name itself not followed if it is a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Which file of which device: two equal ones are the same file while one of them is open.
    pub identity: Identity,
    /// When it was last changed in any way, in ms since 1970.
    pub changed_ms: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(pub u64, pub u64);

/// Takes the kernel's exclusive lock on an open file if nobody has it. It is the handle that owns the
/// lock, not the process: another handle on the same file is refused, in this process too.
///
/// It does **not** keep anyone from reading, writing or removing the file.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn try_lock(file: &File) -> io::Result<bool> {
    answer(file.try_lock())
}

/// As [`try_lock`], waiting for as long as it takes. Blocks the thread.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

/// Takes the kernel's shared lock if nobody has the exclusive one.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn try_lock_shared(file: &File) -> io::Result<bool> {
    answer(file.try_lock_shared())
}

/// Lets go of the lock that this handle has.
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn unlock(file: &File) -> io::Result<()> {
    file.unlock()
}

fn answer(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// The number that a child process inherits an open file by.
#[cfg(unix)]
pub fn descriptor(file: &File) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

/// Windows hands no files to child processes this way.
#[cfg(not(unix))]
pub fn descriptor(_file: &File) -> i32 {
    -1
}

/// Fills the buffer from this place in a file; what lies beyond its end reads as zeros.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset + filled as u64;
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, &mut buffer[filled..], at);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, &mut buffer[filled..], at);
        match read {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    buffer[filled..].fill(0);
    Ok(())
}

/// Writes the whole buffer at this place in a file.
pub fn write_at(file: &File, buffer: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, buffer, offset);
    #[cfg(windows)]
    {
        let mut written = 0;
        while written < buffer.len() {
            let at = offset + written as u64;
            written += std::os::windows::fs::FileExt::seek_write(file, &buffer[written..], at)?;
        }
        Ok(())
    }
}
