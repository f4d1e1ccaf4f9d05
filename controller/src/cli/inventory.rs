//! `caravan inventory`: what stands in the inventory, and whether it can be used. Nothing here connects to anything or resolves a
//! secret; `list -v` asks `ssh -G` what ssh_config says.

use super::check::Outcome;
use super::{Context, Exit, Failure, Format, sudoers};
use crate::plan::runbook::Runbook;
use crate::secrets::Secrets;
use crate::ssh::{Setting, SshHosts, SshOptions};
use crate::view::text::{count, pad, sanitize, width};
use inventory::{Fleet, Host, Loaded, Options, Platform, Problems, SourceVersion};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Looks at the inventory, offline.
#[derive(Debug, Clone, clap::Args)]
pub struct InventoryArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: InventoryCommand,
}

/// What can be done with an inventory.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum InventoryCommand {
    /// Validates it: all errors at once, each with its line, column and a way out.
    Check,
    /// Lists platforms, instances and hosts; with `-v` every value of each host and where it comes from.
    List,
    /// Prints the JSON Schema of the format, for editors.
    Schema,
    /// Prints the smallest sudoers file that lets Caravan become root: one command, with the digest of this build's agent in it.
    Sudoers {
        /// Only for these hosts: names, globs, `platform:NAME`, `role:NAME`, joined by commas, `!` for not.
        #[arg(long, value_name = "SELECTOR")]
        on: Option<String>,
    },
}

/// Does what was asked.
///
/// # Errors
/// [`Exit::Usage`] for an inventory that cannot be used.
pub async fn run(context: &Context, args: &InventoryArgs) -> Result<Exit, Failure> {
    let outcome = match &args.command {
        InventoryCommand::Check => check(context)?,
        InventoryCommand::List => list(context, &load_fleet(context)?, SshOptions::default())?,
        InventoryCommand::Schema => Outcome { text: pretty(&inventory::schema()), exit: Exit::Ok },
        InventoryCommand::Sudoers { on } => sudoers::print(context, &load_fleet(context)?, on.as_deref(), SshOptions::default())?,
    };
    super::print(outcome)
}

/// The fleet of the inventory, for every command that needs one. Warnings go to standard error.
///
/// # Errors
/// [`Exit::Usage`] with everything that is wrong with it.
pub fn load_fleet(context: &Context) -> Result<Fleet, Failure> {
    match load(context)? {
        Ok(loaded) => {
            warn(context, &loaded.warnings);
            crate::secrets::note_variables(&loaded.fleet);
            Ok(loaded.fleet)
        }
        Err(problems) => Err(refused(context, &problems)),
    }
}

/// Reads the inventory against the steps that the runbooks have.
fn load(context: &Context) -> Result<Result<Loaded, Problems>, Failure> {
    let mut runbooks = Vec::new();
    for version in [SourceVersion::V5_11, SourceVersion::V6_02, SourceVersion::V6_1, SourceVersion::V7] {
        for runbook in [Runbook::for_source(version), Runbook::back_to(version)] {
            runbooks.extend(runbook.map_err(|error| Failure::new(Exit::Internal, format!("error: {error}")))?);
        }
    }
    // Which runbooks a site has of its own, the inventory says; what is wrong with it otherwise is told below.
    if let Ok(loaded) = inventory::load(&context.inventory) {
        let files: BTreeSet<&String> = loaded.fleet.platforms.iter().filter_map(|platform| platform.runbook.as_ref()).collect();
        for file in files {
            match Runbook::load(&loaded.fleet.base.join(file)) {
                Ok(runbook) => runbooks.push(runbook),
                Err(problems) => return Ok(Err(problems)),
            }
        }
    }
    let steps: Vec<&str> = runbooks.iter().flat_map(Runbook::names).collect();
    Ok(inventory::load_with(&context.inventory, Options { steps: Some(&steps) }))
}

fn warn(context: &Context, warnings: &Problems) {
    if context.verbosity >= 0 && !warnings.is_empty() {
        eprint!("{}", warnings.render(context.color.1));
    }
}

fn refused(context: &Context, problems: &Problems) -> Failure {
    Failure::new(Exit::Usage, problems.render(context.color.1).trim_end())
}

