//! What every command that drives a run has in common: how its hosts are reached, who drives it, how people are asked and heard.

use super::control;
use super::judge::{again, judge};
use super::next::next;
use super::screen::Screen;
use super::site::Site;
use super::{Context, Exit, Failure, Format};
use crate::check;
use crate::plan::{Plan, PlannedStep, SCRATCH_SECRETS, passwords};
use crate::report::{Record, summary};
use crate::run::journal::{Chain, Journal, JournalError};
use crate::run::options::{Asker, HostOptions};
use crate::run::state::Bounds;
use crate::run::store::{RunDir, Store};
use crate::run::{Command, Engine, Options, Signal};
use crate::secrets::Secrets;
use inventory::{BecomeMethod, Fleet, SecretRef};
use proto::message::Claim;
use proto::{Action, RunAs, Secret};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a person can say beforehand, whether a run is started or taken up again.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Set a failing finding aside, with the reason. Can be given several times.
    #[arg(long = "override", value_name = "FINDING=REASON", value_parser = pair)]
    pub(super) overrides: Vec<(String, String)>,
    /// Confirm a gate beforehand, with a note for the record. Can be given several times.
    #[arg(long = "confirm", value_name = "GATE=NOTE", value_parser = pair)]
    pub(super) confirm: Vec<(String, String)>,
    /// Let a skipped step count although its probe does not show the effect, with the reason; every report shows it. Can be given
    /// several times.
    #[arg(long = "accept-unproven", value_name = "STEP=REASON", value_parser = pair)]
    pub(super) accept_unproven: Vec<(String, String)>,
    /// Take hosts from another run or operator that holds them, with the reason. Nothing is granted before every host of a platform has
    /// agreed.
    #[arg(long, value_name = "REASON")]
    pub(super) take_over: Option<String>,
    /// How long a host may stay away while its steps run, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    pub(super) patience: u64,
}

/// How long a host may stay away where nobody says otherwise, in seconds.
const PATIENCE: u64 = 600;

impl Default for RunArgs {
    /// Nothing is said beforehand.
    fn default() -> Self {
        let (overrides, confirm, accept_unproven) = (Vec::new(), Vec::new(), Vec::new());
        Self { overrides, confirm, accept_unproven, take_over: None, patience: PATIENCE }
    }
}

/// A run that is about to be driven.
pub(super) struct Drive {
    /// As recorded: `migrate`, `resume`, ...
    pub(super) command: &'static str,
    pub(super) dir: RunDir,
    pub(super) plan: Plan,
    pub(super) journal: Journal,
    /// How its hosts are reached.
    pub(super) hosts: BTreeMap<String, HostOptions>,
    /// What is in the journal, and whether it was rebuilt from the hosts; nothing for a new run.
    pub(super) left: Option<(Chain, bool)>,
    pub(super) bounds: Bounds,
    pub(super) limit_text: Option<String>,
    /// Findings that were overridden earlier in the run, with the reasons.
    pub(super) overridden: BTreeMap<String, String>,
    /// With what its hosts are taken.
    pub(super) claim: Claim,
    /// The run is only taken up to be ended, for this reason.
    pub(super) abort: Option<String>,
}

/// What one life of a controller takes hosts with. `undoes` is the run whose hosts a rollback inherits.
///
/// # Errors
/// The state directory cannot be read or written.
pub(super) fn claim(context: &Context, args: &RunArgs, undoes: Option<String>) -> Result<Claim, Failure> {
    Ok(Claim {
        seat: Store::new(&context.state_dir).seat().map_err(|e| internal(&e))?,
        controller: crate::run::store::random_id(),
        operator: operator(),
        take_over: args.take_over.clone(),
        succeeds: undoes,
    })
}

