//! `approvals`: what waits for a human, and the human's answer.

use std::{collections::HashSet, process::ExitCode};

use super::{
    Global,
    client::{Client, ClientError, escape},
    print,
};
use crate::{
    admin::api::{Answer, ApprovalList},
    approval::{Record, State},
};

/// List, show and answer what waits for a human
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List waiting approvals
    List {
        /// Also those that are over
        #[arg(long)]
        all: bool,
    },
    /// Show everything about one
    Show {
        /// Its id, or an unambiguous beginning of at least four characters
        id: String,
    },
    /// Let it run, once, exactly as shown
    Approve {
        id: String,
        /// Kept with the approval and in the audit
        #[arg(long, short, default_value = "")]
        reason: String,
    },
    /// Refuse it
    Deny {
        id: String,
        /// Shown to the client
        #[arg(long, short, default_value = "")]
        reason: String,
    },
    /// Print approvals as they come and go, until interrupted
    Watch {
        /// End after the first one that waits has been printed
        #[arg(long)]
        first: bool,
    },
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let client = global.client()?;
        match &self.action {
            Action::List { all } => list(&client, global, *all)?,
            Action::Show { id } => {
                let record: Record = client.get(&format!("/v1/approvals/{}", escape(id)))?;
                show(&record, global)?;
            }
            Action::Approve { id, reason } => answer(&client, global, id, true, reason)?,
            Action::Deny { id, reason } => answer(&client, global, id, false, reason)?,
            Action::Watch { first } => watch(&client, global, *first)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(client: &Client, global: &Global, all: bool) -> anyhow::Result<()> {
    let found: ApprovalList = client.get(&format!("/v1/approvals?all={all}"))?;
    if global.json {
        return print::json(&found.approvals);
    }
    let rows = found
        .approvals
        .iter()
        .map(|r| {
            let yes = r.votes.iter().filter(|v| v.approve).count();
            let state = match r.state {
                State::Waiting => format!("waiting {yes}/{}, {}", r.quorum, print::left(r.expires)),
                other => other.word().to_owned(),
            };
            vec![
                r.id.to_string(),
                state,
                r.subject.to_string(),
                r.resource.to_string(),
                shorten(&r.statement),
                r.rules.join(", "),
            ]
        })
        .collect();
    print::table(&["ID", "STATE", "SUBJECT", "RESOURCE", "STATEMENT", "RULES"], rows, "nothing waits")
}

fn answer(client: &Client, global: &Global, id: &str, approve: bool, reason: &str) -> anyhow::Result<()> {
    let body = Answer { approve, reason: reason.to_owned() };
    let record: Record = client.post(&format!("/v1/approvals/{}", escape(id)), &body)?;
    if global.json {
        return print::json(&record);
    }
    let yes = record.votes.iter().filter(|v| v.approve).count();
    match record.state {
        State::Waiting => print::line(&format!("{}: {yes} of {} have agreed", record.id, record.quorum)),
        other => print::line(&format!("{}: {}", record.id, other.word())),
    }
}

fn show(r: &Record, global: &Global) -> anyhow::Result<()> {
    if global.json {
        return print::json(r);
    }
    let params = r
        .params
        .iter()
        .zip(1..)
        .map(|(p, i)| format!("${i} = {}", p.as_deref().unwrap_or("NULL")))
        .collect::<Vec<_>>();
    let votes = r
        .votes
        .iter()
        .map(|v| {
            let word = if v.approve { "yes" } else { "no" };
            format!("{} ({}): {word} {}", v.user, v.uid, v.reason)
        })
        .collect::<Vec<_>>();
    print::pairs(&[
        ("approval", r.id.to_string()),
        ("state", r.state.word().to_owned()),
        ("statement", r.statement.clone()),
        ("parameters", if params.is_empty() { "none".into() } else { params.join("\n") }),
        ("resource", r.resource.to_string()),
        ("subject", r.subject.to_string()),
        ("job", format!("{} {}", r.job, r.cgroup)),
        ("process", format!("{} (pid {}, uid {})", r.process.command, r.process.pid, r.process.uid)),
        ("session", r.session.to_string()),
        ("rules", r.rules.join(", ")),
        ("because", r.because.clone().unwrap_or_else(|| "the rule asks".into())),
        ("policy", r.policy_version.to_string()),
        ("approvers", format!("{} of {}", r.quorum, r.approvers.join(", "))),
        ("requested", print::ago(r.requested)),
        ("expires", print::left(r.expires)),
        ("bound to", r.hash.clone()),
        ("answers", if votes.is_empty() { "none yet".into() } else { votes.join("\n") }),
    ])
}

fn watch(client: &Client, global: &Global, first: bool) -> anyhow::Result<()> {
    let mut seen: HashSet<(std::sync::Arc<str>, &'static str, usize)> = HashSet::new();
    let mut path = "/v1/approvals?all=true".to_owned();
    let mut fresh = true;
    loop {
        let found: ApprovalList = match client.get(&path) {
            Ok(found) => found,
            // The daemon may be restarting.
            Err(ClientError::Unreachable { .. } | ClientError::Broken(_)) if !fresh => {
                std::thread::sleep(std::time::Duration::from_secs(1));
                path = "/v1/approvals?all=true".to_owned();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for r in &found.approvals {
            let new = seen.insert((r.id.clone(), r.state.word(), r.votes.len()));
            // What was over before is history, not news.
            if !new || (fresh && r.state != State::Waiting) {
                continue;
            }
            match global.json {
                true => print::line(&serde_json::to_string(r)?)?,
                false => print::line(&format!(
                    "{}  {:9}  {} on {}: {}",
                    r.id,
                    r.state.word(),
                    r.subject,
                    r.resource,
                    print::printable(&shorten(&r.statement))
                ))?,
            }
            if first && r.state == State::Waiting {
                return Ok(());
            }
        }
        let ids: HashSet<_> = found.approvals.iter().map(|r| r.id.clone()).collect();
        seen.retain(|(id, _, _)| ids.contains(id));
        fresh = false;
        path = format!("/v1/approvals?all=true&after={}&wait=30", found.change);
    }
}

/// One line of a statement.
fn shorten(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
