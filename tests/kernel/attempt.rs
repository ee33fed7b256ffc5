//! One way around, as data: what the job tries, and what has to become of it.

use std::{fmt, net::SocketAddr};

use gateway_agent::kernel::Reason;

use crate::{
    ask::{Answer, Ask, Step},
    ground::User,
};

/// What one user tries, and how it must end while the gateway is up. `matrix` derives the other states.
pub(crate) struct Attempt {
    /// Rows of the threat table that it belongs to; the first is its home.
    pub(crate) rows: &'static [u8],
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) plain: Expect,
    pub(crate) contained: Expect,
    /// The kernel may not know the socket at all.
    pub(crate) may_lack: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Expect {
    /// A hook refuses the last step with EPERM, and says one of these.
    Refused(Vec<Reason>),
    /// The packet does not leave, whatever the call says; the backstop says one of these.
    Dropped(Vec<Reason>),
    /// It ends in the gateway, which sees this destination, and the client sees what it dialled.
    Gateway { original: SocketAddr, shown: SocketAddr },
    /// The kernel itself refuses some step, with one of these.
    Kernel(&'static [i32]),
    /// As `Refused` where the LSM tier is on; without it nothing on this level closes it, and it is not tried.
    Lsm(Vec<Reason>),
    /// Not for this user.
    Skip(&'static str),
}

impl Attempt {
    pub(crate) fn expect(&self, user: User) -> &Expect {
        match user {
            User::Plain => &self.plain,
            User::Contained | User::Root => &self.contained,
        }
    }

    pub(crate) fn ask(&self) -> Ask {
        Ask::Script(self.steps.clone())
    }
}

/// Both users are refused with one of these reasons.
pub(crate) fn refused(
    rows: &'static [u8],
    name: impl Into<String>,
    steps: Vec<Step>,
    reasons: &[Reason],
) -> Attempt {
    let expect = Expect::Refused(reasons.to_vec());
    both(rows, name, steps, expect)
}

pub(crate) fn both(
    rows: &'static [u8],
    name: impl Into<String>,
    steps: Vec<Step>,
    expect: Expect,
) -> Attempt {
    Attempt { rows, name: name.into(), steps, plain: expect.clone(), contained: expect, may_lack: false }
}

impl Attempt {
    pub(crate) fn plain(mut self, expect: Expect) -> Self {
        self.plain = expect;
        self
    }

    pub(crate) fn contained(mut self, expect: Expect) -> Self {
        self.contained = expect;
        self
    }

    /// Old and small kernels do without the protocol.
    pub(crate) fn may_lack(mut self) -> Self {
        self.may_lack = true;
        self
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Not tried, or not there, and why.
    NotHere(String),
    Fail(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::NotHere(why) => write!(f, "not here: {why}"),
            Self::Fail(why) => write!(f, "FAIL: {why}"),
        }
    }
}

/// Errnos with which a kernel says that it has no such socket, option or call.
pub(crate) fn is_lack(errno: i32) -> bool {
    matches!(
        errno,
        libc::EAFNOSUPPORT
            | libc::EPROTONOSUPPORT
            | libc::ESOCKTNOSUPPORT
            | libc::ENOPROTOOPT
            | libc::ENOSYS
            | libc::EOPNOTSUPP
            // The process died of the call.
            | 0
    )
}

/// How long a refusal may take. Far below every timeout of the network, above what a loaded machine adds.
pub(crate) fn patience_micros() -> u64 {
    if crate::ground::emulated() { 5_000_000 } else { 700_000 }
}

/// Judges the answer alone: errno and latency. The wire and the events are the matrix's.
/// With the gateway dead, a script may already end at a step that would have been served.
pub(crate) fn answered(
    expect: &Expect,
    answer: &Answer,
    may_lack: bool,
    steps: usize,
    dead: bool,
) -> Verdict {
    if let Answer::Failed { errno, .. } = answer
        && may_lack
        && is_lack(*errno)
    {
        return Verdict::NotHere(format!("this kernel has none (errno {errno})"));
    }
    match (expect, answer) {
        (Expect::Refused(_) | Expect::Lsm(_), Answer::Failed { errno: libc::EPERM, micros, step })
            if dead || *step + 1 == steps =>
        {
            if *micros > patience_micros() {
                return Verdict::Fail(format!("refused after {micros} µs only: a timeout is no refusal"));
            }
            Verdict::Pass
        }
        (Expect::Refused(_), Answer::Failed { errno: libc::ECONNREFUSED, step, .. })
            if dead && *step + 1 < steps =>
        {
            Verdict::Pass
        }
        (Expect::Dropped(_), Answer::Done { .. }) => Verdict::Pass,
        (Expect::Dropped(_), Answer::Failed { errno: libc::EINVAL, .. }) => {
            Verdict::NotHere("this kernel builds no such packet".into())
        }
        (
            Expect::Dropped(_),
            Answer::Failed { errno: libc::EPERM | libc::ETIMEDOUT | libc::ECONNREFUSED, .. },
        ) => Verdict::Pass,
        (Expect::Kernel(errnos), Answer::Failed { errno, .. }) if errnos.contains(errno) => Verdict::Pass,
        (Expect::Gateway { shown, .. }, Answer::Done { peer: Some(peer), .. }) if peer == shown => {
            Verdict::Pass
        }
        (expect, answer) => Verdict::Fail(format!("expected {expect:?}, got {answer:?}")),
    }
}
