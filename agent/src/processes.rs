//! Processes whose executable lies under a directory. Never matched by name alone.

use std::path::{Path, PathBuf};

/// A process of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) executable: String,
}

/// All processes whose executable lies under `dir`, by process id. An executable that was deleted or replaced since counts too
/// (the kernel then appends ` (deleted)`). The agent itself never counts.
///
/// The executable of other accounts' processes can only be read by root. For one that cannot be read, the absolute path that it
/// was started with stands in, where it has one.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn under(dir: &str) -> std::io::Result<Vec<Process>> {
    // Links in the path: the kernel reports where an executable really is.
    let given = PathBuf::from(dir);
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| given.clone());
    let own = std::fs::read_link("/proc/self/exe").ok();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let executable = match std::fs::read_link(entry.path().join("exe")) {
            Ok(executable) => executable,
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => match started_as(&entry.path()) {
                Some(executable) => executable,
                None => continue,
            },
            // A kernel thread, a zombie, or gone by now.
            Err(_) => continue,
        };
        let inside = executable.starts_with(&real) || executable.starts_with(&given);
        if inside && Some(&executable) != own.as_ref() {
            found.push(Process { pid, executable: executable.to_string_lossy().into_owned() });
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

fn started_as(proc_entry: &Path) -> Option<PathBuf> {
    let line = std::fs::read(proc_entry.join("cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).next()?;
    let path = PathBuf::from(String::from_utf8_lossy(first).into_owned());
    path.is_absolute().then_some(path)
}

/// A few processes as text, for messages.
pub(crate) fn describe(processes: &[Process]) -> String {
    let mut text: Vec<String> = processes.iter().take(5).map(|p| format!("{} (pid {})", p.executable, p.pid)).collect();
    if processes.len() > 5 {
        text.push(format!("and {} more", processes.len() - 5));
    }
    text.join(", ")
}
