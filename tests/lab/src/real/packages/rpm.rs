//! Packages of the RHEL family. `rpm` is Debian's; the packages, the database that a host keeps of them and all that `rpm` does are real.

use super::{Scripts, run};
use crate::layout::Layout;
use crate::spec::Release;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the packages' scripts need and every system of the family has.
const BASE: &str = "redhat-release";

/// Makes a package of a tree. As the vendor's files say, its version is the build, and its release 0.
pub(super) fn build(tree: &Path, name: &str, release: &Release, scripts: &Scripts, work: &Path, file: &Path) -> io::Result<()> {
    let relations = match name {
        "nlserver5" => "Requires: nlthirdparty5\nConflicts: nlserver6-v7\n",
        "nlserver6" => "Requires: nlthirdparty6\nConflicts: nlserver6-v7\n",
        "nlserver6-v7" => "Conflicts: nlserver5\nConflicts: nlthirdparty5\nConflicts: nlserver6\nConflicts: nlthirdparty6\n",
        _ => "",
    };
    let Scripts { before, after, leaves, gone, clean } = scripts;
    // An upgrade runs the last two as well, of the package that it replaces and with another number.
    let scripts = format!(
        "%pre\nset -e\n{before}\n%post\nset -e\n{after}\n%preun\nset -e\n[ \"$1\" = 0 ] || exit 0\n{leaves}\n\
         %postun\nset -e\n[ \"$1\" = 0 ] || exit 0\n{clean}{gone}\n"
    );
    let mut listed = vec![format!("/usr/local/neolane/{}", release.tree())];
    for dir in ["etc/init.d", "lib/systemd/system"] {
        for entry in fs::read_dir(tree.join(dir)).into_iter().flatten() {
            listed.push(format!("/{dir}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    let about = format!("Name: {name}\nVersion: {}\n{relations}", release.build);
    package(&about, &scripts, &listed, tree, work, file)
}

/// The file with the package of what every system has.
pub(crate) fn base_file(layout: &Layout) -> PathBuf {
    layout.dir.join("packages").join(format!("{BASE}-8-0.x86_64.rpm"))
}

/// Makes that package.
pub(super) fn build_base(layout: &Layout) -> io::Result<()> {
    let work = tempfile::tempdir_in(layout.dir.join("packages"))?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree)?;
    package(&format!("Name: {BASE}\nVersion: 8\nProvides: /bin/sh\n"), "", &[], &tree, work.path(), &base_file(layout))
}

fn package(about: &str, scripts: &str, files: &[String], tree: &Path, work: &Path, file: &Path) -> io::Result<()> {
    let (files, tree) = (files.join("\n"), tree.display());
    let text = format!(
        "{about}Release: 0\nSummary: stand-in for Adobe Campaign\nLicense: none\nGroup: Applications/Internet\nAutoReqProv: no\n\
         %description\nBehaves as the vendor's package on the hosts of a lab.\n\
         %install\nmkdir -p %{{buildroot}}\ncp -al '{tree}/.' %{{buildroot}}\n\
         {scripts}\n%files\n%defattr(-,root,root,-)\n{files}\n"
    );
    let spec = work.join("package.spec");
    fs::write(&spec, text)?;
    let mut builder = Command::new("rpmbuild");
    builder.args(["-bb", "--quiet", "--target", "x86_64"]);
    // Nothing that the machine's own settings say, no changes to the files, and hardly any compression.
    for (name, value) in [
        ("_topdir", work.join("rpm").to_string_lossy().as_ref()),
        ("_rpmdir", work.to_string_lossy().as_ref()),
        ("_build_name_fmt", "built.rpm"),
        ("_build_id_links", "none"),
        ("debug_package", "%{nil}"),
        ("__os_install_post", "%{nil}"),
        ("_binary_payload", "w1.gzdio"),
    ] {
        builder.arg("--define").arg(format!("{name} {value}"));
    }
    run(builder.arg(&spec).env("HOME", work).stdin(Stdio::null()))?;
    fs::rename(work.join("built.rpm"), file)
}
