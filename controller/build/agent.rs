//! Building the agent that is embedded: shared by the build script and by the test that it is the same from two clones.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
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

/// Called in rustc's place, and keeps paths of this machine out of what is compiled.
///
/// Not flags for rustc: with `--target` procedural macros would not get those. No code of a macro is in the agent, but the digest of its
/// crate is part of the digests of crates that use it, and those order what is in the binary.
const WRAPPER: &str = "#!/bin/sh
# Paths that must not show, a flag a line.
IFS='
'
set -f
exec \"$@\" $CARAVAN_REMAPPED
";

/// Runs the nested cargo for a target; returns where the agent's binary is.
///
/// The same sources, compiler, linker, C library and registry give the same bytes, whatever the places are.
pub(crate) fn build(cargo: &OsStr, target: &str, places: &Places<'_>) -> Result<PathBuf, Box<dyn Error>> {
    let Places { workspace, target_dir, cargo_home } = places;
    let mut cargo = Command::new(cargo);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_build) {
            cargo.env_remove(&name);
        }
    }
    let wrapper = put_wrapper(target_dir)?;
    let status = cargo
        .current_dir(workspace)
        .env("CARGO_HOME", cargo_home)
        .env("CARGO_ENCODED_RUSTFLAGS", AGENT_FLAGS.join("\u{1f}"))
        .env("RUSTC_WRAPPER", &wrapper)
        .env("CARAVAN_REMAPPED", remapped(places)?)
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

/// The flags that name each place by a name that is the same everywhere, a line each.
fn remapped(places: &Places<'_>) -> Result<OsString, Box<dyn Error>> {
    let mut names: Vec<(PathBuf, String)> = Vec::new();
    // Where a link leads to one of them, rustc's own working directory has the other name.
    let mut add = |place: &Path, name: &str| {
        for place in [std::path::absolute(place).ok(), fs::canonicalize(place).ok()].into_iter().flatten() {
            names.push((place, name.to_owned()));
        }
    };
    add(places.workspace, "/caravan");
    add(places.target_dir, "/target");
    add(places.cargo_home, "/cargo");
    // Sources of each registry are in a directory that is named after its address.
    for registry in fs::read_dir(places.cargo_home.join("registry/src")).into_iter().flatten().flatten() {
        add(&registry.path(), "/cargo/registry");
    }
    if let Some((sources, name)) = library_sources() {
        add(&sources, &name);
    }
    // Of several that fit, rustc takes the last one: that is to be the innermost.
    names.sort_by_key(|(place, _)| place.as_os_str().len());
    let mut flags = OsString::new();
    for (place, name) in names {
        if place.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(format!("the agent cannot be built where a path has a line break: {}", place.display()).into());
        }
        flags.push("--remap-path-prefix=");
        flags.push(place);
        flags.push(format!("={name}\n"));
    }
    Ok(flags)
}

/// Writes the wrapper where it is missing. What was built by another one goes: cargo would take it for what this one makes.
fn put_wrapper(target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let path = target_dir.join("rustc-without-paths");
    if fs::read_to_string(&path).is_ok_and(|there| there == WRAPPER) {
        return Ok(path);
    }
    if target_dir.join(".rustc_info.json").exists() {
        fs::remove_dir_all(target_dir)?;
    }
    fs::create_dir_all(target_dir)?;
    // Whole and executable, or not there: others may build at the same time.
    let new = target_dir.join(format!("rustc-without-paths.{}", std::process::id()));
    fs::write(&new, WRAPPER)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, &path)?;
    Ok(path)
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

/// What made the agent, beside its sources: other ones make another agent. For people who compare.
pub(crate) fn tools() -> String {
    let first_line = |program: &OsStr, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
    };
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let tools = [first_line(&rustc, "--version"), first_line("getconf".as_ref(), "GNU_LIBC_VERSION")];
    tools.into_iter().flatten().collect::<Vec<_>>().join(", ")
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
