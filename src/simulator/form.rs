//! Reads the forms and messages out of the broker's HTML pages. Enough for those pages; no HTML parser.

/// A form on a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// The `action` attribute, empty if there is none.
    pub action: String,
    /// The `method` attribute, empty if there is none.
    pub method: String,
    /// Name and value of every named `input` and of every named `button`.
    pub fields: Vec<Field>,
}

/// A named field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The `name` attribute.
    pub name: String,
    /// The `value` attribute, unescaped.
    pub value: String,
    /// Whether a browser sends it whichever button is pressed.
    pub is_hidden: bool,
}

impl Form {
    /// The value of the first field of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.value.as_str())
    }

    /// Whether pressing something in this form sends `name=value`.
    pub fn may_send(&self, name: &str, value: &str) -> bool {
        self.fields.iter().any(|field| field.name == name && field.value == value)
    }

    /// The fields that a browser sends unasked.
    pub fn hidden(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter(|field| field.is_hidden).map(|field| (field.name.as_str(), field.value.as_str()))
    }
}

/// All forms of a page, in order.
pub fn forms(html: &str) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut is_inside = false;
    for tag in tags(html) {
        match (tag.name.as_str(), tag.is_closing) {
            ("form", true) => is_inside = false,
            ("form", false) => {
                is_inside = true;
                let method = tag.attribute("method").unwrap_or_default().to_owned();
                forms.push(Form {
                    action: tag.attribute("action").unwrap_or_default().to_owned(),
                    method,
                    fields: Vec::new(),
                });
            }
            ("input" | "button", false) if is_inside => {
                if let (Some(form), Some(name)) = (forms.last_mut(), tag.attribute("name")) {
                    form.fields.push(Field {
                        name: name.to_owned(),
                        value: tag.attribute("value").unwrap_or_default().to_owned(),
                        is_hidden: tag.attribute("type") == Some("hidden"),
                    });
                }
            }
            _ => {}
        }
    }
    forms
}

/// The text of the first element that a screen reader would announce as an alert, or of the class `error`.
pub fn error_text(html: &str) -> Option<String> {
    let is_error = |tag: &Tag| {
        tag.attribute("role") == Some("alert")
            || tag.attribute("class").is_some_and(|classes| classes.split_whitespace().any(|class| class == "error"))
    };
    let text = text_of_first(html, is_error)?;
    let text = text.strip_prefix("Problem:").unwrap_or(&text).trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The text of the first `h1`.
pub fn heading(html: &str) -> Option<String> {
    text_of_first(html, |tag| tag.name == "h1")
}

fn text_of_first(html: &str, is_wanted: impl Fn(&Tag) -> bool) -> Option<String> {
    let tags = tags(html);
    let first = tags.iter().position(|tag| !tag.is_closing && is_wanted(tag))?;
    let opening = tags.get(first)?;
    let mut depth = 0_usize;
    let mut text = String::new();
    let mut from = opening.end;
    for tag in tags.iter().skip(first + 1) {
        text.push_str(html.get(from..tag.start).unwrap_or_default());
        text.push(' ');
        from = tag.end;
        match (tag.name == opening.name, tag.is_closing) {
            (true, true) if depth == 0 => break,
            (true, true) => depth -= 1,
            (true, false) => depth += 1,
            (false, _) => {}
        }
    }
    Some(unescape(&text).split_whitespace().collect::<Vec<_>>().join(" "))
}

struct Tag {
    name: String,
    is_closing: bool,
    attributes: Vec<(String, String)>,
    start: usize,
    end: usize,
}

impl Tag {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn tags(html: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(offset) = html.get(at..).and_then(|rest| rest.find('<')) {
        let start = at + offset;
        let rest = html.get(start + 1..).unwrap_or_default();
        if rest.starts_with("!--") {
            at = rest.find("-->").map_or(html.len(), |end| start + 1 + end + 3);
            continue;
        }
        let (inside, length) = tag_inside(rest);
        let end = start + 1 + length;
        let is_closing = inside.starts_with('/');
        let inside = inside.trim_start_matches('/').trim_end_matches('/');
        let (name, attributes) = inside.split_at(inside.find(char::is_whitespace).unwrap_or(inside.len()));
        tags.push(Tag { name: name.to_ascii_lowercase(), is_closing, attributes: parse(attributes), start, end });
        at = end;
    }
    tags
}

/// The text up to the `>` that is in no quotes, and the length with it.
fn tag_inside(rest: &str) -> (&str, usize) {
    let mut quote = None;
    for (index, character) in rest.char_indices() {
        match (quote, character) {
            (None, '>') => return (rest.get(..index).unwrap_or_default(), index + 1),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    (rest, rest.len())
}

fn parse(mut text: &str) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return attributes;
        }
        let name_end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
        let (name, after) = text.split_at(name_end);
        let after = after.trim_start();
        let (value, rest) = match after.strip_prefix('=').map(str::trim_start) {
            None => ("", after),
            Some(value) => match value.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    let inner = value.get(1..).unwrap_or_default();
                    inner.split_once(quote).unwrap_or((inner, ""))
                }
                _ => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
            },
        };
        attributes.push((name.to_ascii_lowercase(), unescape(value)));
        text = rest;
    }
}

