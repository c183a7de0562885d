//! Random histories of several engines on one project, against a plain model of who holds what.
//!
//! After every deed the answer, what `status` reads from the disk and what `locks.json` shows must agree
//! with the model; in the end every loss must have been told exactly once. Engines crash without a word
//! (their kernel locks go with their files) and leave properly; time is a clock turned by hand.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;

use common::desk::HandDesk;
use common::{LONG, Project, code, set, story, target};
use storylock::key::Key;
use storylock::{Ask, Call, Error, Lease, ManualClock, Message, Reply};

const ENGINES: usize = 3;
const PATHS: usize = 5;
const STORIES: [&str; 3] = ["A", "B", "C"];

#[derive(Clone, Debug)]
enum Deed {
    Acquire { paths: Vec<usize>, lease: Lease, detached: bool },
    Release { path: usize },
    Renew { path: usize, lease: Option<Lease> },
    LetGo { pick: usize },
    Extend { pick: usize, lease: Option<Lease> },
    Verify { pick: usize },
    Check { path: usize },
    Cleanup,
    Tend,
    Pass { ms: u64 },
    Crash,
    Leave,
}

fn lease() -> impl Strategy<Value = Lease> {
    prop_oneof![Just(Lease::Bound), (1..400u64).prop_map(Lease::Timed)]
}

fn deed() -> impl Strategy<Value = Deed> {
    let path = || 0..PATHS;
    let pick = || 0..64usize;
    let new_lease = || prop::option::of(lease());
    prop_oneof![
        8 => (prop::collection::vec(path(), 1..4), lease(), any::<bool>()).prop_map(
            |(paths, lease, detached)| {
                let detached = detached && lease != Lease::Bound;
                Deed::Acquire { paths, lease, detached }
            }
        ),
        3 => path().prop_map(|path| Deed::Release { path }),
        2 => (path(), new_lease()).prop_map(|(path, lease)| Deed::Renew { path, lease }),
        3 => pick().prop_map(|pick| Deed::LetGo { pick }),
        2 => (pick(), new_lease()).prop_map(|(pick, lease)| Deed::Extend { pick, lease }),
        2 => pick().prop_map(|pick| Deed::Verify { pick }),
        1 => path().prop_map(|path| Deed::Check { path }),
        1 => Just(Deed::Cleanup),
        1 => Just(Deed::Tend),
        3 => (1..300u64).prop_map(|ms| Deed::Pass { ms }),
        1 => Just(Deed::Crash),
        1 => Just(Deed::Leave),
    ]
}

/// A record as the model has it.
#[derive(Clone, Debug)]
struct Held {
    story: &'static str,
    token: u64,
    lease: Lease,
    end: Option<u64>,
    /// Which engine's life stands behind it; none behind a detached one.
    engine: Option<usize>,
    /// Which engines were granted it and have not given it up.
    known_to: BTreeSet<usize>,
}

impl Held {
    fn lock_id(&self) -> String {
        format!("{}-{}", self.story, self.token)
    }
}

/// The whole truth, in memory.
#[derive(Default)]
struct Model {
    now: u64,
    highest: u64,
    live: BTreeMap<usize, Held>,
    /// Records that hold nothing any more, and may still be there.
    over: BTreeMap<usize, Held>,
    /// Every grant ever made: where, and its token.
    granted: Vec<(usize, u64)>,
    /// The losses that each engine must have been told of by the end.
    owed: BTreeSet<(usize, u64)>,
}

impl Model {
    fn held_by(&self, path: usize, token: u64) -> Option<&Held> {
        self.live.get(&path).filter(|held| held.token == token)
    }

    /// A record is removed or replaced: all that know it must be told.
    fn gone(&mut self, held: Option<Held>) {
        if let Some(held) = held {
            self.owed.extend(held.known_to.iter().map(|engine| (*engine, held.token)));
        }
    }

    fn remove(&mut self, path: usize) {
        let (live, over) = (self.live.remove(&path), self.over.remove(&path));
        self.gone(live);
        self.gone(over);
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let now = self.now;
        let is_over = |held: &Held| held.end.is_some_and(|end| end <= now);
        let ended: Vec<usize> =
            self.live.iter().filter(|(_, held)| is_over(held)).map(|(path, _)| *path).collect();
        for path in ended {
            if let Some(held) = self.live.remove(&path) {
                self.over.insert(path, held);
            }
        }
        // The end of a lease is told though the record may stay a while.
        let mut told = Vec::new();
        for held in self.over.values_mut().filter(|held| held.end.is_some_and(|end| end <= now)) {
            told.extend(held.known_to.iter().map(|engine| (*engine, held.token)));
            held.known_to.clear();
        }
        self.owed.extend(told);
    }

