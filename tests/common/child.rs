//! Real processes: the test binary runs itself again, in a role.
//!
//! A file that needs them has one test that is none, `role`, which does nothing unless the process was
//! started by [`Child::start`]. What parent and child say to each other goes line by line through pipes.
//! A child ends at the latest when its parent does.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

const ROLE: &str = "STORYLOCK_TEST_ROLE";
const ROOT: &str = "STORYLOCK_TEST_PROJECT";
const ARGUMENT: &str = "STORYLOCK_TEST_ARGUMENT";
/// Sets what a role says apart from what the test harness prints around it.
const MARK: &str = "role says: ";

/// A process in a role.
pub struct Child {
    process: std::process::Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Starts this test binary in a role.
    pub fn start(role: &str, project: &Path, argument: &str) -> Child {
        Child::spawn(Child::command(role, project, argument))
    }

    /// The command that does, for those who change it first.
    pub fn command(role: &str, project: &Path, argument: &str) -> Command {
        Child::command_of("role", role, project, argument)
    }

    /// The same for a test that plays its own roles.
    pub fn command_of(test: &str, role: &str, project: &Path, argument: &str) -> Command {
        let binary = std::env::current_exe().expect("the path of this binary");
        let mut command = Command::new(binary);
        command
            .args(["--include-ignored", "--exact", test, "--nocapture", "--test-threads=1"])
            .envs([(ROLE, role), (ARGUMENT, argument)])
            .env(ROOT, project);
        command
    }

    /// Starts the changed command.
    pub fn spawn(mut command: Command) -> Child {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("a child process");
        let input = process.stdin.take().expect("a piped stdin");
        let output = BufReader::new(process.stdout.take().expect("a piped stdout"));
        let (says, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(MARK)
                    && says.send(said.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Child { process, input, lines }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next thing that the role says.
    pub fn hear(&mut self) -> String {
        let heard = self.lines.recv_timeout(PATIENCE);
        heard.expect("the child process ended, or says nothing: see its output above")
    }

    /// All that it still says until it ends.
    pub fn hear_out(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok()).collect()
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("a child process that listens");
    }

    /// Kills it, and waits until the kernel has done so.
    pub fn kill(&mut self) {
        self.begin_kill();
        self.process.wait().expect("reaped");
    }

    /// Kills it, for those who wait for it themselves.
    pub fn begin_kill(&mut self) {
        self.process.kill().expect("killed");
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self) -> bool {
        self.process.wait().expect("reaped").success()
    }

    /// Stops it, as Ctrl-Z does, and waits until it stands.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        super::until("the child process stands still", || self.state() == 'T');
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("a child process to signal");
    }

    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.expect("the state of a child process");
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("a state")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has mostly ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What this process is to play.
pub struct Role {
    pub name: String,
    pub root: PathBuf,
    pub argument: String,
    lines: Receiver<String>,
}

/// The role of this process, if it was started in one.
pub fn role() -> Option<Role> {
    let name = std::env::var(ROLE).ok()?;
    let root = std::env::var_os(ROOT).map(PathBuf::from)?;
    let argument = std::env::var(ARGUMENT).ok()?;
    let (says, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if says.send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    Some(Role { name, root, argument, lines })
}

impl Role {
    pub fn say(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        // Begun anew, since the harness may have begun a line of its own.
        let written = writeln!(out, "\n{MARK}{line}").and_then(|()| out.flush());
        written.expect("a parent that listens");
    }

    pub fn hear(&self) -> String {
        self.lines.recv().expect("ended with its parent")
    }

    /// Stays as it is until it is killed.
    pub fn stay(&self) -> ! {
        loop {
            std::thread::park();
        }
    }
}
