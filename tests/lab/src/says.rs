//! What a host says of itself, told otherwise. Stand-in hosts share the machine that they run on, and with it its clock and its
//! operating system, and no program of a host can be told another time than the kernel's: so the host's SSH server changes what the
//! agent says on its way. The agent is the one that is shipped, and knows nothing of it.

use crate::layout::Host;
use proto::frame::{Decoder, Frame, MAGIC, parse};
use proto::inspect::{Answer, ReadError};
use proto::{FromAgent, Reading};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// What a host says of itself instead of the truth. Hosts behind the lab's own SSH server alone, those with a real OpenSSH say what is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Says {
    /// Its operating system (`debian-10`); empty: it has no file that says it.
    pub os: Option<String>,
    /// How far its clock is ahead, in milliseconds; behind where negative.
    pub clock_ms: i64,
    /// Nothing of it can be read, for this reason.
    pub unread: Option<String>,
}

fn file(host: &Host) -> PathBuf {
    host.state().join("says.json")
}

impl Host {
    /// Has it say this from the next connection on; `None`: the truth.
    ///
    /// # Errors
    /// The host's directory cannot be written.
    pub fn say(&self, says: Option<&Says>) -> io::Result<()> {
        match says {
            Some(says) => std::fs::write(file(self), serde_json::to_vec(says)?),
            None => match std::fs::remove_file(file(self)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            },
        }
    }
}

/// Changes what passes from a host's agent to the controller.
#[derive(Debug)]
pub(crate) struct Changed {
    says: Says,
    /// What stands in front of the first frame and may be the beginning of the agent's word.
    held: Vec<u8>,
    frames: Option<Decoder>,
    /// No frames of this protocol: it is passed on as it is.
    strange: bool,
}

impl Changed {
    /// What a host was told to say, if it was.
    pub(crate) fn of(host: &Host) -> Option<Self> {
        let says = serde_json::from_slice(&std::fs::read(file(host)).ok()?).ok()?;
        Some(Self { says, held: Vec::new(), frames: None, strange: false })
    }

    /// What is passed on of what arrived.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.strange {
            return bytes.to_vec();
        }
        let Some(frames) = &mut self.frames else {
            self.held.extend_from_slice(bytes);
            if let Some(at) = self.held.windows(MAGIC.len()).position(|window| window == MAGIC) {
                let rest = self.held.split_off(at + MAGIC.len());
                self.frames = Some(Decoder::new());
                let mut out = std::mem::take(&mut self.held);
                out.extend(self.pass(&rest));
                return out;
            }
            // Answers of the start script are waited for: nothing is kept back but what may be the word's beginning.
            let keep = (1..MAGIC.len()).rev().find(|n| self.held.ends_with(MAGIC.get(..*n).unwrap_or_default())).unwrap_or(0);
            let kept = self.held.split_off(self.held.len() - keep);
            return std::mem::replace(&mut self.held, kept);
        };
        frames.push(bytes);
        let mut out = Vec::new();
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => change(frame, &self.says).encode_into(&mut out),
                Ok(None) => return out,
                Err(_) => {
                    self.strange = true;
                    return out;
                }
            }
        }
    }
}

fn change(frame: Frame, says: &Says) -> Frame {
    let Frame::Control(payload) = &frame else { return frame };
    let Ok(FromAgent::Inspected { id, readings }) = parse::<FromAgent>(payload) else { return frame };
    let readings: Vec<Reading> = readings.into_iter().map(|reading| told(reading, says)).collect();
    Frame::message(&FromAgent::Inspected { id, readings }).unwrap_or(frame)
}

fn told(reading: Reading, says: &Says) -> Reading {
    let Ok(Answer::System(mut system)) = reading else { return reading };
    if let Some(why) = &says.unread {
        return Err(ReadError::Failed(why.clone()));
    }
    if let Some(os) = &says.os {
        system.os.clone_from(os);
    }
    system.clock_ms = system.clock_ms.saturating_add_signed(says.clock_ms);
    Ok(Answer::System(system))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::inspect::System;

    #[test]
    fn only_what_the_host_says_of_itself_is_changed_whatever_the_pieces_are() {
        let system = System { os: "debian-12".into(), clock_ms: 1_000_000, ..System::default() };
        let readings = vec![Ok(Answer::System(system)), Ok(Answer::Space { free: 7, inodes: 9 })];
        let data = Frame::Data { stream: 1, offset: 2, bytes: b"output".to_vec() };
        let mut stream = b"motd \x01 and more\n".to_vec();
        stream.extend(MAGIC);
        Frame::message(&FromAgent::Inspected { id: 1, readings }).unwrap().encode_into(&mut stream);
        data.encode_into(&mut stream);
        for size in [1, 3, 17, stream.len()] {
            let says = Says { os: Some("rhel-6".into()), clock_ms: -400_000, unread: None };
            let mut changed = Changed { says, held: Vec::new(), frames: None, strange: false };
            let out: Vec<u8> = stream.chunks(size).flat_map(|piece| changed.pass(piece)).collect();
            let at = out.windows(MAGIC.len()).position(|window| window == MAGIC).unwrap();
            assert_eq!(&out[..at], b"motd \x01 and more\n");
            let mut decoder = Decoder::new();
            decoder.push(&out[at + MAGIC.len()..]);
            let Some(Frame::Control(payload)) = decoder.next_frame().unwrap() else { panic!("a message") };
            let Ok(FromAgent::Inspected { readings, .. }) = parse(&payload) else { panic!("the answers") };
            let [Ok(Answer::System(system)), Ok(Answer::Space { free: 7, inodes: 9 })] = readings.as_slice() else {
                panic!("{readings:?}")
            };
            assert_eq!((system.os.as_str(), system.clock_ms), ("rhel-6", 600_000));
            assert_eq!(decoder.next_frame().unwrap().as_ref(), Some(&data));
        }
    }

    #[test]
    fn an_answer_of_the_start_script_is_not_held_back() {
        let mut changed = Changed { says: Says::default(), held: Vec::new(), frames: None, strange: false };
        assert_eq!(changed.pass(b"caravan-bootstrap: need gzip Linux x86_64\n"), b"caravan-bootstrap: need gzip Linux x86_64\n");
        assert_eq!(changed.pass(b"\x01cara"), b"");
        assert_eq!(changed.pass(b"van"), b"");
        assert_eq!(changed.pass(b"e\n"), b"\x01caravane\n");
    }
}
