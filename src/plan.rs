//! What the calls of a batch become: steps for the store, then answers.
//!
//! Promises: one round of the store a batch, however many calls are in it (a scope that changes a lease
//! takes a second round); nothing is looked up on the disk while the guard is held that could be
//! looked up before.

use std::sync::Arc;

use crate::call::{Ask, Call, Message, Order, Ready, Reply, Wait, called_off, closed};
use crate::claims::{ClientId, End, Holding};
use crate::desk::{Desk, GivenUp, Request};
use crate::error::{Code, Error};
use crate::grant::lost;
use crate::holdings::LockId;
use crate::key::{Key, Target};
use crate::kind::Kind;
use crate::lease::Lease;
use crate::queue::WaiterId;
use crate::store::{Acquire, Done, Force, Grant, Step};
use crate::story::{self, Story};

/// What a call became.
enum Plan {
    /// A step of the round; what it does belongs to the caller.
    Step(usize, Purpose),
    /// An answer that needs no change.
    Answer(Result<Reply, Error>),
    /// A look after the round.
    Look,
    /// The lock, as it is after the round.
    AsIs(LockId),
    /// Nothing to do, and nobody to tell.
    Nothing,
}

pub(crate) enum Purpose {
    Acquire {
        scope: bool,
        lease: Lease,
        wait: Wait,
    },
    /// Grants are given up; those at the marked places stay, since others here want them.
    LetGo {
        stays: Vec<bool>,
    },
    /// One who waits leaves; `patience` says whether because that ended.
    Leave {
        id: WaiterId,
        patience: bool,
    },
    /// A lock changes hands.
    Handover,
    /// A lease begins anew, with this length if one was asked for.
    Renew {
        asked: Option<Lease>,
    },
    Other,
}

impl Desk {
    /// Does what these calls ask and posts the answers.
    pub(crate) fn work(&mut self, batch: Vec<Request>) {
        let mut steps = Vec::new();
        let mut planned = Vec::with_capacity(batch.len());
        for Request { client, ticket, call, .. } in batch {
            if matches!(call, Call::Close) {
                for waiting in self.waits.remove_displaced(client, None) {
                    self.refuse(&waiting, closed());
                }
                for id in self.waits.of(client) {
                    steps.push(Step::Leave { waiter: id, keep: false });
                    let purpose = Purpose::Leave { id, patience: false };
                    planned.push((
                        client,
                        ticket,
                        call.clone(),
                        Plan::Step(steps.len() - 1, purpose),
                    ));
                }
            }
            let plan = self.plan(client, &call, &mut steps);
            planned.push((client, ticket, call, plan));
        }
        let mut answers = Vec::new();
        let mut granted = Vec::new();
        let mut given_up = GivenUp::new();
        let mut turns = None;
        if !steps.is_empty() {
            let mut round = self.store.run(&steps);
            for (client, _, _, plan) in &planned {
                let Plan::Step(step, _) = plan else { continue };
                if let (Some(step), Some(answer)) = (steps.get(*step), round.answers.get(*step)) {
                    self.mark_given_up(*client, step, answer, &mut given_up);
                }
            }
            // What a call of this batch was granted may be cleaned up by a later one.
            for (client, _, _, plan) in &planned {
                let Plan::Step(step, _) = plan else { continue };
                let Some(Step::Cleanup { story }) = steps.get(*step) else { continue };
                let granted = round.answers[..*step].iter().filter_map(|answer| match answer {
                    Ok(Done::Granted(grants)) => Some(grants),
                    _ => None,
                });
                let theirs = granted.flatten().filter(|grant| grant.record.story_id == *story);
                given_up.extend(theirs.map(|grant| ((grant.key, story.clone()), *client)));
            }
            answers = std::mem::take(&mut round.answers).into_iter().map(Some).collect();
            // Losses come before grants: what is granted now is not what was lost.
            self.notice(&round.changed, round.is_new_ground, &given_up);
            turns = Some(round);
        }
        for (client, ticket, call, plan) in planned {
            let reply = match plan {
                Plan::Nothing => continue,
                Plan::Answer(reply) => reply,
                Plan::Look => self.look(call),
                Plan::AsIs(lock) => self.as_is(lock),
                Plan::Step(step, purpose) => {
                    let answer = answers.get_mut(step).and_then(Option::take);
                    let answer = answer.unwrap_or_else(|| Err(Error::defect()));
                    granted.extend(self.settle(
                        client,
                        ticket,
                        &call,
                        purpose,
                        &steps[step],
                        answer,
                    ));
                    continue;
                }
            };
            self.post(client, Message::Answer(ticket, reply));
        }
        if let Some(round) = turns {
            granted.extend(self.take_turns(round));
        }
        self.conclude(granted, &given_up);
    }

