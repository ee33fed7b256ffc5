//! `cargo xtask bench postgres`, `https`, `kubernetes` and `ssh`: the gateway beside a direct connection and other proxies.
//!
//! Machines drift, so contenders take turns batch by batch, and what is told is the median of the ratios to the
//! direct connection of the same round. The CPU that a proxy spends on an operation is read from /proc.
//!
//! pgbouncer keeps its server connections between two runs of pgbench, everybody else makes new ones, whose processes
//! start with cold caches. So nothing counts before the first second of a run is over: throughput and CPU are those of
//! warm connections, for everybody.

mod cases;
mod contender;
mod https;
mod kubernetes;
mod lane;
mod report;
mod ssh;
mod usage;

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use tests::{
    World,
    postgres::{Options, Postgres},
    process::{self, Running, must, wait_for},
    world::{DATABASE, DATABASE_V6, UNDECLARED},
};

use self::{
    cases::{Case, Programs},
    contender::Contender,
    report::{Measured, Series},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(value_parser = ["postgres", "https", "kubernetes", "ssh"])]
    name: String,
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    #[arg(long)]
    quick: bool,
    /// Sections and cases whose `section: case` contains this.
    #[arg(long)]
    only: Option<String>,
    /// Another build of the agent to measure beside this one.
    #[arg(long)]
    agent: Option<PathBuf>,
    /// Of ssh: the size of the large file.
    #[arg(long, default_value_t = 1024)]
    megabytes: u32,
    /// Of ssh: how many small ones.
    #[arg(long, default_value_t = 10_000)]
    files: u32,
}

/// An address that jobs may send datagrams to without the gateway.
const ALLOWED: &str = "127.0.0.53";
/// A UDP port there; port 53 of any address is the gateway's.
const UDP: u16 = 5353;
/// Sessions that do nothing; fewer where the machine allows fewer open files.
const IDLE: u32 = 10_000;

struct Bench {
    world: World,
    /// Where the other build of the agent runs, with a server of its own.
    other: Option<World>,
    contenders: Vec<Contender>,
    programs: Programs,
    rounds: usize,
    /// Of one batch of new connections.
    connections: usize,
    only: Option<String>,
    measured: Vec<Measured>,
    facts: Vec<(String, Value)>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.name.as_str() {
        "https" => return https::run(arguments),
        "kubernetes" => return kubernetes::run(arguments),
        "ssh" => return ssh::run(arguments),
        _ => {}
    }
    let mut bench = Bench::new(arguments)?;
    for (cores, label) in [("0", "one core"), ("0,1", "two cores")] {
        bench.pin(cores)?;
        let prefix = format!("taskset -c {cores}");
        bench.section(&format!("queries, {label}"), &cases::selects(&[1, 8, 32]), false, &prefix)?;
        bench.section(&format!("connections, {label}"), &[Case::Connect], false, &prefix)?;
        bench.section(&format!("streaming, {label}"), &cases::STREAMS, false, &prefix)?;
        bench.section(&format!("streaming, {label}"), &cases::LOOKING, false, &prefix)?;
        let mut secure = cases::selects(&[8]);
        secure.push(Case::Connect);
        secure.extend(cases::STREAMS);
        bench.section(&format!("TLS on both legs, {label}"), &secure, true, &prefix)?;
    }
    bench.memory()?;
    bench.idle()?;
    bench.analysis()?;
    bench.connect()?;
    let target =
        std::env::var_os("GATEWAY_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    report::write(&target.join("bench/postgres.json"), &bench.measured, &bench.facts)
}

impl Bench {
    fn new(arguments: &Arguments) -> Result<Self> {
        eprintln!("starting PostgreSQL, the gateway and the others");
        let world = world(World::builder())?;
        let mut contenders = contender::all(&world)?;
        let other = match &arguments.agent {
            Some(program) => Some(self::world(World::builder().program(program))?),
            None => None,
        };
        if let Some(other) = &other {
            contenders.insert(2, contender::gateway("other agent", other)?);
        }
        let script = world.folder().join("bench/select.sql");
        fs::write(&script, cases::SCRIPT)?;
        let programs = Programs {
            pgbench: world.db.program("pgbench").display().to_string(),
            psql: world.db.program("psql").display().to_string(),
            script: script.display().to_string(),
        };
        Ok(Self {
            world,
            other,
            contenders,
            programs,
            rounds: if arguments.quick { 1 } else { arguments.rounds },
            connections: if arguments.quick { 10 } else { 50 },
            only: arguments.only.clone(),
            measured: Vec::new(),
            facts: Vec::new(),
        })
    }

    fn wants(&self, section: &str, case: &str) -> bool {
        wants(self.only.as_deref(), section, case)
    }

