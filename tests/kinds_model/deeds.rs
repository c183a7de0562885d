//! What can happen, at random, and in words: a history that fails is read like a story.

use std::fmt;

use proptest::prelude::*;

use storylock::{Lease, Mode};

pub(crate) const PROCESSES: usize = 3;
pub(crate) const STORIES: [&str; 4] = ["A", "B", "C", "D"];
/// Two folders, one in the other, with a file each; a namesake of one; things that are no files.
pub(crate) const PATHS: [&str; 6] = ["src", "src/a", "src/a/x", "src/ab", "@git", "@git/index"];
/// How the first of them, and what is below it, can be spelled too.
pub(crate) const LINK: &str = "link";
/// What an offer can be taken up with.
pub(crate) const SECRETS: [&str; 2] = ["one", "two"];

/// What kind of lock, as the compatibility table has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub shared: bool,
    pub recursive: bool,
}

impl Kind {
    pub(crate) fn joined(self, other: Kind) -> Kind {
        let shared = self.shared && other.shared;
        Kind { shared, recursive: self.recursive || other.recursive }
    }

    pub(crate) fn covers(self, other: Kind) -> bool {
        self.joined(other) == self
    }

    pub(crate) fn of(kind: storylock::Kind) -> Kind {
        Kind { shared: kind.mode == Mode::Shared, recursive: kind.recursive }
    }

    pub(crate) fn for_engine(self) -> storylock::Kind {
        let mode = if self.shared { Mode::Shared } else { Mode::Exclusive };
        storylock::Kind { mode, recursive: self.recursive }
    }
}

/// A path, and what kind of lock on it.
#[derive(Clone, Copy)]
pub(crate) struct Want {
    pub path: usize,
    pub kind: Kind,
    /// Whether the path is named through a link.
    pub by_link: bool,
}

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Request {
    pub story: usize,
    pub wants: Vec<Want>,
    pub lease: Lease,
    pub detached: bool,
    pub waits: bool,
}

/// Numbers that pick one of those that there are at that moment.
pub(crate) type Pick = usize;

#[derive(Clone)]
pub(crate) enum Deed {
    Acquire(Request),
    /// The story of a lock that is held asks for more of it.
    Raise {
        pick: Pick,
        kind: Kind,
        waits: bool,
    },
    Lower {
        pick: Pick,
        kind: Kind,
    },
    Transfer {
        pick: Pick,
        to: usize,
    },
    Offer {
        picks: Vec<Pick>,
        secret: usize,
    },
    Adopt {
        pick: Pick,
        is_wrong: bool,
        lease: Option<Lease>,
    },
    Force {
        path: usize,
        story: Option<usize>,
        is_dry: bool,
    },
    Release {
        story: usize,
        path: usize,
    },
    Renew {
        story: usize,
        path: usize,
        lease: Option<Lease>,
    },
    /// A lease begins anew, detached from its process or tied to another.
    Extend {
        pick: Pick,
        lease: Option<Lease>,
        detached: Option<bool>,
    },
    LetGo {
        pick: Pick,
    },
    Leave {
        pick: Pick,
        keep: bool,
    },
    Cleanup {
        story: usize,
    },
    Pass {
        ms: u64,
    },
    Kill,
    Close,
}

/// A deed, by whom, and who looks after it: what comes for the others stays uncollected.
#[derive(Clone)]
pub(crate) struct Turn {
    pub process: usize,
    pub deed: Deed,
    pub looks: [bool; PROCESSES],
}

fn kind(scene: Scene) -> impl Strategy<Value = Kind> {
    let shared = prop::bool::weighted(f64::from(scene.shared) / 10.0);
    (shared, prop::bool::weighted(0.4)).prop_map(|(shared, recursive)| Kind { shared, recursive })
}

/// Where a history takes place: the fewer paths, the more stories meet.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) paths: &'static [usize],
    /// How many of ten requests are for shared locks.
    pub(crate) shared: u32,
}

fn want(scene: Scene) -> impl Strategy<Value = Want> {
    let path = prop::sample::select(scene.paths);
    (path, kind(scene), prop::bool::weighted(0.1)).prop_map(|(path, kind, by_link)| Want {
        path,
        kind,
        by_link: by_link && PATHS[path].starts_with(PATHS[0]),
    })
}

fn lease() -> impl Strategy<Value = Lease> {
    prop_oneof![3 => Just(Lease::Bound), 1 => (1..400u64).prop_map(Lease::Timed)]
}

fn request(scene: Scene) -> impl Strategy<Value = Request> {
    let wants = prop_oneof![
        3 => prop::collection::vec(want(scene), 1),
        2 => prop::collection::vec(want(scene), 2..=3),
    ];
    let (waits, detached) = (prop::bool::weighted(0.7), prop::bool::weighted(0.3));
    (0..STORIES.len(), wants, lease(), detached, waits).prop_map(
        |(story, wants, lease, detached, waits)| {
            let detached = detached && lease != Lease::Bound;
            Request { story, wants, lease, detached, waits }
        },
    )
}

