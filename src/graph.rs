//! Who waits for whom: stories as nodes, read off the index.
//!
//! A story *waits for* another that holds a path it wants; it also stands *behind* another that waits in
//! front of it for the same path. A circle of stories that wait for each other's locks would never end,
//! so the request that would close one is refused, and nobody is let in where that would close one. A
//! circle that leans on a place in a queue is no deadlock: whoever is waited for by the one in front of
//! it may pass (see `turns`).
//!
//! Promise: exact over what the index knows, less the [`Gone`]: whoever asks proves each arm of an answer to
//! be of living stories, adds those that are not to the gone, and asks again.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::index::Index;
use crate::key::Key;
use crate::queue::Waiter;
use crate::record::HolderId;
use crate::story::Story;

/// One arm of a circle: a story waits for a path that the next story holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who waits.
    pub story: Story,
    /// For what.
    pub key: Key,
    /// Who holds it.
    pub holder: Story,
}

/// What the index still shows though it holds nothing, and nobody.
#[derive(Clone, Copy, Debug)]
pub struct Gone<'a> {
    /// Holders that are dead.
    pub dead: &'a HashSet<HolderId>,
    /// Keys whose records hold no more.
    pub over: &'a HashSet<Key>,
}

/// Which arms count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Those to the holders of what a story wants.
    Held,
    /// Those, and the ones to waiters in front of it.
    HeldAndQueued,
}

/// The circle that would close if `story` waited for these keys; `None` if none would.
pub fn circle(index: &Index, gone: Gone<'_>, story: &Story, keys: &[Key]) -> Option<Vec<Link>> {
    let first = keys.iter().filter_map(|key| link(index, gone, story, key)).collect();
    walk(index, gone, first, Arms::Held, story)
}

/// The way by which `from`, as it waits now, waits for `to`, directly or through others.
pub fn way(
    index: &Index,
    gone: Gone<'_>,
    from: &Story,
    to: &Story,
    arms: Arms,
) -> Option<Vec<Link>> {
    walk(index, gone, links(index, gone, from, arms), arms, to)
}

/// Follows links, breadth first, to one whose holder is `goal`; answers the way there.
fn walk(
    index: &Index,
    gone: Gone<'_>,
    first: Vec<Link>,
    arms: Arms,
    goal: &Story,
) -> Option<Vec<Link>> {
    let mut came_by: HashMap<Story, Link> = HashMap::new();
    let mut seen: HashSet<Story> = HashSet::new();
    let mut next = VecDeque::from(first);
    while let Some(link) = next.pop_front() {
        if !seen.insert(link.holder.clone()) {
            continue;
        }
        let reached = link.holder.clone();
        came_by.insert(reached.clone(), link);
        if reached == *goal {
            return Some(traced(&came_by, goal));
        }
        next.extend(links(index, gone, &reached, arms));
    }
    None
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

fn link(index: &Index, gone: Gone<'_>, story: &Story, key: &Key) -> Option<Link> {
    let record = index.get(key)?;
    let is_gone = gone.over.contains(key) || gone.dead.contains(&record.holder);
    let holder = record.story_id.clone();
    (!is_gone && holder != *story).then(|| Link { story: story.clone(), key: *key, holder })
}

fn links(index: &Index, gone: Gone<'_>, story: &Story, arms: Arms) -> Vec<Link> {
    let mut links = Vec::new();
    for (id, key) in index.waits_of(story) {
        let queue = index.queue(&key);
        let is_dead = |waiter: &&Waiter| gone.dead.contains(&waiter.holder);
        if queue.iter().find(|waiter| waiter.id == id).as_ref().is_none_or(is_dead) {
            continue;
        }
        links.extend(link(index, gone, story, &key));
        if arms == Arms::HeldAndQueued {
            let ahead = queue.iter().take_while(|waiter| waiter.id < id);
            let others = ahead.filter(|waiter| waiter.story_id != *story && !is_dead(waiter));
            links.extend(others.map(|waiter| Link {
                story: story.clone(),
                key,
                holder: waiter.story_id.clone(),
            }));
        }
    }
    links
}
