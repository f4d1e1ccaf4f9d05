//! `lab demo`: the whole job on a fleet with one platform of every topology, and then what the hosts themselves say about it.

use crate::caravan::Caravan;
use crate::either::{self, Fleet};
use crate::verdict;
use anyhow::Context as _;
use clap::Args;

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// What `lab demo` is told.
#[derive(Args, Clone)]
pub(crate) struct DemoArgs {
    /// The `caravan` program, instead of the one that is built in.
    #[arg(long, value_name = "PATH")]
    caravan: Option<PathBuf>,
    /// Build the fleet here, in an empty or new directory, and leave it afterwards.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What to build (YAML); a small fleet with every topology when left out.
    #[arg(long, value_name = "SPEC")]
    fleet: Option<PathBuf>,
    /// Realistic hosts, for root: `lab doctor` says whether they can run here.
    #[arg(long)]
    real: bool,
}

/// Prints a line; a reader that has gone away ends the demo.
macro_rules! line {
    ($($text:tt)*) => { writeln!(std::io::stdout(), $($text)*)? };
}

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let temporary = if args.dir.is_none() { Some(tempfile::Builder::new().prefix("caravan-demo-").tempdir()?) } else { None };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().join("lab"),
        (None, None) => return Ok(ExitCode::FAILURE),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (own, own_dir) = (args.clone(), dir.clone());
    let well = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::task::spawn_blocking(move || play(&own, &own_dir)) => done?.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    let code = match &well {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(None) => {
            lab::end_all(&dir);
            lab::real::end_lab(&dir)?;
            // The player still waits for a child that the same Ctrl-C has ended: it is not waited for.
            runtime.shutdown_background();
            ExitCode::from(130)
        }
        _ => {
            if let Some(temporary) = temporary {
                let kept = temporary.keep();
                line!("\nThe fleet's directory is kept for a look: {}", kept.display());
            }
            ExitCode::FAILURE
        }
    };
    well.map(|_| code)
}

/// Plays the whole job; whether everything was as it should be.
fn play(args: &DemoArgs, dir: &Path) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let spec = crate::up::spec(args.fleet.as_deref())?;
    let hosts = if args.real {
        "realistic hosts: OpenSSH, sudo, packages, Apache, PostgreSQL, and stand-ins for Campaign itself"
    } else {
        "stand-in Campaign hosts: real SSH servers, real processes"
    };
    line!("Building a fleet of {hosts}; everything below {}", dir.display());
    let lab = either::start(spec, dir, args.real)?;
    introduce(&*lab)?;
    let state = lab.dir().join("state");
    let caravan = Caravan::new(args.caravan.as_deref(), lab.inventory(), state.clone())?;
    let mut wrong = Vec::new();

    let steps: &[(&str, &[&str])] = &[
        ("The inventory is read and checked; nothing is contacted", &["inventory", "check"]),
        ("The plan: what will happen, in the mandated order of each topology", &["plan"]),
        ("Preflight: every prerequisite on every host, read-only", &["check"]),
        ("Is the `internal` password the same on all tracking servers? It never leaves its host", &["passwords", "check"]),
    ];
    for (title, arguments) in steps {
        step(&caravan, title, &arguments.iter().map(ToString::to_string).collect::<Vec<_>>(), &mut wrong)?;
    }
    let mut migrate = vec!["migrate".to_owned(), "--yes".to_owned()];
    for gate in gates(&caravan)? {
        migrate.extend(["--confirm".to_owned(), format!("{gate}=confirmed for the demo")]);
    }
    step(
        &caravan,
        "The migration: one command, all platforms; a gate waits for a person, who is `--confirm` here",
        &migrate,
        &mut wrong,
    )?;
    report(&caravan, lab.dir(), &mut wrong)?;

    line!("\n━━ What the hosts themselves recorded ━━\n");
    line!(
        "Caravan's word is one thing. The stand-ins keep their own records, judge every order they get, and know the vendor's rules."
    );
    let found = verdict::judge(&*lab, &state)?;
    for text in &found.lines {
        line!("{text}");
    }
    wrong.extend(found.wrong);
    line!();
    let seconds = begun.elapsed().as_secs_f32();
    if wrong.is_empty() {
        line!(
            "✓ All well, in {seconds:.0} s: {} platforms migrated in the mandated order, every host proven.",
            lab.layout().platforms.len()
        );
        let real = if args.real { " --real" } else { "" };
        line!("  Keep such a fleet running and play with it:  lab up{real} --dir /tmp/fleet");
    } else {
        line!("✗ Not all is well ({seconds:.0} s):");
        for text in &wrong {
            line!("  - {text}");
        }
    }
    Ok(wrong.is_empty())
}

fn introduce(lab: &dyn Fleet) -> anyhow::Result<()> {
    for platform in &lab.layout().platforms {
        let mut roles: Vec<_> = platform.hosts.iter().flat_map(|host| &host.roles).copied().collect();
        roles.sort_unstable();
        let mut text = String::new();
        for some in roles.chunk_by(|a, b| a == b) {
            let name = some.first().map_or("", |role| role.as_str());
            text.push_str(&format!("{}{} {name}", if text.is_empty() { "" } else { ", " }, some.len()));
        }
        let hosts = platform.hosts.len();
        let plural = if hosts == 1 { "host" } else { "hosts" };
        line!("  {:6} {:16} {hosts} {plural}: {text}", platform.name, platform.topology.as_str());
    }
    Ok(())
}

fn step(caravan: &Caravan, title: &str, arguments: &[String], wrong: &mut Vec<String>) -> anyhow::Result<()> {
    line!("\n━━ {title} ━━");
    let typed = arguments.iter().map(|argument| if argument.contains(' ') { format!("'{argument}'") } else { argument.clone() });
    line!("$ caravan {}\n", typed.collect::<Vec<_>>().join(" "));
    let code = caravan.show(arguments)?;
    if code != 0 {
        wrong.push(format!("`caravan {}` ended with exit code {code}", arguments.join(" ")));
    }
    Ok(())
}

/// The gates of the plan, in its order.
fn gates(caravan: &Caravan) -> anyhow::Result<Vec<String>> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Object(map) => {
                if let Some(gate) = map.get("gate").and_then(|gate| gate.get("gate")).and_then(Value::as_str)
                    && !found.iter().any(|known| known == gate)
                {
                    found.push(gate.to_owned());
                }
                map.values().for_each(|value| collect(value, found));
            }
            _ => {}
        }
    }
    let output = caravan.ask(&["--format", "json", "plan"].map(str::to_owned))?;
    anyhow::ensure!(output.status.success(), "`caravan --format json plan` failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut found = Vec::new();
    collect(&serde_json::from_slice(&output.stdout).context("`caravan --format json plan` printed no JSON")?, &mut found);
    Ok(found)
}

/// The report for the change board: kept as a file, its beginning shown.
fn report(caravan: &Caravan, dir: &Path, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    const SHOWN: usize = 24;
    line!("\n━━ The report for the change board ━━\n$ caravan report --format markdown\n");
    // `report` wants the run where there are several; here there is one, and it is the newest.
    let output = caravan.ask(&["report", "--format", "markdown"].map(str::to_owned))?;
    if !output.status.success() {
        wrong.push(format!("`caravan report` failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    std::fs::write(dir.join("report.md"), text.as_bytes())?;
    for shown in text.lines().take(SHOWN) {
        line!("  {shown}");
    }
    line!("  ... {} lines in all", text.lines().count());
    Ok(())
}
