//! Accounts of the host: who we are, and becoming somebody else.
//!
//! A static binary has no NSS, so names are looked up in `/etc/passwd` and otherwise asked from `id` and `getent`.

use proto::RunAs;
use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// An account that something runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The name of the account that this process runs as.
pub(crate) fn current_name() -> String {
    let uid = rustix::process::geteuid().as_raw();
    passwd(|fields| fields.get(2).is_some_and(|field| *field == uid.to_string()))
        .map(|entry| entry.name)
        .or_else(|| ask("id", &["-un"]))
        .or_else(|| std::env::var("LOGNAME").ok())
        .unwrap_or_else(|| uid.to_string())
}

/// Whom to become for a step: `None` when it runs as the account that this process has already.
///
/// # Errors
/// The account does not exist, or only root could become it; the text says what to do.
pub(crate) fn resolve(run_as: &RunAs) -> Result<Option<Account>, String> {
    let RunAs::User(name) = run_as else { return Ok(None) };
    let euid = rustix::process::geteuid();
    let account = look_up(name);
    if account.as_ref().is_some_and(|account| account.uid == euid.as_raw()) {
        return Ok(None);
    }
    if !euid.is_root() {
        return Err(format!(
            "expected to run as {name}, but the agent runs as {}, which cannot become {name}; set `become` or the run account in the inventory",
            current_name()
        ));
    }
    match account {
        Some(account) => Ok(Some(account)),
        None => Err(format!("the account {name} does not exist on this host")),
    }
}

fn look_up(name: &str) -> Option<Account> {
    // `id` takes an option for a name as well; no account is called like one.
    if name.is_empty() || name.starts_with('-') {
        return None;
    }
    let mut account = passwd(|fields| fields.first() == Some(&name)).or_else(|| {
        let uid = ask("id", &["-u", name])?.parse().ok()?;
        let gid = ask("id", &["-g", name])?.parse().ok()?;
        let home = ask("getent", &["passwd", name]).and_then(|line| line.split(':').nth(5).map(str::to_owned));
        Some(Account { name: name.to_owned(), uid, gid, groups: Vec::new(), home: home.unwrap_or_else(|| "/".to_owned()) })
    })?;
    let groups: Option<Vec<u32>> = ask("id", &["-G", name]).and_then(|line| line.split(' ').map(|g| g.parse().ok()).collect());
    account.groups = groups.unwrap_or_else(|| vec![account.gid]);
    Some(account)
}

/// The first entry of `/etc/passwd` that fits.
fn passwd(fits: impl Fn(&[&str]) -> bool) -> Option<Account> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        if !fits(&fields) {
            return None;
        }
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        Some(Account { name: (*name).to_owned(), uid, gid, groups: Vec::new(), home: (*home).to_owned() })
    })
}

fn ask(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).env("PATH", crate::program::search_path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = crate::program::spawn(&mut command, &[]).ok()?.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

impl Account {
    /// The arguments after the agent's own name that run a program as this account, in front of the program's.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        vec!["as".to_owned(), self.uid.to_string(), self.gid.to_string(), groups.join(","), self.home.clone(), self.name.clone()]
    }

    /// Makes this process run as the account, for good.
    ///
    /// The kernel keeps ids per thread: this must be called while the process has one thread only.
    pub(crate) fn become_it(&self) -> Result<(), String> {
        let failed = |e: rustix::io::Errno| format!("cannot become {}: {e}", self.name);
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&groups).map_err(failed)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
        // The kernel sets this anew with the ids.
        crate::keep_memory_private();
        Ok(())
    }

    /// What a login would set in the environment.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 3] {
        [("HOME", &self.home), ("USER", &self.name), ("LOGNAME", &self.name)]
    }
}

/// The mode `as UID GID GROUPS HOME NAME PROGRAM...`: becomes the account and turns into the program.
pub(crate) fn run_program_as(args: &[&str]) -> ExitCode {
    let [uid, gid, groups, home, name, program, rest @ ..] = args else {
        crate::complain("usage: caravan-agent as UID GID GROUPS HOME NAME PROGRAM...\n");
        return ExitCode::from(2);
    };
    let groups: Result<Vec<u32>, _> = groups.split(',').map(str::parse).collect();
    let (Ok(uid), Ok(gid), Ok(groups)) = (uid.parse(), gid.parse(), groups) else {
        crate::complain("the ids are not numbers\n");
        return ExitCode::from(2);
    };
    let account = Account { name: (*name).to_owned(), uid, gid, groups, home: (*home).to_owned() };
    let error = match account.become_it() {
        Ok(()) => {
            let error = Command::new(program).args(rest).envs(account.environment()).exec();
            format!("cannot start {program}: {error}")
        }
        Err(error) => error,
    };
    crate::complain(&format!("{error}\n"));
    // What a shell answers for a program that cannot be started.
    ExitCode::from(126)
}
