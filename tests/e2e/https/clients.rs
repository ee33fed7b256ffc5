//! Clients that know nothing of a gateway.

use std::{fs, path::Path};

use tests::process::{self, LIMIT};

use crate::support::{Ground, json, wait_for};

const REQUESTS: &str = r#"
import json, socket, ssl, sys
# As a resolver would say it; everything else is the library's own.
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **options: real("198.51.100.30" if host.endswith(".example") else host, *more, **options)
import urllib.request, http.client
said = {}
with urllib.request.urlopen("https://open.example/echo?x=1") as answer:
    said["get"] = json.load(answer)["method"]
with urllib.request.urlopen(urllib.request.Request("https://open.example/echo", data=b"a=b")) as answer:
    said["post"] = json.load(answer)["body"]
# Several requests on one connection, one of them refused.
connection = http.client.HTTPSConnection("open.example")
statuses = []
for method, path in [("GET", "/echo"), ("GET", "/secret/x"), ("GET", "/echo"), ("HEAD", "/text"), ("GET", "/text")]:
    connection.request(method, path)
    answer = connection.getresponse()
    answer.read()
    statuses.append([answer.status, answer.reason[:40]])
said["kept"] = statuses
print(json.dumps(said))
"#;

#[test]
fn pythons_own_clients_pass() {
    let ground = Ground::new();
    let out = ground.python(REQUESTS, &[]).run().ok();
    let said = json(&out.stdout);
    assert_eq!((&said["get"], &said["post"]), (&"GET".into(), &3.into()), "{out}");
    let statuses: Vec<_> =
        said["kept"].as_array().expect("a list").iter().map(|one| one[0].clone()).collect();
    assert_eq!(statuses, [200, 403, 200, 200, 200], "{out}");
    assert!(
        said["kept"][1][1]
            .as_str()
            .is_some_and(|reason| reason.starts_with("gateway: denied by policy rule")),
        "{out}"
    );
}

const WEBSOCKET: &str = r#"
import socket, ssl, sys
path = sys.argv[1]
context = ssl.create_default_context()
sock = context.wrap_socket(socket.create_connection(("198.51.100.30", 443)), server_hostname="open.example")
sock.sendall(f"GET {path} HTTP/1.1\r\nHost: open.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
head = b""
while b"\r\n\r\n" not in head:
    piece = sock.recv(4096)
    if not piece:
        break
    head += piece
print(head.split(b"\r\n")[0].decode())
if b" 101 " in head:
    for n in range(3):
        sock.sendall(b"frame %d" % n)
        print(sock.recv(4096).decode())
"#;

#[test]
fn websockets_pass_by_rule_and_are_recorded() {
    let ground = Ground::new();
    let out = ground.python(WEBSOCKET, &["/ws"]).run().ok();
    assert_eq!(out.stdout, "HTTP/1.1 101 Switching Protocols\nframe 0\nframe 1\nframe 2\n", "{out}");
    let out = ground.python(WEBSOCKET, &["/echo"]).run().ok();
    assert!(out.stdout.starts_with("HTTP/1.1 403"), "{out}");
}

/// A shell script in a job whose host names resolve by the gateway; its working folder is one of its own.
fn script(ground: &Ground, text: &str) -> tests::job::Job {
    let text = format!("set -e; cd \"$(mktemp -d)\"; export HOME=$PWD; {text}");
    ground.world.job(&["bash", "-c", &text])
}

#[test]
fn pip_installs_from_an_index() {
    let ground = Ground::new();
    let www = ground.world.folder().join("www");
    let index = www.join("simple/tiny");
    fs::create_dir_all(&index).expect("a folder");
    let make = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/tiny-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny.py", "said = 42\n")
    wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("tiny-1.0.dist-info/RECORD", "")
"#;
    let python = ground.world.python();
    process::must(std::process::Command::new(&python).args(["-c", make]).arg(&index)).expect("a wheel");
    fs::write(
        index.join("index.html"),
        "<a href=\"tiny-1.0-py3-none-any.whl\">tiny-1.0-py3-none-any.whl</a>",
    )
    .expect("an index");
    let text = format!(
        "{python} -m pip install --disable-pip-version-check --no-cache-dir --target t --index-url https://open.example/www/simple tiny >&2; \
         PYTHONPATH=t {python} -c 'import tiny; print(tiny.said)'"
    );
    let out = script(&ground, &text).limit(LIMIT * 2).run().ok();
    assert_eq!(out.stdout.trim(), "42", "{out}");
    // What is refused is named in pip's own words.
    let text = format!(
        "{python} -m pip -vvv download --disable-pip-version-check --retries 0 --index-url https://open.example/secret/simple tiny 2>&1 || true"
    );
    let out = script(&ground, &text).limit(LIMIT * 2).run().ok();
    assert!(out.stdout.contains("policy rule secrets"), "{out}");
}

#[test]
fn npm_installs_from_a_registry() {
    let ground = Ground::new();
    let www = ground.world.folder().join("www/npm");
    fs::create_dir_all(www.join("@acme")).expect("a folder");
    let package = ground.world.folder().join("www/package");
    fs::create_dir_all(&package).expect("a folder");
    fs::write(package.join("package.json"), r#"{"name":"@acme/tiny","version":"1.0.0","main":"i.js"}"#)
        .expect("a file");
    fs::write(package.join("i.js"), "module.exports = 42\n").expect("a file");
    let tarball = www.join("tiny-1.0.0.tgz");
    process::must(
        std::process::Command::new("tar")
            .arg("-czf")
            .arg(&tarball)
            .arg("-C")
            .arg(ground.world.folder().join("www"))
            .arg("package"),
    )
    .expect("a tarball");
    fs::write(
        www.join("@acme/tiny"),
        r#"{"name":"@acme/tiny","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"@acme/tiny","version":"1.0.0","main":"i.js",
            "dist":{"tarball":"https://open.example/www/npm/tiny-1.0.0.tgz"}}}}"#,
    )
    .expect("a document");
    let text = "npm install --no-audit --no-fund --no-update-notifier --registry https://open.example/www/npm/ @acme/tiny >&2; node -p 'require(\"@acme/tiny\")'";
    let out = script(&ground, text).limit(LIMIT * 3).run().ok();
    assert_eq!(out.stdout.trim(), "42", "{out}");
}

