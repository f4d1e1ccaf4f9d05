//! `lab up`, `lab down`.

use crate::either::{self, Fleet};
use anyhow::Context as _;
use clap::Args;
use lab::{Layout, Spec};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// What `lab up` is told.
#[derive(Args)]
pub(crate) struct UpArgs {
    /// What to build (YAML); a small fleet with every topology when left out.
    #[arg(long, value_name = "SPEC")]
    fleet: Option<PathBuf>,
    /// Where to build it: an empty or new directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Realistic hosts, for root: `lab doctor` says whether they can run here.
    #[arg(long)]
    real: bool,
}

/// What `lab down` is told.
#[derive(Args)]
pub(crate) struct DownArgs {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let spec = spec(args.fleet.as_deref())?;
    let lab = either::start(spec, &args.dir, args.real)?;
    introduce(&*lab, args.real)?;
    wait_for_the_end()
}

/// The fleet of a file, or one with every topology.
pub(crate) fn spec(file: Option<&Path>) -> anyhow::Result<Spec> {
    let Some(file) = file else { return Ok(Spec::every_topology()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Spec::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

/// Says what can be done with a fleet that is up.
fn introduce(lab: &dyn Fleet, real: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let (layout, port, inventory) = (lab.layout(), lab.port(), lab.inventory());
    let hosts = layout.hosts().count();
    writeln!(out, "{} platforms with {hosts} hosts are up.", layout.platforms.len())?;
    if let Some(host) = layout.hosts().next() {
        let (dir, records) = (lab.dir().display(), layout.dir.display());
        writeln!(
            out,
            "\nTry:\n  caravan -i {0} check\n  caravan -i {0} passwords check\n  caravan -i {0} migrate",
            inventory.display()
        )?;
        writeln!(out, "\nLog in yourself:")?;
        writeln!(out, "  ssh -i {dir}/id_ed25519 -o UserKnownHostsFile={dir}/known_hosts -p {port} ops@{}", host.address)?;
        if real {
            writeln!(out, "  its password for sudo is in {dir}/ops.pw")?;
        }
        let faults = if real { "cut|freeze|drop|full-disk|loss PERCENT|slow RATE|thaw|heal" } else { "cut|drop|heal" };
        writeln!(out, "\nDo something to a host:\n  lab fault --dir {dir} {} {faults}", host.name)?;
        writeln!(out, "\nWhat the stand-ins see: {records}/records.jsonl      Ctrl-C ends it.")?;
    }
    Ok(out.flush()?)
}

fn wait_for_the_end() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down(args: &DownArgs) -> anyhow::Result<ExitCode> {
    if lab::real::end_lab(&args.dir)? {
        return Ok(ExitCode::SUCCESS);
    }
    let layout = Layout::read(&args.dir)?;
    let left = lab::end_all(&layout.dir);
    anyhow::ensure!(left == 0, "{left} processes of {} do not end", layout.dir.display());
    Ok(ExitCode::SUCCESS)
}
