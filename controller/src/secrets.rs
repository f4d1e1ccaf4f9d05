//! Fetches the secrets that an inventory refers to, at the moment they are needed.

use crate::exit::{Exit, Failure};
use inventory::{Backup, Fleet, SecretRef};
use proto::Secret;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

/// Fetches secrets and remembers them for the life of the process, in memory only.
///
/// A `prompt:` is asked once for each thing it is about, however many hosts need it at the same time.
#[derive(Debug, Default)]
pub struct Secrets {
    base: PathBuf,
    /// Nobody is asked: a `prompt:` fails at once.
    unattended: bool,
    fetched: tokio::sync::Mutex<HashMap<(String, String), Secret>>,
}

impl Secrets {
    /// `base` is the directory that relative paths start from: the inventory's.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), ..Self::default() }
    }

    /// As [`Secrets::new`], for work that must not wait for a person: a `prompt:` fails at once.
    pub fn unattended(base: impl Into<PathBuf>) -> Self {
        Self { unattended: true, ..Self::new(base) }
    }

    /// Fetches a secret. `what` says what it is, for the question and for errors (`sudo password of ops`).
    ///
    /// # Errors
    /// [`Exit::Usage`] with the reference (never the value) and what to do: the variable is not set, the file is missing or
    /// open to others, there is no terminal to ask at, the program failed.
    pub async fn resolve(&self, reference: &SecretRef, what: &str) -> Result<Secret, Failure> {
        note_variable(reference);
        let key = match reference {
            SecretRef::Prompt => ("prompt".to_owned(), what.to_owned()),
            SecretRef::Env(name) => ("env".to_owned(), name.clone()),
            SecretRef::File(path) => ("file".to_owned(), path.clone()),
            SecretRef::Command(line) => ("command".to_owned(), line.clone()),
        };
        // Held while a person types: two questions on one terminal would mix, and the second asker may want the same answer.
        let mut fetched = self.fetched.lock().await;
        if let Some(secret) = fetched.get(&key) {
            return Ok(secret.clone());
        }
        let secret = match reference {
            SecretRef::Prompt if self.unattended => Err("it would have to be asked for at the terminal".to_owned()),
            SecretRef::Prompt => ask(what).await,
            SecretRef::Env(name) => std::env::var(name).map_err(|_| {
                format!("the environment variable {name} is not set (or not UTF-8); export it before starting caravan")
            }),
            SecretRef::File(path) => read(&self.base.join(path)),
            SecretRef::Command(line) => run(line, &self.base).await,
        };
        let secret = secret.map(Secret::new).map_err(|why| Failure::new(Exit::Usage, format!("{what}: {why}")))?;
        fetched.insert(key, secret.clone());
        Ok(secret)
    }

    /// Takes an answer to a question as if it had been given at the terminal.
    pub async fn answer(&self, what: &str, secret: Secret) {
        self.fetched.lock().await.insert(("prompt".to_owned(), what.to_owned()), secret);
    }

    /// Forgets the answer to a question, so that it is asked again: for an answer that proved wrong.
    pub async fn forget_prompt(&self, what: &str) {
        self.fetched.lock().await.remove(&("prompt".to_owned(), what.to_owned()));
    }
}

/// Asks at the terminal itself, so that redirected standard streams make no difference.
async fn ask(what: &str) -> Result<String, String> {
    let question = format!("{what}: ");
    let answer = tokio::task::spawn_blocking(move || rpassword::prompt_password(question)).await;
    answer.map_err(|error| error.to_string())?.map_err(|error| {
        format!("there is no terminal to ask at ({error}); give it as env:NAME, file:PATH or command:PROGRAM instead")
    })
}

/// What a person would keep in a file, or a program print, is shorter than this.
const LONGEST: u64 = 64 * 1024;
/// How long a program may take: a password manager that has to be unlocked in a window of its own.
const PATIENCE: Duration = Duration::from_secs(60);

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("{shown} cannot be read: {error}");
    // What is looked at is what is read, whatever its name leads to by then.
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{shown} can be read by others (mode {:03o}); run: chmod 600 {shown}", mode & 0o777));
    }
    let mut bytes = room();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    one_secret(bytes, &shown.to_string(), "holds")
}

/// Runs a program without a shell; its standard output is the secret, without the last line end. What it says on standard error may be
/// secret as well and is seen by nobody.
async fn run(line: &str, base: &Path) -> Result<String, String> {
    let argv = split(line)?;
    let Some((program, arguments)) = argv.split_first() else { return Err("command: names no program".to_owned()) };
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .current_dir(if base.as_os_str().is_empty() { Path::new(".") } else { base })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    hide_variables(command.as_std_mut());
    let failed = |error: std::io::Error| format!("{program} cannot be run: {error}");
    let mut child = command.spawn().map_err(|error| format!("{program} cannot be started: {error}"))?;
    let stdout = child.stdout.take();
    let finished = tokio::time::timeout(PATIENCE, async {
        let mut bytes = room();
        if let Some(stdout) = stdout {
            stdout.take(LONGEST + 1).read_to_end(&mut bytes).await?;
        }
        // One that prints without end would wait for somebody who reads.
        if bytes.len() as u64 > LONGEST {
            child.start_kill()?;
        }
        Ok((child.wait().await?, bytes))
    });
    let ended =
        finished.await.map_err(|_| format!("{program} did not end within {} s; does it wait for somebody?", PATIENCE.as_secs()))?;
    let (status, bytes) = ended.map_err(failed)?;
    if !status.success() && bytes.len() as u64 <= LONGEST {
        let how = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
        return Err(format!("{program} failed ({how}); run it by hand to see what it says"));
    }
    let secret = one_secret(bytes, program, "printed")?;
    if secret.is_empty() {
        return Err(format!("{program} printed nothing"));
    }
    Ok(secret)
}

