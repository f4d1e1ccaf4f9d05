//! Files of keys that no server may have (ssh_config(5) `RevokedHostKeys`).

use russh::keys::PublicKey;
use std::path::{Path, PathBuf};

/// What a key revocation list (`ssh-keygen -k`) begins with.
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

/// One such file: public keys, one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RevokedKeys {
    path: PathBuf,
    /// Each key with the number of its line; or why the file says nothing.
    keys: Result<Vec<(usize, PublicKey)>, String>,
}

/// What such a file says of a server's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Revocation {
    /// It is revoked at this place.
    Revoked(String),
    /// It cannot be known, and why.
    Unknown(String),
}

impl RevokedKeys {
    /// Reads a file. One that cannot be understood as a whole revokes everything, as for OpenSSH.
    pub(super) fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).map_err(|error| format!("cannot be read ({error})"));
        Self { keys: bytes.and_then(|bytes| parse(&bytes)), path: path.to_owned() }
    }

    /// Where it was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of keys that a server relies on; nothing where all of them are good.
    pub(super) fn judge(&self, relied_on: &[&PublicKey]) -> Option<Revocation> {
        let path = self.path.display();
        match &self.keys {
            Err(why) => Some(Revocation::Unknown(format!("{path}, the file of revoked keys, {why}"))),
            Ok(keys) => keys
                .iter()
                .find(|(_, revoked)| relied_on.iter().any(|key| key.key_data() == revoked.key_data()))
                .map(|(number, _)| Revocation::Revoked(format!("{path}:{number}"))),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<(usize, PublicKey)>, String> {
    if bytes.starts_with(KRL_MAGIC) {
        return Err("is a KRL, which Caravan does not read: name one with the keys themselves, one a line".to_owned());
    }
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let words: Vec<&str> = line.split_ascii_whitespace().take(2).collect();
        let key =
            PublicKey::from_openssh(&words.join(" ")).map_err(|error| format!("has no public key in line {number} ({error})"));
        Ok((number, key?))
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMtnHWINtJsfaSVyUKLYt6NVD+8Zuudc+axEy/iiJCYf";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN76zuqnjypL54/w4763l7q1Sn3IBYHptJ5wcYfEWkeC";

    fn judged(content: &[u8]) -> Option<Revocation> {
        let file = RevokedKeys { path: PathBuf::from("revoked"), keys: parse(content) };
        file.judge(&[&PublicKey::from_openssh(ONE).unwrap()])
    }

    #[test]
    fn listed_keys_are_revoked_and_what_is_not_understood_is_said() {
        assert_eq!(judged(b""), None);
        assert_eq!(judged(format!("# {ONE}\n\n{OTHER} a comment\r\n").as_bytes()), None);
        let place = Some(Revocation::Revoked("revoked:3".to_owned()));
        assert_eq!(judged(format!("# lost\n{OTHER}\n  {ONE} a comment\n").as_bytes()), place);
        let unknown = |content: &[u8]| match judged(content) {
            Some(Revocation::Unknown(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(unknown(b"SSHKRL\n\0\0\0\0\x01").contains("is a KRL"));
        assert!(unknown(format!("{OTHER}\nmkt1 {OTHER}\n").as_bytes()).contains("line 2"));
        let missing = RevokedKeys::read(Path::new("/nonexistent/revoked"));
        assert!(matches!(missing.judge(&[]), Some(Revocation::Unknown(why)) if why.contains("cannot be read")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in any::<Vec<u8>>()) {
            let _ = judged(&bytes);
        }
    }
}
