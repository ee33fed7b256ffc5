use protocol::{CloseReason, Step};

use crate::support::*;

const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

#[test]
fn tls_then_startup() {
    let mut rig = Rig::new();
    rig.job(SSL);
    assert_eq!(rig.step(), Step::StartTls(JOB));
    assert_eq!(rig.sent_to_job(), b"S");
    rig.session.tls_started(JOB, None);
    rig.job(&startup(0, &[("user", "u"), ("application_name", "psql"), ("TimeZone", "UTC")]));
    assert_eq!(rig.step(), Step::Login);
    let startup = rig.session.startup();
    assert_eq!((startup.user.as_str(), startup.database.as_str()), ("u", "u"));
    assert_eq!(startup.application, "psql");
    assert!(startup.tls);
}

#[test]
fn gss_is_declined_and_tls_still_offered() {
    let mut rig = Rig::new();
    rig.job(GSS);
    rig.need();
    assert_eq!(rig.sent_to_job(), b"N");
    rig.job(SSL);
    assert_eq!(rig.step(), Step::StartTls(JOB));
}

#[test]
fn bytes_before_the_handshake_end_it() {
    let mut rig = Rig::new();
    rig.job(&[SSL, &startup(0, &[("user", "u")])].concat());
    assert_eq!(rig.closes(), CloseReason::Job("unprotected data after the request for TLS"));
    assert!(!rig.sent_to_job().starts_with(b"S"));
}

#[test]
fn direct_tls_leaves_the_hello_to_the_driver() {
    let mut rig = Rig::new();
    rig.job(b"\x16\x03\x01\0\x05hello");
    assert_eq!(rig.step(), Step::StartTls(JOB));
    assert_eq!(std::mem::take(rig.session.job_in()), b"\x16\x03\x01\0\x05hello");
    rig.session.tls_started(JOB, None);
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
}