/// Drives a run to its end, or to where it has to wait, and says how it ended.
///
/// # Errors
/// A record that cannot be kept.
pub(super) async fn drive(context: &Context, site: &Site, args: &RunArgs, drive: Drive) -> Result<Exit, Failure> {
    let Drive { command, dir, plan, journal, left, hosts, bounds, limit_text, overridden, claim, abort } = drive;
    let Site { fleet, hosts: ssh, .. } = site;
    let overrides = overridden.into_iter().chain(args.overrides.iter().cloned()).collect();
    let clock = super::conditions::clock(context, &plan, &bounds.conditions)?;
    let history = super::history::of(context, fleet);
    let files = check::PackageFiles::of(&plan);
    let mut screen = Screen::new(context, &plan);
    screen.expect(history.expected_steps(&plan));
    let options = Options {
        command: command.to_owned(),
        run: dir.id.clone(),
        claim,
        bounds,
        limit_text,
        hosts,
        files: plan.files.iter().map(|file| (file.sha256.clone(), fleet.base.join(&file.path))).collect(),
        dir: dir.path.clone(),
        confirmed: args.confirm.iter().cloned().collect(),
        accepted: args.accept_unproven.iter().cloned().collect(),
        patience: Duration::from_secs(args.patience),
        abort,
        clock,
        again: again(fleet, files.clone()),
        judge: judge(fleet, overrides, history, files, passwords::sets_passwords(&plan)),
        reader: Box::new(read_output),
        asker: asker(context, &screen),
    };
    let (to, commands) = mpsc::channel(8);
    let control = control::serve(&dir.path, to.clone());
    if let Err(error) = &control {
        tracing::warn!("pause, abort, retry and skip cannot reach this run from another terminal: {error}");
    }
    keyboard(to, screen.notice());
    let plan = Arc::new(plan);
    let engine = match &left {
        None => Engine::new(plan, ssh.clone(), options, journal, &mut screen),
        Some((chain, from_hosts)) => {
            screen.catch_up(&chain.events);
            Engine::resume(plan, ssh.clone(), options, (journal, chain), *from_hosts, &mut screen)
        }
    };
    let ended = engine.map_err(|e| internal(&e))?.run(commands).await;
    drop(control);
    let view = screen.finish();
    let exit = Exit::from_code(ended.map_err(|e| internal(&e))?.exit_code);
    if context.format == Format::Text && (context.verbosity >= 0 || exit != Exit::Ok) {
        let record = Record { dir: dir.path.display().to_string(), ..Record::default() };
        say!("{}", summary(&view, &record, &next(context, &view, false), context.color.1).trim_end());
    }
    Ok(exit)
}

/// A failure of the record.
pub(super) fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Internal, format!("error: {error}"))
}

/// Why a journal cannot be used, with the exit code that goes with it.
pub(super) fn journal_failure(error: &JournalError) -> Failure {
    let exit = if matches!(error, JournalError::Held { .. }) { Exit::Locked } else { Exit::Internal };
    Failure::new(exit, format!("error: {error}"))
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((id, reason)) if !id.trim().is_empty() && !reason.trim().is_empty() => {
            Ok((id.trim().to_owned(), reason.trim().to_owned()))
        }
        _ => Err("expected ID=TEXT, with a text: it goes into the record".to_owned()),
    }
}

/// A platform takes part when one of its hosts is inside the limit.
pub(super) fn selected_platforms(fleet: &Fleet, limit: Option<&BTreeSet<String>>) -> BTreeSet<String> {
    let inside = |host: &inventory::Host| limit.is_none_or(|limit| limit.contains(&host.name));
    fleet.platforms.iter().filter(|platform| platform.hosts.iter().any(inside)).map(|platform| platform.name.clone()).collect()
}

