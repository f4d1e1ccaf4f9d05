//! Keeping an encrypted copy of a file off the host. The runner encrypts and offers it, the supervisor sends what the controller
//! fetches of it: only it has a connection.
//!
//! What the copy is, is written down in the run's directory. An attempt that follows offers the same copy, so that the controller goes on
//! where it was; encrypting anew would give other bytes.

use super::archive::checksum_file;
use super::{Context, Done, Result, Trouble};
use crate::runner::files::{Offer, StepFiles, read_json};
use crate::runner::{notify, publish};
use crate::{digest, durable};
use age::{EncryptError, Encryptor, Recipient, x25519};
use proto::message::Offered;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How often the supervisor's answer is looked for.
const PAUSE: Duration = Duration::from_millis(50);

/// What a copy is.
#[derive(Debug, Serialize, Deserialize)]
struct Copy {
    source: String,
    encrypt_to: Vec<String>,
    file: Offered,
}

pub(crate) fn run(source: &str, name: &str, encrypt_to: &[String], context: &mut Context<'_>) -> Result {
    let Some((files, kept)) = context.files.and_then(|files| Some((files, files.kept()?))) else {
        return Err("a file can only be offered to the controller by the agent's own account".to_owned().into());
    };
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(format!("`{name}` is no name of a copy").into());
    }
    let cannot = |what: &str, path: &Path, e: io::Error| Trouble::from(format!("cannot {what} {}: {e}", path.display()));
    durable::private_dir(&kept).map_err(|e| cannot("create", &kept, e))?;
    let (note, encrypted) = (kept.join(format!("{name}.json")), durable::beside(Path::new(source), ".age"));
    let copy = match known(&note, source, encrypt_to, &encrypted, context)? {
        Some(copy) => copy,
        None => {
            let file = encrypt(Path::new(source), &encrypted, encrypt_to, context)?;
            let copy = Copy { source: source.to_owned(), encrypt_to: encrypt_to.to_vec(), file };
            let json = serde_json::to_vec(&copy).map_err(|e| e.to_string())?;
            durable::write(&note, &json, 0o600).map_err(|e| cannot("write", &note, e))?;
            copy
        }
    };
    offer(files, &Offer { path: encrypted.clone(), file: copy.file.clone() }, context)?;
    let mark = kept.join(format!("{name}.kept"));
    let json = serde_json::to_vec(&copy).map_err(|e| e.to_string())?;
    durable::write(&mark, &json, 0o600).map_err(|e| cannot("write", &mark, e))?;
    // What is kept elsewhere only takes room here.
    if let Err(e) = fs::remove_file(&encrypted) {
        context.note(&format!("the encrypted copy {} stays: {e}", encrypted.display()));
    }
    context.note(&format!("{source} is kept as {name}: {} bytes, SHA-256 {}", copy.file.size, copy.file.sha256));
    Ok(Done::default())
}

/// The copy that an attempt before this one made, where it is whole.
fn known(
    note: &Path,
    source: &str,
    encrypt_to: &[String],
    encrypted: &Path,
    context: &mut Context<'_>,
) -> std::result::Result<Option<Copy>, Trouble> {
    let Ok(copy) = read_json::<Copy>(note) else { return Ok(None) };
    if copy.source != source || copy.encrypt_to != encrypt_to {
        return Ok(None);
    }
    let Ok(mut file) = digest::open(encrypted) else { return Ok(None) };
    let seen = digest::of_open(&mut file, &mut |_| context.go_on())?;
    let whole = seen.is_ok_and(|(sha256, size)| sha256 == copy.file.sha256 && size == copy.file.size);
    if whole {
        context.note(&format!("{} is there already", encrypted.display()));
    }
    Ok(whole.then_some(copy))
}

