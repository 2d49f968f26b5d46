//! Scopes (RFC 6749 section 3.3): a set of words, kept sorted so that two equal sets are one text.

use std::collections::BTreeSet;
use std::fmt;

/// A set of scope tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(BTreeSet<String>);

impl Scope {
    /// Parses `scope = scope-token *( SP scope-token )`. `None` if a token has characters outside the grammar or the text is over 1,000 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = |token: &str| token.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        let tokens: BTreeSet<String> = text.split(' ').filter(|token| !token.is_empty()).map(str::to_owned).collect();
        (text.len() <= 1000 && tokens.iter().all(|token| is_token(token))).then_some(Self(tokens))
    }

    /// Is every word of this scope in `allowed`?
    pub fn is_within(&self, allowed: &Self) -> bool {
        self.0.is_subset(&allowed.0)
    }

    /// Has it no word at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is `word` in it?
    pub fn contains(&self, word: &str) -> bool {
        self.0.contains(word)
    }

    /// The words, sorted.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<'a> FromIterator<&'a str> for Scope {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Self {
        Self(words.into_iter().map(str::to_owned).collect())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str(" ")?;
            }
            formatter.write_str(word)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sets_and_only_of_the_grammar() {
        let scope = Scope::parse("scan.write  scan.read scan.write").unwrap();
        assert_eq!(scope.to_string(), "scan.read scan.write");
        assert!(Scope::parse("scan.read").unwrap().is_within(&scope));
        assert!(!Scope::parse("Mail.Read scan.read").unwrap().is_within(&scope));
        for bad in ["a\"b", "a\\b", "a\u{7f}", "é", "a\tb", &"x".repeat(1001)] {
            assert!(Scope::parse(bad).is_none(), "{bad:?}");
        }
    }
}
