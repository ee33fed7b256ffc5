use policy::{PathUse, Word};

use super::*;
use crate::ssh::{command::read, testing::allowed};

fn fresh(command: &str) -> Scp {
    Scp::new(&read(command.as_bytes()), Some("/home/x")).unwrap()
}

/// The receiver has said that it is there.
fn scp(command: &str) -> Scp {
    let mut scp = fresh(command);
    match scp.way {
        Way::Up => scp.upstream_in(&[0]),
        Way::Down => scp.job_in(&[0]),
    }
    assert_eq!(scp.step(), Ok(ScpStep::Need));
    scp.job_out().clear();
    scp.upstream_out().clear();
    scp
}

/// Goes on until nothing moves, deciding by `may`; the paths that were asked about.
fn run(scp: &mut Scp, may: impl Fn(&str) -> bool) -> Vec<String> {
    let mut asked = Vec::new();
    while scp.step().unwrap() == ScpStep::Ask {
        let file = scp.pending().unwrap().clone();
        asked.push(format!("{} {}", file.operation.name(), file.path));
        match may(&file.path) {
            true => scp.allow(&allowed()),
            false => scp.deny("r", "no", "ask"),
        }
    }
    asked
}

#[test]
fn an_upload_is_decided_where_it_may_land() {
    let mut scp = fresh("scp -t /srv/app");
    scp.upstream_in(&[0]);
    scp.job_in(b"C0644 5 a.txt\n");
    assert_eq!(run(&mut scp, |_| true), ["write /srv/app/a.txt", "write /srv/app"]);
    assert_eq!(scp.upstream_out().as_slice(), b"C0644 5 a.txt\n");
    scp.upstream_in(&[0]);
    scp.job_in(b"hello\0");
    assert!(run(&mut scp, |_| true).is_empty());
    scp.upstream_in(&[0]);
    assert!(run(&mut scp, |_| true).is_empty());
    assert_eq!(scp.upstream_out().as_slice(), b"C0644 5 a.txt\nhello\0");
    assert_eq!(scp.job_out().as_slice(), &[0, 0, 0]);
    let events: Vec<_> = scp.events().collect();
    assert!(
        matches!(&events[1], FileEvent::Closed(of) if of.written.bytes == 5 && of.written.sha256.is_some())
    );
}

#[test]
fn a_refused_file_reaches_neither_side() {
    let mut up = scp("scp -r -t /srv/app");
    up.job_in(b"C0644 5 a.txt\n");
    run(&mut up, |_| false);
    assert!(up.upstream_out().is_empty());
    assert_eq!(up.job_out().as_slice(), b"\x01scp: no [r]; ask\n");
    // And the next one goes on.
    up.job_out().clear();
    up.job_in(b"D0755 0 d\nC0644 1 b\n");
    let mut asked = run(&mut up, |_| true);
    up.upstream_in(&[0]);
    asked.extend(run(&mut up, |path| path != "/srv/app/b"));
    assert_eq!(asked, ["write /srv/app/d", "write /srv/app", "write /srv/app/d/b", "write /srv/app/b"]);
    assert_eq!(up.upstream_out().as_slice(), b"D0755 0 d\n");

    let mut down = fresh("scp -f /srv/app/a.txt");
    down.job_in(&[0]);
    down.upstream_in(b"C0644 5 a.txt\n");
    assert_eq!(run(&mut down, |_| false), ["read /srv/app/a.txt"]);
    assert_eq!(down.job_out().as_slice(), b"\x01scp: no [r]; ask\n");
    assert_eq!(down.upstream_out().as_slice(), b"\0\x01scp: no [r]; ask\n");
}

#[test]
fn a_host_that_sends_another_file_is_asked_about_that() {
    let mut down = scp("scp -f /srv/app/a.txt");
    down.upstream_in(b"C0644 5 shadow\n");
    assert_eq!(run(&mut down, |_| true)[0], "read /srv/app/shadow");
}

