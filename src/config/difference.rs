//! How two policies differ: a line per setting, for pages, terminals and the audit log.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::policy::{PolicyTables, key_names};

/// One setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Of what: `kinds.printer`; empty for the policy itself.
    pub of: String,
    /// Which setting: `code_lifetime`, `scopes.scan.write`.
    pub setting: String,
    /// What it was; `None`: it was not there.
    pub before: Option<String>,
    /// What it becomes; `None`: it goes.
    pub after: Option<String>,
    /// Does pairgate.toml set it? Then the change shows only once the file no longer does.
    pub overridden: bool,
}

/// All settings that differ, in the order of their names.
pub fn differences(before: &PolicyTables, after: &PolicyTables, file: &PolicyTables) -> Vec<Change> {
    let (before, after, file) = (flat(before), flat(after), flat(file));
    let mut names: Vec<&(String, String)> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let differing = names.into_iter().filter(|name| before.get(name) != after.get(name));
    differing
        .map(|name| {
            let (of, setting) = name.clone();
            let whole = setting.split('.').next().unwrap_or_default();
            let is_set = |(file_of, file_setting): &(String, String)| {
                *file_of == of && file_setting.split('.').next() == Some(whole)
            };
            Change {
                overridden: file.keys().any(is_set),
                before: before.get(name).cloned(),
                after: after.get(name).cloned(),
                of,
                setting,
            }
        })
        .collect()
}

/// The changes on one line, of at most so many characters.
pub fn in_a_line(changes: &[Change], most: usize) -> String {
    let mut line = String::new();
    for (index, change) in changes.iter().enumerate() {
        let value = |value: &Option<String>| value.as_ref().map_or_else(|| "-".to_owned(), |value| shortened(value));
        let name =
            if change.of.is_empty() { change.setting.clone() } else { format!("{}.{}", change.of, change.setting) };
        let words = format!("{name}: {} -> {}", value(&change.before), value(&change.after));
        if line.chars().count() + words.chars().count() > most {
            let left = changes.len() - index;
            line.push_str(&format!("{}and {left} more", if line.is_empty() { "" } else { "; " }));
            break;
        }
        if !line.is_empty() {
            line.push_str("; ");
        }
        line.push_str(&words);
    }
    line
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

fn flat(tables: &PolicyTables) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    let Ok(table) = toml::Table::try_from(tables) else { return found };
    for (section, value) in table {
        match value {
            toml::Value::Table(entries) => {
                for (id, entry) in entries {
                    settings(&format!("{section}.{id}"), "", entry, &mut found);
                }
            }
            value => settings("", &section, value, &mut found),
        }
    }
    found
}

fn settings(of: &str, name: &str, value: toml::Value, found: &mut BTreeMap<(String, String), String>) {
    let words = match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                settings(of, &name, value, found);
            }
            return;
        }
        toml::Value::String(text) if name == "jwks" => key_names(&text).join(", "),
        toml::Value::String(text) => text,
        toml::Value::Array(values) => {
            let words = values.into_iter().map(|value| match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            });
            words.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    // What says nothing is not there: an empty list of keys, for example.
    if !words.is_empty() {
        found.insert((of.to_owned(), name.to_owned()), words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(before: &str, after: &str, file: &str) -> Vec<Change> {
        let read = |text: &str| PolicyTables::parse(text).unwrap();
        differences(&read(before), &read(after), &read(file))
    }

    #[test]
    fn each_setting_that_differs_is_a_line() {
        let before = "[kinds.printer]\ncode_lifetime = 300\nrefresh = true\nscopes = { \"a.b\" = \"one\" }";
        let after =
            "two_persons = true\n[kinds.printer]\ncode_lifetime = 120\nrefresh = true\nscopes = { \"c\" = \"two\" }";
        let found = changes(before, after, "[kinds.printer]\nscopes = { x = \"y\" }");
        let lines: Vec<_> = found
            .iter()
            .map(|change| {
                (
                    change.of.as_str(),
                    change.setting.as_str(),
                    change.before.as_deref(),
                    change.after.as_deref(),
                    change.overridden,
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                ("", "two_persons", None, Some("true"), false),
                ("kinds.printer", "code_lifetime", Some("300"), Some("120"), false),
                ("kinds.printer", "scopes.a.b", Some("one"), None, true),
                ("kinds.printer", "scopes.c", None, Some("two"), true),
            ]
        );
        assert_eq!(in_a_line(&found[..2], 400), "two_persons: - -> true; kinds.printer.code_lifetime: 300 -> 120");
        assert_eq!(in_a_line(&found, 60), "two_persons: - -> true; and 3 more");
        assert!(changes(after, after, "").is_empty());
    }
}
