//! Recorder and audit log on real files.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use record::{
    Ending, Event, Header, Item, List, Params, PublicKey, Reader, Report, SigningKey, Verdict, verify,
};

use super::*;

const SEED: [u8; 32] = [7; 32];
/// 2027-01-15.
const STARTED: u64 = 1_800_000_000_000_000_000;

fn key() -> SigningKey {
    SigningKey::from_seed(&SEED).unwrap()
}

fn public() -> PublicKey {
    key().public()
}

fn recorder(dir: &Path, durability: Durability) -> Recorder {
    let recorder =
        Recorder::start(RecorderConfig { dir: dir.to_owned(), key: key(), durability, audit: None }).unwrap();
    // So that it does not meet what a test leaves for recovery later.
    recorder.wait_for_recovery();
    recorder
}

fn header(session: &str) -> Header {
    Header { session: session.into(), started_unix_ns: STARTED, subject: "s".into(), ..Header::default() }
}

fn statement(n: u64) -> Event<'static> {
    Event::Statement {
        n,
        sql: "SELECT 1".into(),
        params: Params::None,
        verdict: Verdict::Allow,
        rules: List::none(),
        approval: None,
    }
}

fn report(path: &Path) -> Report {
    verify(fs::File::open(path).unwrap(), &public()).unwrap()
}

fn closed_reason(path: &Path) -> Option<String> {
    let file = fs::read(path).unwrap();
    let mut reader = Reader::new(&file[..], None).unwrap();
    let mut last = None;
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Event { event: Event::Closed { reason }, .. } = item {
            last = Some(reason.into_owned());
        }
    }
    last
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_session_is_recorded_and_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    let mut session = recorder.open(header("s1")).await.unwrap();
    let path = session.path().to_owned();
    assert_eq!(path, dir.path().join("2027-01-15/s1.gwr"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    for n in 0..5000 {
        session.append(n * 1000, &statement(n)).unwrap();
    }
    session.close(9_000_000, "the client left");
    recorder.shutdown();
    let report = report(&path);
    assert_eq!(report.ending, Ending::Sealed);
    assert_eq!(report.records, 5001);
    assert_eq!(closed_reason(&path).unwrap(), "the client left");
    let stats = recorder.stats();
    assert_eq!(stats.bytes.load(std::sync::atomic::Ordering::Relaxed), fs::metadata(&path).unwrap().len());
    assert_eq!(stats.open.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_waits_is_written_after_100_ms() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    let mut session = recorder.open(header("s1")).await.unwrap();
    session.append(1_000_000, &statement(1)).unwrap();
    session.tick(50_000_000).unwrap();
    assert!(session.pending());
    session.tick(101_000_000).unwrap();
    assert!(!session.pending());
    wait_for("the write", || report(session.path()).records == 1);
}

#[tokio::test]
async fn a_durable_event_is_in_the_file_on_return() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), Durability::Each);
    let mut session = recorder.open(header("s1")).await.unwrap();
    for n in 0..10 {
        session.append_durable(n, &statement(n)).await.unwrap();
        assert_eq!(report(session.path()).records, n + 1);
    }
}

#[tokio::test]
async fn sessions_that_end_badly_are_sealed_too() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    let dropped = recorder.open(header("dropped")).await.unwrap();
    let kept = recorder.open(header("kept")).await.unwrap();
    let paths = [dropped.path().to_owned(), kept.path().to_owned()];
    drop(dropped);
    recorder.shutdown();
    for path in &paths {
        assert_eq!(report(path).ending, Ending::Sealed);
    }
    assert_eq!(closed_reason(&paths[0]).unwrap(), "the session ended without saying why");
    assert_eq!(closed_reason(&paths[1]).unwrap(), "the agent stopped recording");
    let mut kept = kept;
    assert_eq!(kept.append_durable(1, &statement(1)).await, Err(RecordingLost::Failed));
    assert!(matches!(recorder.open(header("late")).await, Err(RecordingLost::Failed)));
}

#[tokio::test]
async fn a_session_id_is_no_path_and_no_second_session() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    for id in ["", "../x", "a/b", "a.b", &"x".repeat(65)] {
        assert!(matches!(recorder.open(header(id)).await, Err(RecordingLost::Open(_))), "{id}");
    }
    let _first = recorder.open(header("s1")).await.unwrap();
    assert!(matches!(recorder.open(header("s1")).await, Err(RecordingLost::Open(_))));
}

