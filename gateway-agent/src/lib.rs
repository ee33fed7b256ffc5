//! The agent: a job's connections reach their targets through this gateway or not at all.

pub mod admin;
pub mod approval;
pub mod config;
pub mod credential;
pub mod identity;
pub mod state;
pub mod tls;
