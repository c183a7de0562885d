//! The addon: the only file that knows Node.js.
//!
//! Promises: no call waits for anything or touches the disk on Node's thread beyond finding the project;
//! answers come in one wake-up a batch; the process is kept alive only while a call is unanswered; a
//! worker that ends, however it ends, gives up the locks that it took.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use napi::Env;
use napi::bindgen_prelude::{Either, FnArgs, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

use crate::call::{Ask, Call, Message, Port};
use crate::engine::{self, Engine};
use crate::error::{Code, Error};
use crate::key::{Key, Target};
use crate::lease::{DEFAULT_TIMEOUT_MS, Lease};
use crate::story::Story;
use crate::{root, told};

pub use crate::told::{Answer, Failure, GrantId};

type Settle =
    ThreadsafeFunction<Vec<Message>, (), FnArgs<(Vec<Answer>,)>, napi::Status, false, true>;

/// A ticket that an answer will carry, or an argument error found before anything was touched.
type Submitted = Either<f64, Failure>;

/// How a set of paths is to be locked.
#[napi(object)]
#[derive(Default)]
pub struct AcquireOptions {
    /// The lease in ms; `Infinity` for a bound one; 30 s if absent.
    pub timeout: Option<f64>,
    /// Whether a scope begins, ended by `letGo(…, true)`.
    pub scope: Option<bool>,
    /// Whether the lock outlives this process: its lease alone ends it.
    pub detached: Option<bool>,
    /// Why, in the story's words.
    pub reason: Option<String>,
}

/// One manager's line to the engine of its project.
#[napi]
pub struct Client {
    root: PathBuf,
    port: Arc<NodePort>,
    client: Arc<OnceLock<engine::Client>>,
}

#[napi]
impl Client {
    /// A client of the project at `root`, or of the one around the working directory if `null`.
    /// Starts nothing yet. `settle` is called once a batch.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        env: Env,
        root: Option<String>,
        settle: Function<FnArgs<(Vec<Answer>,)>, ()>,
    ) -> napi::Result<Client> {
        let root = root::find(root.as_deref())
            .map_err(|error| napi::Error::from_reason(error.message.clone()))?;
        let port = NodePort::new(settle)?;
        let client = Arc::new(OnceLock::new());
        let leaving: Weak<OnceLock<engine::Client>> = Arc::downgrade(&client);
        env.add_env_cleanup_hook(leaving, |leaving| {
            if let Some(client) = leaving.upgrade()
                && let Some(client) = client.get()
            {
                let _: Result<u64, Error> = client.submit(Call::Close);
            }
        })?;
        Ok(Client { root, port, client })
    }

    /// The project.
    #[napi(getter, catch_unwind)]
    pub fn root(&self) -> String {
        self.root.to_string_lossy().into_owned()
    }

    /// Locks all of these paths or none: `granted`.
    #[napi(catch_unwind)]
    pub fn acquire(
        &self,
        env: Env,
        paths: Vec<String>,
        story_id: String,
        options: AcquireOptions,
    ) -> napi::Result<Submitted> {
        self.submit(env, || acquisition(&paths, story_id, options).map(Call::Acquire))
    }

    /// Gives up the story's lock on the path: `released`.
    #[napi(catch_unwind)]
    pub fn release(&self, env: Env, path: String, story_id: String) -> napi::Result<Submitted> {
        self.submit(env, || {
            Ok(Call::Release { target: Target::new(&path)?, story: Story::new(story_id)? })
        })
    }

    /// Gives up these grants, or ends one scope of each: `letgo`.
    #[napi(catch_unwind)]
    pub fn let_go(&self, env: Env, locks: Vec<GrantId>, scope: bool) -> napi::Result<Submitted> {
        self.submit(env, || {
            let grants: Result<Vec<_>, Error> = locks.iter().map(GrantId::parse).collect();
            Ok(Call::LetGo { grants: grants?, scope })
        })
    }

    /// Begins the lease of the story's lock anew: `granted` with one lock.
    #[napi(catch_unwind)]
    pub fn renew(
        &self,
        env: Env,
        path: String,
        story_id: String,
        timeout: Option<f64>,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (target, story) = (Target::new(&path)?, Story::new(story_id)?);
            let lease = timeout.map(Lease::from_timeout).transpose()?;
            Ok(Call::Renew { target, story, lease })
        })
    }

    /// Begins the lease of exactly this grant anew: `granted` with one lock.
    #[napi(catch_unwind)]
    pub fn extend(
        &self,
        env: Env,
        key: String,
        token: f64,
        timeout: Option<f64>,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (key, token) = GrantId { key, token }.parse()?;
            let lease = timeout.map(Lease::from_timeout).transpose()?;
            Ok(Call::Extend { key, token, lease })
        })
    }

    /// Whether this grant is current: `verified`.
    #[napi(catch_unwind)]
    pub fn verify(&self, env: Env, key: String, token: f64) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (key, token) = GrantId { key, token }.parse()?;
            Ok(Call::Verify { key, token })
        })
    }

    /// Who holds the path: `checked`.
    #[napi(catch_unwind)]
    pub fn check(&self, env: Env, path: String) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Check { target: Target::new(&path)? }))
    }

    /// Gives up every lock of the story: `cleaned`.
    #[napi(catch_unwind)]
    pub fn cleanup(&self, env: Env, story_id: String) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Cleanup { story: Story::new(story_id)? }))
    }

    /// Everything that is held: `status`.
    #[napi(catch_unwind)]
    pub fn status(&self, env: Env) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Status))
    }

    /// Gives up every lock taken through this client, for good: `closed`.
    #[napi(catch_unwind)]
    pub fn close(&self, env: Env) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Close))
    }

    /// The same at the exit of the process: waits a fraction of a second at most.
    #[napi(catch_unwind)]
    pub fn leave(&self) {
        if let Some(client) = self.client.get() {
            client.leave();
        }
    }

    /// The descriptor by which a child process can inherit the life of this process's locks.
    #[napi(catch_unwind)]
    pub fn life_line(&self) -> Option<i32> {
        self.client.get()?.life_line()
    }

    fn submit(
        &self,
        env: Env,
        call: impl FnOnce() -> Result<Call, Error>,
    ) -> napi::Result<Submitted> {
        let submitted = call().and_then(|call| self.client()?.submit(call));
        Ok(match submitted {
            Ok(ticket) => {
                self.port.expect_answer(env)?;
                Either::A(ticket as f64)
            }
            Err(error) => Either::B(told::failure(&error)),
        })
    }

    fn client(&self) -> Result<&engine::Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let port: Arc<dyn Port> = Arc::clone(&self.port) as Arc<dyn Port>;
        let client = Engine::of(&self.root)?.client(port);
        Ok(self.client.get_or_init(|| client))
    }
}

