//! The invariants of ARCHITECTURE.md that a text search can hold up.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Lines of code, without comments, that mention any of `words`.
fn mentions(dir: &str, words: &[&str]) -> Vec<String> {
    let files = sources(&root().join(dir));
    assert!(!files.is_empty(), "{dir} holds no sources: the rule would hold for nothing");
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.strip_prefix(root()).unwrap().display(), number + 1, code));
            }
        }
    }
    found
}

fn forbid(dir: &str, words: &[&str]) {
    let found = mentions(dir, words);
    assert!(found.is_empty(), "{dir} must not mention {words:?}:\n{}", found.join("\n"));
}

fn manifest(package: &str) -> String {
    let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
    let (_, dependencies) = text.split_once("[dependencies]").unwrap();
    dependencies.split("[dev-dependencies]").next().unwrap().to_owned()
}

#[test]
fn proto_and_inventory_know_nothing_above_them() {
    for package in ["proto", "inventory"] {
        let manifest = manifest(package);
        for word in ["tokio", "russh", "controller", "agent."] {
            assert!(!manifest.contains(word), "{package} must not depend on {word}");
        }
    }
    forbid("proto/src", &["std::fs", "std::net", "std::process", "std::os::unix"]);
}

#[test]
fn the_agent_depends_on_proto_alone() {
    let manifest = manifest("agent");
    for word in ["tokio", "russh", "controller", "inventory"] {
        assert!(!manifest.contains(word), "agent must not depend on {word}");
    }
}

#[test]
fn russh_stays_in_one_module() {
    let outside: Vec<_> =
        mentions("controller/src", &["russh"]).into_iter().filter(|m| !m.starts_with("controller/src/ssh/")).collect();
    // The log filter names the library, not its types.
    let outside: Vec<_> = outside.into_iter().filter(|m| !m.contains("with_target(\"russh\"")).collect();
    assert!(outside.is_empty(), "russh outside controller/src/ssh:\n{}", outside.join("\n"));
}

#[test]
fn serde_yaml_stays_where_the_inventory_reads_it() {
    let found = mentions("inventory/src", &["serde_yaml"]);
    let mut files: Vec<_> = found.iter().map(|m| m.split(':').next().unwrap()).collect();
    files.dedup();
    assert!(files.len() <= 1, "serde_yaml in more than one file: {files:?}");
    // Runbooks are read by the inventory's reader, too.
    forbid("controller/src", &["serde_yaml", "saphyr"]);
}

#[test]
fn arrows_point_downward_in_the_controller() {
    for lower in ["plan", "ssh", "run", "check", "report", "progress", "view"] {
        forbid(&format!("controller/src/{lower}"), &["crate::cli::", "super::cli"]);
    }
    forbid("controller/src/plan", &["crate::run", "crate::ssh", "crate::check", "crate::report"]);
    forbid("controller/src/ssh", &["crate::run", "crate::plan", "crate::check"]);
    // The engine knows hosts through one trait.
    forbid("controller/src/run", &["crate::ssh", "crate::check", "crate::report", "crate::progress", "crate::view"]);
    forbid("controller/src/view", &["crate::run", "crate::ssh"]);
}

#[test]
fn deciding_does_no_io() {
    for pure in ["controller/src/run/state.rs", "controller/src/run/stage.rs"] {
        let text = fs::read_to_string(root().join(pure)).unwrap();
        for word in ["std::fs", "tokio", "std::time", "jiff", "async fn", "println"] {
            assert!(!text.contains(word), "{pure} must not mention {word}: it decides, others act");
        }
    }
}

/// The page about security names its tests: each is there, under exactly that name.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = fs::read_to_string(root().join("controller/SECURITY.md")).unwrap();
    let named: std::collections::BTreeSet<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() > 2 && word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'))
        .collect();
    assert!(named.len() >= 20, "the page names {} tests", named.len());
    let all: Vec<String> = ["agent", "controller", "inventory", "proto", "tests"]
        .iter()
        .flat_map(|dir| sources(&root().join(dir)))
        .map(|(_, text)| text)
        .collect();
    // What is too long for every run of the tests is run before a change lands.
    let by_ci = fs::read_to_string(root().join(".ci/run")).unwrap().contains("-- --ignored ");
    let is_test = |name: &str| {
        let heads = [format!("fn {name}()"), format!("fn {name}(")];
        all.iter().flat_map(|text| text.split("#[").skip(1)).any(|after| {
            // The attribute, and the function that it stands on.
            let test = after.starts_with("test]") || after.starts_with("tokio::test") || (by_ci && after.starts_with("ignore"));
            test && after
                .split_once("fn ")
                .is_some_and(|(_, rest)| heads.iter().any(|head| format!("fn {rest}").starts_with(head.as_str())))
        })
    };
    let missing: Vec<&&str> = named.iter().filter(|name| !is_test(name)).collect();
    assert!(missing.is_empty(), "controller/SECURITY.md names tests that do not exist: {missing:?}");
    assert!(!is_test("no_such_test_at_all"));
}

/// Secrets are held in types that cannot be printed: nothing in the sources derives `Debug` around a secret that is a plain text.
#[test]
fn secrets_are_never_plain_texts() {
    let words = ["password: String", "passphrase: String", "password: Option<String>", "secret: String", "password: &str"];
    let found: Vec<String> = ["agent/src", "controller/src", "inventory/src", "proto/src"]
        .iter()
        .flat_map(|dir| mentions(dir, &words))
        // Arguments of the functions that hand a secret over byte by byte.
        .filter(|line| !line.contains("fn "))
        .collect();
    assert!(found.is_empty(), "hold these as `proto::Secret`:\n{}", found.join("\n"));
}