#[tokio::test]
async fn large_results_are_cut_into_records_at_rows() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    let mut session = recorder.open(header("s1")).await.unwrap();
    let path = session.path().to_owned();
    let data: Vec<u8> = (0..600_000).flat_map(|n: u32| format!("{n}\n").into_bytes()).collect();
    session.append(1, &Event::Rows { n: 1, data: data.as_slice().into() }).unwrap();
    let huge = "x".repeat(2 << 20);
    let too_large = session.append(2, &Event::Notice { text: huge.as_str().into() });
    assert!(matches!(too_large, Err(RecordingLost::TooLarge(_))));
    session.relieved().await.unwrap();
    session.append(3, &statement(2)).unwrap();
    drop(session);
    recorder.shutdown();
    let file = fs::read(path).unwrap();
    let mut reader = Reader::new(&file[..], None).unwrap();
    let mut back = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Event { event: Event::Rows { data, .. }, .. } = item {
            assert!(data.ends_with(b"\n"));
            back.extend_from_slice(&data);
        }
    }
    assert!(back == data, "rows came back changed");
    assert_eq!(reader.ending(), Some(Ending::Sealed));
}

#[tokio::test]
async fn what_a_dead_agent_left_open_is_closed_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let first = recorder(dir.path(), Durability::Each);
    let mut session = first.open(header("s1")).await.unwrap();
    session.append_durable(1, &statement(1)).await.unwrap();
    let live = session.path().to_owned();
    let day = live.parent().unwrap();
    // What is on disk now is what a killed agent leaves; half a frame more is what it leaves at worst.
    let whole = fs::read(&live).unwrap();
    let dead = day.join("dead.gwr");
    fs::write(&dead, [&whole[..], &whole[200..250]].concat()).unwrap();
    let altered = day.join("altered.gwr");
    let mut bytes = whole.clone();
    bytes[300] ^= 1;
    fs::write(&altered, bytes).unwrap();
    fs::write(day.join("empty.gwr"), b"").unwrap();

    let log = dir.path().join("audit.jsonl");
    let audit = Audit::start(AuditConfig { file: log.clone() }).unwrap();
    let found = recover_dir(dir.path(), &record::Scribe::new(key()).unwrap(), Some(&audit));
    audit.shutdown();
    let lines = fs::read_to_string(log).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 1, "one session was cut off: {lines:?}");
    assert_eq!(lines[0]["event"], "session_cut_off");
    assert_eq!((&lines[0]["session"], &lines[0]["subject"]), (&"s1".into(), &"s".into()));
    assert_eq!(lines[0]["unfinished"], 1);
    assert_eq!(lines[0]["statement_hashes"][0], statement_hash("SELECT 1").to_hex().as_str());
    assert_eq!(found.recovered, std::slice::from_ref(&dead));
    assert_eq!(found.live, 1, "the one still written is left alone");
    assert_eq!(found.empty, [day.join("empty.gwr")]);
    assert_eq!(found.damaged.iter().map(|(path, _)| path).collect::<Vec<_>>(), [&altered]);
    let report_of_dead = report(&dead);
    assert_eq!(report_of_dead.ending, Ending::Recovered { unsigned: 1 });
    assert_eq!(report_of_dead.last_checkpoint.unwrap().dropped, 50);

    // The live one went on undisturbed.
    session.append_durable(2, &statement(2)).await.unwrap();
    session.close(3, "done");
    first.shutdown();
    assert_eq!(report(&live).ending, Ending::Sealed);
    let again = recover_dir(dir.path(), &record::Scribe::new(key()).unwrap(), None);
    assert_eq!((again.recovered.len(), again.live), (0, 0));
}

#[test]
fn starting_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let day = dir.path().join("2027-01-15");
    fs::create_dir(&day).unwrap();
    let mut scribe = record::Scribe::new(key()).unwrap();
    let writer = record::Writer::open(Vec::new(), &header("dead"), &mut scribe).unwrap();
    fs::write(day.join("dead.gwr"), writer.get_ref()).unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    assert_eq!(report(&day.join("dead.gwr")).ending, Ending::Recovered { unsigned: 0 });
    assert_eq!(recorder.stats().recovered.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// Runs the test of that name again, alone, with a file system of 256 KiB mounted where nobody else sees it.
/// `None` = this is that run; the folder is given.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    const VARIABLE: &str = "GATEWAY_TEST_SMALL_DISK";
    if let Some(dir) = std::env::var_os(VARIABLE) {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VARIABLE, dir.path())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test did not run");
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("ermi") => {
            eprintln!("skipped: not allowed to mount a small file system");
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("skipped: unshare: {error}"),
    }
    None
}