/// Room for the longest secret: nothing of it is left behind in smaller pieces of memory that it outgrew.
fn room() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(LONGEST as usize + 64))
}

/// What was read, without the last line end; the caller puts it into a [`Secret`].
fn one_secret(mut bytes: Zeroizing<Vec<u8>>, whose: &str, verb: &str) -> Result<String, String> {
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{whose} {verb} more than {} KiB, which is no secret that can be used", LONGEST / 1024));
    }
    let mut text = String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        format!("{whose} {verb} something that is not UTF-8")
    })?;
    trim_line_end(&mut text);
    Ok(text)
}

/// Names of the environment variables that hold secrets.
static VARIABLES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Takes note of the variables that an inventory refers to, so that no program that is started gets them.
pub fn note_variables(fleet: &Fleet) {
    let hosts = fleet.platforms.iter().flat_map(|platform| &platform.hosts);
    let logins = hosts.flat_map(|host| [&host.ssh.password, &host.become_.password]).flatten();
    let databases = fleet.platforms.iter().flat_map(|platform| {
        let own = platform.instances.iter().filter_map(|instance| instance.database.as_ref());
        platform.database.iter().chain(own).flat_map(|database| {
            let scratch = match &database.backup {
                Backup::On { scratch, .. } => scratch.as_ref().and_then(|scratch| scratch.password.as_ref()),
                Backup::ByDba | Backup::Given(_) => None,
            };
            database.password.iter().chain(scratch)
        })
    });
    logins.chain(databases).for_each(note_variable);
}

/// Takes note of one reference, as [`note_variables`] does of those of a fleet.
pub fn note_variable(reference: &SecretRef) {
    if let SecretRef::Env(name) = reference {
        VARIABLES.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
    }
}

/// Keeps variables with secrets from a program that is going to be started.
pub fn hide_variables(command: &mut std::process::Command) {
    for name in VARIABLES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        command.env_remove(name);
    }
}

/// From here on this process leaves no core dump, whatever becomes of it, and no other process of the same account can look into its
/// memory. The programs that it starts leave no core files either: password managers are among them.
pub fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let warn =
        |error: rustix::io::Errno| say!("warning: core dumps cannot be turned off ({error}): a crash could write secrets to disk");
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(warn);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(warn);
}

/// The first line of standard input, as a secret: for scripts that pipe it in.
///
/// # Errors
/// A text: standard input is a terminal, which would show what is typed, or ends before a line, or is not UTF-8.
pub fn read_line() -> Result<Secret, String> {
    use std::io::{BufRead, IsTerminal};
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err("it is a terminal; leave the option out to be asked without an echo".to_owned());
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line).map_err(|error| error.to_string())?;
    if read == 0 {
        return Err("it ended before a line came".to_owned());
    }
    trim_line_end(&mut line);
    Ok(Secret::new(line))
}

fn trim_line_end(text: &mut String) {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
}

/// Splits a command line into arguments: white space separates, single and double quotes hold together, a backslash outside single
/// quotes takes the next character as it is. Nothing is expanded.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut argv = Vec::new();
    let mut current: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                current.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match letters.next() {
                Some(letter) => current.get_or_insert_default().push(letter),
                None => return Err("command: ends in a backslash".to_owned()),
            },
            (None, letter) if letter.is_whitespace() => argv.extend(current.take()),
            (_, letter) => current.get_or_insert_default().push(letter),
        }
    }
    if let Some(open) = quote {
        return Err(format!("command: has a {open} that is never closed"));
    }
    argv.extend(current);
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret_file(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        let (open, closed) = (secret_file(0o640), secret_file(0o600));
        let secrets = Secrets::new("/");
        let reference = |file: &tempfile::NamedTempFile| SecretRef::File(file.path().display().to_string());
        let failure = secrets.resolve(&reference(&open), "password").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("chmod 600") && failure.message.contains("mode 640"), "{failure}");
        assert!(!failure.message.contains("s3cret"));
        assert_eq!(secrets.resolve(&reference(&closed), "password").await.unwrap().expose(), "s3cret");
    }

    #[tokio::test]
    async fn a_command_gets_its_arguments_as_they_are() {
        let secrets = Secrets::new("");
        let reference = SecretRef::Command("printf '%s|' 'a b' $HOME \"c d\"".to_owned());
        assert_eq!(secrets.resolve(&reference, "x").await.unwrap().expose(), "a b|$HOME|c d|");
    }

    #[tokio::test]
    async fn failures_name_the_reference() {
        let secrets = Secrets::new("");
        for (reference, expected) in [
            (SecretRef::Env("CARAVAN_TEST_NOT_SET".to_owned()), "CARAVAN_TEST_NOT_SET"),
            (SecretRef::Command("false".to_owned()), "false failed"),
            (SecretRef::Command("true".to_owned()), "printed nothing"),
            (SecretRef::Command("'oops".to_owned()), "never closed"),
            (SecretRef::Command(String::new()), "no program"),
            (SecretRef::File("/nonexistent/secret".to_owned()), "/nonexistent/secret"),
        ] {
            let failure = secrets.resolve(&reference, "the password").await.unwrap_err();
            assert!(failure.message.contains(expected) && failure.message.starts_with("the password: "), "{failure}");
        }
    }

    proptest! {
        #[test]
        fn single_quotes_keep_everything(words in proptest::collection::vec("[^']*", 0..5)) {
            let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split(&line).unwrap(), words);
        }

        #[test]
        fn splitting_never_panics(line in any::<String>()) {
            let _ = split(&line);
        }
    }
}