#[test]
fn cancel_requests_are_handed_over() {
    let mut rig = Rig::new();
    rig.job(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd");
    assert_eq!(rig.step(), Step::Cancel);
    let key = rig.session.cancel_key().unwrap();
    assert_eq!((key.pid, key.secret.as_slice()), (7, &b"abcd"[..]));
}

#[test]
fn refused_startup_parameters() {
    for (name, value) in [
        ("client_encoding", "LATIN1"),
        ("search_path", "secret"),
        ("role", "admin"),
        ("options", "-c search_path=secret"),
        ("options", "--search-path=secret"),
        ("options", "-csession_authorization=root"),
        ("options", "-o x"),
        ("options", "-c statement_timeout"),
        ("standard_conforming_strings", "off"),
        ("_pq", "x"),
    ] {
        let mut rig = Rig::new();
        rig.job(&startup(0, &[("user", "u"), (name, value)]));
        assert_eq!(rig.closes(), CloseReason::Job("startup parameters refused"), "{name}={value}");
        let told = rig.sent_to_job();
        assert!(told.starts_with(b"E") && has(&told, "FATAL"), "{name}={value}");
    }
}

#[test]
fn accepted_startup_parameters() {
    for (name, value) in [
        ("replication", "false"),
        ("client_encoding", "'utf-8'"),
        ("client_encoding", "UNICODE"),
        ("client_encoding", "SQL_ASCII"),
        ("DateStyle", "ISO"),
        ("options", "-c statement_timeout=5s --lock-timeout=1s"),
        ("options", "-c default_transaction_isolation=repeatable\\ read"),
        ("options", ""),
    ] {
        let mut rig = Rig::new();
        rig.job(&startup(0, &[("user", "u"), (name, value)]));
        assert_eq!(rig.step(), Step::Login, "{name}={value}");
    }
}

#[test]
fn options_become_settings() {
    let mut rig = Rig::new();
    let text = "-c statement_timeout=5s -c default_transaction_isolation=repeatable\\ read";
    rig.job(&startup(0, &[("user", "u"), ("options", text)]));
    assert_eq!(rig.step(), Step::Login);
    let settings = &rig.session.startup().settings;
    assert_eq!(settings[0], ("statement_timeout".to_owned(), "5s".to_owned()));
    assert_eq!(settings[1].1, "repeatable read");
}

#[test]
fn garbage_is_refused() {
    for garbage in
        [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\x04", b"\xff\xff\xff\xff\0", b"\0\0\0\x09\0\x03\0\0x"]
    {
        let mut rig = Rig::new();
        rig.job(garbage);
        assert!(matches!(rig.closes(), CloseReason::Job(_)), "{garbage:?}");
    }
}

#[test]
fn old_protocols_are_refused_in_words() {
    let mut rig = Rig::new();
    rig.job(b"\0\0\0\x08\0\x02\0\0");
    rig.closes();
    assert!(has(&rig.sent_to_job(), "0A000"));
}

#[test]
fn newer_versions_are_negotiated_down() {
    let mut rig = Rig::new();
    let mut newer = startup(0, &[("user", "u"), ("_pq_.feature", "on")]);
    newer[6..8].copy_from_slice(&9999u16.to_be_bytes());
    rig.job(&newer);
    assert_eq!(rig.step(), Step::Login);
    assert_eq!(rig.sent_to_job(), b"v\0\0\0\x19\0\x03\0\x02\0\0\0\x01_pq_.feature\0");
    assert_eq!(rig.session.startup().minor, 2);
}

#[test]
fn login_without_tls_or_password() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u"), ("TimeZone", "UTC")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(login());
    rig.need();
    let hello = rig.sent_up();
    assert_eq!(
        hello[8..],
        *b"user\0gateway\0database\0orders\0client_encoding\0UTF8\0standard_conforming_strings\0on\0\
           search_path\0public\0timezone\0UTC\0\0"
    );
    rig.up(b"R\0\0\0\x08\0\0\0\0");
    rig.up(b"S\0\0\0\x16server_version\x0015\0");
    rig.up(b"K\0\0\0\x0c\0\0\0\x09wxyzZ\0\0\0\x05I");
    rig.need();
    assert_eq!(
        rig.sent_to_job(),
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16server_version\x0015\0K\0\0\0\x0c\0\0\0\x09\x07\x07\x07\x07Z\0\0\0\x05I"
    );
    assert_eq!(rig.session.upstream_key().unwrap().secret, b"wxyz");
    assert_eq!(rig.session.job_key().unwrap().secret, [7; 4]);
    assert!(rig.session.idle());
}

#[test]
fn protocol_3_2_gets_a_long_key() {
    let mut rig = Rig::new();
    rig.job(&startup(2, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(login());
    rig.need();
    rig.up(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    rig.need();
    assert_eq!(rig.session.job_key().unwrap().secret, [7; 32]);
}

#[test]
fn upstream_tls_is_required() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(protocol::postgres::Login { tls: true, ..login() });
    rig.need();
    assert_eq!(rig.sent_up(), SSL);
    rig.up(b"N");
    assert!(matches!(rig.closes(), CloseReason::LoginFailed { sqlstate, .. } if sqlstate == "08001"));
    assert!(rig.sent_up().is_empty());
}

#[test]
fn upstream_tls_then_startup() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(protocol::postgres::Login { tls: true, ..login() });
    rig.need();
    rig.sent_up();
    rig.up(b"S");
    assert_eq!(rig.step(), Step::StartTls(UPSTREAM));
    rig.session.tls_started(UPSTREAM, None);
    rig.need();
    assert!(has(&rig.sent_up(), "gateway"));
    rig.up(b"R\0\0\0\x08\0\0\0\x03");
    rig.need();
    assert_eq!(rig.sent_up(), b"p\0\0\0\x0chunter2\0");
}

#[test]
fn bytes_after_the_servers_yes_end_it() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(protocol::postgres::Login { tls: true, ..login() });
    rig.need();
    rig.up(b"SR\0\0\0\x08\0\0\0\0");
    assert!(matches!(rig.closes(), CloseReason::LoginFailed { .. }));
}

#[test]
fn a_failed_login_tells_the_job_nothing_of_the_account() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(login());
    rig.need();
    rig.up(&failure(&[
        ('S', "FATAL"),
        ('C', "28P01"),
        ('M', "password authentication failed for user \"gateway\""),
    ]));
    match rig.closes() {
        CloseReason::LoginFailed { sqlstate, message } => {
            assert_eq!(sqlstate, "28P01");
            assert!(message.contains("gateway"));
        }
        other => panic!("{other:?}"),
    }
    let told = rig.sent_to_job();
    assert!(has(&told, "could not log in") && has(&told, "28P01"));
    assert!(!has(&told, "\"gateway\"") && !has(&told, "hunter2"));
}

