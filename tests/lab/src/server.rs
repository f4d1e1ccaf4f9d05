//! The SSH server of a host: logs in with the lab's key, runs commands as real processes, and lets them live on when the
//! connection is cut, as OpenSSH does.

use crate::faults::{Order, cut_file};
use crate::furnish::LOGIN;
use crate::layout::{HOST_VARIABLE, Host};
use crate::openssh;
use crate::says::Changed;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The SSH server of one host, and the hand on its plug.
#[derive(Debug)]
pub struct LabServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Handle,
    listening: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    host: Host,
    login: PublicKey,
    config: Arc<Config>,
    silent: AtomicBool,
    accepted: AtomicU64,
    /// A second hold on each open connection, to cut it by.
    connections: Mutex<HashMap<u64, std::net::TcpStream>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("host", &self.host.name).finish_non_exhaustive()
    }
}

/// A lock whose holder panicked still guards whole values here.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LabServer {
    /// Serves a host on a socket that listens already.
    pub(crate) fn start(
        runtime: &Handle,
        listener: TcpListener,
        host: &Host,
        key: PrivateKey,
        login: PublicKey,
    ) -> io::Result<Self> {
        let config = Config {
            keys: vec![key],
            methods: (&[russh::MethodKind::PublicKey][..]).into(),
            auth_rejection_time: Duration::from_millis(200),
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            nodelay: true,
            // russh tops the window up as data arrives, not as it is used, and blocks the whole connection when a channel's
            // buffer is full. A deep one keeps a command that does not read its input from holding up its own output.
            channel_buffer_size: 4096,
            ..Config::default()
        };
        let server = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                host: host.clone(),
                login,
                config: Arc::new(config),
                silent: AtomicBool::new(false),
                accepted: AtomicU64::new(0),
                connections: Mutex::default(),
            }),
            runtime: runtime.clone(),
            listening: Mutex::new(None),
        };
        server.listen(listener)?;
        Ok(server)
    }

    fn listen(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let guard = self.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(guard);
        let task = self.runtime.spawn(accept(self.shared.clone(), listener));
        *locked(&self.listening) = Some(task);
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        locked(&self.shared.connections).len()
    }

    /// Cuts all connections. What they ran goes on.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts all connections and refuses new ones.
    pub fn down(&self) {
        if let Some(task) = locked(&self.listening).take() {
            task.abort();
            // The socket closes when the task is dropped; a caller that returns from here may rely on it.
            crate::processes::wait_until(Duration::from_secs(5), || task.is_finished());
        }
        self.cut();
    }

    /// Accepts connections again after [`LabServer::down`].
    ///
    /// # Errors
    /// When another program has taken the port meanwhile.
    pub fn up(&self) -> io::Result<()> {
        self.shared.silent.store(false, Ordering::SeqCst);
        if locked(&self.listening).is_some() { Ok(()) } else { self.listen(TcpListener::bind(self.address)?) }
    }

    /// Accepts connections from now on and says nothing on them.
    pub fn silence(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }
}

impl Drop for LabServer {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.listening).take() {
            task.abort();
        }
        self.cut();
    }
}

