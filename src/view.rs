//! The view, `.ai/progress/locks.json`: what is held by whom, for whoever looks.
//!
//! Promises: it is whole JSON at every moment; it shows the locks of every process; it is derived from
//! the records and never read back. While at most [`AT_ONCE`] locks are held it is written before a call
//! answers, so what was just acquired is in it; above that at most every [`PACE`], so the cost of a lock
//! does not grow with the number held.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use crate::publish;
use crate::queue::Waiter;
use crate::record::Record;
use crate::sys::Dir;

/// The name of the view's file.
pub const NAME: &str = "locks.json";
/// The most locks with which every change is shown at once.
pub const AT_ONCE: usize = 256;
/// The least time between two writings of a larger view.
pub const PACE: Duration = Duration::from_millis(100);

/// When the view was last written, and what went wrong then.
#[derive(Debug, Default)]
pub struct View {
    written: Option<Instant>,
    is_behind: bool,
    error: Option<io::Error>,
}

impl View {
    /// How long the view of this many locks must still wait; `None` when it can be written now.
    pub fn wait(&self, locks: usize) -> Option<Duration> {
        (locks > AT_ONCE || self.error.is_some())
            .then(|| self.rest())
            .filter(|rest| !rest.is_zero())
    }

    /// How long since it was last written it must rest if nobody's answer depends on it.
    pub fn rest(&self) -> Duration {
        self.written.map_or(Duration::ZERO, |written| PACE.saturating_sub(written.elapsed()))
    }

    /// Whether its folder is gone.
    pub fn is_homeless(&self) -> bool {
        self.error.as_ref().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Whether some change is not shown yet.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Takes note whether some change is not shown yet.
    pub fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    /// Writes the view of these entries, each made by [`entry`]. A view that cannot be written takes no
    /// lock from anybody: the error is kept for `status`, and the next change tries again.
    pub fn write<'a>(
        &mut self,
        progress: &Dir,
        entries: impl Iterator<Item = Cow<'a, str>>,
        waiters: impl Iterator<Item = (&'a Waiter, usize)>,
        now_ms: u64,
    ) -> bool {
        let mut json = format!("{{\"lastUpdated\":\"{}\",\"activeLocks\":[", iso(now_ms));
        for (number, entry) in entries.enumerate() {
            json.push_str(if number == 0 { "\n" } else { ",\n" });
            json.push_str(&entry);
        }
        json.push_str("\n]");
        // The old module's view has two fields: a third is there only while it says something.
        let mut waiters = waiters.map(|(waiter, place)| waiting(waiter, place)).peekable();
        if waiters.peek().is_some() {
            let waiters: Vec<String> = waiters.collect();
            json.push_str(",\"waiting\":[\n");
            json.push_str(&waiters.join(",\n"));
            json.push_str("\n]");
        }
        json.push_str("}\n");
        self.written = Some(Instant::now());
        self.error = publish::replace(progress, NAME, json.as_bytes()).err();
        self.error.is_none()
    }

    /// Why the view could not be written last time.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }
}

/// One entry of the view as JSON text: the record's file with its path in front.
pub fn entry(holds: &[Record]) -> String {
    let path = serde_json::to_string(&holds.first().map(|first| &first.file_path));
    let path = path.expect("it came from a string");
    let file = Record::to_bytes(holds);
    // The file is an object with fields in it: its first brace makes way for the path.
    let fields = String::from_utf8_lossy(file.get(1..).unwrap_or_default());
    format!("{{\"path\":{path},{fields}")
}

/// One who waits as the view shows it.
fn waiting(waiter: &Waiter, place: usize) -> String {
    let Waiter { story_id, file_path, since, pid, .. } = waiter;
    serde_json::json!({
        "path": file_path, "storyId": story_id, "place": place, "since": since, "pid": pid,
    })
    .to_string()
}

/// Wall time as `2026-01-31T12:00:00.000Z`.
pub fn iso(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999));
    humantime::format_rfc3339_millis(time).to_string()
}
