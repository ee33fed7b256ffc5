//! HTTPS end to end: real servers, real clients, real kernel. Needs root.

mod approvals;
mod clients;
mod hostile;
mod masks;
mod requests;
mod servers;
mod support;
