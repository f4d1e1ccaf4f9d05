//! Carries frames between a started agent's channel and a [`Link`].

use super::connect::Connection;
use super::start::{Said, Started};
use super::text::printable;
use crate::hosts::{Incoming, Link, Outgoing};
use proto::{Decoder, Frame, FrameError};
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How many messages of an agent may wait.
const WAITING: usize = 64;
/// How many may wait for an agent. Pieces of a file are among them: what waits here is memory, and the connection holds enough of its own.
const WAITING_TO: usize = 16;
/// Frames that wait together go out in one write of at most about this size.
const BATCH: usize = 32 * 1024;
/// How long an agent has to end after its standard input was closed.
const GOODBYE: Duration = Duration::from_secs(5);

/// Sets the two directions going.
pub(super) fn link(connection: Connection, started: Started) -> Link {
    let (to, outgoing) = mpsc::channel(WAITING_TO);
    let (incoming, from) = mpsc::channel(WAITING);
    let (finished, closing) = oneshot::channel();
    let Started { hello, read, write, decoder, said } = started;
    tokio::spawn(write_all(write, outgoing, finished));
    let reader = Reader { connection, read, decoder, said, incoming };
    tokio::spawn(reader.run(closing));
    Link { agent: hello, to, from }
}

/// Why the writing side ended.
enum Finished {
    /// Nobody wants to say anything any more.
    Said,
    /// A message could not be sent.
    Failed(String),
}

/// Writes what is to be said, as much as waits in one go.
async fn write_all(write: ChannelWriteHalf<Msg>, mut outgoing: mpsc::Receiver<Outgoing>, finished: oneshot::Sender<Finished>) {
    let why = loop {
        let Some(first) = outgoing.recv().await else {
            break Finished::Said;
        };
        let mut batch = Vec::new();
        let mut encoded = encode(first, &mut batch);
        while encoded.is_ok() && batch.len() < BATCH {
            match outgoing.try_recv() {
                Ok(next) => encoded = encode(next, &mut batch),
                Err(_) => break,
            }
        }
        if let Err(error) = encoded {
            break Finished::Failed(format!("a message cannot be sent: {error}"));
        }
        // An error here means that the session is over, which the reading side says better.
        if write.data_bytes(batch).await.is_err() {
            break Finished::Said;
        }
    };
    let _ = write.eof().await;
    let _ = finished.send(why);
}

fn encode(message: Outgoing, out: &mut Vec<u8>) -> Result<(), FrameError> {
    match message {
        Outgoing::Message(message) => Frame::message(&message)?.encode_into(out),
        Outgoing::Data { stream, offset, bytes } => Frame::Data { stream, offset, bytes }.encode_into(out),
    }
    Ok(())
}

struct Reader {
    connection: Connection,
    read: ChannelReadHalf,
    decoder: Decoder,
    said: Said,
    incoming: mpsc::Sender<Incoming>,
}

impl Reader {
    async fn run(mut self, mut closing: oneshot::Receiver<Finished>) {
        let reason = match self.read_all(&mut closing).await {
            Ok(reason) => reason,
            Err(error) => format!("the agent sent something that is not the protocol: {}", printable(&error.to_string())),
        };
        let _ = self.incoming.send(Incoming::Closed { reason }).await;
        let goodbye = self.connection.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(GOODBYE, goodbye).await;
    }

    /// Passes everything on until the end; says why it ended.
    async fn read_all(&mut self, closing: &mut oneshot::Receiver<Finished>) -> Result<String, FrameError> {
        let mut goodbye: Option<tokio::time::Instant> = None;
        let mut failure: Option<String> = None;
        loop {
            while let Some(frame) = self.decoder.next_frame()? {
                let incoming = match frame {
                    Frame::Control(payload) => Incoming::Message(proto::frame::parse(&payload)?),
                    Frame::Data { stream, offset, bytes } => Incoming::Data { stream, offset, bytes },
                };
                // Nobody listens: whoever had the link has gone, and the agent is told so by the end of its input.
                if self.incoming.send(incoming).await.is_err() {
                    return Ok(String::new());
                }
            }
            let message = tokio::select! {
                message = self.read.wait() => message,
                finished = &mut *closing, if goodbye.is_none() => {
                    goodbye = Some(tokio::time::Instant::now() + GOODBYE);
                    if let Ok(Finished::Failed(why)) = finished {
                        failure = Some(why);
                    }
                    continue;
                }
                () = until(goodbye), if goodbye.is_some() => return Ok("the agent did not end when its input was closed".to_owned()),
            };
            if let Some(ChannelMsg::Data { data }) = &message {
                self.decoder.push(data);
            } else if self.said.note(message) {
                return Ok(failure.unwrap_or_else(|| self.why()));
            }
        }
    }

    /// Why the channel is over.
    fn why(&self) -> String {
        let mut reason = match (self.said.exit(), self.connection.lost()) {
            (Some(exit), _) => format!("the agent ended ({exit})"),
            (None, Some(lost)) => format!("the connection was lost ({lost})"),
            (None, None) => "the connection was lost".to_owned(),
        };
        let stderr = self.said.stderr();
        if !stderr.is_empty() {
            reason.push_str(&format!("; its last words: {stderr}"));
        }
        reason
    }
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
