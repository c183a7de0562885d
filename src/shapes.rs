//! The shapes in which JavaScript is told things: plain objects, times in ms, hashes in hex.

use napi_derive::napi;

/// Why something was refused or failed.
#[napi(object, object_from_js = false)]
pub struct Failure {
    /// As `LockError.code`.
    pub code: String,
    /// What happened, to which path, who holds it, what to do next.
    pub message: String,
    /// The absolute path that the call was about.
    pub path: Option<String>,
    /// The story that asked.
    pub story_id: Option<String>,
    /// Who is in the way; the first, where several are.
    pub holder: Option<HolderInfo>,
    /// All who are in the way.
    pub holders: Vec<HolderInfo>,
    /// Who took the lock back by force, and why.
    pub forced: Option<ForcedInfo>,
    /// What to do next.
    pub hint: Option<String>,
    /// How many wait for the path.
    pub waiters: u32,
    /// The place in line that the asker had, from 1.
    pub place: Option<u32>,
    /// How long the asker waited.
    pub waited_ms: Option<f64>,
    /// The circle that waiting would close.
    pub cycle: Vec<ArmInfo>,
    /// What the file was expected to be and what it is.
    pub base: Option<BaseInfo>,
    /// The hunk that does not match, from 1.
    pub hunk: Option<u32>,
    /// The line of the file that the hunk is for.
    pub line: Option<u32>,
}

/// What a file was expected to be and what it is; hashes in hex, absent for no file.
#[napi(object, object_from_js = false)]
pub struct BaseInfo {
    /// Expected.
    pub expected: Option<String>,
    /// Found.
    pub actual: Option<String>,
    /// Who wrote it last through a lock, as far as that is known.
    pub writer: Option<WriterInfo>,
}

/// Who took a lock back by force.
#[napi(object, object_from_js = false)]
pub struct ForcedInfo {
    /// Who, in their own words.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since 1970, in ms.
    pub at: f64,
}

/// Who wrote a file last through a lock.
#[napi(object, object_from_js = false)]
pub struct WriterInfo {
    /// The story.
    pub story_id: String,
    /// Its process.
    pub pid: u32,
    /// The token that it wrote under.
    pub token: f64,
    /// Since 1970, in ms.
    pub at: f64,
    /// What it wrote, in hex; absent if it removed the file.
    pub hash: Option<String>,
}

/// A file that was changed, or would be.
#[napi(object, object_from_js = false)]
pub struct ChangedFile {
    /// Absolute.
    pub path: String,
    /// The SHA-256 of its content in hex; absent if it is gone.
    pub hash: Option<String>,
}

/// One arm of a circle of stories.
#[napi(object, object_from_js = false)]
pub struct ArmInfo {
    /// Who waits.
    pub story_id: String,
    /// For what.
    pub path: String,
    /// Who holds it.
    pub held_by: String,
}

/// Names one grant.
#[napi(object)]
pub struct GrantId {
    /// What is locked.
    pub key: String,
    /// The fencing token.
    pub token: f64,
}

/// A lock that the asking story has. Times in ms; `timeout` is `Infinity` for a bound lease.
#[napi(object, object_from_js = false)]
pub struct LockInfo {
    /// What is locked, as the engine names it.
    pub key: String,
    /// The fencing token: rises with every grant.
    pub token: f64,
    /// Starts with the story id.
    pub lock_id: String,
    /// The story.
    pub story_id: String,
    /// The absolute path.
    pub file_path: String,
    /// Since 1970.
    pub acquired_at: f64,
    /// The lease.
    pub timeout: f64,
    /// The process that took it.
    pub pid: u32,
    /// The lease's end by the wall, since 1970; absent for a bound lease.
    pub expires_at: Option<f64>,
    /// `exclusive` or `shared`.
    pub mode: String,
    /// Whether everything below the path is locked with it.
    pub recursive: bool,
    /// Whether this call was granted it; otherwise the story had it already.
    pub fresh: bool,
    /// Whether the lease alone ends it.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
    /// Whose it was, if its predecessor did not give it up.
    pub reclaimed: Option<ReclaimedInfo>,
}

/// A predecessor that did not give its lock up.
#[napi(object, object_from_js = false)]
pub struct ReclaimedInfo {
    /// Its story.
    pub story_id: String,
    /// Its lock.
    pub lock_id: String,
    /// Its process.
    pub pid: u32,
    /// Since 1970, in ms.
    pub acquired_at: f64,
    /// `died` or `expired`.
    pub how: String,
}

/// Who holds a path, as seen at one moment. Times in ms.
#[napi(object, object_from_js = false)]
pub struct HolderInfo {
    /// Starts with the story id.
    pub lock_id: String,
    /// The story.
    pub story_id: String,
    /// The absolute path as the story named it.
    pub file_path: String,
    /// Since 1970.
    pub acquired_at: f64,
    /// The lease; `Infinity` for a bound one.
    pub timeout: f64,
    /// Its process.
    pub pid: u32,
    /// The fencing token; 0 for the old module's.
    pub token: f64,
    /// The machine or container.
    pub host: String,
    /// `exclusive` or `shared`.
    pub mode: String,
    /// Whether everything below the path is locked with it.
    pub recursive: bool,
    /// How long it has held.
    pub held_for: f64,
    /// How long its lease still runs; absent for a bound one.
    pub remaining: Option<f64>,
    /// The lease's end by the wall, since 1970; absent for a bound one.
    pub expires_at: Option<f64>,
    /// Whether the lease alone ends it.
    pub detached: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
}

/// Everything that is held.
#[napi(object, object_from_js = false)]
pub struct StatusInfo {
    /// Oldest first.
    pub locks: Vec<ListedInfo>,
    /// Who waits, by path and place.
    pub waiting: Vec<PendingInfo>,
    /// Files at a record's name that cannot be read as records; each counts as held.
    pub unreadable: Vec<String>,
    /// Where the records stand.
    pub lock_directory: String,
    /// What could not be looked at, or written.
    pub error: Option<String>,
}

/// One held path.
#[napi(object, object_from_js = false)]
pub struct ListedInfo {
    /// Who holds it.
    pub holder: HolderInfo,
    /// Whether the next comer gets it.
    pub is_stale: bool,
    /// Where its record stands.
    pub lock_file: String,
}

/// One who waits.
#[napi(object, object_from_js = false)]
pub struct PendingInfo {
    /// The absolute path as the story named it.
    pub file_path: String,
    /// The story.
    pub story_id: String,
    /// Its process.
    pub pid: u32,
    /// The machine or container.
    pub host: String,
    /// Since 1970.
    pub since: f64,
    /// How long.
    pub waited: f64,
    /// Its place in the queue of this path, from 1.
    pub place: u32,
    /// In how many ms the lease in front ends, if that is known.
    pub estimate: Option<f64>,
    /// How many paths it wants at once.
    pub paths: u32,
    /// `exclusive` or `shared`.
    pub mode: String,
    /// Whether it wants everything below the path with it.
    pub recursive: bool,
    /// Why, in the story's words.
    pub reason: Option<String>,
}
