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
    // As another account would have it: no path is the one that this program's own agent was built with, and none has the same length.
    let (workspace, cargo_home) = (dir.path().join("another/clone"), dir.path().join("somebody/else/.cargo"));
    fs::create_dir_all(&cargo_home).unwrap();
    for part in ["registry", "config.toml"].map(|part| home.join(part)).into_iter().filter(|part| part.exists()) {
        run(Command::new("cp").arg("-r").arg(part).arg(&cargo_home));
    }
    clone(&workspace);
    let target_dir = dir.path().join("elsewhere");
    let places = agent::Places { workspace: &workspace, target_dir: &target_dir, cargo_home: &cargo_home };
    let binary = fs::read(agent::build("cargo".as_ref(), embedded.target, &places).unwrap()).unwrap();
    assert!(binary == embedded.unpack().unwrap(), "the agent is another one elsewhere");
    for place in [dir.path(), &home] {
        let place = place.to_str().unwrap().as_bytes();
        assert!(!binary.windows(place.len()).any(|part| part == place), "a path of this machine is in the agent");
    }
}