    /// Everyone onto these cores; what they start later follows.
    fn pin(&self, cores: &str) -> Result<()> {
        let proxies = self.contenders.iter().filter_map(|contender| contender.pid);
        let servers = [&self.world].into_iter().chain(&self.other).map(|world| world.db.pid());
        for pid in proxies.chain(servers) {
            must(Command::new("taskset").args(["-acp", cores, &pid.to_string()]))?;
        }
        Ok(())
    }

    fn section(&mut self, section: &str, cases: &[Case], tls: bool, prefix: &str) -> Result<()> {
        let wanted: Vec<_> = cases.iter().filter(|case| self.wants(section, &case.name())).copied().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        report::heading(section);
        for case in wanted {
            let measured = self.case(section, case, tls, prefix)?;
            measured.print();
            self.measured.push(measured);
        }
        Ok(())
    }

    fn case(&mut self, section: &str, case: Case, tls: bool, prefix: &str) -> Result<Measured> {
        let mut all: Vec<(String, Series)> = takes_part(&mut self.contenders, tls)
            .map(|contender| (contender.name.to_owned(), Series::default()))
            .collect();
        let warm_up = usize::from(case.warms_up());
        for round in 0..self.rounds + warm_up {
            for (contender, (name, series)) in takes_part(&mut self.contenders, tls).zip(&mut all) {
                let batch = case
                    .run(contender, tls, prefix, &self.programs, self.connections)
                    .with_context(|| format!("{name}: {section}: {}", case.name()))?;
                if round < warm_up {
                    continue;
                }
                series.values.push(batch.rate);
                series.cpu += batch.cpu;
                series.operations += batch.operations;
            }
        }
        Ok(Measured { section: section.to_owned(), case: case.name(), contenders: all })
    }

    /// The gateway's memory while a million rows pass through it.
    fn memory(&mut self) -> Result<()> {
        if !self.wants("memory", "a million rows") {
            return Ok(());
        }
        let pid = self.world.agent.pid().context("the gateway does not run")?;
        let (psql, gateway) = (self.programs.psql.clone(), self.contender("gateway")?);
        println!("\nmemory of the gateway, MiB");
        let mut peaks = Vec::new();
        for (name, table) in [("a million rows", "bench_plain"), ("a million rows, masked", "bench_masked")] {
            usage::forget_peak(pid)?;
            let before = usage::peak(pid)?;
            let sql = format!("SELECT b.* FROM {table} AS b, bench_plain AS c WHERE c.id <= 5");
            gateway.lane.run(&format!("{psql} -XqAt -o /dev/null -c '{sql}' '{}'", gateway.plain))?;
            let peak = usage::peak(pid)?;
            println!("  {name:<24} peak {peak:.1}, before {before:.1}");
            peaks.push((name.to_owned(), json!({ "peak_mib": peak, "before_mib": before })));
        }
        self.facts.extend(peaks);
        Ok(())
    }

    /// What deciding about an unknown statement costs beside parsing it alone.
    fn analysis(&mut self) -> Result<()> {
        if !self.wants("analysis", "cold statements") {
            return Ok(());
        }
        let said =
            process::run(Command::new("taskset").args(["-c", "0"]).arg(tests::program("analysis-cost")?))?;
        ensure!(said.success(), "{said}");
        println!("\ndeciding about a statement that was not seen before, and parsing it alone");
        for line in said.stdout.lines() {
            let mut words = line.splitn(3, ' ');
            let mut number = || words.next().unwrap_or_default().parse::<f64>().context("reading a number");
            let (parse, decide) = (number()?, number()?);
            let name = words.next().unwrap_or_default();
            println!(
                "  {name:<24} {:>5.1} µs, {:>5.1} µs: {:.2}",
                decide / 1000.0,
                parse / 1000.0,
                decide / parse
            );
            let ratio = decide / parse;
            self.facts.push((
                format!("analysis: {name}"),
                json!({ "decide_ns": decide, "parse_ns": parse, "ratio": ratio }),
            ));
        }
        Ok(())
    }

