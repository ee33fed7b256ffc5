//! SSH end to end: a real OpenSSH server, real clients, real kernel. Needs root.

mod approvals;
mod clients;
mod commands;
mod denied;
mod hostile;
mod hosts;
mod jumps;
mod logins;
mod records;
mod support;
mod transport;
mod tunnels;
