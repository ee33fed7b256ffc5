//! What to do with a result, from its first message on.

use std::sync::Arc;

use super::{
    Current, Mode, Planned, Session,
    backend::{Broken, Fate},
    events::{Counts, Ended},
    frontend::error,
    names::lock,
};
use crate::postgres::{
    Decision, Refusal,
    mask::{CopyOut, Formats, Plan, Source, copy_untouched, untouched},
    message::{Malformed, row_description},
    reply::Expect,
};

/// Plans kept for results that come again.
const PLANS: usize = 16;

impl Session {
    pub(super) fn row_description(&mut self, body: &[u8]) -> Result<Fate, Broken> {
        match self.queue.front() {
            Some(Expect::Query(run)) => {
                let decision = Arc::clone(&run.decision);
                self.begin(&decision, Source::Result(body), Counts::default())?;
                Ok(Fate::Relay)
            }
            Some(Expect::DescribeStatement(statement)) => {
                if let Some(statement) = statement {
                    *lock(&statement.text.columns) = Some(body.into());
                    statement.text.described.known();
                }
                self.advance();
                Ok(Fate::Relay)
            }
            Some(Expect::DescribePortal { portal, hidden }) => {
                let fate = if *hidden { Fate::Drop } else { Fate::Relay };
                if let Some(portal) = portal.as_ref().filter(|portal| portal.looked_at()) {
                    let mut state = lock(&portal.state);
                    state.columns = Some(body.into());
                    state.described.known();
                }
                self.advance();
                Ok(fate)
            }
            _ => Err("the server described a result that nobody asked for"),
        }
    }

    /// The first row of a portal that is executed.
    pub(super) fn first_row(&mut self) -> Result<Fate, Broken> {
        let Some(Expect::Execute { portal, run }) = self.queue.front() else {
            return Err("the server sent rows that nobody asked for");
        };
        let (portal, decision) = (Arc::clone(portal), Arc::clone(&run.decision));
        let (columns, used) = {
            let state = lock(&portal.state);
            (state.columns.clone(), state.used)
        };
        if let Some(columns) = columns {
            self.begin(&decision, Source::Result(&columns), used)?;
            return Ok(Fate::Again);
        }
        let columns = lock(&portal.statement.text.columns).clone();
        let source = match &columns {
            Some(columns) => Source::Statement(columns, &portal.formats),
            None => Source::Unknown,
        };
        self.begin(&decision, source, used)?;
        Ok(Fate::Again)
    }

    /// Decides about the rows of the current statement. `used` counts against its limits.
    fn begin(&mut self, decision: &Arc<Decision>, source: Source<'_>, used: Counts) -> Result<(), Broken> {
        let index = self.current.index;
        let Some(allowed) = decision.statement(index) else {
            return Err("the server sent a result of a statement that was not decided");
        };
        let obligations = &allowed.allow.obligations;
        self.current = Current { index, ..Current::default() };
        self.current.limits = remaining(obligations.limits, used);
        if untouched(obligations) {
            self.current.mode = Mode::Pass;
            return Ok(());
        }
        let plan = self.plan(decision, index, source)?;
        if plan.record
            && let Source::Result(columns) | Source::Statement(columns, _) = source
        {
            let mut names = Vec::new();
            row_description::columns(columns, |column| names.push(column.name)).map_err(malformed)?;
            let run = self.run_id();
            self.log.columns(run, index, names.into_iter());
        }
        self.current.mode = if plan.passes() { Mode::Pass } else { Mode::Rows(plan) };
        Ok(())
    }

    fn plan(
        &mut self,
        decision: &Arc<Decision>,
        index: usize,
        source: Source<'_>,
    ) -> Result<Arc<Plan>, Broken> {
        let (columns, formats): (&[u8], Option<&Formats>) = match source {
            Source::Result(columns) => (columns, None),
            Source::Statement(columns, formats) => (columns, Some(formats)),
            Source::Unknown => (&[], None),
        };
        let known = self.plans.iter().find(|known| {
            Arc::ptr_eq(&known.decision, decision)
                && known.index == index
                && known.formats.as_ref() == formats
                && *known.columns == *columns
        });
        if let Some(known) = known {
            return Ok(Arc::clone(&known.plan));
        }
        let Some(allowed) = decision.statement(index) else { return Err("no such statement") };
        let plan = Plan::new(&allowed.allow.obligations, source, &*self.origins).map_err(malformed)?;
        let plan = Arc::new(plan);
        if self.plans.len() >= PLANS {
            self.plans.remove(0);
        }
        self.plans.push(Planned {
            decision: Arc::clone(decision),
            index,
            columns: columns.into(),
            formats: formats.cloned(),
            plan: Arc::clone(&plan),
        });
        Ok(plan)
    }

    pub(super) fn copy_out(&mut self, body: &[u8]) -> Result<Fate, Broken> {
        let Some(Expect::Query(run) | Expect::Execute { run, .. }) = self.queue.front() else {
            return Err("the server sent data that nobody asked for");
        };
        let decision = Arc::clone(&run.decision);
        let index = self.current.index;
        let Some(allowed) = decision.statement(index) else {
            return Err("the server sent data of a statement that was not decided");
        };
        let obligations = &allowed.allow.obligations;
        self.current = Current { index, limits: obligations.limits, ..Current::default() };
        if copy_untouched(obligations) {
            self.current.mode = Mode::Pass;
            return Ok(Fate::Relay);
        }
        match CopyOut::new(obligations, allowed.copy.as_ref(), body) {
            Some(copy) => {
                self.current.mode = Mode::Copy(Box::new(copy));
                Ok(Fate::Relay)
            }
            None => {
                let refusal = Refusal {
                    sqlstate: Refusal::DENIED,
                    message: "the data is withheld: its format is not known, so it cannot be masked"
                        .to_owned(),
                    detail: None,
                    hint: Some("Use COPY with literal options, or SELECT.".to_owned()),
                };
                self.cut(&error(&refusal), Ended::Failed, Refusal::DENIED.as_bytes());
                Ok(Fate::Drop)
            }
        }
    }

    /// The current result reached a limit.
    pub(super) fn limit(&mut self) {
        let limits = self.current.limits;
        let by_rows = limits.rows.is_some_and(|rows| self.current.counts.rows >= rows);
        let what = if by_rows { "rows" } else { "bytes" };
        let allowed = match self.queue.front() {
            Some(Expect::Query(run) | Expect::Call(run) | Expect::Execute { run, .. }) => {
                run.decision.statement(self.current.index)
            }
            _ => None,
        };
        let set_by = allowed.and_then(|allowed| {
            let gates = allowed.allow.obligations.gates.as_ref()?;
            if by_rows { gates.rows.as_ref() } else { gates.bytes.as_ref() }
        });
        let rule = set_by.or_else(|| allowed?.rules.first()).map_or("builtin:limits", |rule| rule);
        let refusal = Refusal {
            sqlstate: "54000",
            message: format!("result cut off by policy rule {rule}: its limit of {what} is reached"),
            detail: Some(format!("{} rows were sent.", self.current.counts.rows)),
            hint: Some("Ask for less: add a LIMIT or a narrower WHERE.".to_owned()),
        };
        self.cut(&error(&refusal), Ended::Limited, b"");
    }
}

fn malformed(_: Malformed) -> Broken {
    "the server sent a malformed row description"
}

fn remaining(limits: policy::Limits, used: Counts) -> policy::Limits {
    policy::Limits {
        rows: limits.rows.map(|most| most.saturating_sub(used.rows)),
        bytes: limits.bytes.map(|most| most.saturating_sub(used.bytes)),
    }
}
