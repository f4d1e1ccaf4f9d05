//! `lab up`, `lab down`.

use anyhow::Context as _;
use clap::Args;
use lab::{Lab, Layout, Spec};
use std::io::Write;
use std::path::PathBuf;
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
}

/// What `lab down` is told.
#[derive(Args)]
pub(crate) struct DownArgs {
    /// The lab's directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn up(args: &UpArgs) -> anyhow::Result<ExitCode> {
    let spec = match &args.fleet {
        None => Spec::every_topology(),
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Spec::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?
        }
    };
    let lab = Lab::start(spec, &args.dir)?;
    let mut out = std::io::stdout();
    let hosts = lab.layout().hosts().count();
    writeln!(out, "{} platforms with {hosts} hosts are up.", lab.layout().platforms.len())?;
    if let Some(host) = lab.layout().hosts().next() {
        let (dir, port) = (lab.dir().display(), lab.port());
        let inventory = lab.inventory();
        writeln!(
            out,
            "\nTry:\n  caravan -i {0} check\n  caravan -i {0} passwords check\n  caravan -i {0} migrate",
            inventory.display()
        )?;
        writeln!(out, "\nLog in yourself:")?;
        writeln!(out, "  ssh -i {dir}/id_ed25519 -o UserKnownHostsFile={dir}/known_hosts -p {port} ops@{}", host.address)?;
        writeln!(out, "\nWhat the stand-ins see: {dir}/records.jsonl      Ctrl-C ends it.")?;
    }
    out.flush()?;
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
    drop(lab);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down(args: &DownArgs) -> anyhow::Result<ExitCode> {
    let layout = Layout::read(&args.dir)?;
    let left = lab::end_all(&layout.dir);
    anyhow::ensure!(left == 0, "{left} processes of {} do not end", layout.dir.display());
    Ok(ExitCode::SUCCESS)
}
