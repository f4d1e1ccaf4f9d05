//! Any bytes as a configuration file of a host: an edit that is carried out can be read back, and a second one changes nothing.
//! The first line of the input is the path of an element.

use agent::xml;
use proto::step::{XmlChange, XmlEdit};

/// Tries one input.
pub fn run(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(element) = std::str::from_utf8(&bytes[..end]) else { return };
    let file = &bytes[end + 1..];
    let _ = xml::values(file, element, "name");
    let change = XmlChange::Set("a<b>&\"c'".to_owned());
    let edits = [XmlEdit { element: element.to_owned(), attribute: "name".to_owned(), change }];
    let Ok(edited) = xml::edit(file, &edits, &mut |_| Err("there is no other file".to_owned())) else { return };
    let values = xml::values(&edited, element, "name").expect("an edited file can be read");
    assert!(values.iter().all(|value| value.as_deref() == Some("a<b>&\"c'")), "{values:?}");
    let again = xml::edit(&edited, &edits, &mut |_| Err("there is no other file".to_owned()));
    assert_eq!(again.as_deref(), Ok(edited.as_slice()), "the second edit changed something");
}