/// Gates and findings that were named have to exist: a typing error must not be found out at two in the morning.
pub(super) fn check_ids(plan: &Plan, fleet: &Fleet, args: &RunArgs) -> Result<(), Failure> {
    let gates: BTreeSet<&str> = steps(plan)
        .filter_map(|step| match &step.spec.action {
            Action::Gate { gate, .. } => Some(gate.as_str()),
            _ => None,
        })
        .collect();
    let mut errors = Vec::new();
    for (gate, _) in &args.confirm {
        if !gates.contains(gate.as_str()) {
            let known = if gates.is_empty() {
                "this plan has no gates".to_owned()
            } else {
                format!("this plan has: {}", gates.iter().copied().collect::<Vec<_>>().join(", "))
            };
            errors.push(format!("error: --confirm: there is no gate `{gate}`; {known}"));
        }
    }
    for (id, _) in &args.overrides {
        if let Err(error) = check::overridable(fleet, id) {
            errors.push(format!("error: --override: {error}"));
        }
    }
    let known: BTreeSet<&str> = steps(plan).map(|step| step.id.0.as_str()).collect();
    for (step, _) in &args.accept_unproven {
        if !known.contains(step.as_str()) {
            errors
                .push(format!("error: --accept-unproven: the plan has no step `{step}`; `caravan plan --format json` lists them"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Usage, errors.join("\n"))) }
}

pub(super) fn steps(plan: &Plan) -> impl Iterator<Item = &PlannedStep> {
    plan.platforms.iter().flat_map(|platform| &platform.phases).flat_map(|phase| &phase.stages).flat_map(|stage| &stage.steps)
}

/// How each host of the selected platforms is reached, with the secrets that its steps name. Asked for before anything starts, so that
/// nobody has to be awake for a prompt in the middle of the run.
///
/// `ends`: the run is only ended. Then no `internal` password is asked for or sent, not even an empty one: a step that sets it and was
/// granted before would type what it is given. Without one it says what it lacks.
pub(super) async fn host_options(
    fleet: &Fleet,
    plan: &Plan,
    platforms: &BTreeSet<String>,
    secrets: &Secrets,
    ends: bool,
) -> Result<BTreeMap<String, HostOptions>, Failure> {
    let mut named: HashMap<&str, BTreeSet<String>> = HashMap::new();
    for step in steps(plan) {
        named.entry(&step.host).or_default().extend(step.spec.action.secrets().map(str::to_owned));
    }
    let key = check::passwords::ProofKey::new().map_err(|e| Failure::new(Exit::Internal, format!("error: {e}")))?;
    let mut options = BTreeMap::new();
    for platform in fleet.platforms.iter().filter(|platform| platforms.contains(&platform.name)) {
        for host in &platform.hosts {
            let mut values: BTreeMap<String, Secret> = BTreeMap::new();
            values.insert(proto::inspect::FINGERPRINT_KEY.to_owned(), key.secret());
            for name in named.get(host.name.as_str()).into_iter().flatten() {
                let password = match name.as_str() {
                    passwords::CURRENT | passwords::NEW | passwords::NONE if ends => continue,
                    passwords::CURRENT => secrets.resolve(&SecretRef::Prompt, &current_label(&platform.name)).await?,
                    passwords::NONE => Secret::new(""),
                    passwords::NEW => secrets.resolve(&SecretRef::Prompt, &new_label(&platform.name)).await?,
                    name => database_password(platform, name, secrets).await?,
                };
                values.insert(name.clone(), password);
            }
            let root = host.become_.method != BecomeMethod::None;
            let run_as = if host.has_root() { RunAs::User(host.campaign.user.clone()) } else { RunAs::Login };
            let option = HostOptions { host_state: host.host_state.clone(), root, run_as, secrets: values };
            options.insert(host.name.clone(), option);
        }
    }
    Ok(options)
}

/// How a person is asked for the `internal` password that a platform has.
pub(super) fn current_label(platform: &str) -> String {
    format!("the current internal password of {platform} (empty if none is set)")
}

/// How a person is asked for the `internal` password that a platform gets.
pub(super) fn new_label(platform: &str) -> String {
    format!("the new internal password of {platform}")
}

/// How a person is asked for the password of an instance's database.
fn database_label(platform: &inventory::Platform, instance: &str) -> String {
    format!("the password of the database of {instance} ({})", platform.name)
}

/// How a person is asked for the password of the scratch database that an instance's dump is restored into.
fn scratch_label(platform: &inventory::Platform, instance: &str) -> String {
    format!("the password of the scratch database of {instance} ({})", platform.name)
}

async fn scratch_password(platform: &inventory::Platform, instance: &str, secrets: &Secrets) -> Result<Secret, Failure> {
    let database = platform.instances.iter().find(|i| i.name == instance).and_then(|i| i.database.as_ref());
    let reference = match database.map(|database| &database.backup) {
        Some(inventory::Backup::On { scratch: Some(scratch), .. }) => scratch.password.as_ref(),
        _ => None,
    };
    let missing = || {
        let text = format!("error: platform `{}`: the scratch database of `{instance}` needs its `password:`", platform.name);
        Failure::new(Exit::Usage, text)
    };
    secrets.resolve(reference.ok_or_else(missing)?, &scratch_label(platform, instance)).await
}

/// The password that steps and questions name `database/INSTANCE` or `scratch/INSTANCE`.
pub(super) async fn database_password(platform: &inventory::Platform, name: &str, secrets: &Secrets) -> Result<Secret, Failure> {
    if let Some(instance) = name.strip_prefix(SCRATCH_SECRETS) {
        return scratch_password(platform, instance, secrets).await;
    }
    let instance = name.strip_prefix("database/").and_then(|name| platform.instances.iter().find(|i| i.name == name));
    let reference = instance.and_then(|i| i.database.as_ref().or(platform.database.as_ref())).and_then(|d| d.password.as_ref());
    match reference {
        Some(reference) => secrets.resolve(reference, &database_label(platform, name.trim_start_matches("database/"))).await,
        None => Err(Failure::new(
            Exit::Usage,
            format!(
                "error: platform `{}`: the backup of `{name}` needs a password; add `password:` to its `database`",
                platform.name
            ),
        )),
    }
}

/// What a step printed, as far as it means something to the checks.
fn read_output(platform: &str, step: &PlannedStep, file: &std::path::Path) -> Vec<proto::event::Finding> {
    match std::fs::File::open(file) {
        Ok(file) => check::postupgrade::findings(platform, step, std::io::BufReader::new(file)),
        Err(error) => {
            tracing::warn!("{}: what it printed cannot be read from {}: {error}", step.id, file.display());
            Vec::new()
        }
    }
}

fn asker(context: &Context, screen: &Screen) -> Option<Box<Asker>> {
    let at_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && context.format == Format::Text;
    at_terminal.then(|| screen.asker())
}

/// Asks whether to start; only `yes` is a yes.
///
/// # Errors
/// It was another answer, or there is no terminal to ask at.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "error: there is no terminal to ask at; look at what would be done, then give --yes",
        ));
    }
    if says_yes(question) { Ok(()) } else { Err(Failure::new(Exit::Waiting, "Not started; nothing was contacted.")) }
}

