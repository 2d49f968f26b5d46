//! Logs: the only place that sets them up. They go to standard error and hold no code, token, cookie or query.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging with a filter such as `info` or `pairgate=debug`. Later calls do nothing.
///
/// # Errors
/// If the filter can't be read; says why.
pub fn init(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log = '{filter}': {error}"))?;
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = if is_terminal {
        builder.with_ansi(true).compact().try_init()
    } else {
        builder.with_ansi(false).json().try_init()
    };
    // A second call, as in tests that run several commands in one process, leaves the first in force.
    drop(started);
    Ok(())
}