#[test]
fn git_clones_and_pushes_by_approval() {
    let ground = Ground::new();
    let www = ground.world.folder().join("www");
    let repository = www.join("app.git");
    let git = |words: &[&str], at: &Path| {
        let mut command = std::process::Command::new("git");
        command.args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@mail.example",
            "-c",
            "init.defaultBranch=main",
        ]);
        process::must(command.args(words).current_dir(at)).expect("git");
    };
    git(&["init", "--bare", "app.git"], &www);
    git(&["config", "http.receivepack", "true"], &repository);
    git(&["clone", "app.git", "work"], &www);
    let work = www.join("work");
    fs::write(work.join("f"), "1\n").expect("a file");
    git(&["add", "f"], &work);
    git(&["commit", "-m", "first"], &work);
    git(&["push", "origin", "HEAD:main"], &work);
    let text = "git clone -q -b main https://open.example/git/app.git a; cd a; cat f; echo 2 > f; \
                git -c user.name=j -c user.email=j@mail.example commit -qam second; git push origin HEAD:main 2>&1";
    let job = script(&ground, text).start().expect("a job");
    let waiting = wait_for("a request", || {
        let waiting = ground.world.agent.json(&["approvals", "list"]).ok()?;
        waiting.as_array()?.first().cloned()
    });
    assert!(
        waiting.to_string().contains("POST https://open.example/git/app.git/git-receive-pack"),
        "{waiting}"
    );
    let id = waiting["id"].as_str().expect("an id");
    let _ = ground.world.agent.cli(&["approvals", "approve", id]).expect("the command line").ok();
    let out = job.finish(LIMIT * 2).expect("an end").ok();
    assert!(out.stdout.starts_with("1\n") && out.stdout.contains("HEAD -> main"), "{out}");
    // What is refused is shown by git itself.
    let out = script(&ground, "git ls-remote https://open.example/secret/app.git 2>&1 || true").run().ok();
    assert!(out.stdout.contains("policy rule secrets"), "{out}");
}

#[test]
fn cargo_fetches_by_a_sparse_index() {
    let ground = Ground::new();
    let www = ground.world.folder().join("www");
    let index = www.join("index");
    fs::create_dir_all(index.join("ti/ny")).expect("a folder");
    fs::write(
        index.join("config.json"),
        r#"{"dl":"https://open.example/www/crates/{crate}-{version}.crate"}"#,
    )
    .expect("a file");
    let source = www.join("tiny-1.0.0");
    fs::create_dir_all(source.join("src")).expect("a folder");
    fs::write(
        source.join("Cargo.toml"),
        "[package]\nname = \"tiny\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
    )
    .expect("a file");
    fs::write(source.join("src/lib.rs"), "pub fn said() -> u32 { 42 }\n").expect("a file");
    fs::create_dir_all(www.join("crates")).expect("a folder");
    let krate = www.join("crates/tiny-1.0.0.crate");
    process::must(
        std::process::Command::new("tar").arg("-czf").arg(&krate).arg("-C").arg(&www).arg("tiny-1.0.0"),
    )
    .expect("a crate");
    let sum = process::output(std::process::Command::new("sha256sum").arg(&krate)).expect("a sum");
    let sum = sum.split(' ').next().expect("a sum");
    fs::write(
        index.join("ti/ny/tiny"),
        format!(
            r#"{{"name":"tiny","vers":"1.0.0","deps":[],"cksum":"{sum}","features":{{}},"yanked":false}}"#
        ),
    )
    .expect("an entry");
    let rust = ground.world.folder().join("tools/rust");
    let root = process::output(std::process::Command::new("rustc").args(["--print", "sysroot"]))
        .expect("a toolchain");
    fs::create_dir_all(&rust).expect("a folder");
    process::must(std::process::Command::new("mount").args(["--bind", root.trim()]).arg(&rust))
        .expect("a mount");
    let text = format!(
        "export PATH={rust}/bin:$PATH CARGO_HOME=$PWD/home; mkdir -p src .cargo; echo 'fn main() {{}}' > src/main.rs; \
         printf '[registries.local]\nindex = \"sparse+https://open.example/www/index/\"\n' > .cargo/config.toml; \
         printf '[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ntiny = {{ version = \"1\", registry = \"local\" }}\n' > Cargo.toml; \
         cargo fetch >&2; ls home/registry/src/*/",
        rust = rust.display()
    );
    let out = script(&ground, &text).limit(LIMIT * 2).run().ok();
    assert!(out.stdout.contains("tiny-1.0.0"), "{out}");
}
