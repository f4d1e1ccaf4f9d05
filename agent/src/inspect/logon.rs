//! Trying a password at the host's own Campaign server: one `xtk:session#Logon` over SOAP 1.1.

use crate::mask::Mask;
use crate::{http, xml};
use proto::Secret;
use proto::inspect::{FAULT_LIMIT, Logon, ReadError};
use zeroize::Zeroizing;

/// Asks once. The session that a server opens is left to time out: its tokens are read for being there, and wiped.
///
/// # Errors
/// [`ReadError::Failed`] when the endpoint could not be asked: no connection, no HTTP, another status, neither a session nor a fault.
pub(super) fn attempt(url: &str, account: &str, password: Option<&Secret>, mask: &Mask) -> Result<Logon, ReadError> {
    let failed = |why: String| ReadError::Failed(format!("{url}: {why}"));
    let Some(password) = password else { return Err(failed("no password was sent to try".to_owned())) };
    let body = envelope(account, password.expose()).ok_or_else(|| {
        failed("the password has a character that XML cannot carry, so that it cannot be tried by a logon".to_owned())
    })?;
    let (status, answer) = http::post_here(url, "SOAPAction: xtk:session#Logon\r\n", &body).map_err(failed)?;
    read(status, &answer, mask).map_err(failed)
}

/// What an answer means. A fault comes with status 500 by SOAP 1.1, and with 200 from servers that do not keep to it.
fn read(status: u16, answer: &[u8], mask: &Mask) -> Result<Logon, String> {
    if !matches!(status, 200 | 500) {
        return Err(format!("expected a SOAP answer, seen status {status}"));
    }
    if let Some(fault) = text_of(answer, "faultstring") {
        let details = text_of(answer, "detail").unwrap_or_default();
        return Ok(Logon::Refused(harmless(&mask.text(&format!("{} {}", *fault, *details)))));
    }
    match text_of(answer, "pstrSessionToken") {
        Some(token) if status == 200 && !token.trim().is_empty() => Ok(Logon::Accepted),
        _ => Err(format!("expected a session or a SOAP fault, seen neither (status {status})")),
    }
}

/// The text of an element of the one message in the body of a SOAP envelope, if it is there.
fn text_of(answer: &[u8], element: &str) -> Option<Zeroizing<String>> {
    // Envelope, Body, and the message; their prefixes are the server's own choice.
    let found = xml::select(answer, &format!("*/*/*/{element}")).ok()?;
    let element = found.first()?;
    let from = element.attributes.last().map_or(element.name_end, |attribute| attribute.quoted.end);
    let rest = answer.get(from..)?;
    let open = rest.iter().position(|byte| *byte == b'>')?;
    let inner = if rest.get(..open)?.ends_with(b"/") { &[] } else { rest.get(open + 1..)? };
    let raw = match inner.strip_prefix(b"<![CDATA[") {
        Some(inner) => inner.get(..inner.windows(3).position(|end| end == b"]]>")?)?,
        None => inner.split(|byte| *byte == b'<').next()?,
    };
    let raw = Zeroizing::new(String::from_utf8_lossy(raw).into_owned());
    Some(Zeroizing::new(xml::unescape(&raw)))
}

/// One line without control characters, bounded.
fn harmless(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(FAULT_LIMIT).collect()
}

/// The request; nothing when XML cannot carry the password.
fn envelope(account: &str, password: &str) -> Option<Zeroizing<Vec<u8>>> {
    const BEFORE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:urn=\"urn:xtk:session\">\
        <soapenv:Header/><soapenv:Body><urn:Logon><urn:sessiontoken/><urn:strLogin>";
    const BETWEEN: &str = "</urn:strLogin><urn:strPassword>";
    const AFTER: &str = "</urn:strPassword><urn:elemParameters/></urn:Logon></soapenv:Body></soapenv:Envelope>\n";
    // Each character becomes ten bytes at most, so that nothing is moved, and no copy stays behind.
    let room = BEFORE.len() + BETWEEN.len() + AFTER.len() + 10 * (account.len() + password.len());
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    body.extend_from_slice(BEFORE.as_bytes());
    escape(account, &mut body)?;
    body.extend_from_slice(BETWEEN.as_bytes());
    escape(password, &mut body)?;
    body.extend_from_slice(AFTER.as_bytes());
    Some(body)
}

