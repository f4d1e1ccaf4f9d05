//! Which algorithms are offered to a server, and in which order.

use russh::client::Config;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{Preferred, cipher, kex, mac};
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

/// The client's configuration for a server. `known`: the types of host key that are known for it, which it is asked for first, so
/// that a server with several keys proves the one that can be checked. `legacy` adds what servers of OpenSSH 5.3's age need.
/// `bastion`: other connections will go through this one.
pub(super) fn config(known: &[Algorithm], legacy: bool, bastion: bool) -> Config {
    let defaults = Config::default();
    let mut host_keys: Vec<Algorithm> = HOST_KEYS.to_vec();
    if legacy {
        host_keys.extend_from_slice(LEGACY_HOST_KEYS);
    }
    // Stable: within known and unknown ones the order above stays.
    host_keys.sort_by_key(|algorithm| !known.iter().any(|known| same_type(known, algorithm)));
    Config {
        preferred: Preferred {
            kex: list(KEX, LEGACY_KEX, legacy, KEX_EXTENSIONS),
            key: Cow::Owned(host_keys),
            cipher: list(CIPHERS, LEGACY_CIPHERS, legacy, &[]),
            mac: list(MACS, LEGACY_MACS, legacy, &[]),
            ..Preferred::default()
        },
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MAX,
        inactivity_timeout: None,
        nodelay: true,
        channel_buffer_size: if bastion { BASTION_BUFFER } else { defaults.channel_buffer_size },
        ..defaults
    }
}

fn list<T: Copy>(normal: &'static [T], legacy: &'static [T], legacy_too: bool, last: &'static [T]) -> Cow<'static, [T]> {
    let legacy = if legacy_too { legacy } else { &[] };
    Cow::Owned([normal, legacy, last].concat())
}

/// An RSA key can be used with any of the RSA signatures.
fn same_type(known: &Algorithm, offered: &Algorithm) -> bool {
    matches!((known, offered), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. })) || known == offered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_are_asked_for_first() {
        let config = config(&[Algorithm::Rsa { hash: None }], false, false);
        assert_eq!(config.preferred.key.first(), Some(&Algorithm::Rsa { hash: Some(HashAlg::Sha512) }));
        assert_eq!(config.preferred.key.len(), HOST_KEYS.len());
    }

    #[test]
    fn old_algorithms_only_on_request() {
        let (modern, legacy) = (config(&[], false, false), config(&[], true, false));
        for (old, text) in [(kex::DH_G1_SHA1, "kex"), (kex::DH_G14_SHA1, "kex"), (kex::DH_GEX_SHA1, "kex")] {
            assert!(!modern.preferred.kex.contains(&old), "{text}");
            assert!(legacy.preferred.kex.contains(&old), "{text}");
        }
        assert!(!modern.preferred.mac.contains(&mac::HMAC_SHA1));
        assert!(legacy.preferred.mac.contains(&mac::HMAC_SHA1));
        assert!(!modern.preferred.cipher.contains(&cipher::AES_128_CBC));
        assert!(!modern.preferred.key.contains(&Algorithm::Rsa { hash: None }));
        assert_eq!(modern.preferred.kex.first(), Some(&kex::CURVE25519));
    }
}
