//! One error type for every refusal and failure, written for the one who must act on it.
//!
//! Promises: `code` says what kind of thing happened and never changes between versions; `message`
//! names the path, who is in the way, and what to do next; the rest of the fields say the same as data.
//! Constructors live beside the rule they report; this file knows only what an error *is*.

use std::fmt::{self, Write as _};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::errno;
use crate::holder::Holder;

/// What kind of thing happened. The names are the codes that JavaScript sees.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// Another story holds the path.
    Locked,
    /// The caller does not hold what it asks about.
    NotAcquired,
    /// The lock was held, and was lost.
    Compromised,
    /// Waiting would close a circle of stories that wait for each other.
    Deadlock,
    /// Too many wait for the path already.
    QueueFull,
    /// The lock that a change leans on is not current any more.
    Fenced,
    /// A file is not what a change was made for.
    Base,
    /// A hunk of a diff does not match its file.
    Hunk,
    /// The asker called its request off.
    Aborted,
    /// The record on disk is not one this version can read.
    BadRecord,
    /// The handle was closed.
    Closed,
    /// An argument of the right type has a value that cannot be.
    InvalidValue,
    /// A number is outside its range.
    OutOfRange,
    /// The system said no; the name is its own (`ENOSPC`, `EACCES`, …).
    System(&'static str),
    /// A defect of this library, caught.
    Internal,
}

impl Code {
    /// The code as JavaScript sees it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Code::Locked => "ELOCKED",
            Code::NotAcquired => "ENOTACQUIRED",
            Code::Compromised => "ECOMPROMISED",
            Code::Deadlock => "EDEADLK",
            Code::QueueFull => "EQUEUEFULL",
            Code::Fenced => "EFENCED",
            Code::Base => "EBASE",
            Code::Hunk => "EHUNK",
            Code::Aborted => "ABORT_ERR",
            Code::BadRecord => "EBADRECORD",
            Code::Closed => "ERR_INVALID_STATE",
            Code::InvalidValue => "ERR_INVALID_ARG_VALUE",
            Code::OutOfRange => "ERR_OUT_OF_RANGE",
            Code::System(name) => name,
            Code::Internal => "EINTERNAL",
        }
    }
}

/// No message is longer, in bytes, before its hint.
const MOST_SAID: usize = 16 * 1024;

/// A refusal or a failure. Nothing was changed by the call that returns one, unless it says so.
/// Its fields are read straight from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Error(Box<Report>);

/// What an [`Error`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What kind of thing happened.
    pub code: Code,
    /// What happened, to which path, who holds it; ends with the hint.
    pub message: String,
    /// The file that the call was about.
    pub path: Option<PathBuf>,
    /// The story that asked.
    pub story: Option<String>,
    /// Who is in the way; the first, where several are.
    pub holder: Option<Holder>,
    /// All who are in the way.
    pub holders: Vec<Holder>,
    /// Who took the lock back by force, and why.
    pub forced: Option<Forced>,
    /// What to do next.
    pub hint: Option<String>,
    /// What is known of the line for the path.
    pub line: Line,
    /// What the file was expected to be and what it is, for a change that was made for another.
    pub base: Option<Bases>,
    /// Which hunk of a diff does not match, from 1, and the line of the file that it is for.
    pub hunk: Option<(usize, usize)>,
    /// The circle that waiting would close: each waits for what the next holds.
    pub circle: Vec<Arm>,
}

/// What a file was expected to be and what it is; `None` for not there. Hashes in hex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bases {
    /// Expected.
    pub expected: Option<String>,
    /// Found.
    pub actual: Option<String>,
    /// Who wrote it last through a lock, as far as that is known.
    pub writer: Option<Writer>,
}

/// Who wrote a file last through a lock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// The story.
    pub story_id: String,
    /// Its process.
    pub pid: u32,
    /// The token that it wrote under.
    pub token: u64,
    /// Wall time, ms since 1970.
    pub at: u64,
    /// What it wrote, in hex; `None` if it removed the file.
    pub hash: Option<String>,
}

/// Who took a lock back by force, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forced {
    /// Who, in their own words.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Wall time, ms since 1970.
    pub at: u64,
    /// Whose lock it was.
    pub story_id: String,
    /// The grant.
    pub token: u64,
}

/// What a refusal tells of the line for a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// How many wait.
    pub waiters: usize,
    /// The place that the asker had in it, from 1.
    pub place: Option<usize>,
    /// How long the asker waited, in ms.
    pub waited_ms: Option<u64>,
}

/// One arm of a circle of stories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// Who waits.
    pub story: String,
    /// For what.
    pub path: PathBuf,
    /// Who holds it.
    pub holder: String,
}

