//! macOS and Windows, with the standard library alone. **Untested**: written with care, built nowhere yet.
//!
//! What Linux gives and this does not: folders reached through a handle (paths are used, links refused by
//! a look before), an exchange of two names (a rename over the old one stands in), process start times and
//! `/proc/locks`. Liveness rests on the kernel lock of the holder file alone, as it does on Linux first.

use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Instant, UNIX_EPOCH};

use super::{Entry, Identity};

/// A folder, by its path.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Opens a folder by its path.
    pub fn open(path: &Path) -> io::Result<Dir> {
        if !std::fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Dir { path: path.to_owned() })
    }

    /// Opens a folder within this one, made first if `create`. A link in its place is refused.
    pub fn child(&self, name: &str, create: bool) -> io::Result<Dir> {
        let path = self.path.join(name);
        if create {
            match std::fs::create_dir(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
                _ => {}
            }
        }
        if !std::fs::symlink_metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Dir { path })
    }

    /// The path that the folder was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file that must not exist yet, for reading and writing.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))
    }

    /// Opens a file for reading and writing, made first if it is missing.
    pub fn open_or_create(&self, name: &str) -> io::Result<File> {
        match self.create_new(name) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
                self.refuse_all_but_files(name)?;
                OpenOptions::new().read(true).write(true).open(self.path.join(name))
            }
            answer => answer,
        }
    }

    /// Opens a file for reading.
    pub fn open_read(&self, name: &str) -> io::Result<File> {
        self.refuse_all_but_files(name)?;
        File::open(self.path.join(name))
    }

    /// Opens a file that exists for writing.
    pub fn open_write(&self, name: &str) -> io::Result<File> {
        self.refuse_all_but_files(name)?;
        OpenOptions::new().write(true).open(self.path.join(name))
    }

    fn refuse_all_but_files(&self, name: &str) -> io::Result<()> {
        if self.entry(name)?.is_file {
            return Ok(());
        }
        Err(io::Error::other("not a regular file"))
    }

    /// Renames, failing with `AlreadyExists` where the new name is taken.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.path.join(from), self.path.join(to))?;
        std::fs::remove_file(self.path.join(from))
    }

    /// Puts `one` in the place of `other`; there is nothing left at `one`.
    pub fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        self.rename(one, other)
    }

    /// Renames over whatever has the new name.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    /// Removes a name.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    /// What stands at a name.
    pub fn entry(&self, name: &str) -> io::Result<Entry> {
        Self::entry_at(&self.path.join(name))
    }

    /// The names in the folder.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.path)?;
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    /// What an open file is.
    pub fn entry_of(file: &File) -> io::Result<Entry> {
        Ok(described(&file.metadata()?))
    }

    /// What stands at a path, its last name not followed.
    pub fn entry_at(path: &Path) -> io::Result<Entry> {
        Ok(described(&std::fs::symlink_metadata(path)?))
    }
}

#[cfg(unix)]
fn described(meta: &std::fs::Metadata) -> Entry {
    use std::os::unix::fs::MetadataExt;
    Entry {
        is_file: meta.is_file(),
        identity: Identity(meta.dev(), meta.ino()),
        changed_ms: u64::try_from(meta.ctime()).unwrap_or(0) * 1000,
        len: meta.len(),
    }
}

/// Windows: a file's birth time stands in for its inode.
#[cfg(not(unix))]
fn described(meta: &std::fs::Metadata) -> Entry {
    let ms = |time: io::Result<std::time::SystemTime>| {
        let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_nanos() as u64)
    };
    Entry {
        is_file: meta.is_file(),
        identity: Identity(0, ms(meta.created())),
        changed_ms: ms(meta.modified()) / 1_000_000,
        len: meta.len(),
    }
}

/// No file system is known to be unsuited; the proof at opening decides.
pub fn unsuited_filesystem(_dir: &Dir) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// Gives a new file the permissions of the file it will replace.
pub fn dress(file: &File, like: Option<&Path>, _executable: Option<bool>) -> io::Result<()> {
    match like {
        Some(path) => file.set_permissions(std::fs::metadata(path)?.permissions()),
        None => Ok(()),
    }
}

/// The mode of any new file.
#[cfg(unix)]
pub fn new_file_mode(_is_private: bool) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

/// Modes are not told apart here.
pub fn is_executable(_path: &Path) -> bool {
    false
}

/// Folders are flushed by the system in its own time here.
pub fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Microseconds since 1970: `Instant` cannot be compared across processes, so the wall stands in.
pub fn monotonic_us() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, wall) = START.get_or_init(|| {
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
        (Instant::now(), since.map_or(0, |since| since.as_micros() as u64))
    });
    wall + start.elapsed().as_micros() as u64
}

/// One boot for ever: the clock above goes on across boots.
pub fn boot_id() -> &'static str {
    "wall"
}

/// The name of this machine, for people.
pub fn host() -> &'static str {
    static HOST: OnceLock<String> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = std::env::var("COMPUTERNAME").or_else(|_| std::env::var("HOSTNAME"));
        name.unwrap_or_else(|_| "localhost".to_owned())
    })
}

/// Start times are not known here.
pub fn started(_pid: u32) -> Option<u64> {
    None
}

/// What processes there are is not told here.
pub fn is_no_process(_pid: u32) -> bool {
    false
}

/// The end of a process cannot be watched here.
pub async fn ended(_pid: u32, _started_at: Option<u64>) {}

/// A number that no other host shares by chance; pids are not asked about here.
pub fn pid_namespace() -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    host().hash(&mut hasher);
    hasher.finish()
}

/// Who holds a kernel lock is not told here.
pub fn guard_blocker(_file: &File) -> Option<u32> {
    None
}
