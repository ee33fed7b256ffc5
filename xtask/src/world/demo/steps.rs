//! The steps, in order. Each checks what it shows.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result};
use tests::{
    process::{self, LIMIT, wait_for, which},
    world,
};

use super::{
    secrets::{decoded, recordings},
    show::Who,
    stage::Stage,
};

/// What begins every customer's address and number in the sample data, and no masked value.
const PERSONAL: [&str; 2] = ["@mail.example", "101-11-1001"];
/// How soon a refusal has to come: nothing may have to time out for it.
const AT_ONCE: Duration = Duration::from_secs(2);

const CUSTOMERS: &str = "SELECT id, name, email, ssn FROM customers ORDER BY id LIMIT 3";

fn personal(text: &str) -> bool {
    PERSONAL.iter().any(|value| text.contains(value))
}

impl Stage {
    pub(super) fn masked_select(&mut self) -> Result<()> {
        self.show.step(
            "An allowed SELECT, with masked columns",
            "The policy lets this job read customers, but not their email and ssn. The job has no password for the database.",
        )?;
        let real = self.ask_database(CUSTOMERS)?;
        self.show
            .check("the database holds the real values", PERSONAL.iter().all(|value| real.contains(value)))?;
        let said = self.in_job(&format!("PGSSLMODE=disable psql -c '{CUSTOMERS}'"))?;
        self.show.check("the job reads the rows", said.status == 0 && said.out.contains("Customer 1"))?;
        self.show
            .check("email and ssn come back masked", !personal(&said.out) && said.out.contains("[redacted]"))
    }

    pub(super) fn over_tls(&mut self) -> Result<()> {
        self.show.step(
            "The same over TLS",
            "verify-full: the name asked for is the database's, the certificate is the gateway's, its CA is in the job's PGSSLROOTCERT.",
        )?;
        let said = self.in_job(&format!("PGSSLMODE=verify-full psql -c '\\conninfo' -c '{CUSTOMERS}'"))?;
        self.show
            .check("the connection is encrypted", said.out.contains("SSL connection (protocol: TLSv1.3"))?;
        self.show.check(
            "the same rows, masked the same",
            said.status == 0 && said.out.contains("[redacted]") && !personal(&said.out),
        )
    }

    pub(super) fn denied_drop(&mut self) -> Result<()> {
        self.show.step(
            "A denied DROP",
            "The account that the gateway logs in with may drop the table; the policy does not let this job.",
        )?;
        let said = self.in_job(
            "psql -v VERBOSITY=verbose -c 'DROP TABLE customers' -c 'SELECT count(*) AS still_here FROM customers'",
        )?;
        self.show.check(
            "the client gets SQLSTATE 42501 and the rule that denied it",
            said.err.contains("42501") && said.err.contains("denied by policy rule"),
        )?;
        self.show.check("the session stays usable", said.status == 0 && said.out.contains("200"))?;
        let there = self.world.db.admin("orders", "SELECT count(*) FROM customers")?;
        self.show.check("the table is still there", there == "200")?;
        self.show.check(
            "the statement never reached the database",
            !self.world.db.log().contains("DROP TABLE customers"),
        )
    }

    pub(super) fn approved_delete(&mut self) -> Result<()> {
        self.show.step(
            "A DELETE that waits for a human",
            "The policy asks root about deletions. The job waits, sees for whom, and goes on once root has agreed.",
        )?;
        let command = "psql -c 'DELETE FROM orders WHERE id = 7'";
        self.show.command(Who::Job, command)?;
        let waiting = self.job.start(command)?;
        let told = wait_for("the client to be told that it waits", LIMIT, || {
            let told = waiting.complaints();
            (told.contains("NOTICE") || waiting.ended()).then_some(told)
        })?;
        self.secrets.processes(&self.world)?;
        self.show.output(&told)?;
        self.show
            .check("a NOTICE tells for whom it waits", told.contains("NOTICE") && told.contains("root"))?;
        let untouched = self.world.db.admin("orders", "SELECT count(*) FROM orders WHERE id = 7")?;
        self.show.check("nothing has happened yet", !waiting.ended() && untouched == "1")?;

        let listed = self.operate(&["approvals", "list"])?;
        self.show.check("it is listed", listed.contains("DELETE FROM orders WHERE id = 7"))?;
        let list = self.world.agent.json(&["approvals", "list"])?;
        let id = list[0]["id"].as_str().context("an approval without an id")?.to_owned();
        let shown = self.operate(&["approvals", "show", &id])?;
        self.show.check(
            "it is shown with statement, subject, process and rule",
            ["DELETE FROM orders WHERE id = 7", "payments-agent", "psql", "delete-order"]
                .iter()
                .all(|part| shown.contains(part)),
        )?;
        let answer = self.operate(&["approvals", "approve", &id, "--reason", "order 7 was a test"])?;
        self.show.check("it is approved", answer.contains("approved"))?;

        let said = waiting.finish(&mut self.job, &self.world, &mut self.secrets)?;
        self.show.command(Who::Job, "# the psql that waited")?;
        self.said(&said)?;
        self.show.check("the DELETE ran, once", said.status == 0 && said.out.contains("DELETE 1"))?;
        let gone = self.ask_database("SELECT count(*) FROM orders WHERE id = 7")?;
        self.show.check("the row is gone", gone == "0")
    }

