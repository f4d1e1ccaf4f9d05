//! Which operating systems a v7 build supports: data, as far as the vendor's compatibility notes state it (domain: prerequisite 8).

use crate::release::Release;

/// Whether a build supports an operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Support {
    /// It does.
    Yes,
    /// It does, for RHEL; this is one of its rebuilds, which the vendor does not name.
    Rebuild,
    /// It does not; the text says since when, or that it never did.
    No(String),
    /// The notes that this table comes from do not say it.
    Unstated,
}

/// From this version on, `CURRENT_SYSTEMS` holds.
const CURRENT: &str = "7.4";
/// What current builds support.
const CURRENT_SYSTEMS: &[&str] = &["rhel-8", "rhel-9", "debian-11", "debian-12", "debian-13"];
/// What earlier builds supported too, and the version that dropped it, where it is stated.
const DROPPED: &[(&str, Option<&str>)] = &[
    ("rhel-6", Some("19.1")),
    ("debian-7", Some("19.1")),
    ("debian-8", Some("21.1.3")),
    ("rhel-7", Some("7.3.4")),
    ("debian-9", None),
    ("debian-10", None),
];

/// Whether the v7 build of this version (`7.4.1`, `21.1.3`) supports an operating system (`debian-11`).
pub(super) fn support(os: &str, version: &str) -> Support {
    let family = family(os);
    let current = Release::of(version) >= Release::of(CURRENT);
    let supported = |rebuild: bool| if rebuild { Support::Rebuild } else { Support::Yes };
    if CURRENT_SYSTEMS.contains(&family.as_str()) {
        return if current { supported(family != os) } else { Support::Unstated };
    }
    match DROPPED.iter().find(|(system, _)| *system == family) {
        Some((_, Some(since))) if Release::of(version) >= Release::of(since) => Support::No(format!("dropped at {since}")),
        Some((_, Some(_))) => supported(family != os),
        Some((_, None)) if current => Support::No(format!("{CURRENT} no longer has it")),
        Some((_, None)) => Support::Unstated,
        None => Support::No("no v7 build is known to support it".to_owned()),
    }
}

/// The name under which the vendor speaks of an operating system: rebuilds of RHEL count as RHEL.
pub(super) fn family(os: &str) -> String {
    match os.split_once('-') {
        Some(("centos" | "rocky" | "almalinux" | "ol" | "oracle", version)) => format!("rhel-{version}"),
        _ => os.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_ends_of_support_hold() {
        let no = |text: &str| Support::No(text.to_owned());
        let cases = [
            ("debian-11", "7.4.1", Support::Yes),
            ("debian-13", "7.4.2", Support::Yes),
            ("rhel-9", "7.4.1", Support::Yes),
            ("rocky-8", "7.4.1", Support::Rebuild),
            ("rhel-7", "7.3.4", no("dropped at 7.3.4")),
            ("rhel-7", "7.3.3", Support::Yes),
            ("rhel-7", "21.1.3", Support::Yes),
            ("centos-7", "7.2.1", Support::Rebuild),
            ("debian-8", "21.1.3", no("dropped at 21.1.3")),
            ("debian-8", "7.0 20.3", Support::Yes),
            ("debian-8", "7.2.1", no("dropped at 21.1.3")),
            ("rhel-6", "19.1", no("dropped at 19.1")),
            ("rhel-6", "18.10", Support::Yes),
            ("debian-10", "7.4.1", no("7.4 no longer has it")),
            ("debian-10", "7.3.5", Support::Unstated),
            ("debian-12", "7.3.4", Support::Unstated),
            ("ubuntu-22", "7.4.1", no("no v7 build is known to support it")),
        ];
        for (os, version, expected) in cases {
            assert_eq!(support(os, version), expected, "{os} with {version}");
        }
    }
}