    /// The gateway's memory for sessions that do nothing, towards a server that only lets in: a real one would need
    /// more memory than there is.
    fn idle(&mut self) -> Result<()> {
        if !self.wants("memory", "idle sessions") {
            return Ok(());
        }
        let world = &self.world;
        let pid = world.agent.pid().context("the gateway does not run")?;
        // Two sockets and a recording for each session, and some files more.
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let count = u32::try_from(most.saturating_sub(400) / 3)?.min(IDLE);
        let address = format!("{DATABASE}:5434");
        let limited =
            |words: String| ["sh".to_owned(), "-c".to_owned(), format!("ulimit -n {most}; exec {words}")];
        let program = tests::program("idle-peer")?;
        let [shell, rest @ ..] = limited(format!("{} serve {address}", program.display()));
        let _server = Running::capturing(world.far.command(shell).args(rest), None)?;
        let before = usage::resident(pid)?;
        let hold = format!("{} hold {address} {count}", world.program("idle-peer"));
        let mut client = world.job(&limited(hold)).open()?;
        let active = || world.agent.metric("gateway_sessions_active", &[]).ok();
        let up = wait_for("the sessions", Duration::from_secs(120), || {
            (active()? >= f64::from(count) || !client.alive()).then_some(())
        });
        if up.is_err() || !client.alive() {
            client.close_stdin();
            bail!("{:?} of {count} sessions: {:?}", active(), client.finish(Duration::from_secs(30)));
        }
        let with = usage::resident(pid)?;
        client.close_stdin();
        let said = client.finish(Duration::from_secs(60))?;
        ensure!(said.success() && said.stdout.contains(&format!("held {count}")), "{said}");
        let each = (with - before) * 1024.0 / f64::from(count);
        println!("\n{count} idle sessions: {with:.0} MiB, {before:.0} before, {each:.1} KiB each");
        self.facts
            .push((format!("{count} idle sessions"), json!({ "resident_mib": with, "before_mib": before })));
        Ok(())
    }

    /// What the kernel programs add to `connect`.
    fn connect(&mut self) -> Result<()> {
        if !self.wants("connect()", "cost") {
            return Ok(());
        }
        let program = self.world.program("connect-cost");
        let dns = format!("{ALLOWED}:{UDP}");
        let server = format!("{DATABASE}:{}", Postgres::PORT);
        println!("\nconnect(), ns, median of the rounds");
        let asked = [
            ("TCP, plain loopback", "direct", "loopback", dns.as_str(), 50),
            ("TCP, direct", "direct", "tcp", &server, 50),
            ("TCP, redirected", "gateway", "tcp", &server, 50),
            ("UDP, no programs", "direct", "udp", &dns, 500),
            ("UDP, allowed in a job", "gateway", "udp", &dns, 500),
        ];
        let mut took = vec![Vec::new(); asked.len()];
        for _ in 0..self.rounds {
            for ((_, lane, how, address, count), took) in asked.iter().zip(&mut took) {
                let said = self.contender(lane)?.lane.run(&format!("{program} {how} {address} {count}"))?;
                took.push(said.trim().parse::<u64>().with_context(|| format!("reading {said:?}"))?);
            }
        }
        for ((name, ..), mut took) in asked.into_iter().zip(took) {
            took.sort_unstable();
            let median = took.get(took.len() / 2).copied().unwrap_or_default();
            println!("  {name:<24} {median:>8}");
            self.facts.push((format!("connect: {name}"), json!({ "median_ns": median })));
        }
        Ok(())
    }

    fn contender(&mut self, name: &str) -> Result<&mut Contender> {
        let mut all = self.contenders.iter_mut();
        all.find(|contender| contender.name == name).with_context(|| format!("no contender {name}"))
    }
}

/// Whether `--only` leaves it in.
fn wants(only: Option<&str>, section: &str, case: &str) -> bool {
    only.is_none_or(|only| format!("{section}: {case}").contains(only))
}

/// A server with the tables of the measurements, and an agent in front of it.
fn world(builder: tests::world::Builder) -> Result<World> {
    let world = builder
        .policy(cases::POLICY)
        .postgres(Options {
            quiet: true,
            // The second address is for the resource with TLS.
            settings: vec![format!("listen_addresses = '{DATABASE},{DATABASE_V6},{UNDECLARED}'")],
            ..Options::default()
        })
        .configure("/sessions/max_per_job", 2 * IDLE)
        .configure("/sessions/max_total", 2 * IDLE)
        // As many threads as the others have.
        .configure("/sessions/workers", 1)
        .configure(
            "/kernel/allow",
            json!([{ "net": format!("{ALLOWED}/32"), "port": UDP, "protocol": "udp" }]),
        )
        .start()?;
    must(world.db.client("pgbench", Postgres::DATABASE).args(["-i", "-q", "-s", "1"]))?;
    world.db.admin(Postgres::DATABASE, cases::TABLES)?;
    Ok(world)
}

/// Who is measured with or without TLS. What only copies bytes would copy TLS all the same, which tells nothing.
fn takes_part(contenders: &mut [Contender], tls: bool) -> impl Iterator<Item = &mut Contender> {
    contenders.iter_mut().filter(move |c| if tls { c.tls.is_some() } else { !c.plain.is_empty() })
}
