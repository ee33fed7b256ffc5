//! Every way around that we know of, by its number in the threat table, and what became of it.
//!
//! `closed` means that something on this host refuses it and that a test here, or one it names elsewhere, tries
//! it. Where nothing local can close a part of it, SECURITY.md says so in the very sentence quoted here.
//! `closed with LSM` is closed where the kernel runs BPF LSM programs; for the rest SECURITY.md has the sentence.

use std::{collections::BTreeMap, path::Path};

use crate::vectors::{self, Place};

pub(crate) struct Row {
    pub(crate) number: u8,
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// What closes it, in the words of the architecture.
    pub(crate) by: &'static str,
    pub(crate) state: State,
    /// Tests outside this program: file below the workspace, function.
    pub(crate) elsewhere: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    /// With the exception that this sentence of SECURITY.md states.
    ClosedExcept(&'static str),
    /// Without the LSM tier: this sentence of SECURITY.md.
    ClosedWithLsm(&'static str),
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed | Self::ClosedExcept(_) => "closed",
            Self::ClosedWithLsm(_) => "closed with LSM",
        }
    }

    fn sentence(self) -> Option<&'static str> {
        match self {
            Self::Closed => None,
            Self::ClosedExcept(sentence) | Self::ClosedWithLsm(sentence) => Some(sentence),
        }
    }
}

const fn row(number: u8, id: &'static str, name: &'static str, by: &'static str) -> Row {
    Row { number, id, name, by, state: State::Closed, elsewhere: &[] }
}

const fn or(row: Row, state: State) -> Row {
    Row { state, ..row }
}

const fn also(row: Row, elsewhere: &'static [(&'static str, &'static str)]) -> Row {
    Row { elsewhere, ..row }
}

const LSM_FAMILIES: State =
    State::ClosedWithLsm("AF_VSOCK (any user) and AF_PACKET (CAP_NET_RAW) sockets pass no cgroup hook.");

const LOCAL_DOORS: State = State::ClosedWithLsm(
    "Where the kernel runs no BPF LSM programs, unix sockets (a container engine's, an agent's), ptrace between processes \
     of one user and passed file descriptors are open to a job that a runner's hook enrolled.",
);

const HIDDEN: &[(&str, &str)] = &[("tests/e2e/exec/files.rs", "no_socket_of_the_host_is_reachable")];
const FILTERED: &[(&str, &str)] =
    &[("tests/e2e/exec/kernel.rs", "families_and_calls_that_go_around_the_hooks_are_refused")];
const OUT_OF_REACH: &[(&str, &str)] =
    &[("tests/e2e/exec/lifecycle.rs", "processes_of_other_jobs_are_out_of_reach")];
const PASSED: &[(&str, &str)] =
    &[("tests/e2e/exec/users.rs", "descriptors_that_lead_out_are_refused_or_closed")];

const ROOT_IN_A_JOB: State = State::ClosedExcept(
    "Root in a job (also without CAP_SYS_ADMIN) can leave its cgroup, and open and detach what root has pinned.",
);

const NETWORK: &str = "tests/e2e/postgres/network.rs";
const IDENTITY: &str = "tests/e2e/postgres/identity.rs";
const FUNCTIONS: &str = "gateway-agent/crates/policy/src/functions.rs";
const STATEMENTS: &str = "gateway-agent/crates/protocol/src/postgres/sql/tests/statements.rs";

