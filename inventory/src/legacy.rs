//! Algorithms of SSH that nobody should use any more, and that a host may be allowed all the same, because it knows no others.

use schemars::JsonSchema;
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// An algorithm of OpenSSH 5.3's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub enum OldAlgorithm {
    /// Key exchange in a group of the server's choice, hashed with SHA-1.
    #[schemars(rename = "diffie-hellman-group-exchange-sha1")]
    GroupExchangeSha1,
    /// Key exchange in a group of 2048 bits, hashed with SHA-1.
    #[schemars(rename = "diffie-hellman-group14-sha1")]
    Group14Sha1,
    /// Key exchange in a group of 1024 bits, hashed with SHA-1.
    #[schemars(rename = "diffie-hellman-group1-sha1")]
    Group1Sha1,
    /// Signatures of RSA keys, of the server and ours, with SHA-1.
    #[schemars(rename = "ssh-rsa")]
    SshRsa,
    /// AES in CBC mode.
    #[schemars(rename = "aes128-cbc")]
    Aes128Cbc,
    /// AES in CBC mode.
    #[schemars(rename = "aes192-cbc")]
    Aes192Cbc,
    /// AES in CBC mode.
    #[schemars(rename = "aes256-cbc")]
    Aes256Cbc,
    /// Message authentication with SHA-1.
    #[schemars(rename = "hmac-sha1")]
    HmacSha1,
    /// Message authentication with SHA-1, after encryption.
    #[schemars(rename = "hmac-sha1-etm@openssh.com")]
    HmacSha1Etm,
}

impl OldAlgorithm {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 9] = [
        Self::GroupExchangeSha1,
        Self::Group14Sha1,
        Self::Group1Sha1,
        Self::SshRsa,
        Self::Aes128Cbc,
        Self::Aes192Cbc,
        Self::Aes256Cbc,
        Self::HmacSha1Etm,
        Self::HmacSha1,
    ];

    /// Its name in the protocol, which is also how the inventory writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GroupExchangeSha1 => "diffie-hellman-group-exchange-sha1",
            Self::Group14Sha1 => "diffie-hellman-group14-sha1",
            Self::Group1Sha1 => "diffie-hellman-group1-sha1",
            Self::SshRsa => "ssh-rsa",
            Self::Aes128Cbc => "aes128-cbc",
            Self::Aes192Cbc => "aes192-cbc",
            Self::Aes256Cbc => "aes256-cbc",
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha1Etm => "hmac-sha1-etm@openssh.com",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// Which of them a host is allowed: none (the default), some, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy(Vec<OldAlgorithm>);

impl Legacy {
    /// None (`legacy: false`).
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// All (`legacy: true`).
    pub fn all() -> Self {
        Self(OldAlgorithm::ALL.to_vec())
    }

    /// These.
    pub fn only(algorithms: impl IntoIterator<Item = OldAlgorithm>) -> Self {
        let chosen: Vec<_> = algorithms.into_iter().collect();
        Self(OldAlgorithm::ALL.into_iter().filter(|algorithm| chosen.contains(algorithm)).collect())
    }

    /// Whether an algorithm of this name is among them.
    pub fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|algorithm| algorithm.as_str() == name)
    }
}

/// As the inventory writes it: `false`, `true`, or the list.
impl Serialize for Legacy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.len() {
            0 => serializer.serialize_bool(false),
            all if all == OldAlgorithm::ALL.len() => serializer.serialize_bool(true),
            some => {
                let mut list = serializer.serialize_seq(Some(some))?;
                self.0.iter().try_for_each(|algorithm| list.serialize_element(algorithm.as_str()))?;
                list.end()
            }
        }
    }
}
