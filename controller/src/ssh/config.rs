//! The operator's ssh_config(5), as their own `ssh` reads it: `ssh -G` is asked, which knows Match, Include and every other rule. What it
//! says beyond OpenSSH's defaults fills in what the inventory leaves open.

use super::text::printable;
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// How long `ssh -G` may take: `Match exec` runs programs of the operator.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that is read of its answer; it is some kilobytes long.
const LIMIT: u64 = 1 << 20;

/// The file that is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum File {
    /// `~/.ssh/config` of the account, and the system's.
    Own,
    /// None.
    None,
    /// This one alone (`ssh -F`).
    At(PathBuf),
}

/// What is asked: as `ssh` would be called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) file: File,
    /// The name on the command line.
    pub(super) name: String,
    /// What the inventory says besides, which `Match` may look at.
    pub(super) address: Option<String>,
    pub(super) user: Option<String>,
    pub(super) port: Option<u16>,
}

impl Question {
    /// The arguments. Each value is one of its own, checked by the inventory, and a name stands behind `--`: none can be another option.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-G".to_owned()];
        match &self.file {
            File::Own => {}
            File::None => arguments.extend(["-F".to_owned(), "none".to_owned()]),
            File::At(path) => arguments.extend(["-F".to_owned(), path.display().to_string()]),
        }
        let mut option = |key: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| ["-o".to_owned(), format!("{key}={value}")]));
        };
        // `%` begins a token there, and an IPv6 zone here.
        option("HostName", self.address.as_ref().map(|address| address.replace('%', "%%")));
        option("User", self.user.clone());
        option("Port", self.port.map(|port| port.to_string()));
        arguments.extend(["--".to_owned(), self.name.clone()]);
        arguments
    }
}

/// What ssh_config says about one host, by keyword in lower case; nothing where that is OpenSSH's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said(BTreeMap<String, Vec<String>>);

impl Said {
    fn parse(text: &str) -> Self {
        let mut said = BTreeMap::<String, Vec<String>>::new();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            said.entry(key.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        Self(said)
    }

    fn without(mut self, defaults: &Self) -> Self {
        self.0.retain(|key, value| defaults.0.get(key) != Some(value));
        self
    }

    /// The value of a keyword that is given once.
    pub(super) fn one(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    /// All values of a keyword that may be given several times.
    pub(super) fn all(&self, key: &str) -> Option<&[String]> {
        self.0.get(key).map(Vec::as_slice)
    }

    /// Whether a keyword says `yes`.
    pub(super) fn is_on(&self, key: &str) -> bool {
        matches!(self.one(key), Some("yes" | "true"))
    }
}

/// Asks `ssh`, each question once.
pub(super) struct SshConfig {
    /// The program; none where there is none.
    program: Option<PathBuf>,
    answers: Mutex<HashMap<Question, Result<Arc<Said>, String>>>,
}

impl SshConfig {
    /// `program`: OpenSSH's client, by name or path.
    pub(super) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        crate::secrets::hide_variables(&mut command);
        let version = command.arg("-V").stdin(Stdio::null()).output();
        let there = version.is_ok_and(|output| output.status.success());
        Self { program: there.then(|| program.to_owned()), answers: Mutex::default() }
    }

    /// Whether there is a program to ask.
    pub(super) fn is_there(&self) -> bool {
        self.program.is_some()
    }

    /// What ssh_config says. Nothing where there is no `ssh`.
    ///
    /// # Errors
    /// `ssh` refuses its configuration, or does not answer: then the operator's own `ssh` would not connect either.
    pub(super) fn ask(&self, question: &Question) -> Result<Arc<Said>, String> {
        let Some(program) = self.program.as_ref().filter(|_| question.file != File::None) else { return Ok(Arc::default()) };
        if let Some(known) = self.answers().get(question) {
            return known.clone();
        }
        let defaults = Question { file: File::None, ..question.clone() };
        let answer = run(program, question).and_then(|said| Ok(Arc::new(said.without(&run(program, &defaults)?))));
        self.answers().insert(question.clone(), answer.clone());
        answer
    }

    /// Asks many questions, as many at once as the machine has processors.
    pub(super) fn ask_all(&self, questions: &[Question]) {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let share = questions.len().div_ceil(at_once).max(1);
        std::thread::scope(|scope| {
            for share in questions.chunks(share) {
                // Errors are kept with the answers, and told to whom it concerns.
                scope.spawn(|| share.iter().for_each(|question| drop(self.ask(question))));
            }
        });
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<Question, Result<Arc<Said>, String>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(program: &Path, question: &Question) -> Result<Said, String> {
    let arguments = question.arguments();
    let told = |why: &str| format!("`ssh {}` does not say how to reach it: {why}", printable(&arguments.join(" ")));
    let mut command = Command::new(program);
    crate::secrets::hide_variables(&mut command);
    command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| told(&error.to_string()))?;
    let (sender, receiver) = mpsc::channel();
    let read = |stream: Option<Box<dyn Read + Send>>| {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = stream.map_or(Ok(0), |stream| stream.take(LIMIT).read_to_end(&mut text));
            let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).into_owned()));
        })
    };
    let out = child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
    let error = child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
    let reading = read(out);
    let said = receiver.recv_timeout(PATIENCE);
    if said.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| told(&error.to_string()))?;
    let Ok(said) = said else { return Err(told(&format!("it does not end within {} s", PATIENCE.as_secs()))) };
    let _ = reading.join();
    let said = said.map_err(|error| told(&error.to_string()))?;
    if status.success() {
        return Ok(Said::parse(&said));
    }
    let _ = read(error).join();
    let complaint = receiver.recv_timeout(Duration::from_secs(1)).ok().and_then(Result::ok).unwrap_or_default();
    let complaint = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    Err(told(&format!("{}. Mend that, or set `ssh.config: none` in the inventory", printable(&complaint))))
}

