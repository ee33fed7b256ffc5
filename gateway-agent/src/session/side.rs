//! The gateway's own questions about a session's statements: what they will cost, and who blocks them.
//!
//! Asked on connections beside the session's, so that neither an error nor a setting of the session has a part in the
//! answer. Shared by the sessions of a worker on one database with one login.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{Arg, Estimate, OwnSql, Permit, Planned, Resource};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Shared;
use crate::{
    credential::{Account, CredentialError},
    upstream::{OwnConnection, OwnError, Place, Target},
};

/// Connections at once.
const MOST: usize = 4;
/// Kept for the next question, up to this long.
const KEEP: Duration = Duration::from_secs(30);
/// An answer takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing that is asked here writes, runs long, or waits long for a lock.
const SETTINGS: &[(&str, &str)] =
    &[("default_transaction_read_only", "on"), ("statement_timeout", "5000"), ("lock_timeout", "2000")];

/// Questions that are not estimates.
struct Questions;

impl OwnSql for Questions {
    const SQL: &'static [&'static str] = &[
        // Where the server tells since when a backend waits (14 and newer), that; through json, for those that do not.
        "SELECT b.pid::text, a.usename::text, a.application_name, a.state, l.locktype, l.mode, \
         l.relation::pg_catalog.regclass::text, \
         (extract(epoch FROM pg_catalog.clock_timestamp() \
          - (pg_catalog.to_jsonb(l) ->> 'waitstart')::timestamptz) * 1000)::pg_catalog.int8::text \
         FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({number})) AS b(pid) \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid \
         LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_locks \
          WHERE pg_locks.pid = {number} AND NOT granted LIMIT 1) l ON true LIMIT 20",
        // A backend that took the number over since is younger.
        "SELECT pg_catalog.pg_terminate_backend(pid)::text FROM pg_catalog.pg_stat_activity \
         WHERE pid = {number} AND backend_start < pg_catalog.clock_timestamp() \
          - {number} * interval '1 millisecond'",
    ];
}

/// Who holds the lock that a statement waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    pub pid: u32,
    pub user: String,
    pub application: String,
    /// As pg_stat_activity says: `active`, `idle in transaction`.
    pub state: String,
}

/// A statement that waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub by: Vec<Blocker>,
    /// What it waits for: `ShareLock on relation public.orders`.
    pub lock: String,
    /// How long the server says that it has waited.
    pub waited: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Own(#[from] OwnError),
}

/// Connections of one login to one database.
pub struct Side {
    shared: Arc<Shared>,
    resource: Arc<Resource>,
    place: Place,
    account: Account,
    idle: RefCell<Vec<(OwnConnection, Instant)>>,
    turns: Semaphore,
    /// Somebody closes what was kept long enough.
    swept: Cell<bool>,
    me: Weak<Self>,
}

impl Side {
    pub fn new(shared: Arc<Shared>, resource: Arc<Resource>, place: Place, account: Account) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            shared,
            resource,
            place,
            account,
            idle: RefCell::default(),
            turns: Semaphore::new(MOST),
            swept: Cell::new(false),
            me: Weak::clone(me),
        })
    }

    /// Whether it was made for this resource as it is now.
    pub fn serves(&self, resource: &Arc<Resource>) -> bool {
        self.resource == *resource
    }

    /// What an allowed statement is expected to cost. `types` and `params` as the client gave them.
    pub async fn plan(&self, permit: &Permit, sql: &str, types: &[u8], params: &[u8]) -> Planned {
        match self.estimate(permit, sql, types, params).await {
            Ok(json) => read_plan(&json),
            Err(SideError::Own(OwnError::Refused(sqlstate))) => Planned::Unknown(format!(
                "the server does not plan it beside the session (SQLSTATE {sqlstate}); what the session has not \
                 committed is not seen there"
            )),
            Err(error) => {
                tracing::warn!(%error, resource = %self.place.resource, "no estimate");
                Planned::Unknown("the server could not be asked".to_owned())
            }
        }
    }

    async fn estimate(
        &self,
        permit: &Permit,
        sql: &str,
        types: &[u8],
        params: &[u8],
    ) -> Result<String, SideError> {
        let _turn = self.turns.acquire().await;
        let mut kept = self.kept();
        loop {
            let (mut connection, fresh) = match kept.take() {
                Some(connection) => (connection, false),
                None => (self.open(permit).await?, true),
            };
            match connection.estimate(permit, sql, types, params, PATIENCE).await {
                // Closed while nobody looked.
                Err(error) if !fresh && !error.is_refusal() => continue,
                answer => return Ok(self.done(connection, answer)?),
            }
        }
    }

    /// Whom the backend waits for; `None` = for nobody.
    ///
    /// # Errors
    /// Fails when the server cannot be asked.
    pub async fn blocked(&self, permit: &Permit, pid: u32) -> Result<Option<Blocked>, SideError> {
        let pid = Arg::Number(pid.into());
        let rows = self.ask(permit, 0, &[pid, pid]).await?;
        let text = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let Some(first) = rows.first() else { return Ok(None) };
        let (mode, relation) = (text(first, 5), text(first, 6));
        let on = if relation.is_empty() { text(first, 4) } else { format!("{} {relation}", text(first, 4)) };
        Ok(Some(Blocked {
            by: rows
                .iter()
                .map(|row| Blocker {
                    pid: text(row, 0).parse().unwrap_or_default(),
                    user: text(row, 1),
                    application: text(row, 2),
                    state: text(row, 3),
                })
                .collect(),
            lock: format!("{mode} on {on}"),
            waited: text(first, 7).parse().ok().map(Duration::from_millis),
        }))
    }

    /// Ends a backend that is at least this old.
    ///
    /// # Errors
    /// Fails when the server cannot be asked.
    pub async fn terminate(&self, permit: &Permit, pid: u32, age: Duration) -> Result<(), SideError> {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.ask(permit, 1, &[Arg::Number(pid.into()), Arg::Number(age)]).await.map(drop)
    }

    async fn ask(
        &self,
        permit: &Permit,
        at: usize,
        args: &[Arg<'_>],
    ) -> Result<Vec<Vec<Option<String>>>, SideError> {
        let _turn = self.turns.acquire().await;
        let mut kept = self.kept();
        loop {
            let (mut connection, fresh) = match kept.take() {
                Some(connection) => (connection, false),
                None => (self.open(permit).await?, true),
            };
            match connection.run::<Questions>(at, args, PATIENCE).await {
                Err(error) if !fresh && !error.is_refusal() => continue,
                answer => return Ok(self.done(connection, answer)?),
            }
        }
    }

    async fn open(&self, permit: &Permit) -> Result<OwnConnection, SideError> {
        let login = self.account.login(permit, &self.resource)?;
        let to = Target {
            tls: &self.shared.tls,
            resource: &self.resource,
            place: &self.place,
            mask_key: &self.shared.mask_key,
        };
        Ok(OwnConnection::open(to, permit.own(), login, SETTINGS).await?)
    }

    fn kept(&self) -> Option<OwnConnection> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, since)| since.elapsed() < KEEP);
        idle.pop().map(|(connection, _)| connection)
    }

    /// Keeps the connection where it is still good.
    fn done<T>(&self, connection: OwnConnection, answer: Result<T, OwnError>) -> Result<T, OwnError> {
        if answer.as_ref().err().is_none_or(OwnError::is_refusal) {
            self.idle.borrow_mut().push((connection, Instant::now()));
            if !self.swept.replace(true) {
                tokio::task::spawn_local(sweep(Weak::clone(&self.me)));
            }
        }
        answer
    }
}

