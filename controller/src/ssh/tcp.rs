//! TCP connections: every address of a name, by families, and one that is dead does not hold the others up.

use super::connect::{Family, Target};
use super::refused::Reason;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// After so long without an answer from one address, the next one is tried beside it. Longer than a lost first packet costs (one second):
/// where the first address lives, it is the one that is used.
const HEAD_START: Duration = Duration::from_secs(2);

/// Tries the addresses of a name in the order that the system gives (RFC 6724), each as long as connecting may take.
pub(super) async fn connect(target: &Target, limit: Duration) -> Result<TcpStream, Reason> {
    let resolve = timeout(limit, tokio::net::lookup_host((target.address.as_str(), target.port))).await;
    let addresses = resolve.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(Reason::Resolve)?;
    let wanted = |address: &SocketAddr| match target.family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    };
    let mut waiting: Vec<SocketAddr> = addresses.filter(wanted).collect();
    waiting.dedup();
    waiting.reverse();
    let (mut trying, mut failed) = (JoinSet::new(), Vec::new());
    loop {
        if let Some(address) = waiting.pop() {
            trying.spawn(async move {
                let connected = timeout(limit, TcpStream::connect(address)).await;
                connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(|error| (address, error))
            });
        }
        // With nothing left to begin, whatever is under way may take its time.
        let until = Instant::now() + if waiting.is_empty() { limit * 2 } else { HEAD_START };
        match timeout_at(until, trying.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => {
                // Small frames go back and forth: waiting to fill packets would cost 40 ms each time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Some(Ok(Err(why)))) => failed.push(why),
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => break,
        }
    }
    Err(match failed.len() {
        0 => Reason::Resolve(std::io::Error::other("the name has no address")),
        _ => Reason::Tcp(failed),
    })
}
