//! What can go wrong on the device's side, each with what to do next.

use std::path::PathBuf;

/// A failure of a simulated device or operator.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// No answer at all.
    #[error(
        "no answer from {address} ({reason}). Check that the broker runs there and that the address is its issuer."
    )]
    Unreachable {
        /// The address that was asked.
        address: String,
        /// What the HTTP client said, innermost cause.
        reason: String,
    },
    /// 429 or 503: not a verdict, only "later".
    #[error("the broker asks to wait {retry_after_s} s (status {status}). Try again then.")]
    Busy {
        /// 429 or 503.
        status: u16,
        /// Seconds, from `Retry-After`; 1 if there was none.
        retry_after_s: u64,
    },
    /// The broker's answer to the device is no.
    #[error("the broker refused: {status} {error}. {description}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The `error` member.
        error: String,
        /// The `error_description` member; what to do.
        description: String,
    },
    /// The answer does not follow the protocol.
    #[error("the broker's answer is not what docs/api.md says: {0}. Check that the address is a Pairgate issuer.")]
    Malformed(String),
    /// The answer is not signed by the broker that the device talks to.
    #[error(
        "the answer does not prove that it comes from the broker: {0}. \
         Somebody may be in between; start the pairing again on a trusted network."
    )]
    NotAuthentic(&'static str),
    /// The sign-in ended without tokens.
    #[error("the sign-in ended: {0}. Ask for a new code.")]
    SignInEnded(&'static str),
    /// A step was called before the step that it needs.
    #[error("{0}")]
    OutOfOrder(&'static str),
    /// The cryptographic library failed.
    #[error("{0}. Restart the device.")]
    Crypto(&'static str),
    /// The file with the device's key cannot be used.
    #[error("the key file {path}: {reason}. Repair it, or move it away to start with a new key (and pair again).")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The QR code cannot be drawn or written.
    #[error("the QR code cannot be drawn: {0}. Use the code in letters instead.")]
    Screen(String),
    /// A page said no to the operator.
    #[error("the page {path} answered {status}: {said}")]
    Page {
        /// Path of the page.
        path: String,
        /// HTTP status.
        status: u16,
        /// The page's error text, else its heading.
        said: String,
    },
    /// Somebody else did not come in time.
    #[error("{0} did not come in time. Start again.")]
    Late(&'static str),
}

impl SimulatorError {
    /// The `error` member, if the broker refused with one.
    pub fn oauth_error(&self) -> Option<&str> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}
