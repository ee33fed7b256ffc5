//! What is measured.

use anyhow::{Context, Result, bail};

use super::{contender::Contender, usage};

/// The tables, the script and the policy of the measurements.
pub(super) const TABLES: &str = "
CREATE TABLE public.bench_plain AS
    SELECT n AS id, 'Customer ' || n AS name, 'customer' || n || '@mail.example' AS email, md5(n::text) AS note
    FROM generate_series(1, 200000) AS n;
CREATE TABLE public.bench_masked AS SELECT * FROM public.bench_plain;
CREATE TABLE public.bench_recorded AS SELECT * FROM public.bench_plain;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO gateway;
VACUUM ANALYZE;
";

/// What pgbench -S does, without what it asks before.
pub(super) const SCRIPT: &str =
    "\\set aid random(1, 100000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n";

pub(super) const POLICY: &str = r#"version: 1
subjects:
  - { name: payments-agent, issuer: https://token.example, claims: { repository: acme/payments } }
resources:
  - name: plain
    kind: postgres
    hosts: [198.51.100.10]
    ports: [5432]
    databases: [orders]
    login: { user: gateway, password: { file: @DIR@/secrets/orders } }
    tls: { mode: disable }
    search_path: [public]
  - name: secure
    kind: postgres
    hosts: [198.51.100.20]
    ports: [5432]
    databases: [orders]
    login: { user: gateway, password: { file: @DIR@/secrets/orders } }
    tls: { mode: verify-full, server_name: db.internal, ca: @DIR@/db-ca.pem }
    search_path: [public]
  - name: searched
    kind: postgres
    hosts: ["2001:db8:51::10"]
    ports: [5432]
    databases: [orders]
    login: { user: gateway, password: { file: @DIR@/secrets/orders } }
    tls: { mode: disable }
    search_path: [public]
  # Of a server that only lets in.
  - name: idle
    kind: postgres
    hosts: [198.51.100.10]
    ports: [5434]
    databases: ["*"]
    login: { user: gateway, password: { file: @DIR@/secrets/orders } }
    tls: { mode: disable }
rules:
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [plain, secure, searched], connect: true }
  - id: read
    effect: allow
    subjects: [payments-agent]
    resources: [plain, secure, searched]
    statements: { classes: [read, transaction, session], relations: ["public.pgbench_*", public.bench_plain, public.bench_masked] }
    record: statements
  - id: read-recorded
    effect: allow
    subjects: [payments-agent]
    resources: [plain]
    statements: { classes: [read], relations: [public.bench_recorded] }
    record: results
  - { id: idle, effect: allow, subjects: [payments-agent], resources: [idle], connect: true, statements: { everything: true }, record: statements }
masks:
  - { id: mail, resources: [plain, secure], columns: [public.bench_masked.email], transform: redact }
  - { id: found, resources: [searched], detectors: [email, card, iban, phone, jwt], transform: redact }
"#;

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Case {
    /// pgbench -S.
    Select { mode: &'static str, clients: usize },
    /// New connections, one query each.
    Connect,
    /// One statement that returns much. `searched`: through the gateway, by the resource with detectors.
    Stream { name: &'static str, sql: &'static str, searched: bool },
}

/// What one batch brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Operations per second.
    pub(super) rate: f64,
    /// CPU seconds of the proxy, and the operations that they were for.
    pub(super) cpu: f64,
    pub(super) operations: f64,
}

/// How long pgbench runs. Its first second is not counted: server processes are new then, where a proxy does not
/// keep them, and their caches cold.
const SECONDS: u32 = 3;

pub(super) const STREAMS: [Case; 4] = [
    Case::Stream { name: "200,000 rows", sql: "SELECT * FROM bench_plain", searched: false },
    Case::Stream { name: "200,000 rows, masked", sql: "SELECT * FROM bench_masked", searched: false },
    Case::Stream { name: "COPY", sql: "COPY bench_plain TO STDOUT", searched: false },
    Case::Stream { name: "COPY, masked", sql: "COPY bench_masked TO STDOUT", searched: false },
];

/// What looks at every cell, or keeps it.
pub(super) const LOOKING: [Case; 2] = [
    Case::Stream { name: "200,000 rows, five detectors", sql: "SELECT * FROM bench_plain", searched: true },
    Case::Stream { name: "200,000 rows, recorded", sql: "SELECT * FROM bench_recorded", searched: false },
];

