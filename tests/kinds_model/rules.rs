//! The rules in memory: who has what and who waits, by the compatibility table and the queue's rules alone.
//!
//! It knows neither files nor processes that look away nor keys: every question is answered by looking at
//! everybody. What an asker wants of a path is what it would have there then: its story's own lock and what
//! it asks for, joined.

use std::collections::BTreeSet;

use storylock::Lease;
use storylock::queue::WaiterId;

use crate::deeds::{Kind, PATHS, Want};

/// One story's lock on one path.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub path: usize,
    pub story: usize,
    pub kind: Kind,
    /// Whose life stands behind it; nobody's once its asker has learnt that it is detached.
    pub process: Option<usize>,
    pub detached: bool,
    pub lease: Lease,
    pub end: Option<u64>,
    /// The place in line that it was granted to, or raised for.
    pub waiter: Option<WaiterId>,
    /// What it was before it was raised.
    pub from: Option<Kind>,
    pub offer: Option<String>,
    /// Its place in the order of all grants.
    pub number: u64,
    /// Known once somebody has looked.
    pub token: Option<u64>,
}

/// One who waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub id: WaiterId,
    pub story: usize,
    pub process: usize,
    pub wants: Vec<Want>,
    pub lease: Lease,
    pub detached: bool,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Granted,
    Queued,
    /// By these holds, as path and story, of what is wanted first of all that is refused.
    Held(BTreeSet<(usize, usize)>),
    Kept,
    Full,
    Deadlock,
}

/// The whole truth.
#[derive(Clone, Default)]
pub(crate) struct Model {
    pub now: u64,
    pub held: Vec<Hold>,
    /// In order of arrival.
    pub line: Vec<Waiting>,
    /// Served, and not yet told.
    pub served: Vec<Waiting>,
    pub grants: u64,
}

/// Whether one path lies below the other.
pub(crate) fn is_below(path: usize, folder: usize) -> bool {
    PATHS[path].strip_prefix(PATHS[folder]).is_some_and(|rest| rest.starts_with('/'))
}

/// The compatibility table, for two stories.
pub(crate) fn conflict(one: Want, other: Want) -> bool {
    let overlap = one.path == other.path
        || (one.kind.recursive && is_below(other.path, one.path))
        || (other.kind.recursive && is_below(one.path, other.path));
    overlap && !(one.kind.shared && other.kind.shared)
}

impl Hold {
    pub(crate) fn extent(&self) -> Want {
        Want { path: self.path, kind: self.kind, by_link: false }
    }
}

impl Model {
    /// A story's own lock on a path.
    pub(crate) fn own(&self, path: usize, story: usize) -> Option<&Hold> {
        self.held.iter().find(|hold| hold.path == path && hold.story == story)
    }

    pub(crate) fn has(&self, story: usize, want: &Want) -> bool {
        self.own(want.path, story).is_some_and(|own| own.kind.covers(want.kind))
    }

    /// What the story would have on the path.
    fn wish(&self, story: usize, want: &Want) -> Want {
        let own = self.own(want.path, story).map_or(want.kind, |own| own.kind.joined(want.kind));
        Want { kind: own, ..*want }
    }

    /// The locks of other stories that keep this one from what it wants.
    pub(crate) fn in_the_way(&self, story: usize, want: &Want) -> Vec<&Hold> {
        let wish = self.wish(story, want);
        let others = self.held.iter().filter(|hold| hold.story != story);
        others.filter(|hold| conflict(hold.extent(), wish)).collect()
    }

    /// The waiters of other stories who want what conflicts with it.
    fn against(&self, story: usize, want: &Want) -> Vec<&Waiting> {
        let wish = self.wish(story, want);
        let others = self.line.iter().filter(|one| one.story != story);
        let wants_it = |one: &&Waiting| {
            one.wants.iter().any(|theirs| conflict(self.wish(one.story, theirs), wish))
        };
        others.filter(wants_it).collect()
    }

