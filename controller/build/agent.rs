//! Building the agent that is embedded: shared by the build script and by the test that it is the same from two clones.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Static, because hosts have any libc or a very old one. At a fixed address, because the table of relocations that a movable static
/// program carries is 60 KiB, a twentieth of what goes over the wire.
const AGENT_FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];

/// Where an agent is built.
pub(crate) struct Places<'a> {
    /// The directory of the workspace.
    pub(crate) workspace: &'a Path,
    /// Where the nested cargo puts what it makes.
    pub(crate) target_dir: &'a Path,
    /// Cargo's home, in which the sources of dependencies are.
    pub(crate) cargo_home: &'a Path,
}

/// Runs the nested cargo for a target; returns where the agent's binary is.
///
/// The same sources, compiler and linker give the same bytes, whatever the places are.
pub(crate) fn build(cargo: &OsStr, target: &str, places: &Places<'_>) -> Result<PathBuf, Box<dyn Error>> {
    let Places { workspace, target_dir, cargo_home } = places;
    let mut cargo = Command::new(cargo);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_build) {
            cargo.env_remove(&name);
        }
    }
    let wrapper = target_dir.join("rustc-without-paths");
    write_wrapper(&wrapper, places)?;
    let status = cargo
        .current_dir(workspace)
        .env("CARGO_HOME", cargo_home)
        .env("CARGO_ENCODED_RUSTFLAGS", AGENT_FLAGS.join("\u{1f}"))
        .env("RUSTC_WRAPPER", &wrapper)
        .args(["build", "--locked", "--package", "caravan-agent", "--bin", "caravan-agent", "--profile", "agent"])
        // With `--target`, these flags apply to the agent alone and not to procedural macros, which cannot be static.
        .args(["--target", target])
        .arg("--target-dir")
        .arg(target_dir)
        .status()?;
    if !status.success() {
        return Err(format!("building the agent failed: {status}").into());
    }
    Ok(target_dir.join(target).join("agent").join("caravan-agent"))
}

/// Writes a program that cargo calls in rustc's place, and that keeps paths of this machine out of what is compiled.
///
/// Not flags for rustc: with `--target` procedural macros would not get those. No code of a macro is in the agent, but the digest of its
/// crate is part of the digests of crates that use it, and those order what is in the binary.
fn write_wrapper(path: &Path, places: &Places<'_>) -> Result<(), Box<dyn Error>> {
    let Places { workspace, target_dir, cargo_home } = places;
    let mut script = "#!/bin/sh\nexec \"$@\"".to_owned();
    // Of several that fit, the last one counts: the target directory may be in the workspace or not, and what was generated there must
    // not show which.
    let mut remap = |from: &Path, to: &str| -> Result<(), Box<dyn Error>> {
        let from = from.to_str().ok_or_else(|| format!("{} is not UTF-8", from.display()))?;
        script.push_str(&format!(" --remap-path-prefix='{}={to}'", from.replace('\'', r"'\''")));
        Ok(())
    };
    remap(workspace, "/caravan")?;
    if let Some((sources, name)) = library_sources() {
        remap(&sources, &name)?;
    }
    remap(cargo_home, "/cargo")?;
    remap(target_dir, "/target")?;
    script.push('\n');
    // Cargo asks again for all that it knows of a compiler that has changed.
    if fs::read_to_string(path).is_ok_and(|there| there == script) {
        return Ok(());
    }
    fs::create_dir_all(target_dir)?;
    fs::write(path, script)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Whether a variable describes the build that runs this script (its target, its flags, its wrappers such as clippy's), and would
/// leak into the nested one. What says where cargo's home and registries are stays, and so does the job server.
fn is_of_the_outer_build(name: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_MAKEFLAGS", "CARGO_TERM_"];
    let outer =
        ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY_", "LLVM_PROFILE_FILE", "TARGET", "PROFILE", "OPT_LEVEL", "DEBUG"];
    outer.iter().any(|prefix| name.starts_with(prefix)) && !kept.iter().any(|prefix| name.starts_with(prefix))
}

/// Cargo's home, by the rules that cargo has.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// Where the sources of the standard library are if they are installed, and the name that they have in binaries otherwise.
fn library_sources() -> Option<(PathBuf, String)> {
    let rustc = |arguments: &[&str]| {
        let program = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let version = rustc(&["-vV"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "))?;
    Some((Path::new(rustc(&["--print", "sysroot"])?.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")))
}
