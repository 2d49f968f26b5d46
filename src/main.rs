//! The binary: arguments → [`pairgate::cli::run`] → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pairgate::cli::run()
}
