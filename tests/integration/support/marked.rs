//! Finds the texts of ours in source code and templates: a small reader of Rust's strings and parentheses and of HTML's tags, no parser.

use std::fs;
use std::path::{Path, PathBuf};

/// A file below the repository's root, by its path.
pub struct File {
    pub path: String,
    pub text: String,
}

/// All files below a folder (or the one file) whose names end so; of Rust, what is neither comment nor unit test.
pub fn files(below: &str, ending: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join(below), ending, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let text = if ending == "rs" { code(&text) } else { text };
            File { path: path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text }
        })
        .collect()
}

fn collect(path: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), ending, found);
        }
    } else if path.extension().is_some_and(|there| there == ending) {
        found.push(path.to_owned());
    }
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// The string that begins at this quote, and what stands behind it.
fn string(text: &str) -> Option<(String, &str)> {
    let mut letters = text.strip_prefix('"')?.chars();
    let mut string = String::new();
    loop {
        match letters.next()? {
            '"' => return Some((string, letters.as_str())),
            '\\' => match letters.next()? {
                'n' => string.push('\n'),
                // The string goes on at the next line's first letter.
                '\n' => letters = letters.as_str().trim_start().chars(),
                'u' => {
                    let (number, rest) = letters.as_str().strip_prefix('{')?.split_once('}')?;
                    string.push(char::from_u32(u32::from_str_radix(number, 16).ok()?)?);
                    letters = rest.chars();
                }
                other => string.push(other),
            },
            letter => string.push(letter),
        }
    }
}

/// The arguments of a call, from behind its opening parenthesis to the one that closes it.
fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut rest, mut begin, mut all) = (0_u32, text, 0, Vec::new());
    while let Some(letter) = rest.chars().next() {
        let here = text.len() - rest.len();
        if let Some((_, behind)) = string(rest) {
            rest = behind;
            continue;
        }
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                all.push(&text[begin..here]);
                return all;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                all.push(&text[begin..here]);
                begin = here + 1;
            }
            _ => {}
        }
        // A quote or a brace as a character.
        let is_character =
            ["'\"'", "'('", "')'", "'{'", "'}'", "'['", "']'"].iter().any(|quoted| rest.starts_with(quoted));
        rest = &rest[if is_character { 3 } else { letter.len_utf8() }..];
    }
    Vec::new()
}

/// The strings in a piece of code; those of `format!` with their placeholders as holes.
pub fn strings(code: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), code);
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix("format!(") {
            let all = arguments(inside);
            found.extend(all.first().into_iter().flat_map(|text| strings(text)).map(|text| with_holes(&text)));
            found.extend(all.iter().skip(1).flat_map(|value| strings(value)));
            let length = all.iter().map(|text| text.len() + 1).sum::<usize>();
            rest = &inside[length.min(inside.len())..];
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else if let Some((text, behind)) = string(rest) {
            found.push(text);
            rest = behind;
        } else {
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
        }
    }
    found
}

/// `{}` and `{name}` become `{0}`, `{1}`, … in their order; `{{` is a brace.
pub fn with_holes(format: &str) -> String {
    let (mut text, mut rest, mut hole) = (String::new(), format, 0);
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(&before.replace("}}", "}"));
        if let Some(after) = after.strip_prefix('{') {
            text.push('{');
            rest = after;
        } else {
            text.push_str(&format!("{{{hole}}}"));
            hole += 1;
            rest = after.split_once('}').map_or("", |(_, after)| after);
        }
    }
    text + &rest.replace("}}", "}")
}

/// The arguments of each call of this name.
pub fn calls<'a>(code: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let opening = format!("{name}(");
    let is_whole = |at: usize| !code[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
    let found = code.match_indices(&opening).filter(|(at, _)| is_whole(*at));
    found.map(|(at, _)| arguments(&code[at + opening.len()..])).collect()
}

/// What is assigned to variables of this name, up to the semicolon.
pub fn assigned<'a>(code: &'a str, name: &str) -> Vec<&'a str> {
    code.split(&format!("{name} = ")).skip(1).filter_map(|rest| rest.split(";\n").next()).collect()
}

