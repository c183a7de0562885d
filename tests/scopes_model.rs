//! Random histories of the clients of one engine that share a story's lock, against a plain model: who
//! claims it, and with which lease and in which kind it must therefore stand on the disk.
//!
//! The rules: bound while any scope is open; else the lease that it was asked for apart from scopes, begun
//! anew when the last scope ended; else gone. Its kind is the least that covers what its claims want.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use common::desk::HandDesk;
use common::{Project, code, key, kinds, only, story, target};
use storylock::store::Grant;
use storylock::{Ask, Call, Error, Kind, Lease, ManualClock, Message, Mode, Reply};

const CLIENTS: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Acquire(Lease, Kind),
    Enter(Kind),
    /// The scope of this number among those of the client.
    Exit(usize),
    LetGo,
    Lower(Kind),
    Renew(Option<Lease>),
    Pass(u64),
    Close,
}

fn lease() -> impl Strategy<Value = Lease> {
    prop_oneof![Just(Lease::Bound), (1..400u64).prop_map(Lease::Timed)]
}

fn kind() -> impl Strategy<Value = Kind> {
    let mode = prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)];
    (mode, any::<bool>()).prop_map(|(mode, recursive)| Kind { mode, recursive })
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (lease(), kind()).prop_map(|(lease, kind)| Deed::Acquire(lease, kind)),
        4 => kind().prop_map(Deed::Enter),
        4 => (0..8usize).prop_map(Deed::Exit),
        3 => Just(Deed::LetGo),
        2 => kind().prop_map(Deed::Lower),
        2 => prop::option::of(lease()).prop_map(Deed::Renew),
        3 => (1..300u64).prop_map(Deed::Pass),
        1 => Just(Deed::Close),
    ]
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Claim {
    scopes: Vec<Kind>,
    plain: Option<Kind>,
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
        self.claims.values().any(|claim| !claim.scopes.is_empty())
    }

    /// The least kind that covers what is claimed.
    fn kind(&self) -> Kind {
        let claims = self.claims.values().flat_map(|claim| claim.scopes.iter().chain(&claim.plain));
        claims.copied().reduce(Kind::joined).expect("somebody claims it")
    }

    fn begin(&mut self, lease: Lease, now: u64) {
        self.lease = lease;
        self.end = lease.timeout_ms().map(|ms| now + ms);
    }

    /// Drops empty claims and gives the lock the lease that the rest wants; whether it stays.
    fn settle(&mut self, now: u64) -> bool {
        self.claims.retain(|_, claim| *claim != Claim::default());
        if !self.claims.values().any(|claim| claim.plain.is_some()) {
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
    fn give_up(&mut self, client: u64, scope: Option<Kind>) {
        let token = self.lock.as_ref().map_or(0, |lock| lock.token);
        let grants = vec![(key(&self.project.file("a")), token)];
        let kinds = Vec::from_iter(scope);
        let answer = self.ask(client, Call::LetGo { grants, scope: scope.is_some(), kinds });
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
        let claim = self.lock.as_ref().and_then(|lock| lock.claims.get(&client)).cloned();
        let claim = claim.unwrap_or_default();
        match deed {
            Deed::Acquire(asked, kind) => {
                let grant = self.take(client, kinds(&[(path, kind)], "A", asked));
                let lock = self.granted(&grant, asked);
                let plain = &mut lock.claims.entry(client).or_default().plain;
                *plain = Some(plain.map_or(kind, |plain| plain.joined(kind)));
                lock.apart.get_or_insert(asked);
            }
            Deed::Enter(kind) => {
                let ask = Ask { scope: true, ..kinds(&[(path, kind)], "A", Lease::Bound) };
                let grant = self.take(client, ask);
                let lock = self.granted(&grant, Lease::Bound);
                lock.claims.entry(client).or_default().scopes.push(kind);
            }
            Deed::Exit(number) if !claim.scopes.is_empty() => {
                let number = number % claim.scopes.len();
                self.give_up(client, Some(claim.scopes[number]));
                if let Some(claim) = self.claim(client) {
                    claim.scopes.remove(number);
                }
            }
            Deed::LetGo if claim.plain.is_some() => {
                self.give_up(client, None);
                if let Some(claim) = self.claim(client) {
                    claim.plain = None;
                }
            }
            Deed::Lower(to) if claim.plain.is_some() => {
                let now = claim.plain.unwrap_or(to);
                let is_shared = [to.mode, now.mode].contains(&Mode::Shared);
                let mode = if is_shared { Mode::Shared } else { Mode::Exclusive };
                let kind = Kind { mode, recursive: to.recursive && now.recursive };
                let token = self.lock.as_ref().map_or(0, |lock| lock.token);
                let answer = self.ask(client, Call::Lower { key: key(&path), token, kind });
                assert!(matches!(answer, Ok(Reply::Locks(_))), "{answer:?}");
                if let Some(claim) = self.claim(client) {
                    claim.plain = Some(kind);
                }
            }
            Deed::Exit(_) | Deed::LetGo | Deed::Lower(_) => {}
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
        let stands = holder.first().map(|holder| {
            let record = &holder.record;
            (record.token, record.lease(), record.kind(), holder.remaining_ms)
        });
        let now = self.now;
        let right = self
            .lock
            .as_ref()
            .map(|lock| (lock.token, lock.lease, lock.kind(), lock.end.map(|end| end - now)));
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
    fn every_history_of_claims_leaves_the_lock_with_the_lease_and_in_the_kind_that_they_want(
        history in prop::collection::vec((0..CLIENTS, deed()), 1..50)
    ) {
        let mut bench = Bench::new();
        for (client, deed) in history {
            bench.perform(client, deed);
            bench.compare();
        }
    }
}
