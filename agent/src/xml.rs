//! Reads and edits attributes of XML files, and keeps every other byte.
//!
//! `quick-xml` is the locator: it knows where tags begin and end. Edits are splices of the file's own bytes, so that comments,
//! order, white space, quotes and encoding stay as the people who keep these files by hand left them.

use proto::step::{XmlChange, XmlEdit};
use quick_xml::Reader;
use quick_xml::events::Event;
use std::borrow::Cow;
use std::ops::Range;

/// One attribute of a start tag, as places in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Where its name stands.
    pub name: Range<usize>,
    /// Where its value stands, with the quotes.
    pub quoted: Range<usize>,
}

/// One element, as places in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its start tag, with `<` and `>`.
    pub tag: Range<usize>,
    /// Where its end tag begins; nothing where it closes itself.
    pub end: Option<usize>,
    /// Where the element's name ends: the first place for an attribute.
    pub name_end: usize,
    /// Its attributes, in order.
    pub attributes: Vec<Attribute>,
}

impl Element {
    fn attribute(&self, bytes: &[u8], name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| bytes.get(a.name.clone()) == Some(name.as_bytes()))
    }

    /// The value of an attribute, with entities resolved.
    pub fn value(&self, bytes: &[u8], name: &str) -> Option<String> {
        let quoted = bytes.get(self.attribute(bytes, name)?.quoted.clone())?;
        let raw = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        // What is not UTF-8 is read as ISO 8859-1, in which every byte is the character of its number.
        let text = std::str::from_utf8(raw).map_or_else(|_| raw.iter().map(|byte| char::from(*byte)).collect(), str::to_owned);
        Some(unescape(&text))
    }
}

/// Every element that a path from the root selects (`serverconf/shared/*/xtk`; a segment `*` matches any element), in the order of
/// the file.
///
/// # Errors
/// The bytes are not well-formed XML in an ASCII-compatible encoding; the text says where.
pub fn select(bytes: &[u8], path: &str) -> Result<Vec<Element>, String> {
    let base = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let text = bytes.get(base..).unwrap_or_default();
    if text.contains(&0) || text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err("is not XML in UTF-8 or another ASCII-compatible encoding".to_owned());
    }
    let wanted: Vec<&str> = path.split('/').collect();
    // For each open element: how many segments of the path it and its ancestors match, if they do; and which of those found it is.
    let mut open: Vec<(Option<usize>, Option<usize>)> = Vec::new();
    let mut found: Vec<Element> = Vec::new();
    let text = locatable(text);
    let mut reader = Reader::from_reader(text.as_ref());
    loop {
        let begin = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|e| format!("is not well-formed XML at byte {}: {e}", reader.error_position()))?;
        let end = reader.buffer_position() as usize;
        match event {
            Event::Start(ref tag) | Event::Empty(ref tag) => {
                let above = open.last().map_or(Some(0), |(depth, _)| *depth);
                let depth = above.filter(|depth| {
                    wanted.get(*depth).is_some_and(|segment| *segment == "*" || *segment == tag.name().into_inner())
                });
                let depth = depth.map(|depth| depth + 1);
                let selected = depth == Some(wanted.len());
                if selected {
                    found.push(scan_tag(bytes, base + begin..base + end)?);
                }
                if matches!(event, Event::Start(_)) {
                    open.push((depth, selected.then(|| found.len() - 1)));
                }
            }
            Event::End(_) => {
                let index = open.pop().and_then(|(_, index)| index);
                if let Some(element) = index.and_then(|index| found.get_mut(index)) {
                    element.end = Some(base + begin);
                }
            }
            Event::Eof if !open.is_empty() => return Err("is not well-formed XML: it ends inside an element".to_owned()),
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

/// The same text, place for place, in UTF-8: the locator takes nothing else. Old configurations may be in a single-byte encoding,
/// in which everything that XML is made of is ASCII.
fn locatable(text: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(text).is_ok() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.iter().map(|byte| if byte.is_ascii() { *byte } else { b'x' }).collect())
}

