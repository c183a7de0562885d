//! Random histories of waiting, against a plain model of the rules that `turns` states.
//!
//! After every deed the answer, the queues, the holders, the order of the grants and the view must be what
//! the model says; in the end, when everybody gives up what it has, everybody must have been served.
//! Processes are stores on one project; one is killed by dropping it without a word. Time is turned by
//! hand.

mod common;
#[path = "common/lines.rs"]
mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use common::{Project, story};
use lines::{Process, located};
use storylock::queue::WaiterId;
use storylock::store::{Acquire, Done, Grant, Step};
use storylock::{Error, Lease, ManualClock};

const PROCESSES: usize = 3;
const PATHS: usize = 4;
const STORIES: [&str; 4] = ["A", "B", "C", "D"];
const LIMIT: usize = 4;

#[derive(Clone, Debug)]
enum Deed {
    Acquire { story: usize, paths: Vec<usize>, lease: Lease, waits: bool },
    Release { story: usize, path: usize },
    LetGo { pick: usize },
    Leave { pick: usize, keep: bool },
    Cleanup { story: usize },
    Pass { ms: u64 },
    Kill,
    Close,
}

/// A deed, by whom, and who looks after it: what comes for the others stays uncollected.
#[derive(Clone, Debug)]
struct Turn {
    process: usize,
    deed: Deed,
    looks: [bool; PROCESSES],
}

fn deed() -> impl Strategy<Value = Deed> {
    let story = || 0..STORIES.len();
    let lease = prop_oneof![3 => Just(Lease::Bound), 1 => (1..400u64).prop_map(Lease::Timed)];
    let paths = prop_oneof![
        3 => prop::collection::vec(0..PATHS, 1),
        2 => prop::sample::subsequence((0..PATHS).collect::<Vec<_>>(), 2..=3).prop_shuffle(),
    ];
    prop_oneof![
        10 => (story(), paths, lease, prop::bool::weighted(0.75))
            .prop_map(|(story, paths, lease, waits)| Deed::Acquire { story, paths, lease, waits }),
        5 => (story(), 0..PATHS).prop_map(|(story, path)| Deed::Release { story, path }),
        2 => (0..64usize).prop_map(|pick| Deed::LetGo { pick }),
        3 => (0..64usize, any::<bool>()).prop_map(|(pick, keep)| Deed::Leave { pick, keep }),
        2 => story().prop_map(|story| Deed::Cleanup { story }),
        1 => (1..300u64).prop_map(|ms| Deed::Pass { ms }),
        1 => Just(Deed::Kill),
        1 => Just(Deed::Close),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    (0..PROCESSES, deed(), any::<[bool; PROCESSES]>()).prop_map(|(process, deed, looks)| Turn {
        process,
        deed,
        looks,
    })
}

#[derive(Clone, Debug)]
struct Held {
    story: usize,
    process: usize,
    end: Option<u64>,
    /// The waiter that it was granted to.
    waiter: Option<WaiterId>,
    /// Its place in the order of all grants.
    number: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    id: WaiterId,
    story: usize,
    process: usize,
    paths: Vec<usize>,
    lease: Lease,
}

/// The rules, in memory.
#[derive(Default)]
struct Model {
    now: u64,
    held: BTreeMap<usize, Held>,
    /// In order of arrival.
    line: Vec<Waiting>,
    /// Served, and not yet told.
    served: Vec<Waiting>,
    grants: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    Queued,
    Locked,
    Full,
    Deadlock,
}

impl Model {
    /// Whom a story waits for, as it stands now.
    fn waits_for(&self, story: usize, and_queued: bool) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        for (place, waiting) in self.line.iter().enumerate() {
            for path in waiting.paths.iter().filter(|_| waiting.story == story) {
                all.extend(self.held.get(path).map(|held| held.story));
                if and_queued {
                    let ahead = self.line[..place].iter().filter(|one| one.paths.contains(path));
                    all.extend(ahead.map(|one| one.story));
                }
            }
        }
        all.remove(&story);
        all
    }

    fn reaches(&self, from: usize, to: usize, and_queued: bool) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(at) = next.pop() {
            for story in self.waits_for(at, and_queued) {
                if story == to {
                    return true;
                }
                if seen.insert(story) {
                    next.push(story);
                }
            }
        }
        false
    }

    /// Whether nothing keeps a story from its paths that arrived at this place in line.
    fn is_open(&self, story: usize, paths: &[usize], place: usize, id: Option<WaiterId>) -> bool {
        let is_theirs = |path: &usize| self.held.get(path).is_some_and(|held| held.story == story);
        if paths.iter().any(|path| self.held.contains_key(path) && !is_theirs(path)) {
            return false;
        }
        let wanted = || paths.iter().filter(|path| !is_theirs(path));
        let is_kept = |path: &usize| {
            self.line[..place].iter().any(|one| {
                one.story != story
                    && one.paths.contains(path)
                    && !self.reaches(one.story, story, true)
            })
        };
        if wanted().any(is_kept) {
            return false;
        }
        let waits_elsewhere = self.line.iter().any(|one| one.story == story && Some(one.id) != id);
        let closes_a_circle = |path: &usize| {
            self.line.iter().any(|one| {
                one.story != story
                    && one.paths.contains(path)
                    && self.reaches(story, one.story, false)
            })
        };
        !(waits_elsewhere && wanted().any(closes_a_circle))
    }

    fn grant(
        &mut self,
        story: usize,
        process: usize,
        paths: &[usize],
        lease: Lease,
        waiter: Option<WaiterId>,
    ) {
        for path in paths {
            if !self.held.contains_key(path) {
                self.grants += 1;
                let end = lease.timeout_ms().map(|ms| self.now + ms);
                let number = self.grants;
                self.held.insert(*path, Held { story, process, end, waiter, number });
            }
        }
    }

    /// Lets in whoever can go on, the first who came first.
    fn settle(&mut self) {
        let open = |model: &Model| {
            (0..model.line.len()).find(|place| {
                let one = &model.line[*place];
                model.is_open(one.story, &one.paths, *place, Some(one.id))
            })
        };
        while let Some(place) = open(self) {
            let one = self.line.remove(place);
            self.grant(one.story, one.process, &one.paths, one.lease, Some(one.id));
            self.served.push(one);
        }
    }

    /// What becomes of a request; the caller lines it up if it is to wait.
    fn acquire(&self, story: usize, paths: &[usize], waits: bool) -> Verdict {
        if self.is_open(story, paths, self.line.len(), None) {
            return Verdict::Granted;
        }
        if !waits {
            return Verdict::Locked;
        }
        let length = |path: &usize| self.line.iter().filter(|one| one.paths.contains(path)).count();
        if paths.iter().any(|path| length(path) >= LIMIT) {
            return Verdict::Full;
        }
        let holders = paths.iter().filter_map(|path| self.held.get(path)).map(|held| held.story);
        let mut others = holders.filter(|holder| *holder != story);
        if others.any(|holder| self.reaches(holder, story, false)) {
            return Verdict::Deadlock;
        }
        Verdict::Queued
    }

    fn free(&mut self, is_freed: impl Fn(&usize, &Held) -> bool) -> usize {
        let before = self.held.len();
        self.held.retain(|path, held| !is_freed(path, held));
        let freed = before - self.held.len();
        self.settle();
        freed
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        let now = self.now;
        self.free(|_, held| held.end.is_some_and(|end| end <= now));
    }

    fn end(&mut self, process: usize) {
        self.line.retain(|one| one.process != process);
        self.served.retain(|one| one.process != process);
        self.free(|_, held| held.process == process);
    }
}

