//! The operator's own program on the way to a server (ssh_config(5) `ProxyCommand`): its standard streams are the connection.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A connection through a program, which ends with it.
pub(super) struct Piped {
    _child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

/// Starts the program as `ssh` does: by the account's shell, in whose stead it runs. The command comes from ssh_config alone, never from an
/// inventory.
///
/// # Errors
/// It cannot be started.
pub(super) fn start(command: &str) -> io::Result<Piped> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let mut program = Command::new(shell);
    crate::secrets::hide_variables(program.as_std_mut());
    program.arg("-c").arg(format!("exec {command}")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Ctrl-C is for Caravan, which still needs the connection to take steps back.
    let mut child = program.process_group(0).kill_on_drop(true).spawn()?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(input), Some(output)) => Ok(Piped { _child: child, input, output }),
        _ => Err(io::Error::other("it has no standard streams")),
    }
}

impl AsyncRead for Piped {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buffer)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}