/// What `%` tokens stand for (ssh_config(5), TOKENS).
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    /// The name on the command line (`%n`).
    pub(super) name: &'a str,
    /// The address (`%h`).
    pub(super) address: &'a str,
    /// The name that its key is known by (`%k`).
    pub(super) alias: &'a str,
    /// The port (`%p`).
    pub(super) port: u16,
    /// The account there (`%r`).
    pub(super) user: &'a str,
    /// The account here (`%u`).
    pub(super) own_user: Option<&'a str>,
    /// The home directory (`%d`, `~`).
    pub(super) home: Option<&'a Path>,
}

impl Tokens<'_> {
    /// Puts the values in.
    ///
    /// # Errors
    /// A token that cannot be filled in.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text.chars();
        while let Some(next) = rest.next() {
            if next != '%' {
                out.push(next);
                continue;
            }
            match rest.next() {
                Some('%') => out.push('%'),
                Some('n') => out.push_str(self.name),
                Some('h') => out.push_str(self.address),
                Some('k') => out.push_str(self.alias),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('u') if self.own_user.is_some() => out.push_str(self.own_user.unwrap_or_default()),
                Some('d') if self.home.is_some() => out.push_str(&self.home.unwrap_or(Path::new("")).display().to_string()),
                Some('i') => out.push_str(&rustix::process::getuid().as_raw().to_string()),
                Some('l') => out.push_str(&own_name()),
                Some('L') => out.push_str(own_name().split('.').next().unwrap_or_default()),
                other => {
                    let token = other.map_or_else(|| "%".to_owned(), |other| format!("%{other}"));
                    return Err(format!("the token {token} in `{}` of ssh_config is not known here", printable(text)));
                }
            }
        }
        Ok(out)
    }

    /// A path with `~`, tokens and `${VARIABLE}`.
    ///
    /// # Errors
    /// A token or a variable that cannot be filled in.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, String> {
        let text = self.expand(&variables(text)?)?;
        Ok(match (text.strip_prefix("~/"), self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        })
    }
}

