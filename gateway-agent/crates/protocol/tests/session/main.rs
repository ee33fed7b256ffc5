//! A PostgreSQL session fed with bytes from both sides.

mod copy;
mod extended;
mod login;
mod masks;
mod model;
mod random;
mod refused;
mod simple;
mod support;
