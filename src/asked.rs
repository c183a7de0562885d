//! What JavaScript asks for, as the engine takes it: values checked before anything is touched.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

use crate::call::{Ask, Call, Change, QUEUE_LIMIT, Wait, What};
use crate::change::{Action, Base, Edit};
use crate::error::{Code, Error};
use crate::key::{Key, Target};
use crate::lease::{DEFAULT_TIMEOUT_MS, Lease};
use crate::shapes::GrantId;
use crate::story::Story;

/// How a set of paths is to be locked.
#[napi(object)]
#[derive(Default)]
pub struct AcquireOptions {
    /// The lease in ms; `Infinity` for a bound one; 30 s if absent.
    pub timeout: Option<f64>,
    /// Whether a scope begins, ended by `letGo(…, true)`.
    pub scope: Option<bool>,
    /// Whether the lock outlives this process: its lease alone ends it.
    pub detached: Option<bool>,
    /// Why, in the story's words.
    pub reason: Option<String>,
    /// How long to stand in line, in ms; `Infinity` for ever; not at all if absent or 0.
    pub wait: Option<f64>,
    /// Behind how many others at most on each path.
    pub queue_limit: Option<u32>,
}

/// The acquisition that JavaScript asks for.
///
/// # Errors
/// For values that cannot be, before anything is touched.
pub fn acquisition(
    paths: &[String],
    story_id: String,
    options: AcquireOptions,
) -> Result<Ask, Error> {
    if paths.is_empty() {
        return Err(Error::invalid("paths", "must name at least one file."));
    }
    let targets: Result<Vec<_>, Error> = paths.iter().map(|path| Target::new(path)).collect();
    let (targets, story) = (targets?, Story::new(story_id)?);
    let lease =
        options.timeout.map_or(Ok(Lease::Timed(DEFAULT_TIMEOUT_MS)), Lease::from_timeout)?;
    let detached = options.detached.unwrap_or_default();
    if detached && lease == Lease::Bound {
        let rule = "must be finite for a detached lock, which nothing else would ever end. Received Infinity";
        return Err(Error::out_of_range("timeout", rule));
    }
    let scope = options.scope.unwrap_or_default();
    let wait = options.wait.map_or(Ok(Wait::No), Wait::from_ms)?;
    let queue_limit = options.queue_limit.map_or(QUEUE_LIMIT, |limit| limit as usize);
    let reason = options.reason;
    Ok(Ask { targets, story, lease, scope, detached, reason, wait, queue_limit })
}

/// One file's change.
#[napi(object)]
pub struct FileEdit {
    /// Which file.
    pub path: String,
    /// What it gets; it goes if absent.
    pub content: Option<Buffer>,
    /// What it must be: `any`, `absent`, or the SHA-256 of its content in hex.
    pub base: String,
    /// Whether to make the folders that it lies in.
    pub parents: bool,
}

/// How files are changed.
#[napi(object)]
pub struct ChangeOptions {
    /// Whether the change must outlive the machine's power.
    pub durable: bool,
    /// Whether to look only whether it could be done.
    pub check: bool,
}

impl FileEdit {
    /// As the engine takes it.
    ///
    /// # Errors
    /// As [`acquisition`].
    pub fn parse(self) -> Result<Edit, Error> {
        let base = match self.base.as_str() {
            "any" => Base::Any,
            "absent" => Base::Absent,
            hex => Base::Hash(Key::from_hex(hex).map(|key| key.0).ok_or_else(|| {
                Error::invalid("expect", "must be a SHA-256 in 64 lower-case hex digits.")
            })?),
        };
        let action = match self.content {
            Some(content) => Action::Write { content: content.to_vec(), executable: None },
            None => Action::Remove,
        };
        let target = Target::new(&self.path)?;
        Ok(Edit { target, action, base, make_parents: self.parents })
    }
}

/// The change of files that JavaScript asks for.
///
/// # Errors
/// As [`acquisition`].
pub fn change(
    story_id: String,
    locks: &[GrantId],
    what: What,
    options: &ChangeOptions,
) -> Result<Call, Error> {
    let grants: Result<Vec<_>, Error> = locks.iter().map(GrantId::parse).collect();
    let ChangeOptions { durable, check } = *options;
    Ok(Call::Change(Change { story: Story::new(story_id)?, grants: grants?, what, durable, check }))
}

impl GrantId {
    /// As the engine takes it.
    ///
    /// # Errors
    /// As [`acquisition`].
    pub fn parse(&self) -> Result<(Key, u64), Error> {
        let key = Key::from_file_name(&format!("{}.lock", self.key))
            .ok_or_else(|| Error::new(Code::InvalidValue, "The lock's key is not one."))?;
        Ok((key, self.token as u64))
    }
}
