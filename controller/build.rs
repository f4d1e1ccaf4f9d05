//! Builds the agent for the hosts and embeds it, so that `caravan` is one file.
//!
//! The agent is another product than the controller: static, optimised for size, with a profile and flags of its own. Cargo cannot
//! express that within one build, so a second cargo runs here. It gets a target directory of its own below the outer one: it never
//! waits for the outer build's lock, and debug and release builds of the controller share its result.

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Static, because hosts have any libc or a very old one. At a fixed address, because the table of relocations that a movable static
/// program carries is 60 KiB, a twentieth of what goes over the wire.
const AGENT_FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];

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

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = env::var("TARGET")?;
    let mut table = String::from("&[");
    if target.contains("-linux-") {
        let binary = fs::read(build_agent(&workspace, &out, &target)?)?;
        let packed = out.join("caravan-agent.gz");
        fs::write(&packed, gzip(&binary)?)?;
        let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
        write!(
            table,
            "EmbeddedAgent {{ system: {:?}, target: {target:?}, sha256: {:?}, size: {}, gzip: include_bytes!({:?}) }}",
            format!("Linux {arch}"),
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

/// Runs the nested cargo; returns where the agent's binary is.
fn build_agent(workspace: &Path, out: &Path, target: &str) -> Result<PathBuf, Box<dyn Error>> {
    // OUT_DIR is TARGET_DIR/[TRIPLE/]PROFILE/build/caravan-HASH/out.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("embedded-agent");
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("CARGO is not set")?);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_build) {
            cargo.env_remove(&name);
        }
    }
    let mut flags: Vec<String> = AGENT_FLAGS.map(str::to_owned).to_vec();
    // Paths of this machine must not get into the binary: the same sources give the same digest everywhere.
    flags.push(format!("--remap-path-prefix={}=/caravan", workspace.display()));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    let status = cargo
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["build", "--locked", "--package", "caravan-agent", "--bin", "caravan-agent", "--profile", "agent"])
        // With `--target`, flags apply to the agent alone and not to proc macros, which cannot be static.
        .args(["--target", target])
        .arg("--target-dir")
        .arg(&target_dir)
        .status()?;
    if !status.success() {
        return Err(format!("building the agent failed: {status}").into());
    }
    Ok(target_dir.join(target).join("agent").join("caravan-agent"))
}

/// Whether a variable describes the build that runs this script (its target, its flags, its wrappers such as clippy's), and would
/// leak into the nested one. What says where cargo's home and registries are stays, and so does the job server.
fn is_of_the_outer_build(name: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_MAKEFLAGS", "CARGO_TERM_"];
    let outer =
        ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY_", "LLVM_PROFILE_FILE", "TARGET", "PROFILE", "OPT_LEVEL", "DEBUG"];
    outer.iter().any(|prefix| name.starts_with(prefix)) && !kept.iter().any(|prefix| name.starts_with(prefix))
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
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