#[test]
fn clear_text_password_needs_tls() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(login());
    rig.need();
    rig.sent_up();
    rig.up(b"R\0\0\0\x08\0\0\0\x03");
    rig.closes();
    assert!(rig.sent_up().is_empty());
}

#[test]
fn a_server_with_another_encoding_is_not_used() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(login());
    rig.need();
    rig.up(b"R\0\0\0\x08\0\0\0\0S\0\0\0\x1bclient_encoding\0LATIN1\0");
    assert!(matches!(rig.closes(), CloseReason::LoginFailed { .. }));
}

#[test]
fn refusing_the_connection_is_fatal() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.refuse(&denied());
    assert_eq!(rig.closes(), CloseReason::Refused);
    let told = rig.sent_to_job();
    assert!(has(&told, "FATAL") && has(&told, "42501") && has(&told, "no-drop"));
    assert!(rig.sent_up().is_empty());
}

#[test]
fn replication_is_for_the_driver_to_allow_and_only_where_everything_is() {
    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u"), ("replication", "database")]));
    assert_eq!(rig.step(), Step::Login);
    assert_eq!(rig.session.startup().replication.as_deref(), Some("database"));
    rig.session.login(login());
    assert_eq!(rig.closes(), CloseReason::Refused);
    assert!(has(&rig.sent_to_job(), "builtin:replication") && rig.sent_up().is_empty());

    let mut rig = Rig::new();
    rig.job(&startup(0, &[("user", "u"), ("replication", "database")]));
    assert_eq!(rig.step(), Step::Login);
    rig.session.login(protocol::postgres::Login { open: true, ..login() });
    rig.need();
    assert!(has(&rig.sent_up(), "replication\0database\0"));
    rig.up(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x09wxyzZ\0\0\0\x05I");
    rig.need();
    rig.sent_to_job();
    let open = std::sync::Arc::new(protocol::postgres::Decision {
        statements: vec![allowed(policy::Obligations::default())],
        epoch: 1,
        open: true,
        context: std::sync::Arc::new(()),
    });
    rig.run(&query("START_REPLICATION SLOT s LOGICAL 0/0"), &open);
    rig.sent_up();
    // Both sides send as they like, and end it each on their own.
    let stream = [message(b'W', b"\0\0\0"), message(b'd', b"wal")].concat();
    assert_eq!(rig.reply(&stream), stream);
    let status = [message(b'd', b"seen"), message(b'c', b"")].concat();
    rig.job(&status);
    rig.need();
    assert_eq!(rig.sent_up(), status);
    let end = [message(b'd', b"more"), message(b'c', b""), done("START_REPLICATION"), ready('I')].concat();
    assert_eq!(rig.reply(&end), end);
    rig.run(&query("IDENTIFY_SYSTEM"), &open);
}

#[test]
fn copy_both_is_for_replication_alone() {
    let mut rig = Rig::ready();
    rig.run(&query("SELECT 1"), &plain());
    rig.up(&message(b'W', b"\0\0\0"));
    assert!(matches!(rig.step(), Step::Close(CloseReason::Upstream(_))));
}
