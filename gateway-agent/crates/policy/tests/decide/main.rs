//! Every step of an evaluation, and attempts to get around it.

mod commands;
mod effects;
mod functions;
mod masks;
#[path = "../support/mod.rs"]
mod support;

use policy::*;
use support::*;

fn rule(id: &str, effect: &str, rest: &str) -> String {
    format!("  - {{ id: {id}, effect: {effect}, subjects: [job], resources: [orders], {rest} }}\n")
}

fn policy(rules: &[(&str, &str, &str)]) -> Policy {
    let rules: String = rules.iter().map(|(id, effect, rest)| rule(id, effect, rest)).collect();
    load(&format!("rules:\n{rules}"))
}

const READ: (&str, &str, &str) = ("read", "allow", "statements: {classes: [read], relations: [public.*]}");

fn delete(relation: &str) -> Statement {
    statement("delete", Class::Write).on(Access::Write, relation)
}
