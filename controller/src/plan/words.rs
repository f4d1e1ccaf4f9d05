//! Actions and probes in words, for `--explain`.

use proto::step::{Command, KeepTo, LineRule, XmlChange};
use proto::{Action, Probe, Query};

/// What an action does, a line each.
pub(super) fn action(action: &Action) -> Vec<String> {
    match action {
        Action::Command(command) => command_lines(command),
        Action::Service { .. } | Action::InstallPackages { .. } | Action::RemovePackages { .. } => {
            action.argv().map(|argv| shell_words(&argv)).into_iter().collect()
        }
        Action::StopProcesses { under, term_after_s, kill_after_s } => vec![format!(
            "waits {term_after_s} s for processes under {under} to end, then SIGTERM; after {kill_after_s} s more SIGKILL"
        )],
        Action::MoveTree { from, to } => vec![format!("renames {from} to {to}; refused when {to} exists")],
        Action::CopyTree { from, to, include, .. } => vec![format!("copies {} from {from} to {to}", include.join(", "))],
        Action::Archive { source, dest } => vec![format!("archives {source} as {dest}, with its SHA-256 beside it")],
        Action::Checksum { file } => vec![format!("reads {file} and puts its SHA-256 beside it, and on record")],
        Action::Keep { source, name, to, encrypt_to, limit } => {
            let place = match to {
                KeepTo::Workstation => format!("backups/HOST/{name} in the run's directory on the workstation"),
                KeepTo::Host { host, dest } => format!("{dest} on {host}"),
            };
            let limit = limit.map(|limit| format!(", at most {limit} bytes a second")).unwrap_or_default();
            vec![
                format!("encrypts {source} on the host, to {}", encrypt_to.join(", ")),
                format!("fetches that in pieces to {place}{limit}, and checks its SHA-256 there"),
                format!("then removes {source}.age from the host"),
            ]
        }
        Action::Unpack { archive, sha256, dest } => {
            vec![format!("unpacks {archive} as {dest}; refused when {dest} exists or the archive's SHA-256 is not {sha256}")]
        }
        Action::PushFile { size, dest, .. } => {
            vec![format!("sends {size} bytes to {dest}; nothing is sent when the file is there")]
        }
        Action::Download { url, dest, .. } => vec![format!("downloads {url} to {dest}")],
        Action::XmlEdit { file, edits } => {
            let edit = |edit: &proto::step::XmlEdit| {
                let place = format!("{} of <{}>", edit.attribute, edit.element);
                match &edit.change {
                    XmlChange::Set(value) => format!("sets {place} to \"{value}\" in {file}"),
                    XmlChange::Ensure(value) => {
                        format!("sets {place} to \"{value}\" in {file}; adds the element where it is missing")
                    }
                    XmlChange::Rename(name) => format!("renames {place} to {name} in {file}"),
                    XmlChange::NameAs { name, file: other } => {
                        format!("renames {place} to {name} in {file} where {other} has {name}")
                    }
                    XmlChange::CopyFrom(other) => format!("copies {place} from {other} to {file}; nobody sees the value"),
                }
            };
            edits.iter().map(edit).collect()
        }
        Action::ReplaceText { files, from, to } => vec![format!("puts `{to}` in the place of `{from}` in {}", files.join(", "))],
        Action::Verify => vec!["changes nothing: only the proof below".to_owned()],
        Action::Inspect { queries } => queries.iter().map(query).collect(),
        Action::Gate { gate, ask, commands } => {
            let mut lines = vec![format!("waits for a person (--confirm {gate}=NOTE)"), ask.clone()];
            lines.extend(commands.iter().map(|command| format!("> {command}")));
            lines
        }
    }
}

fn command_lines(command: &Command) -> Vec<String> {
    let mut lines = vec![shell_words(&command.argv)];
    lines.extend(command.profile.iter().map(|profile| format!("after reading {profile}")));
    lines.extend(command.dir.iter().map(|dir| format!("in {dir}")));
    lines.extend(command.env.iter().map(|(name, value)| format!("with {name}={value}")));
    lines.extend(command.secret_files.keys().map(|name| format!("with {name} naming a file in memory that holds the password")));
    lines.extend(
        command
            .dialog
            .iter()
            .map(|dialog| format!("at a terminal of its own, answered as it asks, until it says \"{}\"", dialog.says)),
    );
    lines.extend(command.fail_on.iter().map(line_rule));
    lines
}