    /// An engine ends: it is owed nothing any more.
    fn forget(&mut self, engine: usize) {
        for held in self.live.values_mut().chain(self.over.values_mut()) {
            held.known_to.remove(&engine);
        }
        self.owed.retain(|(owed, _)| *owed != engine);
    }

    fn end_of(&self, lease: Lease) -> Option<u64> {
        lease.timeout_ms().map(|ms| self.now + ms)
    }
}

/// The engines and the model side by side.
struct Bench {
    project: Project,
    clock: Arc<ManualClock>,
    desks: Vec<HandDesk>,
    /// Looks, and never changes anything.
    looker: HandDesk,
    told: BTreeMap<(usize, u64), u32>,
    model: Model,
}

type Answer = Result<Reply, Error>;

impl Bench {
    fn new() -> Bench {
        let project = Project::new();
        let clock = Arc::new(ManualClock::default());
        let desks = (0..ENGINES).map(|_| HandDesk::new(&project, &clock)).collect();
        let looker = HandDesk::new(&project, &clock);
        let (told, model) = (BTreeMap::new(), Model::default());
        Bench { project, clock, desks, looker, told, model }
    }

    fn path(&self, number: usize) -> String {
        self.project.file(&format!("path-{number}"))
    }

    fn key(&self, number: usize) -> Key {
        common::key(&self.path(number))
    }

    /// The grant that a pick among all grants ever made means.
    fn picked(&self, pick: usize) -> Option<(usize, u64, Key)> {
        let count = self.model.granted.len();
        let (path, token) = *self.model.granted.get(pick % count.max(1))?;
        Some((path, token, self.key(path)))
    }

    fn ask(&mut self, engine: usize, call: Call) -> Answer {
        let answer = self.desks[engine].call(call);
        self.collect(engine);
        self.desks[engine].tend_if_due();
        self.collect(engine);
        answer
    }

    fn collect(&mut self, engine: usize) {
        for event in self.desks[engine].events(0) {
            match event {
                Message::Lost { token, .. } | Message::GivenUp { token, .. } => {
                    *self.told.entry((engine, token)).or_default() += 1;
                }
                Message::Answer(..) => unreachable!("answers are taken by those who asked"),
            }
        }
    }

    fn perform(&mut self, engine: usize, story_id: &'static str, deed: &Deed) {
        match deed {
            Deed::Acquire { paths, lease, detached } => {
                self.acquire(engine, story_id, paths, *lease, *detached);
            }
            Deed::Release { path } => self.release(engine, story_id, *path),
            Deed::Renew { path, lease } => self.renew(engine, story_id, *path, *lease),
            Deed::LetGo { pick } => self.let_go(engine, *pick),
            Deed::Extend { pick, lease } => self.extend(engine, *pick, *lease),
            Deed::Verify { pick } => self.verify(engine, *pick),
            Deed::Check { path } => {
                let answer = self.ask(engine, Call::Check { target: target(&self.path(*path)) });
                let Ok(Reply::Holders(holder)) = answer else { unreachable!("{answer:?}") };
                let token = holder.first().map(|holder| holder.record.token);
                assert_eq!(token, self.model.live.get(path).map(|held| held.token));
            }
            Deed::Cleanup => self.cleanup(engine, story_id),
            Deed::Tend => {
                self.desks[engine].tend();
                self.collect(engine);
            }
            Deed::Pass { ms } => {
                self.clock.advance(*ms);
                self.model.pass(*ms);
                for engine in 0..ENGINES {
                    self.desks[engine].tend_if_due();
                    self.collect(engine);
                }
            }
            Deed::Crash | Deed::Leave => self.end(engine, matches!(deed, Deed::Leave)),
        }
    }