/// The name of this machine.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn variables(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) =
            after.split_once('}').ok_or_else(|| format!("`{}` of ssh_config has a `${{` without end", printable(text)))?;
        let value = std::env::var(name).map_err(|_| format!("ssh_config names ${{{}}}, which is not set", printable(name)))?;
        out.push_str(before);
        out.push_str(&value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether an ssh_config file of the operator is there that cannot be asked about.
pub(super) fn own_file(home: Option<&Path>) -> Option<PathBuf> {
    let path = home?.join(".ssh/config");
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        _ => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Question {
        Question { file: File::Own, name: name.to_owned(), address: None, user: None, port: None }
    }

    #[test]
    fn values_of_the_inventory_are_no_options() {
        let asked =
            Question { address: Some("fe80::1%eth0".into()), user: Some("ops".into()), port: Some(2222), ..question("mkt1") };
        let expected = ["-G", "-o", "HostName=fe80::1%%eth0", "-o", "User=ops", "-o", "Port=2222", "--", "mkt1"];
        assert_eq!(asked.arguments(), expected);
    }

    #[test]
    fn what_is_said_beyond_the_defaults_counts() {
        let said = Said::parse("port 22\nuser ops\nidentityfile ~/.ssh/a\nidentityfile ~/.ssh/b\nidentitiesonly yes\n");
        let said = said.without(&Said::parse("port 22\nuser me\nidentityfile ~/.ssh/id_rsa\nidentitiesonly no\n"));
        assert_eq!((said.one("port"), said.one("user"), said.is_on("identitiesonly")), (None, Some("ops"), true));
        assert_eq!(said.all("identityfile").unwrap(), ["~/.ssh/a", "~/.ssh/b"]);
    }

    #[test]
    fn tokens_are_filled_in_and_unknown_ones_are_named() {
        let tokens = Tokens {
            name: "mkt1",
            address: "10.0.0.1",
            alias: "mkt",
            port: 2222,
            user: "ops",
            own_user: Some("me"),
            home: Some(Path::new("/home/me")),
        };
        assert_eq!(tokens.expand("%n %h %k %p %r %u %d %%").unwrap(), "mkt1 10.0.0.1 mkt 2222 ops me /home/me %");
        assert_eq!(tokens.path("~/.ssh/%h_key").unwrap(), Path::new("/home/me/.ssh/10.0.0.1_key"));
        assert_eq!(tokens.path("${PATH}").unwrap(), PathBuf::from(std::env::var("PATH").unwrap()));
        assert!(tokens.expand("%C").unwrap_err().contains("%C"));
        assert!(tokens.path("${CARAVAN_NOT_SET}").unwrap_err().contains("CARAVAN_NOT_SET"));
    }

    #[test]
    fn a_configuration_that_ssh_refuses_is_an_error_with_its_words() {
        let config = SshConfig::new(Path::new("ssh"));
        if !config.is_there() {
            say!("skipped: ssh is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let ask = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let question = Question { file: File::At(file.clone()), ..question("mkt1") };
            SshConfig::new(Path::new("ssh")).ask(&question)
        };
        let said = ask("Host mkt*\n  HostName 10.9.8.7\n  ProxyJump ops@bastion:2222\n  IdentityFile ~/.ssh/%n\n").unwrap();
        assert_eq!((said.one("hostname"), said.one("proxyjump")), (Some("10.9.8.7"), Some("ops@bastion:2222")));
        assert_eq!(said.all("identityfile").unwrap(), ["~/.ssh/%n"]);
        let error = ask("Host *\n  Colour red\n").unwrap_err();
        assert!(error.contains("colour") || error.contains("Colour"), "{error}");
        assert!(error.contains("ssh.config: none"), "{error}");
        assert_eq!(SshConfig::new(Path::new("/nonexistent/ssh")).ask(&question("x")), Ok(Arc::default()));
    }
}
