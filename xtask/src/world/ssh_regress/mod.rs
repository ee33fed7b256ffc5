//! `cargo xtask test e2e ssh-regress`: OpenSSH's own tests, directly and through the gateway, compared.

mod known;

use std::{fs, time::Instant};

use anyhow::{Result, ensure};
use tests::openssh;

use crate::compared;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these scripts, in this order.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut scripts = openssh::chosen()?;
    if !arguments.only.is_empty() {
        let strange = arguments.only.iter().find(|name| !scripts.contains(&name.as_str()));
        ensure!(
            strange.is_none(),
            "{} is not one of {}",
            strange.map_or("", String::as_str),
            scripts.join(", ")
        );
        scripts.retain(|script| arguments.only.iter().any(|name| name == script));
    }
    let reports = compared::reports("ssh-regress")?;
    // What an earlier run left would look like a difference of this one.
    fs::remove_dir_all(&reports)?;
    fs::create_dir_all(&reports)?;
    let began = Instant::now();
    eprintln!("-- {} scripts, directly and through the gateway", scripts.len());
    let (direct, gateway) = openssh::compare(&scripts, &reports)?;
    eprintln!("ok ({:.0} s)", began.elapsed().as_secs_f64());

    let different: Vec<_> =
        direct.iter().filter(|(script, ending)| gateway.get(*script) != Some(*ending)).collect();
    let failed: Vec<_> =
        direct.iter().filter(|(_, ending)| !ending.passed).map(|(script, _)| script.as_str()).collect();
    let passed = match failed.as_slice() {
        [] => "all pass directly".to_owned(),
        some => format!("directly these fail too: {}", some.join(", ")),
    };
    println!("OpenSSH: {} of {} as direct ({passed})", direct.len() - different.len(), direct.len());
    let mut unexplained = 0;
    for (script, ending) in different {
        let through = gateway.get(script).map_or("(did not run)\n", |ending| ending.printed.as_str());
        let diff = reports.join(format!("{script}.diff"));
        fs::write(&diff, compared::difference(&ending.printed, through)?)?;
        match known::reason(script) {
            Some(reason) => println!("  {script}: {reason}"),
            None => {
                unexplained += 1;
                println!("  {script}: no known reason: {}", diff.display());
            }
        }
    }
    for (reason, scripts) in openssh::LEFT_OUT {
        println!("  not run ({reason}): {}", scripts.join(", "));
    }
    ensure!(unexplained == 0, "{unexplained} script(s) come out otherwise than direct, for no known reason");
    Ok(())
}
