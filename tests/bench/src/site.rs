//! The directory of a bench: keys, the inventory, what is pushed, and the hosts' own directories.

use crate::Workload;
use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How much w3 pushes, in bytes.
const SMALL: usize = 1536 * 1024;
/// How much w4 pushes, in bytes: about what a package of the vendor has.
const LARGE: usize = 64 * 1024 * 1024;
/// The last number of an address in a network of 256: 0 and 255 are not hosts.
const PER_NETWORK: usize = 254;

/// Where everything of one bench is. It goes when this is dropped.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    /// The account that is logged in to.
    pub(crate) account: String,
    /// It is the one that runs the bench.
    pub(crate) account_is_own: bool,
    pub(crate) port: u16,
    pub(crate) hosts: usize,
}

/// The files of a site, for processes that are told its directory.
#[derive(Debug, Clone)]
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    pub(crate) fn inventory(&self) -> PathBuf {
        self.0.join("fleet.yaml")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.0.join("user")
    }

    pub(crate) fn host_key(&self) -> PathBuf {
        self.0.join("host")
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.0.join("known_hosts")
    }

    /// What a workload pushes.
    pub(crate) fn payload(&self, workload: Workload) -> PathBuf {
        self.0.join(format!("payload-{workload}"))
    }

    /// Its SHA-256 in lower-case hex: nobody whose memory is measured has to read all of it for that.
    pub(crate) fn payload_digest(&self, workload: Workload) -> PathBuf {
        self.0.join(format!("payload-{workload}.sha256"))
    }

    /// Makes what a workload pushes: random bytes, which cannot be compressed.
    pub(crate) fn make_payload(&self, workload: Workload) -> anyhow::Result<()> {
        let size = match workload {
            Workload::W1 | Workload::W2 => return Ok(()),
            Workload::W3 => SMALL,
            Workload::W4 => LARGE,
        };
        let mut payload = vec![0; size];
        getrandom::fill(&mut payload).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        fs::write(self.payload_digest(workload), digest(&payload)).context("the payload's digest")?;
        fs::write(self.payload(workload), payload).context("the payload")
    }

    /// Where the controller keeps its runs.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The directory of one host.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.0.join("hosts").join(name)
    }

    /// What was pushed to a host.
    pub(crate) fn pushed(&self, name: &str) -> PathBuf {
        self.host(name).join("pushed")
    }
}

/// The name of a host, by its number from 0.
pub(crate) fn name(number: usize) -> String {
    format!("h{:04}", number + 1)
}

/// Its address.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, (number / PER_NETWORK) as u8, (number % PER_NETWORK) as u8 + 1)
}

impl Site {
    /// Makes the directory of a fleet.
    pub(crate) fn new(hosts: usize, account: Option<&str>) -> anyhow::Result<Self> {
        let own = text_of("id", &["-un"])?;
        if account.is_some_and(|account| account != own) && !rustix::process::geteuid().is_root() {
            bail!("only root can let in another account than its own ({own})");
        }
        let dir = tempfile::Builder::new().prefix("caravan-bench-").tempdir().context("a directory")?;
        crate::cpu::remove_on_signals(dir.path().to_owned());
        // The account has to reach what is below; nobody can list it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        let account = account.unwrap_or(&own).to_owned();
        let site = Self { dir, account_is_own: account == own, account, port: free_port()?, hosts };
        site.furnish()?;
        Ok(site)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn files(&self) -> Files {
        Files(self.dir.path().to_owned())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.hosts).map(name)
    }

    fn furnish(&self) -> anyhow::Result<()> {
        let files = self.files();
        key_pair(&files.identity())?;
        key_pair(&files.host_key())?;
        let public = files.identity().with_extension("pub");
        fs::copy(&public, self.path().join("authorized_keys")).context("authorized_keys")?;
        fs::set_permissions(self.path().join("authorized_keys"), fs::Permissions::from_mode(0o644))?;
        for dir in ["home", "cache"] {
            fs::create_dir(self.path().join(dir))?;
        }
        let mut theirs = vec![self.path().join("cache")];
        for name in self.names() {
            let state = files.host(&name).join("state");
            fs::create_dir_all(&state)?;
            theirs.extend([files.host(&name), state]);
        }
        let (user, group) = (text_of("id", &["-u", &self.account])?.parse()?, text_of("id", &["-g", &self.account])?.parse()?);
        for dir in theirs {
            std::os::unix::fs::chown(&dir, Some(user), Some(group)).with_context(|| format!("chown {}", dir.display()))?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        }
        fs::write(files.inventory(), self.inventory()).context("the inventory")?;
        let key = fs::read_to_string(files.host_key().with_extension("pub")).context("the host key")?;
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        let known: String =
            (0..self.hosts).map(|number| format!("[{}]:{} {}\n", address(number), self.port, key.join(" "))).collect();
        fs::write(files.known_hosts(), known).context("known_hosts")
    }

    fn inventory(&self) -> String {
        let (dir, hosts) = (self.path().display(), self.hosts);
        let mut text = format!(
            "version: 1\n\
             defaults:\n  \
               ssh: {{ user: {}, port: {}, identity: {dir}/user, known_hosts: {dir}/known_hosts, connect_timeout: 120 }}\n  \
               become: {{ method: none }}\n  \
               campaign: {{ home: \"{dir}/hosts/{{host}}/campaign\", user: {} }}\n  \
               host_state: \"{dir}/hosts/{{host}}/state\"\n  \
               source: {{ version: \"6.1\" }}\n  \
               target: {{ version: \"7.4.1\", build: 9383, packages: [] }}\n\
             parallel: {{ platforms: 1, hosts: {hosts} }}\n\
             platforms:\n  \
               - name: bench\n    topology: standard\n    instances: [bench]\n    hosts:\n",
            self.account, self.port, self.account
        );
        for number in 0..hosts {
            let roles = if number == 0 { "marketing, mta" } else { "tracking" };
            let _ = writeln!(text, "      - {{ name: {}, address: {}, roles: [{roles}] }}", name(number), address(number));
        }
        text
    }

    /// Takes away what a measurement left on the hosts, except the agents.
    pub(crate) fn sweep(&self) -> anyhow::Result<()> {
        let files = self.files();
        let gone = |result: std::io::Result<()>| match result {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(files.state()))?;
        for name in self.names() {
            gone(fs::remove_file(files.pushed(&name)))?;
            gone(fs::remove_dir_all(files.host(&name).join("state/runs")))?;
        }
        Ok(())
    }
}

/// SHA-256 in lower-case hex.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn key_pair(path: &Path) -> anyhow::Result<()> {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(path).status();
    match made.context("ssh-keygen cannot be started")? {
        status if status.success() => Ok(()),
        status => bail!("ssh-keygen failed: {status}"),
    }
}

fn text_of(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?.local_addr()?.port())
}