/// Appends a text as the content of an element; nothing when it has a character that XML 1.0 does not allow.
fn escape(text: &str, out: &mut Vec<u8>) -> Option<()> {
    for c in text.chars() {
        match c {
            '&' => out.extend_from_slice(b"&amp;"),
            '<' => out.extend_from_slice(b"&lt;"),
            '>' => out.extend_from_slice(b"&gt;"),
            '"' => out.extend_from_slice(b"&quot;"),
            '\'' => out.extend_from_slice(b"&apos;"),
            // As themselves they would be normalised.
            '\t' => out.extend_from_slice(b"&#9;"),
            '\n' => out.extend_from_slice(b"&#10;"),
            '\r' => out.extend_from_slice(b"&#13;"),
            c if c.is_ascii_control() && c != '\x7f' || matches!(c, '\u{fffe}' | '\u{ffff}') => return None,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn said(status: u16, inner: &str) -> Result<Logon, String> {
        let secrets = BTreeMap::from([("logon-password".to_owned(), Secret::new("hunter2"))]);
        let answer = format!("<?xml version='1.0'?><S:Envelope xmlns:S='s'><S:Body>{inner}</S:Body></S:Envelope>");
        read(status, answer.as_bytes(), &Mask::of(&secrets))
    }

    #[test]
    fn a_session_is_a_session_and_a_fault_is_a_refusal_whatever_its_status() {
        let session =
            "<LogonResponse xmlns='urn:xtk:session'><pstrSessionToken xsi:type='a>b'>___x</pstrSessionToken></LogonResponse>";
        assert_eq!(said(200, session), Ok(Logon::Accepted));
        assert!(said(500, session).is_err());
        for (token, status) in [("<pstrSessionToken/>", 200), ("<pstrSessionToken> </pstrSessionToken>", 200), ("", 200), ("", 500)]
        {
            assert!(said(status, &format!("<LogonResponse>{token}</LogonResponse>")).is_err(), "{token}");
        }
        let fault = "<S:Fault><faultcode>S:Server</faultcode><faultstring>No &lt;b&gt;\u{1b}[31m\n hunter2</faultstring>\
            <detail><![CDATA[Access denied]]></detail></S:Fault>";
        for status in [200, 500] {
            assert_eq!(said(status, fault), Ok(Logon::Refused("No <b> [31m *** Access denied".to_owned())));
        }
        let long = format!("<S:Fault><faultstring>{}</faultstring></S:Fault>", "long ".repeat(200));
        assert!(matches!(said(500, &long), Ok(Logon::Refused(text)) if text.chars().count() == FAULT_LIMIT));
    }

    #[test]
    fn what_is_no_soap_is_no_answer() {
        for status in [301, 302, 401, 404, 503] {
            let seen = said(status, "<S:Fault><faultstring>x</faultstring></S:Fault>").unwrap_err();
            assert!(seen.contains(&status.to_string()), "{seen}");
        }
        let secrets = BTreeMap::new();
        for body in [&b"<html><body>It works</body></html>"[..], b"", b"\xff\xfe\0", b"<a><b><c><faultstring>"] {
            assert!(read(200, body, &Mask::of(&secrets)).is_err());
        }
    }

    #[test]
    fn characters_that_xml_cannot_carry_are_not_sent() {
        assert!(envelope("internal", "a\u{1}b").is_none());
        assert!(envelope("internal", "a\u{ffff}").is_none());
    }

    proptest! {
        #[test]
        fn a_password_arrives_as_it_is(password in "[ -~\t\n\ré€😀]{0,40}") {
            let body = envelope("internal", &password).unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let (_, rest) = text.split_once("<urn:strPassword>").unwrap();
            let (raw, _) = rest.split_once("</urn:strPassword>").unwrap();
            prop_assert!(!raw.contains(['<', '>', '"', '\'', '\n', '\r', '\t']));
            prop_assert_eq!(xml::unescape(raw), password);
            prop_assert!(body.capacity() >= body.len());
            prop_assert!(xml::select(&body, "soapenv:Envelope/soapenv:Body/urn:Logon/urn:strPassword").unwrap().len() == 1);
        }

        #[test]
        fn garbage_is_no_answer_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), status in 100u16..600) {
            prop_assert!(!matches!(read(status, &bytes, &Mask::of(&BTreeMap::new())), Ok(Logon::Accepted)));
        }
    }
}
