//! What the code's shape promises (`docs/architecture.md`), read off the code itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers, lowest first. A module may use modules of its own layer's folder and of lower layers, never of higher ones.
const LAYERS: [&[&str]; 9] = [
    &["clock", "id", "secret"],
    &["oauth"],
    &["model", "spreadsheet", "telemetry"],
    &["store", "config", "tls"],
    &["device_auth", "upstream"],
    &["resource"],
    &["broker"],
    &["http", "mqtt"],
    &["cli", "main"],
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn source() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    rust_files(&root).into_iter().map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The first word after each `crate::`, also inside `use crate::{…}`.
fn used_modules(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        rest.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect::<String>()
    };
    let mut used = BTreeSet::new();
    for (_, rest) in text.split("crate::").skip(1).map(|rest| ((), rest)) {
        match rest.strip_prefix('{') {
            Some(group) => {
                used.extend(group.split('}').next().unwrap_or_default().split(',').map(|item| word(item.trim())))
            }
            None => {
                used.insert(word(rest));
            }
        }
    }
    used
}

#[test]
fn layers_are_strictly_downward() {
    let mut upward = Vec::new();
    for (file, text) in source() {
        let module = file.split(['/', '.']).next().unwrap_or_default().to_owned();
        if file == "lib.rs" {
            continue;
        }
        if module == "simulator" {
            // It plays devices from outside: an implementation that shares nothing with the one that it tests.
            assert!(
                used_modules(&text).iter().all(|used| used == "simulator"),
                "{file} uses {:?}",
                used_modules(&text)
            );
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{file} is in no layer"));
        for used in used_modules(&text).into_iter().filter(|used| *used != module && used != "simulator") {
            match layer(&used) {
                Some(other) if other <= own => {}
                _ => upward.push(format!("{file} uses {used}")),
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

/// It is for others' services: what it used of the broker, they would carry along.
#[test]
fn the_resource_servers_part_knows_nothing_of_the_broker_but_pure_checks() {
    for (file, text) in source().iter().filter(|(file, _)| file.starts_with("resource/")) {
        for used in used_modules(text) {
            assert!(
                ["clock", "id", "secret", "oauth", "device_auth", "resource"].contains(&used.as_str()),
                "{file} uses {used}"
            );
        }
        assert!(!text.contains("device_auth::authenticate"), "{file} asks the registry");
    }
    let users: Vec<String> = source()
        .into_iter()
        .filter(|(file, text)| !file.starts_with("resource/") && used_modules(text).contains("resource"))
        .map(|(file, _)| file)
        .collect();
    assert!(users.is_empty(), "the broker itself does not need it: {users:?}");
}

#[test]
fn every_file_says_what_it_is_and_none_is_a_warehouse() {
    for (file, text) in source() {
        assert!(text.starts_with("//! "), "{file} begins without a word on what it is");
        assert!(text.lines().count() <= 600, "{file} has grown past 600 lines");
    }
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("V{:04}__", index + 1)) && name.ends_with(".sql"), "{name}");
    }
}

/// The attacks that this version meets (`docs/threat-model.md`).
fn met_attacks() -> Vec<u32> {
    let ranges = [1..=53, 55..=60, 71..=82, 85..=94, 96..=98, 101..=101];
    ranges.into_iter().flatten().collect()
}

#[test]
fn every_attack_that_is_met_has_a_test_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = String::new();
    for folder in ["src", "tests"] {
        for path in rust_files(&root.join(folder)) {
            let text = fs::read_to_string(path).unwrap();
            names.extend(text.lines().filter(|line| line.contains("fn ")).map(|line| format!("{line}\n")));
        }
    }
    let missing: Vec<String> =
        met_attacks().into_iter().map(|id| format!("a_{id:03}")).filter(|id| !names.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "no test names {missing:?}");
}

/// The clauses of the RFCs that say MUST, by the ids of `docs/conformance.md`: which of each family there are.
const CLAUSES: [(&str, &[u32]); 12] = [
    ("R-8628", &[1, 2, 3, 5, 7, 10, 11, 12, 14]),
    ("R-9700", &[1, 2, 3, 4, 5, 6, 8, 9, 10, 13, 14, 16]),
    ("R-UPD", &[1, 2, 3]),
    ("R-8414", &[1, 2, 3, 4, 5, 6, 7]),
    ("R-9449", &[1, 4, 5, 6, 7, 8, 9]),
    ("R-8705", &[1, 2, 4, 6]),
    ("R-7523", &[1, 3, 4, 5]),
    ("R-7009", &[1, 2, 4]),
    ("R-7662", &[1, 2, 3, 4]),
    ("R-9068", &[1, 2, 3, 4, 5]),
    ("R-8707", &[1]),
    ("R-9207", &[1, 2, 3]),
];

/// `docs/conformance.md` leaves no clause out, and names only tests that there are.
#[test]
fn every_clause_that_says_must_is_linked_to_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| R-") || line.starts_with("| D-"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let listed: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    let wanted =
        CLAUSES.iter().flat_map(|(family, numbers)| numbers.iter().map(move |number| format!("{family}-{number:02}")));
    let missing: Vec<String> = wanted
        .chain([1, 2, 3, 4, 5, 6, 14].map(|number| format!("D-{number:02}")))
        .filter(|id| !listed.contains(id.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in docs/conformance.md: {missing:?}");

    let is_test = |path: &Path, name: &str| {
        let text = fs::read_to_string(path).unwrap();
        let end = text.find(&format!("fn {name}("));
        // The attribute stands in the lines just above.
        end.is_some_and(|end| {
            text[..end].lines().rev().take(4).any(|line| line.contains("#[test]") || line.contains("tokio::test"))
        })
    };
    let sources = rust_files(&root.join("src"));
    for row in &rows {
        let (id, tests) = (row[0], row[3]);
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || tests.starts_with("not applicable: "), "{id} has neither a test nor a reason");
        for name in names {
            let is_there = match name.split_once("::") {
                Some((file, name)) => is_test(&root.join(format!("tests/integration/{file}.rs")), name),
                None => sources.iter().any(|path| is_test(path, name)),
            };
            assert!(is_there, "{id}: there is no test {name}");
        }
    }
}
