//! Trying a password at the host's own SOAP endpoint.

use crate::common::*;
use proto::inspect::{Answer, LOGON_PASSWORD, Logon, ReadError};
use proto::{FromAgent, Query, Reading, RunAs, Secret, ToAgent};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

const PASSWORD: &str = "can<ary> & \"se'cret\"";
const SENT: &str = "<urn:strPassword>can&lt;ary&gt; &amp; &quot;se&apos;cret&quot;</urn:strPassword>";
const TOKEN: &str = "___token-canary";

/// A server that takes one request and says this.
fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/nl/jsp/soaprouter.jsp", listener.local_addr().unwrap());
    (url, std::thread::spawn(move || serve(listener.accept().unwrap().0, answer)))
}

fn serve(mut stream: TcpStream, answer: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&request).contains("Envelope>\n") {
        match stream.read(&mut piece) {
            Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
            _ => break,
        }
    }
    let _ = stream.write_all(answer.as_bytes());
    String::from_utf8(request).unwrap()
}

fn ask(url: &str, secrets: &[(&str, &str)]) -> Reading {
    let mut bridge = Bridge::open();
    let values: BTreeMap<String, Secret> = secrets.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect();
    bridge.send(&ToAgent::Secrets { values });
    let query = Query::Logon { url: url.to_owned(), account: "internal".to_owned() };
    bridge.send(&ToAgent::Inspect { id: 1, queries: vec![query], run_as: RunAs::Login });
    let FromAgent::Inspected { id: 1, mut readings } = bridge.message() else { panic!("no answer") };
    let shown = format!("{readings:?}");
    assert!(!shown.contains("canary") && !shown.contains("ary"), "{shown}");
    readings.remove(0)
}

fn attempt(url: &str) -> Reading {
    ask(url, &[(LOGON_PASSWORD, PASSWORD)])
}

/// An HTTP answer with the right length.
macro_rules! http {
    ($status:literal, $body:expr) => {{
        let body: &str = $body;
        let text = format!(
            "HTTP/1.1 {}\r\nContent-Type: text/xml\r\nSet-Cookie: __sessiontoken={TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
            $status,
            body.len()
        );
        &*text.leak()
    }};
}

fn session() -> String {
    format!(
        "<?xml version='1.0'?><SOAP-ENV:Envelope xmlns:SOAP-ENV='http://schemas.xmlsoap.org/soap/envelope/'><SOAP-ENV:Body>\
         <LogonResponse xmlns='urn:xtk:session'><pstrSessionToken>{TOKEN}</pstrSessionToken><pdomSessionInfo><sessionInfo/>\
         </pdomSessionInfo><pstrSecurityToken>@{TOKEN}</pstrSecurityToken></LogonResponse></SOAP-ENV:Body></SOAP-ENV:Envelope>"
    )
}

#[test]
fn a_server_that_opens_a_session_accepts_the_password_and_no_token_leaves_the_host() {
    let (url, server) = server(http!("200 OK", &session()));
    assert_eq!(attempt(&url), Ok(Answer::Logon(Logon::Accepted)));
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /nl/jsp/soaprouter.jsp HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nSOAPAction: xtk:session#Logon\r\n"), "{request}");
    assert!(request.contains("<urn:sessiontoken/><urn:strLogin>internal</urn:strLogin>"), "{request}");
    assert!(request.contains(SENT), "{request}");
}

#[test]
fn a_fault_is_a_refusal_with_its_text_made_harmless() {
    let fault = "<SOAP-ENV:Envelope xmlns:SOAP-ENV='x'><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>SOAP-ENV:Server</faultcode>\
        <faultstring>Invalid \u{7}login can&lt;ary&gt; &amp; &quot;se&apos;cret&quot;</faultstring></SOAP-ENV:Fault>\
        </SOAP-ENV:Body></SOAP-ENV:Envelope>";
    let (url, server) = server(http!("500 Internal Server Error", fault));
    assert_eq!(attempt(&url), Ok(Answer::Logon(Logon::Refused("Invalid login ***".to_owned()))));
    server.join().unwrap();
}

#[track_caller]
fn not_asked(reading: Reading, expected: &str) {
    let Err(ReadError::Failed(why)) = reading else { panic!("{reading:?}") };
    assert!(why.contains(expected) && why.contains("://"), "{why}");
}

#[test]
fn an_endpoint_that_cannot_be_asked_is_neither_accepting_nor_refusing() {
    for (answer, expected) in [
        (http!("404 Not Found", "<html/>"), "seen status 404"),
        (http!("302 Found", &session()), "seen status 302"),
        (http!("503 Service Unavailable", ""), "seen status 503"),
        (http!("200 OK", "<html><body>It works</body></html>"), "seen neither"),
        ("SSH-2.0-OpenSSH_8.4\r\n", "not HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n<a>", "cut off"),
        ("", "not HTTP"),
    ] {
        let (url, server) = server(answer);
        not_asked(attempt(&url), expected);
        server.join().unwrap();
    }
    // A port that nobody listens on any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    not_asked(attempt(&format!("http://{free}/nl/jsp/soaprouter.jsp")), "refused");
    not_asked(attempt("https://localhost/nl/jsp/soaprouter.jsp"), "only http://");
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/nl/jsp/soaprouter.jsp", listener.local_addr().unwrap());
    not_asked(attempt(&url), "nothing came for 10 s");
}

#[test]
fn nothing_is_sent_without_a_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/nl/jsp/soaprouter.jsp", listener.local_addr().unwrap());
    not_asked(ask(&url, &[]), "no password was sent");
    not_asked(ask(&url, &[(LOGON_PASSWORD, "a\u{1}b")]), "XML cannot carry");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
}
