//! A program whose syncs ask the test first: they pass, fail, or are held while something is killed.
//!
//! A filter of the kernel (seccomp) hands the program's `fsync` and `fdatasync` to the test, which needs neither
//! another program nor any right for that. Every answer but "pass" is what a disk could say, or how long it could take.

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often a thread looks whether a held sync may go on.
const LOOK_MS: i32 = 5;

/// What becomes of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done as if nobody had looked.
    Pass,
    /// It fails with an input/output error, and is not done.
    Fail,
    /// It waits for another verdict.
    Hold,
}

type Rule = Box<dyn Fn(&Path) -> Verdict + Send>;

struct State {
    rule: Rule,
    failed: usize,
    held: Vec<PathBuf>,
}

/// The syncs of one program, however often it is started.
#[derive(Clone)]
pub(crate) struct Syncs(Arc<Mutex<State>>);

impl Syncs {
    /// Syncs that pass; `None`, and a line that says so, where the kernel has no such filters.
    pub(crate) fn new() -> Option<Self> {
        let state = State { rule: Box::new(|_| Verdict::Pass), failed: 0, held: Vec::new() };
        let syncs = Self(Arc::new(Mutex::new(state)));
        let mut probe = Command::new("true");
        let asking = syncs.prepare(&mut probe);
        match probe.status() {
            Ok(_) => {
                syncs.attend(asking);
                Some(syncs)
            }
            Err(error) => {
                eprintln!("NOT RUN: the system calls of a program cannot be filtered here: {error}");
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("not poisoned")
    }

    /// From now on this is the verdict on the sync of a file or folder; those that are held are judged again.
    pub(crate) fn judge(&self, rule: impl Fn(&Path) -> Verdict + Send + 'static) {
        self.state().rule = Box::new(rule);
    }

    /// Lets every sync pass.
    pub(crate) fn pass(&self) {
        self.judge(|_| Verdict::Pass);
    }

    /// How many have failed.
    pub(crate) fn failed(&self) -> usize {
        self.state().failed
    }

    /// Waits until one is held, and answers of what; `None` if that takes too long.
    pub(crate) fn wait_for_held(&self, patience: Duration) -> Option<PathBuf> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(path) = self.state().held.last() {
                return Some(path.clone());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    /// Has a program ask. The answer is to be given to [`attend`](Self::attend) once it is started.
    pub(crate) fn prepare(&self, command: &mut Command) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        // SAFETY: between fork and exec this makes three system calls, and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                let listener = filter_syncs()?;
                send_descriptor(theirs.as_raw_fd(), listener)
            });
        }
        ours
    }

    /// Answers a started program until it ends.
    pub(crate) fn attend(&self, asking: UnixStream) {
        let listener = receive_descriptor(asking.as_raw_fd()).expect("the program sent it before it began");
        let syncs = self.clone();
        // This thread ends with the program.
        std::thread::spawn(move || syncs.answer(&listener));
    }

    fn answer(&self, listener: &OwnedFd) {
        let mut held: Vec<(u64, PathBuf)> = Vec::new();
        loop {
            let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: it is one descriptor, and it is open.
            unsafe { libc::poll(&raw mut poll, 1, LOOK_MS) };
            if poll.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
                break;
            }
            let new = if poll.revents & libc::POLLIN == 0 { None } else { receive(listener) };
            for (id, path) in held.drain(..).chain(new).collect::<Vec<_>>() {
                match self.verdict(&path) {
                    Verdict::Hold => held.push((id, path)),
                    verdict => respond(listener, id, verdict),
                }
            }
            self.state().held = held.iter().map(|(_, path)| path.clone()).collect();
        }
        self.state().held.clear();
    }

    fn verdict(&self, path: &Path) -> Verdict {
        let mut state = self.state();
        let verdict = (state.rule)(path);
        state.failed += usize::from(verdict == Verdict::Fail);
        verdict
    }
}

/// The number of a call, as the filter compares it.
const fn number(call: libc::c_long) -> u32 {
    call as u32
}

/// From here on the calling thread and its descendants ask before they sync; answers where they do.
fn filter_syncs() -> io::Result<RawFd> {
    const fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
    // What is looked at begins with the number of the call.
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUALS, number(libc::SYS_fsync), 2, 0),
        step(EQUALS, number(libc::SYS_fdatasync), 1, 0),
        step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(ANSWER, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program is whole and outlives the call, which copies it.
    let listener = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 { Err(io::Error::last_os_error()) } else { Ok(listener as RawFd) }
}

/// The next call that asks, by its id, with what is to be synced; `None` if it is gone again.
fn receive(listener: &OwnedFd) -> Option<(u64, PathBuf)> {
    // SAFETY: it is made of numbers, and the kernel asks for zeros.
    let mut call: libc::seccomp_notif = unsafe { zeroed() };
    // SAFETY: the request is for a structure of this kind.
    let received =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    let path = std::fs::read_link(format!("/proc/{}/fd/{}", call.pid, call.data.args[0]));
    (received == 0).then(|| (call.id, path.unwrap_or_default()))
}

fn respond(listener: &OwnedFd, id: u64, verdict: Verdict) {
    let (error, flags) = match verdict {
        Verdict::Pass | Verdict::Hold => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Verdict::Fail => (-libc::EIO, 0),
    };
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the request is for a structure of this kind. Whoever asked may have been killed: then it fails.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
}

/// Room for one descriptor beside a message, aligned as its header must be.
type Beside = [u64; 4];

/// A message of one byte, with room beside it. The answer points to what is passed.
fn message(part: &mut libc::iovec, beside: &mut Beside) -> libc::msghdr {
    // SAFETY: it is made of numbers and pointers, and zeros stand for none.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = beside.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(beside) as _;
    message
}

fn send_descriptor(socket: RawFd, descriptor: RawFd) -> io::Result<()> {
    let (mut byte, mut beside) = ([0_u8], Beside::default());
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut message = message(&mut part, &mut beside);
    let length = size_of::<RawFd>() as u32;
    // SAFETY: there is room for a header and one descriptor, all of which outlive the call.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(length) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        libc::sendmsg(socket, &raw const message, 0)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive_descriptor(socket: RawFd) -> io::Result<OwnedFd> {
    let (mut byte, mut beside) = ([0_u8], Beside::default());
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut message = message(&mut part, &mut beside);
    // SAFETY: there is room for a header and one descriptor, all of which outlive the call. What is received
    // as a descriptor is one, and nobody else's.
    unsafe {
        if libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    }
}
