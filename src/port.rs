//! The way from the engine's thread into one environment's JavaScript.
//!
//! Promises: all messages of a batch come in one wake-up; the process is kept alive only while a call is
//! unanswered; an environment that has ended takes nothing more and is not waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Env;
use napi::bindgen_prelude::{FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

use crate::call::{Message, Port, Reply};
use crate::told::Answer;

type Settle =
    ThreadsafeFunction<Vec<Message>, (), FnArgs<(Vec<Answer>,)>, napi::Status, false, true>;

/// A mutex's content, whatever became of others who had it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delivers messages to one environment's JavaScript.
pub struct NodePort {
    /// `None` once the client is closed: then nothing in JavaScript is held on to any more.
    settle: Mutex<Option<Arc<Settle>>>,
    /// Calls unanswered; while there are any, the process is kept alive.
    unanswered: AtomicUsize,
}

impl NodePort {
    /// A port to this function, which does not keep the environment alive by itself.
    ///
    /// # Errors
    /// What Node.js says.
    pub fn new(settle: Function<FnArgs<(Vec<Answer>,)>, ()>) -> napi::Result<Arc<NodePort>> {
        let port = Arc::new(NodePort { settle: Mutex::new(None), unanswered: AtomicUsize::new(0) });
        let weak = Arc::downgrade(&port);
        let settle = settle
            .build_threadsafe_function::<Vec<Message>>()
            .weak::<true>()
            .build_callback(move |context| {
                if let Some(port) = weak.upgrade() {
                    port.count_answers(context.env, &context.value);
                }
                let answers: Vec<Answer> = context.value.into_iter().map(Answer::from).collect();
                Ok(FnArgs::from((answers,)))
            })?;
        *locked(&port.settle) = Some(Arc::new(settle));
        Ok(port)
    }

    /// Keeps the environment alive until one more call is answered.
    ///
    /// # Errors
    /// What Node.js says.
    pub fn expect_answer(&self, env: Env) -> napi::Result<()> {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) == 0
            && let Some(settle) = &*locked(&self.settle)
        {
            // SAFETY: called on the environment's own thread, where the function is alive as long as
            // this port holds it.
            let status =
                unsafe { napi::sys::napi_ref_threadsafe_function(env.raw(), settle.raw()) };
            napi::check_status!(status)?;
        }
        Ok(())
    }

    fn count_answers(&self, env: Env, messages: &[Message]) {
        // Those who leave at exit expect no answer.
        let is_answer = |message: &&Message| matches!(message, Message::Answer(ticket, _) if *ticket != u64::MAX);
        let count = messages.iter().filter(is_answer).count();
        let before = self.unanswered.fetch_sub(count, Ordering::Relaxed);
        let mut settle = locked(&self.settle);
        if count > 0
            && before == count
            && let Some(settle) = &*settle
        {
            // SAFETY: as above; the callback of the function itself runs on that thread.
            unsafe { napi::sys::napi_unref_threadsafe_function(env.raw(), settle.raw()) };
        }
        let is_closed =
            |message: &Message| matches!(message, Message::Answer(_, Ok(Reply::Closed)));
        if messages.iter().any(is_closed) {
            *settle = None;
        }
    }
}

impl Port for NodePort {
    fn deliver(&self, messages: Vec<Message>) {
        let settle = locked(&self.settle).clone();
        if let Some(settle) = settle {
            // An environment that has ended takes no more messages; its locks were given up.
            settle.call(messages, ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}