fn deed(scene: Scene) -> impl Strategy<Value = Deed> {
    let (story, path) = (|| 0..STORIES.len(), move || prop::sample::select(scene.paths));
    let pick = || 0..64usize;
    let new_lease = || prop::option::weighted(0.5, lease());
    prop_oneof![
        14 => request(scene).prop_map(Deed::Acquire),
        4 => (pick(), kind(scene), prop::bool::weighted(0.7))
            .prop_map(|(pick, kind, waits)| Deed::Raise { pick, kind, waits }),
        3 => (pick(), kind(scene)).prop_map(|(pick, kind)| Deed::Lower { pick, kind }),
        4 => (pick(), story()).prop_map(|(pick, to)| Deed::Transfer { pick, to }),
        2 => (prop::collection::vec(pick(), 1..=2), 0..SECRETS.len())
            .prop_map(|(picks, secret)| Deed::Offer { picks, secret }),
        3 => (pick(), prop::bool::weighted(0.2), new_lease())
            .prop_map(|(pick, is_wrong, lease)| Deed::Adopt { pick, is_wrong, lease }),
        2 => (path(), prop::option::weighted(0.4, story()), prop::bool::weighted(0.3))
            .prop_map(|(path, story, is_dry)| Deed::Force { path, story, is_dry }),
        4 => (story(), path()).prop_map(|(story, path)| Deed::Release { story, path }),
        1 => (story(), path(), new_lease())
            .prop_map(|(story, path, lease)| Deed::Renew { story, path, lease }),
        1 => (pick(), new_lease(), any::<Option<bool>>())
            .prop_map(|(pick, lease, detached)| Deed::Extend { pick, lease, detached }),
        3 => pick().prop_map(|pick| Deed::LetGo { pick }),
        3 => (pick(), any::<bool>()).prop_map(|(pick, keep)| Deed::Leave { pick, keep }),
        3 => story().prop_map(|story| Deed::Cleanup { story }),
        1 => (1..300u64).prop_map(|ms| Deed::Pass { ms }),
        2 => Just(Deed::Kill),
        1 => Just(Deed::Close),
    ]
}

fn turn(scene: Scene) -> impl Strategy<Value = Turn> {
    (0..PROCESSES, deed(scene), any::<[bool; PROCESSES]>())
        .prop_map(|(process, deed, looks)| Turn { process, deed, looks })
}

pub(crate) fn history(scene: Scene) -> impl Strategy<Value = Vec<Turn>> {
    prop::collection::vec(turn(scene), 1..30)
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.shared { "shared" } else { "exclusive" })?;
        f.write_str(if self.recursive { ", all below" } else { "" })
    }
}

impl fmt::Debug for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = if self.by_link { " by link" } else { "" };
        write!(f, "{}{link} ({:?})", PATHS[self.path], self.kind)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { story, wants, lease, detached, waits } = self;
        let detached = if *detached { ", detached" } else { "" };
        let waits = wait(*waits);
        write!(f, "{} asks for {wants:?}, {lease:?}{detached}{waits}", STORIES[*story])
    }
}

fn wait(waits: bool) -> &'static str {
    if waits { ", waits" } else { "" }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}: {:?}", self.process, self.deed)?;
        let looks: Vec<String> = (0..PROCESSES)
            .filter(|process| self.looks[*process])
            .map(|process| format!("P{process}"))
            .collect();
        if looks.is_empty() { Ok(()) } else { write!(f, "; {} look", looks.join(", ")) }
    }
}

impl fmt::Debug for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Acquire(request) => write!(f, "{request:?}"),
            Deed::Raise { pick, kind, waits } => {
                write!(f, "the story of lock {pick} asks for {kind:?}{}", wait(*waits))
            }
            Deed::Lower { pick, kind } => write!(f, "lock {pick} is lowered to {kind:?}"),
            Deed::Transfer { pick, to } => {
                write!(f, "lock {pick} is transferred to {}", STORIES[*to])
            }
            Deed::Offer { picks, secret } => {
                write!(f, "locks {picks:?} are offered for secret {:?}", SECRETS[*secret])
            }
            Deed::Adopt { pick, is_wrong, lease } => {
                let wrong = if *is_wrong { " with a wrong secret" } else { "" };
                write!(f, "offer {pick} is adopted{wrong}, lease {lease:?}")
            }
            Deed::Force { path, story, is_dry } => {
                let whose = story.map_or("all", |story| STORIES[story]);
                let dry = if *is_dry { ", dry" } else { "" };
                write!(f, "{} is taken back by force from {whose}{dry}", PATHS[*path])
            }
            Deed::Release { story, path } => {
                write!(f, "{} releases {}", STORIES[*story], PATHS[*path])
            }
            Deed::Renew { story, path, lease } => {
                write!(f, "{} renews {} for {lease:?}", STORIES[*story], PATHS[*path])
            }
            Deed::Extend { pick, lease, detached } => {
                write!(f, "lock {pick} is extended for {lease:?}, detached {detached:?}")
            }
            Deed::LetGo { pick } => write!(f, "lock {pick} is let go of"),
            Deed::Leave { pick, keep } => write!(f, "waiter {pick} leaves, keep {keep}"),
            Deed::Cleanup { story } => write!(f, "{} is cleaned up", STORIES[*story]),
            Deed::Pass { ms } => write!(f, "{ms} ms pass"),
            Deed::Kill => f.write_str("killed"),
            Deed::Close => f.write_str("closes"),
        }
    }
}
