//! Who waits for whom: stories as nodes, read off the index.
//!
//! A story *waits for* another that holds a path it wants; it also stands *behind* another that waits in
//! front of it for the same path. A circle of stories that wait for each other's locks would never end,
//! so the request that would close one is refused, and nobody is let in where that would close one. A
//! circle that leans on a place in a queue is no deadlock: whoever is waited for by the one in front of
//! it may pass (see `turns`).
//!
//! Promise: exact over all that the index knows; the caller sees to it that the dead are out of it.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::index::Index;
use crate::key::Key;
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

/// Which arms count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Those to the holders of what a story wants.
    Held,
    /// Those, and the ones to waiters in front of it.
    HeldAndQueued,
}

/// The circle that would close if `story` waited for these keys; `None` if none would.
pub fn circle(index: &Index, story: &Story, keys: &[Key]) -> Option<Vec<Link>> {
    let first = keys.iter().filter_map(|key| link(index, story, key)).collect();
    walk(index, first, Arms::Held, story)
}

/// Whether `from`, as it waits now, waits for `to`, directly or through others.
pub fn reaches(index: &Index, from: &Story, to: &Story, arms: Arms) -> bool {
    walk(index, links(index, from, arms), arms, to).is_some()
}

/// Follows links, breadth first, to one whose holder is `goal`; answers the way there.
fn walk(index: &Index, first: Vec<Link>, arms: Arms, goal: &Story) -> Option<Vec<Link>> {
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
            return Some(way(&came_by, goal));
        }
        next.extend(links(index, &reached, arms));
    }
    None
}

fn way(came_by: &HashMap<Story, Link>, goal: &Story) -> Vec<Link> {
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

fn link(index: &Index, story: &Story, key: &Key) -> Option<Link> {
    let holder = index.get(key)?.story_id.clone();
    (holder != *story).then(|| Link { story: story.clone(), key: *key, holder })
}

fn links(index: &Index, story: &Story, arms: Arms) -> Vec<Link> {
    let mut links = Vec::new();
    for (id, key) in index.waits_of(story) {
        links.extend(link(index, story, &key));
        if arms == Arms::HeldAndQueued {
            let ahead = index.queue(&key).iter().take_while(|waiter| waiter.id < id);
            links.extend(ahead.filter(|waiter| waiter.story_id != *story).map(|waiter| Link {
                story: story.clone(),
                key,
                holder: waiter.story_id.clone(),
            }));
        }
    }
    links
}
