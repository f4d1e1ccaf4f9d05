//! Files with secrets in them, for programs that take no other way. They live in memory only and have no name.

use crate::account::Account;
use proto::Secret;
use proto::secret::MARK;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use zeroize::Zeroizing;

/// A file that only processes with our own account, started while it is open, can read.
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

/// Not closed by exec, on purpose.
fn unnamed() -> rustix::io::Result<OwnedFd> {
    match rustix::fs::memfd_create("secret", MemfdFlags::empty()) {
        // Before Linux 3.17: a file on the memory file system, without its name.
        Err(rustix::io::Errno::NOSYS) => {
            let name = format!("/dev/shm/.caravan-{}", std::process::id());
            let file = rustix::fs::open(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
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
