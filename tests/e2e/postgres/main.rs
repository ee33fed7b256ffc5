//! PostgreSQL end to end: real server, real clients, real kernel. Needs root.

mod fixtures;
