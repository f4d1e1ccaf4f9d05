//! The floor: the least that a client has to do over SSH. One connection and one channel a host, `cat` at the other end; for each
//! step one frame is sent and its echo awaited. Connection starts are bounded as Caravan's are.
//!
//! With programs, a shell at the other end runs `true` before it echoes: the least that a host has to do for steps that run one.

use crate::site::Files;
use anyhow::{Context, anyhow, bail};
use controller::ssh::SshOptions;
use russh::client::{self, AuthResult};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, ssh_key};
use russh::{ChannelMsg, Disconnect, Preferred, cipher, kex};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// As large as a small message in JSON; a line, so that a shell can read it.
const FRAME: [u8; 200] = {
    let mut frame = [b'.'; 200];
    frame[199] = b'\n';
    frame
};
/// What echoes.
const CAT: &str = "exec cat";
/// What runs a program and echoes.
const SHELL: &str = "exec /bin/sh -c 'while read -r line; do /bin/true; echo \"$line\"; done'";

/// Talks to all hosts at once.
pub(crate) fn run(site: &Path, frames: usize, programs: bool) -> anyhow::Result<()> {
    let work = Work { frames, command: if programs { SHELL } else { CAT } };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(talk(&Files(site.to_owned()), work))
}

/// What is done on every host.
#[derive(Debug, Clone, Copy)]
struct Work {
    frames: usize,
    command: &'static str,
}

async fn talk(files: &Files, work: Work) -> anyhow::Result<()> {
    let fleet = inventory::load(&files.inventory()).map_err(|problems| anyhow!("{}", problems.render(false)))?.fleet;
    let key = Arc::new(russh::keys::load_secret_key(files.identity(), None).context("the key")?);
    let public = std::fs::read_to_string(files.host_key().with_extension("pub")).context("the host key")?;
    let host_key = ssh_key::PublicKey::from_openssh(&public).context("the host key")?;
    let config = Arc::new(client::Config {
        preferred: Preferred {
            kex: Cow::Borrowed(&[kex::CURVE25519, kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT]),
            cipher: Cow::Borrowed(&[cipher::AES_128_GCM]),
            ..Preferred::default()
        },
        nodelay: true,
        ..client::Config::default()
    });
    let starts = Arc::new(Semaphore::new(SshOptions::default().starts));
    let mut running = JoinSet::new();
    for host in fleet.platforms.into_iter().flat_map(|platform| platform.hosts) {
        let (config, key, starts) = (Arc::clone(&config), Arc::clone(&key), Arc::clone(&starts));
        let client = Client(host_key.clone());
        running.spawn(async move {
            let name = host.name.clone();
            one_host(host, config, key, client, &starts, work).await.with_context(|| name)
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// Knows the one host key there is.
struct Client(ssh_key::PublicKey);

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, server: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(server.public_key().key_data() == self.0.key_data())
    }
}

async fn one_host(
    host: inventory::Host,
    config: Arc<client::Config>,
    key: Arc<PrivateKey>,
    client: Client,
    starts: &Semaphore,
    work: Work,
) -> anyhow::Result<()> {
    let turn = starts.acquire().await?;
    let stream = TcpStream::connect((host.address.as_str(), host.ssh.port.unwrap_or(22))).await?;
    stream.set_nodelay(true)?;
    let mut handle = client::connect_stream(config, stream, client).await?;
    let user = host.ssh.user.unwrap_or_default();
    match handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, None)).await? {
        AuthResult::Success => {}
        AuthResult::Failure { .. } => bail!("the key is refused"),
    }
    drop(turn);
    let (mut read, write) = handle.channel_open_session().await?.split();
    write.exec(true, work.command).await?;
    for _ in 0..work.frames {
        write.data_bytes(FRAME.to_vec()).await?;
        let mut echoed = 0;
        while echoed < FRAME.len() {
            match read.wait().await {
                Some(ChannelMsg::Data { data }) => echoed += data.len(),
                Some(ChannelMsg::Close) | None => bail!("the channel was closed"),
                Some(_) => {}
            }
        }
    }
    write.eof().await?;
    while !matches!(read.wait().await, Some(ChannelMsg::Close) | None) {}
    handle.disconnect(Disconnect::ByApplication, "", "").await?;
    Ok(())
}
