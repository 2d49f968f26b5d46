//! What the code's shape promises (`docs/architecture.md`), read off the code itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers, lowest first. A module may use modules of its own layer's folder and of lower layers, never of higher ones.
const LAYERS: [&[&str]; 8] = [
    &["clock", "id", "secret"],
    &["oauth"],
    &["model", "telemetry"],
    &["store", "config"],
    &["device_auth"],
    &["broker"],
    &["http"],
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
    let ranges = [1..=8, 15..=27, 31..=46, 49..=50, 52..=53, 86..=89, 94..=94, 98..=98];
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
