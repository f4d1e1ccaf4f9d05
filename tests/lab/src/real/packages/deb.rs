//! Packages of the Debian family.

use super::{Scripts, run, write};
use crate::spec::Release;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes a package of a tree.
pub(super) fn build(tree: &Path, name: &str, release: &Release, scripts: &Scripts, file: &Path) -> io::Result<()> {
    let dir = tree.join("DEBIAN");
    fs::create_dir_all(&dir)?;
    let version = release.package_version();
    let relations = match name {
        "nlserver5" => "Depends: nlthirdparty5\nConflicts: nlserver6-v7\n",
        "nlserver6" => "Depends: nlthirdparty6\nConflicts: nlserver6-v7\n",
        "nlserver6-v7" => "Conflicts: nlserver5, nlthirdparty5, nlserver6, nlthirdparty6\n",
        _ => "",
    };
    let text = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: The lab <lab@example.invalid>\n{relations}\
         Section: mail\nPriority: optional\nDescription: stand-in for Adobe Campaign\n Behaves as the vendor's package on the hosts of a lab.\n"
    );
    write(&dir.join("control"), &text, 0o644)?;
    let Scripts { before, after, leaves, gone, clean } = scripts;
    for (name, body) in [
        ("preinst", before.clone()),
        ("postinst", format!("[ \"$1\" = configure ] || exit 0\n{after}")),
        ("prerm", format!("[ \"$1\" = remove ] || exit 0\n{leaves}")),
        ("postrm", format!("case \"$1\" in\nremove)\n{gone};;\npurge)\n{clean}true\n;;\nesac\n")),
    ] {
        write(&dir.join(name), &format!("#!/bin/sh\nset -e\n{body}"), 0o755)?;
    }
    // Hardly compressed: it is built anew for each lab.
    let mut builder = Command::new("dpkg-deb");
    builder.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]).arg(tree).arg(file).stdin(Stdio::null());
    run(&mut builder).map(|_| ())
}
