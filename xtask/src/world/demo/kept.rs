//! `--keep`: leaves the world running, with commands to try.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use tests::{World, agent, issuer, postgres::Postgres, world};

use super::{show::Show, stage::quoted};

/// Tokens are good for one enrolment each: this many jobs can be started.
const TOKENS: usize = 100;
/// How long, in seconds.
const GOOD_FOR: u64 = 20 * 3600;

pub(super) fn leave(world: World, show: &mut Show) -> Result<()> {
    let folder = world.folder().to_owned();
    let spare = folder.join("spare");
    fs::create_dir_all(&spare)?;
    fs::set_permissions(&spare, fs::Permissions::from_mode(0o700))?;
    for number in 0..TOKENS {
        let token = world.token().claim("exp", issuer::now() + GOOD_FOR).mint()?;
        fs::write(spare.join(format!("{number:03}")), token)?;
    }
    let there = folder.display();
    let network = world.host.path();
    let program = tests::program("gateway-agent")?;
    script(
        &folder.join("gateway"),
        &format!(
            "# gateway-agent, where the daemon of this world runs.\n\
             export GATEWAY_CONFIG={config}\ncd {there} || exit\n\
             if [ \"$1\" = run ]; then echo $$ > {cgroup}/gateway/cgroup.procs; fi\n\
             exec nsenter --net={network} -- {program} \"$@\"",
            config = quote(&world.agent.config_file()),
            cgroup = quote(world.cgroup()),
            network = quote(&network),
            program = quote(&program),
        ),
    )?;
    script(
        &folder.join("job"),
        &format!(
            "# Runs a command as a job, or a shell; each takes one of the tokens made beforehand.\n\
             token=$(ls {there}/spare | head -n 1)\n\
             if [ -z \"$token\" ]; then echo 'no token is left: start another demo' >&2; exit 1; fi\n\
             mv {there}/spare/$token {there}/tokens/spare-$token || exit\n\
             export PGHOST={host} PGPORT={port} PGDATABASE={database} PGUSER=job PGSSLMODE=verify-full PSQL_PAGER= PSQLRC=/dev/null\n\
             exec {there}/gateway exec --token-file {there}/tokens/spare-$token -- \"${{@:-bash}}\"",
            host = world::DATABASE,
            port = Postgres::PORT,
            database = Postgres::DATABASE,
        ),
    )?;
    script(
        &folder.join("database"),
        &format!(
            "# psql on the database's own host, as its superuser: past the gateway.\n\
             export PGHOST={socket} PGPORT={port} PGDATABASE={database} PGUSER=postgres\nexec {psql} \"$@\"",
            socket = quote(world.db.folder()),
            port = Postgres::PORT,
            database = Postgres::DATABASE,
            psql = quote(&world.db.program("psql")),
        ),
    )?;
    let log = folder.join("agent.log");
    let policy = folder.join("policy.yaml");
    let pid = world.agent.pid().context("the agent does not run")?;
    let name = world.keep()?;
    show.chapter(
        "Left running",
        &format!("Jobs run as user {}; tokens are good for {} hours.", agent::JOB_UID, GOOD_FOR / 3600),
    )?;
    for (what, command) in [
        ("a job: a psql of your own", format!("{there}/job psql")),
        ("a job: a shell; try curl, ping, ssh", format!("{there}/job bash")),
        ("a deletion, in one terminal …", format!("{there}/job psql -c 'DELETE FROM orders WHERE id = 8'")),
        ("… and its approval in another", format!("{there}/gateway approvals watch")),
        ("", format!("{there}/gateway approvals approve ID --reason '…'")),
        ("who and what is there", format!("{there}/gateway status")),
        ("", format!("{there}/gateway sessions")),
        (
            "why a rule decides",
            format!(
                "{there}/gateway policy explain --subject payments-agent --resource orders 'DROP TABLE customers'"
            ),
        ),
        ("change the policy: it is read at once", format!("editor {}", policy.display())),
        ("the real data", format!("{there}/database -c 'TABLE customers LIMIT 3'")),
        (
            "what was recorded",
            format!("{there}/gateway replay $(ls -t {there}/recordings/*/*.gwr | head -n 1)"),
        ),
        (
            "",
            format!("{there}/gateway verify {there}/recordings --live --key {there}/state/recording.key.pub"),
        ),
        ("what was decided", format!("tail -n 3 {there}/state/audit.jsonl")),
        (
            "metrics",
            format!("nsenter --net={} curl -s 127.0.0.1:{}/metrics", network.display(), agent::METRICS),
        ),
        ("kill the gateway, and start it again", format!("kill -KILL {pid}")),
        ("", format!("{there}/gateway run >>{} 2>&1 &", log.display())),
        ("remove everything", format!("cargo xtask demo --clean {}", name.as_str())),
    ] {
        if !what.is_empty() {
            show.line(&format!("  # {what}"))?;
        }
        show.line(&format!("  {command}"))?;
    }
    Ok(())
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/bash\n{text}\n"))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

fn quote(path: &Path) -> String {
    quoted(&path.display().to_string())
}