    /// Whom a story waits for, as it stands now.
    fn waits_for(&self, story: usize, and_queued: bool) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        for waiting in self.line.iter().filter(|one| one.story == story) {
            for want in &waiting.wants {
                all.extend(self.in_the_way(story, want).iter().map(|hold| hold.story));
                if and_queued {
                    let against = self.against(story, want).into_iter();
                    all.extend(against.filter(|one| one.id < waiting.id).map(|one| one.story));
                }
            }
        }
        all
    }

    pub(crate) fn reaches(&self, from: usize, to: usize, and_queued: bool) -> bool {
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

    /// What keeps a story from its paths that arrived with this number.
    pub(crate) fn refusal(&self, story: usize, wants: &[Want], id: WaiterId) -> Option<Verdict> {
        for want in wants.iter().filter(|want| !self.has(story, want)) {
            let in_the_way = self.in_the_way(story, want);
            if !in_the_way.is_empty() {
                let named = in_the_way.iter().map(|hold| (hold.path, hold.story));
                return Some(Verdict::Held(named.collect()));
            }
            let ahead = self.against(story, want).into_iter().filter(|one| one.id < id);
            if ahead.into_iter().any(|one| !self.reaches(one.story, story, true)) {
                return Some(Verdict::Kept);
            }
        }
        let waits_elsewhere = self.line.iter().any(|one| one.story == story && one.id != id);
        let closes_a_circle = |want: &Want| {
            self.against(story, want).iter().any(|one| self.reaches(story, one.story, false))
        };
        let mut wanted = wants.iter().filter(|want| !self.has(story, want));
        (waits_elsewhere && wanted.any(closes_a_circle)).then_some(Verdict::Kept)
    }

    /// What becomes of a request; the caller lines it up if it is to wait.
    pub(crate) fn acquire(
        &self,
        story: usize,
        wants: &[Want],
        waits: bool,
        limit: usize,
    ) -> Verdict {
        let Some(refused) = self.refusal(story, wants, WaiterId::MAX) else {
            return Verdict::Granted;
        };
        if !waits {
            return refused;
        }
        let length = |path: usize| {
            self.line.iter().filter(|one| one.wants.iter().any(|want| want.path == path)).count()
        };
        if wants.iter().any(|want| length(want.path) >= limit) {
            return Verdict::Full;
        }
        let holders = wants.iter().flat_map(|want| self.in_the_way(story, want));
        let holders: BTreeSet<usize> = holders.map(|hold| hold.story).collect();
        if holders.iter().any(|holder| self.reaches(*holder, story, false)) {
            return Verdict::Deadlock;
        }
        Verdict::Queued
    }

    pub(crate) fn end_of(&self, lease: Lease) -> Option<u64> {
        lease.timeout_ms().map(|ms| self.now + ms)
    }

    /// Gives a story what it wants and has not.
    pub(crate) fn grant(&mut self, to: &Waiting, id: Option<WaiterId>) {
        for want in &to.wants {
            if self.has(to.story, want) {
                continue;
            }
            let is_it = |hold: &&mut Hold| hold.path == want.path && hold.story == to.story;
            if let Some(own) = self.held.iter_mut().find(is_it) {
                own.from = Some(own.kind);
                own.kind = own.kind.joined(want.kind);
                own.waiter = id;
                continue;
            }
            self.grants += 1;
            let tied = !to.detached || id.is_some();
            self.held.push(Hold {
                path: want.path,
                story: to.story,
                kind: want.kind,
                process: tied.then_some(to.process),
                detached: to.detached,
                lease: to.lease,
                end: self.end_of(to.lease),
                waiter: id,
                from: None,
                offer: None,
                number: self.grants,
                token: None,
            });
        }
    }

    /// Lets in whoever can go on, the first who came first.
    pub(crate) fn settle(&mut self) {
        let is_open =
            |model: &Model, one: &Waiting| model.refusal(one.story, &one.wants, one.id).is_none();
        while let Some(place) = self.line.iter().position(|one| is_open(self, one)) {
            let one = self.line.remove(place);
            self.grant(&one, Some(one.id));
            self.served.push(one);
        }
    }

    pub(crate) fn free(&mut self, is_freed: impl Fn(&Hold) -> bool) -> usize {
        let before = self.held.len();
        self.held.retain(|hold| !is_freed(hold));
        let freed = before - self.held.len();
        self.settle();
        freed
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
        let now = self.now;
        self.free(|hold| hold.end.is_some_and(|end| end <= now));
    }

    /// A process ends without a word.
    pub(crate) fn end(&mut self, process: usize) {
        self.line.retain(|one| one.process != process);
        self.served.retain(|one| one.process != process);
        self.free(|hold| hold.process == Some(process));
    }

    pub(crate) fn lower(&mut self, path: usize, story: usize, kind: Kind) {
        for own in &mut self.held {
            if own.path == path && own.story == story {
                (own.kind, own.from, own.waiter) = (kind, None, None);
            }
        }
        self.settle();
    }

    /// One who waits leaves; what was granted to its place goes back.
    pub(crate) fn give_back(&mut self, id: WaiterId) {
        let of_place = |hold: &&Hold| hold.waiter == Some(id);
        let raised: Vec<(usize, usize, Kind)> = self
            .held
            .iter()
            .filter(of_place)
            .filter_map(|hold| Some((hold.path, hold.story, hold.from?)))
            .collect();
        for (path, story, from) in raised {
            self.lower(path, story, from);
        }
        self.free(|hold| hold.waiter == Some(id));
    }

    /// What giving a lock to a story comes to: the code of the refusal, if it is one.
    pub(crate) fn transfer(&mut self, place: usize, to: usize) -> Option<&'static str> {
        let extent = self.held[place].extent();
        if self.held[place].story == to {
            return None;
        }
        if self.has(to, &extent) {
            return Some("ERR_INVALID_STATE");
        }
        let mut given = self.clone();
        let hold = given.held.remove(place);
        let is_in_the_way = |hold: &Hold| hold.story != to && conflict(hold.extent(), extent);
        if given.held.iter().any(is_in_the_way) {
            return Some("ELOCKED");
        }
        if given.own(extent.path, to).is_some() {
            return Some("ERR_INVALID_STATE");
        }
        given.grants += 1;
        let hold = Hold { story: to, number: given.grants, ..hold.handed_over() };
        given.held.push(hold);
        if given.reaches(to, to, false) {
            return Some("EDEADLK");
        }
        *self = given;
        self.settle();
        None
    }

    /// A process takes a lock over.
    pub(crate) fn adopt(&mut self, place: usize, process: usize, lease: Option<Lease>) {
        self.grants += 1;
        let lease = lease.unwrap_or(self.held[place].lease);
        let (number, end) = (self.grants, self.end_of(lease));
        let hold = self.held.remove(place).handed_over();
        let process = Some(process);
        self.held.push(Hold { process, detached: false, lease, end, number, ..hold });
    }
}

impl Hold {
    fn handed_over(self) -> Hold {
        Hold { offer: None, waiter: None, from: None, token: None, ..self }
    }
}
