//! The embedded store.

use std::{
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use policy::UnixTime;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{SessionRow, StateError, Store, UidUse, Write};
use crate::{approval, credential::RoleRow, identity::Job};

/// One entry per schema version, never changed once released.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE jobs (
        cgroup_id INTEGER PRIMARY KEY,
        boot TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE tokens (
        issuer TEXT NOT NULL,
        jti TEXT NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (issuer, jti)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tokens_until ON tokens (until);
    CREATE TABLE approvals (
        id TEXT PRIMARY KEY,
        requested INTEGER NOT NULL,
        state TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX approvals_requested ON approvals (requested);
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        started INTEGER NOT NULL,
        open INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX sessions_started ON sessions (started);
",
    "
    CREATE TABLE uids (
        uid INTEGER PRIMARY KEY,
        cgroup_id INTEGER,
        boot TEXT NOT NULL,
        number INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX uids_cgroup ON uids (cgroup_id) WHERE cgroup_id IS NOT NULL;
",
    "
    CREATE TABLE roles (
        name TEXT PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE host (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        id TEXT NOT NULL
    ) STRICT;
",
];

/// Rows of history kept; older ones are deleted as new ones come.
const KEEP_SESSIONS: i64 = 100_000;
const KEEP_APPROVALS: i64 = 10_000;

/// SQLite in WAL mode, synchronous=FULL: what was answered is on disk.
pub struct SqliteStore {
    connection: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens or makes the file (0600) and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Open { path: path.display().to_string(), source };
        // SQLite gives its -wal and -shm files the mode of the main one.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .and_then(|f| f.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)))
            .map_err(io)?;
        Self::prepare(Connection::open(path)?)
    }

    /// For tests of other modules; forgets everything when dropped.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::prepare(Connection::open_in_memory().unwrap()).unwrap()
    }

    fn prepare(mut connection: Connection) -> Result<Self, StateError> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let found: u32 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
        let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
        if found > known {
            return Err(StateError::Newer { found, known });
        }
        for (version, sql) in (1u32..).zip(MIGRATIONS).filter(|(v, _)| *v > found) {
            let tx = connection.transaction()?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", version)?;
            tx.commit()?;
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // A panic between statements of a transaction rolls it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bodies<T: DeserializeOwned>(
        &self,
        what: &'static str,
        sql: &str,
        args: impl rusqlite::Params,
    ) -> Result<Vec<T>, StateError> {
        let db = self.db();
        let mut statement = db.prepare_cached(sql)?;
        let rows = statement.query_map(args, |r: &Row<'_>| r.get::<_, String>(0))?;
        rows.map(|body| read(what, &body?)).collect()
    }
}

fn read<T: DeserializeOwned>(what: &'static str, body: &str) -> Result<T, StateError> {
    serde_json::from_str(body).map_err(|source| StateError::Corrupt { what, source })
}

fn write<T: Serialize>(what: &'static str, value: &T) -> Result<String, StateError> {
    serde_json::to_string(value).map_err(|source| StateError::Corrupt { what, source })
}

/// SQLite's integers are signed; ids keep their bits, times fit.
fn signed(n: u64) -> i64 {
    i64::from_ne_bytes(n.to_ne_bytes())
}

fn unsigned(n: i64) -> u64 {
    u64::from_ne_bytes(n.to_ne_bytes())
}

fn put_approval(db: &Connection, record: &approval::Record) -> Result<(), StateError> {
    let sql = "INSERT INTO approvals (id, requested, state, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body";
    let state = record.state.word();
    put(db, sql, params![&*record.id, signed(record.requested.0), state, write("approval", record)?])
}

fn put_session(db: &Connection, session: &SessionRow) -> Result<(), StateError> {
    let sql = "INSERT INTO sessions (id, started, open, body) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET open = excluded.open, body = excluded.body";
    let open = session.ended.is_none();
    put(db, sql, params![&*session.id, signed(session.started.0), open, write("session", session)?])
}

fn put(db: &Connection, sql: &str, row: impl rusqlite::Params) -> Result<(), StateError> {
    db.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

impl Store for SqliteStore {
    fn begin_boot(&self, boot: &str) -> Result<usize, StateError> {
        let mut db = self.db();
        let tx = db.transaction()?;
        let gone = tx.execute("DELETE FROM jobs WHERE boot <> ?1", [boot])?;
        tx.execute("UPDATE uids SET cgroup_id = NULL WHERE boot <> ?1", [boot])?;
        tx.commit()?;
        Ok(gone)
    }

    fn insert_job(&self, job: &Job) -> Result<bool, StateError> {
        let changed = self.db().execute(
            "INSERT INTO jobs (cgroup_id, boot, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![signed(job.cgroup_id), &*job.boot, write("job", job)?],
        )?;
        Ok(changed == 1)
    }

    fn update_job(&self, job: &Job) -> Result<(), StateError> {
        self.db().execute(
            "UPDATE jobs SET body = ?2 WHERE cgroup_id = ?1",
            params![signed(job.cgroup_id), write("job", job)?],
        )?;
        Ok(())
    }

    fn remove_job(&self, cgroup_id: u64) -> Result<(), StateError> {
        self.db().execute("DELETE FROM jobs WHERE cgroup_id = ?1", [signed(cgroup_id)])?;
        Ok(())
    }

    fn jobs(&self) -> Result<Vec<Job>, StateError> {
        self.bodies("job", "SELECT body FROM jobs", [])
    }

    fn uids(&self) -> Result<Vec<UidUse>, StateError> {
        let db = self.db();
        let mut statement = db.prepare_cached("SELECT uid, cgroup_id, number FROM uids")?;
        let rows = statement.query_map([], |r| {
            let cgroup_id: Option<i64> = r.get(1)?;
            Ok(UidUse { uid: r.get(0)?, cgroup_id: cgroup_id.map(unsigned), number: unsigned(r.get(2)?) })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn take_uid(&self, uid: u32, cgroup_id: u64, boot: &str) -> Result<(), StateError> {
        self.db().execute(
            "INSERT INTO uids (uid, cgroup_id, boot, number)
             VALUES (?1, ?2, ?3, (SELECT coalesce(max(number), 0) + 1 FROM uids))
             ON CONFLICT (uid) DO UPDATE
             SET cgroup_id = excluded.cgroup_id, boot = excluded.boot, number = excluded.number",
            params![uid, signed(cgroup_id), boot],
        )?;
        Ok(())
    }

    fn free_uid(&self, cgroup_id: u64) -> Result<(), StateError> {
        self.db().execute("UPDATE uids SET cgroup_id = NULL WHERE cgroup_id = ?1", [signed(cgroup_id)])?;
        Ok(())
    }

    fn use_token(&self, issuer: &str, jti: &str, until: UnixTime) -> Result<bool, StateError> {
        let changed = self.db().execute(
            "INSERT INTO tokens (issuer, jti, until) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            params![issuer, jti, signed(until.0)],
        )?;
        Ok(changed == 1)
    }

    fn forget_tokens(&self, before: UnixTime) -> Result<usize, StateError> {
        let db = self.db();
        // Asked every second: a read keeps the disk quiet.
        let any: Option<i64> = db
            .prepare_cached("SELECT 1 FROM tokens WHERE until < ?1 LIMIT 1")?
            .query_row([signed(before.0)], |r| r.get(0))
            .optional()?;
        match any {
            None => Ok(0),
            Some(_) => Ok(db.execute("DELETE FROM tokens WHERE until < ?1", [signed(before.0)])?),
        }
    }

    fn put_approval(&self, record: &approval::Record) -> Result<(), StateError> {
        put_approval(&self.db(), record)
    }

    fn approvals(&self, limit: u32) -> Result<Vec<approval::Record>, StateError> {
        self.bodies(
            "approval",
            "SELECT body FROM approvals ORDER BY requested DESC, id DESC LIMIT ?1",
            [limit],
        )
    }

    fn expire_approvals(&self, now: UnixTime) -> Result<usize, StateError> {
        let open: Vec<approval::Record> =
            self.bodies("approval", "SELECT body FROM approvals WHERE state IN ('waiting', 'approved')", [])?;
        let mut db = self.db();
        let tx = db.transaction()?;
        for mut record in open.iter().cloned() {
            record.state = approval::State::Expired;
            record.decided = Some(now);
            put_approval(&tx, &record)?;
        }
        tx.commit()?;
        Ok(open.len())
    }

    fn put_session(&self, session: &SessionRow) -> Result<(), StateError> {
        put_session(&self.db(), session)
    }

    fn sessions(&self, limit: u32) -> Result<Vec<SessionRow>, StateError> {
        self.bodies("session", "SELECT body FROM sessions ORDER BY started DESC, id DESC LIMIT ?1", [limit])
    }

    fn end_sessions(&self, now: UnixTime, why: &str) -> Result<usize, StateError> {
        let open: Vec<SessionRow> = self.bodies("session", "SELECT body FROM sessions WHERE open = 1", [])?;
        let mut db = self.db();
        let tx = db.transaction()?;
        for mut session in open.iter().cloned() {
            session.ended = Some(now);
            session.end_reason = Some(why.to_owned());
            put_session(&tx, &session)?;
        }
        tx.commit()?;
        Ok(open.len())
    }

    fn host_id(&self, fresh: &str) -> Result<String, StateError> {
        let db = self.db();
        db.execute("INSERT INTO host (one, id) VALUES (1, ?1) ON CONFLICT DO NOTHING", [fresh])?;
        Ok(db.query_row("SELECT id FROM host", [], |r| r.get(0))?)
    }

    fn put_role(&self, role: &RoleRow) -> Result<(), StateError> {
        let sql = "INSERT INTO roles (name, body) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET body = excluded.body";
        put(&self.db(), sql, params![role.name, write("role", role)?])
    }

    fn remove_role(&self, name: &str) -> Result<(), StateError> {
        self.db().execute("DELETE FROM roles WHERE name = ?1", [name])?;
        Ok(())
    }

    fn roles(&self) -> Result<Vec<RoleRow>, StateError> {
        self.bodies("role", "SELECT body FROM roles ORDER BY name", [])
    }

    fn write(&self, batch: &[Write]) -> Result<(), StateError> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut db = self.db();
        let tx = db.transaction()?;
        let (mut sessions, mut approvals) = (false, false);
        for item in batch {
            match item {
                Write::Approval(record) => {
                    approvals = true;
                    put_approval(&tx, record)?;
                }
                Write::Session(session) => {
                    sessions |= session.ended.is_none();
                    put_session(&tx, session)?;
                }
            }
        }
        if sessions {
            tx.execute(
                "DELETE FROM sessions WHERE open = 0 AND rowid <= (SELECT max(rowid) FROM sessions) - ?1",
                [KEEP_SESSIONS],
            )?;
        }
        if approvals {
            tx.execute(
                "DELETE FROM approvals WHERE state NOT IN ('waiting', 'approved')
                 AND rowid <= (SELECT max(rowid) FROM approvals) - ?1",
                [KEEP_APPROVALS],
            )?;
        }
        tx.commit()?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