    /// Refuses those whose patience has ended, or grants them what came at the last moment.
    pub(crate) fn time_out(&mut self) {
        let over = self.waits.over(&*self.clock);
        if over.is_empty() {
            return;
        }
        let steps: Vec<Step> =
            over.iter().map(|id| Step::Leave { waiter: *id, keep: true }).collect();
        let mut round = self.store.run(&steps);
        let answers = std::mem::take(&mut round.answers);
        let mut granted = self.absorb(round, &GivenUp::new());
        for ((id, step), answer) in over.into_iter().zip(&steps).zip(answers) {
            let purpose = Purpose::Leave { id, patience: true };
            granted.extend(self.settle(0, 0, &Call::Status, purpose, step, answer));
        }
        self.conclude(granted, &GivenUp::new());
    }

    fn plan(&mut self, client: ClientId, call: &Call, steps: &mut Vec<Step>) -> Plan {
        let mut step = |step: Step, purpose: Purpose| {
            steps.push(step);
            Plan::Step(steps.len() - 1, purpose)
        };
        let located = |target: &Target| target.clone().locate();
        match call {
            Call::Acquire(ask) => match acquisition(ask) {
                Ok(acquire) => step(
                    Step::Acquire(acquire),
                    Purpose::Acquire { scope: ask.scope, lease: ask.lease, wait: ask.wait },
                ),
                Err(error) => Plan::Answer(Err(error.by(ask.story.as_str()))),
            },
            Call::Release { target, story } => match located(target) {
                Ok(path) => step(Step::Release { path, story: story.clone() }, Purpose::Other),
                Err(error) => Plan::Answer(Err(error.by(story.as_str()))),
            },
            Call::Renew { target, story, lease } => match located(target) {
                Ok(path) => {
                    let asked_for = *lease;
                    let lease = self.lease_to_renew(&path.key, story, *lease);
                    let purpose = Purpose::Renew { asked: asked_for };
                    step(Step::Renew { path, story: story.clone(), lease }, purpose)
                }
                Err(error) => Plan::Answer(Err(error.by(story.as_str()))),
            },
            Call::LetGo { grants, scope, kinds } => {
                let mut gone = Vec::with_capacity(grants.len());
                let mut stays = Vec::with_capacity(grants.len());
                for (number, lock) in grants.iter().enumerate() {
                    let wanted = self.unclaim(client, lock, end_of(*scope, kinds, number));
                    stays.push(wanted);
                    if !wanted {
                        gone.push(*lock);
                    }
                }
                step(Step::LetGo(gone), Purpose::LetGo { stays })
            }
            Call::Lower { key, token, kind } => {
                let lock = (*key, *token);
                let me = self.store.session();
                let lowered = match self.holdings.get_mut(&lock) {
                    Some(holding) => {
                        holding.lower(client, *kind);
                        holding.lowered(me)
                    }
                    // A detached lock is nobody's here.
                    None => Some(*kind),
                };
                match lowered {
                    Some(kind) => {
                        step(Step::Lower { key: *key, token: *token, kind }, Purpose::Other)
                    }
                    // Others here want more of it still: it is as low as it can be.
                    None => Plan::AsIs(lock),
                }
            }
            Call::Transfer { key, token, story } => {
                let holding = self.holdings.get(&(*key, *token));
                if holding.is_some_and(Holding::is_scoped) {
                    let message =
                        "The lock belongs to a scope, which gives it up when its work ends.";
                    let hint = "Nothing was changed. Give away a lock that was acquired apart.";
                    let error = Error::new(Code::Closed, message).hint(hint);
                    return Plan::Answer(Err(error.by(story.as_str())));
                }
                let (key, token, story) = (*key, *token, story.clone());
                step(Step::Transfer { key, token, story }, Purpose::Handover)
            }
            Call::Offer { grants, digest } => {
                let (grants, digest) = (grants.clone(), digest.clone());
                step(Step::Offer { grants, digest }, Purpose::Other)
            }
            Call::Adopt { grants, digest, lease } => {
                let (grants, digest) = (grants.clone(), digest.clone());
                step(Step::Adopt { grants, digest, lease: *lease }, Purpose::Handover)
            }
            Call::Force { target, order } => match located(target) {
                Ok(path) => {
                    let Order { by, reason, story, is_dry } = order.clone();
                    step(Step::Force(Force { path, story, by, reason, is_dry }), Purpose::Other)
                }
                Err(error) => Plan::Answer(Err(error)),
            },
            Call::Extend { key, token, lease: asked } => {
                let holding = self.holdings.get(&(*key, *token));
                let lease = if holding.is_some_and(Holding::is_scoped) { None } else { *asked };
                let extend = Step::Extend { key: *key, token: *token, lease, detached: None };
                step(extend, Purpose::Renew { asked: *asked })
            }
            Call::Cleanup { story } => step(Step::Cleanup { story: story.clone() }, Purpose::Other),
            Call::Close => {
                self.unsettled.extend(self.holdings.leave(client));
                Plan::Answer(Ok(Reply::Closed))
            }
            Call::Commit(Ready { story, grants, change }) => {
                let (grants, story) = (grants.clone(), story.clone());
                let change = Arc::clone(change);
                step(Step::Commit { grants, story, change }, Purpose::Other)
            }
            Call::Keep(limits) => {
                self.store.keep_history(*limits);
                Plan::Answer(Ok(Reply::Released))
            }
            Call::Done(reply) => {
                Plan::Answer((**reply).clone().map_err(|error| self.with_writer(error)))
            }
            // Those are prepared before they get here.
            Call::Change(_) | Call::Outline { .. } => Plan::Answer(Err(Error::defect())),
            // Answered already if it does not wait.
            Call::Cancel { ticket } => match self.waits.find(client, *ticket) {
                Some(id) => step(
                    Step::Leave { waiter: id, keep: false },
                    Purpose::Leave { id, patience: false },
                ),
                None => {
                    for waiting in self.waits.remove_displaced(client, Some(*ticket)) {
                        self.refuse(&waiting, called_off());
                    }
                    Plan::Nothing
                }
            },
            Call::Verify { .. } | Call::Check { .. } | Call::Status => Plan::Look,
        }
    }

