//! The language of a page. English stands in the source; other languages in `lang/<code>/*.po` (gettext's format), found by the English text.
//!
//! Texts of pages are marked where they stand: `{{ "Sign out"|t }}` in templates, [`t`], [`tf`] and [`tn`] in Rust. What the broker says (refusals, records)
//! arrives as finished English lines; [`said`] finds their translation also where names and numbers were put in. What no file knows stays English; a test
//! keeps that from happening.
//!
//! To add a language: a folder with the same files, and a line in [`LANGUAGES`].

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::http::cookies::cookie;

/// The language that was chosen.
pub const LANGUAGE_COOKIE: &str = "__Host-language";

/// A language that pages speak.
pub struct Language {
    /// BCP 47: `de`.
    pub code: &'static str,
    /// As its speakers call it: `Deutsch`.
    pub name: &'static str,
    /// Which form of a plural goes with a count (gettext's `Plural-Forms`).
    plural: fn(u64) -> usize,
    texts: Texts,
}

/// All languages; the first is that of the source.
pub static LANGUAGES: LazyLock<[Language; 2]> = LazyLock::new(|| {
    let plural = |count| usize::from(count != 1);
    [
        Language { code: "en", name: "English", plural, texts: Texts::default() },
        Language {
            code: "de",
            name: "Deutsch",
            plural,
            texts: Texts::parse(&[
                include_str!("de/account.po"),
                include_str!("de/approval.po"),
                include_str!("de/audit.po"),
                include_str!("de/broker.po"),
                include_str!("de/devices.po"),
                include_str!("de/frame.po"),
                include_str!("de/operators.po"),
                include_str!("de/overview.po"),
                include_str!("de/pairing.po"),
                include_str!("de/settings.po"),
                include_str!("de/setup.po"),
                include_str!("de/sign_ins.po"),
                include_str!("de/tokens.po"),
            ]),
        },
    ]
});

/// What a language knows: by the English text, its forms (one, or one per plural).
#[derive(Default)]
struct Texts {
    exact: HashMap<String, Vec<String>>,
    /// Texts with holes, longest first: what stands between the holes, and the translation.
    holed: Vec<(Vec<String>, String)>,
}

impl Texts {
    fn parse(files: &[&str]) -> Self {
        let mut texts = Self::default();
        for file in files {
            // The files are part of the program; the test below reads each of them.
            let Ok(catalog) = polib::po_file::parse_from_reader(file.as_bytes()) else { continue };
            for message in catalog.messages().filter(|message| message.is_translated()) {
                let id = message.msgid().to_owned();
                let forms = match message.msgstr_plural() {
                    Ok(forms) => forms.clone(),
                    Err(_) => message.msgstr().map(|text| vec![text.to_owned()]).unwrap_or_default(),
                };
                if let (true, [form]) = (id.contains("{0}"), forms.as_slice()) {
                    texts.holed.push((pieces(&id), form.clone()));
                }
                texts.exact.insert(id, forms);
            }
        }
        texts.holed.sort_by_key(|(pieces, _)| std::cmp::Reverse(pieces.iter().map(String::len).sum::<usize>()));
        texts
    }
}

/// What stands between `{0}`, `{1}`, … (in this order).
fn pieces(text: &str) -> Vec<String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    for hole in 0..10 {
        let Some((before, after)) = rest.split_once(&format!("{{{hole}}}")) else { break };
        pieces.push(before.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    pieces
}

/// What was put into the holes, if the line is one of these pieces with something between them.
fn filled<'a>(line: &'a str, pieces: &[String]) -> Option<Vec<&'a str>> {
    let (first, last) = (pieces.first()?, pieces.last()?);
    let mut rest = line.strip_prefix(first.as_str())?;
    let mut found = Vec::new();
    for piece in &pieces[1..pieces.len() - 1] {
        let (value, after) = rest.split_once(piece.as_str())?;
        found.push(value);
        rest = after;
    }
    found.push(rest.strip_suffix(last.as_str())?);
    // Half of a quotation: the words that fit are data that somebody typed, and data is not translated.
    let is_cut = found.iter().any(|value| quotation_marks(value) % 2 == 1);
    (!is_cut).then_some(found)
}

