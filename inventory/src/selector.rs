//! Selectors: which hosts a command is about.

use crate::model::{Fleet, Host, Platform};
use crate::problem::{nearest, quote};
use crate::range;
use std::collections::BTreeSet;
use std::fmt;

/// Hosts, as somebody names them on the command line: a host's name, a glob (`*`, `?`), a range (`trk[01-03,05]`),
/// `platform:NAME`, `role:NAME`; a comma unites, `!` takes away: `platform:emea,!trk09`. With nothing but `!` terms everything
/// else is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    text: String,
    negative: bool,
    matcher: Matcher,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    /// Globs of host names; the several names of a range.
    Hosts(Vec<String>),
    Platform(String),
    Role(String),
}

/// Why a selector cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It is empty, or a part of it is.
    #[error("the selector `{0}` has an empty part: write host names, globs, `platform:NAME` or `role:NAME`, separated by commas")]
    Empty(String),
    /// A word before `:` that is neither `platform` nor `role`.
    #[error("unknown selector `{text}`: only `platform:NAME` and `role:NAME` have a colon{}", hint(.suggestion))]
    Unknown {
        /// The part.
        text: String,
        /// What was most likely meant.
        suggestion: Option<String>,
    },
    /// A range that cannot be used.
    #[error("`{text}` is no usable range: {error}")]
    Range {
        /// The part.
        text: String,
        /// Why.
        error: range::RangeError,
    },
    /// A part that stands for no host of the fleet: most likely a typing error, and dangerous behind `!`.
    #[error("`{text}` matches no host of {fleet}{}", hint(.suggestion))]
    NoMatch {
        /// The part.
        text: String,
        /// The fleet.
        fleet: String,
        /// What was most likely meant.
        suggestion: Option<String>,
    },
    /// The parts take all hosts away from each other.
    #[error("`{text}` leaves no host of {fleet}")]
    Nothing {
        /// The selector.
        text: String,
        /// The fleet.
        fleet: String,
    },
}

fn hint(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |text| format!("; did you mean {}?", quote(text)))
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// When a part is empty, has an unknown word before a colon, or a range that cannot be used.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let terms = parts(text).into_iter().map(|part| Term::parse(part.trim(), text)).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }

    /// Whether a host is meant.
    pub fn matches(&self, platform: &Platform, host: &Host) -> bool {
        let any = |negative: bool| self.terms.iter().any(|term| term.negative == negative && term.matches(platform, host));
        let all_negative = self.terms.iter().all(|term| term.negative);
        (all_negative || any(false)) && !any(true)
    }

    /// The names of all hosts of a fleet that are meant.
    ///
    /// # Errors
    /// When a part matches no host, or nothing is left.
    pub fn resolve(&self, fleet: &Fleet) -> Result<BTreeSet<String>, SelectorError> {
        let hosts = || fleet.platforms.iter().flat_map(|platform| platform.hosts.iter().map(move |host| (platform, host)));
        for term in &self.terms {
            if let Some(name) = term.missing(fleet) {
                return Err(SelectorError::NoMatch { text: name, fleet: fleet.name.clone(), suggestion: term.suggestion(fleet) });
            }
        }
        let names: BTreeSet<_> =
            hosts().filter(|(platform, host)| self.matches(platform, host)).map(|(_, host)| host.name.clone()).collect();
        if names.is_empty() {
            return Err(SelectorError::Nothing { text: self.to_string(), fleet: fleet.name.clone() });
        }
        Ok(names)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let not = if term.negative { "!" } else { "" };
            write!(f, "{separator}{not}{}", term.text)?;
        }
        Ok(())
    }
}

/// The parts between commas; those inside brackets belong to a range.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, char) in text.char_indices() {
        match char {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl Term {
    fn parse(part: &str, whole: &str) -> Result<Self, SelectorError> {
        let (negative, text) = match part.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, part),
        };
        let empty = || SelectorError::Empty(whole.to_owned());
        let matcher = match text.split_once(':') {
            // A range can have a colon too.
            Some((word, name)) if !word.contains('[') => {
                if name.trim().is_empty() {
                    return Err(empty());
                }
                match word {
                    "platform" => Matcher::Platform(name.trim().to_owned()),
                    "role" => Matcher::Role(name.trim().to_owned()),
                    _ => {
                        let suggestion = nearest(word, ["platform", "role"]).map(|word| format!("{word}:{name}"));
                        return Err(SelectorError::Unknown { text: text.to_owned(), suggestion });
                    }
                }
            }
            _ if text.is_empty() => return Err(empty()),
            _ => Matcher::Hosts(range::expand(text).map_err(|error| SelectorError::Range { text: text.to_owned(), error })?),
        };
        Ok(Self { text: text.to_owned(), negative, matcher })
    }

    fn matches(&self, platform: &Platform, host: &Host) -> bool {
        match &self.matcher {
            Matcher::Hosts(globs) => globs.iter().any(|pattern| glob(pattern, &host.name)),
            Matcher::Platform(pattern) => glob(pattern, &platform.name),
            Matcher::Role(pattern) => host.roles.iter().any(|role| glob(pattern, role.as_str())),
        }
    }

    /// The part that no host answers to: of a range, the first of its names.
    fn missing(&self, fleet: &Fleet) -> Option<String> {
        let hosts = || fleet.platforms.iter().flat_map(|platform| platform.hosts.iter().map(move |host| (platform, host)));
        match &self.matcher {
            Matcher::Hosts(globs) => globs.iter().find(|pattern| !hosts().any(|(_, host)| glob(pattern, &host.name))).cloned(),
            _ => (!hosts().any(|(platform, host)| self.matches(platform, host))).then(|| self.text.clone()),
        }
    }

    fn suggestion(&self, fleet: &Fleet) -> Option<String> {
        let platforms = || fleet.platforms.iter();
        match &self.matcher {
            Matcher::Platform(name) => {
                nearest(name, platforms().map(|platform| platform.name.as_str())).map(|name| format!("platform:{name}"))
            }
            Matcher::Role(name) => {
                let roles = platforms().flat_map(|platform| platform.topology.roles());
                nearest(name, roles.map(|role| role.as_str())).map(|name| format!("role:{name}"))
            }
            Matcher::Hosts(_) => {
                let missing = self.missing(fleet)?;
                let hosts = || platforms().flat_map(|platform| platform.hosts.iter().map(|host| host.name.as_str()));
                // A short name, a platform's or a role's name: what is typed most often instead.
                let short = hosts().find(|name| name.strip_prefix(missing.as_str()).is_some_and(|rest| rest.starts_with('.')));
                let platform =
                    platforms().find(|platform| platform.name == missing).map(|platform| format!("platform:{}", platform.name));
                let role = platforms()
                    .flat_map(|platform| platform.topology.roles())
                    .find(|role| role.as_str() == missing)
                    .map(|role| format!("role:{role}"));
                short.map(str::to_owned).or(platform).or(role).or_else(|| nearest(&missing, hosts()).map(str::to_owned))
            }
        }
    }
}