/// Closes connections that nobody asked for in time, until there are none.
async fn sweep(side: Weak<Side>) {
    loop {
        tokio::time::sleep(KEEP).await;
        let Some(side) = side.upgrade() else { return };
        let mut idle = side.idle.borrow_mut();
        idle.retain(|(_, since)| since.elapsed() < KEEP);
        if idle.is_empty() {
            side.swept.set(false);
            return;
        }
    }
}

/// EXPLAIN (FORMAT JSON): one entry a query, several where rules rewrite one into many.
fn read_plan(json: &str) -> Planned {
    let plans: Option<Vec<Value>> = serde_json::from_str(json).ok();
    let mut sum = Estimate { cost: 0.0, rows: 0 };
    let Some(plans) = plans.filter(|plans| !plans.is_empty()) else {
        return Planned::Unknown("the server's plan cannot be read".to_owned());
    };
    for query in &plans {
        let plan = &query["Plan"];
        let Some(cost) = plan["Total Cost"].as_f64() else {
            return Planned::Unknown("the server makes no plan for it".to_owned());
        };
        sum.cost += cost;
        sum.rows = sum.rows.max(rows(plan, true));
    }
    Planned::Estimate(sum)
}

/// The rows that come out, or that some part changes, whichever is more. `counts`: what this node yields does.
fn rows(plan: &Value, counts: bool) -> u64 {
    let changes = plan["Node Type"] == "ModifyTable";
    let own = match counts && !changes {
        // A fraction or a number that is none of these is as bad as can be.
        true => plan["Plan Rows"].as_u64().unwrap_or(u64::MAX),
        false => 0,
    };
    let below = plan["Plans"].as_array().map(Vec::as_slice).unwrap_or_default();
    let beside = |child: &Value| {
        child["Parent Relationship"] == "InitPlan" || child["Parent Relationship"] == "SubPlan"
    };
    below.iter().map(|child| rows(child, changes && !beside(child))).fold(own, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_that_come_out_or_are_changed() {
        let scan =
            |rows: u64| serde_json::json!({ "Node Type": "Seq Scan", "Plan Rows": rows, "Total Cost": 9.5 });
        let plan = |plan: Value| read_plan(&serde_json::json!([{ "Plan": plan }]).to_string());
        let expect = |cost, rows| Planned::Estimate(Estimate { cost, rows });
        assert_eq!(plan(scan(7)), expect(9.5, 7));
        let limit = serde_json::json!({ "Node Type": "Limit", "Plan Rows": 2, "Total Cost": 1.0, "Plans": [scan(1_000_000)] });
        assert_eq!(plan(limit), expect(1.0, 2));
        let delete = serde_json::json!({ "Node Type": "ModifyTable", "Plan Rows": 0, "Total Cost": 3.0, "Plans": [scan(500)] });
        assert_eq!(plan(delete.clone()), expect(3.0, 500));
        let mut with = delete;
        with["Parent Relationship"] = "InitPlan".into();
        let outer = serde_json::json!({ "Node Type": "CTE Scan", "Plan Rows": 1, "Total Cost": 4.0, "Plans": [with] });
        assert_eq!(plan(outer), expect(4.0, 500));
    }

    #[test]
    fn what_is_no_plan_is_no_estimate() {
        for text in ["", "[]", "{}", "[{\"Plan\": {}}]", "[\"Utility statements have no plan structure\"]"] {
            assert!(matches!(read_plan(text), Planned::Unknown(_)), "{text}");
        }
    }
}