    fn acquire(
        &mut self,
        engine: usize,
        story_id: &'static str,
        paths: &[usize],
        lease: Lease,
        detached: bool,
    ) {
        let names: Vec<String> = paths.iter().map(|path| self.path(*path)).collect();
        let ask = Ask { detached, ..set(&names, story_id, lease) };
        let answer = self.ask(engine, Call::Acquire(ask));
        let blocked = paths.iter().find_map(|path| {
            let held = self.model.live.get(path)?;
            (held.story != story_id).then_some((*path, held.token))
        });
        if let Some((path, token)) = blocked {
            let Err(error) = answer else { unreachable!("{path} is held: {answer:?}") };
            assert_eq!(error.code.as_str(), "ELOCKED", "{error}");
            assert_eq!(error.path.as_deref(), Some(std::path::Path::new(&self.path(path))));
            assert_eq!(error.holder.as_ref().expect("a holder").record.token, token);
            return;
        }
        let Ok(Reply::Locks(grants)) = answer else { unreachable!("all are free: {answer:?}") };
        let mut wanted: Vec<usize> = Vec::new();
        paths.iter().for_each(|path| {
            if !wanted.contains(path) {
                wanted.push(*path);
            }
        });
        assert_eq!(grants.len(), wanted.len());
        for (path, grant) in wanted.into_iter().zip(grants) {
            let token = grant.record.token;
            assert_eq!(grant.record.story_id.as_str(), story_id);
            assert_eq!(grant.key, self.key(path));
            if let Some(held) = self.model.live.get_mut(&path) {
                assert_eq!((grant.is_fresh, token), (false, held.token), "its story has it");
                if !detached {
                    held.known_to.insert(engine);
                }
                continue;
            }
            assert!(grant.is_fresh && token > self.model.highest, "tokens rise");
            if let Some(reclaimed) = &grant.record.reclaimed {
                let over = self.model.over.get(&path).expect("a predecessor");
                assert_eq!(reclaimed.lock_id, over.lock_id(), "whose it was");
            }
            self.model.remove(path);
            self.model.highest = token;
            self.model.granted.push((path, token));
            let held = Held {
                story: story_id,
                token,
                lease,
                end: self.model.end_of(lease),
                engine: (!detached).then_some(engine),
                known_to: if detached { BTreeSet::new() } else { BTreeSet::from([engine]) },
            };
            self.model.live.insert(path, held);
        }
    }

    fn release(&mut self, engine: usize, story_id: &'static str, path: usize) {
        let call = Call::Release { target: target(&self.path(path)), story: story(story_id) };
        let answer = self.ask(engine, call);
        match self.model.live.get(&path) {
            Some(held) if held.story != story_id => assert_eq!(code(&answer), "ENOTACQUIRED"),
            held => {
                assert_eq!(answer, Ok(Reply::Released));
                let is_theirs = |held: &Held| held.story == story_id;
                if held.is_some() || self.model.over.get(&path).is_some_and(is_theirs) {
                    self.model.remove(path);
                }
            }
        }
    }

    fn renew(&mut self, engine: usize, story_id: &str, path: usize, lease: Option<Lease>) {
        let (target, story) = (target(&self.path(path)), story(story_id));
        let answer = self.ask(engine, Call::Renew { target, story, lease });
        match self.model.live.get(&path) {
            Some(held) if held.story == story_id => self.renewed(path, lease, &answer),
            _ => assert_eq!(code(&answer), "ENOTACQUIRED"),
        }
    }

    fn extend(&mut self, engine: usize, pick: usize, lease: Option<Lease>) {
        let Some((path, token, key)) = self.picked(pick) else { return };
        let answer = self.ask(engine, Call::Extend { key, token, lease });
        match self.model.held_by(path, token) {
            Some(_) => self.renewed(path, lease, &answer),
            None => assert_eq!(code(&answer), "ECOMPROMISED"),
        }
    }

    fn renewed(&mut self, path: usize, lease: Option<Lease>, answer: &Answer) {
        let held = &self.model.live[&path];
        let lease = lease.unwrap_or(held.lease);
        if lease == Lease::Bound && held.engine.is_none() {
            assert_eq!(code(answer), "ERR_OUT_OF_RANGE", "nothing would ever end it");
            return;
        }
        let Ok(Reply::Locks(grants)) = answer else { unreachable!("it is held: {answer:?}") };
        assert_eq!((grants[0].record.token, grants[0].record.lease()), (held.token, lease));
        let end = self.model.end_of(lease);
        if let Some(held) = self.model.live.get_mut(&path) {
            (held.lease, held.end) = (lease, end);
        }
    }

