//! A desk served by hand: no thread, no timer, every batch as the test wants it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use storylock::call::{Call, Message, Port, Reply};
use storylock::desk::{Desk, Request};
use storylock::files::Files;
use storylock::store::Store;
use storylock::{Clock, Error, ManualClock};

use super::{Inbox, Project};

/// A desk with as many clients as ask.
pub struct HandDesk {
    desk: Desk,
    inboxes: HashMap<u64, Arc<Inbox>>,
    tickets: u64,
}

impl HandDesk {
    pub fn new(project: &Project, clock: &Arc<ManualClock>) -> HandDesk {
        let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
        let (root, files_clock) = (project.root().to_owned(), Arc::clone(&clock));
        let make =
            move || -> Box<dyn Store> { Box::new(Files::new(&root, Arc::clone(&files_clock))) };
        let desk = Desk::new(Box::new(make), clock);
        HandDesk { desk, inboxes: HashMap::new(), tickets: 0 }
    }

    /// Serves these calls as one batch; the answers, in the same order.
    pub fn batch(&mut self, calls: Vec<(u64, Call)>) -> Vec<Result<Reply, Error>> {
        let mut asked = Vec::with_capacity(calls.len());
        let mut batch = Vec::with_capacity(calls.len());
        for (client, call) in calls {
            let inbox = Arc::clone(self.inboxes.entry(client).or_default());
            let ticket = self.tickets;
            self.tickets += 1;
            let port: Arc<dyn Port> = Arc::clone(&inbox) as Arc<dyn Port>;
            batch.push(Request { client, port, ticket, call, served: None });
            asked.push((inbox, ticket));
        }
        self.desk.serve(batch, |_| {});
        asked.into_iter().map(|(inbox, ticket)| inbox.answer(ticket)).collect()
    }

    /// Serves one call of the first client.
    pub fn call(&mut self, call: Call) -> Result<Reply, Error> {
        self.batch(vec![(0, call)]).remove(0)
    }

    /// What a client was told beside its answers.
    pub fn events(&self, client: u64) -> Vec<Message> {
        self.inboxes.get(&client).map(|inbox| inbox.events()).unwrap_or_default()
    }

    pub fn tend(&mut self) {
        self.desk.tend();
    }

    /// Looks after what is due, as the engine's thread does between two batches.
    pub fn tend_if_due(&mut self) {
        if self.desk.tend_in().is_some_and(|rest| rest.is_zero()) {
            self.desk.tend();
        }
    }

    /// Asserts that the engine's thread would rest now, rather than look after something for ever.
    pub fn assert_rests(&mut self) {
        self.desk.tend();
        self.desk.tend();
        let rest = self.desk.tend_in();
        assert!(rest != Some(Duration::ZERO), "it is never done with what is due: it would spin");
    }

    /// Ends as an engine does whose last client is gone.
    pub fn leave(mut self) {
        self.desk.leave();
    }
}