fn check(context: &Context) -> Result<Outcome, Failure> {
    let result = load(context)?;
    result.iter().for_each(|loaded| crate::secrets::note_variables(&loaded.fleet));
    if context.format == Format::Json {
        let (problems, exit) = match &result {
            Ok(loaded) => (&loaded.warnings, Exit::Ok),
            Err(problems) => (problems, Exit::Usage),
        };
        return Ok(Outcome { text: pretty(&problems.to_json()), exit });
    }
    let loaded = result.map_err(|problems| refused(context, &problems))?;
    warn(context, &loaded.warnings);
    let fleet = &loaded.fleet;
    let sum = |of: fn(&Platform) -> usize| fleet.platforms.iter().map(of).sum::<usize>();
    let text = format!(
        "{} can be used: {}, {}, {}.\n",
        context.inventory.display(),
        count(fleet.platforms.len(), "platform"),
        count(sum(|platform| platform.instances.len()), "instance"),
        count(sum(|platform| platform.hosts.len()), "host"),
    );
    Ok(Outcome { text, exit: Exit::Ok })
}

fn list(context: &Context, fleet: &Fleet, options: SshOptions) -> Result<Outcome, Failure> {
    let ways = match context.verbosity > 0 {
        true => Some(SshHosts::new(fleet, Arc::new(Secrets::unattended(&fleet.base)), options)?),
        false => None,
    };
    let ways = ways.as_ref();
    let text = match context.format {
        Format::Json => pretty(&as_json(fleet, ways)),
        Format::Text => fleet.platforms.iter().map(|platform| platform_text(platform, ways)).collect::<Vec<_>>().join("\n"),
    };
    Ok(Outcome { text, exit: Exit::Ok })
}

/// The resolved fleet; with origins, and what the inventory leaves open, where they are asked for. Secrets are references in it.
fn as_json(fleet: &Fleet, ways: Option<&SshHosts>) -> Value {
    let mut json = serde_json::to_value(fleet).unwrap_or_default();
    if let Some(ways) = ways {
        for (platform, entry) in fleet.platforms.iter().zip(json["platforms"].as_array_mut().into_iter().flatten()) {
            for (host, entry) in platform.hosts.iter().zip(entry["hosts"].as_array_mut().into_iter().flatten()) {
                entry["place"] = host.place.as_str().into();
                entry["origins"] = serde_json::to_value(&host.origins).unwrap_or_default();
                let settled = ways.settings(&host.name).iter();
                let settled =
                    settled.map(|setting| (setting.key.to_owned(), json!({ "value": setting.value, "origin": origin(setting) })));
                entry["settled"] = Value::Object(settled.collect());
            }
        }
    }
    json
}

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

fn platform_text(platform: &Platform, ways: Option<&SshHosts>) -> String {
    let rehearsal = if platform.rehearsal { " · rehearsal" } else { "" };
    let mut out = format!("{} · {}{rehearsal} · {}\n", platform.name, platform.topology, count(platform.hosts.len(), "host"));
    let rows: Vec<[String; 4]> = platform.hosts.iter().map(row).collect();
    let widths: Vec<usize> = (0..4).map(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0)).collect();
    for (row, host) in rows.iter().zip(&platform.hosts) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        out.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
        if let Some(ways) = ways {
            out.push_str(&values(host, ways.settings(&host.name)));
        }
    }
    for instance in &platform.instances {
        let kind = serde_json::to_value(instance.kind).unwrap_or_default();
        let database = instance
            .database
            .as_ref()
            .map_or_else(String::new, |database| format!(", database {} on {}", database.name, database.server));
        let line = format!("  instance {} ({}) on {}{database}", instance.name, shown(&kind), instance.app);
        out.push_str(&format!("{}\n", sanitize(&line)));
    }
    for (step, change) in &platform.overrides {
        let what = match (&change.skip, &change.command) {
            (Some(reason), _) => format!("skipped: {reason}"),
            (None, Some(command)) => format!("runs {}", command.argv.join(" ")),
            (None, None) => format!("{} before, {} after", count(change.before.len(), "step"), count(change.after.len(), "step")),
        };
        out.push_str(&format!("{}\n", sanitize(&format!("  override {step}: {what}"))));
    }
    out
}

