//! Statements: each is written down before it is sent, and when it ends; and so is what refuses it, or who agrees.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use policy::Named;
use protocol::postgres::{Event, Outcome, Refusal};
use record::{Event as Recorded, List, Params as RecordedParams};

use super::{Front, Lost, Observer, Running};
use crate::{
    audit::{AuditEvent, Durability, Facts, Kind, RecordingLost, Value, statement_hash},
    session::scope::About,
    telemetry::{Phase, Verdict as VerdictLabel},
};

/// Rows are handed to the recording in runs of about this many bytes.
const ROWS: usize = 16 * 1024;

impl Observer {
    /// A statement was refused.
    ///
    /// # Errors
    /// Fails when the refusal cannot be written down.
    pub fn denied(
        &mut self,
        sql: &str,
        about: &About,
        refusal: &Refusal,
        took: Duration,
    ) -> Result<(), Lost> {
        about.decided.iter().for_each(|counter| counter.inc());
        let n = self.next_number();
        let now = self.now();
        if let Some(recorder) = &mut self.recorder {
            let statement = Recorded::Statement {
                n,
                sql: sql.into(),
                params: RecordedParams::None,
                verdict: record::Verdict::Deny,
                rules: List::Shared(&about.rules),
                approval: None,
            };
            let kept = recorder.append(now, &statement);
            self.kept(kept)?;
        }
        let facts = Facts::statement(
            "deny",
            &about.rules,
            &about.kinds.join(","),
            Some(sql),
            false,
            &[],
            Some(&refusal.message),
        );
        self.shared.audit.log(&AuditEvent {
            facts: Some(&facts),
            latency: Some(took),
            sqlstate: Some(refusal.sqlstate),
            ..self.line(Kind::Decision)
        })?;
        Ok(())
    }