struct Bench {
    project: Project,
    clock: Arc<ManualClock>,
    processes: Vec<Process>,
    looker: Process,
    model: Model,
    /// Every grant that a process was told of, with its paths.
    told: Vec<(usize, Grant)>,
    /// The token of each grant, as far as it was told, by its place in the order of all.
    tokens: BTreeMap<u64, u64>,
    dead: BTreeSet<u64>,
}

impl Bench {
    fn new() -> Bench {
        let project = Project::new();
        let clock = Arc::new(ManualClock::default());
        let processes = (0..PROCESSES).map(|_| Process::new(&project, &clock)).collect();
        let looker = Process::new(&project, &clock);
        let model = Model::default();
        let (told, tokens, dead) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Bench { project, clock, processes, looker, model, told, tokens, dead }
    }

    fn path(&self, number: usize) -> String {
        self.project.file(&format!("path-{number}"))
    }

    /// What came for a process must be what the model has served it.
    fn collect(&mut self, process: usize) {
        let turns = std::mem::take(&mut self.processes[process].turns);
        let displaced = std::mem::take(&mut self.processes[process].displaced);
        let served = std::mem::take(&mut self.model.served);
        let (mine, others) = served.into_iter().partition(|one| one.process == process);
        self.model.served = others;
        let mine: Vec<Waiting> = mine;
        for one in &mine {
            let held = |path: &usize| self.model.held.get(path);
            let has_all =
                one.paths.iter().all(|path| held(path).is_some_and(|held| held.story == one.story));
            let Some(grants) = turns.get(&one.id) else {
                assert!(!has_all, "{one:?} was served, and not told");
                assert!(displaced.contains(&one.id), "{one:?} was not told that it lost its turn");
                continue;
            };
            assert!(has_all, "{one:?} was told of what it has not");
            for (path, grant) in one.paths.iter().zip(grants) {
                assert_eq!(grant.record.file_path, PathBuf::from(self.path(*path)));
                assert_eq!(grant.record.story_id.as_str(), STORIES[one.story]);
                let is_fresh = held(path).is_some_and(|held| held.waiter == Some(one.id));
                assert_eq!(grant.is_fresh, is_fresh);
            }
            self.tell(process, grants.clone());
        }
        let right: BTreeSet<WaiterId> = mine.iter().map(|one| one.id).collect();
        let told: BTreeSet<WaiterId> = turns.keys().copied().chain(displaced).collect();
        assert_eq!(told, right, "who was told is who was served");
    }

