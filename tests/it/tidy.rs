//! The house stays in order: which room may use which, what every file begins with, and what is never written here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may use, besides itself. `model` is open to all. A new arrow is a decision: make it
/// here, in a change of its own.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("proto", &[]),
    ("free_space", &[]),
    ("state_file", &[]),
    ("listings", &[]),
    ("config_files", &["convert", "listings"]),
    ("tfevents", &["listings", "proto"]),
    ("convert", &["proto", "tfevents"]),
    ("wandb_format", &["listings", "proto"]),
    ("checkpoint", &["convert", "state_file", "tfevents"]),
    ("cleaned", &["checkpoint", "listings", "state_file", "wandb_format"]),
    ("sink", &["wandb_format"]),
    ("survey", &["checkpoint", "convert", "listings", "tfevents"]),
    ("known_runs", &["checkpoint", "cleaned", "convert", "state_file", "survey", "wandb_format"]),
    ("side_files", &["listings"]),
    (
        "recorder",
        &[
            "artifact",
            "checkpoint",
            "cleaned",
            "convert",
            "free_space",
            "listings",
            "side_files",
            "sink",
            "state_file",
            "survey",
            "tfevents",
            "wandb_format",
        ],
    ),
    ("watch", &[]),
    ("api", &[]),
    ("artifact", &["convert"]),
    ("verify", &["api"]),
    ("upload", &["api", "artifact", "cleaned", "proto", "state_file", "verify", "wandb_format"]),
    ("cli", &["convert", "free_space"]),
    ("settings", &["api", "cli", "convert", "free_space"]),
    (
        "pipeline",
        &[
            "api",
            "artifact",
            "checkpoint",
            "cleaned",
            "config_files",
            "convert",
            "free_space",
            "known_runs",
            "listings",
            "recorder",
            "settings",
            "state_file",
            "survey",
            "upload",
            "verify",
            "wandb_format",
            "watch",
        ],
    ),
    (
        "commands",
        &[
            "api",
            "artifact",
            "checkpoint",
            "cleaned",
            "cli",
            "config_files",
            "convert",
            "listings",
            "pipeline",
            "proto",
            "recorder",
            "settings",
            "state_file",
            "survey",
            "tfevents",
            "upload",
            "verify",
            "wandb_format",
        ],
    ),
    ("main", &["wandb_bridge"]),
    ("lib", &[]),
];

fn rust_files(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn source_files() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&root).unwrap().with_extension("");
            let room = below.iter().next().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (room, path, text)
        })
        .filter(|(_, path, _)| !path.ends_with("proto/tensorboard.rs") && !path.ends_with("proto/wandb_internal.rs"))
        .collect()
}

/// The rooms that a file names as `crate::room`, tests left out, as are whole files of them: they may look anywhere.
fn rooms_used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut rooms = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for after in line.split("crate::").skip(1) {
            if let Some(list) = after.strip_prefix('{') {
                rooms.extend(list.split([',', '}']).map(|part| first_word(part.trim())));
            } else {
                rooms.push(first_word(after));
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, path, text) in source_files() {
        let may = allowed.get(room.as_str()).unwrap_or_else(|| panic!("room `{room}` is not in the table"));
        for used in rooms_used(&text) {
            let is_room = allowed.contains_key(used.as_str()) && !path.ends_with("tests.rs");
            if is_room && used != room && used != "model" && !may.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} → {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not in the table:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_arrow_that_nobody_uses() {
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (room, _, text) in source_files() {
        used.entry(room).or_default().extend(rooms_used(&text));
    }
    let idle: Vec<String> = ARROWS
        .iter()
        .flat_map(|(room, arrows)| arrows.iter().map(move |arrow| (*room, *arrow)))
        .filter(|(room, arrow)| {
            *room != "main" && !used.get(*room).is_some_and(|used| used.iter().any(|used| used == arrow))
        })
        .map(|(room, arrow)| format!("{room} → {arrow}"))
        .collect();
    assert!(idle.is_empty(), "arrows that nobody uses: {}", idle.join(", "));
}

#[test]
fn every_file_says_what_it_is() {
    for (_, path, text) in source_files() {
        assert!(text.starts_with("//!"), "{} does not begin with `//!`", path.display());
    }
}

#[test]
fn time_threads_and_the_network_stay_where_they_belong() {
    // Pure rooms take times in and give values out; only `api` speaks HTTP.
    let rules: &[(&str, &[&str])] = &[
        ("convert", &["std::fs", "std::net", "SystemTime", "Instant::", "tokio", "reqwest"]),
        ("model", &["std::fs", "std::net", "SystemTime", "Instant::", "tokio", "reqwest", "prost"]),
        ("verify", &["std::fs", "std::net", "SystemTime", "Instant::", "tokio", "reqwest", "prost"]),
        ("tfevents", &["reqwest", "tokio"]),
        ("wandb_format", &["reqwest", "tokio"]),
        ("upload", &["reqwest"]),
        ("commands", &["reqwest"]),
        ("pipeline", &["reqwest"]),
    ];
    for (room, path, text) in source_files() {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(&text);
        for (_, words) in rules.iter().filter(|(name, _)| *name == room) {
            for word in *words {
                let found = code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
                assert!(!found, "{} uses `{word}`", path.display());
            }
        }
    }
}

/// `crash::points`, `crash::points::*_loses_power_*` and `space` in a page of promises are modules and tests that are there.
#[test]
fn tests_that_the_guarantees_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let tests = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split(" | ").nth(1));
    let in_table = tests.flat_map(|tests| tests.split('`').skip(1).step_by(2));
    let in_text = page.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
    let mut named = 0;
    for name in in_table.chain(in_text).filter(|name| !name.starts_with('-') && !name.contains(['/', '.', ' '])) {
        named += 1;
        assert!(is_there(root, name), "docs/guarantees.md names `{name}`, which is not there");
    }
    assert!(named > 20, "{named} names were found");
}

/// Whether a path of modules leads to a file, perhaps with a test of that name in it; `*` stands for anything.
fn is_there(root: &Path, name: &str) -> bool {
    let file = |path: &str| {
        [root.join("tests/it"), root.join("src")]
            .iter()
            .flat_map(|below| [format!("{path}.rs"), format!("{path}/mod.rs")].map(|file| below.join(file)))
            .find_map(|file| fs::read_to_string(file).ok())
    };
    let path = name.replace("::", "/");
    let has_test = |module: &str, test: &str| {
        let text = file(module).unwrap_or_default();
        text.split("fn ").skip(1).any(|rest| is_like(rest.split('(').next().unwrap_or_default(), test))
    };
    file(&path).is_some() || path.rsplit_once('/').is_some_and(|(module, test)| has_test(module, test))
}

fn is_like(name: &str, pattern: &str) -> bool {
    let mut rest = name;
    let parts: Vec<&str> = pattern.split('*').collect();
    let last = parts.len() - 1;
    parts.iter().enumerate().all(|(index, part)| match rest.find(part) {
        Some(at) if (index > 0 || at == 0) && (index < last || rest.ends_with(part)) => {
            rest = &rest[at + part.len()..];
            true
        }
        _ => false,
    })
}
