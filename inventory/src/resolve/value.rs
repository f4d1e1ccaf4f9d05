//! What single values must look like. Each check reports at the value's place and says what is expected.

use crate::model::Campaign;
use crate::problem::{Kind, Report, Span, did_you_mean, quote};
use crate::read::{Spanned, Text};

/// Checks a name of a host, a platform: `[A-Za-z0-9][A-Za-z0-9._-]*`. Names become parts of step ids and file names.
pub(super) fn name(text: &str, what: &str, span: &Span, report: &mut Report) -> bool {
    let wrong = text.chars().find(|char| !(char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')));
    let starts = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if wrong.is_none() && starts && text.len() <= 253 {
        return true;
    }
    let label = match wrong {
        Some(char) => format!("{} is not allowed", quote(&char.to_string())),
        None if !starts => "a name begins with a letter or a digit".to_owned(),
        None => "a name has at most 253 characters".to_owned(),
    };
    report
        .error(Kind::BadName, span, format!("{} cannot be the name of {what}", quote(text)))
        .label(label)
        .help("names have letters, digits, `.`, `_` and `-`");
    false
}

/// What no program takes for an option, no shell for a command, and `ssh` for one value.
fn is_account(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-' | '$' | '@' | '\\'))
}

/// Checks the name of an account on a host.
pub(super) fn account(text: &Spanned<Text>, report: &mut Report) {
    let value: &str = &text.value;
    if !is_account(value) {
        report
            .error(Kind::BadAccount, &text.span, format!("{} is not an account name", quote(value)))
            .label("an account name is expected here");
    }
}

/// Checks a name that a database's programs get: they take some for a whole connection string, which can lead anywhere, and a file of
/// passwords has one on each line.
pub(super) fn of_database(text: &Spanned<Text>, what: &str, report: &mut Report) {
    let value: &str = &text.value;
    if value.contains(char::is_control) || value.contains('=') || value.contains("://") {
        report
            .error(Kind::BadName, &text.span, format!("{} cannot be {what}", quote(value)))
            .label("a name without `=`, `://` and control characters is expected here");
    }
}

/// Puts the names in for `{host}` and `{platform}`.
pub(super) fn substitute(text: &str, host: &str, platform: &str, span: &Span, report: &mut Report) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((word, tail)) = after.split_once('}') else {
            report.error(Kind::BadPlaceholder, span, "`{` without `}`").label("`{host}` and `{platform}` can stand here");
            return text.to_owned();
        };
        match word {
            "host" => out.push_str(host),
            "platform" => out.push_str(platform),
            _ => {
                report
                    .error(Kind::BadPlaceholder, span, format!("unknown placeholder {}", quote(&format!("{{{word}}}"))))
                    .label("`{host}` and `{platform}` can stand here")
                    .help_if(did_you_mean(word, ["host", "platform"]));
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Checks an absolute path of a host, as written in the file.
pub(super) fn path(text: &str, windows: bool, span: &Span, report: &mut Report) {
    let drive = windows && text.as_bytes().get(1) == Some(&b':');
    let label = if !text.starts_with('/') && !drive {
        "a path on a host is absolute: it begins with `/`"
    } else if text.split(['/', '\\']).any(|part| part == "..") {
        "`..` is not allowed here"
    } else if text.chars().any(char::is_control) {
        "control characters are not allowed here"
    } else if text.trim_matches('/').is_empty() {
        "the root of the file system cannot be used"
    } else {
        return;
    };
    report.error(Kind::BadPath, span, format!("{} cannot be used as a path", quote(text))).label(label);
}

/// The `ID`s of `/etc/os-release` that Caravan has a runbook for (Debian and RHEL families), and Windows, whose steps are gates.
const SYSTEMS: [&str; 8] = ["debian", "ubuntu", "rhel", "centos", "rocky", "almalinux", "ol", "windows"];

/// Checks an operating system: `debian-11`, `rhel-8`, `windows`.
pub(super) fn os(text: &Spanned<Text>, report: &mut Report) -> bool {
    let value: &str = &text.value;
    let (id, version) = value.split_once('-').map_or((value, None), |(id, version)| (id, Some(version)));
    let numbered = version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()));
    if SYSTEMS.contains(&id) && (numbered || (id == "windows" && version.is_none())) {
        return true;
    }
    let (label, help) = if SYSTEMS.contains(&id) {
        ("the major version belongs to it, for example `debian-11`".to_owned(), None)
    } else {
        let stem: String = value.chars().take_while(|char| char.is_alphabetic()).collect();
        (
            format!("one of {}, with the major version: `debian-11`, `rhel-8`, `windows`", SYSTEMS.join(", ")),
            did_you_mean(&stem, SYSTEMS),
        )
    };
    report.error(Kind::BadOs, &text.span, format!("unknown operating system {}", quote(value))).label(label).help_if(help);
    false
}

/// Checks a SHA-256 digest; gives it in lower case.
pub(super) fn sha256(text: &Spanned<Text>, report: &mut Report) -> String {
    let value: &str = &text.value;
    if value.len() != 64 || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        report
            .error(Kind::BadDigest, &text.span, format!("{} is not a SHA-256 digest", quote(value)))
            .label("64 hexadecimal digits are expected here")
            .help("`sha256sum FILE` prints it");
    }
    value.to_ascii_lowercase()
}

/// Whether an account with a password stands in an address (`ops:secret@host`), or any account in a URL, where it can be a token;
/// reported, and never shown.
fn carries_password(text: &str, span: &Span, report: &mut Report) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let carries = authority.rsplit_once('@').is_some_and(|(account, _)| account.contains(':') || text.contains("://"));
    if carries {
        report.mask(span);
        report
            .error(Kind::PlainSecret, span, "a password is written out in an address")
            .label("process lists and logs would show it")
            .help("log in with a key; a package can be downloaded once and given by its `path:`");
    }
    carries
}