    /// What the server is at: run, number of the statement, its decision, whether anything is queued behind it.
    pub fn front(&self) -> Option<Front<'_>> {
        let of = self.running.front()?;
        Some(Front {
            run: of.run,
            n: of.n,
            began: of.began,
            alone: self.running.len() == 1,
            decision: &of.decision,
        })
    }

    /// A statement asked a human, or was answered.
    ///
    /// # Errors
    /// Fails when it cannot be written down; then nobody is asked, and no answer counts.
    pub fn approval(&mut self, id: &Arc<str>, outcome: &str, by: &[String]) -> Result<(), Lost> {
        // The statement that waits comes next.
        let n = self.live.statements.load(Ordering::Relaxed) + 1;
        let now = self.now();
        if let Some(recorder) = &mut self.recorder {
            let event = Recorded::Approval {
                n,
                id: (&**id).into(),
                outcome: outcome.into(),
                by: List::Owned(by.to_vec()),
            };
            let kept = recorder.append(now, &event);
            self.kept(kept)?;
        }
        let kind = if outcome == "asked" { Kind::ApprovalAsked } else { Kind::ApprovalAnswered };
        let by = by.join(", ");
        let extra =
            [("approval", Value::Text(id)), ("outcome", Value::Text(outcome)), ("by", Value::Text(&by))];
        self.shared.audit.log(&AuditEvent { extra: &extra, ..self.line(kind) })?;
        Ok(())
    }

    /// Something happened. True: what names mean has changed.
    ///
    /// # Errors
    /// Fails when it cannot be written down; then it must not reach the other side.
    pub fn event(&mut self, event: &Event<'_>) -> Result<bool, Lost> {
        match *event {
            Event::Started { run, decision, sql, params, .. } => {
                // Its audit line is written when it ends.
                self.shared.audit.ready()?;
                let at = Instant::now();
                let Some(about) = decision.context.clone().downcast::<About>().ok() else {
                    return Err(RecordingLost::Failed.into());
                };
                let n = self.next_number();
                let now = self.since_began(at);
                if let Some(recorder) = &mut self.recorder {
                    let values: Vec<_>;
                    let statement = Recorded::Statement {
                        n,
                        sql: sql.into(),
                        params: if params.is_empty() {
                            RecordedParams::None
                        } else {
                            values = params.iter().map(|p| p.value).collect();
                            RecordedParams::Shared(&values)
                        },
                        verdict: match about.approval {
                            Some(_) => record::Verdict::Approved,
                            None => record::Verdict::Allow,
                        },
                        rules: List::Shared(&about.rules),
                        approval: about.approval.as_ref().map(|a| (&*a.id).into()),
                    };
                    let kept = recorder.append(now, &statement);
                    self.kept(kept)?;
                    self.unsettled = self.shared.recorder.durability() == Durability::Each;
                }
                let defines = decision.statements.iter().any(|s| s.defines.is_some()).then(|| sql.to_owned());
                let hash = about.many_texts.then(|| statement_hash(sql));
                self.running.push_back(Running {
                    run,
                    n,
                    hash,
                    about,
                    began: at,
                    defines,
                    decision: Arc::clone(decision),
                });
                Ok(false)
            }
            Event::Finished { run, index, outcome, rows, bytes, masked } => {
                self.finished(run, index, outcome, rows, bytes, masked)
            }
            Event::Columns { run, columns, .. } => {
                let n = self.number(run);
                let names = columns.names().map(str::to_owned).collect();
                self.append(&Recorded::Columns { n, names: List::Owned(names) })?;
                Ok(false)
            }
            Event::Row { run, row, .. } => {
                record::text::push_row(&mut self.rows, row.cells());
                self.flush_rows(run, ROWS)?;
                Ok(false)
            }
            Event::Copy { run, data, .. } => {
                self.rows.extend_from_slice(data);
                self.flush_rows(run, ROWS)?;
                Ok(false)
            }
            Event::Refused { sqlstate, message } => {
                let facts = Facts::verdict("deny", &["builtin:protocol".into()], Some(message));
                self.shared.metrics.decided(VerdictLabel::Deny, &["builtin:protocol".into()]);
                self.shared.audit.log(&AuditEvent {
                    facts: Some(&facts),
                    sqlstate: Some(sqlstate),
                    ..self.line(Kind::Decision)
                })?;
                Ok(false)
            }
        }
    }

    fn finished(
        &mut self,
        run: u64,
        index: usize,
        outcome: Outcome<'_>,
        rows: u64,
        bytes: u64,
        masked: u64,
    ) -> Result<bool, Lost> {
        self.flush_rows(run, 0)?;
        while self.running.front().is_some_and(|r| r.run < run) {
            self.running.pop_front();
        }
        let Some(running) = self.running.front().filter(|r| r.run == run) else { return Ok(false) };
        let n = running.n;
        let about = Arc::clone(&running.about);
        let hash = running.hash;
        let at = Instant::now();
        let took = at.saturating_duration_since(running.began);
        let (tag, sqlstate) = match outcome {
            Outcome::Done { tag } => (tag, None),
            Outcome::Suspended => ("SUSPENDED", None),
            Outcome::Failed { sqlstate } => ("", Some(sqlstate)),
            Outcome::Skipped => ("SKIPPED", None),
            Outcome::Limited => ("LIMITED", None),
        };
        let done = matches!(outcome, Outcome::Done { .. });
        if done
            && let Some(sql) = &running.defines
            && let Some(name) = running.decision.statements.get(index).and_then(|s| s.defines.clone())
        {
            self.defined.insert(name, sql.clone());
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // A run is over with its last statement, or with the first that did not end well.
        let last = index + 1 >= running.decision.statements.len() && !running.decision.open;
        if !matches!(outcome, Outcome::Done { .. }) || last {
            self.running.pop_front();
        }
        let finished = Recorded::Finished {
            n,
            tag: tag.into(),
            rows,
            bytes,
            sqlstate: sqlstate.map(Into::into),
            micros,
            masked,
        };
        self.append_at(at, &finished)?;
        let metrics = &self.shared.metrics;
        about.decided.iter().for_each(|counter| counter.inc());
        metrics.masked_cells.inc_by(masked);
        metrics.observe(Phase::Statement, took);
        // At most one of them: who agreed, agreed to one text.
        let last = match (&about.approval, &hash) {
            (Some(approval), _) => Some(("approval", Value::Text(&approval.id))),
            (None, Some(hash)) => Some(("statement_hash", Value::Hash(hash))),
            (None, None) => None,
        };
        let extra = [
            ("rows", Value::Number(rows)),
            ("bytes", Value::Number(bytes)),
            ("masked", Value::Number(masked)),
            ("outcome", Value::Text(tag)),
            last.unwrap_or(("", Value::Bool(false))),
        ];
        let extra = extra.get(..if last.is_some() { 5 } else { 4 }).unwrap_or_default();
        self.shared.audit.log_ended(&AuditEvent {
            facts: Some(&about.facts),
            latency: Some(took),
            sqlstate,
            extra,
            ..self.line(Kind::Decision)
        })?;
        if !done {
            return Ok(false);
        }
        let changed = about.changes_catalogue || (self.uncommitted_ddl && tag == "COMMIT");
        self.uncommitted_ddl = about.changes_catalogue;
        Ok(changed)
    }

    /// The text that SQL gave this name to.
    pub fn defined(&self, name: &Named) -> Option<String> {
        self.defined.get(name).cloned()
    }

    fn next_number(&self) -> u64 {
        self.live.statements.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn number(&self, run: u64) -> u64 {
        self.running.iter().find(|r| r.run == run).map_or(0, |r| r.n)
    }

    fn flush_rows(&mut self, run: u64, above: usize) -> Result<(), Lost> {
        if self.rows.len() <= above {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let kept = self.append(&Recorded::Rows { n: self.number(run), data: rows.as_slice().into() });
        self.rows = rows;
        self.rows.clear();
        kept
    }
}
