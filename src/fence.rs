//! The fence: a change goes in place only while every lock that it leans on is current.
//!
//! Promises: under the guard, so that no lock can be lost between the look and the change; every file of it
//! is covered by an exclusive lock of the story, its own or of a folder above; or nothing is written. Who
//! wrote is noted for people; a change is not called failed for want of that.

use std::path::{Path, PathBuf};

use crate::change::{self, Staged};
use crate::error::{Code, Error, Writer};
use crate::found::Found;
use crate::ground::WRITTEN;
use crate::holder::Holder;
use crate::key::Key;
use crate::kind::{Extent, Mode};
use crate::publish;
use crate::record::Record;
use crate::shelf::Shelf;
use crate::standing::Standing;
use crate::story::Story;

impl Shelf {
    /// Puts a change in place while every lock that it leans on is current.
    pub(crate) fn commit(
        &mut self,
        grants: &[(Key, u64)],
        story: &Story,
        change: &mut Staged,
    ) -> Result<(), Error> {
        let mut covers = Vec::with_capacity(grants.len());
        for (key, token) in grants {
            let found = self.found(key)?;
            let holds = if let Found::Held(holds) = &found { holds.as_slice() } else { &[] };
            let record = holds.iter().find(|record| record.token == *token).cloned();
            let is_theirs = |record: &Record| record.story_id == *story;
            match record.filter(is_theirs) {
                Some(record) if self.standing(&record)? == Standing::Holds => {
                    covers.push((*token, self.index.extent(*key, &record)));
                }
                _ => {
                    let path = change.path_of(key);
                    return Err(self.fenced(key, story, found, path));
                }
            }
        }
        let mut leaning = Vec::with_capacity(change.hashes.len());
        for (key, path) in change.targets() {
            let covers: Vec<&(u64, Extent)> =
                covers.iter().filter(|(_, it)| it.key == key || it.contains(&path)).collect();
            let alone = covers.iter().find(|(_, it)| it.kind.mode == Mode::Exclusive);
            match (alone, covers.first()) {
                (Some((token, _)), _) => leaning.push(*token),
                (None, Some(_)) => return Err(shared(story, &path)),
                (None, None) => return Err(change::not_locked(&path)),
            }
        }
        change.commit(&self.ground.locks)?;
        for (((key, path), (_, hash)), token) in change.targets().zip(&change.hashes).zip(leaning) {
            let writer = Writer {
                story_id: story.to_string(),
                pid: std::process::id(),
                token,
                at: self.clock.wall_ms(),
                hash: hash.map(change::hex),
            };
            // For people alone: a change that is in place is not called failed for want of it.
            self.tell_patched(&path, &writer);
            let bytes = serde_json::to_vec(&writer).unwrap_or_default();
            let written = self.ground.annex(WRITTEN);
            let _ = written.map(|dir| publish::replace(&dir, &key.to_string(), &bytes));
        }
        Ok(())
    }

    fn fenced(&self, key: &Key, story: &Story, found: Found, path: Option<PathBuf>) -> Error {
        let holder = match found {
            Found::Held(holds) => holds.into_iter().next(),
            Found::Nothing | Found::Unreadable(_) => None,
        };
        let holder = holder.map(|record| Holder::of(record, &*self.clock));
        let held = holder.as_ref().map(|holder| holder.record.file_path.clone());
        let path = path.or(held).unwrap_or_else(|| self.record_path(key));
        let taken = holder.as_ref().filter(|holder| holder.record.story_id != *story);
        let how = match taken {
            Some(holder) => format!("{} has it now", holder.record.story_id),
            None => "its lease ended or it was given up".to_owned(),
        };
        let message = format!("{story} holds the lock on {} no more: {how}.", path.display());
        let error = Error::new(Code::Fenced, message).at(&path).hint(
            "Nothing was written. Acquire it again and read it anew: others may have changed it.",
        );
        match holder {
            Some(holder) => error.held_by(holder),
            None => error,
        }
    }
}

fn shared(story: &Story, path: &Path) -> Error {
    let message = format!("{story} shares the lock on {}: readers do not write.", path.display());
    Error::new(Code::NotAcquired, message)
        .at(path)
        .hint("Nothing was written. Upgrade the lock first, and read the file anew.")
}
