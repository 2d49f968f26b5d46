//! Words that people typed: names, rooms, notes. Normalised and checked once, when they come in.

use unicode_normalization::UnicodeNormalization as _;
use unicode_script::{Script, UnicodeScript as _};

/// Why a text was refused; says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct TextError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// Checks one field: NFC, single spaces, at most `max` characters, nothing invisible, no script tricks.
///
/// Without this, `Printer-3` with a right-to-left override or a Cyrillic letter passes for another device on the approve page.
///
/// # Errors
/// [`TextError`] for control characters (ANSI escapes and line ends among them), invisible or direction-changing characters, a word that mixes
/// Latin with look-alike scripts, and over-long text.
pub fn clean(field: &'static str, input: &str, max: usize) -> Result<String, TextError> {
    let refuse = |problem: String| Err(TextError { field, problem });
    if input.len() > max * 8 {
        return refuse(format!("longer than {max} characters"));
    }
    let text: String = input.nfc().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ");
    if input.trim().chars().any(|character| character.is_control()) {
        return refuse("has control characters or line ends; use plain text on one line".into());
    }
    if let Some(hidden) = text.chars().find(|character| is_hidden(*character)) {
        return refuse(format!("has the invisible character U+{:04X}; remove it", u32::from(hidden)));
    }
    if text.chars().count() > max {
        return refuse(format!("longer than {max} characters"));
    }
    if let Some(word) = text.split(|character: char| !character.is_alphanumeric()).find(|word| mixes_scripts(word)) {
        return refuse(format!("the word '{word}' mixes alphabets whose letters look alike; retype it"));
    }
    Ok(text)
}

/// Characters that change what the eye sees without being seen: bidi controls, zero-width, tags, variation selectors, soft hyphen, private use.
fn is_hidden(character: char) -> bool {
    matches!(u32::from(character),
        0x00AD | 0x034F | 0x061C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x202A..=0x202E
        | 0x2060..=0x206F | 0x3164 | 0xE000..=0xF8FF | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0xE0000..=0x0010_FFFF)
}

fn mixes_scripts(word: &str) -> bool {
    let has = |script: Script| word.chars().any(|character| character.script() == script);
    let alphabets = [Script::Latin, Script::Cyrillic, Script::Greek, Script::Armenian, Script::Cherokee];
    alphabets.into_iter().filter(|script| has(*script)).count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_names_pass_and_are_normalised() {
        assert_eq!(clean("name", "  Lobby   printer, ground floor ", 80).unwrap(), "Lobby printer, ground floor");
        assert_eq!(clean("name", "Büro", 80).unwrap(), clean("name", "Bu\u{308}ro", 80).unwrap());
        for good in ["Принтер 3", "プリンター 3", "Étage 2 – “salle”", "Scans 📠", "", "<b>bold</b> & co"]
        {
            assert!(clean("name", good, 80).is_ok(), "{good}");
        }
    }

    #[test]
    fn tricks_are_refused_a_049() {
        let long = "x".repeat(10_000);
        for bad in [
            "Printer-3\u{202E}gpj",
            "Print\u{200B}er",
            "Prin\u{0442}er",
            "\u{0410}dmin",
            "a\u{1b}[31mb",
            "a\nb",
            "a\r\nb",
            "a\u{0}b",
            "a\u{2066}b",
            "a\u{FEFF}b",
            "a\u{E0041}b",
            "a\u{AD}b",
            long.as_str(),
        ] {
            assert!(clean("name", bad, 80).is_err(), "{bad:?}");
        }
    }
}
