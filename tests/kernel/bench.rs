//! What the programs cost: each call with them off and on, finely interleaved, as medians of pairwise ratios.
//!
//! "Off" is the same process outside the attach root. Absolute times are printed for orientation alone.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use gateway_agent::kernel::{self, Destination, Disposition, Protocol};
use serde::Serialize;

use crate::{
    ask::{Answer, Ask, Hammered, Repeat},
    ground::{Actor, FAR_V4, Gateway, Ground, declared},
    vectors::RESOURCE,
};

#[derive(Debug, Serialize)]
struct Measured {
    name: &'static str,
    /// Median microseconds with the programs off, each operation.
    off_us: f64,
    /// On to off.
    median: f64,
    p10: f64,
    p90: f64,
    /// What the median should not exceed.
    target: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Program {
    hook: &'static str,
    runs: u64,
    ns: f64,
    /// Of the whole program.
    instructions: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: String,
    kernel: String,
    rounds: usize,
    ratios: Vec<Measured>,
    programs: Vec<Program>,
    large: Large,
}

#[derive(Debug, Serialize)]
struct Large {
    jobs: u32,
    destinations: u32,
    /// A cycle and a refused connect with large maps to the same with small ones.
    cycle: f64,
    refused: f64,
    /// Replacing all destinations.
    swap_ms: u64,
    /// Meanwhile.
    connects: u64,
    connects_refused: u64,
    forbidden_passed: u64,
}

pub(crate) fn run(rounds: usize, json: Option<&Path>) -> bool {
    let ground = Ground::new();
    let mut bench = Bench::new(&ground, rounds);
    let ratios = bench.ratios();
    let programs = bench.programs();
    let large = bench.large();
    let report = Report { machine: machine(), kernel: release(), rounds, ratios, programs, large };
    print(&report);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).unwrap();
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("written to {}", path.display());
    }
    true
}

struct Bench<'a> {
    ground: &'a Ground,
    gateway: Gateway,
    rounds: usize,
    free: Actor,
    bystander: Actor,
    job: Actor,
    /// Accepts and closes.
    plain: SocketAddr,
    /// Swallows datagrams.
    datagrams: SocketAddr,
    /// Swallows streams.
    bulk: SocketAddr,
    small: Vec<Destination>,
}

impl<'a> Bench<'a> {
    fn new(ground: &'a Ground, rounds: usize) -> Self {
        let gateway = Gateway::start(ground);
        let (plain, bulk) = (accepting(false), accepting(true));
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagrams = sink.local_addr().unwrap();
        std::thread::spawn(move || while sink.recv(&mut [0; 64]).is_ok() {});
        let mut small = declared();
        for (to, protocol) in [(plain, Protocol::Tcp), (bulk, Protocol::Tcp), (datagrams, Protocol::Udp)] {
            small.push(Destination {
                net: "127.0.0.1/32".parse().unwrap(),
                port: to.port(),
                protocol,
                disposition: Disposition::Allow,
            });
        }
        gateway.kernel.replace_destinations(&small).unwrap();
        gateway.kernel.add_job(ground.id("job")).unwrap();
        let (free, bystander, job) = (ground.actor(".."), ground.actor("bystander"), ground.actor("job"));
        Self { ground, gateway, rounds, free, bystander, job, plain, datagrams, bulk, small }
    }

    fn ratios(&mut self) -> Vec<Measured> {
        let resource = SocketAddr::new(FAR_V4.parse().unwrap(), RESOURCE);
        let refused = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
        let cycle = |to| (200, Ask::Cycle { to, count: 200 });
        let repeat = |what, to, count| (count, Ask::Repeat { what, to, count });
        let (plain, datagrams, bulk) = (self.plain, self.datagrams, self.bulk);
        let none = None;
        vec![
            self.compare("tcp cycle outside jobs", Some(1.15), Who::Bystander, &cycle(plain), &cycle(plain)),
            self.compare("tcp cycle of a job, allowed", Some(1.15), Who::Job, &cycle(plain), &cycle(plain)),
            // The same connection and the lookup of its destination: at most one and a half cycles more.
            self.compare(
                "tcp cycle of a job, redirected",
                Some(2.5),
                Who::Job,
                &cycle(plain),
                &cycle(resource),
            ),
            self.compare(
                "refused connect, to one that nobody accepts",
                none,
                Who::Job,
                &repeat(Repeat::RefusedConnect, refused, 500),
                &repeat(Repeat::RefusedConnect, SocketAddr::new(FAR_V4.parse().unwrap(), 80), 500),
            ),
            self.compare(
                "udp connect",
                none,
                Who::Job,
                &repeat(Repeat::DatagramConnect, datagrams, 2000),
                &repeat(Repeat::DatagramConnect, datagrams, 2000),
            ),
            self.compare(
                "udp sendto",
                none,
                Who::Job,
                &repeat(Repeat::DatagramSend, datagrams, 2000),
                &repeat(Repeat::DatagramSend, datagrams, 2000),
            ),
            self.compare(
                "bulk transfer, time of 64 MiB",
                Some(1.0 / 0.98),
                Who::Job,
                &(1, Ask::Bulk { to: bulk, mebibytes: 64 }),
                &(1, Ask::Bulk { to: bulk, mebibytes: 64 }),
            ),
        ]
    }