    fn run(&mut self, process: usize, step: Step) -> Result<Done, Error> {
        self.processes[process].run(step)
    }

    fn perform(&mut self, process: usize, deed: &Deed) {
        match deed {
            Deed::Acquire { story, paths, lease, waits } => {
                self.acquire(process, *story, paths, *lease, *waits);
            }
            Deed::Release { story: number, path } => {
                let path_name = self.path(*path);
                let step =
                    Step::Release { path: located(&path_name), story: story(STORIES[*number]) };
                let answer = self.run(process, step);
                match self.model.held.get(path) {
                    Some(held) if held.story != *number => {
                        assert_eq!(common::code(&answer), "ENOTACQUIRED");
                    }
                    held => {
                        assert_eq!(answer, Ok(Done::Released));
                        if held.is_some() {
                            self.model.free(|at, _| at == path);
                        }
                    }
                }
                self.collect(process);
            }
            Deed::LetGo { pick } => {
                if self.told.is_empty() {
                    return;
                }
                let (owner, grant) = self.told.swap_remove(pick % self.told.len());
                self.let_go(owner, &grant);
            }
            Deed::Leave { pick, keep } => self.leave(*pick, *keep),
            Deed::Cleanup { story: number } => {
                let step = Step::Cleanup { story: story(STORIES[*number]) };
                let answer = self.run(process, step);
                let count = self.model.free(|_, held| held.story == *number);
                let Ok(Done::Cleaned(cleaned)) = answer else { unreachable!("{answer:?}") };
                // The records of the dead count as well while they are there.
                let is_right = (count..=PATHS).contains(&cleaned);
                assert!(is_right, "{cleaned} were removed, {count} were held");
                self.collect(process);
            }
            Deed::Pass { ms } => {
                self.clock.advance(*ms);
                self.model.pass(*ms);
            }
            Deed::Kill => {
                let anew = Process::new(&self.project, &self.clock);
                let killed = std::mem::replace(&mut self.processes[process], anew);
                drop(killed);
                let ids = self.model.line.iter().filter(|one| one.process == process);
                self.dead.extend(ids.map(|one| one.id));
                self.model.end(process);
                self.told.retain(|(owner, _)| *owner != process);
            }
            Deed::Close => {
                let line = self.model.line.iter().chain(&self.model.served);
                let ids: Vec<WaiterId> =
                    line.filter(|one| one.process == process).map(|one| one.id).collect();
                for id in ids {
                    self.leave_id(process, id, false);
                }
                let told = std::mem::take(&mut self.told);
                let (mine, others) = told.into_iter().partition(|(owner, _)| *owner == process);
                self.told = others;
                let mine: Vec<(usize, Grant)> = mine;
                for (_, grant) in mine {
                    self.let_go(process, &grant);
                }
            }
        }
    }

    fn let_go(&mut self, process: usize, grant: &Grant) {
        let token = grant.record.token;
        let answer = self.run(process, Step::LetGo(vec![(grant.key, token)]));
        let Ok(Done::LetGo(gone)) = &answer else { unreachable!("{answer:?}") };
        let number = self.number_of(grant);
        let held = self.model.held.get(&number);
        if held.is_some_and(|held| self.tokens.get(&held.number) == Some(&token)) {
            assert!(gone[0], "it was there");
            self.model.free(|at, _| *at == number);
        }
        self.collect(process);
    }

