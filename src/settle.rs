//! What a step that is done means for the call that asked for it: an answer, a place in line, or locks
//! whose leases come first.

use std::sync::Arc;

use crate::call::{Call, Message, Ready, Reply, Wait, called_off, closed};
use crate::claims::ClientId;
use crate::conclude::Granted;
use crate::desk::Desk;
use crate::error::{Code, Error, Line};
use crate::plan::{Purpose, end_of};
use crate::queue::WaiterId;
use crate::store::{Done, Step};
use crate::waits::{self, Waiting};

impl Desk {
    /// Answers a call whose step is done, unless it was granted locks whose leases come first.
    pub(crate) fn settle(
        &mut self,
        client: ClientId,
        ticket: u64,
        call: &Call,
        purpose: Purpose,
        step: &Step,
        answer: Result<Done, Error>,
    ) -> Option<Granted> {
        let done = match (answer, &purpose) {
            (Ok(done), _) => done,
            (Err(error), Purpose::Leave { id, .. }) => {
                self.dismiss(*id, error);
                return None;
            }
            (Err(error), _) => {
                if let Call::Commit(Ready { change, .. }) = call {
                    // It is answered once nothing is left of it.
                    self.dropped.push((client, ticket, Arc::clone(change), error));
                    return None;
                }
                if let Call::LetGo { grants, scope: true, kinds } = call {
                    // The scope is over all the same; what it held is given up as soon as it can be.
                    for (number, lock) in grants.iter().enumerate() {
                        self.holdings.unclaim(client, lock, end_of(true, kinds, number));
                        self.unsettled.insert(*lock);
                    }
                }
                let error = self.with_writer(error);
                self.post(client, Message::Answer(ticket, Err(error)));
                return None;
            }
        };
        let reply = match (done, purpose) {
            (Done::Granted(grants), Purpose::Acquire { scope, lease, .. }) => {
                let Step::Acquire(ask) = step else { return None };
                return Some(self.grant(client, ticket, grants, ask, scope, lease));
            }
            (Done::Granted(grants), Purpose::Handover) => {
                return Some(self.take_over(client, ticket, grants));
            }
            (Done::Queued(id), Purpose::Acquire { scope, lease, wait }) => {
                let Step::Acquire(ask) = step else { return None };
                let (ask, end_us) = (ask.clone(), waits::end_us(wait, &*self.clock));
                let limit_ms = if let Wait::For(ms) = wait { Some(ms) } else { None };
                let waiting = Waiting { client, ticket, scope, lease, ask, end_us, limit_ms };
                self.waits.add(id, waiting);
                return None;
            }
            (Done::Granted(grants), Purpose::Leave { id, .. }) => {
                let waiting = self.waits.remove(id)?;
                return Some(self.seat(waiting, grants));
            }
            (Done::Left(refusal), Purpose::Leave { id, patience }) => {
                self.dismiss(
                    id,
                    match call {
                        _ if patience && refusal.code == Code::Aborted => self.out_of_line(id),
                        _ if patience => refusal,
                        Call::Close => closed(),
                        _ => called_off(),
                    },
                );
                return None;
            }
            (Done::LetGo(gone), Purpose::LetGo { stays }) => {
                let mut gone = gone.into_iter();
                let all = stays.iter().map(|stays| *stays || gone.next().unwrap_or(false));
                Reply::LetGo(all.collect())
            }
            (Done::LetGo(gone), _) => Reply::LetGo(gone),
            (Done::Granted(grants), _) => Reply::Locks(grants),
            (Done::Released, _) => Reply::Released,
            (Done::Renewed(grant), purpose) => {
                let lock = (grant.key, grant.record.token);
                self.holdings.refresh(&lock, &grant.record, &*self.clock);
                // While a scope keeps it bound, what was asked for comes after.
                if let Purpose::Renew { asked: Some(lease) } = purpose
                    && let Some(holding) = self.holdings.get_mut(&lock)
                {
                    holding.set_apart(lease);
                }
                Reply::Locks(vec![*grant])
            }
            (Done::Offered, _) => Reply::Offered,
            (Done::Forced(removed, next), _) => Reply::Forced(removed, next),
            (Done::Cleaned(count), _) => Reply::Cleaned(count),
            (Done::Committed, _) => {
                // It is answered once it is flushed.
                if let Call::Commit(Ready { change, .. }) = call {
                    self.committed.push((client, ticket, Arc::clone(change)));
                }
                return None;
            }
            (Done::Queued(_) | Done::Left(_), _) => {
                self.post(client, Message::Answer(ticket, Err(Error::defect())));
                return None;
            }
        };
        self.post(client, Message::Answer(ticket, Ok(reply)));
        None
    }

    /// The refusal of one whose place was lost with the line, when its patience ended.
    fn out_of_line(&self, id: WaiterId) -> Error {
        let waiting = self.waits.get(id);
        let path = waiting.and_then(|waiting| waiting.ask.paths.first()).map(|(path, _)| path);
        let named = path.map_or("The path", |path| path.named.as_str());
        let message = format!("{named} is locked, and its line was lost with the lock folder.");
        let waited_ms = waiting.and_then(|waiting| waiting.limit_ms);
        let error = Error::new(Code::Locked, message)
            .in_line(Line { waited_ms, ..Line::default() })
            .hint("Nothing was taken. Try again.");
        match path {
            Some(path) => error.at(&path.path),
            None => error,
        }
    }

    /// Refuses one who waited.
    fn dismiss(&mut self, id: WaiterId, error: Error) {
        if let Some(waiting) = self.waits.remove(id) {
            self.refuse(&waiting, error);
        }
    }
}
