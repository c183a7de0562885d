//! Linux: `*at` system calls relative to an open folder, `flock` through the standard library, `/proc`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use tokio::io::unix::AsyncFd;

use super::{Entry, Identity};

/// An open folder. Everything in it is reached through its handle, so nobody can put another folder in
/// its place under our hands; links are never followed.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const NEW_FILE: Mode = Mode::from_raw_mode(0o644);
const NEW_DIR: Mode = Mode::from_raw_mode(0o755);

impl Dir {
    /// Opens a folder by its path.
    pub fn open(path: &Path) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// Opens a folder within this one, made first if `create`. A link in its place is refused.
    pub fn child(&self, name: &str, create: bool) -> io::Result<Dir> {
        if create {
            match rustix::fs::mkdirat(&self.fd, name, NEW_DIR) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        Ok(Dir { fd, path: self.path.join(name) })
    }

    /// The path that the folder was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file that must not exist yet, for reading and writing.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a file for reading and writing, made first if it is missing.
    pub fn open_or_create(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Opens a file for reading. Never waits, not on a FIFO either.
    pub fn open_read(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::RDONLY)
    }

    /// Opens a file that exists for writing.
    pub fn open_write(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlags::WRONLY)
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, NEW_FILE)?;
        Ok(File::from(fd))
    }

    /// Renames, failing with `AlreadyExists` where the new name is taken.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.renamed(from, to, RenameFlags::NOREPLACE)
    }

    /// Swaps two names in one step. Unlike a rename over a file it does not make ext4 force the new
    /// file's data to the disk first.
    pub fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        self.renamed(one, other, RenameFlags::EXCHANGE)
    }

    /// Renames over whatever has the new name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    fn renamed(&self, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(&self.fd, from, &self.fd, to, flags)?)
    }

    /// Removes a name. A link is removed, not what it points to.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// What stands at a name.
    pub fn entry(&self, name: &str) -> io::Result<Entry> {
        Ok(described(&rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// The names in the folder.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if let Some(name) = name.to_str().filter(|name| !matches!(*name, "." | "..")) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// What an open file is.
    pub fn entry_of(file: &File) -> io::Result<Entry> {
        Ok(described(&rustix::fs::fstat(file)?))
    }

    /// What stands at a path, its last name not followed.
    pub fn entry_at(path: &Path) -> io::Result<Entry> {
        Ok(described(&rustix::fs::lstat(path)?))
    }
}

fn described(stat: &Stat) -> Entry {
    let seconds = u64::try_from(stat.st_ctime).unwrap_or(0);
    let nanoseconds = stat.st_ctime_nsec;
    Entry {
        is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        identity: Identity(stat.st_dev, stat.st_ino),
        changed_ms: seconds * 1000 + nanoseconds / 1_000_000,
        len: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

/// The name of the folder's file system if kernel locks on it are not to be relied on: one shared with
/// other machines, or one served by a program. Magic numbers from `linux/magic.h` and `statfs(2)`.
pub fn unsuited_filesystem(dir: &Dir) -> io::Result<Option<&'static str>> {
    let kinds: [(u64, &str); 13] = [
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB2"),
        (0x0102_1997, "9P"),
        (0x6573_5546, "FUSE"),
        (0x00C3_6400, "Ceph"),
        (0x0BD0_0BD0, "Lustre"),
        (0x4750_4653, "GPFS"),
        (0x5346_414F, "AFS"),
        (0x7375_7245, "Coda"),
        (0x7461_636F, "OCFS2"),
        (0x0116_1970, "GFS2"),
    ];
    let magic = rustix::fs::fstatfs(&dir.fd)?.f_type as u64 & 0xFFFF_FFFF;
    Ok(kinds.iter().find(|(kind, _)| *kind == magic).map(|(_, name)| *name))
}

/// Gives a new file the mode and, where the system allows it, the owner of the file it will replace, or
/// those of any new file; `executable` where the mode is to say so.
pub fn dress(file: &File, like: Option<&Path>, executable: Option<bool>) -> io::Result<()> {
    let mut mode = match like {
        Some(path) => {
            let stat = rustix::fs::stat(path)?;
            let owner = rustix::fs::Uid::from_raw(stat.st_uid);
            let group = rustix::fs::Gid::from_raw(stat.st_gid);
            // Only a privileged process may give files away; then the file is the writer's.
            let _ = rustix::fs::fchown(file, Some(owner), Some(group));
            Mode::from_raw_mode(stat.st_mode)
        }
        None => Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode),
    };
    match executable {
        // Whoever may read it may run it, and nobody else.
        Some(true) => {
            for (read, run) in
                [(Mode::RUSR, Mode::XUSR), (Mode::RGRP, Mode::XGRP), (Mode::ROTH, Mode::XOTH)]
            {
                if mode.contains(read) {
                    mode |= run;
                }
            }
        }
        Some(false) => mode &= !(Mode::XUSR | Mode::XGRP | Mode::XOTH),
        None => {}
    }
    Ok(rustix::fs::fchmod(file, mode)?)
}

/// The mode of any new file, of which the system takes what the user's mask forbids.
pub fn new_file_mode(is_private: bool) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(if is_private { 0o600 } else { 0o666 })
}

/// Whether a file's owner may run it.
pub fn is_executable(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR))
}

/// Flushes a folder: what was made, renamed or removed in it outlives the machine's power.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Microseconds on `CLOCK_MONOTONIC`.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// The id of this boot of the machine; the same in all its containers.
pub fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
    })
}

/// The name of this machine or container, for people.
pub fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// When a process started, in clock ticks since boot: with the pid it names one process for ever.
/// `None` where there is no such process, or it cannot be seen.
pub fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses; field 22 counts from its end.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Whether it is certain that no process has this pid: `/proc` may hide those of other users.
pub fn is_no_process(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

/// Returns when this very process has ended, or at once where that cannot be watched.
pub async fn ended(pid: u32, started_at: Option<u64>) {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    let flags = rustix::process::PidfdFlags::NONBLOCK;
    let Ok(handle) = rustix::process::pidfd_open(process, flags) else { return };
    // The pid may be another's by now; asked after the handle is taken, the answer is about its process.
    if started(pid) != started_at {
        return;
    }
    #[expect(deprecated, reason = "sound for a handle that owns its descriptor, as this one does")]
    let watched = AsyncFd::with_interest(handle, tokio::io::Interest::READABLE);
    if let Ok(handle) = watched {
        let _ = handle.readable().await;
    }
}

/// The pid namespace of this process: pids of another one mean nothing here.
pub fn pid_namespace() -> u64 {
    static NAMESPACE: OnceLock<u64> = OnceLock::new();
    *NAMESPACE.get_or_init(|| rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino))
}

/// The pid of the process that holds the kernel lock on this file, where `/proc/locks` tells.
pub fn guard_blocker(file: &File) -> Option<u32> {
    let stat = rustix::fs::fstat(file).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let wanted = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    table.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"; a waiter's line has "->" second.
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&wanted.as_str()))
            .then(|| fields.get(4)?.parse().ok())
            .flatten()
    })
}
