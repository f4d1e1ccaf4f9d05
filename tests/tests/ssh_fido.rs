//! Keys of hardware (FIDO), which only ssh-agent can use: an ssh-agent of the test's own stands in for the hardware, the server that judges
//! the signatures is the real one.

use controller::hosts::Hosts;
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use ed25519_dalek::{Signer, SigningKey};
use harness::sshd::{self, Sshd, fleet};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// OpenSSH's PROTOCOL.u2f.
const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &[u8] = b"ssh:";
/// Somebody touched the key.
const PRESENT: u8 = 1;

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn public(key: &SigningKey) -> Vec<u8> {
    [string(KIND.as_bytes()), string(key.verifying_key().as_bytes()), string(APPLICATION)].concat()
}

/// What a token signs, and how ssh-agent passes it on.
fn signed(key: &SigningKey, data: &[u8], counter: u32, flags: u8) -> Vec<u8> {
    let message = [&Sha256::digest(APPLICATION)[..], &[flags], &counter.to_be_bytes(), &Sha256::digest(data)[..]].concat();
    let signature = key.sign(&message).to_bytes();
    [string(KIND.as_bytes()), string(&signature), vec![flags], counter.to_be_bytes().to_vec()].concat()
}

fn taken<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (length, after) = rest.split_first_chunk::<4>().unwrap();
    let (text, after) = after.split_at(u32::from_be_bytes(*length) as usize);
    *rest = after;
    text
}

/// Answers one client until it goes (draft-ietf-sshm-ssh-agent).
fn serve(mut client: UnixStream, key: &SigningKey, flags: u8) -> io::Result<()> {
    for counter in 7.. {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut asked = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut asked)?;
        let answer = match asked[0] {
            11 => [&[12, 0, 0, 0, 1][..], &string(&public(key)), &string(b"token of the night shift")].concat(),
            13 => {
                let mut rest = &asked[1..];
                assert_eq!(taken(&mut rest), public(key));
                [&[14][..], &string(&signed(key, taken(&mut rest), counter, flags))].concat()
            }
            _ => vec![5],
        };
        client.write_all(&string(&answer))?;
    }
    Ok(())
}

fn agent(socket: &Path, flags: u8) -> SigningKey {
    let key = SigningKey::from_bytes(&[41; 32]);
    let listener = UnixListener::bind(socket).unwrap();
    let own = key.clone();
    // Ends with the test's process: nobody can tell it that no client will come any more.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = serve(client, &own, flags);
        }
    });
    key
}

fn in_base64(bytes: &[u8], dir: &Path) -> String {
    let path = dir.join("blob");
    std::fs::write(&path, bytes).unwrap();
    String::from_utf8(Command::new("base64").arg("-w0").arg(&path).output().unwrap().stdout).unwrap()
}

/// The private half as `ssh-keygen -t ed25519-sk` writes it (OpenSSH's PROTOCOL.key): a handle that means something to the token alone.
fn handle_file(key: &SigningKey, path: &Path) {
    let check = [1, 2, 3, 4];
    let own = [string(KIND.as_bytes()), string(key.verifying_key().as_bytes()), string(APPLICATION), vec![PRESENT]].concat();
    let mut private = [&check[..], &check, &own, &string(&[9; 64]), &string(b""), &string(b"me@work")].concat();
    private.extend((1..=8).take((8 - private.len() % 8) % 8));
    let none = [string(b"none"), string(b"none"), string(b"")].concat();
    let all = [&b"openssh-key-v1\0"[..], &none, &[0, 0, 0, 1], &string(&public(key)), &string(&private)].concat();
    let text = in_base64(&all, path.parent().unwrap());
    let lines: String = text.as_bytes().chunks(70).flat_map(|line| [line, b"\n"].concat()).map(char::from).collect();
    std::fs::write(path, format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}-----END OPENSSH PRIVATE KEY-----\n")).unwrap();
}

async fn login(flags: u8, by_file: bool) -> Result<(), String> {
    let server = Sshd::start("");
    let dir = server.dir.path();
    let socket = dir.join("agent.sock");
    let key = agent(&socket, flags);
    std::fs::write(dir.join("authorized_keys"), format!("{KIND} {}\n", in_base64(&public(&key), dir))).unwrap();
    let mut host = server.host("mkt1");
    host.ssh.identity.clear();
    let mut agent_socket = Some(socket);
    if by_file {
        let path = dir.join("id_ed25519_sk");
        handle_file(&key, &path);
        host.ssh.identity.push(path.display().to_string());
        agent_socket = agent_socket.filter(|_| flags == PRESENT);
    }
    let options = SshOptions { agent_socket, home: None, user: None, ..SshOptions::default() };
    let hosts = SshHosts::new(&fleet(vec![host]), Arc::new(Secrets::new("/")), options).unwrap();
    hosts.open("mkt1", true).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_token_lets_in_through_the_agent() {
    if !sshd::installed() {
        return;
    }
    login(PRESENT, false).await.unwrap();
    // The server wants somebody to have touched it: it is the signature that counts.
    let refused = login(0, false).await.unwrap_err();
    assert!(refused.contains("token of the night shift"), "{refused}");
    // The file of such a key is of no use without the agent.
    login(PRESENT, true).await.unwrap();
    let refused = login(0, true).await.unwrap_err();
    assert!(refused.contains("id_ed25519_sk is a key of a hardware token") && refused.contains("ssh-add"), "{refused}");
}