/// Name, address where it is another, operating system, roles.
fn row(host: &Host) -> [String; 4] {
    let address = if host.address == host.name { String::new() } else { host.address.clone() };
    let roles = host.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
    [host.name.clone(), address, host.os.clone().unwrap_or_default(), roles].map(|cell| sanitize(&cell).into_owned())
}

/// Where a value is from that the inventory leaves open.
fn origin(setting: &Setting) -> &'static str {
    if setting.from_config { "ssh_config" } else { "default" }
}

/// Every value that has an origin, and the origin.
fn values(host: &Host, settled: &[Setting]) -> String {
    let json = serde_json::to_value(host).unwrap_or_default();
    let mut rows: Vec<_> = host
        .origins
        .iter()
        .map(|(key, origin)| {
            let value = json.pointer(&format!("/{}", key.replace('.', "/"))).map(shown).unwrap_or_default();
            (key.as_str(), sanitize(&value).into_owned(), origin.as_str())
        })
        .collect();
    rows.extend(settled.iter().map(|setting| (setting.key, sanitize(&setting.value).into_owned(), origin(setting))));
    rows.sort();
    let key_width = rows.iter().map(|(key, ..)| width(key)).max().unwrap_or(0);
    let value_width = rows.iter().map(|(_, value, _)| width(value)).max().unwrap_or(0).min(40);
    rows.iter()
        .map(|(key, value, origin)| format!("      {}  {}  {origin}\n", pad(key, key_width), pad(value, value_width)))
        .collect()
}