impl Shared {
    fn cut(&self) {
        for connection in locked(&self.connections).values() {
            // A connection that is gone already is what was wanted.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    let mut watch = tokio::time::interval(Duration::from_millis(20));
    let address = listener.local_addr();
    // None while it was told to refuse connections.
    let mut listener = Some(listener);
    loop {
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = next => {
                // Out of file descriptors, or a client that hung up at once: neither ends the server.
                let Ok((stream, _)) = accepted else { continue };
                tokio::spawn(serve(shared.clone(), stream));
            }
            // A stand-in asks for the cut by a file (fault `cut`), and sees by its removal that it was done.
            _ = watch.tick() => {
                let wanted = cut_file(&shared.host);
                if wanted.exists() {
                    shared.cut();
                    let _ = std::fs::remove_file(wanted);
                }
                if let Some(order) = Order::given(&shared.host) {
                    match order {
                        Order::Drop => shared.cut(),
                        Order::Cut => {
                            listener = None;
                            shared.cut();
                        }
                        Order::Heal if listener.is_none() => {
                            // A port that another program has taken meanwhile: whoever waits for the order is told that nobody obeys.
                            let Ok(address) = &address else { continue };
                            let Ok(again) = tokio::net::TcpListener::bind(address).await else { continue };
                            listener = Some(again);
                        }
                        Order::Heal => {}
                    }
                    Order::obeyed(&shared.host);
                }
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, stream: tokio::net::TcpStream) {
    let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
    let Ok(stream) = stream.into_std() else { return };
    let Ok(second) = stream.try_clone() else { return };
    locked(&shared.connections).insert(number, second);
    if shared.host.openssh && !shared.silent.load(Ordering::SeqCst) {
        openssh::serve(&shared.host, stream).await;
    } else if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
        let _ = stream.set_nodelay(true);
        if shared.silent.load(Ordering::SeqCst) {
            // Nothing is said until the client gives up or the connection is cut.
            let mut stream = stream;
            while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {}
        } else {
            let login = Login { shared: shared.clone(), channels: HashMap::new() };
            if let Ok(session) = russh::server::run_stream(shared.config.clone(), stream, login).await {
                // How a session ends is the client's business.
                let _ = session.await;
            }
        }
    }
    locked(&shared.connections).remove(&number);
}

/// One connection.
struct Login {
    shared: Arc<Shared>,
    /// Channels on which nothing runs yet.
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = user == LOGIN && key.public_key.key_data() == self.shared.login.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey_offered(&mut self, user: &str, key: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        let known = user == LOGIN && key.public_key.key_data() == self.shared.login.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: russh::server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let Some(channel) = self.channels.remove(&id) else { return session.channel_failure(id) };
        let command = String::from_utf8_lossy(command).into_owned();
        match spawn(&self.shared.host, &command) {
            Ok(child) => {
                session.channel_success(id)?;
                tokio::spawn(carry(channel, child, Changed::of(&self.shared.host)));
                Ok(())
            }
            Err(_) => session.channel_failure(id),
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        // Without a terminal, a shell is a program that reads its commands.
        self.exec_request(id, b"exec /bin/sh", session).await
    }

    async fn subsystem_request(&mut self, id: ChannelId, _name: &str, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

/// What a login finds in its environment.
pub(crate) fn environment(host: &Host) -> [(&'static str, String); 7] {
    let below = |path: &str| host.dir.join(path).display().to_string();
    [
        ("HOME", below("home/ops")),
        ("USER", LOGIN.to_owned()),
        ("LOGNAME", LOGIN.to_owned()),
        ("SHELL", "/bin/sh".to_owned()),
        ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/games", below("bin"))),
        ("TMPDIR", below("tmp")),
        (HOST_VARIABLE, host.dir.display().to_string()),
    ]
}

/// Starts a command as a login does: a shell with an environment of its own.
fn spawn(host: &Host, command: &str) -> io::Result<Child> {
    Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .current_dir(&host.dir)
        .env_clear()
        .envs(environment(host))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Carries a command's input, output and end over its channel.
async fn carry(channel: Channel<Msg>, mut child: Child, changed: Option<Changed>) {
    let (reader, writer) = channel.split();
    let writer = Arc::new(writer);
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let input = tokio::spawn(carry_input(reader, child.stdin.take(), group));
    let output = tokio::spawn(carry_output(writer.clone(), child.stdout.take(), None, changed));
    let errors = tokio::spawn(carry_output(writer.clone(), child.stderr.take(), Some(1), None));
    let hands = [input.abort_handle(), output.abort_handle(), errors.abort_handle()];
    let gone = async {
        let status = child.wait().await;
        report_end(&writer, status).await;
        // As OpenSSH: the channel stays open until the last process that holds the pipes has closed them.
        let _ = output.await;
        let _ = errors.await;
    };
    tokio::pin!(gone);
    tokio::select! {
        () = &mut gone => {
            // Who has gone away needs no answer.
            let _ = writer.eof().await;
            let _ = writer.close().await;
        }
        // The client closed the channel or is cut off. The pipes close with the tasks; the processes are told by that alone.
        _ = input => {}
    }
    for hand in hands {
        hand.abort();
    }
}

async fn report_end(writer: &ChannelWriteHalf<Msg>, status: io::Result<ExitStatus>) {
    let code = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => u32::try_from(code).unwrap_or(255),
            // russh has no exit-signal on this side of a channel; a shell would say the same.
            (None, signal) => 128 + u32::try_from(signal.unwrap_or(0)).unwrap_or(0),
        },
        Err(_) => 255,
    };
    let _ = writer.exit_status(code).await;
}

/// Returns when the client has closed the channel or is gone.
async fn carry_input(mut reader: ChannelReadHalf, stdin: Option<ChildStdin>, group: Option<Pid>) {
    let mut stdin = stdin;
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                // A command that has closed its input reads nothing more: the rest goes nowhere, as with OpenSSH.
                if let Some(pipe) = &mut stdin
                    && pipe.write_all(&data).await.is_err()
                {
                    stdin = None;
                }
            }
            ChannelMsg::Eof => stdin = None,
            ChannelMsg::Signal { signal } => {
                if let (Some(group), Some(signal)) = (group, number(&signal)) {
                    let _ = kill_process_group(group, signal);
                }
            }
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

fn number(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::HUP => Signal::HUP,
        Sig::INT => Signal::INT,
        Sig::QUIT => Signal::QUIT,
        Sig::KILL => Signal::KILL,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        _ => return None,
    })
}

async fn carry_output<R: tokio::io::AsyncRead + Unpin>(
    writer: Arc<ChannelWriteHalf<Msg>>,
    pipe: Option<R>,
    extended: Option<u32>,
    mut changed: Option<Changed>,
) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let data = buffer.get(..read).unwrap_or_default();
        let data = changed.as_mut().map_or_else(|| data.to_vec(), |changed| changed.pass(data));
        if data.is_empty() {
            continue;
        }
        let sent = match extended {
            None => writer.data_bytes(data).await,
            Some(kind) => writer.extended_data_bytes(kind, data).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
