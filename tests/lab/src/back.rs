//! Whether a fleet is again what it was: the hosts before a migration and after the way back, compared file by file.

use crate::layout::{Host, Layout, Platform};
use crate::package::sha256;
use crate::processes;
use crate::spec::Role;
use crate::state;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// Digests of files by device and inode: the programs of all hosts are one and the same large file.
type Known = HashMap<(u64, u64), String>;

/// What is on the hosts of a lab and in its databases, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    hosts: BTreeMap<String, Found>,
    /// For each database: the build of its schema, and how far a postupgrade came.
    databases: BTreeMap<String, (u32, u32)>,
}

/// What is on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// Everything in `nl6` (`nl5`), by its path: kind, mode, owner, time and content.
    files: BTreeMap<String, String>,
    /// The files outside of it that name it, by their paths: kind, mode, owner and content.
    around: BTreeMap<String, String>,
    /// What lies beside it.
    beside: BTreeSet<String>,
    /// Service scripts.
    scripts: BTreeSet<String>,
    packages: BTreeSet<String>,
    /// What runs, with its build.
    running: BTreeSet<String>,
    /// What `/r/test` answers with.
    redirect: Option<String>,
}

impl Snapshot {
    pub(crate) fn take(layout: &Layout) -> io::Result<Self> {
        let mut known = Known::new();
        let mut hosts = BTreeMap::new();
        for host in layout.hosts() {
            hosts.insert(host.name.clone(), Found::on(host, &mut known)?);
        }
        let instances = layout.platforms.iter().flat_map(|platform: &Platform| &platform.instances);
        let of = |name: &String| {
            let database = state::database(layout, name)?;
            Ok((name.clone(), (database.build, database.completed)))
        };
        Ok(Self { hosts, databases: instances.map(|instance| of(&instance.name)).collect::<io::Result<_>>()? })
    }

    /// The digest of a host's configuration tree: of every name, mode, owner, time and byte in `nl6`.
    pub fn digest(&self, host: &str) -> Option<String> {
        let files = &self.hosts.get(host)?.files;
        Some(sha256(files.iter().map(|(path, what)| format!("{path}\0{what}\n")).collect::<String>().as_bytes()))
    }

    /// What is not as it was, a line each; nothing when the fleet is again what it was. The installation of v7 that a way back keeps, and
    /// archives, may lie beside `nl6`.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, before) in &self.hosts {
            match after.hosts.get(name) {
                Some(after) => before.compare(name, after, &mut lines),
                None => lines.push(format!("{name} is gone")),
            }
        }
        for (name, (build, completed)) in &self.databases {
            if after.databases.get(name) != Some(&(*build, *completed)) {
                lines.push(format!("the database of {name} was at build {build}, and is {:?}", after.databases.get(name)));
            }
        }
        lines
    }
}

impl Found {
    fn on(host: &Host, known: &mut Known) -> io::Result<Self> {
        let (mut files, mut around) = (BTreeMap::new(), BTreeMap::new());
        walk(&host.nl6(), "", known, &mut files)?;
        walk(&host.home().join(".bashrc"), ".bashrc", known, &mut around)?;
        // What a realistic host has of its own: the rest is the machine's, which may change meanwhile.
        let own = host.dir.join(crate::real::OWN_FILES).join("etc");
        walk(&if own.exists() { own } else { host.dir.join("etc") }, "etc", known, &mut around)?;
        // They are written anew when they are changed: their times are not what they were, and nobody relies on them.
        for what in around.values_mut() {
            what.truncate(what.find(" of ").unwrap_or(what.len()));
        }
        let redirect = host.is(Role::Tracking).then(|| redirect_build(host).ok()).flatten();
        let packages = state::packages(host)?.into_iter();
        let running = processes::running(host)?.into_iter();
        Ok(Self {
            files,
            around,
            beside: names(&host.home())?.into_iter().filter(|name| name != host.source.tree() && !is_kept(name)).collect(),
            scripts: names(&host.init_scripts())?,
            packages: packages.map(|p| format!("{} {} whole: {}", p.name, p.release.package_version(), p.whole)).collect(),
            running: running.map(|entry| format!("{} of build {}", entry.name, entry.build)).collect(),
            redirect,
        })
    }