/// Checks a URL that hosts download from.
pub(super) fn url(text: &Spanned<Text>, report: &mut Report) {
    let value: &str = &text.value;
    if carries_password(value, &text.span, report) {
        return;
    }
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.is_empty() || value.chars().any(|char| char.is_whitespace() || char.is_control()) {
        report
            .error(Kind::BadUrl, &text.span, format!("{} is not a URL to download from", quote(value)))
            .label("`https://HOST/PATH` is expected here");
    }
}

/// Checks a host name or an address, without a port.
pub(super) fn address(text: &str, span: &Span, report: &mut Report) -> bool {
    if carries_password(text, span, report) {
        return false;
    }
    let good = is_ip(text) || is_host_name(text);
    if !good {
        let port = text.rsplit_once(':').is_some_and(|(host, port)| !host.contains(':') && port.parse::<u16>().is_ok());
        let help = match (port, text.contains('@')) {
            (true, _) => Some("the port stands in `ssh: { port: ... }`"),
            (_, true) => Some("the account stands in `ssh: { user: ... }`"),
            _ => None,
        };
        report
            .error(Kind::BadAddress, span, format!("{} is not a host name or address", quote(text)))
            .label("a host name or an address is expected here")
            .help_if(help.map(str::to_owned));
    }
    good
}

/// An IP address; an IPv6 one may have a zone behind it (`fe80::1%eth0`).
pub(super) fn is_ip(text: &str) -> bool {
    match text.split_once('%') {
        None => text.parse::<std::net::IpAddr>().is_ok(),
        Some((address, zone)) => {
            let named = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-' | '@');
            address.parse::<std::net::Ipv6Addr>().is_ok() && (1..16).contains(&zone.len()) && zone.chars().all(named)
        }
    }
}

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-'))
}

