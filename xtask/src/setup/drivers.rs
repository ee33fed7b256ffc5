//! What the tests of drivers need beyond what every end-to-end test does: `cargo xtask test e2e drivers`.

use super::{Lack, debian, python};
use crate::{host, host::Host};

pub(super) fn ensure(host: &Host) -> Vec<Lack> {
    let mut lacks = debian::ensure(host, debian::DRIVERS);
    lacks.extend(python::more(
        host,
        &["pg8000>=1.30,<2", "SQLAlchemy>=2,<3", "alembic>=1.13,<2"],
        "pg8000, sqlalchemy, alembic",
    ));
    lacks.extend(node(host));
    lacks.extend(sqlx(host));
    lacks
}

/// The client that uses sqlx: a crate of its own, which nothing else waits for.
fn sqlx(host: &Host) -> Option<Lack> {
    let folder = host.root.join("tests/e2e/drivers/sqlx");
    let mut cargo = host.cargo();
    cargo.args(["build", "--locked", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(host.tools().join("sqlx"));
    match host::quietly("building the client of sqlx", &mut cargo) {
        Ok(()) => None,
        Err(error) => Some(Lack::new("the client of sqlx", format!("{}\n({error:#})", host::show(&cargo)))),
    }
}

fn node(host: &Host) -> Option<Lack> {
    let folder = host.tools().join("node");
    let there = || folder.join("node_modules/pg/package.json").is_file();
    if there() {
        return None;
    }
    let mut npm = host.command("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg("pg@8");
    let done = std::fs::create_dir_all(&folder)
        .map_err(Into::into)
        .and_then(|()| host::quietly("npm install pg", &mut npm));
    if there() {
        return None;
    }
    let why = done.err().map_or_else(|| "npm said it was there".to_owned(), |error| format!("{error:#}"));
    Some(Lack::new("node-postgres", format!("{}\n({why})", host::show(&npm))))
}
