//! Which algorithms are offered to a server, and in which order.

use super::offered::Offered;
use inventory::{Legacy, OldAlgorithm};
use russh::client::{Config, GexParams};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{AlgorithmKind, Names, Preferred, cipher, kex, mac};
use std::borrow::Cow;
use std::time::Duration;

/// Ask whether the peer is there after this much silence; give up after [`KEEPALIVE_MAX`] questions without answer.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_MAX: usize = 3;
/// How many messages a channel of a bastion's connection holds before reading stops. Reading stops for the whole connection then:
/// one host whose output nobody takes must not hold up the others behind the same bastion.
const BASTION_BUFFER: usize = 4096;

/// curve25519 first: OpenSSH's own default (sntrup761) and ML-KEM cost a client several times as much CPU, and every connection of
/// a fleet pays it.
const KEX: &[kex::Name] = &[
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::MLKEM768X25519_SHA256,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G14_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
];

/// What OpenSSH 5.3 (RHEL 6, Debian 6) has, and nobody should use any more.
const LEGACY_KEX: &[kex::Name] = &[kex::DH_GEX_SHA1, kex::DH_G14_SHA1, kex::DH_G1_SHA1];

/// The group that is asked for where the server chooses one: at least, preferably, at most so many bits. As OpenSSH asks for ciphers of 128
/// bits; one of 8192 bits would cost seconds.
const GROUP: (usize, usize, usize) = (2048, 3072, 8192);

const KEX_EXTENSIONS: &[kex::Name] = &[kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];

/// AES-GCM first: it has hardware support on both sides of nearly every connection.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];
const LEGACY_CIPHERS: &[cipher::Name] = &[cipher::AES_128_CBC, cipher::AES_192_CBC, cipher::AES_256_CBC];

const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];
const LEGACY_MACS: &[mac::Name] = &[mac::HMAC_SHA1_ETM, mac::HMAC_SHA1];

const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];
/// RSA signed with SHA-1 (`ssh-rsa`).
const LEGACY_HOST_KEYS: &[Algorithm] = &[Algorithm::Rsa { hash: None }];
/// Its name, for host keys and for our own.
pub(super) const SSH_RSA: &str = OldAlgorithm::SshRsa.as_str();

/// The names of algorithms that ssh_config asks for, in its order; `None` where it leaves them to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) kex: Option<Vec<String>>,
    pub(super) host_keys: Option<Vec<String>>,
    pub(super) ciphers: Option<Vec<String>>,
    pub(super) macs: Option<Vec<String>>,
    /// For our own keys (`PubkeyAcceptedAlgorithms`).
    pub(super) keys: Option<Vec<String>>,
}

impl Lists {
    /// The keyword of ssh_config that narrows the algorithms of a kind.
    pub(super) fn limits(&self, kind: &AlgorithmKind) -> Option<&'static str> {
        let (list, keyword) = match kind {
            AlgorithmKind::Kex => (&self.kex, "KexAlgorithms"),
            AlgorithmKind::Key => (&self.host_keys, "HostKeyAlgorithms"),
            AlgorithmKind::Cipher => (&self.ciphers, "Ciphers"),
            AlgorithmKind::Mac => (&self.macs, "MACs"),
            AlgorithmKind::Compression => return None,
        };
        list.as_ref().map(|_| keyword)
    }
}

/// What people call a kind of algorithms.
pub(super) fn kind_name(kind: &AlgorithmKind) -> &'static str {
    match kind {
        AlgorithmKind::Kex => "key exchange",
        AlgorithmKind::Key => "host key",
        AlgorithmKind::Cipher => "cipher",
        AlgorithmKind::Mac => "MAC",
        AlgorithmKind::Compression => "compression",
    }
}

/// What of the algorithms that were agreed on nobody should use any more, each once.
pub(super) fn outdated(names: &Names) -> Vec<&'static str> {
    let agreed =
        [names.kex.as_ref(), names.key.as_str(), names.cipher.as_ref(), names.client_mac.as_ref(), names.server_mac.as_ref()];
    OldAlgorithm::ALL.into_iter().map(OldAlgorithm::as_str).filter(|old| agreed.contains(old)).collect()
}

/// The outdated algorithms that a server needs to be allowed, so that there is one of each kind; `None` where these would not help.
pub(super) fn needed(offered: &Offered) -> Option<Vec<OldAlgorithm>> {
    let among = |list: &[String], name: &str| list.iter().any(|theirs| theirs == name);
    let mut needed = Vec::new();
    let mut need = |list: &[String], modern: bool| {
        if modern {
            return Some(());
        }
        needed.push(list.iter().find_map(|name| OldAlgorithm::named(name))?);
        Some(())
    };
    need(&offered.kex, KEX.iter().any(|name| among(&offered.kex, name.as_ref())))?;
    need(&offered.host_keys, HOST_KEYS.iter().any(|key| among(&offered.host_keys, key.as_str())))?;
    need(&offered.ciphers, CIPHERS.iter().any(|name| among(&offered.ciphers, name.as_ref())))?;
    // These carry their own authentication.
    let sealed = [cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];
    let sealed = sealed.iter().any(|name| among(&offered.ciphers, name.as_ref()));
    need(&offered.macs, sealed || MACS.iter().any(|name| among(&offered.macs, name.as_ref())))?;
    (!needed.is_empty()).then_some(needed)
}