/// Whether a text is `HOST:PORT`, or `HOST` alone where the port may be left out.
fn is_host_port(text: &str, port_needed: bool) -> bool {
    // An IPv6 address without brackets has no port.
    if !port_needed && is_ip(text) {
        return true;
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let named = is_host_name(host) || is_ip(host);
    named && port.map_or(!port_needed, |port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Checks `HOST:PORT`.
pub(super) fn host_port(text: &Spanned<Text>, report: &mut Report) {
    if !is_host_port(&text.value, true) {
        report
            .error(Kind::BadAddress, &text.span, format!("{} is not `HOST:PORT`", quote(&text.value)))
            .label("for example `localhost:80`");
    }
}

/// The address of a host's own SOAP router: `http://HOST[:PORT]/PATH`.
pub(super) fn soap(url: Option<&Spanned<Text>>, report: &mut Report) -> String {
    let Some(url) = url else { return Campaign::SOAP.to_owned() };
    if carries_password(&url.value, &url.span, report) {
        return String::new();
    }
    let clean = !url.value.chars().any(|c| c.is_whitespace() || c.is_control());
    let authority = url.value.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
    if !clean || !authority.is_some_and(|(authority, _)| is_host_port(authority, false)) {
        report
            .error(Kind::BadUrl, &url.span, "this is no address of a SOAP router")
            .label(format!("`http://HOST[:PORT]/PATH` is expected here, for example {}", Campaign::SOAP))
            .help("it is asked on the host itself, so that no password crosses the network: hence plain http");
    }
    url.value.0.clone()
}

/// Checks a jump host, or several separated by commas: `[USER@]HOST[:PORT]`.
pub(super) fn jump(text: &Spanned<Text>, report: &mut Report) {
    if text.value.split(',').any(|hop| carries_password(hop, &text.span, report)) {
        return;
    }
    let good = |hop: &str| match hop.rsplit_once('@') {
        Some((user, host)) => is_account(user) && is_host_port(host, false),
        None => is_host_port(hop, false),
    };
    if !text.value.split(',').map(str::trim).all(good) {
        report
            .error(Kind::BadAddress, &text.span, format!("{} is not a jump host", quote(&text.value)))
            .label("`[USER@]HOST[:PORT]` is expected here");
    }
}

/// Types of host keys, with what their base64 text begins with (RFC 4253, section 6.6: a key begins with its type's name).
const KEY_TYPES: [(&str, &str); 5] = [
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY"),
    ("ecdsa-sha2-nistp384", "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ"),
    ("ecdsa-sha2-nistp521", "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjE"),
    ("ssh-rsa", "AAAAB3NzaC1yc2E"),
];

/// Checks a pinned host key.
pub(super) fn host_key(text: &Spanned<Text>, report: &mut Report) {
    let value: &str = &text.value;
    let mut words = value.split_whitespace();
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let base64 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    let known = KEY_TYPES.iter().find(|(name, _)| *name == kind);
    if known.is_some_and(|(_, begin)| key.starts_with(begin) && key.len() > begin.len() + 20 && key.len() % 4 == 0 && base64(key)) {
        return;
    }
    let help = if value.starts_with("SHA256:") || value.starts_with("MD5:") {
        "a fingerprint is not enough: `ssh-keyscan HOST` prints the key, compare it and paste it"
    } else {
        "it is the content of `/etc/ssh/ssh_host_ed25519_key.pub` on the host"
    };
    report
        .error(Kind::BadHostKey, &text.span, format!("{} is not a public host key", quote(value)))
        .label("`ssh-ed25519 AAAAC3NzaC1lZDI1NTE5...` is expected here")
        .help(help);
}

/// Checks a number against its limits.
pub(super) fn number(value: &Spanned<u64>, what: &str, from: u64, to: u64, report: &mut Report) -> u64 {
    if value.value < from || value.value > to {
        report
            .error(Kind::OutOfRange, &value.span, format!("{what} cannot be {}", value.value))
            .label(format!("a number from {from} to {to} is expected here"));
    }
    value.value.clamp(from, to)
}

/// Seconds of `90`, `90s`, `15m`, `2h`.
pub(super) fn duration(text: &Spanned<Text>, report: &mut Report) -> Option<u64> {
    let value = text.value.trim();
    let digits = value.trim_end_matches(|char: char| !char.is_ascii_digit());
    let unit = match &value[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let seconds =
        unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit)).filter(|seconds| (1..=7 * 86_400).contains(seconds));
    if seconds.is_none() {
        report
            .error(Kind::BadDuration, &text.span, format!("{} is not a length of time", quote(value)))
            .label("for example `90s`, `15m` or `2h`, at most seven days");
    }
    seconds
}

/// A number of bytes with its unit: `512KiB`, `20MiB`, `3GiB`; never zero.
pub(super) fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), *bytes)))?;
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// Checks a time zone's form (`Europe/Paris`); postupgrade itself knows which ones there are.
pub(super) fn timezone(text: &Spanned<Text>, report: &mut Report) {
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '+' | '-'));
    if !text.value.split('/').all(part) || !text.value.starts_with(|first: char| first.is_ascii_alphabetic()) {
        report
            .error(Kind::BadTimezone, &text.span, format!("{} is not a time zone", quote(&text.value)))
            .label("for example `Europe/Paris` or `UTC`");
    }
}

/// Checks the name of a step, a stable word such as `stop.nlserver`; modules keep the vendor's spelling (`start.inMail`).
pub(super) fn step(text: &str, span: &Span, report: &mut Report) -> bool {
    let good = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_'));
    if !good {
        report
            .error(Kind::BadStepName, span, format!("{} is not a step name", quote(text)))
            .label("words with `.` between them and a lower-case letter first, for example `stop.nlserver`");
    }
    good
}