fn acquisition(paths: &[String], story_id: String, options: AcquireOptions) -> Result<Ask, Error> {
    if paths.is_empty() {
        return Err(Error::invalid("paths", "must name at least one file."));
    }
    let targets: Result<Vec<_>, Error> = paths.iter().map(|path| Target::new(path)).collect();
    let (targets, story) = (targets?, Story::new(story_id)?);
    let lease =
        options.timeout.map_or(Ok(Lease::Timed(DEFAULT_TIMEOUT_MS)), Lease::from_timeout)?;
    let detached = options.detached.unwrap_or_default();
    if detached && lease == Lease::Bound {
        let rule = "must be finite for a detached lock, which nothing else would ever end. Received Infinity";
        return Err(Error::out_of_range("timeout", rule));
    }
    let scope = options.scope.unwrap_or_default();
    Ok(Ask { targets, story, lease, scope, detached, reason: options.reason })
}

impl GrantId {
    fn parse(&self) -> Result<(Key, u64), Error> {
        let key = Key::from_file_name(&format!("{}.lock", self.key))
            .ok_or_else(|| Error::new(Code::InvalidValue, "The lock's key is not one."))?;
        Ok((key, self.token as u64))
    }
}

/// Delivers messages to one environment's JavaScript.
struct NodePort {
    settle: OnceLock<Settle>,
    /// Calls unanswered; while there are any, the process is kept alive.
    unanswered: AtomicUsize,
}

impl NodePort {
    fn new(settle: Function<FnArgs<(Vec<Answer>,)>, ()>) -> napi::Result<Arc<NodePort>> {
        let port = Arc::new(NodePort { settle: OnceLock::new(), unanswered: AtomicUsize::new(0) });
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
        // It was made a line above and is set only here.
        let _ = port.settle.set(settle);
        Ok(port)
    }

    fn expect_answer(&self, env: Env) -> napi::Result<()> {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) == 0
            && let Some(settle) = self.settle.get()
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
        let is_answer = |message: &&Message| matches!(message, Message::Answer(..));
        let count = messages.iter().filter(is_answer).count();
        let before = self.unanswered.fetch_sub(count, Ordering::Relaxed);
        if count > 0
            && before == count
            && let Some(settle) = self.settle.get()
        {
            // SAFETY: as above; the callback of the function itself runs on that thread.
            unsafe { napi::sys::napi_unref_threadsafe_function(env.raw(), settle.raw()) };
        }
    }
}

impl Port for NodePort {
    fn deliver(&self, messages: Vec<Message>) {
        if let Some(settle) = self.settle.get() {
            // An environment that has ended takes no more messages; its locks were given up.
            settle.call(messages, ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}