    fn let_go(&mut self, engine: usize, pick: usize) {
        let Some((path, token, key)) = self.picked(pick) else { return };
        let answer = self.ask(
            engine,
            Call::LetGo { grants: vec![(key, token)], scope: false, kinds: Vec::new() },
        );
        let is_held = self.model.held_by(path, token).is_some();
        if let Some(held) = self.model.live.get_mut(&path).filter(|held| held.token == token) {
            // Who gives a lock up needs not be told.
            held.known_to.remove(&engine);
            self.model.remove(path);
        }
        let Ok(Reply::LetGo(gone)) = &answer else { unreachable!("{answer:?}") };
        match self.model.over.get(&path).filter(|held| held.token == token) {
            Some(held) => {
                let is_ended = held.end.is_some_and(|end| end <= self.model.now);
                assert!(!(is_ended && gone[0]), "a lease that ended is over");
                self.model.remove(path);
            }
            None => assert_eq!(*gone, [is_held]),
        }
    }

    fn verify(&mut self, engine: usize, pick: usize) {
        let Some((path, token, key)) = self.picked(pick) else { return };
        let held = self.model.held_by(path, token).map(|held| held.known_to.contains(&engine));
        let answer = self.ask(engine, Call::Verify { key, token });
        let Ok(Reply::Verified(is_current)) = answer else { unreachable!("{answer:?}") };
        match held {
            Some(true) => assert!(is_current, "{path} is held"),
            // Who was never granted it may not know the ground yet.
            Some(false) => {}
            None => assert!(!is_current, "{path} is not held by this grant"),
        }
    }

    fn cleanup(&mut self, engine: usize, story_id: &'static str) {
        let answer = self.ask(engine, Call::Cleanup { story: story(story_id) });
        let Ok(Reply::Cleaned(count)) = answer else { unreachable!("{answer:?}") };
        let theirs = |held: &BTreeMap<usize, Held>| -> Vec<usize> {
            held.iter().filter(|(_, held)| held.story == story_id).map(|(path, _)| *path).collect()
        };
        let (live, over) = (theirs(&self.model.live), theirs(&self.model.over));
        let right = live.len()..=live.len() + over.len();
        assert!(right.contains(&count), "{count} were removed, and {right:?} were there");
        live.into_iter().chain(over).for_each(|path| self.model.remove(path));
    }

    fn end(&mut self, engine: usize, is_proper: bool) {
        let desk = HandDesk::new(&self.project, &self.clock);
        let old = std::mem::replace(&mut self.desks[engine], desk);
        if is_proper {
            old.leave();
        } else {
            drop(old);
        }
        self.model.forget(engine);
        self.told.retain(|(told, _), _| *told != engine);
        let is_its = |held: &Held| held.engine == Some(engine);
        let ended: Vec<usize> = self
            .model
            .live
            .iter()
            .filter(|(_, held)| is_its(held))
            .map(|(path, _)| *path)
            .collect();
        for path in ended {
            if is_proper {
                self.model.remove(path);
            } else if let Some(mut held) = self.model.live.remove(&path) {
                let joined = std::mem::take(&mut held.known_to).into_iter();
                self.model.owed.extend(joined.map(|engine| (engine, held.token)));
                self.model.over.insert(path, held);
            }
        }
        // Within a second those who shared its locks look, and learn that it died.
        for engine in 0..ENGINES {
            self.desks[engine].tend();
            self.collect(engine);
        }
    }

    /// What is on the disk, and what is shown of it, is what the model says.
    fn compare(&mut self) {
        let Ok(Reply::Status(status)) = self.looker.call(Call::Status) else {
            unreachable!("status never fails")
        };
        assert!(status.unreadable.is_empty() && status.error.is_none(), "{status:?}");
        let numbers: HashMap<String, usize> =
            (0..PATHS).map(|number| (self.path(number), number)).collect();
        let (stale, live): (Vec<_>, Vec<_>) = status.locks.iter().partition(|lock| lock.is_stale);
        let live: BTreeMap<usize, u64> = live
            .iter()
            .map(|lock| &lock.holder.record)
            .map(|record| (numbers[&record.path_text()], record.token))
            .collect();
        let right: BTreeMap<usize, u64> =
            self.model.live.iter().map(|(path, held)| (*path, held.token)).collect();
        assert_eq!(live, right, "what status reads is what is held");
        for lock in stale {
            let record = &lock.holder.record;
            let over = self.model.over.get(&numbers[&record.path_text()]);
            assert_eq!(over.map(|held| held.token), Some(record.token), "what ended is told stale");
        }
        let shown = self.shown();
        for (path, token) in &right {
            assert!(shown.contains(&(self.path(*path), *token)), "{path} is held, and not shown");
        }
        for (path, token) in &shown {
            let number = numbers[path];
            let over = self.model.over.get(&number).map(|held| held.token);
            let is_known = right.get(&number) == Some(token) || over == Some(*token);
            assert!(is_known, "{number} is shown, and not held");
        }
    }

