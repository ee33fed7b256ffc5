//! What is measured.

use anyhow::{Context, Result};

use super::contender::Contender;

/// The tables, the script and the policy of the measurements.
pub(super) const TABLES: &str = "
CREATE TABLE public.bench_plain AS
    SELECT n AS id, 'Customer ' || n AS name, 'customer' || n || '@mail.example' AS email, md5(n::text) AS note
    FROM generate_series(1, 200000) AS n;
CREATE TABLE public.bench_masked AS SELECT * FROM public.bench_plain;
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
rules:
  - { id: connect, effect: allow, subjects: [payments-agent], resources: [plain, secure], connect: true }
  - id: read
    effect: allow
    subjects: [payments-agent]
    resources: [plain, secure]
    statements: { classes: [read, transaction, session], relations: ["public.pgbench_*", "public.bench_*"] }
    record: statements
masks:
  - { id: mail, resources: [plain, secure], columns: [public.bench_masked.email], transform: redact }
"#;

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Case {
    /// pgbench -S.
    Select { mode: &'static str, clients: usize },
    /// New connections, one query each.
    Connect,
    /// One statement that returns much.
    Stream { name: &'static str, sql: &'static str },
}

/// What one batch brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Operations per second.
    pub(super) rate: f64,
    pub(super) operations: usize,
    pub(super) connections: usize,
}

pub(super) const STREAMS: [Case; 4] = [
    Case::Stream { name: "200,000 rows", sql: "SELECT * FROM bench_plain" },
    Case::Stream { name: "200,000 rows, masked", sql: "SELECT * FROM bench_masked" },
    Case::Stream { name: "COPY", sql: "COPY bench_plain TO STDOUT" },
    Case::Stream { name: "COPY, masked", sql: "COPY bench_masked TO STDOUT" },
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

    /// Runs one batch. `size` is about how many statements of the smallest kind it holds.
    pub(super) fn run(
        &self,
        contender: &mut Contender,
        tls: bool,
        prefix: &str,
        programs: &Programs,
        size: usize,
    ) -> Result<Batch> {
        let target = if tls { contender.tls.as_deref().unwrap_or_default() } else { &contender.plain };
        let Programs { pgbench, psql, script } = programs;
        match self {
            Self::Select { mode, clients } => {
                // A fresh server process is slow at first, and pgbouncer does not use fresh ones.
                let each = (size / clients).max(size / 8);
                let command =
                    format!("{prefix} {pgbench} -n -M {mode} -c {clients} -t {each} -f {script} '{target}'");
                let rate = number(&contender.lane.run(&command)?, "tps = ")?;
                Ok(Batch { rate, operations: each * clients, connections: *clients })
            }
            Self::Connect => {
                let count = (size / 50).max(5);
                let command = format!("{prefix} {pgbench} -n -C -c 1 -t {count} -f {script} '{target}'");
                let rate = number(&contender.lane.run(&command)?, "tps = ")?;
                Ok(Batch { rate, operations: count, connections: 0 })
            }
            Self::Stream { sql, .. } => {
                let command =
                    format!("{prefix} {psql} -XqAt -o /dev/null -c '\\timing on' -c '{sql}' '{target}'");
                let milliseconds = number(&contender.lane.run(&command)?, "Time: ")?;
                Ok(Batch { rate: 1000.0 / milliseconds, operations: 1, connections: 0 })
            }
        }
    }
}

/// Where the clients are.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) pgbench: String,
    pub(super) psql: String,
    pub(super) script: String,
}

/// The number behind the last occurrence of a label.
pub(super) fn number(text: &str, label: &str) -> Result<f64> {
    let (_, rest) = text.rsplit_once(label).with_context(|| format!("no {label:?} in:\n{text}"))?;
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
        assert!(number(said, "Time: ").is_err());
    }
}
