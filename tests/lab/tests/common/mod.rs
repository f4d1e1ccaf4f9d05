//! What the lab's tests share: a lab in a directory of its own, and hands that do by themselves what Caravan would do.

use lab::{Host, Instance, Lab, Platform, Role, Rule, Spec, Topology, migration_rank};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A lab that goes away with its directory.
pub(crate) struct Bench {
    pub lab: Lab,
    // After the lab: first everything ends, then the directory is removed.
    dir: tempfile::TempDir,
}

/// The `lab` program of this build.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lab");

impl Bench {
    pub(crate) fn new(spec: Spec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start_with(spec, &dir.path().join("lab"), Path::new(PROGRAM)).unwrap();
        Self { lab, dir }
    }

    /// A standard platform `demo`: demo-mkt1, demo-mta1, demo-trk1, demo-trk2.
    pub(crate) fn standard() -> Self {
        Self::new(standard())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn host(&self, name: &str) -> &Host {
        self.lab.host(name).host
    }

    pub(crate) fn platform(&self) -> &Platform {
        &self.lab.layout().platforms[0]
    }

    /// A program of a host, with the environment that a login has.
    pub(crate) fn command(&self, host: &str, program: &str) -> Command {
        let host = self.host(host);
        let path = match program {
            "nlserver" => host.nl6().join("bin/nlserver"),
            "nlserver5" | "nlserver6" | "apache2" | "httpd" => host.init_scripts().join(program),
            other => host.dir.join("bin").join(other),
        };
        let mut command = Command::new(path);
        command.env_clear().env(lab::HOST_VARIABLE, &host.dir).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, host: &str, program: &str, arguments: &[&str]) -> Output {
        self.command(host, program).args(arguments).output().unwrap()
    }

    /// As [`Bench::run`], and it has to succeed. Gives standard output.
    pub(crate) fn ok(&self, host: &str, program: &str, arguments: &[&str]) -> String {
        let output = self.run(host, program, arguments);
        assert!(output.status.success(), "{host} {program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The rules that were broken so far.
    pub(crate) fn broken(&self) -> Vec<Rule> {
        self.lab.violations().unwrap().into_iter().map(|violation| violation.rule).collect()
    }

    pub(crate) fn explain(&self) -> String {
        self.lab.violations().unwrap().iter().map(|violation| format!("{violation}\n")).collect()
    }

    pub(crate) fn package(&self, name: &str) -> String {
        let dir = self.lab.dir().join("packages");
        let found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut found = found.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}-")));
        found.next().unwrap().to_str().unwrap().to_owned()
    }

    pub(crate) fn new_package(&self) -> String {
        self.package(&format!("nlserver6-v7-{}", self.lab.layout().target.build))
    }

    /// The packages that a host had at first.
    fn old_names(&self, host: &str) -> &'static [&'static str] {
        let source = &self.host(host).source;
        match () {
            () if source.is_v5() => &["nlserver5", "nlthirdparty5"],
            () if source.is_v7() => &["nlserver6-v7"],
            () => &["nlserver6", "nlthirdparty6"],
        }
    }

    pub(crate) fn stop(&self, host: &str) {
        if self.host(host).is(Role::Tracking) {
            self.ok(host, self.host(host).family().web_service(), &["stop"]);
        }
        self.ok(host, self.script(host), &["stop"]);
    }

    /// The service script of what is installed on a host.
    pub(crate) fn script(&self, host: &str) -> &'static str {
        if self.host(host).nl6().ends_with("nl5") { "nlserver5" } else { "nlserver6" }
    }

    pub(crate) fn stop_all(&self) {
        for host in &self.platform().hosts {
            self.stop(&host.name);
        }
    }

    /// Dumps an instance's database on its application server.
    pub(crate) fn dump(&self, instance: &Instance, password: &str) -> (PathBuf, Output) {
        let host = self.host(&instance.app);
        let passwords = host.dir.join("pgpass");
        let server = format!("db.{}.lab", self.platform().name);
        fs::write(&passwords, format!("{server}:*:{}:neolane:{password}\n", instance.name)).unwrap();
        fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let file = host.dir.join(format!("backup/{}.dump", instance.name));
        let mut command = self.command(&instance.app, "pg_dump");
        command.args(["--format=custom", &format!("--file={}", file.display()), &format!("--host={server}")]);
        let output = command.args(["--username=neolane", "--no-password", &instance.name]).env("PGPASSFILE", &passwords).output();
        (file, output.unwrap())
    }

