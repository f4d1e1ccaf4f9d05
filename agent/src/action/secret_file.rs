//! Files with secrets in them, for programs that take no other way. They live in memory only and have no name.

use crate::account::Account;
use proto::Secret;
use proto::secret::MARK;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::FdFlags;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use zeroize::Zeroizing;

/// A file that only processes with our own account can read that were started with it ([`crate::program::spawn`]).
#[derive(Debug)]
pub(crate) struct SecretFile {
    file: File,
}

impl SecretFile {
    /// Writes the content, in which `{secret:NAME}` stands for a secret.
    ///
    /// # Errors
    /// A secret was not sent, or there is no memory to write to. The text has no secret in it.
    pub(crate) fn create(content: &str, secrets: &BTreeMap<String, Secret>) -> Result<Self, String> {
        let content = expand(content, secrets)?;
        let mut file = File::from(unnamed().map_err(|e| format!("no file in memory can be made: {e}"))?);
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|e| format!("the file in memory cannot be protected: {e}"))?;
        file.write_all(content.as_bytes()).map_err(|e| format!("the file in memory cannot be written: {e}"))?;
        Ok(Self { file })
    }

    /// Lets another account read it instead of ours.
    fn give_to(&self, account: &Account) -> Result<(), String> {
        std::os::unix::fs::fchown(&self.file, Some(account.uid), None)
            .map_err(|e| format!("the file in memory cannot be given to {}: {e}", account.name))
    }

    /// Whether the programs that are started now get it.
    ///
    /// # Errors
    /// The descriptor's flags cannot be changed.
    pub(crate) fn inherit(&self, inherit: bool) -> rustix::io::Result<()> {
        rustix::io::fcntl_setfd(&self.file, if inherit { FdFlags::empty() } else { FdFlags::CLOEXEC })
    }

    /// Under which name the program, which inherits the open file, finds it. Each process opens it afresh, from its beginning.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// The files for a program: environment variables by name, each with the content of its file. `account` is whom the program runs as.
///
/// # Errors
/// As [`SecretFile::create`]; the text names the variable.
pub(crate) fn provide(
    wanted: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, Secret>,
    account: Option<&Account>,
) -> Result<Vec<(String, SecretFile)>, String> {
    let cannot = |variable: &str, why: String| format!("cannot provide {variable}: {why}");
    let file = |(variable, content): (&String, &String)| {
        let file = SecretFile::create(content, secrets).map_err(|why| cannot(variable, why))?;
        if let Some(account) = account {
            file.give_to(account).map_err(|why| cannot(variable, why))?;
        }
        Ok((variable.clone(), file))
    };
    wanted.iter().map(file).collect()
}

/// Closed by exec: the bridge answers several questions at once, and what another thread starts must not get it.
fn unnamed() -> rustix::io::Result<OwnedFd> {
    match rustix::fs::memfd_create("secret", MemfdFlags::CLOEXEC) {
        // Before Linux 3.17: a file on the memory file system, without its name.
        Err(rustix::io::Errno::NOSYS) => {
            let name = format!("/dev/shm/.caravan-{}", std::process::id());
            let file =
                rustix::fs::open(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::unlink(&name)?;
            Ok(file)
        }
        made => made,
    }
}

/// Puts secrets into a text.
fn expand(content: &str, secrets: &BTreeMap<String, Secret>) -> Result<Zeroizing<String>, String> {
    let mut out = Zeroizing::new(String::new());
    let mut rest = content;
    while let Some((before, after)) = rest.split_once(MARK) {
        out.push_str(before);
        let (name, behind) = after.split_once('}').ok_or_else(|| format!("`{MARK}` has no end"))?;
        let secret = secrets.get(name).ok_or_else(|| format!("the secret `{name}` was not sent"))?;
        out.push_str(secret.expose());
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::spawn;
    use std::process::{Command, Stdio};

    /// What a program reads from these files that is started with those.
    fn read(path: &str, with: &[(String, SecretFile)]) -> String {
        let mut command = Command::new("cat");
        command.arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = spawn(&mut command, with).unwrap().wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn only_the_program_that_is_started_with_it_gets_it_whoever_starts_others_meanwhile() {
        let wanted = BTreeMap::from([("FILE".to_owned(), "{secret:a}!".to_owned())]);
        let secrets = BTreeMap::from([("a".to_owned(), Secret::new("canary"))]);
        let files = provide(&wanted, &secrets, None).unwrap();
        let path = files[0].1.path();
        std::thread::scope(|scope| {
            let others = scope.spawn(|| (0..100).map(|_| read(&path, &[])).collect::<String>());
            while !others.is_finished() {
                assert_eq!(read(&path, &files), "canary!");
            }
            assert_eq!(others.join().unwrap(), "");
        });
    }
}