/// A value as the inventory writes it: references to secrets, lists in one line, packages counted.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text == "prompt" => "prompt:".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().any(Value::is_object) => count(items.len(), "package"),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn context(inventory: PathBuf, format: Format, verbosity: i8) -> Context {
        Context { inventory, state_dir: PathBuf::new(), format, color: (false, false), verbosity }
    }

    /// A workstation whose own settings are not known.
    fn nobody() -> SshOptions {
        let program = PathBuf::from("/nonexistent/ssh");
        SshOptions { home: None, user: Some("me".to_owned()), agent_socket: None, program, ..SshOptions::default() }
    }

    fn large() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../inventory/tests/valid/large.yaml")
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.yaml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn a_fleet_is_listed() {
        let context = context(large(), Format::Text, 0);
        let mut text = list(&context, &load_fleet(&context).unwrap(), nobody()).unwrap().text;
        text.push_str("\n--- with -v, the first host:\n");
        let verbose = Context { verbosity: 1, ..context };
        let all = list(&verbose, &load_fleet(&verbose).unwrap(), nobody()).unwrap().text;
        text.extend(all.split_inclusive('\n').take_while(|line| !line.contains("instance")));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn programs_get_origins_and_no_secret() {
        let context = context(large(), Format::Json, 1);
        let json: Value = serde_json::from_str(&list(&context, &load_fleet(&context).unwrap(), nobody()).unwrap().text).unwrap();
        let host = &json["platforms"][1]["hosts"][0];
        assert_eq!(host["name"], "mkt1.emea.example.net");
        assert_eq!(host["become"]["password"], "prompt");
        assert_eq!(host["origins"]["ssh.user"], "large.yaml:6:11 (defaults)");
        assert_eq!(host["place"], "50:17");
    }

    /// As the `ssh` program says; what the inventory says stays.
    #[test]
    fn what_ssh_config_says_is_shown_as_its_own() {
        let program = PathBuf::from("/usr/bin/ssh");
        if !program.exists() {
            eprintln!("skipped: there is no ssh");
            return;
        }
        let text = std::fs::read_to_string(large()).unwrap();
        let (directory, path) = written(&text.replacen("  ssh:\n", "  ssh:\n    config: ./own\n", 1));
        std::fs::write(
            directory.path().join("own"),
            "Host mkt1.emea.example.net\n  User other\n  UserKnownHostsFile /nowhere/known\n",
        )
        .unwrap();
        let context = context(path, Format::Json, 1);
        let json: Value =
            serde_json::from_str(&list(&context, &load_fleet(&context).unwrap(), SshOptions { program, ..nobody() }).unwrap().text)
                .unwrap();
        let host = &json["platforms"][1]["hosts"][0];
        let known = &host["settled"]["ssh.known_hosts"];
        assert_eq!(known["origin"], "ssh_config", "{json:#}");
        assert!(known["value"].as_str().unwrap().starts_with("/nowhere/known"));
        assert_eq!((&host["ssh"]["user"], &host["origins"]["ssh.user"]), (&"ops".into(), &"fleet.yaml:7:11 (defaults)".into()));
    }

    #[test]
    fn a_good_inventory_is_said_to_be_good() {
        let outcome = check(&context(large(), Format::Text, -1)).unwrap();
        assert_eq!(outcome.exit, Exit::Ok);
        assert!(outcome.text.ends_with("large.yaml can be used: 4 platforms, 7 instances, 31 hosts.\n"), "{}", outcome.text);
        let json: Value = serde_json::from_str(&check(&context(large(), Format::Json, -1)).unwrap().text).unwrap();
        assert_eq!((&json["errors"], &json["warnings"]), (&0.into(), &0.into()));
    }

    #[test]
    fn a_broken_inventory_is_exit_2_with_all_errors() {
        let (_directory, path) = written("version: 1\nplattforms: []\n");
        let failure = check(&context(path.clone(), Format::Text, 0)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("did you mean `platforms`?"), "{failure}");
        assert!(failure.message.ends_with("1 error in fleet.yaml; nothing was contacted."), "{failure}");
        assert_eq!(load_fleet(&context(path.clone(), Format::Text, 0)).unwrap_err().message, failure.message);

        let outcome = check(&context(path, Format::Json, 0)).unwrap();
        assert_eq!(outcome.exit, Exit::Usage);
        let json: Value = serde_json::from_str(&outcome.text).unwrap();
        assert_eq!(json["problems"][0]["kind"], "unknown-key");
        assert_eq!((&json["problems"][0]["line"], &json["problems"][0]["column"]), (&2.into(), &1.into()));
    }

    #[test]
    fn overrides_are_held_against_the_runbooks() {
        let text = inventory::init_template(inventory::Topology::Standard);
        let (_directory, path) =
            written(&text.replace("    # overrides:", "    overrides: { stop.nlservr: { skip: \"by hand\" } }\n    #"));
        let failure = load_fleet(&context(path, Format::Text, 0)).unwrap_err();
        assert!(failure.message.contains("the runbook has no step `stop.nlservr`"), "{failure}");
        assert!(failure.message.contains("did you mean `stop.nlserver`?"), "{failure}");
    }

    /// A site's own runbook is checked with the inventory, and its steps can be overridden.
    #[test]
    fn an_own_runbook_is_read_with_the_inventory() {
        let text = inventory::init_template(inventory::Topology::Standard);
        let text = text
            .replace("    # overrides:", "    runbook: ./mine.yaml\n    overrides: { site.freeze: { skip: \"by hand\" } }\n    #");
        let (directory, path) = written(&text);
        let refused = |expected: &str| {
            let failure = load_fleet(&context(path.clone(), Format::Text, 0)).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains(expected), "{failure}");
        };
        refused("cannot read");
        let runbook = |own: &str| {
            let embedded = include_str!("../plan/runbooks/to-v7.yaml").replace("name: stop.verify\n", &format!("name: {own}\n"));
            std::fs::write(directory.path().join("mine.yaml"), embedded).unwrap();
        };
        runbook("site/freeze");
        refused("mine.yaml:");
        runbook("other.name");
        refused("the runbook has no step `site.freeze`");
        runbook("site.freeze");
        let fleet = load_fleet(&context(path.clone(), Format::Text, -1)).unwrap();
        assert_eq!(fleet.platforms[0].runbook.as_deref(), Some("./mine.yaml"));
    }

    #[test]
    fn what_templates_comment_out_names_real_steps() {
        for topology in inventory::Topology::ALL {
            let text =
                inventory::init_template(topology).replace("    # overrides:", "    overrides:").replace("    #   ", "      ");
            let (_directory, path) = written(&text);
            let fleet = load_fleet(&context(path, Format::Text, -1)).unwrap_or_else(|failure| panic!("{failure}"));
            assert_eq!(fleet.platforms[0].overrides.len(), 3, "{topology}");
        }
    }
}