pub(crate) const ROWS: &[Row] = &[
    row(1, "ipv6", "plain IPv6", "connect6, egress"),
    row(2, "mapped-tcp", "v4-mapped IPv6, TCP", "one form for every address in connect6"),
    row(3, "mapped-udp", "v4-mapped IPv6, UDP", "sendmsg4 and connect6 judge alike"),
    row(4, "v4-on-v6", "an AF_INET address on an IPv6 socket", "both families' hooks"),
    row(5, "unspecified", "0.0.0.0 and :: reach loopback", "normalised; loopback is denied by default"),
    row(6, "translators", "NAT64, 6to4, ISATAP, Teredo", "canonicalised or refused"),
    row(
        7,
        "routing-header",
        "IPv6 routing headers, IPv4 source routes",
        "setsockopt; egress judges the real packet",
    ),
    row(8, "fast-open", "TCP Fast Open", "connect hooks"),
    row(9, "mptcp", "MPTCP and its subflows", "sock_create refuses it"),
    row(10, "exotic", "SCTP, DCCP, L2TP, SMC, RxRPC, TIPC, RDS", "sock_create; LSM for other families"),
    row(11, "udp-lite", "UDP-Lite passes no connect hook", "sock_create, egress"),
    row(12, "icmp", "ping sockets, ICMP tunnels", "sock_create, egress"),
    row(13, "quic", "QUIC, DTLS, any UDP", "connect and sendmsg refuse what is not declared"),
    row(
        14,
        "dns",
        "DNS tunnels, DoH, DoT",
        "port 53 is the gateway's, whoever is asked; the rest is undeclared",
    ),
    row(15, "raw", "raw sockets, IP_HDRINCL", "sock_create, setsockopt, egress"),
    also(
        or(row(16, "packet", "AF_PACKET, AF_XDP", "no CAP_NET_RAW in jobs; LSM socket_create"), LSM_FAMILIES),
        FILTERED,
    ),
    also(or(row(17, "vsock", "AF_VSOCK", "LSM socket_create"), LSM_FAMILIES), FILTERED),
    row(18, "io-uring", "io_uring, with SQPOLL", "the same hooks run"),
    row(19, "compat", "x32 and 32-bit system calls", "hooks know no ABI"),
    also(
        or(
            row(
                20,
                "engines",
                "docker, containerd, podman, CRI sockets",
                "jobs made by `exec` see none; LSM unix_stream_connect",
            ),
            LOCAL_DOORS,
        ),
        HIDDEN,
    ),
    row(
        21,
        "daemons",
        "systemd-run, D-Bus, at, cron, ssh to localhost",
        "resources are closed to everyone but the gateway; LSM unix_stream_connect, unix_may_send",
    ),
    also(
        or(
            row(
                22,
                "agents",
                "ssh-agent, gpg-agent, Kerberos sockets",
                "the upstream's credential is the gateway's alone; LSM unix_stream_connect",
            ),
            LOCAL_DOORS,
        ),
        HIDDEN,
    ),
    also(
        or(
            row(
                23,
                "unix-database",
                "a database's unix socket",
                "jobs made by `exec` see none; LSM unix_stream_connect",
            ),
            LOCAL_DOORS,
        ),
        HIDDEN,
    ),
    row(24, "sudo", "sudo, su, PAM moving to a session scope", "resources are closed outside jobs"),
    row(25, "new-netns", "a user and network namespace of one's own", "an unknown namespace is refused"),
    row(26, "setns", "setns or veth into another namespace", "capabilities; an unknown namespace is refused"),
    or(
        row(
            27,
            "cgroup-procs",
            "writing cgroup.procs",
            "no delegation above the job; outside, resources are closed",
        ),
        ROOT_IN_A_JOB,
    ),
    row(28, "nested", "a nested cgroup changes the cgroup id", "the walk over ancestors"),
    row(
        29,
        "child-program",
        "a child cgroup attaches its own program",
        "links; the gateway's program judges last",
    ),
    also(
        row(30, "old-kernels", "cgroup v1 classifiers on kernels before 5.15", "refuses to start"),
        &[("tests/kernel/refusal.rs", "an_old_kernel_is_refused_by_name")],
    ),
    or(
        row(
            31,
            "detach",
            "detach, unpin, unmount the BPF file system",
            "links, 0700, the agent's own descriptors",
        ),
        ROOT_IN_A_JOB,
    ),
    also(
        or(
            row(
                32,
                "steal-socket",
                "pidfd_getfd and ptrace of another job's process",
                "a user of its own for each job; LSM ptrace_access_check, task_kill",
            ),
            LOCAL_DOORS,
        ),
        OUT_OF_REACH,
    ),
    also(
        or(
            row(
                33,
                "pass-socket",
                "a connected socket by SCM_RIGHTS from outside",
                "give jobs no socket to such a helper; LSM file_receive",
            ),
            LOCAL_DOORS,
        ),
        PASSED,
    ),
    row(34, "early-sockets", "sockets opened before enrolment", "stamps; egress judges the cgroup"),
    row(35, "inbound", "the outside connects in", "ingress, egress"),
    row(36, "source", "another source address or interface", "bind, setsockopt"),
    row(37, "marks", "SO_MARK, IP_TRANSPARENT, TCP_REPAIR", "no exemption has a mark; setsockopt"),
    row(38, "loopback", "services on loopback", "loopback is denied by default"),
    row(
        39,
        "forged-origin",
        "dialling the gateway by hand",
        "connect refuses; the gateway wants a kernel record",
    ),
    row(40, "metadata", "metadata services, link-local, multicast", "undeclared is refused"),
    also(
        row(
            41,
            "other-port",
            "PostgreSQL on :80, SSH on :443",
            "undeclared is refused; the protocol is confirmed",
        ),
        &[("tests/e2e/postgres/input.rs", "garbage_instead_of_a_login_is_refused")],
    ),
    also(
        row(42, "inner-tunnels", "tunnels inside an allowed protocol", "statements are decided one by one"),
        &[(STATEMENTS, "changes"), (FUNCTIONS, "what_acts_or_reaches_out_is_not")],
    ),
    row(
        43,
        "reconnect",
        "AF_UNSPEC, then another connect",
        "each connect is judged; the record is overwritten",
    ),
    row(44, "port-reuse", "source ports and TIME_WAIT", "records are keyed by socket cookie and taken once"),
    row(45, "map-flood", "floods until a record is evicted", "no LRU; quotas; a failed insert refuses"),
    row(46, "squat", "squatting the gateway's port", "sk_lookup; bind"),
    also(
        row(47, "crash", "a crash in mid-flight", "links stay; the heartbeat goes stale"),
        &[(NETWORK, "a_killed_gateway_stops_the_traffic_and_its_successor_serves_the_same_job")],
    ),
    row(48, "upgrade-gap", "the gap in an upgrade", "link update"),
    row(49, "re-pinning", "re-pinning wipes the maps", "pinned maps are taken over"),
    row(50, "id-reuse", "reuse of cgroup ids and pids", "64-bit cgroup ids"),
    row(51, "names", "exec, comm and argv", "never an identity"),
    also(
        row(
            52,
            "tokens",
            "stolen, replayed or misdirected tokens",
            "nonce, single use, audience, first bind",
        ),
        &[
            (IDENTITY, "bad_tokens_make_no_job"),
            (IDENTITY, "a_token_is_good_once"),
            (IDENTITY, "a_token_is_good_once_also_after_a_restart"),
            ("gateway-agent/tests/exec.rs", "a_token_in_the_environment_is_not_the_jobs"),
        ],
    ),
    row(53, "starving", "starving or killing the gateway", "dead, stopped or starved means closed"),
    row(
        54,
        "containers",
        "--cgroup-parent, --network host, --privileged",
        "resources are closed outside jobs, in every namespace",
    ),
];

