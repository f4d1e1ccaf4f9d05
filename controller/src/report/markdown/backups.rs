//! What can be gone back to, and where copies of it are.

use super::{heading, table};
use crate::view::text::date_time;
use crate::view::{KeptView, PlatformView, View};

/// The backups of one platform, where the run made some.
pub(super) fn backups(out: &mut String, view: &View, platform: &PlatformView) {
    let of_platform = |number: usize| view.platforms.get(number).is_some_and(|other| other.name == platform.name);
    let made: Vec<_> = view.backups.iter().filter(|known| known.platform.is_some_and(of_platform)).collect();
    if made.is_empty() {
        return;
    }
    heading(out, 3, "Backups");
    let rows = made.iter().map(|known| {
        let kept = known.kept.as_ref().map_or_else(|| "no".to_owned(), kept);
        vec![
            known.host.clone(),
            known.file.clone(),
            known.size.to_string(),
            known.sha256.clone(),
            known.made.map_or_else(String::new, |made| date_time(Some(made))),
            kept,
        ]
    });
    table(out, &["Host", "File", "Bytes", "SHA-256", "Made (UTC)", "Kept off the host"], rows);
}

fn kept(kept: &KeptView) -> String {
    let KeptView { to, file, size, sha256, encrypt_to, time } = kept;
    let keys = encrypt_to.join(", ");
    format!("{to}: {file}, {size} bytes, SHA-256 {sha256}, since {} UTC, encrypted to {keys}", date_time(*time))
}
