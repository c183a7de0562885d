//! Random histories of the clients of one engine that share a story's lock, against a plain model: who
//! claims it, and with which lease it must therefore stand on the disk.
//!
//! The rule: bound while any scope is open; else the lease that it was asked for apart from scopes, begun
//! anew when the last scope ended; else gone.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use common::desk::HandDesk;
use common::{Project, code, key, only, set, story, target};
use storylock::store::Grant;
use storylock::{Ask, Call, Error, Lease, ManualClock, Message, Reply};

const CLIENTS: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Acquire(Lease),
    Enter,
    Exit,
    LetGo,
    Renew(Option<Lease>),
    Pass(u64),
    Close,
}

fn lease() -> impl Strategy<Value = Lease> {
    prop_oneof![Just(Lease::Bound), (1..400u64).prop_map(Lease::Timed)]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => lease().prop_map(Deed::Acquire),
        4 => Just(Deed::Enter),
        4 => Just(Deed::Exit),
        3 => Just(Deed::LetGo),
        2 => prop::option::of(lease()).prop_map(Deed::Renew),
        3 => (1..300u64).prop_map(Deed::Pass),
        1 => Just(Deed::Close),
    ]
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Claim {
    scopes: u32,
    is_plain: bool,
}

/// The lock as it must stand.
#[derive(Clone, Debug)]
struct Lock {
    token: u64,
    lease: Lease,
    end: Option<u64>,
    /// The lease that it has apart from scopes.
    apart: Option<Lease>,
    claims: BTreeMap<u64, Claim>,
}

impl Lock {
    fn is_scoped(&self) -> bool {
        self.claims.values().any(|claim| claim.scopes > 0)
    }

    fn begin(&mut self, lease: Lease, now: u64) {
        self.lease = lease;
        self.end = lease.timeout_ms().map(|ms| now + ms);
    }

    /// Drops empty claims and gives the lock the lease that the rest wants; whether it stays.
    fn settle(&mut self, now: u64) -> bool {
        self.claims.retain(|_, claim| *claim != Claim::default());
        if !self.claims.values().any(|claim| claim.is_plain) {
            self.apart = None;
        }
        let wanted = if self.is_scoped() { Some(Lease::Bound) } else { self.apart };
        match wanted {
            Some(lease) if lease != self.lease => self.begin(lease, now),
            Some(_) => {}
            None => return false,
        }
        true
    }
}

struct Bench {
    project: Project,
    clock: Arc<ManualClock>,
    desk: HandDesk,
    now: u64,
    lock: Option<Lock>,
}

impl Bench {
    fn new() -> Bench {
        let project = Project::new();
        let clock = Arc::new(ManualClock::default());
        let desk = HandDesk::new(&project, &clock);
        Bench { project, clock, desk, now: 0, lock: None }
    }

    fn ask(&mut self, client: u64, call: Call) -> Result<Reply, Error> {
        let answer = self.desk.batch(vec![(client, call)]).remove(0);
        self.desk.tend_if_due();
        answer
    }

    /// Lets go of the lock at hand, in a scope or not.
    fn give_up(&mut self, client: u64, scope: bool) {
        let token = self.lock.as_ref().map_or(0, |lock| lock.token);
        let grants = vec![(key(&self.project.file("a")), token)];
        let answer = self.ask(client, Call::LetGo { grants, scope, kinds: Vec::new() });
        assert_eq!(answer, Ok(Reply::LetGo(vec![true])), "it was held until now");
    }

    fn take(&mut self, client: u64, ask: Ask) -> Grant {
        match self.ask(client, Call::Acquire(ask)) {
            Ok(Reply::Locks(grants)) => only(grants),
            answer => unreachable!("{answer:?}"),
        }
    }

