//! Who waits for whom: stories as nodes.
//!
//! A story *waits for* another that holds a path it wants; it also stands *behind* another that waits in
//! front of it for the same path. A circle of stories that wait for each other's locks would never end,
//! so the request that would close one is refused, and nobody is let in where that would close one. A
//! circle that leans on a place in a queue is no deadlock: whoever is waited for by the one in front of
//! it may pass (see `turns`).
//!
//! Promise: exact over the [`Facts`], which tell of the living alone.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::key::Key;
use crate::kind::Extent;
use crate::queue::WaiterId;
use crate::story::Story;

/// What is so at this moment.
pub trait Facts {
    /// What a story waits for, and under which numbers; a dead process of it waits for nothing.
    fn waits(&mut self, story: &Story) -> Vec<(WaiterId, Extent)>;
    /// The other stories that hold what an extent conflicts with, and where; not those who are dead, whose
    /// lease is over, or who are giving it up.
    fn holders(&mut self, story: &Story, extent: &Extent) -> Vec<(Key, Story)>;
    /// The living waiters of other stories in front of this one who want what its extent conflicts with;
    /// those that are reached through others of them may be left out.
    fn in_front(&mut self, story: &Story, extent: &Extent, id: WaiterId) -> Vec<(Key, Story)>;
}

/// One arm of a circle: a story waits for a path that the next story holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who waits.
    pub story: Story,
    /// What the other has, or wants: the path itself, one above it or one below.
    pub key: Key,
    /// Who holds it, or stands in front.
    pub holder: Story,
}

/// Which arms count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Those to the holders of what a story wants.
    Held,
    /// Those, and the ones to waiters in front of it.
    HeldAndQueued,
}

/// The circle that would close if `story` waited for these; `None` if none would.
pub fn circle(facts: &mut impl Facts, story: &Story, extents: &[Extent]) -> Option<Vec<Link>> {
    let mut first = Vec::new();
    for extent in extents {
        first.extend(held(facts, story, extent));
    }
    let came_by = walk(facts, first, Arms::Held, Some(story));
    came_by.contains_key(story).then(|| traced(&came_by, story))
}

/// All stories that `story`, as it waits now, waits for, directly or through others.
pub fn reach(facts: &mut impl Facts, story: &Story, arms: Arms) -> HashSet<Story> {
    let first = links(facts, story, arms);
    walk(facts, first, arms, None).into_keys().collect()
}

/// Follows links, breadth first, until one leads to `goal`; by which link each story was reached.
fn walk(
    facts: &mut impl Facts,
    first: Vec<Link>,
    arms: Arms,
    goal: Option<&Story>,
) -> HashMap<Story, Link> {
    let mut came_by: HashMap<Story, Link> = HashMap::new();
    let mut next = VecDeque::from(first);
    while let Some(link) = next.pop_front() {
        let reached = link.holder.clone();
        if came_by.contains_key(&reached) {
            continue;
        }
        came_by.insert(reached.clone(), link);
        if goal == Some(&reached) {
            break;
        }
        next.extend(links(facts, &reached, arms));
    }
    came_by
}

fn traced(came_by: &HashMap<Story, Link>, goal: &Story) -> Vec<Link> {
    let mut way = Vec::new();
    let mut at = goal;
    while let Some(link) = came_by.get(at) {
        way.push(link.clone());
        at = &link.story;
        if at == goal || way.len() > came_by.len() {
            break;
        }
    }
    way.reverse();
    way
}

fn held(facts: &mut impl Facts, story: &Story, extent: &Extent) -> Vec<Link> {
    let link = |(key, holder)| Link { story: story.clone(), key, holder };
    facts.holders(story, extent).into_iter().map(link).collect()
}

fn links(facts: &mut impl Facts, story: &Story, arms: Arms) -> Vec<Link> {
    let mut links = Vec::new();
    for (id, extent) in facts.waits(story) {
        links.extend(held(facts, story, &extent));
        if arms == Arms::HeldAndQueued {
            let link = |(key, holder)| Link { story: story.clone(), key, holder };
            links.extend(facts.in_front(story, &extent, id).into_iter().map(link));
        }
    }
    links
}
