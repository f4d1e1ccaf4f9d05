//! Real packages, named as the vendor's: built with `dpkg-deb` and `rpmbuild`, with scripts that do on a host what the vendor's do, and that
//! tell the lab's witness.

mod deb;
mod rpm;

pub(crate) use rpm::base_file;

use super::net::run;
use super::{SHARED_DIR, WITNESS};
use crate::furnish::package_path;
use crate::layout::{Family, Host, Layout};
use crate::package;
use crate::spec::Release;
use crate::standins::{Unpack, script, unpack};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The redirection module, compiled for each build.
const MODULE: &str = include_str!("../../real/mod_nlsrv.c");

/// The service script.
const SERVICE: &str = include_str!("../../real/nlserver.init");

/// The unit, which v7 has besides the script.
const UNIT: &str = include_str!("../../real/nlserver.service");

/// What the web server is told, in the package's own directory, to which its configuration leads.
const WEB: &str = include_str!("../../real/apache_neolane.conf");

/// The programs of a package are this one's bytes, and what its web server loads is compiled from this text.
struct Material<'a> {
    binary: &'a Path,
    module: &'a Path,
}

/// What a package manager runs around a package, without the first line.
struct Scripts {
    /// Before anything is unpacked.
    before: String,
    /// After it was.
    after: String,
    /// Before the package goes for good.
    leaves: String,
    /// After it has gone.
    gone: String,
    /// After its configuration may go, too.
    clean: String,
}

/// Builds the packages of all versions and families of a lab. `binary` becomes the programs in them.
pub(crate) fn build(layout: &Layout, binary: &Path) -> io::Result<()> {
    let work = tempfile::tempdir_in(layout.dir.join("packages"))?;
    // What is archived on every host should not be larger than it must be.
    let small = work.path().join("lab");
    if run(Command::new("strip").arg("-o").arg(&small).arg(binary).stdin(Stdio::null())).is_err() {
        fs::copy(binary, &small)?;
    }
    let module = work.path().join("mod_nlsrv.c");
    fs::write(&module, MODULE)?;
    if layout.hosts().any(|host| host.family() == Family::Rhel) {
        rpm::build_base(layout)?;
    }
    let material = Material { binary: &small, module: &module };
    for host in layout.hosts() {
        for release in [&host.source, &layout.target] {
            for name in package::names(release) {
                let file = package_path(layout, host.family(), &[name], release.build);
                if !file.exists() {
                    let work = tempfile::tempdir_in(work.path())?;
                    build_one(host, name, release, &material, work.path(), &file)?;
                }
            }
        }
    }
    Ok(())
}

fn build_one(host: &Host, name: &str, release: &Release, material: &Material<'_>, work: &Path, file: &Path) -> io::Result<()> {
    let tree = work.join("tree");
    let libraries = tree.join("usr/local/neolane").join(release.tree()).join("lib");
    if name.starts_with("nlserver") {
        server_tree(host, &tree, release, material.binary)?;
        compile(material.module, host.family(), release, &libraries.join("libnlsrvmod.so"))?;
    } else {
        fs::create_dir_all(&libraries)?;
        fs::write(libraries.join("libthirdparty.so"), format!("third party {}\n", release.build))?;
    }
    match host.family() {
        Family::Debian => deb::build(&tree, name, release, &scripts(name, release), file),
        Family::Rhel => rpm::build(&tree, name, release, &scripts(name, release), work, file),
    }
}