    pub(super) fn masked_copy(&mut self) -> Result<()> {
        self.show.step(
            "COPY is masked too",
            "\\copy streams rows by another part of the protocol; the masks hold there too.",
        )?;
        let said = self.in_job(
            "psql -c '\\copy (SELECT id, name, email AS contact, ssn FROM customers ORDER BY id LIMIT 3) TO STDOUT WITH (FORMAT csv, HEADER)'",
        )?;
        self.show.check("the rows are copied", said.status == 0 && said.out.lines().count() == 4)?;
        self.show.check("masked", said.out.matches("[redacted]").count() == 6 && !personal(&said.out))
    }

    pub(super) fn straight_to_the_database(&mut self) -> Result<()> {
        self.show.step(
            "Straight to the database's address",
            "The job dials the database by its number, v4 and v6, without libpq's settings, as any program would. The kernel takes it to the gateway all the same.",
        )?;
        let ca = self.world.folder().join("db-ca.pem");
        let from_here = |space: &tests::netns::Netns| {
            let mut psql = space.command(self.world.db.program("psql"));
            psql.args(["-XAtc", "SELECT email FROM customers ORDER BY id LIMIT 1"])
                .env("PGHOST", world::DATABASE)
                .env("PGDATABASE", "orders")
                .env("PGUSER", "gateway")
                .env("PGPASSWORD", self.world.password())
                .env("PGSSLMODE", "verify-full")
                .env("PGSSLROOTCERT", &ca);
            process::run(&mut psql)
        };
        let outside = from_here(&self.world.host)?;
        self.show.check(
            "outside of the job, on the same host, that address is the database, with the database's certificate",
            outside.success() && outside.text() == "customer1@mail.example",
        )?;
        for address in [world::DATABASE, world::DATABASE_V6] {
            let said = self.in_job(&format!(
                "psql 'hostaddr={address} user=gateway sslmode=verify-ca sslrootcert={}' -c 'SELECT 1'",
                ca.display()
            ))?;
            self.show.check(
                &format!("inside, who answers at {address} is not the database"),
                said.status != 0 && said.err.contains("certificate verify failed"),
            )?;
            let said = self.in_job(&format!(
                "psql -At 'hostaddr={address} user=postgres' -c 'SELECT email, current_user FROM customers LIMIT 1'"
            ))?;
            self.show.check(
                "it is the gateway: masked, and logged in as its own user whatever the job says",
                said.status == 0 && said.out.contains("|gateway") && !personal(&said.out),
            )?;
        }
        Ok(())
    }

    pub(super) fn undeclared_destination(&mut self) -> Result<()> {
        self.show.step(
            "An undeclared destination",
            "Everything that no resource declares is refused by the kernel, at connect or at the first packet: nothing leaves.",
        )?;
        let denials = self.world.agent.metric("gateway_kernel_denials_total", &[])?;
        let canary = self.world.canary()?;
        for (protocol, address, port) in [
            ("tcp", world::UNDECLARED, 5432),
            ("tcp", world::CANARY, 443),
            ("tcp", world::CANARY_V6, 443),
            ("udp", world::CANARY, 443),
        ] {
            let said = self.in_job(&format!("echo hello >/dev/{protocol}/{address}/{port}"))?;
            self.show.check(
                &format!("refused after {} ms", said.took.as_millis()),
                said.status != 0 && said.took < AT_ONCE && said.err.contains("not permitted"),
            )?;
        }
        self.show.check("no packet has left", self.world.canary()? == canary)?;
        let now = wait_for("the denials to be counted", LIMIT, || {
            let now = self.world.agent.metric("gateway_kernel_denials_total", &[]).ok()?;
            (now >= denials + 4.0).then_some(now)
        })?;
        self.show.check(&format!("counted: {} kernel denials so far", now), now > denials)
    }

