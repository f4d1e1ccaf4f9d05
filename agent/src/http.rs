//! One HTTP request and its answer (RFC 9110, 9112), enough for `/r/test` and for a SOAP call. A static binary has no resolver of its
//! own.

use crate::program::{Program, capture};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long connecting, and each piece of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the whole may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const LIMIT: u64 = 1024 * 1024;

/// What is asked.
struct Request<'a> {
    method: &'a str,
    /// Whole lines, each with its line end.
    headers: &'a str,
    body: &'a [u8],
    /// Nothing is sent unless the other end of the connection is this host.
    own: bool,
}

/// Why there is no answer.
struct Miss {
    why: String,
    /// The request may have been read, so that it is not sent to another address.
    sent: bool,
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        Self { why: if late { format!("nothing came for {} s", PATIENCE.as_secs()) } else { error.to_string() }, sent: true }
    }
}

/// Status and body of a GET.
///
/// # Errors
/// There is no answer; the text says why.
pub(crate) fn get(url: &str) -> Result<(u16, String), String> {
    let (status, body) = send(url, &Request { method: "GET", headers: "", body: b"", own: false })?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Status and body of a POST of XML to a server of this very host. `headers` are whole lines, each with its line end. The body is sent
/// once at most, and what comes back is wiped after use.
///
/// # Errors
/// There is no answer, or the address is another machine's; the text says why.
pub(crate) fn post_here(url: &str, headers: &str, body: &[u8]) -> Result<(u16, Zeroizing<Vec<u8>>), String> {
    let headers = format!("Content-Type: text/xml; charset=utf-8\r\nContent-Length: {}\r\n{headers}", body.len());
    send(url, &Request { method: "POST", headers: &headers, body, own: true })
}

fn send(url: &str, request: &Request<'_>) -> Result<(u16, Zeroizing<Vec<u8>>), String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// addresses can be asked")?;
    let (authority, path) = rest.split_once('/').map_or((rest, String::from("/")), |(host, path)| (host, format!("/{path}")));
    if authority.is_empty() || url.chars().any(|c| c.is_control() || c == ' ') {
        return Err("the address is not valid".to_owned());
    }
    let (host, port) = split_authority(authority)?;
    let mut last = "its name cannot be resolved".to_owned();
    for address in addresses(host) {
        match ask(SocketAddr::new(address, port), authority, &path, request) {
            Ok(answer) => return Ok(answer),
            Err(miss) if miss.sent && request.own => return Err(miss.why),
            Err(miss) => last = miss.why,
        }
    }
    Err(last)
}

fn split_authority(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(80), str::parse).map_err(|_| "the port is not a number".to_owned())?;
    Ok((host, port))
}

fn addresses(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if host.starts_with('-') {
        return Vec::new();
    }
    let argv = ["getent", "ahosts", host].map(str::to_owned);
    let Ok(captured) = capture(&Program { argv: &argv, ..Program::default() }, 16 * 1024, PATIENCE) else { return Vec::new() };
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&captured.text).lines() {
        if let Some(address) = line.split_whitespace().next().and_then(|word| word.parse().ok())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// Whether a connection leads back to this host: the kernel gives both of its ends the same address, or a loopback one.
fn is_own(stream: &TcpStream) -> io::Result<bool> {
    let peer = stream.peer_addr()?.ip();
    Ok(peer.is_loopback() || stream.local_addr()?.ip() == peer)
}

fn ask(address: SocketAddr, authority: &str, path: &str, request: &Request<'_>) -> Result<(u16, Zeroizing<Vec<u8>>), Miss> {
    let until = Instant::now() + TIME_LIMIT;
    let not_sent = |e: io::Error| Miss { sent: false, ..Miss::from(e) };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(not_sent)?;
    if request.own && !is_own(&stream).map_err(not_sent)? {
        return Err(Miss { why: "it leads to another machine; nothing was sent".to_owned(), sent: false });
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(not_sent)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(not_sent)?;
    let Request { method, headers, body, .. } = request;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: caravan\r\nAccept: */*\r\n{headers}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    // Room for a whole answer of the usual size: a vector that grows leaves copies behind that nobody wipes.
    let mut answer = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let mut piece = Zeroizing::new(vec![0; 16 * 1024]);
    loop {
        if Instant::now() >= until || answer.len() as u64 > LIMIT {
            return Err(io::Error::other("its answer does not end").into());
        }
        if let Some(parsed) = parse(&answer, false) {
            return Ok(parsed);
        }
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return parse(&answer, true).ok_or_else(|| io::Error::other("its answer is not HTTP, or was cut off").into());
        }
        answer.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
}

/// Status and body, once the answer is complete.
fn parse(answer: &[u8], ended: bool) -> Option<(u16, Zeroizing<Vec<u8>>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).into_owned();
    let body = answer.get(end + 4..)?;
    let mut lines = head.lines();
    let status: u16 = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |wanted: &str| {
        head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let body = if header("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        unchunk(body)?
    } else if let Some(length) = header("content-length") {
        body.get(..length.parse().ok()?)?.to_vec()
    } else if ended || status == 204 || status == 304 {
        body.to_vec()
    } else {
        return None;
    };
    Some((status, Zeroizing::new(body)))
}

/// A chunked body (RFC 9112, 7.1), once its last chunk is there.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(rest.get(..line)?).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = rest.get(line + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_read_in_every_form() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let text =
            |answer: &[u8], ended| parse(answer, ended).map(|(status, body)| (status, String::from_utf8(body.to_vec()).unwrap()));
        assert_eq!(text(plain, false), Some((200, "hello".to_owned())));
        assert_eq!(parse(&plain[..plain.len() - 1], false), None);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        assert_eq!(text(chunked, false), Some((200, "hello".to_owned())));
        let until_close = b"HTTP/1.0 404 Not Found\r\n\r\nno";
        assert_eq!(parse(until_close, false), None);
        assert_eq!(text(until_close, true), Some((404, "no".to_owned())));
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(split_authority("a.example:8080"), Ok(("a.example", 8080)));
        assert_eq!(split_authority("[::1]:81"), Ok(("::1", 81)));
        assert_eq!(split_authority("[::1]"), Ok(("::1", 80)));
        assert!(split_authority("a:b").is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_no_answer_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), ended: bool) {
            let _ = parse(&bytes, ended);
            let _ = unchunk(&bytes);
        }
    }
}
