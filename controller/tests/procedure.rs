//! `PROCEDURE.md` says where each part of the vendor's procedure is: it is held against the runbooks, against plans, and against the
//! vendor's commands.

use crate::plan_fleet::*;
use controller::plan::rollback::{Done, Forward};
use controller::plan::runbook::Runbook;
use controller::plan::{Plan, PlannedStep, PlatformPlan};
use inventory::{KeepAt, Location, Platform, SourceVersion};
use proto::Action;
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../PROCEDURE.md");

/// What the vendor's pages tell people to type, to change, or to look at.
const DOCUMENTED: &[&str] = &[
    "/etc/init.d/apache2 stop",
    "/etc/init.d/nlserver6 stop",
    "systemctl stop nlserver",
    "ps waux | grep nlserver",
    "killall nlserver",
    "killall -9 nlserver",
    "nlserver pdump",
    "pg_dump",
    "mv nl6 nl6.back",
    "dpkg --purge nlserver6 nlthirdparty6",
    "nlserver5 nlthirdparty5",
    "rpm -ev",
    "dpkg -i nlserver6-v7-XXXX",
    "rpm -Uvh nlserver6-v7-XXXX",
    "yum update",
    "Removing:",
    "setup-client-7.0.XXXX.exe",
    "nl6/env.sh",
    "nlserver6 start",
    "cp nl6.back/conf/config*.xml nl6/conf/",
    "config-default.xml",
    "customer.sh",
    "customers/*",
    "var/*",
    "_autoStart",
    "<trackinglogd autoStart=\"true\"/>",
    "serverConf.xml.diff",
    "nlserver config -reload",
    "nlserver config -postupgrade -instance:<instance>",
    "-timezone:<zone>",
    "-check",
    "-force",
    "-usetimestamptz:1",
    "envvars",
    "nlsrv.load",
    "nlsrv.conf",
    "alias.conf",
    "nlserver monitor -missing",
    "GET /r/test",
    "nlserver config -internalpassword",
    "iisreset /stop",
    "nlserver stop mta@<instance>",
    "net stop nlserver6",
    "tasklist /FI \"IMAGENAME eq nlserver*\"",
    "taskkill /IM nlserver* /T",
    "ren \"Adobe Campaign v6\" \"Adobe Campaign v6.back\"",
    "sc config nlserver6 start= disabled",
    "setup.exe",
    "net start nlserver6-v7",
    "cscript iis_neolane_setup.vbs",
];

struct Row {
    documented: String,
    steps: Vec<String>,
    plan: String,
    shown: Vec<String>,
}

/// What stands between backticks.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| documented"));
    let row = |line: &str| {
        let line = line.replace("\\|", "\u{0}");
        let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
        let [documented, steps, plan] = cells.try_into().unwrap_or_else(|cells| panic!("not three cells: {cells:?}"));
        Row { steps: code(&steps), shown: code(&plan), documented, plan }
    };
    lines.map(row).collect()
}

/// Fleets whose plans together have everything.
fn fleets() -> Vec<Platform> {
    let mut bare = standard();
    bare.instances[0].database.as_mut().unwrap().password = None;
    bare.hosts = bare.hosts.into_iter().map(sysv).collect();
    bare.name = "bare".into();
    let mut zones = from_version(SourceVersion::V5_11, standalone());
    zones.instances[0].timestamptz = true;
    zones.name = "zones".into();
    let mut tried = keeping(KeepAt::Workstation, power_booster());
    tried.instances.iter_mut().for_each(|instance| add_scratch(instance, None));
    let console = with_client(Location::Path("setup-client-7.0.9383.exe".into()), standalone());
    let mut platforms = vec![cloud_messaging(), console, tried, bare.clone(), zones];
    for version in [SourceVersion::V5_11, SourceVersion::V6_02, SourceVersion::V6_1, SourceVersion::V7] {
        platforms.extend([standard(), with_windows()].map(|platform| coming_from(version, platform)));
    }
    platforms.push(coming_from(SourceVersion::V5_11, bare));
    platforms
}

/// What is shown of a step: its title, its command line, its gate, and everything that the agent is told.
fn shown(step: &PlannedStep) -> String {
    let gate = match &step.spec.action {
        Action::Gate { gate, ask, commands } => format!("{gate}\n{ask}\n{}", commands.join("\n")),
        _ => String::new(),
    };
    let command = step.command.as_ref().map(|argv| argv.join(" ")).unwrap_or_default();
    let spec = serde_json::to_string(&[serde_json::json!(step.spec.action), serde_json::json!(step.spec.probe)]).unwrap();
    // Command lines of probes, as people write them.
    let spec = spec.replace("\",\"", " ");
    let limits = serde_json::to_string(&step.spec.limits).unwrap();
    format!("{}\n{command}\n{gate}\n{spec}\n{limits}\n", step.title)
}

/// Everything that is shown of the steps of a name.
fn plans() -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let fleet = fleet(fleets());
    let forward = plan(&fleet).unwrap();
    let granted = forward.platforms.iter().flat_map(PlatformPlan::steps).map(|step| step.id.clone()).collect();
    let done = Done { granted, ..Done::default() };
    let back = controller::plan::rollback::build(&fleet, &Forward { run: "r", plan: &forward, done: &done }).unwrap().plan;
    let add = |plan: &Plan, all: &mut BTreeMap<String, String>| {
        for step in plan.platforms.iter().flat_map(PlatformPlan::steps) {
            all.entry(step.name.clone()).or_default().push_str(&shown(step));
        }
    };
    add(&forward, &mut all);
    add(&back, &mut all);
    all
}

#[test]
fn every_step_stands_in_the_table_and_every_name_in_it_is_a_step() {
    let runbooks = [Runbook::for_source(SourceVersion::V6_1), Runbook::back_to(SourceVersion::V6_1)].map(|r| r.unwrap().unwrap());
    let steps: BTreeSet<&str> = runbooks.iter().flat_map(Runbook::names).collect();
    let rows = rows();
    assert!(rows.len() > 50, "the table was not read");
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| &row.steps).map(String::as_str).collect();
    assert_eq!(steps.difference(&named).collect::<Vec<_>>(), Vec::<&&str>::new(), "steps that the table leaves out");
    assert_eq!(named.difference(&steps).collect::<Vec<_>>(), Vec::<&&str>::new(), "names in the table that are no steps");
}

#[test]
fn every_documented_command_stands_in_the_table() {
    let rows = rows();
    for command in DOCUMENTED {
        assert!(rows.iter().any(|row| row.documented.contains(command)), "{command} is in no row");
    }
}

#[test]
fn what_the_table_shows_is_in_a_plan() {
    let plans = plans();
    let mut missing = Vec::new();
    for row in rows() {
        if row.steps.is_empty() {
            assert!(row.plan.len() > 20, "{}: neither a step nor a reason", row.documented);
            continue;
        }
        for text in &row.shown {
            let found = row.steps.iter().any(|step| plans.get(step).is_some_and(|shown| shown.contains(text.as_str())));
            if !found {
                missing.push(format!("`{text}` is shown by none of {:?}", row.steps));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
