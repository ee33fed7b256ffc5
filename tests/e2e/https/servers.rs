//! Servers that are not ours, and the clients that go with them: a container registry, WebSockets.

use std::{fs, path::Path};

use tests::process::{LIMIT, Running};

use crate::support::{Ground, HOST, RULES, wait_for};

/// Two more hosts, and what the shipped preset for registries says of the first.
const MORE: &str = r#"
  - { id: registry, effect: allow, subjects: [payments-agent], resources: [registry], http: { methods: [GET, HEAD], paths: [/v2] } }
  - id: pull
    effect: allow
    subjects: [payments-agent]
    resources: [registry]
    http: { methods: [GET, HEAD], paths: ["/v2/**/manifests/{reference}", "/v2/**/blobs/{digest}", "/v2/**/tags/list"] }
  - id: upload
    effect: allow
    subjects: [payments-agent]
    resources: [registry]
    http: { methods: [POST, PUT, PATCH, GET], paths: ["/v2/acme/**/blobs/uploads", "/v2/acme/**/blobs/uploads/{session}"] }
  - id: name
    effect: approve
    subjects: [payments-agent]
    resources: [registry]
    http: { methods: [PUT], paths: ["/v2/acme/**/manifests/{reference}"] }
    approval: { approvers: [root], expires_after: 60s }
  - { id: chat, effect: allow, subjects: [payments-agent], resources: [chat], http: { methods: [GET], paths: [/talk], upgrade: [websocket] }, record: results }
"#;

fn ground() -> Ground {
    Ground::with(&RULES.replace("\nmasks:", &format!("{MORE}masks:")))
}

/// A certificate for a name, and its key.
fn certificate(ground: &Ground, name: &str) -> (String, String) {
    let folder = ground.world.folder();
    let identity = ground.world.authority.server(&[name]).expect("a certificate");
    let (chain, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    fs::write(&chain, identity.certificate).expect("a file");
    fs::write(&key, identity.key).expect("a file");
    (chain.display().to_string(), key.display().to_string())
}

/// A server in the far namespace, once it answers.
fn serve(ground: &Ground, words: &[&str], port: u16) -> Running {
    let (program, arguments) = words.split_first().expect("a program");
    let mut command = ground.world.far.command(program);
    let log = ground.world.folder().join("server.log");
    let running = Running::logging(command.args(arguments), &log).expect("a server");
    wait_for("the server", || {
        let mut probe = ground.world.far.command("bash");
        probe.args(["-c", &format!("exec 3<>/dev/tcp/{HOST}/{port}")]);
        probe.output().ok().filter(|out| out.status.success())
    });
    running
}

/// An image of one small layer, as OCI lays it out in a folder.
fn image(folder: &Path) {
    let make = r#"
import gzip, hashlib, io, json, os, sys, tarfile
root = sys.argv[1]
os.makedirs(root + "/blobs/sha256")
def blob(data):
    name = hashlib.sha256(data).hexdigest()
    open(f"{root}/blobs/sha256/{name}", "wb").write(data)
    return {"digest": "sha256:" + name, "size": len(data)}
plain = io.BytesIO()
with tarfile.open(fileobj=plain, mode="w") as tar:
    entry = tarfile.TarInfo("hello")
    entry.size = 6
    tar.addfile(entry, io.BytesIO(b"hello\n"))
layer = blob(gzip.compress(plain.getvalue(), mtime=0))
diff = "sha256:" + hashlib.sha256(plain.getvalue()).hexdigest()
config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff]}}).encode())
kind = "application/vnd.oci.image."
manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
    "config": config | {"mediaType": kind + "config.v1+json"}, "layers": [layer | {"mediaType": kind + "layer.v1.tar+gzip"}]}).encode())
