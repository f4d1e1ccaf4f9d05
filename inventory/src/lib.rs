//! The fleet as operators describe it.
//!
//! [`load`] reads a YAML inventory, reports **all** of its errors at once with line and column, and resolves it into a [`Fleet`]:
//! defaults applied, ranges expanded, names checked, secrets left as references. This crate knows no SSH and no plan, and
//! resolves no secret.
//!
//! The way of a file: `yaml` makes a tree that knows its places, `read` and `raw` make typed values of it, `resolve` makes the
//! fleet; each goes on after an error and reports to one `problem::Report`.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod document;
mod legacy;
pub mod model;
mod problem;
mod range;
mod raw;
mod read;
mod reference;
mod resolve;
mod schema;
mod selector;
mod template;
mod yaml;

pub use document::{Document, Fault};
pub use legacy::{Legacy, OldAlgorithm};
pub use model::*;
pub use problem::{Kind, Problem, Problems, Severity};
pub use range::{RangeError, expand, fold_names};
pub use reference::ReferenceError;
pub use schema::schema;
pub use selector::{Selector, SelectorError};
pub use template::init_template;

use problem::{Report, Source as Text};
use read::Read;
use std::path::Path;
use std::sync::Arc;

/// An inventory that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The fleet.
    pub fleet: Fleet,
    /// What a person should look at all the same.
    pub warnings: Problems,
}

/// What the caller knows beside the file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The names of all steps that the runbooks have: overrides of other steps are errors. `None`: not checked.
    pub steps: Option<&'a [&'a str]>,
}

/// Reads an inventory. Relative paths in it start at its directory.
///
/// # Errors
/// Everything that is wrong with it, at once; also when the file cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    load_with(path, Options::default())
}

/// As [`load`], with what the caller knows.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, options: Options<'_>) -> Result<Loaded, Problems> {
    let shown = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let base = path.parent().unwrap_or(Path::new(""));
    match read_bytes(path) {
        Ok(bytes) => parse_bytes(&bytes, &shown, base, options),
        Err(error) => {
            let mut report = Report::new(Arc::new(Text::new(shown, "")));
            report
                .file_error(Kind::Unreadable, format!("cannot read {}: {error}", path.display()))
                .help("give the inventory with `-i FILE` or $CARAVAN_INVENTORY; `caravan init` writes one to start from");
            Err(report.finish())
        }
    }
}

/// The file, or its beginning where it is larger than an inventory can be.
fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads an inventory from bytes that may be anything.
///
/// # Errors
/// As [`load`].
pub fn parse_bytes(bytes: &[u8], file_name: &str, base: &Path, options: Options<'_>) -> Result<Loaded, Problems> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_with(text, file_name, base, options),
        Err(error) => {
            let readable = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let source = Text::new(file_name, readable);
            let (line, column) = source.position(source.text().len());
            let mut report = Report::new(Arc::new(source));
            report
                .file_error(Kind::Encoding, format!("{file_name}:{line}:{column}: the file is not UTF-8 from here on"))
                .help("save it as UTF-8");
            Err(report.finish())
        }
    }
}

/// Reads an inventory from its text. `file_name` is what messages call it, relative paths start at `base`.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file_name: &str, base: &Path) -> Result<Loaded, Problems> {
    parse_with(text, file_name, base, Options::default())
}

/// As [`parse`], with what the caller knows.
///
/// # Errors
/// As [`load`].
pub fn parse_with(text: &str, file_name: &str, base: &Path, options: Options<'_>) -> Result<Loaded, Problems> {
    // Editors on Windows put a byte order mark in front, which means nothing in UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let too_large = text.len() > yaml::MAX_BYTES;
    let mut report = Report::new(Arc::new(Text::new(file_name, if too_large { "" } else { text })));
    if too_large {
        report
            .file_error(Kind::TooLarge, format!("{file_name} is larger than {} MiB", yaml::MAX_BYTES >> 20))
            .help("split the fleet into several inventories");
        return Err(report.finish());
    }
    let raw = yaml::tree(&mut report).and_then(|tree| raw::Inventory::read(&tree, &mut report));
    let name = Path::new(file_name).file_stem().map_or_else(|| file_name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    let fleet = raw.map(|raw| resolve::fleet(&raw, &name, base, options.steps, &mut report));
    match fleet {
        Some(fleet) if !report.has_errors() => Ok(Loaded { fleet, warnings: report.finish() }),
        _ => Err(report.finish()),
    }
}
