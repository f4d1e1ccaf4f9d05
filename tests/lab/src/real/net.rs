//! The network of a realistic lab: a bridge, and a pair of interfaces for each host. Names and addresses are drawn anew for each lab, so
//! that labs can run side by side.

use crate::furnish::random;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};

/// The network of a lab.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Network {
    /// Its bridge.
    pub(crate) bridge: String,
    /// The beginning of the names of its hosts' interfaces.
    prefix: String,
    /// Its first address; the lab's own one is the next.
    first: Ipv4Addr,
}

/// Hosts have addresses from `.11` on.
const FIRST_HOST: u32 = 11;

impl Network {
    /// Makes the bridge of a lab, in a network of 4,096 addresses that is in use nowhere on this machine.
    pub(crate) fn make() -> io::Result<Self> {
        let id = random(3)?;
        let mut last = io::Error::other("no free network");
        for _ in 0..20 {
            let draw = u32::from_str_radix(&random(2)?, 16).unwrap_or(0);
            let first = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + (draw % 0x3ff) * 4096);
            if is_used(first)? {
                continue;
            }
            let network = Self { bridge: format!("lab{id}"), prefix: format!("l{id}"), first };
            match network.bring_up() {
                Ok(()) => return Ok(network),
                Err(error) => last = error,
            }
            network.remove();
        }
        Err(last)
    }

    fn bring_up(&self) -> io::Result<()> {
        let Self { bridge, .. } = self;
        let own = self.own();
        ip(None, &format!("link add {bridge} type bridge\naddr add {own}/20 dev {bridge}\nlink set {bridge} up\n"))
    }

    /// The lab's own address.
    pub(crate) fn own(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + 1)
    }

    /// The network as PostgreSQL writes it.
    pub(crate) fn cidr(&self) -> String {
        format!("{}/20", self.first)
    }

    /// The address of the host with this number, from 0.
    pub(crate) fn address(&self, number: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + FIRST_HOST + u32::try_from(number).unwrap_or(0))
    }

    /// The lab's end of the host's cable.
    pub(crate) fn interface(&self, address: Ipv4Addr) -> String {
        format!("{}-{}", self.prefix, u32::from(address) - u32::from(self.first))
    }

    /// Connects the network namespace of a process.
    pub(crate) fn connect(&self, pid: u32, address: Ipv4Addr) -> io::Result<()> {
        let (name, bridge) = (self.interface(address), &self.bridge);
        ip(None, &format!("link add {name} type veth peer name eth0 netns {pid}\nlink set {name} master {bridge} up\n"))?;
        let own = self.own();
        ip(
            Some(pid),
            &format!("link set lo up\naddr add {address}/20 dev eth0\nlink set eth0 up\nroute add default via {own} dev eth0\n"),
        )
    }

    /// Removes the bridge. The hosts' ends go with their namespaces.
    pub(crate) fn remove(&self) {
        // One that is gone is what was asked for.
        let _ = ip(None, &format!("link del {}\n", self.bridge));
    }
}

/// Whether this machine has an address or a route in the 4,096 addresses from `first` on.
fn is_used(first: Ipv4Addr) -> io::Result<bool> {
    let routes = run(Command::new("ip").args(["-4", "route", "show", "table", "all"]).stdin(Stdio::null()))?;
    let text = String::from_utf8_lossy(&routes.stdout).into_owned();
    let of = |word: &str| word.split('/').next().and_then(|address| address.parse::<Ipv4Addr>().ok());
    Ok(text.split_whitespace().filter_map(of).any(|other| u32::from(other) & !0xfff == u32::from(first)))
}

/// Runs commands of `ip`, here or in the network namespace of a process.
pub(crate) fn ip(pid: Option<u32>, commands: &str) -> io::Result<()> {
    let mut command = match pid {
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command.args(["-t", &pid.to_string(), "-n", "ip"]);
            command
        }
        None => Command::new("ip"),
    };
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() { Ok(()) } else { Err(io::Error::other(said(&output))) }
}

/// Runs a command; an error has what it said.
pub(crate) fn run(command: &mut Command) -> io::Result<Output> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    Err(io::Error::other(format!("{program}: {}", said(&output))))
}

fn said(output: &Output) -> String {
    format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}