/// What the server's package puts on a host.
fn server_tree(host: &Host, tree: &Path, release: &Release, binary: &Path) -> io::Result<()> {
    let staged = Host { dir: tree.to_owned(), source: release.clone(), ..host.clone() };
    unpack(&staged, Unpack { release, binary })?;
    let (nl6, name) = (staged.old_tree(), script(release));
    fs::hard_link(nl6.join("bin/nlserver"), nl6.join("bin").join(name))?;
    let env = fs::read_to_string(nl6.join("env.sh"))?.replace(&*tree.to_string_lossy(), "");
    fs::write(nl6.join("env.sh"), env)?;
    // Configuration is made on the host, out of defaults, so that the package manager never touches a site's own.
    for entry in fs::read_dir(nl6.join("conf"))?.collect::<io::Result<Vec<_>>>()? {
        let mut name = entry.file_name();
        name.push(".default");
        fs::rename(entry.path(), nl6.join("conf").join(name))?;
    }
    fs::write(nl6.join("conf/apache_neolane.conf"), WEB)?;
    let service = staged.init_scripts().join(name);
    fs::remove_file(&service)?;
    write(&service, &of(release, SERVICE), 0o755)?;
    if release.is_v7() {
        let units = tree.join("lib/systemd/system");
        fs::create_dir_all(&units)?;
        write(&units.join("nlserver.service"), UNIT, 0o644)?;
    }
    Ok(())
}

/// A text for a version: with its directory and the name of its service.
fn of(release: &Release, text: &str) -> String {
    text.replace("{tree}", release.tree()).replace("{script}", script(release))
}

fn compile(source: &Path, family: Family, release: &Release, library: &Path) -> io::Result<()> {
    let ask = |program: &str, arguments: &[&str]| {
        let output = run(Command::new(program).args(arguments).stdin(Stdio::null()))?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let flags = ask("apr-1-config", &["--cppflags", "--includes"])?;
    let includes = ask("apxs", &["-q", "INCLUDEDIR"])?;
    let running = format!("/var/lib/lab/run/{}.lock", family.web_service());
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-I", &includes]).args(flags.split_whitespace());
    compiler.arg(format!("-DBUILD={}", release.build));
    compiler.arg(format!("-DWITNESS=\"/{SHARED_DIR}/bin/{WITNESS}\"")).arg(format!("-DRUNNING=\"{running}\""));
    run(compiler.arg("-o").arg(library).arg(source).stdin(Stdio::null())).map(|_| ())
}

fn scripts(name: &str, release: &Release) -> Scripts {
    let witness = format!("/{SHARED_DIR}/bin/{WITNESS}");
    let (number, build) = (&release.version, release.build);
    let server = |text: &str| if name.starts_with("nlserver") { of(release, text) } else { String::new() };
    Scripts {
        before: format!("{witness} package-unpacks {name} {number} {build}\n"),
        after: format!("{}{witness} package-installed {name} {number} {build}\n", server(CONFIGURE)),
        leaves: format!("{witness} package-leaves {name}\n"),
        gone: format!("{witness} package-removed {name}\n"),
        clean: server(CLEAN),
    }
}

/// Makes the account, what belongs to it, and the configuration where there is none. On a host that comes from v5 the first start makes it.
const CONFIGURE: &str = r#"home=/usr/local/neolane
if ! getent passwd neolane >/dev/null; then
    useradd --system --user-group --home-dir $home --no-create-home --shell /bin/bash neolane
fi
for file in $home/{tree}/conf/*.default; do
    [ -e $home/nl5.back ] || [ -e "${file%.default}" ] || cp "$file" "${file%.default}"
done
chown neolane:neolane $home
chown -R neolane:neolane $home/{tree}
update-rc.d {script} defaults >/dev/null 2>&1 || true
[ ! -d /run/systemd/system ] || systemctl daemon-reload
"#;

/// Removes what the scripts have made, and nothing of the site's.
const CLEAN: &str = r#"home=/usr/local/neolane
rm -f $home/{tree}/conf/serverConf.xml $home/{tree}/conf/serverConf.xml.diff $home/{tree}/conf/config-default.xml
for dir in conf customers var log datakit/nl/eng/jsp datakit/nl/eng datakit/nl datakit bin lib .; do
    rmdir "$home/{tree}/$dir" 2>/dev/null || true
done
[ ! -e /etc/init.d/{script} ] && update-rc.d {script} remove >/dev/null 2>&1 || true
[ ! -d /run/systemd/system ] || systemctl daemon-reload
"#;

fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