/// Encrypts a file; what came out.
fn encrypt(source: &Path, dest: &Path, encrypt_to: &[String], context: &mut Context<'_>) -> std::result::Result<Offered, Trouble> {
    let part = durable::beside(dest, ".part");
    let written = write(source, &part, encrypt_to, context).and_then(|file| {
        fs::rename(&part, dest).map_err(|e| format!("cannot put {} in place: {e}", dest.display()))?;
        Ok(file)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    let file = written?;
    context.note(&format!("encrypted {} to {} ({} bytes)", source.display(), dest.display(), file.size));
    Ok(file)
}

fn write(source: &Path, part: &Path, encrypt_to: &[String], context: &mut Context<'_>) -> std::result::Result<Offered, Trouble> {
    let cannot =
        |e: &dyn std::fmt::Display| Trouble::from(format!("cannot encrypt {} to {}: {e}", source.display(), part.display()));
    let recipients = encrypt_to
        .iter()
        .map(|key| key.parse::<x25519::Recipient>().map_err(|e| Trouble::from(format!("`{key}` is no public key of age: {e}"))));
    let recipients = recipients.collect::<std::result::Result<Vec<_>, _>>()?;
    // Not in age's words: they bring a library of languages, a tenth of the agent, and its macros order arguments by chance, so that each
    // build of the agent would be another one. Of its reasons, only these exist here.
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|key| key as &dyn Recipient)).map_err(|e| match e {
        EncryptError::MissingRecipients => cannot(&"no key is given"),
        EncryptError::Io(e) => cannot(&e),
        _ => cannot(&"these keys cannot be used together"),
    })?;
    let mut plain = digest::open(source).map_err(|e| cannot(&e))?;
    let _ = fs::remove_file(part);
    // The directory may belong to others: what is there under this name by now is not written to.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part).map_err(|e| cannot(&e))?;
    let sink = Hashing { file, hash: Sha256::new(), length: 0 };
    let mut writer = encryptor.wrap_output(sink).map_err(|e| cannot(&e))?;
    let mut failed = None;
    let (plain_sha256, plain_size) = digest::of_open(&mut plain, &mut |bytes| {
        context.go_on()?;
        writer.write_all(bytes).map_err(|e| cannot(&e))
    })?
    .unwrap_or_else(|e| {
        failed = Some(e);
        (String::new(), 0)
    });
    if let Some(e) = failed {
        return Err(cannot(&e));
    }
    let Hashing { file, hash, length } = writer.finish().map_err(|e| cannot(&e))?;
    file.sync_all().map_err(|e| cannot(&e))?;
    let checksum = checksum_file(source);
    let recorded = digest::recorded(&checksum).map_err(|e| cannot(&format!("{}: {e}", checksum.display())))?;
    match recorded.filter(|recorded| *recorded != plain_sha256) {
        Some(recorded) => Err(format!(
            "{} is not what it was: expected SHA-256 {recorded}, as its .sha256 file says, seen {plain_sha256}",
            source.display()
        )
        .into()),
        None => Ok(Offered { sha256: digest::hex(&hash.finalize()), size: length, plain_sha256, plain_size }),
    }
}

/// Offers a file until the controller has it.
fn offer(files: &StepFiles, offer: &Offer, context: &mut Context<'_>) -> std::result::Result<(), Trouble> {
    let cannot = |e: &dyn std::fmt::Display| Trouble::from(format!("cannot offer {}: {e}", offer.path.display()));
    let _ = fs::remove_file(files.answer());
    let json = serde_json::to_vec(offer).map_err(|e| cannot(&e))?;
    publish(&files.offer(), &json).map_err(|e| cannot(&e))?;
    notify();
    while !files.answer().exists() {
        context.pause(PAUSE)?;
    }
    let refused = fs::read_to_string(files.answer()).map_err(|e| cannot(&e))?;
    let _ = fs::remove_file(files.offer());
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("{} is not kept: {refused}; another attempt goes on from there", offer.path.display()).into())
}

/// Hashes what goes to disk on its way.
struct Hashing {
    file: File,
    hash: Sha256,
    length: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
