//! `--break HOOK`: a suite that passes without a hook does not test the hook.

use std::collections::BTreeSet;

use gateway_agent::kernel::Hook;

use crate::{
    attempt::Verdict,
    matrix::{self, State},
    options, scenario, vectors,
};

/// The mandatory hooks.
pub(crate) fn mandatory() -> Vec<Hook> {
    Hook::ALL.iter().copied().filter(|hook| !is_optional(*hook)).collect()
}

fn is_optional(hook: Hook) -> bool {
    gateway_agent::kernel::about(hook).optional
}

/// Runs the attempts with the hook taken off, and the scenarios when no attempt noticed; those that noticed.
pub(crate) fn noticed() -> Vec<String> {
    let mut names = BTreeSet::new();
    let run = matrix::run(State::Up, &|_| true);
    for outcome in run.outcomes {
        if let Verdict::Fail(_) = outcome.verdict {
            names.insert(format!("{:02} {}", outcome.rows[0], outcome.name));
        }
    }
    if !names.is_empty() {
        return names.into_iter().collect();
    }
    // The state of hooks is their subject, or they replace programs and so mend the hook.
    let about_hooks = [
        "every_mandatory_hook_is_on",
        "a_missing_hook_is_seen_on_every_job",
        "a_program_inside_the_job_is_seen",
        "released_jobs_are_free_and_uninstall_detaches",
        "swaps_under_a_hammer_leak_nothing_and_refuse_nothing",
    ];
    let scenarios: Vec<_> =
        vectors::scenarios().into_iter().filter(|scenario| !about_hooks.contains(&scenario.name)).collect();
    for report in scenario::run(&scenarios, options().threads, true) {
        if report.failure.is_some() {
            names.insert(format!("{:02} {}", report.scenario.rows[0], report.scenario.name));
        }
    }
    names.into_iter().collect()
}
