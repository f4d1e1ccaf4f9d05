//! `lab victim`: Caravan itself, ended at an exact moment of its journal, or noting down its moments. The program that ships has no
//! such switch: it takes a program that links the crate.

use crate::point::Point;
use clap::{Args, ValueEnum};
use controller::run::journal::{self, Moment};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `lab victim` is told.
#[derive(Args)]
pub(crate) struct VictimArgs {
    /// Die by SIGKILL at the first event of this kind (and step): `step_granted:install.packages`. Without it nothing dies, and every
    /// event is noted down.
    #[arg(long, value_name = "KIND[:STEP]")]
    at: Option<Point>,
    /// When: before the event is in the file, when it is in the file and not synced, when it is durable.
    #[arg(long, value_enum, default_value = "after")]
    when: When,
    /// Where to note down what the write holds, one event a line, with the number of its write in front.
    #[arg(long, value_name = "FILE")]
    note: PathBuf,
    /// Arguments of `caravan`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// A moment of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum When {
    /// Nothing of it is in the file.
    Before,
    /// It is in the file, and not synced.
    Appended,
    /// It is synced, and nobody knows yet.
    After,
}

impl When {
    /// As the command line has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Appended => "appended",
            Self::After => "after",
        }
    }

    fn moment(self) -> Moment {
        match self {
            Self::Before => Moment::Before,
            Self::Appended => Moment::Appended,
            Self::After => Moment::Durable,
        }
    }
}

pub(crate) fn run(args: VictimArgs) -> ExitCode {
    let VictimArgs { at, when, note, arguments } = args;
    let writes = AtomicU64::new(0);
    journal::watch(Box::new(move |moment, events| {
        let number = match moment {
            Moment::Before => writes.fetch_add(1, Ordering::SeqCst) + 1,
            _ => writes.load(Ordering::SeqCst),
        };
        let points = || events.iter().map(Point::of);
        let dies = at.as_ref().is_some_and(|at| moment == when.moment() && points().any(|point| point == *at));
        if dies || (at.is_none() && moment == Moment::Before) {
            let mut text = String::new();
            points().for_each(|point| text.push_str(&format!("{number}\t{point}\n")));
            let noted =
                OpenOptions::new().create(true).append(true).open(&note).and_then(|mut file| file.write_all(text.as_bytes()));
            if let Err(error) = noted {
                eprintln!("lab victim: cannot write {}: {error}", note.display());
            }
        }
        if dies {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // A signal to oneself is delivered at the latest when this waits; nothing may happen before.
            std::thread::sleep(std::time::Duration::MAX);
        }
    }));
    ExitCode::from(controller::cli::main(std::iter::once("caravan".into()).chain(arguments)))
}

/// Reads what a victim noted down: the number of the write, and the event.
pub(crate) fn notes(text: &str) -> impl Iterator<Item = (u64, Point)> {
    text.lines().filter_map(|line| {
        let (number, point) = line.split_once('\t')?;
        Some((number.parse().ok()?, point.parse().ok()?))
    })
}
