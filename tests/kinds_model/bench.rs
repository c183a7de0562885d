//! Several processes on one project, and the model beside them: each deed is done by both, and what the
//! engine answers must be what the model says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storylock::key::Key;
use storylock::queue::WaiterId;
use storylock::store::{Acquire, Done, Force, Grant, Step, Store};
use storylock::{Error, Lease, ManualClock};

use crate::common::{self, Project, code, story};
use crate::deeds::{Deed, Kind, LINK, PATHS, PROCESSES, Request, SECRETS, STORIES, Turn, Want};
use crate::lines::{Process, located};
use crate::rules::{Model, Verdict, Waiting};

/// As many wait for one path at most.
const LIMIT: usize = 4;
const OLD_GRANTS: usize = 3;

pub(crate) struct Bench {
    pub project: Project,
    pub clock: Arc<ManualClock>,
    pub processes: Vec<Process>,
    /// Looks, and never changes anything.
    pub looker: Process,
    pub model: Model,
    pub keys: BTreeMap<Key, usize>,
    /// The highest token that was there when somebody looked last.
    pub(crate) highest: u64,
    /// Every grant that a process was told of.
    told: Vec<(usize, Grant)>,
    /// Every offer that was made.
    offers: Vec<(Vec<(Key, u64)>, String)>,
    /// Waiters whose processes have ended.
    pub dead: BTreeSet<WaiterId>,
    /// The records of the dead and of leases that ended, which hold nothing: path and story.
    pub stale: BTreeSet<(usize, usize)>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let project = Project::new();
        std::os::unix::fs::symlink(PATHS[0], project.file(LINK)).expect("a link");
        let clock = Arc::new(ManualClock::default());
        let processes = (0..PROCESSES).map(|_| Process::new(&project, &clock)).collect();
        let looker = Process::new(&project, &clock);
        let path = |number: usize| path_in(&project, number, false);
        let keys = (0..PATHS.len()).map(|number| (common::key(&path(number)), number)).collect();
        let model = Model::default();
        let (highest, told, offers) = (0, Vec::new(), Vec::new());
        let (dead, stale) = (BTreeSet::new(), BTreeSet::new());
        Bench { project, clock, processes, looker, model, keys, highest, told, offers, dead, stale }
    }

    fn path(&self, number: usize) -> String {
        path_in(&self.project, number, false)
    }

    /// One turn, and a look at everything after it.
    pub(crate) fn take_turn(&mut self, turn: &Turn) {
        self.perform(turn.process, &turn.deed);
        // Nobody is told of a death or the end of a lease: whoever waits looks.
        let is_silent = matches!(turn.deed, Deed::Kill | Deed::Pass { .. });
        let looks = if is_silent { [true; PROCESSES] } else { turn.looks };
        if !is_silent {
            self.compare(false);
        }
        if looks.contains(&true) {
            self.look(looks);
            self.compare(is_silent);
        }
        self.forget_old_grants();
    }

    /// Keeps a few of the grants that are over, for those who mistake them for theirs.
    fn forget_old_grants(&mut self) {
        let is_over = |one: &(usize, Grant)| self.meant(&one.1).1.is_none();
        let over = self.told.iter().filter(|one| is_over(one)).count();
        if let Some(first) = self.told.iter().position(is_over)
            && over > OLD_GRANTS
        {
            self.told.remove(first);
        }
    }

    fn look(&mut self, looks: [bool; PROCESSES]) {
        for process in (0..PROCESSES).filter(|process| looks[*process]) {
            self.processes[process].tend();
            self.collect(process);
        }
    }

    fn run(&mut self, process: usize, step: Step) -> Result<Done, Error> {
        self.processes[process].run(step)
    }

    fn perform(&mut self, process: usize, deed: &Deed) {
        match deed {
            Deed::Acquire(request) => self.acquire(process, request),
            Deed::Raise { pick, kind, waits } => {
                let Some((_, grant)) = self.picked(*pick) else { return };
                let (path, held) = self.meant(&grant);
                let Some(number) = STORIES.iter().position(|id| {
                    *id == held.map_or(grant.record.story_id.as_str(), |hold| STORIES[hold.story])
                }) else {
                    return;
                };
                let wants = vec![Want { path, kind: *kind, by_link: false }];
                let (lease, detached, waits) = (Lease::Bound, false, *waits);
                self.acquire(process, &Request { story: number, wants, lease, detached, waits });
            }
            Deed::Lower { pick, kind } => self.lower(*pick, *kind),
            Deed::Transfer { pick, to } => self.transfer(*pick, *to),
            Deed::Offer { picks, secret } => self.offer(picks, SECRETS[*secret]),
            Deed::Adopt { pick, is_wrong, lease } => self.adopt(process, *pick, *is_wrong, *lease),
            Deed::Force { path, story, is_dry } => self.force(process, *path, *story, *is_dry),
            Deed::Release { story, path } => self.release(process, *story, *path),
            Deed::Renew { story, path, lease } => self.renew(process, *story, *path, *lease),
            Deed::Extend { pick, lease, detached } => {
                self.extend(process, *pick, *lease, *detached);
            }
            Deed::LetGo { pick } => {
                if !self.told.is_empty() {
                    let (owner, grant) = self.told.swap_remove(pick % self.told.len());
                    self.let_go(owner, &grant);
                }
            }
            Deed::Leave { pick, keep } => self.leave_one(*pick, *keep),
            Deed::Cleanup { story: number } => {
                let step = Step::Cleanup { story: story(STORIES[*number]) };
                let answer = self.run(process, step);
                let stale = self.stale.iter().filter(|(_, theirs)| theirs == number).count();
                let count = self.model.free(|hold| hold.story == *number);
                assert_eq!(answer, Ok(Done::Cleaned(count + stale)));
                self.collect(process);
            }
            Deed::Pass { ms } => {
                self.clock.advance(*ms);
                self.model.pass(*ms);
            }
            Deed::Kill => {
                let anew = Process::new(&self.project, &self.clock);
                drop(std::mem::replace(&mut self.processes[process], anew));
                let ids = self.model.line.iter().filter(|one| one.process == process);
                self.dead.extend(ids.map(|one| one.id));
                self.model.end(process);
                self.told.retain(|(owner, _)| *owner != process);
            }
            Deed::Close => self.close(process),
        }
    }

    /// A grant that somebody was told of, current or not.
    fn picked(&self, pick: usize) -> Option<(usize, Grant)> {
        self.told.get(pick % self.told.len().max(1)).cloned()
    }

    /// Which path a grant is on, and the lock that it is, if it still is.
    fn meant(&self, grant: &Grant) -> (usize, Option<&crate::rules::Hold>) {
        let path = self.keys[&grant.key];
        let token = Some(grant.record.token);
        (path, self.model.held.iter().find(|hold| hold.path == path && hold.token == token))
    }

    fn place_of(&self, grant: &Grant) -> Option<usize> {
        let (path, token) = (self.keys[&grant.key], Some(grant.record.token));
        self.model.held.iter().position(|hold| hold.path == path && hold.token == token)
    }

    fn acquire(&mut self, process: usize, request: &Request) {
        let Request { story: number, wants, lease, detached, waits } = request;
        let path = |want: &Want| {
            (located(&path_in(&self.project, want.path, want.by_link)), want.kind.for_engine())
        };
        let step = Step::Acquire(Acquire {
            paths: wants.iter().map(path).collect(),
            story: story(STORIES[*number]),
            lease: *lease,
            detached: *detached,
            reason: None,
            queue: waits.then_some(LIMIT),
        });
        let answer = self.run(process, step);
        let wants = joined(wants);
        let right = self.model.acquire(*number, &wants, *waits, LIMIT);
        let verdict = self.verdict_of(&answer);
        assert_eq!(verdict, right, "{} asks for {wants:?}: {answer:?}", STORIES[*number]);
        let waiting = |id| {
            let (story, wants, lease) = (*number, wants.clone(), *lease);
            Waiting { id, story, process, wants, lease, detached: *detached }
        };
        match answer {
            Ok(Done::Granted(grants)) => {
                assert_eq!(grants.len(), wants.len(), "two spellings count once");
                for (want, grant) in wants.iter().zip(&grants) {
                    assert_eq!(self.keys[&grant.key], want.path);
                    let is_fresh = self.model.own(want.path, *number).is_none();
                    assert_eq!(grant.is_fresh, is_fresh, "a raised lock is the one that was there");
                }
                self.model.grant(&waiting(0), None);
                self.tell(process, grants);
                self.model.settle();
            }
            Ok(Done::Queued(id)) => {
                self.model.line.push(waiting(id));
                self.model.settle();
            }
            Err(error) if verdict == Verdict::Deadlock => {
                self.check_circle(*number, &wants, &error);
            }
            _ => {}
        }
        self.collect(process);
    }

    fn verdict_of(&self, answer: &Result<Done, Error>) -> Verdict {
        let error = match answer {
            Ok(Done::Granted(_)) => return Verdict::Granted,
            Ok(Done::Queued(_)) => return Verdict::Queued,
            Err(error) | Ok(Done::Left(error)) => error,
            _ => unreachable!("{answer:?}"),
        };
        match error.code.as_str() {
            "ELOCKED" if error.holders.is_empty() => Verdict::Kept,
            "ELOCKED" => {
                assert_eq!(error.holder.as_ref(), error.holders.first());
                let named = error.holders.iter().map(|holder| self.named(&holder.record));
                Verdict::Held(named.collect())
            }
            "EQUEUEFULL" => Verdict::Full,
            "EDEADLK" => Verdict::Deadlock,
            _ => unreachable!("{error}"),
        }
    }

    /// Each arm of a circle is so: a story, and whose lock is in its way.
    fn check_circle(&self, number: usize, wants: &[Want], error: &Error) {
        let circle = &error.circle;
        assert_eq!(circle[0].story, STORIES[number]);
        assert_eq!(circle[circle.len() - 1].holder, STORIES[number]);
        for (place, arm) in circle.iter().enumerate() {
            let story = common::only(
                (0..STORIES.len()).filter(|number| STORIES[*number] == arm.story).collect(),
            );
            let theirs = self.model.line.iter().filter(|one| one.story == story);
            let mut wanted: Vec<Want> = theirs.flat_map(|one| one.wants.clone()).collect();
            if place == 0 {
                wanted = wants.to_vec();
            }
            let holders = wanted.iter().flat_map(|want| self.model.in_the_way(story, want));
            let is_so = holders.into_iter().any(|hold| {
                STORIES[hold.story] == arm.holder && self.is_named(hold.path, &arm.path)
            });
            assert!(is_so, "{arm:?} is not so");
            assert_eq!(arm.holder, circle[(place + 1) % circle.len()].story, "{circle:?}");
        }
    }

    fn is_named(&self, number: usize, path: &std::path::Path) -> bool {
        [false, true]
            .iter()
            .any(|by_link| path == std::path::Path::new(&path_in(&self.project, number, *by_link)))
    }

    fn lower(&mut self, pick: usize, to: Kind) {
        let Some((owner, grant)) = self.picked(pick) else { return };
        let (key, token) = (grant.key, grant.record.token);
        let held = self.meant(&grant).1.map(|hold| (hold.path, hold.story, hold.kind));
        let now = held.map_or(to, |(_, _, kind)| kind);
        let kind =
            Kind { shared: to.shared || now.shared, recursive: to.recursive && now.recursive };
        let answer = self.run(owner, Step::Lower { key, token, kind: kind.for_engine() });
        match held {
            None => assert_eq!(code(&answer), "ECOMPROMISED"),
            Some((path, story, _)) => {
                let Ok(Done::Renewed(grant)) = answer else { unreachable!("{answer:?}") };
                let told = (grant.record.token, Kind::of(grant.record.kind()));
                assert_eq!(told, (token, kind), "the same lock, weaker");
                self.model.lower(path, story, kind);
            }
        }
        self.collect(owner);
    }

    fn transfer(&mut self, pick: usize, to: usize) {
        let Some((owner, grant)) = self.picked(pick) else { return };
        let (key, token) = (grant.key, grant.record.token);
        let answer = self.run(owner, Step::Transfer { key, token, story: story(STORIES[to]) });
        let Some(place) = self.place_of(&grant) else {
            assert_eq!(code(&answer), "ECOMPROMISED");
            return self.collect(owner);
        };
        let is_same = self.model.held[place].story == to;
        match self.model.transfer(place, to) {
            Some(refusal) => assert_eq!(code(&answer), refusal, "{answer:?}"),
            None => {
                let Ok(Done::Granted(grants)) = answer else { unreachable!("{answer:?}") };
                let grant = common::only(grants.clone());
                assert_eq!(grant.record.story_id.as_str(), STORIES[to]);
                assert_eq!(grant.record.token > token, !is_same, "whoever gave it is fenced");
                self.tell(owner, grants);
            }
        }
        self.collect(owner);
    }

    fn offer(&mut self, picks: &[usize], secret: &str) {
        let Some((owner, _)) = picks.first().and_then(|pick| self.picked(*pick)) else { return };
        let theirs: Vec<Grant> =
            self.told.iter().filter(|(of, _)| *of == owner).map(|(_, one)| one.clone()).collect();
        let mut grants: Vec<(Key, u64)> = Vec::new();
        let mut places = Vec::new();
        for pick in picks {
            let grant = &theirs[pick % theirs.len()];
            let one = (grant.key, grant.record.token);
            if !grants.contains(&one) {
                grants.push(one);
                places.push(self.place_of(grant));
            }
        }
        let digest = secret.to_owned();
        let answer =
            self.run(owner, Step::Offer { grants: grants.clone(), digest: digest.clone() });
        if places.iter().any(Option::is_none) {
            assert_eq!(code(&answer), "ECOMPROMISED");
        } else {
            assert_eq!(answer, Ok(Done::Offered));
            for place in places.into_iter().flatten() {
                self.model.held[place].offer = Some(digest.clone());
            }
            self.offers.push((grants, digest));
        }
        self.collect(owner);
    }

    fn adopt(&mut self, process: usize, pick: usize, is_wrong: bool, lease: Option<Lease>) {
        let count = self.offers.len().max(1);
        let Some((grants, digest)) = self.offers.get(pick % count).cloned() else { return };
        let digest = if is_wrong { format!("not {digest}") } else { digest };
        let is_offered = |(key, token): &(Key, u64)| {
            self.model.held.iter().position(|hold| {
                let is_it = (hold.path, hold.token) == (self.keys[key], Some(*token));
                is_it && hold.offer.as_ref() == Some(&digest)
            })
        };
        let places: Option<Vec<usize>> = grants.iter().map(is_offered).collect();
        let step = Step::Adopt { grants: grants.clone(), digest: digest.clone(), lease };
        let answer = self.run(process, step);
        match places {
            None => assert_eq!(code(&answer), "ENOTACQUIRED", "{answer:?}"),
            Some(_) => {
                let Ok(Done::Granted(taken)) = answer else { unreachable!("{answer:?}") };
                for ((key, token), grant) in grants.iter().zip(&taken) {
                    assert!(grant.key == *key && grant.record.token > *token && grant.is_fresh);
                    let path = self.keys[key];
                    let mut held = self.model.held.iter();
                    let place =
                        held.position(|hold| (hold.path, hold.token) == (path, Some(*token)));
                    self.model.adopt(place.expect("offered"), process, lease);
                }
                self.tell(process, taken);
            }
        }
        self.collect(process);
    }

    fn force(&mut self, process: usize, path: usize, whose: Option<usize>, is_dry: bool) {
        let step = Step::Force(Force {
            path: located(&self.path(path)),
            story: whose.map(|number| story(STORIES[number])),
            by: "operator".to_owned(),
            reason: "stuck".to_owned(),
            is_dry,
        });
        let answer = self.run(process, step);
        let is_theirs =
            |at: usize, story: usize| at == path && whose.is_none_or(|whose| whose == story);
        let held = self.model.held.iter().filter(|hold| is_theirs(hold.path, hold.story));
        let held: BTreeSet<usize> = held.map(|hold| hold.story).collect();
        let stale = self.stale.iter().filter(|(at, story)| is_theirs(*at, *story));
        let stale: BTreeSet<usize> = stale.map(|(_, story)| *story).collect();
        let is_part = self
            .model
            .held
            .iter()
            .any(|hold| hold.kind.recursive && crate::rules::is_below(path, hold.path));
        if held.is_empty() && stale.is_empty() && is_part {
            assert_eq!(code(&answer), "ENOTACQUIRED", "{answer:?}");
            return self.collect(process);
        }
        let Ok(Done::Forced(removed, next)) = answer else { unreachable!("{answer:?}") };
        let removed: BTreeSet<usize> =
            removed.iter().map(|holder| self.named(&holder.record).1).collect();
        assert_eq!(removed, held.union(&stale).copied().collect());
        let line = self.model.line.iter().filter(|one| one.wants.iter().any(|w| w.path == path));
        let line: Vec<WaiterId> = line.map(|one| one.id).collect();
        assert_eq!(next.iter().map(|one| one.waiter.id).collect::<Vec<_>>(), line, "who is next");
        if !is_dry {
            self.model.free(|hold| is_theirs(hold.path, hold.story));
        }
        self.collect(process);
    }

    fn release(&mut self, process: usize, number: usize, path: usize) {
        let path_name = self.path(path);
        let step = Step::Release { path: located(&path_name), story: story(STORIES[number]) };
        let answer = self.run(process, step);
        let is_theirs =
            self.model.own(path, number).is_some() || self.stale.contains(&(path, number));
        if !is_theirs && self.model.held.iter().any(|hold| hold.path == path) {
            assert_eq!(code(&answer), "ENOTACQUIRED");
        } else {
            assert_eq!(answer, Ok(Done::Released));
            if is_theirs {
                self.model.free(|hold| hold.path == path && hold.story == number);
            }
        }
        self.collect(process);
    }

    fn renew(&mut self, process: usize, number: usize, path: usize, lease: Option<Lease>) {
        let (at, story) = (located(&self.path(path)), story(STORIES[number]));
        let answer = self.run(process, Step::Renew { path: at, story, lease });
        let held = self.model.held.iter();
        match held.clone().position(|hold| hold.path == path && hold.story == number) {
            Some(place) => self.renewed(place, lease, &answer),
            None => assert_eq!(code(&answer), "ENOTACQUIRED", "{answer:?}"),
        }
        self.collect(process);
    }

    fn renewed(&mut self, place: usize, lease: Option<Lease>, answer: &Result<Done, Error>) {
        let hold = &self.model.held[place];
        let lease = lease.unwrap_or(hold.lease);
        if lease == Lease::Bound && hold.detached {
            assert_eq!(code(answer), "ERR_OUT_OF_RANGE", "nothing would ever end it");
            return;
        }
        assert!(matches!(answer, Ok(Done::Renewed(_))), "it is held: {answer:?}");
        let end = self.model.end_of(lease);
        let hold = &mut self.model.held[place];
        (hold.lease, hold.end) = (lease, end);
    }

    fn extend(
        &mut self,
        process: usize,
        pick: usize,
        lease: Option<Lease>,
        detached: Option<bool>,
    ) {
        let Some((_, grant)) = self.picked(pick) else { return };
        let (key, token) = (grant.key, grant.record.token);
        let answer = self.run(process, Step::Extend { key, token, lease, detached });
        match self.place_of(&grant) {
            None => assert_eq!(code(&answer), "ECOMPROMISED"),
            Some(place) => {
                let hold = &mut self.model.held[place];
                let before = (hold.detached, hold.process);
                match detached {
                    Some(false) if hold.detached => {
                        (hold.detached, hold.process) = (false, Some(process));
                    }
                    Some(true) if !hold.detached => (hold.detached, hold.process) = (true, None),
                    _ => {}
                }
                self.renewed(place, lease, &answer);
                if answer.is_err() {
                    let hold = &mut self.model.held[place];
                    (hold.detached, hold.process) = before;
                }
            }
        }
        self.collect(process);
    }

    fn let_go(&mut self, process: usize, grant: &Grant) {
        let (key, token) = (grant.key, grant.record.token);
        let answer = self.run(process, Step::LetGo(vec![(key, token)]));
        let Ok(Done::LetGo(gone)) = &answer else { unreachable!("{answer:?}") };
        match self.place_of(grant) {
            Some(place) => {
                assert_eq!(*gone, [true], "it was there");
                self.model.held.remove(place);
                self.model.settle();
            }
            None if self.stale.is_empty() => assert_eq!(*gone, [false], "it was gone"),
            None => {}
        }
        self.collect(process);
    }

    fn close(&mut self, process: usize) {
        let line = self.model.line.iter().chain(&self.model.served);
        let ids: Vec<WaiterId> =
            line.filter(|one| one.process == process).map(|one| one.id).collect();
        for id in ids {
            self.leave(process, id, false);
        }
        let told = std::mem::take(&mut self.told);
        let (mine, others): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(owner, _)| *owner == process);
        self.told = others;
        for (_, grant) in mine {
            self.let_go(process, &grant);
        }
    }

    fn leave_one(&mut self, pick: usize, keep: bool) {
        let all = self.model.line.iter().chain(&self.model.served);
        let all: Vec<(usize, WaiterId)> = all.map(|one| (one.process, one.id)).collect();
        if !all.is_empty() {
            let (process, id) = all[pick % all.len()];
            self.leave(process, id, keep);
        }
    }

    fn leave(&mut self, process: usize, id: WaiterId, keep: bool) {
        let answer = self.run(process, Step::Leave { waiter: id, keep });
        if let Some(place) = self.model.line.iter().position(|one| one.id == id) {
            let one = self.model.line[place].clone();
            let right = self.model.refusal(one.story, &one.wants, id).expect("it waited");
            assert_eq!(self.verdict_of(&answer), right, "{one:?} waited in vain: {answer:?}");
            self.model.line.remove(place);
            self.model.settle();
        } else if let Some(place) = self.model.served.iter().position(|one| one.id == id) {
            let one = self.model.served.remove(place);
            let has_all = one.wants.iter().all(|want| self.model.has(one.story, want));
            match answer {
                Ok(Done::Granted(grants)) => {
                    assert!(keep && has_all);
                    self.collected(&one);
                    self.tell(process, grants);
                }
                Ok(Done::Left(_)) => {
                    assert!(!(keep && has_all), "its turn had come");
                    if has_all {
                        self.model.give_back(id);
                    }
                }
                answer => unreachable!("{answer:?}"),
            }
        }
        self.collect(process);
    }

    /// What came for a process must be what the model has served it.
    fn collect(&mut self, process: usize) {
        let turns = std::mem::take(&mut self.processes[process].turns);
        let displaced = std::mem::take(&mut self.processes[process].displaced);
        let served = std::mem::take(&mut self.model.served);
        let (mine, others): (Vec<Waiting>, Vec<_>) =
            served.into_iter().partition(|one| one.process == process);
        self.model.served = others;
        for one in &mine {
            let has_all = one.wants.iter().all(|want| self.model.has(one.story, want));
            let Some(grants) = turns.get(&one.id) else {
                assert!(!has_all, "{one:?} was served, and not told");
                assert!(displaced.contains(&one.id), "{one:?} was not told that it lost its turn");
                continue;
            };
            assert!(has_all, "{one:?} was told of what it has not");
            for (want, grant) in one.wants.iter().zip(grants) {
                assert_eq!(self.keys[&grant.key], want.path);
                assert_eq!(grant.record.story_id.as_str(), STORIES[one.story]);
                assert!(Kind::of(grant.record.kind()).covers(want.kind));
                let own = self.model.own(want.path, one.story).expect("it has it");
                let is_fresh = own.waiter == Some(one.id) && own.from.is_none();
                assert_eq!(grant.is_fresh, is_fresh);
            }
            self.collected(one);
            self.tell(process, grants.clone());
        }
        let right: BTreeSet<WaiterId> = mine.iter().map(|one| one.id).collect();
        let told: BTreeSet<WaiterId> = turns.keys().copied().chain(displaced).collect();
        assert_eq!(told, right, "who was told is who was served");
    }

    /// A detached lock is its process's until that has learnt of its turn.
    fn collected(&mut self, one: &Waiting) {
        let is_wanted =
            |hold: &crate::rules::Hold| one.wants.iter().any(|want| want.path == hold.path);
        for hold in self.model.held.iter_mut().filter(|hold| hold.story == one.story) {
            if hold.detached && hold.process == Some(one.process) && is_wanted(hold) {
                hold.process = None;
            }
        }
    }

    /// A process learns that it has these now.
    fn tell(&mut self, process: usize, grants: Vec<Grant>) {
        for grant in grants {
            let token = Some(grant.record.token);
            let (path, id) = (self.keys[&grant.key], &grant.record.story_id);
            let is_it = |hold: &&mut crate::rules::Hold| {
                hold.path == path && STORIES[hold.story] == id.as_str()
            };
            if let Some(hold) = self.model.held.iter_mut().find(is_it)
                && hold.token.is_none()
            {
                hold.token = token;
            }
            self.told.push((process, grant));
        }
    }

    /// Everybody gives up what it has, again and again: then everybody is served.
    pub(crate) fn conclude(mut self) {
        for _ in 0..=STORIES.len() * 4 {
            if self.model.line.is_empty() {
                break;
            }
            for story in 0..STORIES.len() {
                let (process, deed) = (story % PROCESSES, Deed::Cleanup { story });
                self.take_turn(&Turn { process, deed, looks: [true; PROCESSES] });
            }
        }
        assert!(self.model.line.is_empty(), "a stall: {:?}", self.model.line);
        self.look([true; PROCESSES]);
        assert!(self.model.served.is_empty());
        for (number, id) in STORIES.iter().enumerate() {
            let step = Step::Cleanup { story: story(id) };
            self.run(number % PROCESSES, step).expect("cleaned");
        }
        assert_eq!(self.project.records(), [""; 0], "nothing is stuck");
        assert_eq!(common::names(&self.project.locks().join("queue")), [""; 0]);
        for process in &mut self.processes {
            process.tend();
            assert!(process.store.tend_in().is_none(), "nothing is left to be looked after");
        }
    }
}

pub(crate) fn path_in(project: &Project, number: usize, by_link: bool) -> String {
    match PATHS[number] {
        name if name.starts_with('@') => name.to_owned(),
        name if by_link => project.file(&name.replacen(PATHS[0], LINK, 1)),
        name => project.file(name),
    }
}

/// Two wants of one path are one, of what covers both.
fn joined(wants: &[Want]) -> Vec<Want> {
    let mut all: Vec<Want> = Vec::new();
    for want in wants {
        match all.iter_mut().find(|one| one.path == want.path) {
            Some(one) => one.kind = one.kind.joined(want.kind),
            None => all.push(Want { by_link: false, ..*want }),
        }
    }
    all
}