json.dump({"schemaVersion": 2, "manifests": [manifest | {"mediaType": kind + "manifest.v1+json",
    "annotations": {"org.opencontainers.image.ref.name": "1"}}]}, open(root + "/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(root + "/oci-layout", "w"))
"#;
    let mut python = std::process::Command::new("/usr/bin/python3");
    tests::process::must(python.args(["-c", make]).arg(folder)).expect("an image");
}

#[test]
fn images_are_pulled_and_pushed_by_approval() {
    let ground = ground();
    let folder = ground.world.folder();
    let (chain, key) = certificate(&ground, "registry.example");
    let config = format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {}/registry }} }}\nhttp: {{ addr: '{HOST}:5000', tls: {{ certificate: {chain}, key: {key} }} }}\n",
        folder.display()
    );
    fs::write(folder.join("registry.yml"), config).expect("a file");
    let config = folder.join("registry.yml").display().to_string();
    let _registry = serve(&ground, &["docker-registry", "serve", &config], 5000);
    image(&folder.join("image"));
    let copy = |from: &str, to: &str| {
        let text = format!(
            "set -e; cd \"$(mktemp -d)\"; export HOME=$PWD; skopeo --insecure-policy --tmpdir \"$PWD\" copy {from} {to} 2>&1; ls -R"
        );
        ground.world.job(&["bash", "-c", &text]).limit(LIMIT * 2)
    };
    let (here, there) =
        (format!("oci:{}:1", folder.join("image").display()), "docker://registry.example:5000/acme/app:1");
    // Where layers may be put without asking, a name waits for a human.
    let pushing = copy(&here, there).start().expect("a job");
    let waiting = wait_for("a request", || {
        ground.world.agent.json(&["approvals", "list"]).ok()?.as_array()?.first().cloned()
    });
    assert!(
        waiting.to_string().contains("PUT https://registry.example:5000/v2/acme/app/manifests/1"),
        "{waiting}"
    );
    let id = waiting["id"].as_str().expect("an id");
    let _ = ground.world.agent.cli(&["approvals", "approve", id]).expect("the command line").ok();
    let _ = pushing.finish(LIMIT * 2).expect("an end").ok();
    let pulled = copy(there, "oci:pulled:1").run().ok();
    assert!(pulled.stdout.contains("oci-layout"), "{pulled}");
    // Somebody else's repository.
    let refused = copy(&here, "docker://registry.example:5000/other/app:1").run().failed();
    assert!(refused.stdout.contains("403") || refused.stdout.contains("denied by policy rule"), "{refused}");
    assert!(!folder.join("registry/docker/registry/v2/repositories/other").exists());
}

const SERVER: &str = r#"
import asyncio, ssl, sys
from websockets.asyncio.server import serve
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1], sys.argv[2])
async def talk(socket):
    async for message in socket:
        await socket.send(message[::-1])
async def main():
    async with serve(talk, sys.argv[3], 9443, ssl=context, max_size=1 << 24):
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"#;

const CLIENT: &str = r#"
import sys
from websockets.sync.client import connect
from websockets.exceptions import InvalidStatus
try:
    with connect("wss://chat.example:9443" + sys.argv[1], max_size=1 << 24) as socket:
        socket.send("through the gateway")
        print(socket.recv())
        socket.send(b"\x00\xff" * 1000000)
        print(len(socket.recv()))
        socket.ping().wait(10)
        print("pong")
except InvalidStatus as refused:
    print(refused.response.status_code, "gateway" in str(refused.response.body))
"#;

#[test]
fn websockets_are_spoken_by_a_library_s_two_ends() {
    let ground = ground();
    let (chain, key) = certificate(&ground, "chat.example");
    let python = ground.world.python();
    let _server = serve(&ground, &[&python, "-c", SERVER, &chain, &key, HOST], 9443);
    let out = ground.python(CLIENT, &["/talk"]).run().ok();
    assert_eq!(out.stdout, "yawetag eht hguorht\n2000000\npong\n", "{out}");
    let refused = ground.python(CLIENT, &["/other"]).run().ok();
    assert_eq!(refused.stdout, "403 True\n", "{refused}");
}
