//! The agent: a job's connections reach their targets through this gateway or not at all.

pub mod audit;
pub mod cli;
pub mod telemetry;