fn line_rule(rule: &LineRule) -> String {
    let LineRule { starts_with, contains, .. } = rule;
    let mut asked: Vec<String> = Vec::new();
    asked.extend((!starts_with.is_empty()).then(|| format!("begins with {starts_with}")));
    asked.extend((!contains.is_empty()).then(|| format!("has {contains} in it")));
    format!("failed if a line {}: {}", asked.join(" and "), rule.means)
}

fn query(query: &Query) -> String {
    match query {
        Query::System => "reads OS, kernel, init system, clock".to_owned(),
        Query::Packages { names, .. } => format!("reads the versions of {}", names.join(", ")),
        Query::Xml { file, element, attribute } => format!("reads {attribute} of <{element}> in {file}"),
        Query::Fingerprint { file, element, attribute } => {
            format!("takes a keyed fingerprint of {attribute} of <{element}> in {file}")
        }
        Query::Space { path } => format!("reads the free space of {path}"),
        Query::Path { path } => format!("looks whether {path} exists"),
        Query::File { path } => format!("reads size, age and SHA-256 of {path}"),
        Query::Output { argv, .. } => format!("reads what `{}` prints", shell_words(argv)),
        Query::Processes { under } => format!("looks for processes under {under}"),
        Query::Logon { url, account } => format!("tries a logon as {account} at {url}"),
    }
}

/// What a probe looks at, a line each.
pub(super) fn probe(probe: &Probe) -> Vec<String> {
    let line = match probe {
        probe if probe.is_empty() => "no effect of its own to look at".to_owned(),
        Probe::All(probes) => return probes.iter().flat_map(self::probe).collect(),
        Probe::Exists(path) => format!("{path} exists"),
        Probe::Absent(path) => format!("{path} does not exist"),
        Probe::Command { argv, code, contains, lacks, .. } => {
            let mut wanted: Vec<String> = code.iter().map(|code| format!("exits {code}")).collect();
            wanted.extend((!contains.is_empty()).then(|| format!("prints {}", quoted(contains))));
            wanted.extend((!lacks.is_empty()).then(|| format!("prints none of {}", quoted(lacks))));
            format!("`{}` {}", shell_words(argv), wanted.join(" and "))
        }
        Probe::PackagesInstalled { names, version, .. } => format!("{} installed with {version} in the version", names.join(", ")),
        Probe::PackagesAbsent { names, .. } => format!("{} not installed", names.join(", ")),
        Probe::NoProcesses { under } => format!("no process runs from under {under}"),
        Probe::Digest { path, sha256 } => format!("{path} has SHA-256 {sha256}"),
        Probe::ArchiveIntact(path) => format!("{path} matches its .sha256 file"),
        Probe::TreeCopied { from, to, include } => format!("{} of {from} has the same bytes in {to}", include.join(", ")),
        Probe::Xml { file, element, attribute, equals } => {
            let value = equals.as_ref().map_or("missing".to_owned(), |value| format!("\"{value}\""));
            format!("{attribute} of <{element}> in {file} is {value}")
        }
        Probe::XmlSame { file, other, element, attribute } => {
            format!("{attribute} of <{element}> is the same in {file} and {other}")
        }
        Probe::TextReplaced { files, from, .. } => format!("`{from}` stands in none of {}", files.join(", ")),
        Probe::NewestFileContains { file, contains } => {
            format!("the newest {file} says {}", quoted(std::slice::from_ref(contains)))
        }
        Probe::Http { url, contains } => format!("GET {url} answers 200 with {}", quoted(contains)),
    };
    vec![line]
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("`{}`", text.trim())).collect::<Vec<_>>().join(", ")
}

/// Program and arguments as one would type them.
fn shell_words(argv: &[String]) -> String {
    let word = |argument: &String| {
        let plain = !argument.is_empty() && argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@,+%{}$".contains(c));
        if plain && !argument.contains('$') { argument.clone() } else { format!("'{}'", argument.replace('\'', "'\\''")) }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}