    fn perform(&mut self, client: u64, deed: Deed) {
        let path = self.project.file("a");
        let now = self.now;
        let claim = self.lock.as_ref().and_then(|lock| lock.claims.get(&client)).copied();
        let claim = claim.unwrap_or_default();
        match deed {
            Deed::Acquire(asked) => {
                let grant = self.take(client, set(&[&path], "A", asked));
                let lock = self.granted(&grant, asked);
                lock.claims.entry(client).or_default().is_plain = true;
                lock.apart.get_or_insert(asked);
            }
            Deed::Enter => {
                let ask = Ask { scope: true, ..set(&[&path], "A", Lease::Bound) };
                let grant = self.take(client, ask);
                let lock = self.granted(&grant, Lease::Bound);
                lock.claims.entry(client).or_default().scopes += 1;
            }
            Deed::Exit if claim.scopes > 0 => {
                self.give_up(client, true);
                if let Some(claim) = self.claim(client) {
                    claim.scopes -= 1;
                }
            }
            Deed::LetGo if claim.is_plain => {
                self.give_up(client, false);
                if let Some(claim) = self.claim(client) {
                    claim.is_plain = false;
                }
            }
            Deed::Exit | Deed::LetGo => {}
            Deed::Renew(lease) => {
                let call = Call::Renew { target: target(&path), story: story("A"), lease };
                let answer = self.ask(client, call);
                let Some(lock) = &mut self.lock else {
                    assert_eq!(code(&answer), "ENOTACQUIRED");
                    return;
                };
                assert!(matches!(answer, Ok(Reply::Locks(_))), "{answer:?}");
                let is_scoped = lock.is_scoped();
                lock.begin(if is_scoped { Lease::Bound } else { lease.unwrap_or(lock.lease) }, now);
                // What is asked for while a scope is open comes after it.
                lock.apart = lock.apart.map(|apart| lease.unwrap_or(apart));
            }
            Deed::Pass(ms) => {
                self.clock.advance(ms);
                self.now += ms;
                self.desk.tend_if_due();
                self.expire();
            }
            Deed::Close => {
                assert_eq!(self.ask(client, Call::Close), Ok(Reply::Closed));
                if let Some(lock) = &mut self.lock {
                    lock.claims.remove(&client);
                }
            }
        }
        let stays = self.lock.as_mut().is_some_and(|lock| lock.settle(now));
        if !stays {
            self.lock = None;
        }
    }

    fn claim(&mut self, client: u64) -> Option<&mut Claim> {
        self.lock.as_mut()?.claims.get_mut(&client)
    }

    fn granted(&mut self, grant: &Grant, asked: Lease) -> &mut Lock {
        assert_eq!(grant.is_fresh, self.lock.is_none(), "the story has one lock");
        let (now, token) = (self.now, grant.record.token);
        let lock = self.lock.get_or_insert_with(|| {
            let end = asked.timeout_ms().map(|ms| now + ms);
            Lock { token, lease: asked, end, apart: None, claims: BTreeMap::new() }
        });
        assert_eq!(token, lock.token);
        lock
    }

    /// A lease that ended is a loss to each client that claimed the lock, told once.
    fn expire(&mut self) {
        let now = self.now;
        let is_over = |lock: &mut Lock| lock.end.is_some_and(|end| end <= now);
        let Some(lock) = self.lock.take_if(is_over) else { return };
        for client in 0..CLIENTS {
            let lost = |message: &Message| match message {
                Message::Lost { token, .. } => *token == lock.token,
                _ => false,
            };
            let told = self.desk.events(client).iter().filter(|told| lost(told)).count();
            assert_eq!(told, usize::from(lock.claims.contains_key(&client)), "told to {client}");
        }
    }

    fn compare(&mut self) {
        for client in 0..CLIENTS {
            let told = self.desk.events(client);
            assert!(told.is_empty(), "nothing was lost to {client}: {told:?}");
        }
        let check = Call::Check { target: target(&self.project.file("a")) };
        let Ok(Reply::Holders(holder)) = self.desk.call(check) else { unreachable!("it is there") };
        let stands = holder
            .first()
            .map(|holder| (holder.record.token, holder.record.lease(), holder.remaining_ms));
        let now = self.now;
        let right =
            self.lock.as_ref().map(|lock| (lock.token, lock.lease, lock.end.map(|end| end - now)));
        assert_eq!(stands, right, "what stands on the disk is what the claims want");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_of_claims_leaves_the_lock_with_the_lease_that_they_want(
        history in prop::collection::vec((0..CLIENTS, deed()), 1..50)
    ) {
        let mut bench = Bench::new();
        for (client, deed) in history {
            bench.perform(client, deed);
            bench.compare();
        }
    }
}
