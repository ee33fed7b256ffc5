//! A job's program that runs [`Exchange`]s and shows every byte it was sent.
//!
//! Reads a JSON list of exchanges from standard input; prints one outcome a line, as JSON. A session that ended is
//! followed by a new one; between two exchanges everything that the first left open is closed.

use std::{
    collections::{HashMap, hash_map::Entry},
    env,
    io::Write as _,
};

use anyhow::{Context, Result, ensure};
use tests::wire::{Exchange, Mode, Outcome, Wire};

fn main() -> Result<()> {
    let exchanges: Vec<Exchange> = serde_json::from_reader(std::io::stdin().lock())?;
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let (host, port, database) = (variable("PGHOST")?, variable("PGPORT")?.parse()?, variable("PGDATABASE")?);
    let mut sessions: HashMap<Mode, Wire> = HashMap::new();
    let mut out = std::io::stdout().lock();
    for exchange in &exchanges {
        if let Entry::Vacant(vacant) = sessions.entry(exchange.mode) {
            vacant.insert(Wire::connect(&host, port, &database)?);
        }
        let wire = sessions.get_mut(&exchange.mode).context("a session")?;
        let mut outcome = wire.run(exchange)?;
        if outcome.ended || !close(wire, &mut outcome)? {
            sessions.remove(&exchange.mode);
        }
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    }
    Ok(())
}

/// Leaves nothing of an exchange to the next; false when the session has ended.
fn close(wire: &mut Wire, outcome: &mut Outcome) -> Result<bool> {
    let steps = ["ROLLBACK", "CLOSE ALL", "DEALLOCATE ALL", "UNLISTEN *"].map(str::to_owned).to_vec();
    let closed = wire.run(&Exchange { mode: Mode::Simple, steps, copy: Vec::new() })?;
    ensure!(closed.errors.is_empty(), "cleaning up: {:?}", closed.errors);
    outcome.received.extend(closed.received);
    Ok(!closed.ended)
}
