//! `cargo xtask bench https`: the gateway beside a direct connection and nginx, with TLS on every leg.
//!
//! nginx serves, and nginx is what is compared with: one worker, keep-alive towards the server, a line in its log for each request.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    World,
    process::{self, Running, wait_for, which},
};

use super::{
    Arguments,
    contender::{beside, inside},
    lane::Lane,
    report::{self, Measured, Series},
    usage,
};

const SERVER: &str = "198.51.100.30";
const PROXY: &str = "127.0.0.1";
const PROXY_PORT: u16 = 8443;
/// Bytes of a large body.
const LARGE: u64 = 100_000_000;

const POLICY: &str = r#"version: 1
subjects:
  - { name: payments-agent, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - { name: api, kind: https, hosts: [198.51.100.30], tls: { mode: verify-full, ca: @DIR@/db-ca.pem } }
rules:
  - { id: all, effect: allow, subjects: [payments-agent], resources: [api], http: { methods: ["*"], paths: ["/**"] }, record: statements }
masks:
  - { id: found, resources: [api], detectors: [email, card, iban, phone, jwt], paths: ["/searched/**"], transform: redact }
"#;

/// One way to the server.
struct Way {
    name: &'static str,
    /// `https://host:port`
    base: String,
    pid: Option<u32>,
    lane: Lane,
}

/// One thing to measure.
#[derive(Clone, Copy)]
enum Case {
    /// Requests over connections that are kept: h2load's words.
    Load(&'static str, &'static str),
    /// One large body, by curl.
    Body(&'static str, &'static str),
    /// How long a request takes, by one client after the other: a percentile of wrk's.
    Latency(&'static str),
}

const CASES: &[Case] = &[
    Case::Load("HTTP/1.1, 1 connection", "--h1 -n 3000 -c 1"),
    Case::Load("HTTP/1.1, 8 connections", "--h1 -n 8000 -c 8"),
    Case::Load("HTTP/1.1, 32 connections", "--h1 -n 8000 -c 32"),
    Case::Load("HTTP/2, 1 connection, 1 stream", "-n 3000 -c 1 -m 1"),
    Case::Load("HTTP/2, 8 connections, 8 streams each", "-n 8000 -c 8 -m 8"),
    Case::Load("HTTP/2, 1,000 streams", "-n 8000 -c 10 -m 100"),
    Case::Body("download, HTTP/1.1", "--http1.1 -o /dev/null -w %{speed_download} BASE/large"),
    Case::Body("download, HTTP/2", "--http2 -o /dev/null -w %{speed_download} BASE/large"),
    Case::Body("upload, HTTP/1.1", "--http1.1 -o /dev/null -w %{speed_upload} -T FILE BASE/upload"),
    Case::Body("upload, HTTP/2", "--http2 -o /dev/null -w %{speed_upload} -T FILE BASE/upload"),
    Case::Body("download, five detectors", "--http1.1 -o /dev/null -w %{speed_download} BASE/searched/large"),
    Case::Latency("50%"),
    Case::Latency("99%"),
];

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    for (program, package) in [("nginx", "nginx-light"), ("h2load", "nghttp2-client"), ("wrk", "wrk")] {
        ensure!(which(program).is_some(), "{program} is missing: `cargo xtask setup` installs {package}");
    }
    eprintln!("starting nginx, the gateway and nginx before it");
    let world = World::builder().policy(POLICY).configure("/sessions/workers", 1).start()?;
    let folder = world.folder().join("bench");
    fs::create_dir_all(&folder)?;
    let (server, proxy) = nginx(&world, &folder)?;
    let mut ways = vec![
        Way { name: "direct", base: format!("https://{SERVER}"), pid: None, lane: beside(&world)? },
        Way {
            name: "gateway",
            base: format!("https://{SERVER}"),
            pid: world.agent.pid(),
            lane: inside(&world)?,
        },
        Way {
            name: "nginx",
            base: format!("https://{PROXY}:{PROXY_PORT}"),
            pid: Some(worker(&proxy)?),
            lane: beside(&world)?,
        },
    ];
    let file = folder.join("www/large").display().to_string();
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let mut measured = Vec::new();
    for (cores, label) in [("0", "one core"), ("0,1", "two cores")] {
        let section = format!("HTTPS, {label}");
        let wanted: Vec<_> = CASES
            .iter()
            .filter(|case| super::wants(arguments.only.as_deref(), &section, &case.name()))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        for pid in [worker(&server)?, worker(&proxy)?].into_iter().chain(world.agent.pid()) {
            process::must(std::process::Command::new("taskset").args(["-acp", cores, &pid.to_string()]))?;
        }
        report::heading(&section);
        for case in wanted {
            let one = measure(&section, case, &mut ways, &format!("taskset -c {cores}"), &file, rounds)?;
            one.print();
            measured.push(one);
        }
    }
    let target =
        std::env::var_os("GATEWAY_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    report::write(&target.join("bench/https.json"), &measured, &[])
}

fn measure(
    section: &str,
    case: &Case,
    ways: &mut [Way],
    prefix: &str,
    file: &str,
    rounds: usize,
) -> Result<Measured> {
    let mut all: Vec<(String, Series)> =
        ways.iter().map(|way| (way.name.to_owned(), Series::default())).collect();
    // The first batch makes connections and reads secrets.
    for round in 0..=rounds {
        for (way, (name, series)) in ways.iter_mut().zip(&mut all) {
            let before = way.pid.map_or(Ok(0.0), usage::cpu)?;
            let (rate, operations) =
                case.run(way, prefix, file).with_context(|| format!("{name}: {section}: {}", case.name()))?;
            let after = way.pid.map_or(Ok(0.0), usage::cpu)?;
            if round > 0 {
                series.values.push(rate);
                series.cpu += after - before;
                series.operations += operations;
            }
        }
    }
    Ok(Measured { section: section.to_owned(), case: case.name(), contenders: all })
}

impl Case {
    fn name(&self) -> String {
        match self {
            Self::Load(name, _) | Self::Body(name, _) => (*name).to_owned(),
            Self::Latency(percentile) => format!("1 / latency, {percentile}"),
        }
    }

    /// A rate, and operations that the CPU was for.
    fn run(&self, way: &mut Way, prefix: &str, file: &str) -> Result<(f64, f64)> {
        let base = way.base.clone();
        match self {
            Self::Load(_, words) => {
                let said = way.lane.run(&format!("{prefix} h2load {words} {base}/small"))?;
                let count = words.split(' ').skip_while(|word| *word != "-n").nth(1).unwrap_or_default();
                if !said.contains(&format!("{count} succeeded"))
                    || !said.contains(&format!("status codes: {count} 2xx"))
                {
                    bail!("not every request was answered:\n{said}");
                }
                let line = said.lines().find(|line| line.starts_with("finished in ")).context("no rate")?;
                let rate =
                    line.split(", ").nth(1).and_then(|part| part.split(' ').next()).unwrap_or_default();
                Ok((rate.parse().with_context(|| format!("reading {line:?}"))?, count.parse()?))
            }
            Self::Body(_, words) => {
                let words = words.replace("BASE", &base).replace("FILE", file);
                let said = way.lane.run(&format!("{prefix} curl -sSk --fail {words}"))?;
                Ok((said.trim().parse().with_context(|| format!("reading {said:?}"))?, 1.0))
            }
            Self::Latency(percentile) => {
                let said = way.lane.run(&format!("{prefix} wrk -t1 -c1 -d2s --latency {base}/small"))?;
                let line = said
                    .lines()
                    .map(str::trim)
                    .find(|line| line.starts_with(percentile))
                    .context("no latency")?;
                let text = line.split_whitespace().nth(1).unwrap_or_default();
                let (number, scale) = match text.strip_suffix("us") {
                    Some(number) => (number, 1e-6),
                    None => match text.strip_suffix("ms") {
                        Some(number) => (number, 1e-3),
                        None => (text.trim_end_matches('s'), 1.0),
                    },
                };
                let seconds = number.parse::<f64>().with_context(|| format!("reading {text:?}"))? * scale;
                Ok((1.0 / seconds, 1.0))
            }
        }
    }
}

/// The server, and the proxy before it.
fn nginx(world: &World, folder: &Path) -> Result<(Running, Running)> {
    let www = folder.join("www");
    fs::create_dir_all(www.join("searched"))?;
    fs::write(www.join("small"), vec![b'x'; 1024])?;
    for name in ["large", "searched/large"] {
        let file = fs::File::create(www.join(name))?;
        file.set_len(LARGE)?;
    }
    let identity = world.authority.server(&["api.example", SERVER, PROXY])?;
    fs::write(folder.join("server.crt"), &identity.certificate)?;
    fs::write(folder.join("server.key"), &identity.key)?;
    let files = folder.display();
    let common = |name: &str, inner: &str| {
        format!(
            "user root;\nworker_processes 1;\ndaemon off;\npid {files}/{name}.pid;\nerror_log {files}/{name}.err;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n  keepalive_requests 1000000;\n  client_max_body_size 0;\n  \
             http2_max_concurrent_streams 1024;\n  client_body_temp_path {files}/{name}.body;\n  proxy_temp_path {files}/{name}.proxy;\n  \
             fastcgi_temp_path {files}/{name}.f;\n  uwsgi_temp_path {files}/{name}.u;\n  scgi_temp_path {files}/{name}.s;\n  \
             ssl_certificate {files}/server.crt;\n  ssl_certificate_key {files}/server.key;\n{inner}}}\n"
        )
    };
    let server = common(
        "server",
        &format!(
            "  access_log off;\n  sendfile on;\n  server {{ listen 127.0.0.1:8079; return 200 ok; }}\n  \
             server {{ listen {SERVER}:443 ssl http2; root {files}/www; location /upload {{ proxy_pass http://127.0.0.1:8079; }} }}\n"
        ),
    );
    let proxy = common(
        "proxy",
        &format!(
            "  access_log {files}/proxy.log;\n  upstream api {{ server {SERVER}:443; keepalive 64; }}\n  \
             server {{ listen {PROXY}:{PROXY_PORT} ssl http2; location / {{ proxy_pass https://api; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_set_header Host {SERVER}; proxy_request_buffering off; proxy_ssl_verify on; \
             proxy_ssl_trusted_certificate {dir}/db-ca.pem; proxy_ssl_name api.example; proxy_ssl_server_name on; }} }}\n",
            dir = world.folder().display()
        ),
    );
    let start =
        |name: &str, config: String, space: &tests::netns::Netns, at: (&str, u16)| -> Result<Running> {
            let path = folder.join(format!("{name}.conf"));
            fs::write(&path, config)?;
            let mut command = space.command("nginx");
            command.arg("-c").arg(&path).arg("-p").arg(folder);
            let running = Running::logging(&mut command, &folder.join(format!("{name}.out")))?;
            wait_for(&format!("nginx at {at:?}"), Duration::from_secs(10), || {
                space.enter(|| std::net::TcpStream::connect(at).ok()).ok().flatten()
            })?;
            Ok(running)
        };
    Ok((
        start("server", server, &world.far, (SERVER, 443))?,
        start("proxy", proxy, &world.host, (PROXY, PROXY_PORT))?,
    ))
}

/// The one worker of an nginx: `nsenter` has become its master.
fn worker(master: &Running) -> Result<u32> {
    let path = format!("/proc/{0}/task/{0}/children", master.pid());
    let children = fs::read_to_string(&path).with_context(|| path.clone())?;
    children.split_whitespace().next().context("nginx has no worker")?.parse().context("a pid")
}