/// The apostrophe of "the maker's key" quotes nothing.
fn quotation_marks(text: &str) -> usize {
    let is_in_word =
        |at| text[..at].ends_with(char::is_alphanumeric) && text[at + 1..].starts_with(char::is_alphanumeric);
    text.match_indices('\'').filter(|(at, _)| !is_in_word(*at)).count()
}

/// The language and address of the request that is being answered.
struct Place {
    language: &'static Language,
    path: String,
    /// Who is signed in there, once that is known.
    reader: std::cell::OnceCell<Reader>,
}

/// Who reads a page: what its header and its navigation need.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Name of the person.
    pub name: String,
    /// Is what administrators have offered?
    pub administers: bool,
    /// For the form that signs out.
    pub csrf: String,
}

tokio::task_local! {
    static PLACE: Place;
}

/// The language of the page that is being made; English where none is.
pub fn language() -> &'static Language {
    PLACE.try_with(|place| place.language).unwrap_or(&LANGUAGES[0])
}

/// The address of the page that is being made.
pub fn here() -> String {
    PLACE.try_with(|place| place.path.clone()).unwrap_or_else(|_| "/".into())
}

/// Notes who is signed in, so that also pages that say no keep the way on.
pub fn read_by(reader: Reader) {
    // Outside of a page nobody asks.
    let _ = PLACE.try_with(|place| place.reader.set(reader));
}

/// Who is signed in, if that is known.
pub fn reader() -> Option<Reader> {
    PLACE.try_with(|place| place.reader.get().cloned()).ok().flatten()
}

/// A text of ours.
pub fn t(text: &str) -> String {
    let forms = language().texts.exact.get(text);
    forms.and_then(|forms| forms.first()).map_or_else(|| text.to_owned(), Clone::clone)
}

/// A text with holes `{0}`, `{1}`, ….
pub fn tf(text: &str, values: &[&str]) -> String {
    fill(t(text), values)
}

/// A text about a count, which is `{0}` in it: `tn(3, "{0} device", "{0} devices")`.
pub fn tn(count: u64, one: &str, many: &str) -> String {
    let language = language();
    let form = (language.plural)(count);
    let text = language.texts.exact.get(one).and_then(|forms| forms.get(form));
    let english = if count == 1 { one } else { many };
    fill(text.map_or(english, String::as_str).to_owned(), &[&count.to_string()])
}

/// A finished line of the broker's.
pub fn said(line: &str) -> String {
    let texts = &language().texts;
    if let Some(form) = texts.exact.get(line).and_then(|forms| forms.first()) {
        return form.clone();
    }
    for (pieces, translation) in &texts.holed {
        if let Some(values) = filled(line, pieces) {
            return fill(translation.clone(), &values);
        }
    }
    line.to_owned()
}

