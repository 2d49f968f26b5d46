//! What a request presents: the `Authorization` header (RFC 6750 section 2.1, RFC 9449 section 7.1). Tokens in bodies and queries are not looked for.

use std::fmt;

use crate::oauth::jose::MAX_JWT;
use crate::resource::refusal::Refusal;

/// How a token was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// With a proof of a key.
    Dpop,
    /// Over a connection with a client certificate; nothing else is accepted so.
    Bearer,
}

impl Scheme {
    /// The name, as in headers and in `token_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dpop => "DPoP",
            Self::Bearer => "Bearer",
        }
    }
}

/// A token as sent. Nothing of it is believed yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// How it was sent.
    pub scheme: Scheme,
    /// The token.
    pub token: &'a str,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Credentials({} …)", self.scheme.as_str())
    }
}

/// Reads all `Authorization` header values of a request: exactly one, `DPoP` or `Bearer` in any case, then a token68 (RFC 9110 section 11.2).
///
/// # Errors
/// [`Refusal::NoCredentials`] for none, or for another scheme; [`Refusal::InvalidRequest`] for two, or for what is no token.
pub fn parse_authorization<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Credentials<'a>, Refusal> {
    let mut values = values.into_iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Refusal::NoCredentials),
        // Without this, two components that read different ones would see two devices.
        (Some(_), Some(_)) => return Err(Refusal::InvalidRequest("More than one Authorization header.")),
        (Some(value), None) => value,
    };
    const BROKEN: Refusal = Refusal::InvalidRequest("The Authorization header is not a scheme and one token.");
    let text = std::str::from_utf8(value).map_err(|_| BROKEN)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let scheme = [Scheme::Dpop, Scheme::Bearer]
        .into_iter()
        .find(|known| known.as_str().eq_ignore_ascii_case(scheme))
        .ok_or(Refusal::NoCredentials)?;
    let token = token.trim_start_matches(' ');
    let body = token.trim_end_matches('=');
    let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if body.is_empty() || token.len() > MAX_JWT || !body.bytes().all(is_token68) {
        return Err(BROKEN);
    }
    Ok(Credentials { scheme, token })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse<'a>(values: &[&'a str]) -> Result<Credentials<'a>, Refusal> {
        parse_authorization(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn one_header_with_one_scheme_and_one_token() {
        for (value, scheme) in [
            ("DPoP abc.def-_~+/==", Scheme::Dpop),
            ("dpop abc.def-_~+/==", Scheme::Dpop),
            ("BEARER   abc.def-_~+/==", Scheme::Bearer),
        ] {
            assert_eq!(parse(&[value]).unwrap(), Credentials { scheme, token: "abc.def-_~+/==" }, "{value}");
        }
        for none in [&[][..], &["Basic abc"], &[""], &["DPoPabc"], &["Negotiate"]] {
            assert_eq!(parse(none), Err(Refusal::NoCredentials), "{none:?}");
        }
        let long = format!("DPoP {}", "a".repeat(MAX_JWT + 1));
        for broken in [
            &["DPoP abc", "DPoP abc"][..],
            &["DPoP abc", "Bearer abc"],
            &["DPoP abc", "Basic abc"],
            &["DPoP"],
            &["DPoP "],
            &["DPoP ="],
            &["DPoP a=b"],
            &["DPoP abc def"],
            &["DPoP abc,DPoP def"],
            &["DPoP abc\t"],
            &["DPoP \"abc\""],
            &["DPoP äbc"],
            &[&long],
        ] {
            assert!(matches!(parse(broken), Err(Refusal::InvalidRequest(_))), "{broken:?}");
        }
        assert!(!format!("{:?}", parse(&["DPoP secret"])).contains("secret"));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_it_is_a_token68_or_refused(value: Vec<u8>) {
            if let Ok(found) = parse_authorization([value.as_slice()]) {
                prop_assert!(!found.token.is_empty() && !found.token.contains(char::is_whitespace));
            }
        }
    }
}
