//! `dpkg`, `dpkg-query` and `rpm`.

use super::tree::{Unpack, script, unpack};
use super::{complain, say};
use crate::layout::Family;
use crate::package::{self, Manifest};
use crate::records::Event;
use crate::rules::Site;
use crate::spec::Release;
use crate::state::{self, Package};
use std::fs;
use std::io;
use std::path::Path;

/// `dpkg -i FILE..`, `dpkg --purge NAME..`, `dpkg -l`.
pub(super) fn dpkg(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("--force-")).collect();
    match arguments.as_slice() {
        ["-i" | "--install", files @ ..] if !files.is_empty() => install(site, Family::Debian, files),
        ["--purge" | "-P" | "-r" | "--remove", names @ ..] if !names.is_empty() => purge(site, names),
        ["-l" | "--list", ..] => {
            say("Desired=Unknown/Install/Remove/Purge/Hold");
            say("||/ Name                 Version         Architecture Description");
            for package in state::packages(&site.host)? {
                let mark = if package.whole { "ii" } else { "iU" };
                say(&format!("{mark}  {:20} {:15} amd64        Adobe Campaign", package.name, package.release.package_version()));
            }
            Ok(0)
        }
        _ => {
            complain("dpkg: error: need an action option");
            Ok(2)
        }
    }
}

/// `dpkg-query -W -f=FORMAT NAME`.
pub(super) fn dpkg_query(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let format = arguments.iter().find_map(|argument| argument.strip_prefix("-f=")).unwrap_or("${Package}\\t${Version}\\n");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let installed = state::packages(&site.host)?;
    let mut code = 0;
    for name in &names {
        let Some(package) = installed.iter().find(|package| package.name == **name) else {
            complain(&format!("dpkg-query: no packages found matching {name}"));
            code = 1;
            continue;
        };
        let status = if package.whole { "install ok installed" } else { "install ok unpacked" };
        let text = format.replace("${Status}", status).replace("${Version}", &package.release.package_version());
        let text = text.replace("${Package}", name).replace("\\t", "\t").replace("\\n", "\n");
        // No line end of its own, as the real one.
        use io::Write;
        let _ = io::stdout().write_all(text.as_bytes());
    }
    Ok(code)
}

/// `rpm -Uvh [--replacepkgs] FILE..`, `rpm -ev [--allmatches] NAME..`, `rpm -q [--qf FORMAT] NAME..`, `rpm -qa`.
pub(super) fn rpm(site: &Site, arguments: &[String]) -> io::Result<u8> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["-Uvh" | "-U", "--replacepkgs", files @ ..] if !files.is_empty() => install(site, Family::Rhel, files),
        ["-Uvh" | "-ivh" | "-U" | "-i", files @ ..] if !files.is_empty() => upgrade(site, files),
        ["-ev" | "-e", "--allmatches", names @ ..] | ["-ev" | "-e", names @ ..] if !names.is_empty() => erase(site, names),
        ["-qa", ..] => {
            for package in state::packages(&site.host)? {
                say(&format!("{}-{}.x86_64", package.name, package.release.package_version()));
            }
            Ok(0)
        }
        ["-q", "--qf", format, names @ ..] => query(site, Some(format), names),
        ["-q", names @ ..] if !names.is_empty() => query(site, None, names),
        _ => {
            complain("RPM version 4.16.1.3");
            Ok(1)
        }
    }
}

/// `rpm -U` without `--replacepkgs`: what is installed in the same version already is refused, and with it everything else.
fn upgrade(site: &Site, files: &[&str]) -> io::Result<u8> {
    let installed = state::packages(&site.host)?;
    for manifest in files.iter().filter_map(|file| package::read(Path::new(file)).ok()) {
        let same =
            |package: &&Package| package.whole && package.release == manifest.release && manifest.names.contains(&package.name);
        if let Some(there) = installed.iter().find(same) {
            complain(&format!("\tpackage {}-{}.x86_64 is already installed", there.name, there.release.package_version()));
            return Ok(1);
        }
    }
    install(site, Family::Rhel, files)
}

fn query(site: &Site, format: Option<&str>, names: &[&str]) -> io::Result<u8> {
    let installed = state::packages(&site.host)?;
    let mut code = 0;
    for name in names {
        let Some(package) = installed.iter().find(|package| package.name == *name && package.whole) else {
            say(&format!("package {name} is not installed"));
            code += 1;
            continue;
        };
        let build = package.release.build.to_string();
        match format {
            Some(format) => {
                let text = format.replace("%{VERSION}", &package.release.version).replace("%{RELEASE}", &build);
                use io::Write;
                let _ = io::stdout().write_all(text.replace("%{NAME}", name).replace("\\n", "\n").as_bytes());
            }
            None => say(&format!("{name}-{}.x86_64", package.release.package_version())),
        }
    }
    Ok(code)
}

fn purge(site: &Site, names: &[&str]) -> io::Result<u8> {
    let installed = state::packages(&site.host)?;
    let (there, not): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| installed.iter().any(|package| package.name == **name));
    for name in not {
        complain(&format!("dpkg: warning: ignoring request to remove {name} which isn't installed"));
    }
    if there.is_empty() { Ok(0) } else { remove(site, &there) }
}