    pub(super) fn killed(&mut self) -> Result<()> {
        self.show.step(
            "The gateway is killed, and access is gone",
            "SIGKILL in the middle of a session. The kernel programs stay attached: a job without a gateway reaches nothing.",
        )?;
        let canary = self.world.canary()?;
        let pid = self.world.agent.pid().context("the agent does not run")?;
        let (host, port) = (world::DATABASE, 5432);
        let command = format!(
            "{{ echo \"SELECT 'before';\"; while (exec 3<>/dev/tcp/{host}/{port}) 2>/dev/null; do :; done; echo \"SELECT 'after';\"; }} | psql -At # 'after' once the gateway is dead"
        );
        self.show.command(Who::Job, &command)?;
        let session = self.job.start(&command)?;
        wait_for("the session to begin", LIMIT, || {
            (session.output().contains("before") || session.ended()).then_some(())
        })?;
        self.show.command(Who::Operator, &format!("kill -KILL {pid}"))?;
        self.world.agent.kill();
        let said = session.finish(&mut self.job, &self.world, &mut self.secrets)?;
        self.said(&said)?;
        self.show.check(
            "the session is cut off",
            said.status != 0
                && said.out.trim() == "before"
                && said.err.contains("connection to server was lost"),
        )?;
        let said = self.in_job("psql -c \"SELECT 'after'\"")?;
        self.show.check(
            &format!("the database cannot be reached ({} ms)", said.took.as_millis()),
            said.status != 0 && said.took < AT_ONCE && said.err.contains("Connection refused"),
        )?;
        let said = self.in_job(&format!("echo hello >/dev/tcp/{}/443", world::CANARY))?;
        self.show.check("nor can anything else", said.status != 0 && said.took < AT_ONCE)?;
        self.show.check(
            "the database saw nothing of it, and no packet has left",
            !self.world.db.log().contains("SELECT 'after'") && self.world.canary()? == canary,
        )
    }

    pub(super) fn back(&mut self) -> Result<()> {
        self.show.step(
            "The gateway is back, and so is the job",
            "A new daemon takes over the kernel programs and the jobs: this one is the same as before, nobody enrolled again.",
        )?;
        let tokens = fs::read_dir(self.world.folder().join("tokens"))?.count();
        self.show.command(Who::Operator, "gateway-agent run &")?;
        self.world.agent.start()?;
        let said = self.in_job("psql -At -c \"SELECT 'after the restart', email FROM customers LIMIT 1\"")?;
        self.show.check(
            "the job works, under the same policy",
            said.status == 0 && said.out.contains("after the restart") && !personal(&said.out),
        )?;
        let jobs = self.operate(&["jobs"])?;
        let enrolled = self.world.agent.metric("gateway_enrolments_total", &[])?;
        self.show.check(
            "one job, and no enrolment since the restart",
            jobs.matches("payments-agent").count() == 1
                && enrolled == 0.0
                && fs::read_dir(self.world.folder().join("tokens"))?.count() == tokens,
        )
    }

    pub(super) fn replay(&mut self) -> Result<()> {
        self.show.step(
            "The replay",
            "Every session is recorded: who, where, what was asked, what was decided, what came of it, and when.",
        )?;
        let wanted = decoded(&self.world)?.into_iter().find(|(_, text)| text.contains("DELETE FROM orders"));
        let (path, _) = wanted.context("no recording holds the DELETE")?;
        let name = path.to_str().context("a path that is not UTF-8")?.to_owned();
        let text = self.operate(&["replay", "--no-wait", &name])?;
        self.show.check(
            "the session with the DELETE, with who agreed to it",
            ["payments-agent", "DELETE FROM orders WHERE id = 7", "delete-order", "root"]
                .iter()
                .all(|part| text.contains(part)),
        )
    }

