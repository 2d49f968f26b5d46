//! Request bodies of RFC 6749: `application/x-www-form-urlencoded`, read strictly.
//!
//! RFC 8628 section 3.1: a parameter without a value is absent, unknown parameters are ignored, none may stand twice. Without the last rule two
//! readers of one body can see two different requests.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::oauth::error::OAuthError;

/// Parameters of one body, each at most once.
#[derive(Debug)]
pub struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// More parameters than any request has.
const MAX_PARAMETERS: usize = 32;

impl<'a> Form<'a> {
    /// Parses a body.
    ///
    /// # Errors
    /// `invalid_request` for repeated or too many parameters; `invalid_target` for a repeated `resource` (one audience per token).
    pub fn parse(body: &'a [u8]) -> Result<Self, OAuthError> {
        Self::parse_at_most(body, MAX_PARAMETERS)
    }

    /// The same with another limit: a list in which rows can be ticked has more.
    ///
    /// # Errors
    /// As [`Form::parse`].
    pub fn parse_at_most(body: &'a [u8], most: usize) -> Result<Self, OAuthError> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(8);
        for (name, value) in url::form_urlencoded::parse(body) {
            if parameters.iter().any(|(seen, _)| *seen == name) {
                if name == "resource" {
                    return Err(OAuthError::InvalidTarget);
                }
                return Err(OAuthError::InvalidRequest("A parameter stands twice in this request.".into()));
            }
            if parameters.len() == most {
                return Err(OAuthError::InvalidRequest(format!("More than {most} parameters.").into()));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter's value; `None` if absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
    }

    /// All parameters, to keep.
    pub fn into_fields(self) -> HashMap<String, String> {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// `invalid_request` that names it.
    pub fn require(&self, name: &'static str) -> Result<&str, OAuthError> {
        self.get(name).ok_or_else(|| OAuthError::InvalidRequest(format!("The parameter {name} is missing.").into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_parameters_are_refused_a_017() {
        for body in
            ["client_id=a&client_id=b", "client_id=a&client_id=a", "x=1&x=2", "client_id=a&client%5Fid=b", "a=&a="]
        {
            assert!(matches!(Form::parse(body.as_bytes()), Err(OAuthError::InvalidRequest(_))), "{body}");
        }
        assert_eq!(Form::parse(b"resource=a&resource=b").unwrap_err(), OAuthError::InvalidTarget);
    }

    #[test]
    fn empty_is_absent_and_unknown_is_ignored() {
        let form = Form::parse(b"scope=&client_id=abc&foo=bar").unwrap();
        assert_eq!(form.get("scope"), None);
        assert_eq!(form.require("client_id").unwrap(), "abc");
        assert_eq!(
            form.require("device_code").unwrap_err(),
            OAuthError::InvalidRequest("The parameter device_code is missing.".into())
        );
    }

    #[test]
    fn a_flood_of_parameters_is_refused() {
        let body: String = (0..33).map(|index| format!("p{index}=1&")).collect();
        assert!(Form::parse(body.as_bytes()).is_err());
    }
}
