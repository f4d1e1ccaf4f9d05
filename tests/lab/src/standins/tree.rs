//! What packages put on a host.

use crate::conf;
use crate::layout::Host;
use crate::spec::Release;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What to unpack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unpack<'a> {
    /// The version.
    pub(crate) release: &'a Release,
    /// This binary, which becomes the programs.
    pub(crate) binary: &'a Path,
}

/// Links the stand-ins' binary to a place, or copies it where links cannot reach.
pub(crate) fn place(binary: &Path, at: &Path) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if fs::hard_link(binary, at).is_err() {
        fs::copy(binary, at)?;
        fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The service script of a version.
pub(crate) fn script(release: &Release) -> &'static str {
    if release.is_v5() { "nlserver5" } else { "nlserver6" }
}

/// Unpacks a version: programs, libraries, and the defaults of configuration files that do not exist yet. On a host that comes from v5,
/// the new version makes `conf` and `var` itself when it is started for the first time: see [`make_conf`].
pub(crate) fn unpack(host: &Host, what: Unpack<'_>) -> io::Result<()> {
    let tree = host.home().join(what.release.tree());
    for dir in ["bin", "lib", "customers", "datakit/nl/eng/jsp", "log"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    place(what.binary, &tree.join("bin/nlserver"))?;
    place(what.binary, &host.init_scripts().join(script(what.release)))?;
    fs::write(tree.join("BUILD"), format!("{} {}\n", what.release.version, what.release.build))?;
    // The web server's module: it is read once, when the web server starts.
    fs::write(tree.join("lib/libnlsrvmod.so"), format!("webmdl {}\n", what.release.build))?;
    let home = tree.display();
    fs::write(
        tree.join("env.sh"),
        format!(
            "NL_HOME='{home}'\nPATH=\"$NL_HOME/bin:$PATH\"\nLD_LIBRARY_PATH=\"$NL_HOME/lib:${{LD_LIBRARY_PATH:-}}\"\nexport NL_HOME PATH LD_LIBRARY_PATH\n"
        ),
    )?;
    if host.source.is_v5() && *what.release != host.source { Ok(()) } else { make_conf(host, what.release) }
}

/// Makes `conf` and `var` of an installation, with the defaults of configuration files that do not exist yet.
pub(crate) fn make_conf(host: &Host, release: &Release) -> io::Result<()> {
    let tree = host.home().join(release.tree());
    for dir in ["conf", "var"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let default = |name: &str, content: String| {
        let file = tree.join("conf").join(name);
        if file.exists() { Ok(()) } else { fs::write(file, content) }
    };
    default("serverConf.xml", conf::server_conf(release, "", "", ""))?;
    default("serverConf.xml.diff", String::new())?;
    default("config-default.xml", conf::config_default(release, true, false))
}

/// The version whose files are installed.
pub(crate) fn unpacked(host: &Host) -> io::Result<Release> {
    unpacked_in(&host.nl6())
}

/// The version whose files are in a tree.
pub(crate) fn unpacked_in(tree: &Path) -> io::Result<Release> {
    let text = fs::read_to_string(tree.join("BUILD"))?;
    let (version, build) = text.trim().split_once(' ').ok_or_else(|| io::Error::other("BUILD is garbled"))?;
    let build = build.parse().map_err(|_| io::Error::other("BUILD is garbled"))?;
    Ok(Release { version: version.to_owned(), build })
}

/// The build of a web server's module.
pub(crate) fn library_build(library: &Path) -> io::Result<u32> {
    let text = fs::read_to_string(library)?;
    text.trim().rsplit(' ').next().and_then(|build| build.parse().ok()).ok_or_else(|| io::Error::other("libnlsrvmod.so is garbled"))
}