    fn compare(&self, host: &str, after: &Self, lines: &mut Vec<String>) {
        for (below, was, is) in [("nl6/", &self.files, &after.files), ("", &self.around, &after.around)] {
            let paths: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for path in paths.into_iter().filter(|path| was.get(*path) != is.get(*path)) {
                lines.push(format!("{host} {below}{path} was {}, and is {}", shown(was.get(path)), shown(is.get(path))));
            }
        }
        let mut sets = |what: &str, was: &BTreeSet<String>, is: &BTreeSet<String>| {
            lines.extend(was.difference(is).map(|name| format!("{host} {what}: {name} is missing")));
            lines.extend(is.difference(was).map(|name| format!("{host} {what}: {name} was not there")));
        };
        sets("beside nl6", &self.beside, &after.beside);
        sets("scripts", &self.scripts, &after.scripts);
        sets("packages", &self.packages, &after.packages);
        sets("running", &self.running, &after.running);
        if self.redirect != after.redirect {
            lines.push(format!(
                "{host} /r/test answered {}, and answers {}",
                shown(self.redirect.as_ref()),
                shown(after.redirect.as_ref())
            ));
        }
    }
}

fn shown(what: Option<&String>) -> &str {
    what.map_or("nothing", String::as_str)
}

/// Whether a way back may leave this beside `nl6`.
fn is_kept(name: &str) -> bool {
    let archive = name.starts_with("nl6.back-") || name.starts_with("nl5.back-");
    name.starts_with("nl6.v7-") || (archive && name.contains(".tar.gz"))
}

fn names(dir: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn walk(path: &Path, name: &str, known: &mut Known, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    let kind = match () {
        () if meta.is_dir() => "directory".to_owned(),
        () if meta.is_symlink() => format!("link to {}", fs::read_link(path)?.display()),
        // So an overlay writes down that a file below is gone.
        () if meta.file_type().is_char_device() => "removed".to_owned(),
        // What this account cannot open is told by its size and time.
        () => match digest(path, &meta, known) {
            Ok(digest) => format!("file {digest}"),
            Err(error) => format!("file of {} bytes ({})", meta.len(), error.kind()),
        },
    };
    // The programs are links to one file of the lab: their time is that file's, and not the host's own.
    let time =
        if meta.nlink() > 1 && meta.is_file() { String::new() } else { format!(" of {}.{}", meta.mtime(), meta.mtime_nsec()) };
    files.insert(name.to_owned(), format!("{kind} mode {:o} owner {}:{}{time}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
    if meta.is_dir() {
        for entry in names(path)? {
            let below = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
            walk(&path.join(&entry), &below, known, files)?;
        }
    }
    Ok(())
}

fn digest(path: &Path, meta: &fs::Metadata, known: &mut Known) -> io::Result<String> {
    let key = (meta.dev(), meta.ino());
    if let Some(digest) = known.get(&key) {
        return Ok(digest.clone());
    }
    let digest = sha256(&fs::read(path)?);
    if meta.nlink() > 1 {
        known.insert(key, digest.clone());
    }
    Ok(digest)
}

/// The build that a host's web server answers `/r/test` with.
///
/// # Errors
/// It does not answer, or says no build.
pub fn redirect_build(host: &Host) -> io::Result<String> {
    let address = (host.address, host.web_port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    write!(stream, "GET /r/test HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host.address)?;
    let mut answer = String::new();
    stream.take(16 * 1024).read_to_string(&mut answer)?;
    let build = answer.split("build='").nth(1).and_then(|rest| rest.split('\'').next());
    build.map(str::to_owned).ok_or_else(|| io::Error::other("no build in the answer"))
}