/// Leaves no room.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut size = 256 * 1024;
    let mut held = Vec::new();
    while size > 0 {
        if fs::write(&path, vec![1_u8; size + held.len()]).is_ok() {
            held.resize(size + held.len(), 0);
        } else {
            size /= 2;
        }
    }
    // Whatever fitted of the failed attempt stays and fills the disk.
    path
}

#[test]
fn a_full_disk_loses_the_recording_and_says_so() {
    let Some(dir) = on_a_small_disk("audit::tests::a_full_disk_loses_the_recording_and_says_so") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let recorder = recorder(&dir.join("r"), Durability::Batched);
        let mut session = recorder.open(header("s1")).await.unwrap();
        let path = session.path().to_owned();
        session.append_durable(1, &statement(1)).await.unwrap();
        let filler = fill(&dir);
        let mut noise = Vec::new();
        blake3::Hasher::new().finalize_xof().fill({
            noise.resize(64 * 1024, 0);
            &mut noise
        });
        let error = session.append_durable(2, &Event::Rows { n: 1, data: noise.as_slice().into() }).await;
        assert_eq!(error, Err(RecordingLost::Failed));
        assert_eq!(session.append(3, &statement(3)), Err(RecordingLost::Failed), "and it stays so");
        assert!(matches!(recorder.open(header("s2")).await, Err(RecordingLost::Open(_))));
        session.close(4, "lost");
        assert_eq!(recorder.stats().lost.load(std::sync::atomic::Ordering::Relaxed), 1);

        // The failed one is not passed off as whole; with room again, new ones work and it can be recovered.
        fs::remove_file(filler).unwrap();
        assert!(matches!(report(&path).ending, Ending::Unsealed { .. }));
        recorder.open(header("s3")).await.unwrap().close(1, "done");
        recorder.shutdown();
        let found = recover_dir(&dir.join("r"), &record::Scribe::new(key()).unwrap(), None);
        assert_eq!(found.recovered, [path]);
    });
}

#[test]
fn a_full_disk_refuses_audit_events_until_there_is_room() {
    let Some(dir) = on_a_small_disk("audit::tests::a_full_disk_refuses_audit_events_until_there_is_room")
    else {
        return;
    };
    let path = dir.join("audit.jsonl");
    let audit = Audit::start(AuditConfig { file: path.clone() }).unwrap();
    let filler = fill(&dir);
    let text = "x".repeat(1000);
    let extra = [("text", Value::Text(&text))];
    let mut accepted = 0;
    let event = AuditEvent { extra: &extra, ..AuditEvent::new(STARTED, Kind::AgentStarted) };
    wait_for("refusal", || match audit.log(&event) {
        Ok(()) => {
            accepted += 1;
            false
        }
        Err(AuditLost) => true,
    });
    assert!(audit.lost() > 0);
    fs::remove_file(filler).unwrap();
    wait_for("acceptance", || audit.log(&AuditEvent::new(STARTED, Kind::AgentStopped)).is_ok());
    audit.shutdown();
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), accepted + 1, "everything accepted is there, whole");
}

#[test]
fn what_the_audit_log_cannot_be_told_is_not_closed() {
    let dir = tempfile::tempdir().unwrap();
    let day = dir.path().join("2027-01-15");
    fs::create_dir(&day).unwrap();
    let scribe = record::Scribe::new(key()).unwrap();
    let mut other = record::Scribe::new(key()).unwrap();
    let writer = record::Writer::open(Vec::new(), &header("dead"), &mut other).unwrap();
    fs::write(day.join("dead.gwr"), writer.get_ref()).unwrap();
    let audit = Audit::start(AuditConfig { file: dir.path().join("audit.jsonl") }).unwrap();
    audit.shutdown();
    let found = recover_dir(dir.path(), &scribe, Some(&audit));
    assert_eq!((found.recovered.len(), found.damaged.len()), (0, 1));
    assert!(matches!(report(&day.join("dead.gwr")).ending, Ending::Unsealed { .. }));
}

#[test]
fn what_ran_is_logged_also_while_nothing_may_begin() {
    let Some(dir) = on_a_small_disk("audit::tests::what_ran_is_logged_also_while_nothing_may_begin") else {
        return;
    };
    let path = dir.join("audit.jsonl");
    let audit = Audit::start(AuditConfig { file: path.clone() }).unwrap();
    assert_eq!(audit.ready(), Ok(()));
    let filler = fill(&dir);
    let text = "x".repeat(4096);
    let extra = [("text", Value::Text(&text))];
    audit.log(&AuditEvent { extra: &extra, ..AuditEvent::new(STARTED, Kind::AgentStarted) }).unwrap();
    wait_for("the failure", || audit.ready().is_err());
    assert_eq!(audit.log(&AuditEvent::new(STARTED, Kind::SessionOpened)), Err(AuditLost));
    assert_eq!(audit.log_ended(&AuditEvent::new(STARTED, Kind::Completed)), Ok(()));
    fs::remove_file(filler).unwrap();
    wait_for("the recovery", || audit.ready().is_ok());
    audit.shutdown();
    assert_eq!(audit.log_ended(&AuditEvent::new(STARTED, Kind::Completed)), Err(AuditLost), "nobody writes");
    let text = fs::read_to_string(path).unwrap();
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].take())
        .collect();
    assert_eq!(events, ["agent_started", "completed"]);
}

