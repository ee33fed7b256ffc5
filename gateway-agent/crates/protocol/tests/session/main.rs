//! A PostgreSQL session fed with bytes from both sides.

mod copy;
mod extended;
mod login;
mod masks;
mod random;
mod simple;
mod support;
