//! What people type: `UserCode::parse_any`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pairgate::model::user_code::{UserCode, normal_form};

const PREFIXES: [&str; 3] = ["PRN", "TVX", "CNS"];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };

    let normal = normal_form(text);
    assert_eq!(normal.is_none(), text.len() > 128, "only what is too long has no normal form");
    let normal = normal.unwrap_or_default();
    assert!(normal.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));
    // 128 bytes may unfold to more.
    if normal.len() <= 128 {
        assert_eq!(normal_form(&normal).as_ref(), Some(&normal), "the normal form is its own");
    }

    let code = UserCode::parse_any(text, PREFIXES);
    if normal.len() <= 128 {
        assert_eq!(UserCode::parse_any(&normal, PREFIXES), code, "a spelling and its normal form are one code");
    }
    if text.is_ascii() {
        let spaced: String = text.chars().flat_map(|letter| [letter.to_ascii_lowercase(), '-']).collect();
        if spaced.len() <= 128 {
            assert_eq!(UserCode::parse_any(&spaced, PREFIXES), code, "dashes and case do not matter");
        }
    }
    let Some(code) = code else { return };

    assert!(!normal.bytes().any(|byte| byte.is_ascii_digit()), "a code has no digit (S-06)");
    assert!(matches!(normal.len(), 9 | 12), "nine letters, with a prefix or without");
    for prefix in PREFIXES {
        let shown = code.display(prefix);
        assert_eq!(shown.len(), 14);
        assert_eq!(UserCode::parse_any(&shown, PREFIXES).as_ref(), Some(&code), "what is shown reads back");
        assert_eq!(UserCode::parse(&shown, None), None, "a prefix is no part of the code");
    }
    // One wrong letter is always noticed: the last byte of the input chooses which.
    let letters = code.display("")[1..].replace('-', "");
    let choice = usize::from(data.last().copied().unwrap_or_default());
    let (place, other) = (choice % 9, "BCDFGHJKLMNPQRSTVWXZ".as_bytes()[choice / 9 % 20]);
    if letters.as_bytes()[place] != other {
        let mut wrong = letters.into_bytes();
        wrong[place] = other;
        let wrong = String::from_utf8(wrong).expect("letters");
        assert_eq!(UserCode::parse_any(&wrong, PREFIXES), None, "a slip is told from a guess");
    }
});
