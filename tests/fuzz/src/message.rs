//! Any bytes as a message of either side: what is understood can be said again, and means the same.

use proto::frame::{Frame, parse};
use proto::{FromAgent, ToAgent};
use std::fmt::Debug;

fn check<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = parse::<T>(bytes) else { return };
    let Ok(Frame::Control(said)) = Frame::message(&message) else { panic!("{message:?} cannot be said") };
    assert_eq!(parse::<T>(&said).as_ref(), Ok(&message));
}

/// Tries one input.
pub fn run(bytes: &[u8]) {
    check::<ToAgent>(bytes);
    check::<FromAgent>(bytes);
}