/// Finds the attributes of one start tag.
fn scan_tag(bytes: &[u8], tag: Range<usize>) -> Result<Element, String> {
    let malformed = |at: usize| format!("is not well-formed XML: a tag cannot be read at byte {at}");
    let byte = |at: usize| if at < tag.end { bytes.get(at).copied() } else { None };
    let run = |mut at: usize, of: &dyn Fn(u8) -> bool| {
        while byte(at).is_some_and(of) {
            at += 1;
        }
        at
    };
    let space = |b: u8| b.is_ascii_whitespace();
    let word = |b: u8| !b.is_ascii_whitespace() && !matches!(b, b'=' | b'/' | b'>' | b'"' | b'\'' | b'<');
    if byte(tag.start) != Some(b'<') {
        return Err(malformed(tag.start));
    }
    let name_end = run(tag.start + 1, &word);
    let mut attributes = Vec::new();
    let mut at = name_end;
    loop {
        at = run(at, &space);
        match byte(at) {
            Some(b'/' | b'>') => return Ok(Element { tag, end: None, name_end, attributes }),
            None => return Err(malformed(at)),
            Some(_) => {}
        }
        let name = at..run(at, &word);
        let equals = run(name.end, &space);
        if name.is_empty() || byte(equals) != Some(b'=') {
            return Err(malformed(at));
        }
        let open = run(equals + 1, &space);
        let quote = byte(open).filter(|b| matches!(b, b'"' | b'\'')).ok_or_else(|| malformed(open))?;
        let close = run(open + 1, &|b| b != quote);
        if byte(close) != Some(quote) {
            return Err(malformed(open));
        }
        attributes.push(Attribute { name, quoted: open..close + 1 });
        at = close + 1;
    }
}

/// The values of an attribute on every element that a path selects; `None` where the element has no such attribute.
///
/// # Errors
/// See [`select`].
pub fn values(bytes: &[u8], path: &str, attribute: &str) -> Result<Vec<Option<String>>, String> {
    Ok(select(bytes, path)?.iter().map(|element| element.value(bytes, attribute)).collect())
}

/// Carries out edits, in order. `other` reads the file that a [`XmlChange::CopyFrom`] names.
///
/// # Errors
/// The file (or the other one) cannot be read as XML, a value is to be set on an element that does not exist, or a name is not one.
pub fn edit(bytes: &[u8], edits: &[XmlEdit], other: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>) -> Result<Vec<u8>, String> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        let splices = splices(&bytes, edit, other)?;
        // From the back, so that places further ahead stay where they are.
        for (place, with) in splices.into_iter().rev() {
            bytes.splice(place, with);
        }
    }
    Ok(bytes)
}

type Splice = (Range<usize>, Vec<u8>);

fn splices(bytes: &[u8], edit: &XmlEdit, other: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>) -> Result<Vec<Splice>, String> {
    let XmlEdit { element: path, attribute, change } = edit;
    check_name(attribute)?;
    let elements = select(bytes, path)?;
    let put = |element: &Element, quoted: Vec<u8>| match element.attribute(bytes, attribute) {
        Some(found) => (found.quoted.clone(), quoted),
        None => {
            let at = element.attributes.last().map_or(element.name_end, |last| last.quoted.end);
            (at..at, [b" ", attribute.as_bytes(), b"=", quoted.as_slice()].concat())
        }
    };
    match change {
        XmlChange::Set(value) => {
            if elements.is_empty() {
                return Err(format!("has no element {path} to set {attribute} on"));
            }
            Ok(elements.iter().map(|element| put(element, quote(value))).collect())
        }
        XmlChange::Ensure(value) if elements.is_empty() => Ok(vec![added(bytes, path, attribute, &quote(value))?]),
        XmlChange::Ensure(value) => Ok(elements.iter().map(|element| put(element, quote(value))).collect()),
        XmlChange::Rename(name) => {
            check_name(name)?;
            let mut splices = Vec::new();
            for element in &elements {
                let Some(found) = element.attribute(bytes, attribute) else { continue };
                if name != attribute && element.attribute(bytes, name).is_some() {
                    return Err(format!("has both {attribute} and {name} on {path}; one of them has to go first"));
                }
                splices.push((found.name.clone(), name.clone().into_bytes()));
            }
            Ok(splices)
        }
        XmlChange::CopyFrom(file) => {
            let theirs = other(file)?;
            let sources = select(&theirs, path).map_err(|e| format!("cannot take {attribute} from {file}: it {e}"))?;
            let mut splices = Vec::new();
            for (index, source) in sources.iter().enumerate() {
                let Some(value) = source.attribute(&theirs, attribute).and_then(|found| theirs.get(found.quoted.clone())) else {
                    continue;
                };
                let element = elements.get(index).ok_or_else(|| format!("has no element {path} to carry {attribute} over to"))?;
                splices.push(put(element, value.to_vec()));
            }
            Ok(splices)
        }
        XmlChange::NameAs { name, file } => {
            check_name(name)?;
            let theirs = other(file)?;
            let sources = select(&theirs, path).map_err(|e| format!("cannot be named as in {file}: it {e}"))?;
            let mut splices = Vec::new();
            let named = sources.iter().enumerate().filter(|(_, source)| source.attribute(&theirs, name).is_some());
            for (index, _) in named {
                let element = elements.get(index).ok_or_else(|| format!("lacks an element {path} that {file} has"))?;
                let Some(found) = element.attribute(bytes, attribute) else { continue };
                if element.attribute(bytes, name).is_some() {
                    return Err(format!("has both {attribute} and {name} on {path}; one of them has to go first"));
                }
                splices.push((found.name.clone(), name.clone().into_bytes()));
            }
            Ok(splices)
        }
    }
}