    /// Off, on, off, on …
    fn compare(
        &mut self,
        name: &'static str,
        target: Option<f64>,
        who: Who,
        off: &(u32, Ask),
        on: &(u32, Ask),
    ) -> Measured {
        let (mut base, mut ratios) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let without = time(&mut self.free, off);
            let actor = match who {
                Who::Bystander => &mut self.bystander,
                Who::Job => &mut self.job,
            };
            let with = time(actor, on);
            while self.gateway.try_flow().is_ok() {}
            // The first warms up.
            if round > 0 {
                base.push(without);
                ratios.push(with / without);
            }
        }
        Measured {
            name,
            off_us: quantile(&mut base, 0.5),
            median: quantile(&mut ratios, 0.5),
            p10: quantile(&mut ratios, 0.1),
            p90: quantile(&mut ratios, 0.9),
            target,
        }
    }

    /// Nanoseconds of each program's run, while cycles and datagrams of a job run.
    fn programs(&mut self) -> Vec<Program> {
        let before: BTreeMap<_, _> = self.costs();
        let measuring = kernel::measure().unwrap();
        let resource = SocketAddr::new(FAR_V4.parse().unwrap(), RESOURCE);
        for ask in [
            Ask::Cycle { to: self.plain, count: 1000 },
            Ask::Cycle { to: resource, count: 500 },
            Ask::Repeat { what: Repeat::DatagramSend, to: self.datagrams, count: 2000 },
            Ask::Bulk { to: self.bulk, mebibytes: 64 },
        ] {
            self.job.done(&ask);
            while self.gateway.try_flow().is_ok() {}
        }
        let after = self.costs();
        drop(measuring);
        let programs = after.into_iter().filter_map(|(hook, (runs, time, instructions))| {
            let (runs_before, time_before, _) = before.get(hook).copied().unwrap_or_default();
            let runs = runs.checked_sub(runs_before).filter(|runs| *runs > 0)?;
            let ns = time.saturating_sub(time_before).as_nanos() as f64 / runs as f64;
            Some(Program { hook, runs, ns, instructions })
        });
        programs.collect()
    }

    fn costs(&self) -> BTreeMap<&'static str, (u64, Duration, u32)> {
        let costs = kernel::costs(&self.ground.pin_dir).unwrap();
        costs.into_iter().map(|cost| (cost.hook.name(), (cost.runs, cost.time, cost.instructions))).collect()
    }

    /// The same calls with maps nearly full, and the time of filling one anew under a hammer.
    fn large(&mut self) -> Large {
        let mut many = self.small.clone();
        many.extend((0..DESTINATIONS).map(|number| Destination {
            net: format!("{}/32", Ipv4Addr::from_bits(0x0a00_0000 + number)).parse().unwrap(),
            port: 5432,
            protocol: Protocol::Tcp,
            disposition: Disposition::Redirect,
        }));
        for id in 0..u64::from(JOBS) {
            // Ids that no cgroup of this boot will have.
            self.gateway.kernel.add_job(u64::MAX - id).unwrap();
        }
        let (plain, beyond) = (self.plain, SocketAddr::new(FAR_V4.parse().unwrap(), 80));
        let cycle = (200, Ask::Cycle { to: plain, count: 200 });
        let refused = (500, Ask::Repeat { what: Repeat::RefusedConnect, to: beyond, count: 500 });
        // Two worlds would be two machines: the maps grow and shrink between the halves of each round.
        let (mut cycles, mut refusals) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds.min(8) {
            self.gateway.kernel.replace_destinations(&self.small).unwrap();
            let small = (time(&mut self.job, &cycle), time(&mut self.job, &refused));
            self.gateway.kernel.replace_destinations(&many).unwrap();
            cycles.push(time(&mut self.job, &cycle) / small.0);
            refusals.push(time(&mut self.job, &refused) / small.1);
        }
        let started = Instant::now();
        let hammered = under_a_hammer(&mut self.job, &self.gateway, || {
            self.gateway.kernel.replace_destinations(&many).unwrap();
        });
        Large {
            jobs: JOBS,
            destinations: DESTINATIONS,
            cycle: quantile(&mut cycles, 0.5),
            refused: quantile(&mut refusals, 0.5),
            swap_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            connects: hammered.allowed,
            connects_refused: hammered.refused,
            forbidden_passed: hammered.passed,
        }
    }
}

