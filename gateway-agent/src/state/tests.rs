use std::{os::unix::fs::PermissionsExt, sync::Arc};

use super::*;
use crate::state::Lazy;

fn job(cgroup_id: u64, boot: &str) -> Job {
    Job {
        cgroup_id,
        cgroup: "/c/a".into(),
        subject: "s".into(),
        issuer: "i".into(),
        sub: "x".into(),
        claims: serde_json::json!({"a": [1]}),
        expires: UnixTime(10),
        enrolled: UnixTime(5),
        ended: None,
        uid: 1000,
        boot: boot.into(),
    }
}

fn session(id: &str, started: u64) -> SessionRow {
    SessionRow {
        id: id.into(),
        job: u64::MAX,
        subject: "s".into(),
        resource: "r".into(),
        database: "d".into(),
        pid: 1,
        uid: 2,
        started: UnixTime(started),
        ended: None,
        end_reason: None,
    }
}

#[test]
fn the_file_is_private_and_everything_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(store.insert_job(&job(u64::MAX, "b1")).unwrap());
    assert!(!store.insert_job(&job(u64::MAX, "b1")).unwrap(), "first bind wins");
    assert!(store.use_token("i", "j", UnixTime(9)).unwrap());
    store.put_session(&session("one", 1)).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.jobs().unwrap(), [job(u64::MAX, "b1")]);
    assert!(!store.use_token("i", "j", UnixTime(9)).unwrap());
    assert!(store.use_token("other issuer", "j", UnixTime(9)).unwrap());
    assert_eq!(store.sessions(10).unwrap(), [session("one", 1)]);
}

#[test]
fn a_new_boot_drops_the_old_ones_jobs() {
    let store = SqliteStore::in_memory();
    store.insert_job(&job(1, "b1")).unwrap();
    store.insert_job(&job(2, "b2")).unwrap();
    assert_eq!(store.begin_boot("b2").unwrap(), 1);
    assert_eq!(store.jobs().unwrap(), [job(2, "b2")]);
    store.remove_job(2).unwrap();
    assert!(store.jobs().unwrap().is_empty());
}

#[test]
fn tokens_are_forgotten_only_after_their_time() {
    let store = SqliteStore::in_memory();
    store.use_token("i", "early", UnixTime(10)).unwrap();
    store.use_token("i", "late", UnixTime(20)).unwrap();
    assert_eq!(store.forget_tokens(UnixTime(10)).unwrap(), 0);
    assert_eq!(store.forget_tokens(UnixTime(11)).unwrap(), 1);
    assert!(!store.use_token("i", "late", UnixTime(20)).unwrap());
}

#[test]
fn sessions_of_a_dead_daemon_are_ended() {
    let store = SqliteStore::in_memory();
    let done = SessionRow { ended: Some(UnixTime(3)), end_reason: Some("done".into()), ..session("a", 1) };
    store.write(&[Write::Session(done.clone()), Write::Session(session("b", 2))]).unwrap();
    assert_eq!(store.end_sessions(UnixTime(9), "restart").unwrap(), 1);
    let rows = store.sessions(10).unwrap();
    assert_eq!((rows[0].ended, rows[0].end_reason.as_deref()), (Some(UnixTime(9)), Some("restart")));
    assert_eq!(rows[1], done);
}

#[test]
fn queued_writes_arrive_in_order_and_before_the_end() {
    let store = Arc::new(SqliteStore::in_memory());
    let lazy = Lazy::start(store.clone()).unwrap();
    for n in 0..1000 {
        lazy.write(Write::Session(session("same", n))).unwrap();
    }
    lazy.flush();
    assert_eq!(store.sessions(10).unwrap().len(), 1);
    lazy.write(Write::Session(session("last", 7))).unwrap();
    drop(lazy);
    assert_eq!(store.sessions(10).unwrap().len(), 2);
}

#[test]
fn roles_are_kept_until_they_are_removed_and_a_host_keeps_its_id() {
    let store = SqliteStore::in_memory();
    let role = RoleRow {
        name: "gw_h_1_x".into(),
        job: u64::MAX,
        resource: "orders".into(),
        address: "192.0.2.1:5432".parse().unwrap(),
        database: "orders".into(),
        created: UnixTime(3),
    };
    store.put_role(&role).unwrap();
    store.put_role(&role).unwrap();
    assert_eq!(store.roles().unwrap(), [role]);
    store.remove_role("gw_h_1_x").unwrap();
    assert_eq!(store.roles().unwrap(), []);
    assert_eq!(store.host_id("a").unwrap(), "a");
    assert_eq!(store.host_id("b").unwrap(), "a");
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StateError::Newer { found: 99, known: 3 })));
}
