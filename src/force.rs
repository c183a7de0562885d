//! How an operator takes a lock back from a story that does not give it up.
//!
//! Promises: whoever had the lock can write under it no more from the moment that this is done, and is
//! told who took it and why; those in line get it in turn; nothing is taken that is not at this very
//! path, and nothing at all without a name and a reason; a look beforehand changes nothing.

use crate::error::{Code, Error, Forced};
use crate::found::Found;
use crate::ground::FORCED;
use crate::guard::Held;
use crate::holder::Holder;
use crate::key::Key;
use crate::kind::{Extent, Kind};
use crate::publish;
use crate::record::Record;
use crate::shelf::{Freed, Shelf, Why};
use crate::standing::Standing;
use crate::store::{Done, Force, Pending};

/// As many words are left at a path: one for each of many who share it.
const MOST_REMEMBERED: usize = 64;

impl Shelf {
    /// Takes the locks of a path back, or tells whose they are.
    ///
    /// # Errors
    /// `ENOTACQUIRED` if the path is only part of a folder that is locked; what the system says.
    pub(crate) fn force(&mut self, held: &mut Held<'_>, force: &Force) -> Result<Done, Error> {
        let mut taken: Vec<(Key, Record)> = Vec::new();
        let mut rubbish = Vec::new();
        for key in [Some(force.path.key), force.path.spelled].into_iter().flatten() {
            match self.found(&key)? {
                Found::Nothing => {}
                Found::Held(holds) => taken.extend(holds.into_iter().map(|one| (key, one))),
                Found::Unreadable(_) => rubbish.push(key),
            }
        }
        if let Some(story) = &force.story {
            taken.retain(|(_, record)| record.story_id == *story);
        }
        if taken.is_empty() && rubbish.is_empty() {
            self.check_folder(force)?;
        }
        let next = self.living_queue(&force.path.key).into_iter().zip(1..);
        let told = |(waiter, place)| Pending::of(waiter, place, None, &*self.clock);
        let next = next.map(told).collect();
        if !force.is_dry {
            self.take_back(held, force, &taken, &rubbish)?;
        }
        let clock = &*self.clock;
        let removed = taken.into_iter().map(|(_, record)| Holder::of(record, clock)).collect();
        Ok(Done::Forced(removed, next))
    }

    fn take_back(
        &mut self,
        held: &mut Held<'_>,
        force: &Force,
        taken: &[(Key, Record)],
        rubbish: &[Key],
    ) -> Result<(), Error> {
        for (key, record) in taken {
            self.leave_word(key, record, force);
        }
        for key in rubbish {
            let number = held.note_grants(&[*key])?;
            self.move_aside(key, number).map_err(|cause| self.system("move", key, &cause))?;
            self.reload(key)?;
            self.pass_on(held, Freed::new(), &[*key]);
        }
        let gone: Vec<(Key, u64)> =
            taken.iter().map(|(key, record)| (*key, record.token)).collect();
        let why = Why::Forced(force.by.clone(), force.reason.clone());
        self.vacate(held, &gone, &why)?;
        self.rung.extend(taken.iter().map(|(_, record)| record.holder));
        Ok(())
    }

    /// Leaves a note for whoever had it. For people alone: without it the lock is lost all the same.
    fn leave_word(&self, key: &Key, record: &Record, force: &Force) {
        let word = Forced {
            by: force.by.clone(),
            reason: force.reason.clone(),
            at: self.clock.wall_ms(),
            story_id: record.story_id.to_string(),
            token: record.token,
        };
        let mut words: Vec<Forced> = self.ground.noted(FORCED, key).unwrap_or_default();
        words.push(word);
        let words = &words[words.len().saturating_sub(MOST_REMEMBERED)..];
        let bytes = serde_json::to_vec(words).unwrap_or_default();
        let _ =
            self.ground.annex(FORCED).map(|dir| publish::replace(&dir, &key.to_string(), &bytes));
    }

    /// A path that is free by itself may be part of a folder that is not.
    fn check_folder(&mut self, force: &Force) -> Result<(), Error> {
        let extent = Extent::of(&force.path, Kind::default());
        let near = self.index.near(&extent).into_iter().filter(|key| *key != extent.key);
        let records = near.flat_map(|key| self.index.get(&key).iter().map(move |one| (key, one)));
        let above =
            records.filter(|(key, one)| self.index.extent(*key, one).contains(&extent.path));
        let above: Vec<Record> = above.map(|(_, record)| record.clone()).collect();
        for record in above {
            if self.standing(&record)? == Standing::Holds {
                let folder = record.file_path.display().to_string();
                let path = &force.path;
                let message = format!(
                    "{} is not locked by itself: it is part of {folder}, which {} has with all below it.",
                    path.named, record.story_id
                );
                return Err(Error::new(Code::NotAcquired, message)
                    .at(&path.path)
                    .held_by(Holder::of(record, &*self.clock))
                    .hint(format!("Nothing was taken. To take that back, name {folder}.")));
            }
        }
        Ok(())
    }
}
