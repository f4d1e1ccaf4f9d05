//! Packages of the RHEL family, by the real `rpm` and with a database of its own.

use crate::common::{Bridge, Host, argv, step, with_probe};
use proto::step::PackageManager;
use proto::{Action, Outcome, Probe};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const RPM: PackageManager = PackageManager::Rpm;

/// A program that keeps its database in the host's directory.
fn at_home(host: &Host, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("HOME", host.path("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether `rpm` is here and leaves the machine's own database alone, as Debian's does.
fn can_run(host: &Host) -> bool {
    let asked = at_home(host, "rpm").args(["--eval", "%_dbpath"]).stdout(Stdio::piped()).output();
    let own = asked.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).starts_with(&host.text("")));
    own && at_home(host, "rpmbuild").arg("--version").status().is_ok_and(|status| status.success())
}

/// A package without files, that provides the shell which its scripts want. `scripts` stand in it as they are.
fn package(host: &Host, name: &str, version: u32, scripts: &str) -> PathBuf {
    let spec = host.path(&format!("{name}.spec"));
    let text = "Summary: nothing\nProvides: /bin/sh\nRelease: 0\nLicense: none\nAutoReqProv: no\n%description\nNothing.\n";
    std::fs::write(&spec, format!("Name: {name}\nVersion: {version}\n{text}{scripts}%files\n")).unwrap();
    let built = host.path(&format!("{name}-{version}.rpm"));
    let mut build = at_home(host, "rpmbuild");
    build.args(["-bb", "--quiet", "--define", &format!("_topdir {}", host.text("rpm")), "--define"]);
    build.arg(format!("_rpmdir {}", host.text(""))).arg("--define").arg(format!("_build_name_fmt {name}-{version}.rpm"));
    assert!(build.arg(&spec).status().unwrap().success(), "{name}-{version} cannot be built");
    built
}

#[test]
fn what_an_rpm_that_was_cut_off_leaves_is_told_and_mended() {
    let host = Host::new();
    if !can_run(&host) {
        eprintln!("skipped: no rpm with a database of its own on this machine (Debian's package `rpm`)");
        return;
    }
    let [server, third, newer] =
        [("nlserver", 1), ("nlthird", 1), ("nlserver", 2)].map(|(name, version)| package(&host, name, version, ""));
    let by_hand = |arguments: &[&str]| assert!(at_home(&host, "rpm").args(arguments).status().unwrap().success(), "{arguments:?}");
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let mut bridge = Bridge::by(at_home(&host, crate::common::AGENT).arg("bridge")).greet();
    bridge.send_attach(&host, 0, std::collections::BTreeMap::new());
    bridge.message();
    let names = argv(&["nlserver", "nlthird"]);
    let installed =
        |version: &str| Probe::PackagesInstalled { manager: RPM, names: argv(&["nlserver"]), version: version.to_owned() };
    let install = |id: &str, files: &[&PathBuf]| {
        step(
            &format!("a/a/a/a/{id}"),
            Action::InstallPackages { manager: RPM, files: files.iter().map(|file| text(file)).collect() },
        )
    };
    let remove = |id: &str| {
        let gone = Probe::PackagesAbsent { manager: RPM, names: names.clone() };
        with_probe(step(&format!("a/a/a/a/{id}"), Action::RemovePackages { manager: RPM, names: names.clone() }), gone)
    };
    let verify = |id: &str, probe| with_probe(step(&format!("a/a/a/a/{id}"), Action::Verify), probe);

    bridge.perform(with_probe(install("1", &[&server, &third]), installed("1"))).expect(Outcome::Ok);
    // One of two is gone already: rpm itself would remove neither.
    by_hand(&["-e", "nlserver"]);
    bridge.perform(remove("2")).expect(Outcome::Ok);
    // Two versions at once: neither counts as installed, and installing again leaves the new one alone.
    let twice = |file: &PathBuf| by_hand(&["-i", "--force", &text(file)]);
    twice(&server);
    twice(&newer);
    bridge.perform(verify("3", installed("2"))).expect(Outcome::Failed).says("seen 1-0 and 2-0");
    bridge.perform(with_probe(install("4", &[&newer]), installed("2"))).expect(Outcome::Ok);
    twice(&server);
    bridge.perform(remove("5")).expect(Outcome::Ok);
    // What `rpm` itself takes for success.
    let broken = package(&host, "nlserver", 3, "%post\nexit 1\n");
    bridge
        .perform(install("6", &[&broken]))
        .expect(Outcome::Failed)
        .says("a script of the package failed: warning: %post(nlserver");
    bridge.finish();
}