#[derive(Clone, Copy)]
enum Who {
    Bystander,
    Job,
}

const JOBS: u32 = 10_000;
const DESTINATIONS: u32 = 100_000;

/// Hammers until the work is done.
fn under_a_hammer(job: &mut Actor, gateway: &Gateway, work: impl FnOnce() + Send) -> Hammered {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            work();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut sum = Hammered::default();
        loop {
            let last = done.load(std::sync::atomic::Ordering::Relaxed);
            let ask = Ask::Hammer {
                millis: 100,
                redirected: SocketAddr::new(FAR_V4.parse().unwrap(), RESOURCE),
                allowed: SocketAddr::new(FAR_V4.parse().unwrap(), 53),
                forbidden: SocketAddr::new(FAR_V4.parse().unwrap(), 80),
            };
            let Answer::Hammered(seen) = job.ask(&ask) else { panic!("no hammer") };
            sum.allowed += seen.allowed;
            sum.refused += seen.refused;
            sum.forbidden += seen.forbidden;
            sum.passed += seen.passed;
            while gateway.try_flow().is_ok() {}
            if last {
                break;
            }
        }
        working.join().unwrap();
        sum
    })
}

/// A listener that accepts and closes, or reads to the end.
fn accepting(reads: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // As long a queue as the gateway's: a dropped SYN costs a second.
    rustix::net::listen(&listener, 4096).unwrap();
    let local = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 18];
        while let Ok((mut stream, _)) = listener.accept() {
            while reads && stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    });
    local
}

/// Microseconds of one operation.
fn time(actor: &mut Actor, (count, ask): &(u32, Ask)) -> f64 {
    match actor.ask(ask) {
        Answer::Done { micros, .. } => micros as f64 / f64::from(*count),
        failed => panic!("{ask:?}: {failed:?}"),
    }
}

fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (at * (values.len() - 1) as f64).round() as usize;
    values[place]
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores", model.unwrap_or("unknown").trim())
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn print(report: &Report) {
    println!("{}, Linux {}, {} rounds\n", report.machine, report.kernel, report.rounds);
    println!("{:<46} {:>8}  {:>6}  {:>13}  {:>6}", "on to off", "off, us", "median", "p10 to p90", "target");
    for row in &report.ratios {
        let target = row.target.map_or_else(|| "-".into(), |target| format!("{target:.2}"));
        let spread = format!("{:.2} to {:.2}", row.p10, row.p90);
        println!("{:<46} {:>8.1}  {:>6.2}  {spread:>13}  {target:>6}", row.name, row.off_us, row.median);
    }
    println!("\n{:<16} {:>9} {:>8} {:>12}", "program", "runs", "ns each", "instructions");
    for program in &report.programs {
        println!("{:<16} {:>9} {:>8.0} {:>12}", program.hook, program.runs, program.ns, program.instructions);
    }
    let large = &report.large;
    println!(
        "\n{} jobs and {} destinations, to few of either: cycle {:.2}, refused connect {:.2}",
        large.jobs, large.destinations, large.cycle, large.refused
    );
    println!(
        "replacing {} destinations: {} ms; meanwhile {} allowed connects, {} refused, {} forbidden ones passed",
        large.destinations, large.swap_ms, large.connects, large.connects_refused, large.forbidden_passed
    );
}