/// Whether a name matches a pattern with `*` and `?`, without regard to case, as DNS compares names. Linear in the product of the
/// lengths: only the last `*` is ever returned to.
fn glob(pattern: &str, name: &str) -> bool {
    let pattern: Vec<_> = pattern.chars().map(|char| char.to_ascii_lowercase()).collect();
    let name: Vec<_> = name.chars().map(|char| char.to_ascii_lowercase()).collect();
    let (mut at, mut star, mut index) = (0, None, 0);
    while index < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, index));
                at += 1;
            }
            Some(char) if *char == '?' || *char == name[index] => {
                at += 1;
                index += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    index = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|char| *char == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn fleet() -> Fleet {
        let text = include_str!("../tests/valid/large.yaml");
        crate::parse(text, "fleet.yaml", Path::new("")).unwrap().fleet
    }

    fn folded(selector: &str) -> String {
        let names = Selector::parse(selector).unwrap().resolve(&fleet()).unwrap();
        crate::fold_names(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn each_form_selects() {
        assert_eq!(folded("mkt1.emea.example.net"), "mkt1.emea.example.net");
        assert_eq!(folded("MKT1.*.example.net"), "mkt1.apac.example.net, mkt1.emea.example.net");
        assert_eq!(folded("trk[01-03,05].emea.example.net"), "trk[01-03,05].emea.example.net");
        assert_eq!(folded("trk[1:2].apac.example.net"), "trk[1-2].apac.example.net");
        assert_eq!(folded("trk0?.emea*"), "trk[01-09].emea.example.net");
        assert_eq!(folded("role:power-cluster"), "pc[1-2].apac.example.net");
        assert_eq!(folded("platform:emea-test"), "camp-test.emea.example.net");
        assert_eq!(
            folded("platform:emea,!role:tracking,!db1.*"),
            "mid1.emea.example.net, mkt1.emea.example.net, mta[1-3].emea.example.net"
        );
        assert_eq!(folded("!platform:emea*, !platform:apac"), "retail-front[1-2].example.net, retail-mkt.example.net");
    }

    #[test]
    fn what_matches_nothing_is_an_error_that_says_what_was_meant() {
        let fleet = fleet();
        for (selector, message) in [
            ("", "has an empty part"),
            ("a,,b", "has an empty part"),
            ("!", "has an empty part"),
            ("role:", "has an empty part"),
            ("rolle:mta", "did you mean `role:mta`?"),
            ("trk[3-1]", "counts down"),
            ("trk[01-14].emea.example.net", "`trk13.emea.example.net` matches no host of fleet"),
            ("role:trackng", "did you mean `role:tracking`?"),
            ("platform:emaa", "did you mean `platform:emea`?"),
            ("mkt1", "did you mean `mkt1.emea.example.net`?"),
            ("apac", "did you mean `platform:apac`?"),
            ("mta", "did you mean `role:mta`?"),
            ("platform:emea,!trk99.emea.example.net", "did you mean `trk09.emea.example.net`?"),
            ("role:mta,!role:mta", "leaves no host of fleet"),
        ] {
            let error = Selector::parse(selector).and_then(|selector| selector.resolve(&fleet)).unwrap_err().to_string();
            assert!(error.contains(message), "{selector}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_says_why(text in "[a-z0-9!,:*?\\[\\]é .-]{0,40}") {
            if let Ok(selector) = Selector::parse(&text) {
                let again = Selector::parse(&selector.to_string()).unwrap();
                prop_assert_eq!(again, selector);
            }
        }

        #[test]
        fn globs_agree_with_trying_everything(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn slow(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => slow(rest, name) || name.split_first().is_some_and(|(_, tail)| slow(pattern, tail)),
                    (Some((first, rest)), Some((char, tail))) => (*first == b'?' || first == char) && slow(rest, tail),
                    _ => false,
                }
            }
            prop_assert_eq!(glob(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
