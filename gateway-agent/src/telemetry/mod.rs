//! What the agent says about itself: logs on standard error, and metrics.
//!
//! Neither carries statements, parameters, results or secrets. What happened to whom is in the audit log and the
//! recordings.

mod metrics;
mod source;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use metrics::{ApprovalOutcome, Direction, DnsResult, FlowResult, Metrics, MetricsError, Phase, Verdict};

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log filter {filter:?}: {source}; try `info`, or `warn,gateway_agent=debug`")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the whole process, once. The filter is `tracing_subscriber`'s: `info`, `warn,gateway_agent=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Human => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()?;
        }
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init()?;
        }
    }
    Ok(())
}