/// Asks a question at the terminal; only `yes` is a yes.
pub(super) fn says_yes(question: &str) -> bool {
    eprint!("{question}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

/// First Ctrl-C: pause. Second: detach.
fn keyboard(to: mpsc::Sender<Command>, notice: impl Fn(&str) + Send + 'static) {
    tokio::spawn(async move {
        for signal in [Signal::Pause { operator: operator() }, Signal::Detach] {
            let pauses = signal != Signal::Detach;
            if tokio::signal::ctrl_c().await.is_err() || to.send(signal.into()).await.is_err() {
                return;
            }
            if pauses {
                notice(
                    "pausing: what has not begun is taken back, what runs may end. Ctrl-C again leaves at once; granted steps go on.",
                );
            }
        }
    });
}

/// Who runs this: account and workstation, for the record.
pub(crate) fn operator() -> String {
    let account = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let account = account.or_else(account_by_id).unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let machine = rustix::system::uname();
    format!("{account}@{}", machine.nodename().to_string_lossy())
}

/// The account's name as the system knows it: cron and containers often leave `USER` out.
fn account_by_id() -> Option<String> {
    let mut command = std::process::Command::new("id");
    crate::secrets::hide_variables(&mut command);
    let output = command.arg("-un").output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const INVENTORY: &str = "version: 1
defaults:
  source: { version: 6.1, packages: [{ os: debian-11, path: old.deb, sha256: DIGEST }] }
  target: { version: 7.4.1, build: 9383, packages: [{ os: debian-11, path: new.deb, sha256: DIGEST }] }
platforms:
  - name: emea
    topology: standalone
    instances: [emea]
    database: { engine: postgresql, server: db, name: c, user: c, backup: { by: dba } }
    hosts: [{ name: m, roles: [marketing, mta, tracking], os: debian-11 }]
";

    #[tokio::test]
    async fn a_run_that_is_only_ended_sends_no_internal_password() {
        let fleet = inventory::parse(&INVENTORY.replace("DIGEST", &"0".repeat(64)), "fleet.yaml", Path::new("")).unwrap().fleet;
        let platforms = BTreeSet::from(["emea".to_owned()]);
        let plan = passwords::build(&fleet, &platforms, &|_| Vec::new()).unwrap();
        let secrets = Secrets::unattended("/");
        let sent = async |ends| {
            let options = host_options(&fleet, &plan, &platforms, &secrets, ends).await.unwrap();
            options["m"].secrets.keys().cloned().collect::<Vec<_>>()
        };
        // Nothing is asked for, either: nobody has answered yet.
        assert_eq!(sent(true).await, [proto::inspect::FINGERPRINT_KEY]);
        secrets.answer(&current_label("emea"), Secret::new("old")).await;
        secrets.answer(&new_label("emea"), Secret::new("new")).await;
        assert_eq!(sent(true).await, [proto::inspect::FINGERPRINT_KEY]);
        let names = sent(false).await;
        for name in [passwords::CURRENT, passwords::NEW, passwords::NONE] {
            assert!(names.contains(&name.to_owned()), "{name} of {names:?}");
        }
    }
}
