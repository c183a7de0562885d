//! What happens between two system calls: each of them, in one run after another.
//!
//! The child asks to be traced and marks where its deed begins and ends. The parent lets it go from system
//! call to system call up to the one that it was told; there it kills the child, so that the call is never
//! made, or does something of its own before the child goes on.

use std::ffi::{c_int, c_long, c_uint, c_void};

use super::child::{Child, Role};

const TRACE_ME: c_uint = 0;
const LET_GO: c_uint = 17;
const GO_TO_NEXT_CALL: c_uint = 24;
const SET_OPTIONS: c_uint = 0x4200;
/// Marks the stops at system calls in the status.
const MARK_CALLS: usize = 1;
const STOPPED_AT_CALL: c_int = 5 | 0x80;
const SIGSTOP: c_int = 19;
const EVERY_THREAD: c_int = 0x4000_0000;

unsafe extern "C" {
    fn ptrace(request: c_uint, ...) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn raise(signal: c_int) -> c_int;
}

/// The child: does this deed under the eyes of its parent.
pub fn traced<T>(role: &Role, deed: impl FnOnce() -> T) -> T {
    // "4711/task/4712"
    let thread = std::fs::read_link("/proc/thread-self").expect("this thread's folder");
    role.say(&thread.file_name().expect("its number").to_string_lossy());
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: it takes no pointer that it follows.
    let asked = unsafe { ptrace(TRACE_ME, 0, none, none) };
    role.say(if asked == 0 { "traced" } else { "untraceable" });
    // SAFETY: a stop is no danger to memory.
    let mark = || unsafe { raise(SIGSTOP) };
    mark();
    let done = deed();
    mark();
    done
}

/// How a traced deed went.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It was stopped before this system call of its own, counted from 0.
    At(usize),
    /// It was done before that, in this many system calls.
    Done(usize),
    /// Nobody may trace here.
    Untraceable,
}

/// The parent: follows the deed of a child and kills it before the system call of this number.
pub fn killed_before(child: &mut Child, number: usize) -> End {
    let Some(thread) = begin(child) else { return End::Untraceable };
    let end = follow(thread, 0, number);
    child.begin_kill();
    // A traced thread stays until its tracer has seen it end.
    while stop(thread).is_some() {}
    child.kill();
    end
}

/// The parent: follows the deed of a child, does its own deed before the system call of this number, and
/// lets the child go on to its end.
pub fn interrupted_before(child: &mut Child, number: usize, interrupt: impl FnOnce()) -> End {
    let Some(thread) = begin(child) else { return End::Untraceable };
    let end = follow(thread, 0, number);
    if matches!(end, End::At(_)) {
        interrupt();
        let rest = follow(thread, number, usize::MAX);
        assert!(matches!(rest, End::Done(_)), "{rest:?}");
    }
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: as in `begin`; the signal that it stopped at is not handed on.
    assert_eq!(unsafe { ptrace(LET_GO, thread, none, none) }, 0);
    end
}

/// Waits for the beginning of the deed; the thread that does it, unless nobody may trace here.
fn begin(child: &mut Child) -> Option<c_int> {
    let thread: c_int = child.hear().parse().expect("a thread's number");
    if child.hear() != "traced" {
        child.kill();
        return None;
    }
    assert_eq!(stop(thread), Some(SIGSTOP), "the deed begins with a stop");
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: it takes no pointer that it follows, and is asked of a child that stands still, by the
    // thread that started it.
    assert_eq!(unsafe { ptrace(SET_OPTIONS, thread, none, MARK_CALLS) }, 0);
    Some(thread)
}

/// Lets the deed go on from its system call of this number to before that one, or to its end.
fn follow(thread: c_int, from: usize, to: usize) -> End {
    let none = std::ptr::null_mut::<c_void>();
    let mut calls = from;
    // It stands at the entry of a call, unless it is at the beginning.
    let mut is_entry = from == 0;
    loop {
        // SAFETY: as in `begin`.
        assert_eq!(unsafe { ptrace(GO_TO_NEXT_CALL, thread, none, none) }, 0);
        match stop(thread) {
            Some(STOPPED_AT_CALL) if is_entry && calls == to => return End::At(calls),
            Some(STOPPED_AT_CALL) => {
                calls += usize::from(is_entry);
                is_entry = !is_entry;
            }
            Some(SIGSTOP) => return End::Done(calls),
            other => unreachable!("the deed ended by itself: {other:?}"),
        }
    }
}

/// Waits for the next stop of a thread; which signal made it, or `None` when it has ended.
fn stop(thread: c_int) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: the status is a place of the right type that lives until the call is over.
    let waited = unsafe { waitpid(thread, &raw mut status, EVERY_THREAD) };
    assert_eq!(waited, thread, "a thread to wait for");
    (status & 0xFF == 0x7F).then_some(status >> 8 & 0xFF)
}
