//! Where changes are prepared and flushed: beside the engine's thread, which only puts them in place.
//!
//! Promises: reading, writing and flushing files holds up no lock of anybody; a change whose asker has gone
//! is still carried out or undone, and what it made beside its files does not stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::call::{Call, Change, Ready, Reply, What};
use crate::change::{self, Action, Edit, Hash, Staged};
use crate::desk::{Desk, Request};
use crate::diff;
use crate::error::Error;
use crate::ground::STAGED;
use crate::store::Workshop;
use crate::sys::Dir;

/// Where finished work comes back to the engine's thread.
pub type Back = tokio::sync::mpsc::UnboundedSender<Request>;

/// Takes the calls out of a batch that are work for here, and begins them.
pub fn take(batch: &mut Vec<Request>, desk: &mut Desk, back: &Back) {
    for request in batch.extract_if(.., |one| is_work(&one.call)).collect::<Vec<_>>() {
        let workshop = match &request.call {
            Call::Change(change) if !change.check => Some(desk.begin_change(&change.grants)),
            _ => None,
        };
        let back = back.clone();
        tokio::task::spawn_blocking(move || {
            let Request { client, port, ticket, call, served } = request;
            let call = match (call, workshop) {
                (Call::Outline { diff, root }, _) => {
                    done(diff::paths(&diff, &root).map(Reply::Paths))
                }
                (Call::Change(change), None) => {
                    let story = change.story.clone();
                    let checked = check(change).map_err(|error| error.by(story.as_str()));
                    done(checked.map(Reply::Changed))
                }
                (Call::Change(change), Some(Ok(workshop))) => {
                    let (story, grants) = (change.story.clone(), change.grants.clone());
                    let under_way = change.under_way.clone();
                    match stage(change, &workshop) {
                        Ok(mut staged) => {
                            staged.under_way = under_way;
                            let change = Arc::new(Mutex::new(staged));
                            Call::Commit(Ready { story, grants, change })
                        }
                        Err(error) => done(Err(error.by(story.as_str()))),
                    }
                }
                (_, Some(Err(error))) => done(Err(error)),
                (_, _) => done(Err(Error::defect())),
            };
            // Nobody is there any more when the engine has ended.
            let _ = back.send(Request { client, port, ticket, call, served });
        });
    }
}

/// Flushes what was put in place, removes what is not needed any more, whoever is still there to be told,
/// and has the calls answered.
pub fn finish(desk: &mut Desk, back: &Back, locks: &Path) {
    let committed =
        desk.take_committed().into_iter().map(|(who, call, done)| (who, call, done, None));
    let dropped =
        desk.take_dropped().into_iter().map(|(who, call, done, why)| (who, call, done, Some(why)));
    for (client, ticket, change, refusal) in committed.chain(dropped).collect::<Vec<_>>() {
        let (back, notes, port) = (back.clone(), locks.join(STAGED), desk.port(client));
        tokio::task::spawn_blocking(move || {
            let mut change = change.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = match refusal {
                Some(error) => Err(error),
                None => change.flush(),
            };
            discard(&mut change, &notes);
            let call = done(outcome.map(|()| Reply::Changed(changed(&change))));
            if let Some(port) = port {
                let _ = back.send(Request { client, port, ticket, call, served: None });
            }
        });
    }
}

/// Removes what a change has made beside its files and does not need any more.
pub fn discard(change: &mut Staged, notes: &Path) {
    if let Ok(notes) = Dir::open(notes) {
        change.discard(&notes);
    }
}

fn is_work(call: &Call) -> bool {
    matches!(call, Call::Change(_) | Call::Outline { .. })
}

fn done(reply: Result<Reply, Error>) -> Call {
    Call::Done(Box::new(reply))
}

fn stage(change: Change, workshop: &Workshop) -> Result<Staged, Error> {
    let edits = edits(change.what)?;
    Staged::stage(edits, &workshop.covers, &workshop.notes, &workshop.name, change.durable)
}

fn check(change: Change) -> Result<Vec<(PathBuf, Option<Hash>)>, Error> {
    let hash = |edit: Edit| match edit.action {
        Action::Write { content, .. } => {
            (edit.target.path().to_owned(), Some(change::hash(&content)))
        }
        Action::Remove => (edit.target.path().to_owned(), None),
    };
    Ok(edits(change.what)?.into_iter().map(hash).collect())
}

fn edits(what: What) -> Result<Vec<Edit>, Error> {
    match what {
        What::Edits(edits) => Ok(edits),
        What::Diff { diff, root } => diff::edits(&diff, &root),
    }
}

fn changed(change: &Staged) -> Vec<(PathBuf, Option<Hash>)> {
    let paths = change.moves.iter().map(|one| one.folder.join(&one.name));
    paths.zip(change.hashes.iter().map(|(_, hash)| *hash)).collect()
}
