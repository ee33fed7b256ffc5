//! What a job is shown of what a server says.

use tests::web::{MAIL, TOKEN};

use crate::support::{Ground, answered, json, wait_for_audit};

#[test]
fn values_and_findings_are_hidden_in_every_coding() {
    let ground = Ground::new();
    for flag in ["--http1.1", "--http2"] {
        for path in ["json", "encoded/gzip", "encoded/deflate", "encoded/br", "encoded/zstd"] {
            let url = format!("https://api.example/{path}");
            for more in
                [&[][..], &["--compressed"], &["-H", "Range: bytes=0-20"], &["-H", "Accept-Encoding: xz"]]
            {
                let words = [&[flag, url.as_str()][..], more].concat();
                let out = ground.curl(&words).run().ok();
                let (body, status) = answered(&out);
                assert_eq!(status, 200, "{path} {more:?}: {out}");
                assert!(!body.contains(TOKEN) && !body.contains(MAIL), "{path} {more:?}: {body}");
                let shown = json(&body);
                assert_eq!(shown["items"][0]["token"], "[redacted]", "{path}");
                assert_eq!(shown["items"][1]["token"], "[redacted]", "{path}");
                assert_eq!(shown["contact"], "[redacted:email]", "{path}");
                assert_eq!(shown["open"], "everybody may read this", "{path}");
            }
        }
        let out = ground.curl(&[flag, "-i", "https://api.example/header"]).run().ok();
        assert!(out.stdout.contains("x-contact: [redacted:email]"), "{out}");
        let out = ground.curl(&[flag, "https://api.example/text"]).run().ok();
        assert_eq!(answered(&out).0, "write to [redacted:email] about it\n");
    }
    let done = wait_for_audit(&ground.world, "completed", |line| line["masked"].as_u64() > Some(0));
    assert_eq!(done["resource"], "api");
}

#[test]
fn what_cannot_be_read_is_withheld() {
    let ground = Ground::new();
    // A coding that nobody knows here, and one that is not what it says.
    for path in ["encoded/compress", "encoded/aes128gcm"] {
        let out = ground.curl(&[&format!("https://api.example/{path}")]).run();
        assert!(!out.stdout.contains(TOKEN), "{out}");
        assert_eq!(answered(&out).1, 502, "{out}");
        assert!(out.stdout.contains("not known here"), "{out}");
    }
    // The same server, unmasked: the test would notice if there were nothing to hide.
    let out = ground.curl(&["https://open.example/json"]).run().ok();
    assert!(out.stdout.contains(TOKEN) && out.stdout.contains(MAIL), "{out}");
}
