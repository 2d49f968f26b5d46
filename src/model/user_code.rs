//! The user code: eight random letters and one that checks them, with the kind's prefix: `PRN-WDJB-MJHTX` (RFC 8628 section 6.1).
//!
//! Never digits: it must not look like a meeting id (S-06). Entry forgives case, spaces, dashes, full-width forms and a missing prefix, and all spellings
//! of one code are one code *before* anything counts them (R-8628-24, A-039).

use unicode_normalization::UnicodeNormalization as _;

use crate::secret::{Bytes32, MacKey, Random, SecretError};

/// Base-20: no vowels, so no words; no digits; nothing that is read for something else.
pub(super) const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Random letters: 20^8 is 34.5 bits (threats.md, code arithmetic).
const RANDOM_LETTERS: usize = 8;

/// A code in its one normal form: nine letters without prefix. What the database holds is [`UserCode::hash`].
#[derive(Clone, PartialEq, Eq)]
pub struct UserCode([u8; RANDOM_LETTERS + 1]);

impl std::fmt::Debug for UserCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("UserCode(…)")
    }
}

impl UserCode {
    /// A new code.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn mint(random: &Random) -> Result<Self, SecretError> {
        let mut letters = [0; RANDOM_LETTERS + 1];
        for letter in &mut letters[..RANDOM_LETTERS] {
            *letter = ALPHABET[usize::from(random.below(20)?)];
        }
        letters[RANDOM_LETTERS] = check_letter(&letters[..RANDOM_LETTERS]);
        Ok(Self(letters))
    }

    /// Reads what somebody typed or scanned. `None` if it can't be one of ours, whatever the reason.
    pub fn parse(input: &str, prefix: Option<&str>) -> Option<Self> {
        let letters = normal_form(input)?;
        let known = |prefix: &str| letters.strip_prefix(prefix).filter(|rest| rest.len() == RANDOM_LETTERS + 1);
        let code = match prefix {
            Some(prefix) => known(prefix).unwrap_or(&letters),
            None => &letters,
        };
        let code: [u8; RANDOM_LETTERS + 1] = code.as_bytes().try_into().ok()?;
        let is_ours = code.iter().all(|letter| ALPHABET.contains(letter))
            && code[RANDOM_LETTERS] == check_letter(&code[..RANDOM_LETTERS]);
        is_ours.then_some(Self(code))
    }

    /// Reads a code with any of these prefixes, or none.
    pub fn parse_any<'a>(input: &str, prefixes: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        Self::parse(input, None).or_else(|| prefixes.into_iter().find_map(|prefix| Self::parse(input, Some(prefix))))
    }

    /// `PRN-WDJB-MJHTX`.
    pub fn display(&self, prefix: &str) -> String {
        let letters = String::from_utf8_lossy(&self.0);
        format!("{prefix}-{}-{}", &letters[..4], &letters[4..])
    }

    /// What the store keeps: a keyed hash, because 34 bits could be tried out against a plain one in minutes.
    pub fn hash(&self, key: &MacKey) -> Bytes32 {
        key.tag(&[&self.0])
    }
}

/// Upper case letters only, full-width forms folded (NFKC); `None` if it is far too long to be a code.
pub fn normal_form(input: &str) -> Option<String> {
    if input.len() > 128 {
        return None;
    }
    Some(input.nfkc().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect())
}

/// Luhn mod 20 over the letters: finds each single wrong letter and nearly all swaps of neighbours, so that a slip is told from a guess.
fn check_letter(letters: &[u8]) -> u8 {
    let sum: usize = letters
        .iter()
        .rev()
        .enumerate()
        .map(|(position, letter)| {
            let value = ALPHABET.iter().position(|candidate| candidate == letter).unwrap_or(0);
            let weighted = if position % 2 == 0 { value * 2 } else { value };
            weighted / 20 + weighted % 20
        })
        .sum();
    ALPHABET[(20 - sum % 20) % 20]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PREFIXES: [&str; 3] = ["PRN", "TVX", "CNS"];

    #[test]
    fn every_spelling_of_a_code_is_that_code_a_039() {
        let code = UserCode::mint(&Random::seeded("spelling")).unwrap();
        let shown = code.display("PRN");
        let wide: String = shown
            .chars()
            .map(|c| if c.is_ascii_uppercase() { char::from_u32(u32::from(c) + 0xFEE0).unwrap() } else { c })
            .collect();
        for spelling in [
            shown.clone(),
            shown.to_lowercase(),
            shown.replace('-', ""),
            shown.replace('-', " "),
            shown.replace('-', "–"),
            format!(" {shown}\t"),
            shown[4..].to_owned(),
            shown[4..].replace('-', "").to_lowercase(),
            wide,
        ] {
            assert_eq!(UserCode::parse_any(&spelling, PREFIXES).as_ref(), Some(&code), "{spelling}");
        }
    }

    #[test]
    fn codes_of_others_and_hostile_text_are_not_ours() {
        let long = "B".repeat(200);
        for foreign in [
            "A1B2C3D4E",
            "WDJB-MJHT",
            "123 456 789",
            "987654321",
            "ABCD-1234",
            "",
            "-",
            "<script>",
            "PRN-",
            long.as_str(),
            "PRN-AAAA-AAAAA",
        ] {
            assert_eq!(UserCode::parse_any(foreign, PREFIXES), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn minted_codes_read_back_and_a_wrong_letter_does_not(seed in "[a-z]{1,12}", place in 0_usize..9, other in 0_usize..20) {
            let code = UserCode::mint(&Random::seeded(&seed)).unwrap();
            prop_assert_eq!(UserCode::parse_any(&code.display("TVX"), PREFIXES), Some(code.clone()));
            let mut wrong = code.clone();
            wrong.0[place] = ALPHABET[other];
            let text = String::from_utf8(wrong.0.to_vec()).unwrap();
            prop_assert_eq!(UserCode::parse(&text, None).is_some(), wrong == code);
        }

        #[test]
        fn reading_any_text_never_panics(text in ".*") {
            let _ = UserCode::parse_any(&text, PREFIXES);
        }
    }

    #[test]
    fn codes_are_never_all_digits_and_the_hash_is_keyed() {
        let code = UserCode::mint(&Random::seeded("digits")).unwrap();
        assert!(code.display("PRN").chars().all(|c| c.is_ascii_uppercase() || c == '-'));
        assert_ne!(code.hash(&MacKey::new(b"one")), code.hash(&MacKey::new(b"two")));
        assert_eq!(format!("{code:?}"), "UserCode(…)");
    }
}
