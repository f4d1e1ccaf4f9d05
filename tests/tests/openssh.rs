//! The way to hosts, against real OpenSSH servers.

use controller::cli::hosts::{TrustArgs, trust};
use controller::cli::{Context, Exit, Format};
use controller::hosts::{Hosts, Incoming, Link, OpenError, Outgoing};
use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use harness::sshd::{self, Relay, Sshd, fleet, listen};
use proptest::prelude::*;
use proto::{FromAgent, ToAgent};
use std::sync::Arc;
use std::time::Duration;

/// Nothing of the account that runs the tests: no ssh-agent, no home directory.
fn options() -> SshOptions {
    SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() }
}

fn hosts(all: Vec<inventory::Host>) -> SshHosts {
    SshHosts::new(&fleet(all), Arc::new(Secrets::new("/")), options()).unwrap()
}

async fn open(host: inventory::Host) -> Result<Link, OpenError> {
    let name = host.name.clone();
    hosts(vec![host]).open(&name, true).await
}

/// Runs a command; its exit code and output.
async fn exec(link: &mut Link, argv: &[&str]) -> (Option<i32>, String) {
    let argv = argv.iter().map(ToString::to_string).collect();
    link.to.send(Outgoing::Message(ToAgent::Exec { id: 7, argv })).await.unwrap();
    let mut output = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(20), link.from.recv()).await.unwrap() {
            Some(Incoming::Data { stream: 7, bytes, .. }) => output.extend(bytes),
            Some(Incoming::Message(FromAgent::Exited { id: 7, code, .. })) => {
                return (code, String::from_utf8_lossy(&output).into_owned());
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_runs_through_the_agent_which_is_sent_only_once() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("");
    let relay = Relay::start(server.address);
    let mut host = server.host("mkt1");
    host.ssh.port = Some(relay.address.port());
    host.address = relay.address.ip().to_string();
    host.ssh.known_hosts = vec![server.known_hosts_at(relay.address).display().to_string()];
    let hosts = hosts(vec![host]);

    let mut link = hosts.open("mkt1", true).await.unwrap();
    assert_eq!(link.agent.user, sshd::whoami());
    assert!(link.agent.host_key.starts_with("SHA256:"), "{:?}", link.agent);
    assert_eq!(exec(&mut link, &["echo", "a b"]).await, (Some(0), "a b\n".to_owned()));
    assert_eq!(exec(&mut link, &["sh", "-c", "exit 7"]).await.0, Some(7));
    drop(link);
    let packed = controller::ssh::AGENTS[0].gzip.len() as u64;
    assert!(relay.sent() > packed, "the agent was not sent the first time");

    let mut link = hosts.open("mkt1", true).await.unwrap();
    assert_eq!(exec(&mut link, &["true"]).await.0, Some(0));
    let sent = relay.sent();
    assert!(sent < 16 * 1024, "{sent} bytes were sent to a host that has the agent");
}

/// The message of an error, checked for what every one of them must have.
fn message(result: Result<Link, OpenError>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(text.starts_with("mkt1") && text.len() > 40 && !text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn host_keys_are_checked_strictly() {
    if !sshd::installed() {
        return;
    }
    let mut server = Sshd::start("");
    let place = format!("[{}]:{}", server.address.ip(), server.address.port());
    let key = server.host_key.clone();
    let other = sshd::public_key(&sshd::key_pair(server.dir.path(), "other", &["-t", "ed25519"], ""));
    let ecdsa = sshd::public_key(&sshd::key_pair(server.dir.path(), "ecdsa", &["-t", "ecdsa"], ""));

    for (content, expected) in [
        (String::new(), Err("its host key is unknown: ssh-ed25519 SHA256:")),
        (format!("somebody.else {key}\n"), Err("unknown")),
        (format!("{place} {other}\n"), Err("HOST KEY CHANGED: expected SHA256:")),
        (format!("# old\n{place} {ecdsa}\n"), Err(":2)")),
        (format!("@revoked * {key}\n{place} {key}\n"), Err("is revoked")),
        (format!("@cert-authority {place} {other}\n"), Err("only a certificate authority is")),
        // What excludes the port says nothing about the name without it, which OpenSSH looks for too.
        (format!("!{place},!{},* {key}\n", server.address.ip()), Err("unknown")),
        (format!("!{place},* {key}\n"), Ok(())),
        (format!("{place} {key}\n"), Ok(())),
        (format!("{place}\t{key} a comment # with a hash\n"), Ok(())),
        (format!("not a line\n{place} {other}\n{place} {key}\n"), Ok(())),
        (format!("{} {key}\n", server.address.ip()), Ok(())),
        (format!("MKT1,[127.*]:{} {key}\n", server.address.port()), Ok(())),
    ] {
        let mut host = server.host("mkt1");
        host.ssh.known_hosts = vec![server.known_hosts_with(&content).display().to_string()];
        let result = open(host).await;
        match expected {
            Ok(()) => drop(result.unwrap_or_else(|error| panic!("{content}: {error}"))),
            Err(expected) => {
                assert!(matches!(result, Err(OpenError::HostKey { .. })), "{content}: {result:?}");
                let text = message(result);
                assert!(text.contains(expected), "{content}: {text}");
            }
        }
    }

    // A pin decides alone, except that a revoked key stays revoked.
    let mut pinned = server.host("mkt1");
    pinned.ssh.known_hosts = vec![server.known_hosts_with("").display().to_string()];
    pinned.ssh.host_key = Some(key.clone());
    assert!(open(pinned.clone()).await.is_ok());
    pinned.ssh.host_key = Some(other);
    assert!(message(open(pinned.clone()).await).contains("ssh.host_key of the inventory"));
    pinned.ssh.host_key = Some(key.clone());
    pinned.ssh.known_hosts = vec![server.known_hosts_with(&format!("@revoked * {key}\n")).display().to_string()];
    assert!(message(open(pinned).await).contains("revoked"));

    // The key changes while the file stays.
    let host = server.host("mkt1");
    assert!(open(host.clone()).await.is_ok());
    server.change_key(&["-t", "ed25519"]);
    assert!(message(open(host.clone()).await).contains("HOST KEY CHANGED"));
    server.change_key(&["-t", "ecdsa"]);
    assert!(message(open(host).await).contains("HOST KEY CHANGED"));
}

#[tokio::test]
async fn an_unreadable_known_hosts_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let host = sshd::host("mkt1", sshd::free_address(), &dir.path().join("id"), dir.path(), dir.path());
    let error = SshHosts::new(&fleet(vec![host]), Arc::new(Secrets::new("/")), options()).err().unwrap();
    assert_eq!(error.exit, controller::cli::Exit::Usage);
    assert!(error.message.contains(&dir.path().display().to_string()) && error.message.contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn logins_say_what_was_tried_and_what_is_offered() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("");
    let wrong = sshd::key_pair(server.dir.path(), "wrong", &["-t", "ed25519"], "");
    let rsa = sshd::key_pair(server.dir.path(), "rsa", &["-t", "rsa", "-b", "2048"], "");
    let sealed = sshd::key_pair(server.dir.path(), "sealed", &["-t", "ed25519"], "open sesame");

    let mut host = server.host("mkt1");
    host.ssh.identity = vec![wrong.display().to_string(), "/nonexistent/key".to_owned()];
    let result = open(host.clone()).await;
    assert!(matches!(result, Err(OpenError::Authentication { .. })), "{result:?}");
    let text = message(result);
    for part in [&wrong.display().to_string(), "/nonexistent/key cannot be read", "offers publickey", "authorized_keys"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // No key at all.
    host.ssh.identity.clear();
    let text = message(open(host.clone()).await);
    assert!(text.contains("there is no key to try") && text.contains("ssh.identity"), "{text}");

    // Tried in order; RSA with SHA-2.
    let authorized = std::fs::read_to_string(rsa.with_extension("pub")).unwrap();
    std::fs::write(server.dir.path().join("authorized_keys"), authorized).unwrap();
    host.ssh.identity = vec![wrong.display().to_string(), rsa.display().to_string()];
    assert!(open(host.clone()).await.is_ok());

    // An encrypted key whose passphrase nobody can be asked for is left out, and says so; the next one is used.
    host.ssh.identity = vec![sealed.display().to_string()];
    if std::fs::File::open("/dev/tty").is_err() {
        let text = message(open(host.clone()).await);
        assert!(text.contains("is encrypted") && text.contains("ssh-agent"), "{text}");
    }
}

#[tokio::test]
async fn keys_of_ssh_agent_are_used() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("");
    let socket = server.dir.path().join("agent.sock");
    let mut agent = std::process::Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    sshd::agent_listens(&socket);
    let mut host = server.host("mkt1");
    host.ssh.identity.clear();
    let with_agent = SshOptions { agent_socket: Some(socket.clone()), ..options() };
    let connect = async |host: &inventory::Host| {
        let hosts = SshHosts::new(&fleet(vec![host.clone()]), Arc::new(Secrets::new("/")), with_agent.clone()).unwrap();
        hosts.open("mkt1", true).await
    };
    let empty = connect(&host).await;
    let added =
        std::process::Command::new("ssh-add").arg("-q").arg(server.identity()).env("SSH_AUTH_SOCK", &socket).status().unwrap();
    let full = connect(&host).await;
    // An encrypted file whose key the agent holds is used from there, without a question.
    let sealed = server.dir.path().join("sealed");
    std::fs::copy(server.identity(), &sealed).unwrap();
    let changed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-P", "", "-N", "secret", "-f"])
        .arg(&sealed)
        .output()
        .unwrap()
        .status;
    host.ssh.identity = vec![sealed.display().to_string()];
    let from_agent = connect(&host).await;
    agent.kill().unwrap();
    agent.wait().unwrap();

    assert!(message(empty).contains("there is no key to try"));
    assert!(added.success() && changed.success());
    full.unwrap();
    from_agent.unwrap();
}

#[tokio::test]
async fn servers_that_are_not_there_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |address| {
        let mut host = sshd::host("mkt1", address, &dir.path().join("none"), &dir.path().join("known_hosts"), dir.path());
        host.ssh.connect_timeout = Some(1);
        host
    };
    let refused = open(at(sshd::free_address())).await;
    assert!(matches!(refused, Err(OpenError::Unreachable { .. })), "{refused:?}");
    let text = message(refused);
    assert!(text.contains("refuses the connection") && text.contains("Is sshd running"), "{text}");

    let (silent, address) = listen();
    let text = message(open(at(address)).await);
    assert!(text.contains("no SSH server finished the key exchange within 1 s"), "{text}");
    drop(silent);

    let mut unknown = at(address);
    unknown.address = "no-such-host.invalid".to_owned();
    let text = message(open(unknown).await);
    assert!(text.contains("no-such-host.invalid cannot be resolved"), "{text}");

    // sshd above MaxStartups hangs up at once: tried again a few times, then said.
    let (rude, address) = listen();
    let counted = std::thread::spawn(move || (0..4).map(|_| drop(rude.accept().unwrap().0)).count());
    let text = message(open(at(address)).await);
    assert!(text.contains("MaxStartups"), "{text}");
    assert_eq!(counted.join().unwrap(), 4);
}

/// Whatever a server says first, it is an error that says "unreachable", within the time limit.
#[test]
fn garbage_instead_of_ssh_is_survived() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() };
    let starts: [&[u8]; 4] = [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-1.5-old\n"];
    let prefix = proptest::sample::select(starts.to_vec());
    proptest!(config, |(prefix in prefix, bytes in proptest::collection::vec(any::<u8>(), 0..400))| {
        let (listener, address) = listen();
        let banner = [prefix, &bytes].concat();
        let server = std::thread::spawn(move || {
            // Up to four attempts are made when the server hangs up before it says anything.
            listener.set_nonblocking(true).unwrap();
            let end = std::time::Instant::now() + Duration::from_secs(4);
            let mut kept = Vec::new();
            while std::time::Instant::now() < end && kept.is_empty() {
                match listener.accept() {
                    Ok((mut stream, _)) => { let _ = std::io::Write::write_all(&mut stream, &banner); kept.push(stream) }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            kept
        });
        let mut host = sshd::host("mkt1", address, &dir.path().join("none"), &dir.path().join("known_hosts"), dir.path());
        host.ssh.connect_timeout = Some(1);
        let result = runtime.block_on(open(host));
        prop_assert!(matches!(result, Err(OpenError::Unreachable { .. })), "{:?}", result);
        message(result);
        drop(server.join().unwrap());
    });
}

#[tokio::test]
async fn hosts_behind_a_bastion_share_one_connection_to_it() {
    if !sshd::installed() {
        return;
    }
    let (bastion, server) = (Sshd::start(""), Sshd::start(""));
    let relay = Relay::start(bastion.address);
    let known = |with_bastion: bool| {
        let mut text = format!("[{}]:{} {}\n", server.address.ip(), server.address.port(), server.host_key);
        if with_bastion {
            text.push_str(&format!("[{}]:{} {}\n", relay.address.ip(), relay.address.port(), bastion.host_key));
        }
        server.known_hosts_with(&text).display().to_string()
    };
    let behind = |name: &str, with_bastion: bool| {
        let mut host = server.host(name);
        host.ssh.jump = Some(format!("{}@{}", sshd::whoami(), relay.address));
        host.ssh.identity.push(bastion.identity().display().to_string());
        host.ssh.known_hosts = vec![known(with_bastion)];
        host
    };
    let known_bastion = known(true);
    let all: Vec<_> = (1..=6)
        .map(|number| {
            let mut host = behind(&format!("mkt{number}"), true);
            host.ssh.known_hosts = vec![known_bastion.clone()];
            host
        })
        .collect();
    let names: Vec<_> = all.iter().map(|host| host.name.clone()).collect();
    let hosts = Arc::new(hosts(all));
    let mut opening = tokio::task::JoinSet::new();
    for name in names {
        let hosts = Arc::clone(&hosts);
        opening.spawn(async move {
            let mut link = hosts.open(&name, true).await.unwrap();
            assert_eq!(exec(&mut link, &["true"]).await.0, Some(0));
            link
        });
    }
    assert_eq!(opening.join_all().await.len(), 6);
    assert_eq!(relay.connections(), 1);

    // The bastion's own key is checked like any other.
    let result = open(behind("mkt1", false)).await;
    assert!(matches!(result, Err(OpenError::HostKey { .. })), "{result:?}");
    assert!(message(result).contains("its bastion"));

    // A host that the bastion cannot reach.
    let mut lost = behind("mkt1", true);
    lost.ssh.port = Some(sshd::free_address().port());
    let text = message(open(lost).await);
    assert!(text.contains("opens no way to"), "{text}");
}

#[tokio::test]
async fn login_shells_of_any_kind_will_do() {
    if !sshd::installed() {
        return;
    }
    let noise = "i=0; while [ $i -lt 300 ]; do echo Welcome to mkt1, authorised use only; i=$((i+1)); done; printf unfinished; echo motd >&2";
    let mut shells = vec![("noisy", format!("ForceCommand {noise}; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\""))];
    for shell in ["tcsh", "csh", "fish", "ksh", "zsh", "dash", "bash"] {
        let path = format!("/usr/bin/{shell}");
        if std::path::Path::new(&path).exists() {
            shells.push((shell, format!("ForceCommand exec {path} -c \"$SSH_ORIGINAL_COMMAND\"")));
        } else {
            eprintln!("skipped: {path} is not installed");
        }
    }
    for (shell, extra) in shells {
        let server = Sshd::start(&extra);
        for _ in 0..2 {
            let mut link = open(server.host("mkt1")).await.unwrap_or_else(|error| panic!("{shell}: {error}"));
            assert_eq!(exec(&mut link, &["echo", "$HOME!"]).await, (Some(0), "$HOME!\n".to_owned()), "{shell}");
        }
    }

    let server = Sshd::start("ForceCommand yes endless noise");
    let text = message(open(server.host("mkt1")).await);
    assert!(text.contains("KiB were printed") && text.contains("endless noise"), "{text}");
    let server = Sshd::start("ForceCommand echo This account is not available; exit 3");
    let text = message(open(server.host("mkt1")).await);
    assert!(text.contains("exit code 3") && text.contains("This account is not available"), "{text}");
}

/// A directory with links to these programs alone.
fn programs(dir: &std::path::Path, names: &[&str]) -> String {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in names {
        let found =
            ["/usr/bin", "/bin"].iter().map(|place| format!("{place}/{name}")).find(|path| std::path::Path::new(path).exists());
        std::os::unix::fs::symlink(found.unwrap(), bin.join(name)).unwrap();
    }
    bin.display().to_string()
}

#[tokio::test]
async fn poor_hosts_will_do() {
    if !sshd::installed() {
        return;
    }
    const BASIC: [&str; 11] = ["cat", "chmod", "cp", "env", "head", "id", "ls", "mkdir", "mv", "rm", "uname"];
    let dir = tempfile::tempdir().unwrap();
    // Without gzip the agent comes as it is; without a hash tool it is not kept.
    for (name, more, kept) in
        [("no-gzip", &["sha256sum"][..], true), ("openssl", &["openssl", "gzip"], true), ("no-hash", &["gzip"], false)]
    {
        if more.contains(&"openssl") && !std::path::Path::new("/usr/bin/openssl").exists() {
            eprintln!("skipped: openssl is not installed");
            continue;
        }
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let path = programs(&dir, &[&BASIC, more].concat());
        let server = Sshd::start(&format!("ForceCommand PATH={path}; export PATH; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\""));
        for _ in 0..2 {
            let mut link = open(server.host("mkt1")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(exec(&mut link, &["/bin/echo", "x"]).await, (Some(0), "x\n".to_owned()), "{name}");
        }
        let digest = controller::ssh::AGENTS[0].sha256;
        let found = ["state/agent", "cache/caravan/agent"].map(|place| server.dir.path().join(place).join(digest));
        let files: Vec<_> = found.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten().collect();
        assert_eq!(files.len(), usize::from(kept), "{name}: {files:?}");
    }

    // A machine that this build has no agent for.
    let bin = dir.path().join("uname");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("uname"), "#!/bin/sh\necho SunOS 5.11 sun4v\n").unwrap();
    std::fs::set_permissions(bin.join("uname"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = Sshd::start(&format!("ForceCommand PATH={}:$PATH; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"", bin.display()));
    let result = open(server.host("mkt1")).await;
    assert!(matches!(result, Err(OpenError::Agent { .. })), "{result:?}");
    let text = message(result);
    assert!(text.contains("SunOS sun4v") && text.contains("Linux x86_64"), "{text}");
}

#[tokio::test]
async fn a_damaged_agent_is_replaced_before_root_runs_it() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("");
    drop(open(server.host("mkt1")).await.unwrap());
    if sshd::whoami() != "root" {
        eprintln!("skipped: only root checks the digest at every start");
        return;
    }
    let agent = server.dir.path().join("state/agent").join(controller::ssh::AGENTS[0].sha256).join("caravan-agent");
    let whole = std::fs::read(&agent).unwrap();
    std::fs::remove_file(&agent).unwrap();
    std::fs::write(&agent, "#!/bin/sh\ntouch /tmp/evil\n").unwrap();
    std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut link = open(server.host("mkt1")).await.unwrap();
    assert_eq!(exec(&mut link, &["true"]).await.0, Some(0));
    assert_eq!(std::fs::read(&agent).unwrap(), whole);
}

#[tokio::test]
async fn the_end_of_a_link_is_said_once_with_its_reason() {
    if !sshd::installed() {
        return;
    }
    let server = Sshd::start("");
    let mut link = open(server.host("mkt1")).await.unwrap();
    // The agent is killed.
    let (_, pid) = exec(&mut link, &["sh", "-c", "echo $PPID"]).await;
    let pid: i32 = pid.trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), link.from.recv()).await.unwrap();
    let Some(Incoming::Closed { reason }) = end else { panic!("{end:?}") };
    assert!(reason.contains("the agent ended (signal"), "{reason}");
    assert_eq!(link.from.recv().await, None);

    // The operator has nothing more to say.
    let mut link = open(server.host("mkt1")).await.unwrap();
    drop(link.to);
    let end = tokio::time::timeout(Duration::from_secs(10), link.from.recv()).await.unwrap();
    assert!(matches!(end, Some(Incoming::Closed { .. })), "{end:?}");
}

#[tokio::test]
async fn new_host_keys_are_enrolled_and_changed_ones_are_not() {
    if !sshd::installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let known_hosts = dir.path().join("known_hosts");
    let (one, mut two) = (Sshd::start(""), Sshd::start(""));
    let host = |server: &Sshd, name: &str| {
        let mut host = server.host(name);
        host.ssh.known_hosts = vec![known_hosts.display().to_string()];
        host.ssh.connect_timeout = Some(5);
        host
    };
    let mut gone = host(&one, "gone");
    gone.ssh.port = Some(sshd::free_address().port());
    let run = async |all: &[inventory::Host], args: TrustArgs, format: Format| {
        let context = Context { inventory: "x".into(), state_dir: "x".into(), format, color: (false, false), verbosity: 0 };
        let fleet = fleet(all.to_vec());
        let selected = all.iter().map(|host| host.name.clone()).collect();
        let ssh = Arc::new(SshHosts::new(&fleet, Arc::new(Secrets::new("/")), options()).unwrap());
        let mut out = Vec::new();
        let exit = trust(&context, &args, &fleet, &selected, &ssh, &mut out).await.unwrap();
        (exit, String::from_utf8(out).unwrap())
    };
    let both = [host(&one, "mkt1"), host(&two, "trk01")];

    // Nobody is there to answer: nothing is enrolled.
    let (exit, text) = run(&both, TrustArgs::default(), Format::Text).await;
    assert_eq!(exit, Exit::Waiting);
    assert!(text.contains("new · 2") && text.contains("mkt1   ssh-ed25519 SHA256:") && text.contains("2 left out"), "{text}");
    assert!(!known_hosts.exists());

    // A fingerprints file confirms one of them, and contradicts the other.
    let fingerprints = dir.path().join("fingerprints");
    let line = text.lines().find(|line| line.contains("mkt1")).unwrap();
    let print = line.split_whitespace().last().unwrap();
    std::fs::write(&fingerprints, format!("mkt1 {print}\ntrk01 {print}\n")).unwrap();
    let args = TrustArgs { fingerprints: Some(fingerprints), yes: true, on: None };
    let (exit, text) = run(&both, args, Format::Text).await;
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("NOT AS THE FINGERPRINTS FILE SAYS · 1") && text.contains("1 enrolled."), "{text}");

    let yes = || TrustArgs { yes: true, ..TrustArgs::default() };
    let (exit, text) = run(&[&both[..], &[gone]].concat(), yes(), Format::Json).await;
    assert_eq!(exit, Exit::Unreachable);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["enrolled"], 1);
    let state = |name: &str| report["hosts"].as_array().unwrap().iter().find(|row| row["host"] == name).unwrap()["state"].clone();
    assert_eq!([state("mkt1"), state("trk01"), state("gone")], ["known", "new", "unreachable"]);
    assert_eq!(run(&both, yes(), Format::Text).await.0, Exit::Ok);
    // OpenSSH reads what was written.
    let port = one.address.port();
    for name in [format!("[{}]:{port}", one.address.ip()), format!("[mkt1]:{port}")] {
        let found = std::process::Command::new("ssh-keygen").args(["-F", &name, "-f"]).arg(&known_hosts).output().unwrap();
        assert!(found.status.success() && String::from_utf8_lossy(&found.stdout).contains(&one.host_key), "{name}");
    }
    assert!(open(both[0].clone()).await.is_ok());

    let before = std::fs::read_to_string(&known_hosts).unwrap();
    two.change_key(&["-t", "ed25519"]);
    let (exit, text) = run(&both, yes(), Format::Text).await;
    assert_eq!(exit, Exit::Failed);
    assert!(text.contains("CHANGED") && text.contains("known_hosts:2)") && text.contains("No new keys."), "{text}");
    assert_eq!(std::fs::read_to_string(&known_hosts).unwrap(), before);
}