/// A template's texts: of `{{ "…"|t }}`, `{{ "…"|tf(x) }}`.
pub fn marked_in_template(template: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), template);
    while let Some(at) = rest.find('"') {
        rest = &rest[at..];
        match string(rest) {
            Some((text, behind)) if is_marked(behind) => {
                found.push(text);
                rest = behind;
            }
            _ => rest = &rest[1..],
        }
    }
    found
}

fn is_marked(behind: &str) -> bool {
    let Some(filter) = behind.trim_start().strip_prefix("|t") else { return false };
    filter.starts_with("f(") || !filter.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_')
}

/// Attributes that people see or hear.
const SEEN: [&str; 8] =
    ["aria-label", "title", "placeholder", "alt", "data-label", "data-said", "data-paused", "data-reload"];

/// What people see of a template and no mark stands around: texts between tags, and of attributes.
pub fn unmarked_in_template(template: &str) -> Vec<String> {
    // Which of the page's widths it is: a class.
    let html = without(template, "{% block width %}", "{% endblock %}");
    let html =
        ["{#", "{%", "{{"].iter().zip(["#}", "%}", "}}"]).fold(html, |text, (open, close)| without(&text, open, close));
    let html = [("<code>", "</code>"), ("<svg", "</svg>")]
        .iter()
        .fold(html, |text, (open, close)| without(&text, open, close));
    let mut found = unmarked_arguments(template);
    for (number, part) in html.split('<').enumerate() {
        let (tag, text) = if number == 0 { ("", part) } else { part.split_once('>').unwrap_or((part, "")) };
        for name in SEEN {
            let value = tag.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            found.extend(value.map(str::to_owned));
        }
        found.push(text.trim().to_owned());
    }
    // Attributes that a macro writes are no text.
    let is_attribute = |word: &str| word.ends_with("=\"\"");
    let is_same_everywhere = |text: &str| {
        let rest = text.replace("Pairgate", "").replace("UTC", "");
        rest.split_whitespace().all(|word| is_attribute(word) || !word.chars().any(char::is_alphabetic))
    };
    found.retain(|text| !is_same_everywhere(text));
    found
}

/// Texts of several words within `{{ … }}` and `{% … %}`, such as those that are handed to a macro.
fn unmarked_arguments(template: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (open, close) in [("{{", "}}"), ("{%", "%}")] {
        for inside in template.split(open).skip(1).filter_map(|rest| rest.split(close).next()) {
            let mut rest = inside;
            while let Some(at) = rest.find('"') {
                let Some((text, behind)) = string(&rest[at..]) else { break };
                if text.trim().contains(' ') && !text.contains('=') && !is_marked(behind) {
                    found.push(text);
                }
                rest = behind;
            }
        }
    }
    found
}

fn without(text: &str, open: &str, close: &str) -> String {
    let mut pieces = text.split(open);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once(close).map_or("", |(_, after)| after))
}

#[test]
fn the_reader_reads_what_it_should() {
    let code = r#"t("a \"b\", (c"), tf("x {0}", &[&format!("{y}, z")]), format!("{a} and {}", "no"), tn(rows(1, 2), "one",
        "ma\
         ny"), said.not("this"), t(if x { "yes" } else { "no" }), '"', t("end")"#;
    let first = |name| calls(code, name).iter().flat_map(|all| strings(all[0])).collect::<Vec<_>>();
    assert_eq!(first("t"), ["a \"b\", (c", "yes", "no", "end"]);
    assert_eq!(first("tf"), ["x {0}"]);
    assert_eq!(strings(calls(code, "tn")[0][2]), ["many"]);
    assert_eq!(strings(r#"format!("{a} and {}: {{x}}", "also"), "yes""#), ["{0} and {1}: {x}", "also", "yes"]);
    assert_eq!(marked_in_template(r#"<a class="b" title="{{ "c"|t }}">{{ "d {0}"|tf(e) }}</a>"#), ["c", "d {0}"]);
    let template = r#"{# no #}{% call row("To a macro") %}{% if x == "no" %}<p title="Seen" class="no">{{ "marked"|t }} Also {% if x == "no" %}<code>no</code>{% endif %} Pairgate</p>"#;
    assert_eq!(unmarked_in_template(template), ["To a macro", "Seen", "Also  Pairgate"]);
}
