//! The SOAP router of the `web` module: answers `xtk:session#Logon` and nothing else.

use super::password;
use crate::conf;
use crate::records::Event;
use crate::rules::Site;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// The path of the router.
pub(crate) const PATH: &str = "/nl/jsp/soaprouter.jsp";
/// The largest request that is read.
const LIMIT: usize = 64 * 1024;

/// Takes the port of a host's own server.
pub(super) fn listen(site: &Site) -> io::Result<TcpListener> {
    // A realistic host has all its addresses for itself.
    let address = if site.layout.real { std::net::Ipv4Addr::UNSPECIFIED } else { site.host.address };
    TcpListener::bind((address, site.host.soap_port))
}

/// Answers one client after the other.
pub(super) fn serve(site: &Site, listener: &TcpListener) -> io::Result<u8> {
    loop {
        let (stream, _) = listener.accept()?;
        let _ = answer(site, stream);
    }
}

fn answer(site: &Site, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(LIMIT as u64));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let (mut action, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("soapaction") => action = value.trim().trim_matches('"').to_owned(),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; usize::min(length, LIMIT)];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let mut words = request.split(' ');
    let asked = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), action.as_str());
    let (status, answer) = match asked {
        _ if site.meet("logon")? => ("503 Service Unavailable", "<html><body>Service Unavailable</body></html>\n".to_owned()),
        ("POST", PATH, "xtk:session#Logon") => logon(site, &body)?,
        ("POST", PATH, _) => ("500 Internal Server Error", fault("The service or method is not known")),
        _ => ("404 Not Found", "<html><body>Not Found</body></html>\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nServer: Apache-Coyote/1.1\r\nContent-Type: text/xml;charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{answer}",
        answer.len()
    )
}

fn logon(site: &Site, body: &str) -> io::Result<(&'static str, String)> {
    let value = |element: &str| {
        let (_, rest) = body.split_once(&format!(":{element}>"))?;
        Some(unescape(rest.split_once('<')?.0))
    };
    let stored = conf::internal_password(&site.host.nl6())?;
    let right = value("strLogin").as_deref() == Some("internal")
        && value("strPassword").is_some_and(|typed| password::fits(&typed, &stored));
    site.record(Event::Logon, "internal", if right { "accepted" } else { "refused" })?;
    if !right {
        return Ok(("500 Internal Server Error", fault("XSV-350031 Invalid login or password. Connection denied.")));
    }
    let token = session_token();
    let answer = format!(
        "<LogonResponse xmlns='urn:xtk:session' SOAP-ENV:encodingStyle='http://schemas.xmlsoap.org/soap/encoding/'>\
         <pstrSessionToken xsi:type='xsd:string'>{token}</pstrSessionToken><pdomSessionInfo xsi:type='ns:Element'>\
         <sessionInfo/></pdomSessionInfo><pstrSecurityToken xsi:type='xsd:string'>@{token}</pstrSecurityToken></LogonResponse>"
    );
    Ok(("200 OK", envelope(&answer)))
}

/// The token of every session that a stand-in opens: a canary for tests. Put together here, so that no program holds it as it is.
pub fn session_token() -> String {
    "2EC0-7N01-55E5___".chars().rev().collect()
}

fn fault(text: &str) -> String {
    envelope(&format!(
        "<SOAP-ENV:Fault><faultcode>SOAP-ENV:Server</faultcode><faultstring xsi:type='xsd:string'>{text}</faultstring></SOAP-ENV:Fault>"
    ))
}

fn envelope(body: &str) -> String {
    format!(
        "<?xml version='1.0'?>\n<SOAP-ENV:Envelope xmlns:xsd='http://www.w3.org/2001/XMLSchema' \
         xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xmlns:ns='urn:xtk:session' \
         xmlns:SOAP-ENV='http://schemas.xmlsoap.org/soap/envelope/'><SOAP-ENV:Body>{body}</SOAP-ENV:Body></SOAP-ENV:Envelope>\n"
    )
}

fn unescape(text: &str) -> String {
    // `&amp;` last: what it yields is no reference.
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (reference, character)| text.replace(reference, character))
}