/// A new element with one attribute, as the last one inside its parent: on a line of its own where the others are, and as deep as they
/// are.
fn added(bytes: &[u8], path: &str, attribute: &str, quoted: &[u8]) -> Result<Splice, String> {
    let cannot = |why: &str| format!("has no element {path} to set {attribute} on, and none can be added: {why}");
    let (above, name) = path.rsplit_once('/').ok_or_else(|| cannot("it would be the root"))?;
    check_name(name).map_err(|_| cannot("that is not an XML name"))?;
    let parents = select(bytes, above)?;
    let [parent] = parents.as_slice() else {
        return Err(cannot(&format!("it has {} of {above}, which has to be there once", parents.len())));
    };
    let new = [b"<", name.as_bytes(), b" ", attribute.as_bytes(), b"=", quoted, b"/>"].concat();
    let line: &[u8] = if bytes.windows(2).any(|pair| pair == b"\r\n") { b"\r\n" } else { b"\n" };
    let outer = indentation(bytes, parent.tag.start);
    let siblings = select(bytes, &format!("{above}/*"))?;
    let inner = match siblings.last() {
        Some(last) => indentation(bytes, last.tag.start).map(<[u8]>::to_vec),
        None => outer.map(|outer| [outer, if outer.contains(&b'\t') { b"\t" } else { b"  " }].concat()),
    };
    let Some(end) = parent.end else {
        // Before: `<parent/>`. Its `/>` becomes `>`, and it gets an end tag.
        let parent_name = bytes.get(parent.tag.start + 1..parent.name_end).unwrap_or_default();
        let with = match (inner, outer) {
            (Some(inner), Some(outer)) => [b">", line, &inner, &new, line, outer, b"</", parent_name, b">"].concat(),
            _ => [b">", new.as_slice(), b"</", parent_name, b">"].concat(),
        };
        return Ok((parent.tag.end - 2..parent.tag.end, with));
    };
    Ok(match (inner, indentation(bytes, end)) {
        (Some(inner), Some(own)) => {
            let at = end - own.len();
            (at..at, [&inner, new.as_slice(), line].concat())
        }
        (Some(inner), _) if !siblings.is_empty() => (end..end, [line, &inner, &new].concat()),
        _ => (end..end, new),
    })
}

/// The white space before a place, where there is nothing else before it on its line.
fn indentation(bytes: &[u8], place: usize) -> Option<&[u8]> {
    let before = bytes.get(..place)?;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    before.get(start..).filter(|text| text.iter().all(|byte| matches!(byte, b' ' | b'\t')))
}

fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let starts = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_' || c == ':');
    if starts && name.chars().all(good) {
        Ok(())
    } else {
        Err(format!("cannot get an attribute named `{name}`: that is not an XML name"))
    }
}

/// A value in quotes. Everything but plain ASCII becomes a character reference, which is the same in every encoding.
fn quote(value: &str) -> Vec<u8> {
    let mut out = vec![b'"'];
    for c in value.chars() {
        match c {
            '&' => out.extend_from_slice(b"&amp;"),
            '<' => out.extend_from_slice(b"&lt;"),
            '>' => out.extend_from_slice(b"&gt;"),
            '"' => out.extend_from_slice(b"&quot;"),
            ' '..='~' => out.push(c as u8),
            _ => out.extend_from_slice(format!("&#{};", u32::from(c)).as_bytes()),
        }
    }
    out.push(b'"');
    out
}

/// Resolves the five entities of XML and character references; anything else is kept as it is written.
pub(crate) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let entity = from.find(';').and_then(|end| Some((from.get(1..end)?, from.get(end + 1..)?)));
        match entity.and_then(|(name, after)| Some((resolve(name)?, after))) {
            Some((c, after)) => {
                out.push(c);
                rest = after;
            }
            None => {
                out.push('&');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

fn resolve(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}