/// pgbench -S in every mode.
pub(super) fn selects(clients: &[usize]) -> Vec<Case> {
    let modes = ["simple", "extended", "prepared"];
    let all = modes.iter().flat_map(|mode| clients.iter().map(|clients| (*mode, *clients)));
    all.map(|(mode, clients)| Case::Select { mode, clients }).collect()
}

impl Case {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Select { mode, clients } => format!("{mode}, {clients} clients"),
            Self::Connect => "connections".to_owned(),
            Self::Stream { name, .. } => (*name).to_owned(),
        }
    }

    /// The first batch is slower than the others.
    pub(super) fn warms_up(&self) -> bool {
        !matches!(self, Self::Select { .. })
    }

    /// Runs one batch. `connections` is about how many a batch of those makes.
    pub(super) fn run(
        &self,
        contender: &mut Contender,
        tls: bool,
        prefix: &str,
        programs: &Programs,
        connections: usize,
    ) -> Result<Batch> {
        let target = if tls { contender.tls.clone().unwrap_or_default() } else { contender.plain.clone() };
        let Programs { pgbench, psql, script } = programs;
        match self {
            Self::Select { mode, clients } => {
                let command = format!(
                    "{prefix} {pgbench} -n -M {mode} -c {clients} -T {SECONDS} -P 1 -f {script} '{target}'"
                );
                steady(contender, &command)
            }
            Self::Connect => {
                let command =
                    format!("{prefix} {pgbench} -n -C -c 1 -t {connections} -f {script} '{target}'");
                let before = contender.cpu()?;
                let rate = number(&contender.lane.run(&command)?, "tps = ")?;
                Ok(Batch { rate, cpu: contender.cpu()? - before, operations: connections as f64 })
            }
            Self::Stream { sql, searched, .. } => {
                let target = contender.searched.clone().filter(|_| *searched).unwrap_or(target);
                let command =
                    format!("{prefix} {psql} -XqAt -o /dev/null -c '\\timing on' -c '{sql}' '{target}'");
                let before = contender.cpu()?;
                let milliseconds = number(&contender.lane.run(&command)?, "Time: ")?;
                Ok(Batch { rate: 1000.0 / milliseconds, cpu: contender.cpu()? - before, operations: 1.0 })
            }
        }
    }
}

/// What pgbench does after its first second. The CPU is read when it reports the first and the second.
fn steady(contender: &mut Contender, command: &str) -> Result<Batch> {
    let pid = contender.pid;
    let mut reports = Vec::new();
    let said = contender.lane.watch(command, |line| {
        if let Some(rest) = line.strip_prefix("progress: ") {
            let cpu = pid.map_or(Ok(0.0), usage::cpu)?;
            reports.push((number(rest, "")?, number(rest, ", ")?, cpu));
        }
        Ok(())
    })?;
    let [(first, slow, before), (second, rate, after), ..] = *reports.as_slice() else {
        bail!("pgbench reported too seldom:\n{said}")
    };
    let (all, tps) = (number(&said, "actually processed: ")?, number(&said, "tps = ")?);
    Ok(Batch {
        rate: (all - slow * first) / (all / tps - first),
        cpu: after - before,
        operations: rate * (second - first),
    })
}

/// Where the clients are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) pgbench: String,
    pub(super) psql: String,
    pub(super) script: String,
}

/// The number behind the first occurrence of a label.
pub(super) fn number(text: &str, label: &str) -> Result<f64> {
    let (_, rest) = text.split_once(label).with_context(|| format!("no {label:?} in:\n{text}"))?;
    let word = rest.split_whitespace().next().unwrap_or_default();
    word.parse().with_context(|| format!("reading {word:?} in:\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_label() {
        let said = "latency average = 0.1 ms\ntps = 1234.5 (without initial connection time)\n";
        assert!((number(said, "tps = ").expect("a number") - 1234.5).abs() < 1e-9);
        assert!((number("2.0 s, 9.5 tps, lat 1", ", ").expect("a number") - 9.5).abs() < 1e-9);
        assert!((number("2.0 s, 9.5 tps, lat 1", "").expect("a number") - 2.0).abs() < 1e-9);
        assert!(number(said, "Time: ").is_err());
    }
}
