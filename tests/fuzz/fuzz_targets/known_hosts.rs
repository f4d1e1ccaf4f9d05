//! Any bytes as a known_hosts file. The parser is not public: it is reached through the fleet's preparation, and the matching through
//! an attempt to take the key of a host that refuses connections (port 1 of the loopback address).
#![no_main]

use controller::secrets::Secrets;
use controller::ssh::{SshHosts, SshOptions};
use libfuzzer_sys::fuzz_target;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock};

struct World {
    fleet: inventory::Fleet,
    file: tempfile::NamedTempFile,
    runtime: tokio::runtime::Runtime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = format!(
        "version: 1\ndefaults: {{ ssh: {{ user: u, port: 1, known_hosts: {} }}, become: {{ method: none }}, source: {{ version: \"6.1\" }},\n  \
         target: {{ version: \"7.4.1\", build: 9383, packages: [] }} }}\n\
         platforms: [{{ name: p, topology: standalone, instances: [i], hosts: [{{ name: h1.example.net, address: 127.0.0.1, roles: [marketing] }}] }}]\n",
        file.path().display()
    );
    let fleet = inventory::parse(&text, "fleet.yaml", Path::new("/")).unwrap_or_else(|e| panic!("{}", e.render(false))).fleet;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    World { fleet, file, runtime }
});

fuzz_target!(|bytes: &[u8]| {
    let world = &*WORLD;
    let mut file = world.file.as_file();
    file.set_len(0).and_then(|()| std::io::Seek::rewind(&mut file)).and_then(|()| file.write_all(bytes)).expect("the file");
    let options = SshOptions { agent_socket: None, home: None, user: None, ..SshOptions::default() };
    let hosts = SshHosts::new(&world.fleet, Arc::new(Secrets::new("/")), options).unwrap_or_else(|e| panic!("{}", e.message));
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(hosts.warnings().len() <= lines, "more warnings than lines");
    assert!(world.runtime.block_on(hosts.scan("h1.example.net")).is_err(), "somebody answered");
});