    /// A process learns that it has these now.
    fn tell(&mut self, process: usize, grants: Vec<Grant>) {
        for grant in grants {
            if let Some(held) = self.model.held.get(&self.number_of(&grant)) {
                self.tokens.insert(held.number, grant.record.token);
            }
            self.told.push((process, grant));
        }
    }

    fn number_of(&self, grant: &Grant) -> usize {
        let is_it = |number: &usize| common::key(&self.path(*number)) == grant.key;
        (0..PATHS).find(is_it).expect("a path of ours")
    }

    fn acquire(
        &mut self,
        process: usize,
        number: usize,
        paths: &[usize],
        lease: Lease,
        waits: bool,
    ) {
        let names: Vec<String> = paths.iter().map(|path| self.path(*path)).collect();
        let ask = Acquire {
            lease,
            queue: waits.then_some(LIMIT),
            ..lines::once(&names, STORIES[number])
        };
        let answer = self.run(process, Step::Acquire(ask));
        let verdict = match &answer {
            Ok(Done::Granted(_)) => Verdict::Granted,
            Ok(Done::Queued(_)) => Verdict::Queued,
            Err(error) => match error.code.as_str() {
                "ELOCKED" => Verdict::Locked,
                "EQUEUEFULL" => Verdict::Full,
                "EDEADLK" => Verdict::Deadlock,
                _ => unreachable!("{error}"),
            },
            _ => unreachable!("{answer:?}"),
        };
        let right = self.model.acquire(number, paths, waits);
        assert_eq!(verdict, right, "{} asks for {paths:?}: {answer:?}", STORIES[number]);
        match answer {
            Ok(Done::Granted(grants)) => {
                for (path, grant) in paths.iter().zip(&grants) {
                    assert_eq!(grant.is_fresh, !self.model.held.contains_key(path));
                }
                self.model.grant(number, process, paths, lease, None);
                self.tell(process, grants);
                self.model.settle();
            }
            Ok(Done::Queued(id)) => {
                let paths = paths.to_vec();
                self.model.line.push(Waiting { id, story: number, process, paths, lease });
                self.model.settle();
            }
            Err(error) if verdict == Verdict::Deadlock => {
                let circle = &error.circle;
                assert_eq!(circle[0].story, STORIES[number]);
                assert_eq!(circle[circle.len() - 1].holder, STORIES[number]);
                for arm in circle {
                    let held = self.model.held.iter().any(|(path, held)| {
                        arm.path == *self.path(*path) && STORIES[held.story] == arm.holder
                    });
                    assert!(held, "{arm:?} is not so");
                }
            }
            _ => {}
        }
        self.collect(process);
    }

    fn leave(&mut self, pick: usize, keep: bool) {
        let all: Vec<(usize, WaiterId)> = self
            .model
            .line
            .iter()
            .chain(&self.model.served)
            .map(|one| (one.process, one.id))
            .collect();
        if all.is_empty() {
            return;
        }
        let (process, id) = all[pick % all.len()];
        self.leave_id(process, id, keep);
    }

    fn leave_id(&mut self, process: usize, id: WaiterId, keep: bool) {
        let answer = self.run(process, Step::Leave { waiter: id, keep });
        if let Some(place) = self.model.line.iter().position(|one| one.id == id) {
            assert!(matches!(answer, Ok(Done::Left(_))), "{answer:?}");
            self.model.line.remove(place);
            self.model.settle();
        } else if let Some(place) = self.model.served.iter().position(|one| one.id == id) {
            let one = self.model.served.remove(place);
            let held = |path: &usize| self.model.held.get(path);
            let has_all =
                one.paths.iter().all(|path| held(path).is_some_and(|held| held.story == one.story));
            match answer {
                Ok(Done::Granted(grants)) => {
                    assert!(keep && has_all);
                    self.tell(process, grants);
                }
                Ok(Done::Left(_)) => {
                    assert!(!(keep && has_all), "its turn had come");
                    if has_all {
                        self.model.free(|_, held| held.waiter == Some(id));
                    }
                }
                answer => unreachable!("{answer:?}"),
            }
        }
        self.collect(process);
    }

    fn look(&mut self, looks: [bool; PROCESSES]) {
        for process in (0..PROCESSES).filter(|process| looks[*process]) {
            self.processes[process].tend();
            self.collect(process);
        }
    }

    fn take_turn(&mut self, turn: &Turn) {
        self.perform(turn.process, &turn.deed);
        // Nobody is told of a death or the end of a lease: whoever waits looks.
        let is_silent = matches!(turn.deed, Deed::Kill | Deed::Pass { .. });
        self.look(if is_silent { [true; PROCESSES] } else { turn.looks });
        self.compare(is_silent);
    }

