//! What kinds and resources have in common: rights that are never given, what an identifier is, and how a policy is refused.

use crate::model::text::clean;

/// Why the configuration of a kind or a resource was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct PolicyError {
    /// Which kind or resource.
    pub subject: String,
    /// What is wrong, and what would do.
    pub problem: String,
}

/// Rights that no device may ever be given, whatever a kind's configuration says: reading or sending people's mail and chats, files of others,
/// the directory (S-08 to S-10).
const DENIED_SCOPES: [&str; 13] = [
    "mail.read",
    "mail.readwrite",
    "mail.send",
    "chat.read",
    "chat.readwrite",
    "chat.send",
    "chatmessage.send",
    "channelmessage.send",
    "files.read.all",
    "files.readwrite.all",
    "sites.read.all",
    "directory.read.all",
    "user.read.all",
];

/// Is this right on the list, under whatever prefix, or with a suffix?
pub fn is_denied(scope: &str) -> bool {
    let name = scope.rsplit('/').next().unwrap_or(scope).to_ascii_lowercase();
    DENIED_SCOPES
        .iter()
        .any(|denied| name == *denied || name.strip_prefix(denied).is_some_and(|rest| rest.starts_with('.')))
}

/// An absolute URI without fragment (RFC 8707 section 2).
pub fn is_identifier(text: &str) -> bool {
    text.len() <= 512 && !text.contains('#') && url::Url::parse(text).is_ok()
}

/// Checks what people read of a kind or a resource: its label, and each scope's words.
///
/// # Errors
/// For texts that are empty, too long, or that seem to be others than they are.
pub(super) fn checked_words(
    subject: &str,
    label: &mut String,
    scopes: &mut [(String, String)],
) -> Result<(), PolicyError> {
    let refused = |problem: String| PolicyError { subject: subject.to_owned(), problem };
    // A resource that nobody has named is called by its identifier.
    *label = clean("label", label, 512).map_err(|error| refused(error.to_string()))?;
    if label.is_empty() {
        return Err(refused("label: what should people call it?".into()));
    }
    for (scope, words) in scopes {
        *words = clean("scope", words, 200).map_err(|error| refused(format!("scope '{scope}': {}", error.problem)))?;
        if words.is_empty() {
            return Err(refused(format!("scope '{scope}' needs words that say what it allows")));
        }
    }
    Ok(())
}
