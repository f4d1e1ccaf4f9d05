//! The agent that is embedded has the same digest wherever it is built: what root runs on a host can be proven to come from these sources.

use std::fs;
use std::path::Path;
use std::process::Command;

// The build script's own.
#[path = "../../controller/build/agent.rs"]
mod agent;

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The files of this clone, as they are now, in another directory.
fn clone(to: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(root));
    for file in String::from_utf8(listed).unwrap().split_terminator('\0').filter(|file| root.join(file).is_file()) {
        fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
        fs::copy(root.join(file), to.join(file)).unwrap();
    }
}

#[test]
#[ignore = "builds the agent from nothing, which takes a minute"]
fn the_agent_is_the_same_from_two_clones() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = controller::ssh::AGENTS.first().expect("an agent is embedded");
    let home = agent::cargo_home().unwrap();
    // As another account would have it that installs from a repository: one place is in the other, and one is reached through a link.
    let cargo_home = dir.path().join("somebody/else/.cargo");
    let workspace = cargo_home.join("git/checkouts/another");
    let target_dir = workspace.join("built/here");
    fs::create_dir_all(&cargo_home).unwrap();
    for part in ["registry", "config.toml"].map(|part| home.join(part)).into_iter().filter(|part| part.exists()) {
        run(Command::new("cp").arg("-r").arg(part).arg(&cargo_home));
    }
    clone(&workspace);
    let link = dir.path().join("linked");
    std::os::unix::fs::symlink(&cargo_home, &link).unwrap();
    let places = agent::Places { workspace: &workspace, target_dir: &target_dir, cargo_home: &link };
    let binary = fs::read(agent::build("cargo".as_ref(), embedded.target, &places).unwrap()).unwrap();
    assert!(binary == embedded.unpack().unwrap(), "the agent is another one elsewhere");
    assert!(agent::tools().contains("rustc ") && embedded.made_by == agent::tools());
    for place in [dir.path(), &home] {
        let place = place.to_str().unwrap().as_bytes();
        assert!(!binary.windows(place.len()).any(|part| part == place), "a path of this machine is in the agent");
    }
}