impl Deref for Error {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl Error {
    /// An error of this kind; builder methods add what is known.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        let message = legible(message.into());
        Error(Box::new(Report {
            code,
            message,
            path: None,
            story: None,
            holder: None,
            holders: Vec::new(),
            forced: None,
            hint: None,
            line: Line::default(),
            base: None,
            hunk: None,
            circle: Vec::new(),
        }))
    }

    /// An argument that cannot be: `The argument 'storyId' must …`.
    pub fn invalid(argument: &str, rule: impl fmt::Display) -> Error {
        Error::new(Code::InvalidValue, format!("The argument '{argument}' {rule}"))
    }

    /// A number outside its range.
    pub fn out_of_range(argument: &str, rule: impl fmt::Display) -> Error {
        Error::new(
            Code::OutOfRange,
            format!("The value of '{argument}' is out of range. It {rule}"),
        )
    }

    /// "Failed to <verb> <path>: <what the system said>", with the remedy for that error.
    pub fn system(verb: &str, path: &Path, cause: &io::Error) -> Error {
        let code = Code::System(errno::name(cause));
        let error =
            Error::new(code, format!("Failed to {verb} {}: {cause}.", path.display())).at(path);
        match errno::remedy(cause) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Names the path that the call was about.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Error {
        self.0.path = Some(path.to_owned());
        self
    }

    /// Names the story that asked.
    #[must_use]
    pub fn by(mut self, story: &str) -> Error {
        self.0.story = Some(story.to_owned());
        self
    }

    /// Names who is in the way.
    #[must_use]
    pub fn held_by(self, holder: Holder) -> Error {
        self.held_by_all(vec![holder])
    }

    /// Names all who are in the way.
    #[must_use]
    pub fn held_by_all(mut self, holders: Vec<Holder>) -> Error {
        self.0.holder = holders.first().cloned();
        self.0.holders = holders;
        self
    }

    /// Tells who took the lock back by force.
    #[must_use]
    pub fn forced_by(mut self, forced: Forced) -> Error {
        self.0.forced = Some(forced);
        self
    }

    /// Tells of the line for the path.
    #[must_use]
    pub fn in_line(mut self, line: Line) -> Error {
        self.0.line = line;
        self
    }

    /// Tells what a file was expected to be and what it is.
    #[must_use]
    pub fn on_base(mut self, expected: Option<String>, actual: Option<String>) -> Error {
        self.0.base = Some(Bases { expected, actual, writer: None });
        self
    }

    /// Tells who wrote the file last.
    #[must_use]
    pub fn written_by(mut self, writer: Writer) -> Error {
        if let Some(base) = &mut self.0.base {
            let _ = write!(
                self.0.message,
                " {} was the last to write it through storylock.",
                writer.story_id
            );
            base.writer = Some(writer);
        }
        self
    }

    /// Tells which hunk does not match, and the line that it is for.
    #[must_use]
    pub fn in_hunk(mut self, hunk: usize, line: usize) -> Error {
        self.0.hunk = Some((hunk, line));
        self
    }

    /// What a caller is told when this library is at fault.
    pub fn defect() -> Error {
        Error::new(Code::Internal, "storylock met a defect of its own and gave up its locks.")
            .hint("Nothing was granted. Please report it with what led to it.")
    }

    /// Tells the circle.
    #[must_use]
    pub fn around(mut self, circle: Vec<Arm>) -> Error {
        self.0.circle = circle;
        self
    }

    /// Says what to do next, in the message too.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        let hint = legible(hint.into());
        self.0.message.push(' ');
        self.0.message.push_str(&hint);
        self.0.hint = Some(hint);
        self
    }

    /// Whether another story was in the way, so that a later try may succeed.
    pub fn is_conflict(&self) -> bool {
        self.code == Code::Locked
    }
}

/// Names and words of others may move a cursor, turn text around or go on for ever.
fn legible(text: String) -> String {
    let is_odd = |c: &char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.len() <= MOST_SAID && !text.chars().any(|c| is_odd(&c)) {
        return text;
    }
    let mut said = String::with_capacity(text.len().min(MOST_SAID));
    for c in text.chars() {
        if said.len() > MOST_SAID {
            said.push('…');
            break;
        }
        if is_odd(&c) {
            said.extend(c.escape_unicode());
        } else {
            said.push(c);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_keeps_its_code_and_gains_path_and_remedy() {
        let cause = io::Error::from_raw_os_error(28);
        let error = Error::system("write", Path::new("/p/.ai/locks/x.lock"), &cause);
        assert_eq!(error.code.as_str(), "ENOSPC");
        assert_eq!(error.path.as_deref(), Some(Path::new("/p/.ai/locks/x.lock")));
        assert!(error.message.contains("/p/.ai/locks/x.lock"), "{}", error.message);
        assert!(error.message.contains("Free some space"), "{}", error.message);
    }
}