/// Puts values into holes. In one pass: a value with `{1}` in it is text like any other. A value is what it is, in every language; only where a translation
/// says `{0|t}`, it is a line of ours itself (a state, a role) and translated as well.
fn fill(text: String, values: &[&str]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let value = after.split_once('}').and_then(|(hole, after)| {
            let number = hole.strip_suffix("|t").unwrap_or(hole);
            let value = *values.get(number.parse::<usize>().ok()?)?;
            Some((if number == hole { value.to_owned() } else { said(value) }, after))
        });
        match value {
            Some((value, after)) => {
                filled.push_str(&value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// For templates: `{{ "Sign out"|t }}`, `{{ reason|said }}`. A template whose struct is in a file needs `use crate::http::lang::filters;` there.
pub(crate) mod filters {
    /// A text of ours.
    ///
    /// # Errors
    /// None.
    #[askama::filter_fn]
    pub fn t(text: impl std::fmt::Display, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(super::t(&text.to_string()))
    }

    /// A text with one hole.
    ///
    /// # Errors
    /// None.
    #[askama::filter_fn]
    pub fn tf<V: std::fmt::Display>(
        text: impl std::fmt::Display,
        _: &dyn askama::Values,
        value: V,
    ) -> askama::Result<String> {
        Ok(super::tf(&text.to_string(), &[&value.to_string()]))
    }

    /// A finished line of the broker's.
    ///
    /// # Errors
    /// None.
    #[askama::filter_fn]
    pub fn said(line: impl std::fmt::Display, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(super::said(&line.to_string()))
    }
}

/// Answers in the language that was chosen, or else in the one that the browser prefers.
pub async fn speak(request: Request, next: Next) -> Response {
    let chosen = cookie(request.headers(), LANGUAGE_COOKIE).and_then(by_code);
    let language = chosen.or_else(|| preferred(request.headers())).unwrap_or(&LANGUAGES[0]);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    PLACE.scope(Place { language, path, reader: std::cell::OnceCell::new() }, next.run(request)).await
}

/// The language of this tag, if we speak it.
pub fn by_code(code: &str) -> Option<&'static Language> {
    LANGUAGES.iter().find(|language| language.code.eq_ignore_ascii_case(code))
}

/// The first of `Accept-Language` that there is (RFC 9110 section 12.5.4). Browsers send them in order.
fn preferred(headers: &HeaderMap) -> Option<&'static Language> {
    let wanted = headers.get(header::ACCEPT_LANGUAGE)?.to_str().ok()?;
    wanted.split(',').find_map(|range| by_code(range.trim().split(['-', ';']).next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn german(text: &str) -> Texts {
        Texts::parse(&[&format!("msgid \"\"\nmsgstr \"Content-Type: text/plain; charset=UTF-8\\n\"\n\n{text}")])
    }

    #[test]
    fn finished_lines_are_found_with_what_was_put_in() {
        let texts = german(
            "msgid \"the id {0} is taken by {1}\"\nmsgstr \"{1} hat die Id {0}\"\n\nmsgid \"{0} is {1}\"\nmsgstr \"{0} ist {1}\"\n",
        );
        assert_eq!(texts.holed.len(), 2);
        let (pieces, translation) = &texts.holed[0];
        let values = filled("the id tv-01 is taken by dana", pieces).unwrap();
        assert_eq!(fill(translation.clone(), &values), "dana hat die Id tv-01");
        assert_eq!(filled("the id tv-01 is gone", pieces), None);
        assert_eq!(filled("x is y", &texts.holed[1].0).unwrap(), ["x", "y"]);
        assert_eq!(filled("it is the maker's", &texts.holed[1].0).unwrap(), ["it", "the maker's"]);
        assert_eq!(filled("'it is the maker's' key", &texts.holed[1].0), None, "half of what somebody typed");
    }

    #[test]
    fn values_are_put_in_as_they_are() {
        assert_eq!(fill("{1}, {0}: {x} {".into(), &["a{1}", "b"]), "b, a{1}: {x} {");
        assert_eq!(tn(1, "{0} device", "{0} devices"), "1 device");
        assert_eq!(tn(3, "{0} device", "{0} devices"), "3 devices");
    }

    /// Else a line would be shown as another that happens to fit.
    #[test]
    fn each_line_with_holes_is_found_as_itself() {
        for language in LANGUAGES.iter().skip(1) {
            let lines = &language.texts.holed;
            assert!(lines.len() > 50, "{}: {}", language.code, lines.len());
            for (pieces, translation) in lines {
                let line = pieces.join("x");
                let found = lines.iter().find(|(pieces, _)| filled(&line, pieces).is_some());
                assert_eq!(found.map(|(_, translation)| translation), Some(translation), "{line}");
            }
        }
    }

    #[test]
    fn languages_are_chosen_by_cookie_code_and_preference() {
        let wants = |value: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value.parse().unwrap())]);
            preferred(&headers).map(|language| language.code)
        };
        assert_eq!(wants("de-AT,de;q=0.9,en;q=0.8"), Some("de"));
        assert_eq!(wants("fr, en-GB;q=0.5"), Some("en"));
        assert_eq!(wants("fr"), None);
    }
}
