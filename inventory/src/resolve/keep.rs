//! Backups that are kept off the hosts.

use super::host::Placed;
use super::value;
use crate::model::{Keep, KeepAt, KeepOf, Platform};
use crate::problem::{Kind, Report, Span, did_you_mean, quote};
use crate::raw;
use crate::read::{Spanned, Text};
use std::collections::HashMap;

/// The word for the workstation. No host can be meant by it.
const WORKSTATION: &str = "workstation";

/// What is kept of a host's backups, and where.
pub(super) fn keep(raw: &raw::Keep, at: &Span, host: &str, platform: &str, report: &mut Report) -> Option<Keep> {
    let of = match &raw.of {
        Some(list) => list.value.iter().map(|word| word.value).collect(),
        None => vec![KeepOf::Installation, KeepOf::Database],
    };
    let limit = raw.limit.as_ref().and_then(|text| rate(text, report));
    let keys = raw.encrypt_to.iter().flat_map(|keys| &keys.value.0);
    let keys: Vec<String> = keys.filter_map(|key| public_key(key, report)).collect();
    if keys.is_empty() && raw.encrypt_to.as_ref().is_none_or(|keys| keys.value.0.is_empty()) && !of.is_empty() {
        let at = raw.encrypt_to.as_ref().map_or_else(|| report.head(at), |keys| keys.span.clone());
        report
            .error(Kind::KeepForm, &at, "backups leave a host encrypted only, and `keep` names no public key")
            .label("add `encrypt_to:`")
            .help("`age-keygen -o backup.key` makes a pair of keys: the public one goes here, the file stays with whoever may restore");
    }
    let Some(to) = &raw.to else {
        if !of.is_empty() && !report.gave_up(at, "to") {
            let at = report.head(at);
            report
                .error(Kind::KeepForm, &at, "`keep` does not say where backups are kept")
                .label("add `to:`")
                .help("`to: workstation`, or `to: HOST` for a host of the fleet");
        }
        return None;
    };
    let dir = raw.dir.as_ref().map(|dir| {
        value::path(&dir.value, false, &dir.span, report);
        let dir = value::substitute(&dir.value, host, platform, &dir.span, report);
        dir.trim_end_matches('/').to_owned()
    });
    let to = match (&*to.value, dir) {
        (WORKSTATION, None) => KeepAt::Workstation,
        (WORKSTATION, Some(_)) => {
            // Of a layer further away it is meant for the hosts that keep theirs on a host.
            if let Some(dir) = raw.dir.as_ref().filter(|dir| at.start <= dir.span.start && dir.span.end <= at.end) {
                report
                    .error(Kind::KeepForm, &dir.span, "`dir` is a directory of a host")
                    .label("on the workstation, copies are in the directory of the run")
                    .help("remove this key; `--state-dir` says where the directories of runs are");
            }
            KeepAt::Workstation
        }
        (name, dir) => KeepAt::Host { name: name.to_owned(), dir: dir.unwrap_or_default() },
    };
    Some(Keep { to, of, limit, encrypt_to: keys })
}

/// The hosts that have their backups kept on another one, checked once all hosts are known.
#[derive(Default)]
pub(super) struct Keeping(Vec<(String, String, Span)>);

impl Keeping {
    pub(super) fn add(&mut self, placed: &Placed) {
        if let (Some(Keep { to: KeepAt::Host { name, .. }, of, .. }), Some(at)) = (&placed.host.keep, &placed.keep)
            && !of.is_empty()
        {
            self.0.push((placed.host.name.clone(), name.clone(), at.clone()));
        }
    }

