//! What JavaScript asks for, as the engine takes it: values checked before anything is touched.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

use crate::call::{Ask, Call, Change, Order, QUEUE_LIMIT, Wait, What};
use crate::change::{Action, Base, Edit};
use crate::error::{Code, Error};
use crate::history::Limits;
use crate::key::{Key, Target};
use crate::kind::{Kind, Mode};
use crate::lease::{DEFAULT_TIMEOUT_MS, Lease};
use crate::shapes::GrantId;
use crate::story::{self, Story};

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
    /// In which kind each path is to be locked; exclusive and by itself if absent.
    pub kinds: Option<Vec<KindInfo>>,
}

/// A kind of lock.
#[napi(object)]
pub struct KindInfo {
    /// `exclusive` or `shared`.
    pub mode: String,
    /// Whether everything below the path is locked with it.
    pub recursive: bool,
}

impl KindInfo {
    /// As the engine takes it.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_VALUE` for an unknown mode.
    pub fn parse(&self) -> Result<Kind, Error> {
        Ok(Kind { mode: Mode::from_name(&self.mode)?, recursive: self.recursive })
    }
}

/// These kinds, one a path.
///
/// # Errors
/// `ERR_INVALID_ARG_VALUE` for an unknown mode.
pub fn kinds(given: Option<&[KindInfo]>) -> Result<Vec<Kind>, Error> {
    given.unwrap_or_default().iter().map(KindInfo::parse).collect()
}

/// Whose lock is to be taken back, by whom, and why.
#[napi(object)]
pub struct ForceOptions {
    /// Who does it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Only this story's.
    pub story_id: Option<String>,
    /// Whether to tell only what would happen.
    pub dry_run: bool,
}

/// The taking back that JavaScript asks for.
///
/// # Errors
/// As [`acquisition`].
pub fn force(path: &str, options: ForceOptions) -> Result<Call, Error> {
    let target = Target::new(path)?;
    let story = options.story_id.map(Story::new).transpose()?;
    for (name, words) in [("by", &options.by), ("reason", &options.reason)] {
        if words.trim().is_empty() {
            return Err(Error::invalid(name, "must not be empty: it is kept on record."));
        }
        story::check_words(name, words)?;
    }
    let ForceOptions { by, reason, dry_run: is_dry, .. } = options;
    Ok(Call::Force { target, order: Order { by, reason, story, is_dry } })
}

/// How much history is kept.
#[napi(object)]
pub struct HistoryLimits {
    /// The size in bytes at which a file is rotated: from 4096 to 2^40.
    pub max_bytes: f64,
    /// How many rotated files stay: up to 100.
    pub keep: u32,
}

impl HistoryLimits {
    /// As the engine takes it.
    ///
    /// # Errors
    /// `ERR_OUT_OF_RANGE`.
    pub fn parse(&self) -> Result<Limits, Error> {
        let (most, least) = ((1u64 << 40) as f64, 4096.0);
        if !(least..=most).contains(&self.max_bytes) || self.max_bytes.fract() != 0.0 {
            let rule = format!("must be from 4096 to 2^40. Received {}", self.max_bytes);
            return Err(Error::out_of_range("history.maxBytes", rule));
        }
        if self.keep > 100 {
            let rule = format!("must be from 0 to 100. Received {}", self.keep);
            return Err(Error::out_of_range("history.keep", rule));
        }
        Ok(Limits { max_bytes: self.max_bytes as u64, keep: self.keep })
    }
}

/// A SHA-256 in hex, as an offer is known by.
///
/// # Errors
/// `ERR_INVALID_ARG_VALUE` for anything else.
pub fn digest(hex: String) -> Result<String, Error> {
    let is_hex = Key::from_hex(&hex).is_some();
    let rule = "must be a SHA-256 in 64 lower-case hex digits.";
    if is_hex { Ok(hex) } else { Err(Error::invalid("digest", rule)) }
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
    let kinds = kinds(options.kinds.as_deref())?;
    if !kinds.is_empty() && kinds.len() != paths.len() {
        return Err(Error::invalid("kinds", "must be as many as the paths."));
    }
    let kinds = kinds.into_iter().chain(std::iter::repeat(Kind::default()));
    let targets: Result<Vec<_>, Error> =
        paths.iter().zip(kinds).map(|(path, kind)| Ok((Target::new(path)?, kind))).collect();
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
    let grants = GrantId::parse_all(locks);
    let ChangeOptions { durable, check } = *options;
    let (story, grants) = (Story::new(story_id)?, grants?);
    Ok(Call::Change(Change { story, grants, what, durable, check, under_way: None }))
}

impl GrantId {
    /// As the engine takes them.
    ///
    /// # Errors
    /// As [`GrantId::parse`].
    pub fn parse_all(locks: &[GrantId]) -> Result<Vec<(Key, u64)>, Error> {
        locks.iter().map(GrantId::parse).collect()
    }

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
