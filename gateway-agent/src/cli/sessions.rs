//! `sessions`: what is connected, and an end to it.

use std::process::ExitCode;

use super::{Global, client::escape, print};
use crate::admin::api::{Kill, Session, Shown};

/// List live sessions, or end one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show what an SSH session's job is shown, while it runs
    Watch {
        id: String,
        /// Only this channel
        #[arg(long)]
        channel: Option<u64>,
        /// Control characters as they are: only for a terminal that may be written to by the host
        #[arg(long)]
        raw: bool,
    },
    /// End a session and its work upstream
    Kill {
        id: String,
        /// Shown to the client and in the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

impl Args {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        let client = global.client()?;
        if let Some(Action::Kill { id, reason }) = &self.action {
            client.delete(&format!("/v1/sessions/{}", escape(id)), &Kill { reason: reason.clone() })?;
            match global.json {
                true => print::json(&serde_json::json!({ "ended": id }))?,
                false => print::line(&format!("ended {id}"))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(Action::Watch { id, channel, raw }) = &self.action {
            client.lines(&format!("/v1/sessions/{}/watch", escape(id)), |line| {
                let shown: Shown = serde_json::from_slice(line).map_err(|e| e.to_string())?;
                if channel.is_some_and(|wanted| wanted != shown.channel) {
                    return Ok(());
                }
                let data = hex::decode(&shown.data).map_err(|e| e.to_string())?;
                let written = if global.json {
                    print::bytes(line)
                } else if *raw {
                    print::bytes(&data)
                } else {
                    print::bytes(plain(&data).as_bytes())
                };
                written.map_err(|e| e.to_string())
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let sessions: Vec<Session> = client.get("/v1/sessions")?;
        if global.json {
            print::json(&sessions)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = sessions
            .iter()
            .map(|s| {
                vec![
                    s.id.to_string(),
                    s.subject.to_string(),
                    format!("{}/{}", s.resource, s.database),
                    format!("{} ({})", s.command, s.pid),
                    s.state.clone(),
                    s.statements.to_string(),
                    print::ago(s.started),
                ]
            })
            .collect();
        let header = ["SESSION", "SUBJECT", "RESOURCE", "PROCESS", "STATE", "STATEMENTS", "STARTED"];
        print::table(&header, rows, "no sessions")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Without what drives a terminal.
fn plain(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}