    /// What is on the disk, and what is shown of it, is what the model says.
    /// Of several paths that nobody gave up, whoever looks first finds its own first: `in_any_order`.
    fn compare(&mut self, in_any_order: bool) {
        let status = self.looker.status();
        assert!(status.unreadable.is_empty() && status.error.is_none(), "{status:?}");
        let live =
            status.locks.iter().filter(|lock| !lock.is_stale).map(|lock| &lock.holder.record);
        let mut live: Vec<_> = live.map(|record| (record.token, record)).collect();
        live.sort_by_key(|(token, _)| *token);
        let mut told: Vec<_> = live
            .iter()
            .map(|(_, record)| {
                (record.file_path.clone(), record.story_id.to_string(), record.waiter)
            })
            .collect();
        let mut right: Vec<_> = self.model.held.iter().collect();
        right.sort_by_key(|(_, held)| held.number);
        let path = |number: usize| PathBuf::from(self.path(number));
        let mut want: Vec<_> = right
            .iter()
            .map(|(number, held)| (path(**number), STORIES[held.story].to_owned(), held.waiter))
            .collect();
        if in_any_order {
            told.sort();
            want.sort();
        }
        assert_eq!(told, want, "what is held, in the order of the grants");
        // From here on a grant's place in the order is its token.
        let tokens: BTreeMap<PathBuf, u64> =
            live.iter().map(|(token, record)| (record.file_path.clone(), *token)).collect();

        let waiting = |is_shown: &dyn Fn(u64) -> bool| {
            let pending = status.waiting.iter().filter(|one| is_shown(one.waiter.id));
            pending.map(|one| (one.waiter.file_path.clone(), one.waiter.id)).collect::<Vec<_>>()
        };
        let told = waiting(&|id| !self.dead.contains(&id));
        let mut want = Vec::new();
        for number in 0..PATHS {
            let line = self.model.line.iter().filter(|one| one.paths.contains(&number));
            want.extend(line.map(|one| (path(number), one.id)));
        }
        assert_eq!(told, want, "who waits, in order");
        // The dead are shown until somebody takes them out.
        let shown = self.shown();
        let mut left = shown.iter();
        for number in 0..PATHS {
            for one in self.model.line.iter().filter(|one| one.paths.contains(&number)) {
                let shows = (path(number), STORIES[one.story].to_owned());
                assert!(left.any(|shown| *shown == shows), "{shows:?} waits, {shown:?} is shown");
            }
        }
        let is_all = shown.len() == want.len() || !self.dead.is_empty();
        assert!(is_all, "{want:?} wait, {shown:?} are shown");
        self.tokens.clear();
        let highest = tokens.values().max().copied().unwrap_or(0);
        self.model.grants = self.model.grants.max(highest);
        for number in 0..PATHS {
            let path = PathBuf::from(self.path(number));
            if let Some(held) = self.model.held.get_mut(&number) {
                held.number = tokens[&path];
                self.tokens.insert(held.number, held.number);
            }
        }
    }

    fn shown(&self) -> Vec<(PathBuf, String)> {
        if !self.project.root().join(".ai/progress/locks.json").exists() {
            return Vec::new();
        }
        let view = self.project.view();
        let Some(waiting) = view["waiting"].as_array() else { return Vec::new() };
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let one = |one: &serde_json::Value| {
            let place = one["place"].as_u64().expect("a place");
            (PathBuf::from(text(&one["path"])), place, text(&one["storyId"]))
        };
        let mut all: Vec<_> = waiting.iter().map(one).collect();
        all.sort();
        all.into_iter().map(|(path, _, story)| (path, story)).collect()
    }

    /// Everybody gives up what it has, again and again: then everybody is served.
    fn conclude(mut self) {
        for _ in 0..=STORIES.len() * 4 {
            if self.model.line.is_empty() {
                break;
            }
            for number in 0..STORIES.len() {
                let deed = Deed::Cleanup { story: number };
                self.take_turn(&Turn {
                    process: number % PROCESSES,
                    deed,
                    looks: [true; PROCESSES],
                });
            }
        }
        assert!(self.model.line.is_empty(), "a stall: {:?}", self.model.line);
        self.look([true; PROCESSES]);
        assert!(self.model.served.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_is_one_that_the_rules_allow(
        history in prop::collection::vec(turn(), 1..40)
    ) {
        let mut bench = Bench::new();
        for turn in &history {
            bench.take_turn(turn);
        }
        bench.conclude();
    }
}
