//! One HTTP GET (RFC 9110, 9112), enough for `/r/test`. A static binary has no resolver of its own.

use crate::program::{Program, capture};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long connecting, and each piece of the answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the whole may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const LIMIT: u64 = 1024 * 1024;

/// Status and body of a GET.
pub(crate) fn get(url: &str) -> Result<(u16, String), String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// addresses can be asked")?;
    let (authority, path) = rest.split_once('/').map_or((rest, String::from("/")), |(host, path)| (host, format!("/{path}")));
    if authority.is_empty() || url.chars().any(|c| c.is_control() || c == ' ') {
        return Err("the address is not valid".to_owned());
    }
    let (host, port) = split_authority(authority)?;
    let mut last = "its name cannot be resolved".to_owned();
    for address in addresses(host) {
        match ask(SocketAddr::new(address, port), authority, &path) {
            Ok(answer) => return Ok(answer),
            Err(e) => last = e.to_string(),
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

fn ask(address: SocketAddr, authority: &str, path: &str) -> io::Result<(u16, String)> {
    let until = Instant::now() + TIME_LIMIT;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: caravan\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        if Instant::now() >= until || answer.len() as u64 > LIMIT {
            return Err(io::Error::other("its answer does not end"));
        }
        if let Some(parsed) = parse(&answer, false) {
            return Ok(parsed);
        }
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return parse(&answer, true).ok_or_else(|| io::Error::other("its answer is not HTTP, or was cut off"));
        }
        answer.extend_from_slice(piece.get(..read).unwrap_or_default());
    }
}

/// Status and body, once the answer is complete.
fn parse(answer: &[u8], ended: bool) -> Option<(u16, String)> {
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
    Some((status, String::from_utf8_lossy(&body).into_owned()))
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
        assert_eq!(parse(plain, false), Some((200, "hello".to_owned())));
        assert_eq!(parse(&plain[..plain.len() - 1], false), None);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false), Some((200, "hello".to_owned())));
        let until_close = b"HTTP/1.0 404 Not Found\r\n\r\nno";
        assert_eq!(parse(until_close, false), None);
        assert_eq!(parse(until_close, true), Some((404, "no".to_owned())));
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
