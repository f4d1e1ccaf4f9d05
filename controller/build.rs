//! Builds the agent for the hosts and embeds it, so that `caravan` is one file.
//!
//! The agent is another product than the controller: static, optimised for size, with a profile and flags of its own. Cargo cannot
//! express that within one build, so a second cargo runs here. It gets a target directory of its own below the outer one: it never
//! waits for the outer build's lock, and debug and release builds of the controller share its result.

#[path = "build/agent.rs"]
mod agent;

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the controller's directory has no parent")?.to_path_buf();
    for watched in [
        "agent/src",
        "agent/build.rs",
        "agent/no-unwind.ld",
        "agent/Cargo.toml",
        "proto/src",
        "proto/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/agent.rs");

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = env::var("TARGET")?;
    let mut table = String::from("&[");
    if target.contains("-linux-") {
        // OUT_DIR is TARGET_DIR/[TRIPLE/]PROFILE/build/caravan-HASH/out.
        let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("embedded-agent");
        let cargo = env::var_os("CARGO").ok_or("CARGO is not set")?;
        let cargo_home = agent::cargo_home().ok_or("neither CARGO_HOME nor HOME is set")?;
        let places = agent::Places { workspace: &workspace, target_dir: &target_dir, cargo_home: &cargo_home };
        let binary = fs::read(agent::build(&cargo, &target, &places)?)?;
        let packed = out.join("caravan-agent.gz");
        fs::write(&packed, gzip(&binary)?)?;
        let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
        write!(
            table,
            "EmbeddedAgent {{ system: {:?}, target: {target:?}, made_by: {:?}, sha256: {:?}, size: {}, gzip: include_bytes!({:?}) }}",
            format!("Linux {arch}"),
            agent::tools(),
            hex(&Sha256::digest(&binary)),
            binary.len(),
            packed.display().to_string(),
        )?;
    } else {
        println!("cargo::warning=no agent is embedded: building one for Linux hosts on {target} is not supported");
    }
    table.push(']');
    fs::write(out.join("agents.rs"), table)?;
    Ok(())
}

/// Without name and time, so that equal input gives equal output.
fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
