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

/// Unpacks a version into `nl6`: programs, libraries, and the defaults of configuration files that do not exist yet.
pub(crate) fn unpack(host: &Host, what: Unpack<'_>) -> io::Result<()> {
    let nl6 = host.nl6();
    for dir in ["bin", "lib", "conf", "customers", "datakit/nl/eng/jsp", "var", "log"] {
        fs::create_dir_all(nl6.join(dir))?;
    }
    place(what.binary, &nl6.join("bin/nlserver"))?;
    place(what.binary, &host.init_scripts().join("nlserver6"))?;
    fs::write(nl6.join("BUILD"), format!("{} {}\n", what.release.version, what.release.build))?;
    // The web server's module: it is read once, when the web server starts.
    fs::write(nl6.join("lib/libnlsrvmod.so"), format!("webmdl {}\n", what.release.build))?;
    let home = nl6.display();
    fs::write(
        nl6.join("env.sh"),
        format!(
            "NL_HOME='{home}'\nPATH=\"$NL_HOME/bin:$PATH\"\nLD_LIBRARY_PATH=\"$NL_HOME/lib:${{LD_LIBRARY_PATH:-}}\"\nexport NL_HOME PATH LD_LIBRARY_PATH\n"
        ),
    )?;
    let default = |name: &str, content: String| {
        let file = nl6.join("conf").join(name);
        if file.exists() { Ok(()) } else { fs::write(file, content) }
    };
    default("serverConf.xml", conf::server_conf("", "", ""))?;
    default("serverConf.xml.diff", String::new())?;
    default("config-default.xml", conf::config_default(true, false))
}

/// The version whose files are in `nl6`.
pub(crate) fn unpacked(host: &Host) -> io::Result<Release> {
    let text = fs::read_to_string(host.nl6().join("BUILD"))?;
    let (version, build) = text.trim().split_once(' ').ok_or_else(|| io::Error::other("BUILD is garbled"))?;
    let build = build.parse().map_err(|_| io::Error::other("BUILD is garbled"))?;
    Ok(Release { version: version.to_owned(), build })
}

/// The build of the web server's module.
pub(crate) fn library_build(host: &Host) -> io::Result<u32> {
    let text = fs::read_to_string(host.nl6().join("lib/libnlsrvmod.so"))?;
    text.trim().rsplit(' ').next().and_then(|build| build.parse().ok()).ok_or_else(|| io::Error::other("libnlsrvmod.so is garbled"))
}
