//! Imports inside the host library point down.

use std::path::{Path, PathBuf};

/// The rooms of the library, top first. A module may use those below its own line, and its own.
const FLOORS: &[&[&str]] = &[
    &["bench"],
    &["modes", "golden", "export"],
    &["stop"],
    &["worker"],
    &["scheduler"],
    &["cpu", "gpu_engine"],
    &["engine", "gpu", "kernels", "kv_budget"],
    &["pages", "sampling", "synth", "device_name"],
    &["model", "rope", "harmony"],
    &["tokenizer", "files", "terminal"],
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// `a` of `crate::a::b` and of each in `crate::{a::x, b}`.
fn imports(text: &str) -> Vec<String> {
    let word = |text: &str| {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                let end = list.find(';').unwrap_or(list.len());
                found.extend(list[..end].trim_end().trim_end_matches('}').split(',').map(word));
            }
        }
    }
    found
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src");
    let mut all = Vec::new();
    files(&root, &mut all);
    assert!(all.len() > 60, "the sources are somewhere else");
    let mut checked = 0;
    for path in all {
        let inside = path.strip_prefix(&root).expect("found there");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let own = first.trim_end_matches(".rs");
        // The program is not the library, and its top file names every module.
        let Some(own_floor) = floor(own) else {
            assert!(["cli", "main", "lib"].contains(&own), "{own} has no floor in this test");
            continue;
        };
        let text = std::fs::read_to_string(&path).expect("a source file");
        // Unit tests may look up: they bring engines to what they test.
        let code = match inside.to_string_lossy().contains("tests") {
            true => "",
            false => text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text),
        };
        // Links in comments name whoever is meant.
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let code = code.lines().filter(is_code).collect::<Vec<_>>().join("\n");
        for import in imports(&code) {
            if let Some(to) = floor(&import) {
                checked += 1;
                assert!(
                    to >= own_floor,
                    "{}: {own} uses {import}, which is above it",
                    path.display()
                );
            }
        }
    }
    assert!(checked > 100, "only {checked} imports were found");
}
