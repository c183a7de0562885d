//! The addon: the only file that knows Node.js.
//!
//! Promises: no call waits for anything or touches the disk on Node's thread beyond finding the project;
//! answers come in one wake-up a batch; the process is kept alive only while a call is unanswered; a
//! worker that ends, however it ends, gives up the locks that it took.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use napi::bindgen_prelude::{Buffer, Either, FnArgs, Function};
use napi::{CleanupEnvHook, Env};
use napi_derive::napi;

use crate::asked::{self, acquisition, change};
use crate::call::{Call, Message, Port, Reply, What, closed};
use crate::change::Edit;
use crate::engine::{self, Engine};
use crate::error::{Code, Error};
use crate::key::Target;
use crate::lease::Lease;
use crate::port::{NodePort, locked};
use crate::story::Story;
use crate::{root, told};

pub use crate::asked::{
    AcquireOptions, ChangeOptions, FileEdit, ForceOptions, HistoryLimits, KindInfo,
};
pub use crate::shapes::{Failure, GrantId};
pub use crate::told::Answer;

/// A ticket that an answer will carry, or an argument error found before anything was touched.
type Submitted = Either<f64, Failure>;

/// One manager's line to the engine of its project.
#[napi]
pub struct Client {
    root: PathBuf,
    port: Arc<NodePort>,
    line: Arc<Mutex<Line>>,
    at_exit: Option<CleanupEnvHook<Weak<Mutex<Line>>>>,
}

