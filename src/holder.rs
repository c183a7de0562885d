//! Who is in the way, in words and as data: what a refusal, `check` and `status` tell of a record.

use std::path::Path;

use crate::clock::Clock;
use crate::error::{Code, Error, Line};
use crate::key::Located;
use crate::kind::Mode;
use crate::lease::spoken;
use crate::record::Record;
use crate::story::Story;
use crate::sys;

/// A holder as seen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its record.
    pub record: Record,
    /// How long it has held, in ms by the wall; 0 where the clock was set back meanwhile.
    pub held_for_ms: u64,
    /// How long its lease still runs, in ms; `None` for a bound one.
    pub remaining_ms: Option<u64>,
}

impl Holder {
    /// Describes a record's holder as of now.
    pub fn of(record: Record, clock: &dyn Clock) -> Holder {
        Holder {
            held_for_ms: clock.wall_ms().saturating_sub(record.acquired_at),
            remaining_ms: record.deadline().map(|deadline| deadline.remaining_ms(clock)),
            record,
        }
    }

    /// `AH-7 (pid 4711 …)`
    fn named(&self) -> String {
        format!("{} ({})", self.record.story_id, self.described())
    }

    /// `pid 4711 on this host, held for 12 s, lease ends in 18 s`.
    fn described(&self) -> String {
        let record = &self.record;
        let mut parts = Vec::new();
        let host = match record.host.as_str() {
            "" => String::new(),
            host if host == sys::host() => " on this host".to_owned(),
            host => format!(" on {host}"),
        };
        if record.detached {
            parts.push("taken on the command line".to_owned());
        } else {
            parts.push(format!("pid {}{host}", record.pid));
        }
        parts.push(format!("held for {}", spoken(self.held_for_ms)));
        parts.push(match self.remaining_ms {
            Some(ms) => format!("lease ends in {}", spoken(ms)),
            None => "until it is released or its process ends".to_owned(),
        });
        if record.mode == Mode::Shared {
            parts.push("shared".to_owned());
        }
        if let Some(reason) = &record.reason {
            parts.push(format!("reason: {}", brief(reason)));
        }
        parts.join(", ")
    }

    /// A refusal with what is known of the line, and what to do next.
    pub fn advised(error: Error, shown: &str, line: Line) -> Error {
        let others = match line.waiters - usize::from(line.place.is_some()) {
            0 => String::new(),
            1 => " 1 other waits for it.".to_owned(),
            others => format!(" {others} others wait for it."),
        };
        let hint = match (line.waited_ms, line.place) {
            (Some(ms), Some(place)) => format!(
                "Waited {} in vain, at place {place} in line.{others} Nothing was taken: wait longer, or work on something else; `npx storylock check {}` tells who has it then.",
                spoken(ms),
                quoted(shown)
            ),
            _ => format!(
                "Nothing was taken.{others} Wait in turn with `wait` (on the command line: --wait), or work on something else; `npx storylock check {}` tells who has it then.",
                quoted(shown)
            ),
        };
        error.in_line(line).hint(hint)
    }

    /// The refusal to release or renew what this holder has and the asking story has not.
    pub fn not_yours(self, verb: &str, path: &Located, story: &Story) -> Error {
        let owner = &self.record.story_id;
        let message = format!(
            "Cannot {verb} lock for {}: owned by {owner}, not {story} ({}).",
            path.named,
            self.described()
        );
        let hint = format!("Only {owner} can {verb} it; it was left as it is.");
        Error::new(Code::NotAcquired, message).at(&path.path).held_by(self).hint(hint)
    }
}

/// The refusal of a path that these holders are in the way of; `shown` is the path in the asker's words,
/// `part` the path of theirs that is above it or below it, if it is not the same.
pub fn refusal(
    holders: Vec<Holder>,
    path: &Path,
    shown: &str,
    part: Option<String>,
    line: Line,
) -> Error {
    let named: Vec<String> = holders.iter().map(Holder::named).collect();
    let named = match named.as_slice() {
        [] => "somebody".to_owned(),
        [one] => one.clone(),
        [one, other] => format!("{one} and {other}"),
        [one, others @ ..] => format!("{one} and {} others", others.len()),
    };
    let part = part.map_or(String::new(), |part| format!(", by the lock on {part}"));
    let error = Error::new(Code::Locked, format!("{shown} is locked by {named}{part}."));
    Holder::advised(error.at(path).held_by_all(holders), shown, line)
}

/// Words as they fit into a sentence.
fn brief(words: &str) -> String {
    const MOST: usize = 1024;
    match words.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

/// A path as a shell takes it for one word.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@:,".contains(c);
    if path.chars().all(is_plain) && !path.starts_with('-') {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}