#[test]
fn neither_side_gets_out_of_step() {
    // The client sends ahead. The host does not want the file, and would read what follows as control lines.
    let mut up = fresh("scp -t /srv/app");
    up.job_in(b"C0644 20 a\nC0644 5 secret\nhello\0");
    assert!(run(&mut up, |_| true).is_empty(), "the host has not begun");
    up.upstream_in(&[0]);
    assert_eq!(run(&mut up, |_| true), ["write /srv/app/a", "write /srv/app"]);
    up.upstream_in(b"\x01scp: a: not here\n");
    assert_eq!(run(&mut up, |path| !path.ends_with("secret")), ["write /srv/app/secret"]);
    assert_eq!(up.upstream_out().as_slice(), b"C0644 20 a\n");
    assert_eq!(up.step(), Ok(ScpStep::Need), "contents are no control line");

    // The client answers ahead. The host must not take an answer of its own for one to a file that is refused.
    let mut down = fresh("scp -r -f /srv/app");
    down.job_in(&[0; 16]);
    assert!(run(&mut down, |_| true).is_empty());
    assert_eq!(down.upstream_out().as_slice(), &[0]);
    down.upstream_in(b"D0755 0 app\n");
    assert_eq!(run(&mut down, |_| true), ["list /srv/app"]);
    down.upstream_out().clear();
    down.upstream_in(b"C0600 3 key\n");
    assert_eq!(run(&mut down, |_| false), ["read /srv/app/key"]);
    assert_eq!(down.upstream_out().as_slice(), b"\x01scp: no [r]; ask\n", "and nothing else");

    // An acknowledgement that nobody asked for.
    let mut up = scp("scp -t /srv/app");
    up.upstream_in(&[0]);
    assert!(up.step().is_err());

    // What the host says by itself about a folder is no answer to the file behind it.
    let mut up = scp("scp -p -r -t /srv/app");
    for line in [&b"T1 0 1 0\n"[..], b"D0755 0 d\n", b"E\n"] {
        up.job_in(line);
        run(&mut up, |_| true);
        up.upstream_in(&[0]);
        run(&mut up, |_| true);
    }
    up.job_in(b"C0644 5 a\n");
    run(&mut up, |_| true);
    up.upstream_in(b"\x01scp: d: set times\n");
    assert!(up.step().is_err());
}

#[test]
fn a_transfer_that_is_cut_off_is_closed() {
    let mut scp = scp("scp -t /srv/app");
    scp.job_in(b"C0644 5 a\nhel");
    run(&mut scp, |_| true);
    scp.upstream_in(&[0]);
    run(&mut scp, |_| true);
    assert!(scp.job_is_done());
    scp.finish();
    let events: Vec<_> = scp.events().collect();
    assert!(matches!(&events[1], FileEvent::Closed(of) if of.written.bytes == 3), "{events:?}");
}

#[test]
fn what_breaks_the_protocol_ends_it() {
    for line in [
        &b"C0644 5 ../x\n"[..],
        b"C0644 5 a/b\n",
        b"C0644 5 ..\n",
        b"C0644 -5 a\n",
        b"C0644 99999999999999999999 a\n",
        b"C06x4 5 a\n",
        b"Z\n",
        b"E\n",
        b"C0644 5 \xff\n",
        b"C0644 5\n",
    ] {
        let mut scp = scp("scp -t /srv/app");
        scp.job_in(line);
        assert!(scp.step().is_err(), "{line:?}");
    }
    let mut scp = scp("scp -t /srv/app");
    scp.job_in(&[b'x'; LINE_MAX + 1]);
    assert!(scp.step().is_err());
    let mut scp = fresh("scp -t /srv/app");
    scp.upstream_in(&[7]);
    assert!(scp.step().is_err());
    let exec = |path: &str| Exec {
        files: vec![PathUse {
            operation: FileOperation::Write,
            path: Word::literal(path),
            folder: None,
            recursive: false,
            by: Route::Scp,
        }],
        ..read(b"scp -t /srv")
    };
    assert!(Scp::new(&exec("/srv/../etc"), None).is_err());
    assert!(Scp::new(&exec("a"), None).is_err());
    assert!(Scp::new(&read(b"scp -t /srv; id"), None).is_err());
    assert!(Scp::new(&read(b"scp -f /srv/*/key"), None).is_err(), "it may be a link");
    assert!(Scp::new(&read(b"scp -f /srv/*.log"), None).is_ok());
}
