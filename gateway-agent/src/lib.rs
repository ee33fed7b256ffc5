//! The agent.

pub mod intercept;
pub mod kernel;