/// What allows outdated algorithms in ssh_config. Without `+`: what OpenSSH offers by itself, it does not say (hmac-sha1).
pub(super) fn settings(needed: &[OldAlgorithm]) -> String {
    fn names<T: AsRef<str>>(old: &[T]) -> Vec<&str> {
        old.iter().map(AsRef::as_ref).collect()
    }
    let keywords = [
        ("KexAlgorithms", names(LEGACY_KEX)),
        ("HostKeyAlgorithms", vec![SSH_RSA]),
        ("Ciphers", names(LEGACY_CIPHERS)),
        ("MACs", names(LEGACY_MACS)),
    ];
    let settings = keywords.iter().filter_map(|(keyword, old)| {
        let names: Vec<&str> = needed.iter().map(|needed| needed.as_str()).filter(|name| old.contains(name)).collect();
        (!names.is_empty()).then(|| format!("{keyword} {}", names.join(",")))
    });
    settings.collect::<Vec<_>>().join("; ")
}

/// What a server is offered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer<'a> {
    /// The types of host key that are known for it, which it is asked for first, so that a server with several keys proves the one that
    /// can be checked.
    pub(super) known: &'a [Algorithm],
    /// Certificate authorities are known for it: it is asked for a certificate.
    pub(super) certificates: bool,
    /// What of OpenSSH 5.3's age it is offered too.
    pub(super) legacy: &'a Legacy,
    /// Other connections will go through this one.
    pub(super) bastion: bool,
    /// What ssh_config asks for.
    pub(super) lists: &'a Lists,
}

/// The client's configuration for a server.
///
/// # Errors
/// ssh_config allows only algorithms that are not there.
pub(super) fn config(offer: Offer<'_>) -> Result<Config, String> {
    let Offer { known, certificates, legacy, bastion, lists } = offer;
    let defaults = Config::default();
    let mut host_keys: Vec<Algorithm> = HOST_KEYS.to_vec();
    if legacy.allows(SSH_RSA) {
        host_keys.extend_from_slice(LEGACY_HOST_KEYS);
    }
    let plain = |name: &str| name.strip_suffix("-cert-v01@openssh.com").map(str::to_owned);
    let mut certified = host_keys.clone();
    if let Some(wanted) = &lists.host_keys {
        certified = wanted.iter().filter_map(|name| Algorithm::new(&plain(name)?).ok()).collect();
        host_keys = wanted.iter().filter(|name| plain(name).is_none()).filter_map(|name| Algorithm::new(name).ok()).collect();
        let ours = |algorithm: &Algorithm| HOST_KEYS.contains(algorithm) || LEGACY_HOST_KEYS.contains(algorithm);
        certified.retain(ours);
        host_keys.retain(ours);
        if host_keys.is_empty() && (certified.is_empty() || !certificates) {
            return Err(nothing("HostKeyAlgorithms", wanted));
        }
    }
    // Stable: within known and unknown ones the order above stays.
    host_keys.sort_by_key(|algorithm| !known.iter().any(|known| same_type(known, algorithm)));
    Ok(Config {
        preferred: Preferred {
            kex: list("KexAlgorithms", (KEX, LEGACY_KEX), legacy, lists.kex.as_deref(), KEX_EXTENSIONS)?,
            key: Cow::Owned(host_keys),
            host_key_certificates: Cow::Owned(if certificates { certified } else { Vec::new() }),
            cipher: list("Ciphers", (CIPHERS, LEGACY_CIPHERS), legacy, lists.ciphers.as_deref(), &[])?,
            mac: list("MACs", (MACS, LEGACY_MACS), legacy, lists.macs.as_deref(), &[])?,
            ..Preferred::default()
        },
        gex: GexParams::for_client_config(GROUP.0, GROUP.1, GROUP.2).unwrap_or_default(),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MAX,
        inactivity_timeout: None,
        nodelay: true,
        channel_buffer_size: if bastion { BASTION_BUFFER } else { defaults.channel_buffer_size },
        ..defaults
    })
}

/// Ours in our order, or those of ours that ssh_config asks for, in its own.
fn list<T: Copy + AsRef<str>>(
    keyword: &str,
    (normal, old): (&'static [T], &'static [T]),
    legacy: &Legacy,
    wanted: Option<&[String]>,
    last: &'static [T],
) -> Result<Cow<'static, [T]>, String> {
    let chosen: Vec<T> = match wanted {
        None => normal.iter().chain(old.iter().filter(|name| legacy.allows(name.as_ref()))).copied().collect(),
        Some(wanted) => {
            let ours = || normal.iter().chain(old);
            let found: Vec<T> = wanted.iter().filter_map(|name| ours().find(|our| our.as_ref() == name).copied()).collect();
            if found.is_empty() {
                return Err(nothing(keyword, wanted));
            }
            found
        }
    };
    Ok(Cow::Owned([&chosen, last].concat()))
}