/// Resolves the character references that templates write.
pub fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, after) = rest.split_at(at);
        plain.push_str(before);
        let reference = after.find(';').filter(|end| *end <= 10).and_then(|end| after.get(1..end));
        match reference.and_then(|name| Some((character(name)?, name.len() + 2))) {
            Some((character, length)) => {
                plain.push(character);
                rest = after.get(length..).unwrap_or_default();
            }
            None => {
                plain.push('&');
                rest = after.get(1..).unwrap_or_default();
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<!doctype html><h1>Pair <b>this</b> printer?</h1><!-- <input name="csrf" value="no"> -->
        <form method=post action="/sign-out"><input type="hidden" name="csrf" value="a"><button>Sign out</button></form>
        <form method="post" action='/pair/p1'>
          <input value="b&#x2F;c&amp;d&quot;&#39;>" type="hidden" name='csrf'/>
          <input type=text name=number required>
          <button name="action" value="pair_by_number">Pair</button>
        </form><p class="note error" role="alert">Two <em>tries</em> left &amp; counting.</p><p>After</p>"#;

    #[test]
    fn every_form_keeps_its_own_hidden_fields_and_buttons() {
        let forms = forms(PAGE);
        assert_eq!(forms.len(), 2);
        assert_eq!(forms[0].value("csrf"), Some("a"));
        assert_eq!(forms[1].action, "/pair/p1");
        assert_eq!(forms[1].hidden().collect::<Vec<_>>(), [("csrf", "b/c&d\"'>")]);
        assert!(forms[1].may_send("action", "pair_by_number"));
        assert_eq!(forms[1].value("number"), Some(""));
    }

    #[test]
    fn heading_and_error_come_as_plain_text() {
        assert_eq!(heading(PAGE).as_deref(), Some("Pair this printer?"));
        assert_eq!(error_text(PAGE).as_deref(), Some("Two tries left & counting."));
        let alert =
            r#"<div class="box problems" role="alert"><p class="vh">Problem:</p><p><bdi>No such id.</bdi></p></div>"#;
        assert_eq!(error_text(alert).as_deref(), Some("No such id."));
        assert_eq!(error_text("<p>fine</p>"), None);
    }

    #[test]
    fn broken_html_is_read_as_far_as_it_goes() {
        for html in [
            "<",
            "<form",
            "<form><input name=\"x",
            "&#xffffffff;",
            "&;",
            "<!--",
            "<é é=é>",
            "<form><input name=ü value=ö",
        ] {
            let _ = (forms(html), heading(html), error_text(html), unescape(html));
        }
    }
}
