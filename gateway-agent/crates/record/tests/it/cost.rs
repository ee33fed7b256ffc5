//! What recording costs. Printed, not asserted: machines differ.

use std::time::Instant;

use crate::common::{header, names, scribe};
use record::{Batch, Event, List, Params, Verdict, Writer};

#[test]
fn print_the_cost_of_a_statement() {
    const ROUNDS: u64 = 200_000;
    let rules = names(&["read"]);
    let (mut scribe, mut batch) = (scribe(), Batch::default());
    let mut writer = Writer::open(std::io::sink(), &header(), &mut scribe).unwrap();
    let (mut push, mut write) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    let param = Some(&b"123456"[..]);
    let params = [param];
    let mut start = Instant::now();
    for n in 0..ROUNDS {
        let statement = Event::Statement {
            n,
            sql: "SELECT abalance FROM pgbench_accounts WHERE aid = $1".into(),
            params: Params::Shared(&params),
            verdict: Verdict::Allow,
            rules: List::Shared(&rules),
            approval: None,
        };
        let finished = Event::Finished {
            n,
            tag: "SELECT 1".into(),
            rows: 1,
            bytes: 40,
            sqlstate: None,
            micros: 55,
            masked: 0,
        };
        batch.push(n * 1000, &statement).unwrap();
        batch.push(n * 1000 + 500, &finished).unwrap();
        if batch.is_full() {
            push += start.elapsed();
            start = Instant::now();
            writer.write(&batch.take(), &mut scribe).unwrap();
            write += start.elapsed();
            start = Instant::now();
        }
    }
    println!(
        "per statement: {:.0} ns on the session's thread, {:.0} ns on the recorder's, {:.1} bytes",
        push.as_nanos() as f64 / ROUNDS as f64,
        write.as_nanos() as f64 / ROUNDS as f64,
        writer.written() as f64 / ROUNDS as f64,
    );
    let start = Instant::now();
    for _ in 0..1000 {
        Writer::open(std::io::sink(), &header(), &mut scribe).unwrap().seal(1, &mut scribe).unwrap();
    }
    println!("an empty session: {:.1} µs", start.elapsed().as_micros() as f64 / 1000.0);
}