fn nothing(keyword: &str, wanted: &[String]) -> String {
    format!("ssh_config allows only {keyword} that Caravan does not have: {}", wanted.join(", "))
}

/// An RSA key can be used with any of the RSA signatures.
fn same_type(known: &Algorithm, offered: &Algorithm) -> bool {
    matches!((known, offered), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || known == offered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(known: &[Algorithm], legacy: &Legacy, lists: &Lists) -> Result<Config, String> {
        config(Offer { known, certificates: false, legacy, bastion: false, lists })
    }

    #[test]
    fn what_ssh_config_asks_for_is_offered_in_its_order() {
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let lists = Lists {
            kex: names(&["sntrup761x25519-sha512", "diffie-hellman-group14-sha1", "curve25519-sha256"]),
            ciphers: names(&["aes256-ctr"]),
            host_keys: names(&["rsa-sha2-256", "ssh-ed25519-cert-v01@openssh.com"]),
            ..Lists::default()
        };
        let config = offer(&[], &Legacy::none(), &lists).unwrap();
        assert_eq!(&config.preferred.kex[..2], [kex::DH_G14_SHA1, kex::CURVE25519]);
        assert_eq!(config.preferred.cipher.as_ref(), [cipher::AES_256_CTR]);
        assert_eq!(config.preferred.key.as_ref(), [Algorithm::Rsa { hash: Some(HashAlg::Sha256) }]);
        let none = Lists { macs: names(&["umac-64@openssh.com"]), ..Lists::default() };
        assert!(offer(&[], &Legacy::none(), &none).unwrap_err().contains("umac-64"));
    }

    #[test]
    fn known_types_are_asked_for_first() {
        let config = offer(&[Algorithm::Rsa { hash: None }], &Legacy::none(), &Lists::default()).unwrap();
        assert_eq!(config.preferred.key.first(), Some(&Algorithm::Rsa { hash: Some(HashAlg::Sha512) }));
        assert_eq!(config.preferred.key.len(), HOST_KEYS.len());
    }

    #[test]
    fn old_algorithms_only_on_request() {
        let of = |legacy: Legacy| offer(&[], &legacy, &Lists::default()).unwrap();
        let (modern, legacy) = (of(Legacy::none()), of(Legacy::all()));
        for (old, text) in [(kex::DH_G1_SHA1, "kex"), (kex::DH_G14_SHA1, "kex"), (kex::DH_GEX_SHA1, "kex")] {
            assert!(!modern.preferred.kex.contains(&old), "{text}");
            assert!(legacy.preferred.kex.contains(&old), "{text}");
        }
        assert_eq!((modern.gex.min_group_size(), modern.gex.preferred_group_size()), (2048, 3072));
        assert!(!modern.preferred.mac.contains(&mac::HMAC_SHA1));
        assert!(legacy.preferred.mac.contains(&mac::HMAC_SHA1));
        assert!(!modern.preferred.cipher.contains(&cipher::AES_128_CBC));
        assert!(!modern.preferred.key.contains(&Algorithm::Rsa { hash: None }));
        assert_eq!(modern.preferred.kex.first(), Some(&kex::CURVE25519));
        // One by one.
        let one = of(Legacy::only([OldAlgorithm::Group14Sha1]));
        assert!(one.preferred.kex.contains(&kex::DH_G14_SHA1) && !one.preferred.kex.contains(&kex::DH_G1_SHA1));
        assert_eq!((&one.preferred.mac, &one.preferred.cipher), (&modern.preferred.mac, &modern.preferred.cipher));
        // Each name of the inventory is one that there is.
        let all: Vec<&str> =
            [LEGACY_KEX.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), LEGACY_CIPHERS.iter().map(AsRef::as_ref).collect()]
                .concat()
                .into_iter()
                .chain(LEGACY_MACS.iter().map(AsRef::as_ref))
                .chain([SSH_RSA])
                .collect();
        assert!(OldAlgorithm::ALL.iter().all(|old| all.contains(&old.as_str())) && all.len() == OldAlgorithm::ALL.len());
    }

    #[test]
    fn what_a_server_needs_is_worked_out() {
        let list = |names: &str| names.split(' ').map(str::to_owned).collect();
        let old = Offered {
            kex: list("diffie-hellman-group-exchange-sha1 diffie-hellman-group14-sha1"),
            host_keys: list("ssh-rsa ssh-dss"),
            ciphers: list("aes128-ctr aes128-cbc"),
            macs: list("hmac-md5 hmac-sha1"),
        };
        assert_eq!(needed(&old), Some(vec![OldAlgorithm::GroupExchangeSha1, OldAlgorithm::SshRsa, OldAlgorithm::HmacSha1]));
        assert_eq!(
            settings(&needed(&old).unwrap()),
            "KexAlgorithms diffie-hellman-group-exchange-sha1; HostKeyAlgorithms ssh-rsa; MACs hmac-sha1"
        );
        assert_eq!(needed(&Offered { ciphers: list("aes128-gcm@openssh.com"), ..old.clone() }).map(|needed| needed.len()), Some(2));
        assert_eq!(needed(&Offered { host_keys: list("ssh-dss"), ..old }), None);
    }
}
