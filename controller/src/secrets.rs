//! Fetches the secrets that an inventory refers to, at the moment they are needed.

use crate::exit::{Exit, Failure};
use inventory::SecretRef;
use proto::Secret;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// Fetches secrets and remembers them for the life of the process, in memory only.
///
/// A `prompt:` is asked once for each thing it is about, however many hosts need it at the same time.
#[derive(Debug, Default)]
pub struct Secrets {
    base: PathBuf,
    /// Nobody is asked: a `prompt:` fails at once.
    unattended: bool,
    fetched: Mutex<HashMap<(String, String), Secret>>,
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

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mode = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{shown} can be read by others (mode {:03o}); run: chmod 600 {shown}", mode & 0o777));
    }
    let mut text = std::fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    trim_line_end(&mut text);
    Ok(text)
}

/// Runs a program without a shell; its standard output is the secret, without the last line end.
async fn run(line: &str, base: &Path) -> Result<String, String> {
    let argv = split(line)?;
    let Some((program, arguments)) = argv.split_first() else { return Err("command: names no program".to_owned()) };
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(if base.as_os_str().is_empty() { Path::new(".") } else { base })
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .output()
        .await
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} failed ({})", output.status));
    }
    let mut text = String::from_utf8(output.stdout).map_err(|_| format!("{program} printed something that is not UTF-8"))?;
    trim_line_end(&mut text);
    if text.is_empty() {
        return Err(format!("{program} printed nothing"));
    }
    Ok(text)
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