    pub(crate) fn back_up(&self) {
        for instance in &self.platform().instances {
            let (file, output) = self.dump(instance, &self.lab.secrets().database_password);
            assert!(output.status.success(), "{output:?}");
            self.ok(&instance.app, "pg_restore", &["--list", file.to_str().unwrap()]);
        }
        for host in &self.platform().hosts {
            fs::rename(host.nl6(), host.backup()).unwrap();
        }
    }

    /// Old packages out, new ones in. A build upgrade lays the new ones over the old.
    pub(crate) fn replace_packages(&self, host: &str) {
        let (remove, install) = match self.host(host).family() {
            lab::Family::Debian => (["dpkg", "--purge"], ["dpkg", "-i"]),
            lab::Family::Rhel => (["rpm", "-ev"], ["rpm", "-Uvh"]),
        };
        if !self.host(host).source.is_v7() {
            self.ok(host, remove[0], &[&[remove[1]], self.old_names(host)].concat());
        }
        self.ok(host, install[0], &[install[1], &self.new_package()]);
    }

    pub(crate) fn restore(&self, host: &str) {
        let host = self.host(host);
        let v5 = host.source.is_v5();
        copy(&host.backup(), &host.nl6(), &|path| {
            let name = path.to_str().unwrap();
            let conf = name.starts_with("conf/config") && !(v5 && name.ends_with("config-default.xml"));
            name == "customer.sh" || name.starts_with("customers") || name.starts_with("var") || conf
        });
        let stored = fs::read_to_string(host.backup().join("conf/serverConf.xml")).unwrap();
        let stored = stored.split("internalPassword=\"").nth(1).unwrap().split('"').next().unwrap();
        let file = host.nl6().join("conf/serverConf.xml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("internalPassword=\"\"", &format!("internalPassword=\"{stored}\""))).unwrap();
    }

    /// A host's packages and configuration.
    pub(crate) fn migrate_host(&self, host: &str) {
        let source = self.host(host).source.clone();
        if source.is_v7() {
            copy(&self.host(host).backup(), &self.host(host).home().join("nl6"), &|_| true);
        }
        self.replace_packages(host);
        if source.is_v5() {
            self.ok(host, "nlserver6", &["start"]);
            self.ok(host, "nlserver6", &["stop"]);
            self.lead(host, "nl5/", "nl6/");
        }
        if !source.is_v7() {
            self.restore(host);
        }
        if source.is_v5() && self.host(host).is(Role::Tracking) {
            self.in_conf(host, "config-default.xml", "trackinglogd autoStart=\"false\"", "trackinglogd autoStart=\"true\"");
        }
        self.set_modules(host, "autoStart", "_autoStart");
        self.ok(host, "nlserver", &["config", "-reload"]);
    }

    fn in_conf(&self, host: &str, file: &str, from: &str, to: &str) {
        let file = self.host(host).nl6().join("conf").join(file);
        fs::write(&file, fs::read_to_string(&file).unwrap().replace(from, to)).unwrap();
    }

    /// Sets the modules of a host's instances aside, or back, where its version asks for it.
    pub(crate) fn set_modules(&self, host: &str, from: &str, to: &str) {
        if ["5.11", "6.02"].contains(&self.host(host).source.version.as_str()) {
            for instance in &self.host(host).instances {
                self.in_conf(host, &format!("config-{instance}.xml"), &format!(" {from}=\""), &format!(" {to}=\""));
            }
        }
    }

    /// Leads the shell and the web server of a host from one installation to the other.
    pub(crate) fn lead(&self, host: &str, from: &str, to: &str) {
        let host = self.host(host);
        let etc = host.web_config();
        let files = [host.home().join(".bashrc"), etc.join("envvars"), etc.join("mods-available/nlsrv.load")];
        let more = [etc.join("mods-available/alias.conf"), etc.join("conf.d/nlsrv.conf"), etc.join("../sysconfig/httpd")];
        for file in files.into_iter().chain(more).filter(|file| file.exists()) {
            fs::write(&file, fs::read_to_string(&file).unwrap().replace(from, to)).unwrap();
        }
        let link = etc.join("mods-available/nlsrv.conf");
        if let Ok(target) = fs::read_link(&link) {
            fs::remove_file(&link).unwrap();
            std::os::unix::fs::symlink(target.to_str().unwrap().replace(from, to), link).unwrap();
        }
    }

    pub(crate) fn postupgrade(&self, instance: &Instance) -> String {
        let mut arguments = vec!["config".to_owned(), "-postupgrade".to_owned(), format!("-instance:{}", instance.name)];
        if self.host(&instance.app).source.is_v5() {
            arguments.push("-timezone:Europe/Berlin".to_owned());
        }
        self.ok(&instance.app, "nlserver", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Restores an instance's database from its dump.
    pub(crate) fn restore_database(&self, instance: &Instance) -> Output {
        let host = self.host(&instance.app);
        let file = host.dir.join(format!("backup/{}.dump", instance.name));
        let mut command = self.command(&instance.app, "pg_restore");
        command.args(["--clean", "--if-exists", "--single-transaction", "--username=neolane", "--no-password"]);
        command.args([format!("--host=db.{}.lab", self.platform().name), format!("--dbname={}", instance.name)]);
        command.arg(file).env("PGPASSFILE", host.dir.join("pgpass")).output().unwrap()
    }

    /// Puts the old version of a host back: v7 out, old packages in, the old tree in its place.
    pub(crate) fn back(&self, name: &str) {
        let host = self.host(name);
        let old = self.package(&format!("{}-{}", self.old_names(name)[0], host.source.build));
        let rhel = host.family() == lab::Family::Rhel;
        if host.home().join("nl6").exists() {
            if rhel {
                self.ok(name, "rpm", &["-ev", "nlserver6-v7"]);
            } else {
                self.ok(name, "dpkg", &["--purge", "nlserver6-v7"]);
            }
            fs::rename(host.nl6(), host.home().join("nl6.v7-run")).unwrap();
        }
        if rhel {
            self.ok(name, "rpm", &["-Uvh", "--replacepkgs", &old]);
        } else {
            self.ok(name, "dpkg", &["-i", &old]);
        }
        fs::remove_dir_all(host.old_tree()).unwrap();
        fs::rename(host.backup(), host.old_tree()).unwrap();
        if host.source.is_v5() {
            self.lead(name, "nl6/", "nl5/");
        }
        self.ok(name, "nlserver", &["pdump"]);
    }

    /// Starts what ran before the migration.
    pub(crate) fn start_all(&self) {
        for host in &self.platform().hosts {
            if host.is(Role::Tracking) {
                self.ok(&host.name, host.family().web_service(), &["start"]);
            }
            self.ok(&host.name, self.script(&host.name), &["start"]);
        }
    }

    /// The whole `migrate` phase in the mandated order, as these hands know it.
    pub(crate) fn migrate_in_order(&self) {
        let platform = self.platform();
        for rank in 0..4 {
            let mine = |host: &&Host| host.roles.iter().map(|role| migration_rank(platform, *role)).min() == Some(rank);
            for host in platform.hosts.iter().filter(mine) {
                self.migrate_host(&host.name);
            }
            for instance in platform.instances.iter().filter(|instance| migration_rank(platform, instance.of) == rank) {
                let output = self.postupgrade(instance);
                assert!(
                    output.contains(&format!("{} instance, 2 warning(s) and 0 error(s) during the update.", instance.name)),
                    "{output}"
                );
            }
        }
    }

    /// Restarts in the documented restart order.
    pub(crate) fn restart_in_order(&self) {
        let hosts = &self.platform().hosts;
        let upgrade = self.platform().source.is_v7();
        for host in hosts {
            self.set_modules(&host.name, "_autoStart", "autoStart");
        }
        for host in hosts.iter().filter(|host| upgrade && host.is(Role::Marketing)) {
            self.ok(&host.name, "nlserver", &["start", "web@default"]);
        }
        for host in self.platform().hosts.iter().filter(|host| host.is(Role::Tracking)) {
            self.ok(&host.name, "nlserver", &["start", "trackinglogd@default"]);
            self.ok(&host.name, host.family().web_service(), &["start"]);
        }
        let (last, first): (Vec<_>, Vec<_>) = self.platform().hosts.iter().partition(|host| host.is(Role::Marketing));
        let order = if upgrade { [last, first].concat() } else { [first, last].concat() };
        for host in order {
            self.ok(&host.name, "nlserver6", &["start"]);
        }
    }
}

/// The spec of [`Bench::standard`].
pub(crate) fn standard() -> Spec {
    Spec {
        platforms: vec![lab::PlatformSpec {
            os: Some("debian-12".into()),
            ..Spec::one("demo", Topology::Standard, &[(Role::Marketing, 1), (Role::Mta, 1), (Role::Tracking, 2)])
                .platforms
                .remove(0)
        }],
        ..Spec::every_topology()
    }
}

/// Copies what `wanted` selects by its path below `from`.
fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) {
    fn walk(base: &Path, at: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(base).unwrap();
            if path.is_dir() {
                walk(base, &path, to, wanted);
            } else if wanted(relative) {
                fs::create_dir_all(to.join(relative).parent().unwrap()).unwrap();
                fs::copy(&path, to.join(relative)).unwrap();
            }
        }
    }
    walk(from, from, to, wanted);
}

/// `GET` of a path of a host's web server: the whole answer.
pub(crate) fn get(host: &Host, path: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect((host.address, host.web_port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host.address)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
