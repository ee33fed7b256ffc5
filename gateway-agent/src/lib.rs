//! The agent: a job's connections reach their targets through this gateway or not at all.

pub mod admin;
pub mod app;
pub mod approval;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod dns;
pub mod files;
pub mod https;
pub mod identity;
pub mod intercept;
pub mod kernel;
pub mod kubeconfig;
pub mod sandbox;
pub mod session;
pub mod ssh;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod upstream;