    pub(super) fn verify(&mut self) -> Result<()> {
        self.show.step(
            "The proof",
            "Recordings are chained by hashes and signed. `verify` checks every byte; a changed one does not pass.",
        )?;
        let folder = self.world.agent.recordings().display().to_string();
        let key = self.world.folder().join("state/recording.key.pub").display().to_string();
        let said = self.operate(&["verify", &folder, "--key", &key, "--live"])?;
        let count = recordings(&self.world)?.len();
        self.show.check(
            &format!(
                "all {count} recordings are whole; the one that the kill cut off was closed by the new daemon"
            ),
            said.contains(&format!("{count} recordings, 0 not accepted")) && said.contains("recovered"),
        )?;
        let original = recordings(&self.world)?.into_iter().next().context("no recording")?;
        let forged = self.world.folder().join("forged").join(original.file_name().context("a name")?);
        fs::create_dir_all(self.world.folder().join("forged"))?;
        let mut bytes = fs::read(&original)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&forged, bytes)?;
        let out = self.try_operate(&["verify", &forged.display().to_string(), "--key", &key])?;
        self.show.check(
            &format!("a copy with one bit of byte {middle} flipped is refused"),
            !out.success() && out.stdout.contains("TAMPERED"),
        )?;
        fs::remove_dir_all(self.world.folder().join("forged")).context("removing the forged copy")
    }

    pub(super) fn metrics(&mut self) -> Result<()> {
        self.show.step(
            "The metrics",
            "Prometheus text; counters began again with the daemon that was started a moment ago.",
        )?;
        self.show.command(Who::Operator, "curl -s 127.0.0.1:9464/metrics # an excerpt")?;
        let text = self.world.agent.metrics()?;
        self.secrets.absent("/metrics", text.as_bytes())?;
        const EXCERPT: [&str; 9] = [
            "gateway_flows_total",
            "gateway_decisions_total",
            "gateway_approvals_waiting",
            "gateway_masked_cells_total",
            "gateway_jobs",
            "gateway_kernel_denials_total",
            "gateway_heartbeat_age_seconds",
            "gateway_audit_bytes_total",
            "gateway_phase_duration_seconds_count",
        ];
        let excerpt: Vec<&str> = text
            .lines()
            // What never happened is left out of these, not to tire the eye.
            .filter(|line| !(line.ends_with(" 0") && line.contains('{')))
            .filter(|line| EXCERPT.iter().any(|name| line.split(['{', ' ']).next() == Some(name)))
            .collect();
        self.show.output(&excerpt.join("\n"))?;
        self.show.check(
            "flows, decisions, masked cells, heartbeat and kernel denials are there",
            EXCERPT.iter().all(|name| excerpt.iter().any(|line| line.starts_with(name))),
        )?;
        let promtool = which("promtool").context("promtool is not installed: `cargo xtask setup` does it")?;
        let mut check = Command::new(promtool);
        check.args(["check", "metrics"]);
        let mut running = process::Running::capturing(&mut check, None)?;
        running.write(text.as_bytes())?;
        let out = running.finish(LIMIT)?;
        self.show.output(&out.stderr)?;
        self.show.check("promtool has nothing to object", out.success() && out.stderr.trim().is_empty())
    }

    pub(super) fn no_secret(&mut self) -> Result<()> {
        self.show.step(
            "No secret anywhere",
            "The gateway's password upstream and the job's token: searched for in everything this demo produced.",
        )?;
        self.secrets.absent("what the demo showed", self.show.said().as_bytes())?;
        self.secrets.absent("/metrics", self.world.agent.metrics()?.as_bytes())?;
        let mut sessions = 0;
        for (path, text) in decoded(&self.world)? {
            self.secrets.absent(&format!("the recording {}", path.display()), text.as_bytes())?;
            sessions += 1;
        }
        let (processes, psql) = self.secrets.looked_at();
        self.show.check(
            &format!("not in environment or arguments of {processes} processes of the job while they ran"),
            psql && processes > 5,
        )?;
        let files = self.secrets.files(&self.world)?;
        self.show.check(&format!("not in any of {sessions} recordings, decoded"), sessions > 5)?;
        self.show.check(
            &format!("not in any of {files} files: logs, audit, state, what the job wrote, the database's log and data"),
            files > 10,
        )?;
        let audit = self.world.agent.audit()?;
        self.show.check(
            &format!("nor in the {} events of the audit log, which are there", audit.len()),
            audit.len() > 10,
        )
    }
}