    /// Reports those that cannot be. The same mistake in a block for many hosts is said once.
    pub(super) fn check(&self, platforms: &[Platform], report: &mut Report) {
        let hosts = || platforms.iter().flat_map(|platform| &platform.hosts);
        let mut said: Vec<usize> = Vec::new();
        for (host, to, at) in &self.0 {
            let problem = match hosts().find(|other| other.name == *to) {
                None => Some((
                    format!("{} is no host of the fleet, and cannot keep backups", quote(to)),
                    did_you_mean(to, hosts().map(|host| host.name.as_str()).chain([WORKSTATION]))
                        .unwrap_or_else(|| format!("add it with `roles: [database]`, or write `to: {WORKSTATION}`")),
                )),
                Some(other) if other.is_windows() => {
                    Some((format!("{} runs Windows, and cannot keep backups", quote(to)), "name another host".to_owned()))
                }
                Some(_) if to == host => Some((
                    format!("{} would keep its own backups", quote(to)),
                    format!("give this host a `keep: {{ to: {WORKSTATION} }}` of its own, or `keep: {{ of: [] }}`"),
                )),
                Some(_) => None,
            };
            if let Some((message, help)) = problem
                && !said.contains(&at.start)
            {
                said.push(at.start);
                report.error(Kind::KeepHost, at, message).label("a host that is another one is expected here").help(help);
            }
        }
    }
}

/// Gives those that say no directory the one of the host that keeps their backups.
pub(super) fn settle(platforms: &mut [Platform]) {
    let state: HashMap<String, String> =
        platforms.iter().flat_map(|platform| &platform.hosts).map(|host| (host.name.clone(), host.host_state.clone())).collect();
    for host in platforms.iter_mut().flat_map(|platform| &mut platform.hosts) {
        if let Some(Keep { to: KeepAt::Host { name, dir }, .. }) = &mut host.keep
            && dir.is_empty()
            && let Some(state) = state.get(name)
        {
            *dir = format!("{state}/kept");
        }
    }
}

/// Bytes a second: `20MiB`, `512KiB`; `/s` may follow.
fn rate(text: &Spanned<Text>, report: &mut Report) -> Option<u64> {
    let rate = value::bytes(text.value.strip_suffix("/s").unwrap_or(&text.value));
    if rate.is_none() {
        report
            .error(Kind::BadBytes, &text.span, format!("{} is no number of bytes a second", quote(&text.value)))
            .label("for example `20MiB`, `512KiB`");
    }
    rate
}

/// A public key of age, checked to be whole: a slip of one letter is found here and not after the night of the migration.
fn public_key(text: &Spanned<Text>, report: &mut Report) -> Option<String> {
    let value: &str = &text.value;
    let label = if value.starts_with("AGE-SECRET-KEY-") {
        report.mask(&text.span);
        report
            .error(Kind::PlainSecret, &text.span, "this is a secret key, and a public one is expected")
            .label("`age-keygen -y FILE` prints the public key")
            .help("who has read this file can read the backups: make another pair of keys");
        return None;
    } else if value.starts_with("ssh-") {
        "keys of SSH are not used here: `age-keygen` makes one that is"
    } else if !value.starts_with("age1") {
        "a public key of age begins with `age1`"
    } else if !is_bech32(value, "age", 32) {
        "the key is not whole: its checksum does not hold"
    } else {
        return Some(value.to_owned());
    };
    report.error(Kind::BadPublicKey, &text.span, format!("{} is no public key of age", quote(value))).label(label);
    None
}

/// Whether a text is lower-case Bech32 (BIP 173, without its limit of 90 characters) of so many bytes under this name.
fn is_bech32(text: &str, name: &str, bytes: usize) -> bool {
    const ALPHABET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let Some(data) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('1')) else { return false };
    let digit = |char: u8| ALPHABET.iter().position(|known| *known == char).and_then(|at| u32::try_from(at).ok());
    let Some(digits) = data.bytes().map(digit).collect::<Option<Vec<u32>>>() else { return false };
    // Six digits of checksum; the last digit of the content has at most four bits too many, and they are zero.
    let content = (bytes * 8).div_ceil(5);
    let spare = content * 5 - bytes * 8;
    if digits.len() != content + 6 || digits.get(content - 1).is_none_or(|last| last & ((1 << spare) - 1) != 0) {
        return false;
    }
    let high = name.bytes().map(|char| u32::from(char >> 5));
    let low = name.bytes().map(|char| u32::from(char & 31));
    let all = high.chain([0]).chain(low).chain(digits.iter().copied());
    all.fold(1, checksum_step) == 1
}

fn checksum_step(sum: u32, digit: u32) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = sum >> 25;
    let sum = ((sum & 0x01ff_ffff) << 5) ^ digit;
    GENERATOR.iter().enumerate().fold(sum, |sum, (bit, generator)| if (top >> bit) & 1 == 1 { sum ^ generator } else { sum })
}