    fn shown(&self) -> BTreeSet<(String, u64)> {
        if !self.project.root().join(".ai/progress/locks.json").exists() {
            return BTreeSet::new();
        }
        let view = self.project.view();
        let locks = view["activeLocks"].as_array().expect("a list").iter();
        locks
            .map(|lock| {
                let path = lock["path"].as_str().expect("a path").to_owned();
                (path, lock["token"].as_u64().expect("a token"))
            })
            .collect()
    }

    /// The end of a history: everything that is owed was told once, and a newcomer sees it all.
    fn conclude(mut self) {
        for engine in 0..ENGINES {
            self.ask(engine, Call::Cleanup { story: story("nobody") }).expect("cleaned");
            self.desks[engine].tend();
            self.collect(engine);
        }
        let told: BTreeSet<(usize, u64)> = self.told.keys().copied().collect();
        assert_eq!(told, self.model.owed, "who lost a lock was told, and nobody else");
        assert!(self.told.values().all(|count| *count == 1), "once: {:?}", self.told);

        let mut newcomer = HandDesk::new(&self.project, &self.clock);
        let own = self.project.file("own");
        let ask = set(&[&own], "N", LONG);
        newcomer.call(Call::Acquire(ask)).expect("a free path");
        let mut right: BTreeSet<String> =
            self.model.live.keys().map(|path| self.path(*path)).collect();
        right.insert(own);
        let shown: BTreeSet<String> = self.shown().into_iter().map(|(path, _)| path).collect();
        assert_eq!(shown, right, "the view is exactly what is held");
        for story_id in STORIES.iter().chain(&["N"]) {
            newcomer.call(Call::Cleanup { story: story(story_id) }).expect("cleaned");
        }
        assert_eq!(self.project.records().len(), 0, "nothing is stuck");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_of_several_engines_is_one_that_the_model_allows(
        history in prop::collection::vec((0..ENGINES, 0..STORIES.len(), deed()), 1..50)
    ) {
        let mut bench = Bench::new();
        for (engine, story, deed) in history {
            bench.perform(engine, STORIES[story], &deed);
            bench.compare();
        }
        bench.conclude();
    }
}

/// How many changes the guard remembers.
const RING: usize = 2046;

/// One engine looks away while another makes this many changes, and then knows everything all the same.
fn look_away(changes: usize) {
    let project = Project::new();
    let clock = Arc::new(ManualClock::default());
    let (mut away, mut busy) = (HandDesk::new(&project, &clock), HandDesk::new(&project, &clock));
    let paths: Vec<String> = (0..100).map(|number| project.file(&format!("p{number}"))).collect();
    away.call(Call::Acquire(set(&paths[..50], "A", LONG))).expect("free");
    busy.call(Call::Cleanup { story: story("nobody") }).expect("looked");
    // The first changes are the ones that a ring too short would forget.
    let mut left = changes;
    busy.call(Call::Cleanup { story: story("A") }).expect("cleaned");
    left -= 50;
    busy.call(Call::Acquire(set(&paths[50..60], "B", LONG))).expect("free");
    left -= 10;
    while left > 0 {
        let count = left.div_ceil(2).min(40);
        busy.call(Call::Acquire(set(&paths[60..60 + count], "C", LONG))).expect("free");
        left -= count;
        let grants = paths[60..60 + count.min(left)].iter();
        for path in grants.clone() {
            busy.call(Call::Release { target: target(path), story: story("C") }).expect("its own");
        }
        left -= grants.len();
    }
    busy.call(Call::Cleanup { story: story("nobody") }).expect("cleaned");

    away.call(Call::Cleanup { story: story("nobody") }).expect("looked");
    let lost = away.events(0).len();
    assert_eq!(lost, 50, "{changes} changes: every loss is noticed");
    let cleaned = away.call(Call::Cleanup { story: story("B") });
    assert_eq!(cleaned, Ok(Reply::Cleaned(10)), "{changes} changes: every grant is known");
}

#[test]
fn who_looks_away_for_as_long_as_the_ring_or_longer_misses_nothing() {
    for changes in [RING - 1, RING, RING + 1, 2 * RING, 2 * RING + 1] {
        look_away(changes);
    }
}