fn erase(site: &Site, names: &[&str]) -> io::Result<u8> {
    let installed = state::packages(&site.host)?;
    let missing: Vec<_> = names.iter().filter(|name| !installed.iter().any(|package| package.name == **name)).collect();
    for name in &missing {
        complain(&format!("error: package {name} is not installed"));
    }
    if missing.is_empty() { remove(site, names) } else { Ok(1) }
}

fn remove(site: &Site, names: &[&str]) -> io::Result<u8> {
    let subject = names.join(" ");
    let installed = state::packages(&site.host)?;
    let going = |name: &str| installed.iter().find(|package| package.name == name).map(|package| package.release.clone());
    let release = names.iter().find_map(|name| going(name)).unwrap_or_else(|| site.host.source.clone());
    let old = release == site.host.source;
    if site.meet("remove")? {
        site.record(Event::PackageFailed, &subject, "removal")?;
        complain(&format!(
            "error processing package {subject}: subprocess installed pre-removal script returned error exit status 1"
        ));
        return Ok(1);
    }
    let mut writer = site.writer()?;
    site.judge_packages(&mut writer, &subject, old)?;
    let mut packages = state::packages(&site.host)?;
    packages.retain(|package| !names.contains(&package.name.as_str()));
    if names.iter().any(|name| name.starts_with("nlserver")) {
        remove_files(site, &release)?;
    }
    state::set_packages(&site.host, &packages)?;
    writer.append(Event::PackageRemoved, &subject, "")?;
    for name in names {
        say(&format!("Removing {name} ..."));
        say(&format!("Purging configuration files for {name} ..."));
    }
    Ok(0)
}

/// Removes what packages have put there, and no file of the site.
fn remove_files(site: &Site, release: &Release) -> io::Result<()> {
    let nl6 = site.host.home().join(release.tree());
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_file(site.host.init_scripts().join(script(release))))?;
    for dir in ["bin", "lib", "datakit"] {
        gone(fs::remove_dir_all(nl6.join(dir)))?;
    }
    for file in ["BUILD", "env.sh", "conf/serverConf.xml", "conf/serverConf.xml.diff", "conf/config-default.xml"] {
        gone(fs::remove_file(nl6.join(file)))?;
    }
    for dir in ["conf", "customers", "var", "log", ""] {
        let dir = nl6.join(dir);
        if dir.exists() && fs::remove_dir(&dir).is_err() {
            complain(&format!("dpkg: warning: while removing nlserver, directory '{}' not empty so not removed", dir.display()));
        }
    }
    Ok(())
}

fn install(site: &Site, family: Family, files: &[&str]) -> io::Result<u8> {
    let mut manifests = Vec::new();
    for file in files {
        match package::read(Path::new(file)) {
            Ok(manifest) if manifest.family != family => {
                complain(&format!("error: {file}: package architecture or format does not match system"));
                return Ok(1);
            }
            Ok(manifest) => manifests.push(manifest),
            Err(what) => {
                complain(&format!("error: {file}: {what}"));
                site.record(Event::PackageFailed, file, &what)?;
                return Ok(1);
            }
        }
    }
    for manifest in &manifests {
        let code = install_one(site, manifest)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

fn install_one(site: &Site, manifest: &Manifest) -> io::Result<u8> {
    let subject = manifest.names.join(" ");
    let version = manifest.release.package_version();
    let mut packages = state::packages(&site.host)?;
    if let Some(other) =
        packages.iter().find(|package| package.name.starts_with("nlserver") && !manifest.names.contains(&package.name))
    {
        complain(&format!("error: {subject} conflicts with {}, which is installed", other.name));
        site.record(Event::PackageFailed, &subject, "conflict")?;
        return Ok(1);
    }
    let fails = site.meet("install")?;
    let mut writer = site.writer()?;
    site.judge_packages(&mut writer, &subject, manifest.release == site.layout.target)?;
    for name in &manifest.names {
        say(&format!("Selecting previously unselected package {name}."));
        say(&format!("Unpacking {name} ({version}) ..."));
    }
    let binary = site.layout.dir.join("lib/lab");
    unpack(&site.host, Unpack { release: &manifest.release, binary: &binary })?;
    packages.retain(|package| !manifest.names.contains(&package.name));
    packages.extend(manifest.names.iter().map(|name| Package {
        name: name.clone(),
        release: manifest.release.clone(),
        whole: !fails,
    }));
    state::set_packages(&site.host, &packages)?;
    if fails {
        complain(&format!("dpkg: dependency problems prevent configuration of {subject}:"));
        complain(&format!(" {subject} depends on libxalan-c112; however:"));
        complain("  Package libxalan-c112 is not installed.");
        writer.append(Event::PackageFailed, &subject, "dependency problems")?;
        return Ok(1);
    }
    for name in &manifest.names {
        say(&format!("Setting up {name} ({version}) ..."));
    }
    writer.append(Event::PackageInstalled, &subject, &version)?;
    Ok(0)
}