    /// Takes back one claim of a client if the lock stays all the same, and answers that. The last claim
    /// stands until the lock is gone: until then its client is to be told what becomes of it.
    fn unclaim(&mut self, client: ClientId, lock: &LockId, end: End) -> bool {
        let is_scope = end != End::Plain;
        let Some(holding) = self.holdings.get(lock) else {
            // A scope that only joined another process's lock ends without giving it up.
            return is_scope && self.store.known(&lock.0).iter().any(|one| one.token == lock.1);
        };
        let is_ours = self.store.is_ours(&holding.record);
        let is_last = holding.is_last_claim(client, is_scope);
        let stays = !is_last || (is_scope && holding.is_borrowed(is_ours));
        if stays {
            self.holdings.unclaim(client, lock, end);
            self.unsettled.insert(*lock);
        }
        stays
    }

    /// The lease to renew a lock with: while a scope is open on it, it stays bound, and what is asked
    /// for comes after.
    fn lease_to_renew(&self, key: &Key, story: &Story, asked: Option<Lease>) -> Option<Lease> {
        let is_scoped = self.holdings.of_story(key, story).is_some_and(Holding::is_scoped);
        if is_scoped { None } else { asked }
    }

    /// Marks what this step gave up at a client's wish: no loss to that one.
    fn mark_given_up(
        &mut self,
        client: ClientId,
        step: &Step,
        answer: &Result<Done, Error>,
        given_up: &mut GivenUp,
    ) {
        match (step, answer) {
            (Step::LetGo(grants), answer) => {
                for (number, lock) in grants.iter().enumerate() {
                    let was_there = match answer {
                        Ok(Done::LetGo(gone)) => gone.get(number) == Some(&true),
                        // Some of them may be gone; those were given up and not lost.
                        _ => self.store.known(&lock.0).iter().all(|one| one.token != lock.1),
                    };
                    if was_there && self.holdings.get(lock).is_some_and(|one| one.is_only(client)) {
                        self.holdings.remove(lock);
                    }
                }
            }
            (Step::Release { path, story }, Ok(_)) => {
                let keys = [Some(path.key), path.spelled].into_iter().flatten();
                given_up.extend(keys.map(|key| ((key, story.clone()), client)));
            }
            (Step::Transfer { key, token, .. }, Ok(_)) => {
                let holding = self.holdings.get(&(*key, *token));
                let story = holding.map(|holding| holding.record.story_id.clone());
                given_up.extend(story.map(|story| ((*key, story), client)));
            }
            (Step::Cleanup { story }, Ok(_)) => {
                let locks = self.holdings.locks().into_iter();
                given_up.extend(locks.map(|(key, _)| ((key, story.clone()), client)));
            }
            _ => {}
        }
    }

    /// A lock that stays as it is.
    fn as_is(&self, (key, token): LockId) -> Result<Reply, Error> {
        let record = self.store.known(&key).iter().find(|record| record.token == token);
        let grant = record.map(|record| Grant { key, record: record.clone(), is_fresh: false });
        grant.map(|grant| Reply::Locks(vec![grant])).ok_or_else(lost)
    }

    fn look(&self, call: Call) -> Result<Reply, Error> {
        match call {
            Call::Verify { key, token } => self.store.verify(&key, token).map(Reply::Verified),
            Call::Check { target } => Ok(Reply::Holders(self.store.check(&target.locate()?)?)),
            Call::Status => Ok(Reply::Status(Box::new(self.store.status()))),
            _ => Err(Error::defect()),
        }
    }
}

fn acquisition(ask: &Ask) -> Result<Acquire, Error> {
    if let Some(reason) = &ask.reason {
        story::check_words("reason", reason)?;
    }
    let located = |(target, kind): &(Target, Kind)| Ok((target.clone().locate()?, *kind));
    let paths: Result<Vec<_>, Error> = ask.targets.iter().map(located).collect();
    Ok(Acquire {
        paths: paths?,
        story: ask.story.clone(),
        lease: ask.lease,
        detached: ask.detached,
        reason: ask.reason.clone(),
        queue: (ask.wait != Wait::No).then_some(ask.queue_limit),
    })
}

/// Which claim on the lock of this number ends.
pub(crate) fn end_of(is_scope: bool, kinds: &[Kind], number: usize) -> End {
    if is_scope { End::Scope(kinds.get(number).copied()) } else { End::Plain }
}
