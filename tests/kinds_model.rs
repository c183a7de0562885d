//! Random histories of locks of every kind, against a plain model of the compatibility table and of the
//! queue's rules.
//!
//! After every deed the answer, the holders, the queues, the order of the grants and the view must be what
//! the model says, and no two living locks may be in each other's way; in the end, when everybody gives up
//! what it has, everybody must have been served. Processes are stores on one project; one is killed by
//! dropping it without a word. Time is turned by hand.

mod common;
#[path = "common/lines.rs"]
mod lines;

#[path = "kinds_model/bench.rs"]
mod bench;
#[path = "kinds_model/compare.rs"]
mod compare;
#[path = "kinds_model/deeds.rs"]
mod deeds;
#[path = "kinds_model/rules.rs"]
mod rules;

use proptest::prelude::*;

use bench::Bench;
use deeds::{Scene, Turn, history};

/// A file and a thing, which many read.
const READ: Scene = Scene { paths: &[3, 4], shared: 8 };
/// A folder and a file in it.
const TWO: Scene = Scene { paths: &[0, 1], shared: 6 };
/// Two folders, one in the other, and a file.
const THREE: Scene = Scene { paths: &[0, 1, 2], shared: 5 };
/// Everything that there is.
const ALL: Scene = Scene { paths: &[0, 1, 2, 3, 4, 5], shared: 4 };

fn happens(history: &[Turn]) {
    let mut bench = Bench::new();
    for turn in history {
        bench.take_turn(turn);
    }
    bench.conclude();
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES has more of them.
        cases: ProptestConfig::default().cases.max(500),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_history_of_readers_is_one_that_the_rules_allow(history in history(READ)) {
        happens(&history);
    }

    #[test]
    fn every_history_around_one_file_is_one_that_the_rules_allow(history in history(TWO)) {
        happens(&history);
    }

    #[test]
    fn every_history_around_one_folder_is_one_that_the_rules_allow(history in history(THREE)) {
        happens(&history);
    }

    #[test]
    fn every_history_of_a_project_is_one_that_the_rules_allow(history in history(ALL)) {
        happens(&history);
    }
}