/// Where a client stands with its engine.
enum Line {
    /// No call was made yet.
    Unopened,
    Open(engine::Client),
    Closed,
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
    ) -> napi::Result<Client, String> {
        let root = root::find(root.as_deref()).map_err(|error| {
            napi::Error::new(error.code.as_str().to_owned(), error.message.clone())
        })?;
        let failed = |error: napi::Error| {
            napi::Error::new(Code::Internal.as_str().to_owned(), error.reason.clone())
        };
        let port = NodePort::new(settle).map_err(failed)?;
        let line = Arc::new(Mutex::new(Line::Unopened));
        // However the environment ends, what its calls were granted is given up.
        let hang_up = |line: Weak<Mutex<Line>>| {
            let line = line.upgrade();
            let line = line.map(|line| std::mem::replace(&mut *locked(&line), Line::Closed));
            if let Some(Line::Open(client)) = line {
                client.leave();
            }
        };
        let hook = env.add_env_cleanup_hook(Arc::downgrade(&line), hang_up).map_err(failed)?;
        Ok(Client { root, port, line, at_exit: Some(hook) })
    }

    /// The project.
    #[napi(getter, catch_unwind)]
    pub fn root(&self) -> String {
        self.root.to_string_lossy().into_owned()
    }

    /// Locks all of these paths or none: `granted`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn acquire(
        &self,
        env: Env,
        paths: Vec<String>,
        story_id: String,
        options: AcquireOptions,
    ) -> napi::Result<Submitted> {
        self.submit(env, || acquisition(&paths, story_id, options).map(Call::Acquire))
    }

    /// The paths that a diff touches, relative to the project: `paths`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn outline(&self, env: Env, diff: Buffer) -> napi::Result<Submitted> {
        let root = self.root.clone();
        self.submit(env, || Ok(Call::Outline { diff: diff.to_vec(), root }))
    }

    /// Changes files under these locks, which must be current when it happens: `changed`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn change(
        &self,
        env: Env,
        story_id: String,
        locks: Vec<GrantId>,
        edits: Vec<FileEdit>,
        options: ChangeOptions,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let edits: Result<Vec<Edit>, Error> = edits.into_iter().map(FileEdit::parse).collect();
            change(story_id, &locks, What::Edits(edits?), &options)
        })
    }

    /// Changes files as a diff says, under these locks: `changed`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn apply(
        &self,
        env: Env,
        story_id: String,
        locks: Vec<GrantId>,
        diff: Buffer,
        options: ChangeOptions,
    ) -> napi::Result<Submitted> {
        let what = What::Diff { diff: diff.to_vec(), root: self.root.clone() };
        self.submit(env, || change(story_id, &locks, what, &options))
    }

    /// Calls an acquisition off if it still waits; its own answer tells which came first.
    #[napi(catch_unwind)]
    pub fn cancel(&self, ticket: f64) {
        if let Line::Open(client) = &*locked(&self.line) {
            // A client that is closed waits for nothing any more.
            let _ = client.cancel(ticket as u64);
        }
    }

    /// Gives up the story's lock on the path: `released`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn release(&self, env: Env, path: String, story_id: String) -> napi::Result<Submitted> {
        self.submit(env, || {
            Ok(Call::Release { target: Target::new(&path)?, story: Story::new(story_id)? })
        })
    }

    /// Gives up these grants, or ends one scope of each: `letgo`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn let_go(
        &self,
        env: Env,
        locks: Vec<GrantId>,
        scope: bool,
        kinds: Option<Vec<KindInfo>>,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let kinds = asked::kinds(kinds.as_deref())?;
            Ok(Call::LetGo { grants: GrantId::parse_all(&locks)?, scope, kinds })
        })
    }

    /// Wants no more than this of a grant: `granted` with one lock.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn lower(
        &self,
        env: Env,
        key: String,
        token: f64,
        kind: KindInfo,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (key, token) = GrantId { key, token }.parse()?;
            Ok(Call::Lower { key, token, kind: kind.parse()? })
        })
    }

    /// Gives a grant to another story: `granted` with one lock, that story's.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn transfer(
        &self,
        env: Env,
        key: String,
        token: f64,
        story_id: String,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (key, token) = GrantId { key, token }.parse()?;
            Ok(Call::Transfer { key, token, story: Story::new(story_id)? })
        })
    }

    /// Lets whoever knows the secret of this digest take these grants over, once: `offered`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn offer(&self, env: Env, locks: Vec<GrantId>, digest: String) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (grants, digest) = (GrantId::parse_all(&locks)?, asked::digest(digest)?);
            Ok(Call::Offer { grants, digest })
        })
    }

    /// Takes grants over that were offered under this digest: `granted`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn adopt(
        &self,
        env: Env,
        locks: Vec<GrantId>,
        digest: String,
        timeout: Option<f64>,
    ) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (grants, digest) = (GrantId::parse_all(&locks)?, asked::digest(digest)?);
            let lease = timeout.map(Lease::from_timeout).transpose()?;
            Ok(Call::Adopt { grants, digest, lease })
        })
    }

    /// Takes the locks of a path back from whoever has them: `forced`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn force(&self, env: Env, path: String, options: ForceOptions) -> napi::Result<Submitted> {
        self.submit(env, || asked::force(&path, options))
    }

    /// Begins the lease of the story's lock anew: `granted` with one lock.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
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
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
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
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn verify(&self, env: Env, key: String, token: f64) -> napi::Result<Submitted> {
        self.submit(env, || {
            let (key, token) = GrantId { key, token }.parse()?;
            Ok(Call::Verify { key, token })
        })
    }

    /// Who holds the path: `checked`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn check(&self, env: Env, path: String) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Check { target: Target::new(&path)? }))
    }

    /// Gives up every lock of the story: `cleaned`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn cleanup(&self, env: Env, story_id: String) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Cleanup { story: Story::new(story_id)? }))
    }

    /// Keeps this much history from now on, or none: `released`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn keep_history(&self, env: Env, limits: Option<HistoryLimits>) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Keep(limits.map(|limits| limits.parse()).transpose()?)))
    }

    /// Everything that is held: `status`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn status(&self, env: Env) -> napi::Result<Submitted> {
        self.submit(env, || Ok(Call::Status))
    }

    /// Gives up every lock taken through this client, for good: `closed`.
    #[napi(catch_unwind, ts_return_type = "number | Failure")]
    pub fn close(&mut self, env: Env) -> napi::Result<Submitted> {
        let submitted = match std::mem::replace(&mut *locked(&self.line), Line::Closed) {
            Line::Open(client) => client.submit(Call::Close),
            Line::Unopened => {
                self.port.deliver(vec![Message::Answer(0, Ok(Reply::Closed))]);
                Ok(0)
            }
            Line::Closed => Err(closed()),
        };
        if let Some(hook) = self.at_exit.take() {
            env.remove_env_cleanup_hook(hook)?;
        }
        self.told(env, submitted)
    }

    /// The same at the exit of the process: waits a fraction of a second at most.
    #[napi(catch_unwind)]
    pub fn leave(&self) {
        if let Line::Open(client) = &*locked(&self.line) {
            client.leave();
        }
    }

    /// The descriptor by which a child process can inherit the life of this process's locks.
    #[napi(catch_unwind)]
    pub fn life_line(&self) -> Option<i32> {
        match &*locked(&self.line) {
            Line::Open(client) => client.life_line(),
            Line::Unopened | Line::Closed => None,
        }
    }

    fn submit(
        &self,
        env: Env,
        call: impl FnOnce() -> Result<Call, Error>,
    ) -> napi::Result<Submitted> {
        let submitted = call().and_then(|call| {
            let mut line = locked(&self.line);
            if let Line::Unopened = *line {
                let port: Arc<dyn Port> = Arc::clone(&self.port) as Arc<dyn Port>;
                *line = Line::Open(Engine::of(&self.root)?.client(port));
            }
            match &*line {
                Line::Open(client) => client.submit(call),
                Line::Unopened | Line::Closed => Err(closed()),
            }
        });
        self.told(env, submitted)
    }

    fn told(&self, env: Env, submitted: Result<u64, Error>) -> napi::Result<Submitted> {
        Ok(match submitted {
            Ok(ticket) => {
                self.port.expect_answer(env)?;
                Either::A(ticket as f64)
            }
            Err(error) => Either::B(told::failure(&error)),
        })
    }
}
