//! Request bodies: `Form::parse`, and what is read from a form (scope, client assertion).

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use pairgate::device_auth::assertion;
use pairgate::oauth::error::OAuthError;
use pairgate::oauth::form::Form;
use pairgate::oauth::scope::Scope;

/// The form as another reader sees it: the URL standard's decoder, written a second time.
fn decoded(body: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| {
        let mut out = Vec::new();
        let mut rest = bytes;
        while let Some((&first, after)) = rest.split_first() {
            let hex = |at: usize| after.get(at).and_then(|&digit| char::from(digit).to_digit(16));
            rest = after;
            match (first, hex(0), hex(1)) {
                (b'%', Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).expect("two hex digits"));
                    rest = &after[2..];
                }
                (b'+', ..) => out.push(b' '),
                _ => out.push(first),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    body.split(|&byte| byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (text(&pair[..at]), text(&pair[at + 1..])),
            None => (text(pair), String::new()),
        })
        .collect()
}

fuzz_target!(|body: &[u8]| {
    let expected = decoded(body);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (name, _) in &expected {
        *seen.entry(name).or_default() += 1;
    }
    let form = match Form::parse(body) {
        Ok(form) => form,
        Err(OAuthError::InvalidTarget) => {
            assert!(seen["resource"] > 1, "invalid_target without a repeated resource");
            return;
        }
        Err(OAuthError::InvalidRequest(_)) => {
            assert!(seen.len() > 32 || seen.values().any(|&times| times > 1), "an honest form was refused");
            return;
        }
        Err(other) => panic!("an answer that no form has: {other:?}"),
    };
    assert!(seen.values().all(|&times| times == 1), "a parameter stands twice");
    assert!(expected.len() <= 32, "too many parameters");
    for (name, value) in &expected {
        assert_eq!(form.get(name), Some(value.as_str()).filter(|value| !value.is_empty()), "two readings of {name:?}");
    }
    assert!(["scope", "client_id", ""].iter().all(|name| form.get(name) != Some("")), "empty is absent");

    let scope = form.get("scope").unwrap_or_default();
    if let Some(parsed) = Scope::parse(scope) {
        let text = parsed.to_string();
        assert_eq!(Scope::parse(&text).as_ref(), Some(&parsed), "a scope reads back");
        assert_eq!(parsed.is_empty(), text.is_empty());
        assert!(parsed.words().all(|word| scope.split(' ').any(|asked| asked == word)), "a word that nobody asked for");
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "outside RFC 6749 section 3.3");
    }
    if let Ok(Some(presented)) = assertion::of_form(&form) {
        assert_eq!(form.get("client_assertion_type"), Some(assertion::ASSERTION_TYPE));
        assert_eq!(form.get("client_assertion"), Some(presented));
    }

    assert_eq!(form.into_fields(), expected.into_iter().collect(), "what is kept is what was read");
});
