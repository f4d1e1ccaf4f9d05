//! Canaries: values that must turn up nowhere but where they belong, and the search for them in files, arguments, environments and texts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Files larger than this are not read: nothing of Caravan's is.
const LARGEST: u64 = 128 << 20;

/// Values with what each of them is.
#[derive(Debug, Clone, Default)]
pub struct Canaries(Vec<(String, String)>);

impl Canaries {
    /// Draws a new one. Looks like a password: letters, digits, and what a shell or a URL would trip over is left to the tests of masks.
    pub fn plant(&mut self, what: &str) -> String {
        let value = format!("Cnry-{}", &controller::run::store::random_id()[..20]);
        self.add(what, &value);
        value
    }

    /// Takes a value that is planted already.
    pub fn add(&mut self, what: &str, value: &str) {
        assert!(value.len() >= 8, "{what}: so short a value is found by chance");
        self.0.push((what.to_owned(), value.to_owned()));
    }

    /// How many there are.
    pub fn kinds(&self) -> usize {
        self.0.len()
    }

    /// What is found in some bytes.
    pub fn in_bytes(&self, bytes: &[u8]) -> Vec<&str> {
        let text = String::from_utf8_lossy(bytes);
        self.0.iter().filter(|(_, value)| text.contains(value.as_str())).map(|(what, _)| what.as_str()).collect()
    }

    /// Asserts that a text has none.
    #[track_caller]
    pub fn assert_not_in(&self, place: &str, text: &str) {
        assert_eq!(self.in_bytes(text.as_bytes()), Vec::<&str>::new(), "found in {place}");
    }

    /// What is found in the files and names below a directory, without those that `skip` names, and how many files were read.
    pub fn in_files(&self, dir: &Path, skip: &dyn Fn(&Path) -> bool) -> (Vec<String>, usize) {
        self.since(dir, SystemTime::UNIX_EPOCH, skip)
    }

    /// As [`Canaries::in_files`], in files that were changed since then.
    pub fn since(&self, dir: &Path, then: SystemTime, skip: &dyn Fn(&Path) -> bool) -> (Vec<String>, usize) {
        let (mut found, mut read) = (Vec::new(), 0);
        // What vanishes while it is looked at belongs to others.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if skip(&path) {
                continue;
            }
            found.extend(
                self.in_bytes(entry.file_name().as_encoded_bytes()).iter().map(|what| format!("{what}: in the name {path:?}")),
            );
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                let (inside, files) = self.since(&path, then, skip);
                found.extend(inside);
                read += files;
            } else if meta.is_file() && meta.len() <= LARGEST && meta.modified().is_ok_and(|changed| changed >= then) {
                let Ok(bytes) = fs::read(&path) else { continue };
                read += 1;
                found.extend(self.in_bytes(&bytes).iter().map(|what| format!("{what}: in {}", path.display())));
            }
        }
        (found, read)
    }

    /// Looks at the arguments and environments of all processes until [`Watch::end`]. `own`: the kind that an operator put into the
    /// environment of this program, where it stays.
    pub fn watch(&self, own: Option<(&str, &Path)>) -> Watch {
        let (canaries, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let own = own.map(|(what, program)| (what.to_owned(), program.to_owned()));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut seen, mut samples) = (BTreeSet::new(), 0);
            while !ended.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    for file in ["cmdline", "environ"] {
                        // Before and after: it may begin or end in between. What is where it must not be is so at other looks, too.
                        let program = || fs::read_link(entry.path().join("exe")).unwrap_or_default();
                        let before = program();
                        let Ok(bytes) = fs::read(entry.path().join(file)) else { continue };
                        samples += 1;
                        for what in canaries.in_bytes(&bytes) {
                            let program = program();
                            let at_home = |(kind, home): &(String, PathBuf)| {
                                kind == what && file == "environ" && (*home == program || *home == before)
                            };
                            if !own.as_ref().is_some_and(at_home) {
                                seen.insert(format!("{what}: in {file} of {}", program.display()));
                            }
                        }
                    }
                }
                // Not as fast as it can: it would take the processors from what it watches.
                std::thread::sleep(Duration::from_millis(10));
            }
            (seen, samples)
        });
        Watch { thread, stop }
    }
}

/// A search that goes on.
pub struct Watch {
    thread: JoinHandle<(BTreeSet<String>, usize)>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// What was found, and how many arguments and environments were read.
    pub fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (seen, samples) = self.thread.join().expect("the search goes on");
        (seen.into_iter().collect(), samples)
    }
}
