//! PostgreSQL end to end: real server, real clients, real kernel. Needs root.

mod approvals;
mod deny;
mod dns;
mod drivers;
mod fixtures;
mod gates;
mod identity;
mod input;
mod leak;
mod metrics;
mod namespaces;
mod network;
mod pgbench;
mod podman;
mod psql;
mod recordings;
mod reload;
mod roles;
mod secrets;
mod settings;
mod suite;
mod support;
mod transforms;
mod wire;
