//! What a host is.

use proto::inspect::System;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads it. What cannot be found out stays empty.
pub(crate) fn read() -> System {
    let uname = rustix::system::uname();
    let (os, os_like) = operating_system();
    System {
        os,
        os_like,
        kernel: uname.release().to_string_lossy().into_owned(),
        arch: uname.machine().to_string_lossy().into_owned(),
        systemd: Path::new("/run/systemd/system").exists(),
        clock_ms: now_ms(),
        machine_id: line("/etc/machine-id"),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        euid: rustix::process::geteuid().as_raw(),
    }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Which boot of the host this is.
pub(crate) fn boot_id() -> String {
    line("/proc/sys/kernel/random/boot_id")
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.lines().next().unwrap_or_default().trim().to_owned()).unwrap_or_default()
}

/// `debian-11`, and the families it belongs to.
fn operating_system() -> (String, String) {
    match std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release")) {
        Ok(text) => from_os_release(&text),
        // RHEL 6 and its kin came before os-release.
        Err(_) => from_redhat_release(&std::fs::read_to_string("/etc/redhat-release").unwrap_or_default()),
    }
}

fn from_os_release(text: &str) -> (String, String) {
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        found.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
    };
    let (id, version, like) = (value("ID"), value("VERSION_ID"), value("ID_LIKE"));
    let major = version.split('.').next().unwrap_or_default();
    let os = if major.is_empty() { id.clone() } else { format!("{id}-{major}") };
    (os, format!("{like} {id}").trim().to_owned())
}

fn from_redhat_release(text: &str) -> (String, String) {
    let lower = text.to_lowercase();
    let id = if lower.starts_with("centos") {
        "centos"
    } else if lower.starts_with("red hat") {
        "rhel"
    } else {
        return (String::new(), String::new());
    };
    let version = lower.split("release ").nth(1).unwrap_or_default();
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    let os = if major.is_empty() { id.to_owned() } else { format!("{id}-{major}") };
    (os, if id == "rhel" { "rhel".to_owned() } else { format!("rhel {id}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operating_systems_are_named_as_inventories_name_them() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 11 (bullseye)\"\nVERSION_ID=\"11\"\nID=debian\n";
        assert_eq!(from_os_release(debian), ("debian-11".to_owned(), "debian".to_owned()));
        let rocky = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"8.9\"\n";
        assert_eq!(from_os_release(rocky), ("rocky-8".to_owned(), "rhel centos fedora rocky".to_owned()));
        let old = "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n";
        assert_eq!(from_redhat_release(old), ("rhel-6".to_owned(), "rhel".to_owned()));
        assert_eq!(from_redhat_release("CentOS release 6.9 (Final)").0, "centos-6");
    }
}
