//! Files of the workstation, whose push is cut off in its middle.

use harness::{Site, finish, kill, signal, until};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of the setup of the client console: enough to be in the middle of it for a while.
const SIZE: usize = 32 << 20;

fn digest(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file that is not whole yet, in Caravan's directory on a host.
fn part(dir: &Path) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find_map(|path| match path.is_dir() {
        true => part(&path),
        false => path.extension().is_some_and(|ending| ending == "part").then_some(path),
    })
}

#[test]
fn a_push_that_was_cut_off_goes_on_where_it_was() {
    let site = Site::new("platforms: [{ name: emea, topology: standalone, client: true, hosts: { marketing: 1 } }]");
    let inventory = site.lab.inventory();
    let text = fs::read_to_string(&inventory).unwrap();
    let name =
        text.lines().find_map(|line| line.trim().strip_prefix("path: ").filter(|path| path.contains("setup-client"))).unwrap();
    let setup = inventory.parent().unwrap().join(name);
    let before = digest(&setup);
    let mut noise = vec![0; SIZE];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    fs::write(&setup, &noise).unwrap();
    let whole = digest(&setup);
    fs::write(&inventory, text.replace(&before, &whole)).unwrap();

    let packages = site.host("emea-mkt1").host_state().join("packages");
    let there = || part(&packages).and_then(|part| fs::metadata(part).ok()).map_or(0, |meta| meta.len());
    let run = site.begin(&["migrate", "--yes"]);
    until("a part of the file", || there() > 4 << 20);
    // Stopped first, so that what is there is there when it is killed.
    signal(&run, Signal::STOP);
    let cut_at = there();
    kill(run);
    assert!(cut_at < SIZE as u64, "the file was whole before the controller died");
    let resumed = finish(site.begin(&["resume", "-vv"])).expect(0);
    site.assert_no_violations();
    let said = resumed.stderr.split_once("from byte ").map(|(_, rest)| rest.split_once(|letter: char| !letter.is_ascii_digit()));
    let offset = said.flatten().and_then(|(offset, _)| offset.parse::<u64>().ok());
    assert!(!resumed.stderr.contains('\u{1b}'), "colours, and nobody looks: {}", resumed.stderr);
    assert!(offset.is_some_and(|offset| offset >= cut_at), "{cut_at} {offset:?} in {}", resumed.stderr);
    let console = site.host("emea-mkt1").nl6().join("datakit/nl/eng/jsp/setup-client-7.0.9383.exe");
    assert_eq!(digest(&console), whole);
}