#[test]
fn audit_lines_from_many_threads_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    // A dead agent left a torn line.
    fs::write(&path, "{\"torn\":").unwrap();
    let audit = Audit::start(AuditConfig { file: path.clone() }).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let audit = &audit;
            scope.spawn(move || {
                for n in 0..2000_u64 {
                    let extra = [("thread", Value::Number(thread)), ("n", Value::Number(n))];
                    let event = AuditEvent { extra: &extra, ..AuditEvent::new(STARTED + n, Kind::Decision) };
                    audit.log(&event).unwrap();
                }
            });
        }
    });
    audit.shutdown();
    assert_eq!(audit.log(&AuditEvent::new(0, Kind::Decision)), Err(AuditLost), "after the end");
    let text = fs::read_to_string(&path).unwrap();
    let mut next = [0_u64; 4];
    for line in text.lines().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let thread = line["thread"].as_u64().unwrap() as usize;
        assert_eq!(line["n"], next[thread], "in order");
        next[thread] += 1;
    }
    assert_eq!(next, [2000; 4]);
    assert_eq!(audit.bytes() + "{\"torn\":\n".len() as u64, text.len() as u64);
}

#[test]
fn a_rotated_audit_log_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let audit = Audit::start(AuditConfig { file: path.clone() }).unwrap();
    audit.log(&AuditEvent::new(STARTED, Kind::AgentStarted)).unwrap();
    wait_for("the first line", || fs::metadata(&path).unwrap().len() > 0);
    fs::rename(&path, dir.path().join("old")).unwrap();
    audit.log(&AuditEvent::new(STARTED, Kind::AgentStopped)).unwrap();
    wait_for("the new file", || fs::metadata(&path).is_ok_and(|meta| meta.len() > 0));
    assert!(fs::read_to_string(&path).unwrap().contains("agent_stopped"));
    assert!(!fs::read_to_string(dir.path().join("old")).unwrap().contains("agent_stopped"));
    fs::rename(&path, dir.path().join("older")).unwrap();
    audit.reopen();
    wait_for("the file after asking", || path.exists());
}

#[tokio::test]
async fn print_what_a_decision_costs() {
    const ROUNDS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::start(AuditConfig { file: dir.path().join("audit.jsonl") }).unwrap();
    let recorder = recorder(dir.path(), Durability::Batched);
    let mut session = recorder.open(header("s1")).await.unwrap();
    let context = Context::new(&Scope {
        session: Some("01JABCDEF"),
        subject: Some("payments-agent"),
        job: Some("job-1"),
        process: Some(&record::Process { pid: 1, uid: 1000, command: "psql".into() }),
        resource: Some("orders"),
        database: Some("orders"),
        ..Scope::default()
    });
    let rules: [Arc<str>; 1] = ["read".into()];
    let sql = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
    let facts = Facts::statement("allow", &rules, "select", Some(sql), true, &[], None);
    let (mut logging, mut recording) = (Duration::ZERO, Duration::ZERO);
    for round in 0..10 {
        let start = Instant::now();
        for n in 0..ROUNDS / 10 {
            let event = AuditEvent {
                context: Some(&context),
                facts: Some(&facts),
                latency: Some(Duration::from_nanos(900)),
                ..AuditEvent::new(STARTED + n * 1000, Kind::Decision)
            };
            audit.log(&event).unwrap();
        }
        logging += start.elapsed();
        let start = Instant::now();
        for n in 0..ROUNDS / 10 {
            session.append(round * 1_000_000 + n, &statement(n)).unwrap();
        }
        recording += start.elapsed();
        session.relieved().await.unwrap();
    }
    println!(
        "per decision, unoptimised unless built so: audit {} ns, recording {} ns",
        logging.as_nanos() / u128::from(ROUNDS),
        recording.as_nanos() / u128::from(ROUNDS)
    );
    session.close(1 << 40, "done");
    recorder.shutdown();
    audit.shutdown();
}
