//! `status`: is enforcement on, and is anyone served.

use std::process::ExitCode;

use super::{Global, print};
use crate::{
    admin::api::{Hook, Status},
    kernel::{Mode, Probe, Verdict},
};

/// Show hooks, heartbeat, jobs, sessions and the policy in force
///
/// Ends 1 when the daemon is up but not serving.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let s: Status = global.client()?.get("/v1/status")?;
        let code = if s.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        if global.json {
            print::json(&s)?;
            return Ok(code);
        }
        let ready = match (&s.not_ready, s.ready) {
            (_, true) => "yes".to_owned(),
            (Some(why), false) => format!("no: {why}"),
            (None, false) => "no".to_owned(),
        };
        let heartbeat = match s.heartbeat_ms {
            Some(ms) if ms < 2000 => format!("{ms} ms ago"),
            Some(ms) => format!("{ms} ms ago: the kernel denies everything"),
            None => "none: the kernel denies everything".to_owned(),
        };
        print::pairs(&[
            ("serving", ready),
            (
                "daemon",
                format!("{} (pid {}), started {}", s.version, s.pid, print::ago(policy::UnixTime(s.started))),
            ),
            ("policy", format!("{} from {}", s.policy_version, s.policy_files.join(", "))),
            ("mode", mode(s.mode).to_owned()),
            ("sandbox", s.sandbox),
            ("below", s.cgroup_root),
            ("virtual port", s.virtual_port.to_string()),
            ("heartbeat", heartbeat),
            ("self-test", proved(&s.self_test)),
            (
                "hooks checked",
                s.hooks_checked.map_or("not yet".to_owned(), |at| print::ago(policy::UnixTime(at))),
            ),
            ("quarantined", listed(&s.quarantined)),
            ("jobs", s.jobs.to_string()),
            ("sessions", s.sessions.to_string()),
            ("approvals waiting", s.approvals_waiting.to_string()),
            ("events dropped", s.events_dropped.to_string()),
        ])?;
        let rows = s
            .hooks
            .into_iter()
            .map(|h| {
                let (state, detail) = match (h.on, h.mandatory) {
                    (true, _) => ("on", h.detail),
                    (false, true) => ("OFF", off(&h)),
                    (false, false) => ("off (optional)", off(&h)),
                };
                vec![h.name, state.to_owned(), h.since, detail]
            })
            .collect();
        print::table(&["HOOK", "STATE", "LINUX", "DETAIL"], rows, "no hooks reported")?;
        Ok(code)
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "OBSERVE: the kernel refuses nothing, it only reports what enforce would refuse",
    }
}

fn off(hook: &Hook) -> String {
    format!("{}; meanwhile {}", hook.detail, hook.without)
}

fn proved(probes: &[Probe]) -> String {
    let of = |verdict| probes.iter().filter(|probe| probe.verdict() == verdict).collect::<Vec<_>>();
    let open: Vec<&str> = of(Verdict::Open).iter().map(|probe| probe.path.as_str()).collect();
    match (probes.len(), open.is_empty()) {
        (0, _) => "not made".to_owned(),
        (_, true) => format!(
            "{} paths tried by a job and refused, {} not on this host",
            of(Verdict::Refused).len(),
            of(Verdict::Absent).len()
        ),
        (_, false) => format!("NOT REFUSED: {}", open.join(", ")),
    }
}

fn listed(jobs: &[u64]) -> String {
    match jobs {
        [] => "none".to_owned(),
        jobs => jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
