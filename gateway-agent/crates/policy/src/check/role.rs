//! Template of the roles that are made for jobs.

use std::collections::BTreeSet;

use std::time::Duration;

use super::check_name;
use crate::{
    diagnostic::{Findings, Place},
    model::{Credential, GrantOn, Privilege, RoleGrant, RoleTemplate},
    raw::{RawCredential, RawGrant, RawResource, RawRole},
};

/// What PostgreSQL's names may be long, in bytes.
const NAME_MAX: usize = 63;
const VALID_FOR: Duration = Duration::from_secs(12 * 60 * 60);
const CONNECTIONS: u32 = 50;

pub(super) fn credential(raw: &RawResource, place: &Place, findings: &mut Findings) -> Credential {
    match (raw.credential.unwrap_or_default(), &raw.role) {
        (RawCredential::Static, None) => Credential::Static,
        (RawCredential::Static, Some(_)) => {
            findings.add(
                place.at("role"),
                format!("resource `{}` has a role template, but its credential is static", raw.name),
                "write `credential: ephemeral`, or drop `role`",
            );
            Credential::Static
        }
        (RawCredential::Ephemeral, None) => {
            findings.add(
                place.at("credential"),
                format!("resource `{}` makes roles for jobs, but does not say what they may do", raw.name),
                "add `role: { member_of: [...] }` or `role: { grants: [...] }`",
            );
            Credential::Static
        }
        (RawCredential::Ephemeral, Some(role)) => {
            if raw.search_path.iter().flatten().any(|schema| schema == "$user") {
                findings.add(
                    place.at("search_path"),
                    "`$user` means another schema for every role that is made for a job",
                    "name the schema",
                );
            }
            if raw.login.iter().flat_map(|login| &login.roles).any(|roles| !roles.is_empty()) {
                findings.add(
                    place.at("login").at("roles"),
                    "a job that has a role made for it cannot ask for another",
                    "drop `roles`, or write `credential: static`",
                );
            }
            Credential::Ephemeral(template(role, &place.at("role"), findings))
        }
    }
}

fn template(raw: &RawRole, place: &Place, findings: &mut Findings) -> RoleTemplate {
    if raw.member_of.is_empty() && raw.grants.is_empty() {
        findings.add(place.clone(), "the role may do nothing", "add `member_of` or `grants`");
    }
    let valid_for = match raw.valid_for.as_deref().map(humantime::parse_duration) {
        None => VALID_FOR,
        Some(Ok(time)) if time >= Duration::from_secs(60) => time,
        Some(_) => {
            findings.add(
                place.at("valid_for"),
                "not a length of time of at least a minute",
                "for example 8h",
            );
            VALID_FOR
        }
    };
    let connections = raw.connections.unwrap_or(CONNECTIONS);
    if connections == 0 {
        findings.add(place.at("connections"), "a role without connections is of no use", "write 1 or more");
    }
    for (index, role) in raw.member_of.iter().enumerate() {
        name(role, &place.at("member_of").at(index), findings);
        if role.starts_with("pg_") || role == "postgres" {
            findings.add(
                place.at("member_of").at(index),
                format!("`{role}` is a role of the server itself"),
                "make a role for the purpose, and grant it what jobs need",
            );
        }
    }
    let grants = raw
        .grants
        .iter()
        .enumerate()
        .flat_map(|(index, raw)| grants(raw, &place.at("grants").at(index), findings));
    let grants = grants.collect();
    RoleTemplate { valid_for, connections, member_of: raw.member_of.clone(), grants }
}

fn grants(raw: &RawGrant, place: &Place, findings: &mut Findings) -> Vec<RoleGrant> {
    let privileges: BTreeSet<Privilege> = raw.privileges.iter().copied().collect();
    let mut targets = Vec::new();
    for (index, schema) in raw.schemas.iter().enumerate() {
        name(schema, &place.at("schemas").at(index), findings);
        targets.push(GrantOn::Schema(schema.clone()));
    }
    for (index, schema) in raw.all_tables_in.iter().enumerate() {
        name(schema, &place.at("all_tables_in").at(index), findings);
        targets.push(GrantOn::AllTablesIn(schema.clone()));
    }
    for (index, table) in raw.tables.iter().enumerate() {
        match table.split_once('.') {
            Some((schema, table)) => {
                name(schema, &place.at("tables").at(index), findings);
                name(table, &place.at("tables").at(index), findings);
                targets.push(GrantOn::Table(schema.to_owned(), table.to_owned()));
            }
            None => findings.add(
                place.at("tables").at(index),
                format!("`{table}` does not say in which schema"),
                "write `schema.table`",
            ),
        }
    }
    if privileges.is_empty() || targets.is_empty() {
        findings.add(
            place.clone(),
            "a grant of nothing, or on nothing",
            "for example { privileges: [select], tables: [public.orders] }",
        );
    }
    let mut made = Vec::new();
    for on in targets {
        for privilege in &privileges {
            let of_schemas = matches!(privilege, Privilege::Usage | Privilege::Create);
            if of_schemas != matches!(on, GrantOn::Schema(_)) {
                findings.add(
                    place.at("privileges"),
                    format!("{privilege:?} is no privilege on {}", on.what()).to_lowercase(),
                    "usage and create are for schemas, the others for tables",
                );
                continue;
            }
            made.push(RoleGrant { privilege: *privilege, on: on.clone() });
        }
    }
    made
}

fn name(name: &str, place: &Place, findings: &mut Findings) {
    if name.len() > NAME_MAX {
        findings.add(place.clone(), "a name longer than 63 bytes", "the server would cut it");
    }
    check_name("role, schema or table", name, place, findings);
}