/// The tests of each row, as `attempts` and scenarios.
fn tests() -> BTreeMap<u8, (usize, Vec<&'static str>)> {
    let nowhere = Place {
        cgroup: "/".into(),
        pin_dir: "/pins/gateway".into(),
        far: "/".into(),
        stream: "/".into(),
        datagram: "/".into(),
        neighbours: [0, 0],
    };
    let mut tests: BTreeMap<u8, (usize, Vec<&'static str>)> = BTreeMap::new();
    for attempt in vectors::attempts(&nowhere) {
        for row in attempt.rows {
            tests.entry(*row).or_default().0 += 1;
        }
    }
    for scenario in vectors::scenarios() {
        for row in scenario.rows {
            tests.entry(*row).or_default().1.push(scenario.name);
        }
    }
    tests
}

pub(crate) fn list() {
    let tests = tests();
    for row in ROWS {
        println!("{:>2}  {:<15} {:<15} {}", row.number, row.id, row.state.name(), row.name);
        println!("    by: {}", row.by);
        if let Some((attempts, scenarios)) = tests.get(&row.number) {
            let mut all = Vec::new();
            if *attempts > 0 {
                all.push(format!("{attempts} attempts (`cargo xtask test kernel {}`)", row.id));
            }
            all.extend(scenarios.iter().map(|name| (*name).to_owned()));
            println!("    tests: {}", all.join(", "));
        }
        for (file, test) in row.elsewhere {
            println!("    test: {file} {test}");
        }
        match row.state {
            State::Closed => {}
            State::ClosedExcept(sentence) => println!("    except: \"{sentence}\" (SECURITY.md)"),
            State::ClosedWithLsm(sentence) => println!("    without LSM: \"{sentence}\" (SECURITY.md)"),
        }
    }
    let count = |name: &str| ROWS.iter().filter(|row| row.state.name() == name).count();
    println!(
        "{} rows: {} closed, {} closed with the LSM tier",
        ROWS.len(),
        count("closed"),
        count("closed with LSM"),
    );
}

/// What is wrong with the registry itself: a row without a test, a sentence that SECURITY.md lacks.
pub(crate) fn faults() -> Vec<String> {
    let mut faults = Vec::new();
    let tests = tests();
    let security = words(include_str!("../../SECURITY.md"));
    for (position, row) in (1..).zip(ROWS) {
        if row.number != position {
            faults.push(format!("row {} stands in place {position}", row.number));
        }
        let tested = tests.contains_key(&row.number) || !row.elsewhere.is_empty();
        if !tested {
            faults.push(format!("row {} ({}) is called closed and has no test", row.number, row.id));
        }
        if let Some(sentence) = row.state.sentence()
            && !security.contains(&words(sentence))
        {
            faults.push(format!("row {} ({}): SECURITY.md does not say \"{sentence}\"", row.number, row.id));
        }
        for (file, test) in row.elsewhere {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            match std::fs::read_to_string(&path) {
                Ok(text) if text.contains(&format!("fn {test}")) => {}
                Ok(_) => faults.push(format!("row {}: {file} has no test {test}", row.number)),
                // Away from the sources, in a guest, there is nothing to compare with.
                Err(_) if !path.parent().is_some_and(Path::exists) => {}
                Err(error) => faults.push(format!("row {}: {file}: {error}", row.number)),
            }
        }
    }
    faults
}

/// With every run of white space as one blank.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
