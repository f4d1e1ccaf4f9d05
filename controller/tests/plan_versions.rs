//! What differs between the versions that a platform can come from: v5.11, v6.02, v6.1, and v7 itself.

use crate::plan_fleet::*;
use controller::plan::rollback::{Done, Forward};
use controller::plan::{Phase, Plan, PlannedStep, PlatformPlan, StagePlan};
use inventory::{Engine, Location, Override, Platform, SourceVersion};
use proto::{Action, Probe};

fn only(platform: Platform) -> PlatformPlan {
    plan(&fleet(vec![platform])).unwrap().platforms.remove(0)
}

fn planned(version: SourceVersion) -> PlatformPlan {
    only(from_version(version, standard()))
}

fn stages(plan: &PlatformPlan, phase: Phase) -> &[StagePlan] {
    &plan.phases.iter().find(|planned| planned.name == phase).unwrap().stages
}

fn outline(plan: &PlatformPlan, phase: Phase) -> Vec<String> {
    stages(plan, phase).iter().map(|stage| format!("{}: {}", stage.name, stage.hosts.join(" "))).collect()
}

fn names_on<'a>(plan: &'a PlatformPlan, phase: Phase, host: &str) -> Vec<&'a str> {
    let steps = stages(plan, phase).iter().flat_map(|stage| &stage.steps);
    steps.filter(|step| step.host == host).map(|step| step.name.as_str()).collect()
}

fn step<'a>(plan: &'a PlatformPlan, host: &str, name: &str) -> &'a PlannedStep {
    plan.steps().find(|step| step.host == host && step.name == name).unwrap_or_else(|| panic!("no {name} on {host}"))
}

fn argv(plan: &PlatformPlan, host: &str, name: &str) -> String {
    step(plan, host, name).command.clone().unwrap_or_default().join(" ")
}

/// The plan of the way back from a run that got to its end.
fn back_from(platform: Platform) -> PlatformPlan {
    let fleet = fleet(vec![platform]);
    let forward: Plan = plan(&fleet).unwrap();
    let granted = forward.platforms.iter().flat_map(PlatformPlan::steps).map(|step| step.id.clone()).collect();
    let done = Done { granted, ..Done::default() };
    controller::plan::rollback::build(&fleet, &Forward { run: "2026-11-22-x7k", plan: &forward, done: &done })
        .unwrap()
        .plan
        .platforms
        .remove(0)
}

#[test]
fn a_host_of_v5_goes_through_the_vendors_procedure() {
    let plan = planned(SourceVersion::V5_11);
    assert_eq!(plan.source, "v5.11 (8989)");
    assert_eq!(
        names_on(&plan, Phase::Migrate, "mkt1"),
        [
            "remove.packages",
            "install.packages",
            "install.first-start",
            "install.first-stop",
            "install.first-down",
            "conf.bashrc",
            "restore.conf",
            "conf.hold-modules",
            "restore.customers",
            "restore.var",
            "carry.internal-password",
            "conf.reload",
            "postupgrade.check",
            "postupgrade.old-logs",
            "postupgrade"
        ]
    );
    assert_eq!(argv(&plan, "mkt1", "stop.nlserver"), "systemctl stop nlserver5");
    assert_eq!(argv(&plan, "trk03", "stop.nlserver"), "/etc/init.d/nlserver5 stop");
    assert_eq!(argv(&plan, "mkt1", "remove.packages"), "dpkg --purge nlserver5 nlthirdparty5");
    assert_eq!(argv(&plan, "trk03", "remove.packages"), "rpm -ev --allmatches nlserver5 nlthirdparty5");
    assert_eq!(argv(&plan, "mkt1", "install.first-start"), "systemctl start nlserver");
    assert_eq!(argv(&plan, "trk03", "install.first-start"), "/etc/init.d/nlserver6 start");
    assert_eq!(
        argv(&plan, "mkt1", "postupgrade"),
        "/usr/local/neolane/nl6/bin/nlserver config -postupgrade -instance:emea_prod -timezone:Europe/Paris"
    );
    let moved = Action::MoveTree { from: "/usr/local/neolane/nl5".into(), to: "/usr/local/neolane/nl5.back".into() };
    assert_eq!(step(&plan, "mta1", "backup.move-tree").spec.action, moved);
    let Action::CopyTree { from, include, .. } = &step(&plan, "trk01", "restore.conf").spec.action else { panic!() };
    assert_eq!(
        (from.as_str(), include.as_slice()),
        ("/usr/local/neolane/nl5.back/conf", ["config-emea_prod.xml".to_owned()].as_slice())
    );
    let stop = &step(&plan, "mta1", "stop.verify").spec.probe;
    assert!(matches!(stop, Some(Probe::Command { argv, .. }) if argv[0] == "/usr/local/neolane/nl5/bin/nlserver"), "{stop:?}");
}

#[test]
fn the_web_server_of_v5_is_led_to_nl6() {
    let plan = planned(SourceVersion::V5_11);
    let files = |host: &str| match &step(&plan, host, "conf.apache").spec.action {
        Action::ReplaceText { files, from, to } => {
            assert_eq!((from.as_str(), to.as_str()), ("/nl5/", "/nl6/"));
            files.join(" ")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        files("trk01"),
        "/etc/apache2/envvars /etc/apache2/mods-available/nlsrv.load /etc/apache2/mods-available/nlsrv.conf \
         /etc/apache2/mods-available/alias.conf /etc/apache2/conf.d/*.conf"
    );
    assert_eq!(
        files("trk03"),
        "/etc/httpd/conf/httpd.conf /etc/httpd/conf.d/*.conf /etc/httpd/conf.modules.d/*.conf /etc/sysconfig/httpd"
    );
    let mut own = from_version(SourceVersion::V5_11, standard());
    own.hosts[4].web.config = Some("/opt/apache/conf".into());
    let plan = only(own);
    assert!(format!("{:?}", step(&plan, "trk01", "conf.apache").spec.action).contains("/opt/apache/conf/envvars"));
}

#[test]
fn a_host_of_v6_02_keeps_its_modules_back() {
    let plan = planned(SourceVersion::V6_02);
    assert_eq!(
        names_on(&plan, Phase::Migrate, "mta1"),
        [
            "remove.packages",
            "install.packages",
            "restore.conf",
            "conf.hold-modules",
            "restore.customers",
            "restore.var",
            "carry.internal-password",
            "conf.reload"
        ]
    );
    let everything = "mkt1 mta1 mta2 mta3 trk01 trk02 trk03 trk04";
    assert_eq!(outline(&plan, Phase::Restart)[..2], ["zones: mkt1".to_owned(), format!("configuration: {everything}")]);
    assert_eq!(argv(&plan, "mkt1", "stop.nlserver"), "systemctl stop nlserver6");
    assert!(!argv(&plan, "mkt1", "postupgrade").contains("timezone"));
    let Action::XmlEdit { file, edits } = &step(&plan, "mta1", "conf.release-modules").spec.action else { panic!() };
    assert_eq!(file, "/usr/local/neolane/nl6/conf/config-emea_prod.xml");
    let elements: Vec<&str> = edits.iter().map(|edit| edit.element.as_str()).collect();
    assert_eq!(elements, ["mta", "wfserver", "stat", "inMail", "sms"].map(|module| format!("serverconf/{module}")));
}

#[test]
fn a_build_upgrade_is_done_in_place_and_has_its_own_order() {
    let plan = planned(SourceVersion::V7);
    assert_eq!(plan.source, "v7 (8989)");
    let trackers = "trk01 trk02 trk03 trk04";
    assert_eq!(outline(&plan, Phase::Migrate), [&format!("tracking: {trackers}"), "mta: mta1 mta2 mta3", "marketing: mkt1"]);
    let everything = "mkt1 mta1 mta2 mta3 trk01 trk02 trk03 trk04";
    assert_eq!(
        outline(&plan, Phase::Restart),
        [
            "zones: mkt1",
            "marketing: mkt1",
            &format!("tracking: {trackers}"),
            "mta: mta1 mta2 mta3",
            &format!("service: {everything}")
        ]
    );
    assert_eq!(
        names_on(&plan, Phase::Migrate, "mkt1"),
        ["restore.tree", "install.packages", "conf.reload", "postupgrade.check", "postupgrade.old-logs", "postupgrade"]
    );
    assert_eq!(
        names_on(&plan, Phase::Migrate, "trk01"),
        ["restore.tree", "install.packages", "conf.reload", "conf.reload-tracking"]
    );
    assert_eq!(argv(&plan, "mkt1", "stop.nlserver"), "systemctl stop nlserver");
    assert_eq!(argv(&plan, "trk03", "stop.nlserver"), "/etc/init.d/nlserver6 stop");
    assert!(argv(&plan, "trk03", "install.packages").starts_with("rpm -Uvh"));
    let Action::CopyTree { from, to, include, .. } = &step(&plan, "mkt1", "restore.tree").spec.action else { panic!() };
    assert_eq!((from.as_str(), to.as_str(), include[0].as_str()), ("/usr/local/neolane/nl6.back", "/usr/local/neolane/nl6", "**"));
    let cluster = only(from_version(SourceVersion::V7, power_cluster()));
    assert_eq!(
        outline(&cluster, Phase::Migrate),
        ["tracking: pc-trk1 pc-trk2", "power-cluster: pc-exec1 pc-exec2", "marketing: pc-mkt1 pc-mkt2"]
    );
    assert_eq!(
        outline(&cluster, Phase::Restart)[1..4],
        ["marketing: pc-mkt1 pc-mkt2", "tracking: pc-trk1 pc-trk2", "power-cluster: pc-exec1 pc-exec2"]
    );
}

#[test]
fn every_version_has_a_way_back() {
    let of_v5 = back_from(from_version(SourceVersion::V5_11, standard()));
    let names = names_on(&of_v5, Phase::Rollback, "trk01");
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap_or_else(|| panic!("no {name} in {names:?}"));
    let order = ["back.remove-packages", "back.install-packages", "back.tree", "back.bashrc", "back.apache", "start.web-server"];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{names:?}");
    assert_eq!(argv(&of_v5, "trk01", "back.remove-packages"), "dpkg --purge nlserver6-v7");
    assert_eq!(argv(&of_v5, "trk01", "back.start-service"), "systemctl start nlserver5");
    assert_eq!(argv(&of_v5, "trk03", "stop.old-service"), "/etc/init.d/nlserver5 stop");
    let back = Action::MoveTree { from: "/usr/local/neolane/nl5.back".into(), to: "/usr/local/neolane/nl5".into() };
    assert_eq!(step(&of_v5, "trk01", "back.tree").spec.action, back);
    let aside = Action::MoveTree { from: "/usr/local/neolane/nl6".into(), to: "/usr/local/neolane/nl6.v7-{run}".into() };
    assert_eq!(step(&of_v5, "trk01", "back.set-aside").spec.action, aside);
    let Action::ReplaceText { from, to, .. } = &step(&of_v5, "trk01", "back.apache").spec.action else { panic!() };
    assert_eq!((from.as_str(), to.as_str()), ("/nl6/", "/nl5/"));
    assert!(
        controller::plan::render(
            &Plan { platforms: vec![planned(SourceVersion::V5_11)], ..plan(&fleet(vec![])).unwrap() },
            false,
            100
        )
        .contains("the backup of the database and nl5.back")
    );

    let of_v7 = back_from(from_version(SourceVersion::V7, standard()));
    assert_eq!(argv(&of_v7, "mkt1", "back.remove-packages"), "dpkg --purge nlserver6-v7");
    assert!(argv(&of_v7, "mkt1", "back.install-packages").starts_with("dpkg -i /var/lib/caravan/packages/1111"));
    assert_eq!(argv(&of_v7, "mkt1", "back.start-service"), "systemctl start nlserver");
    let waves: Vec<_> = ["mkt1", "trk01", "mta1"].iter().map(|host| step(&of_v7, host, "back.start-service").wave).collect();
    assert!(waves.is_sorted(), "after a build upgrade is undone it is restarted in the order of one: {waves:?}");
}

/// From 20.1 on the unit of v7 is `nlserver`; before, it is called as the init script is (procedure, step 1).
#[test]
fn the_unit_of_v7_is_called_by_its_release() {
    let to = |version: &str, source: SourceVersion| {
        let mut platform = from_version(source, standard());
        platform.hosts.iter_mut().for_each(|host| host.target.version = version.into());
        platform
    };
    let of_v5 = SourceVersion::V5_11;
    for (version, unit) in [("7.4.1", "nlserver"), ("20.1", "nlserver"), ("19.2.3", "nlserver6"), ("7.0 18.10", "nlserver6")] {
        let forward = only(to(version, of_v5));
        assert_eq!(argv(&forward, "mkt1", "stop.nlserver"), "systemctl stop nlserver5");
        assert_eq!(argv(&forward, "mkt1", "install.first-start"), format!("systemctl start {unit}"), "{version}");
        assert_eq!(argv(&forward, "mkt1", "start.service"), format!("systemctl start {unit}"), "{version}");
        assert_eq!(argv(&forward, "trk03", "start.service"), "/etc/init.d/nlserver6 start", "{version}");
        let back = back_from(to(version, of_v5));
        assert_eq!(argv(&back, "mkt1", "stop.nlserver"), format!("systemctl stop {unit}"), "{version}");
        assert!(format!("{:?}", step(&back, "mkt1", "stop.nlserver").spec.only_if).contains(&format!("\"{unit}\"")), "{version}");
        assert_eq!(argv(&back, "trk03", "stop.nlserver"), "/etc/init.d/nlserver6 stop", "{version}");
        // What is installed is older than what it is upgraded to.
        let build = to(version, SourceVersion::V7);
        assert_eq!(argv(&only(build.clone()), "mkt1", "stop.nlserver"), format!("systemctl stop {unit}"), "{version}");
        assert_eq!(argv(&back_from(build), "mkt1", "back.start-service"), format!("systemctl start {unit}"), "{version}");
    }
}

/// `source.version: 7` does not say which release is installed: that its unit is `nlserver` is said, unless the site has its own way.
#[test]
fn a_guessed_unit_is_said() {
    let said = |platform: Platform| {
        let warnings = plan(&fleet(vec![platform])).unwrap().warnings;
        warnings.into_iter().filter(|warning| warning.contains("is taken to be `nlserver`")).collect::<Vec<_>>()
    };
    let mut platform = from_version(SourceVersion::V7, standard());
    let [warning] = said(platform.clone()).try_into().unwrap();
    assert!(warning.contains("mkt1") && !warning.contains("trk03") && warning.contains("override `stop.nlserver`"), "{warning}");
    assert!(said(standard()).is_empty());
    for step in ["stop.nlserver", "back.start-service"] {
        assert_eq!(said(platform.clone()).len(), 1);
        let change = Override { command: Some(command(&["/opt/site/service"])), ..Override::default() };
        platform.overrides.insert(step.into(), change);
    }
    assert!(said(platform).is_empty());
}

#[test]
fn the_client_console_comes_with_the_application_server() {
    let path = Location::Path("setup-client-7.0.9383.exe".into());
    let plan = only(with_client(path, standard()));
    let hosts: Vec<&str> = plan
        .steps()
        .filter(|step| step.name.ends_with("client") || step.name.ends_with("client-console"))
        .map(|step| step.host.as_str())
        .collect();
    assert_eq!(hosts, ["mkt1", "mkt1"], "sent before anything is stopped, put in its place after the packages");
    let dest = format!("/var/lib/caravan/packages/{CLIENT_SHA}/setup-client-7.0.9383.exe");
    assert_eq!(
        argv(&plan, "mkt1", "install.client-console"),
        format!("cp -- {dest} /usr/local/neolane/nl6/datakit/nl/eng/jsp/setup-client-7.0.9383.exe")
    );
    let names = names_on(&plan, Phase::Migrate, "mkt1");
    assert_eq!(names[..3], ["remove.packages", "install.packages", "install.client-console"]);
    assert!(plan.steps().any(|step| step.id.0 == "emea/preflight/packages/mkt1/packages.push-client"));
}

#[test]
fn several_time_zones_only_with_an_engine_that_keeps_them() {
    let wanted = |engine: Engine| {
        let mut platform = from_version(SourceVersion::V5_11, cloud_messaging());
        for instance in &mut platform.instances {
            instance.timestamptz = true;
            instance.database.as_mut().unwrap().engine = engine;
        }
        plan(&fleet(vec![platform]))
    };
    let plan = wanted(Engine::Oracle).unwrap().platforms.remove(0);
    assert!(argv(&plan, "cm-mkt", "postupgrade").ends_with("-timezone:Europe/Paris -usetimestamptz:1"));
    // The check is a dry run of what comes, and is told the same.
    assert!(argv(&plan, "cm-mkt", "postupgrade.check").ends_with("-timezone:Europe/Paris -usetimestamptz:1 -check"));
    let errors = wanted(Engine::Mysql).unwrap_err().to_string();
    assert!(
        errors.contains("instance `cm_mid` of `cloud`: `timestamptz` with an engine that does not support it corrupts"),
        "{errors}"
    );
}

#[test]
fn what_is_no_migration_is_refused() {
    let errors = |platform: Platform| plan(&fleet(vec![platform])).unwrap_err().to_string();
    let mut mixed = standard();
    mixed.hosts[1].source.version = SourceVersion::V6_02;
    assert!(errors(mixed).contains("platform `emea` has more than one source version (6.1, 6.02); all servers"));
    let mut backwards = from_version(SourceVersion::V7, standard());
    for host in &mut backwards.hosts {
        host.source.latest_build = Some(9383);
    }
    let text = errors(backwards);
    assert!(text.contains("the target build 9383 is not later than source.latest_build 9383"), "{text}");
    let mut without_zone = from_version(SourceVersion::V5_11, standalone());
    without_zone.instances[0].timezone = None;
    assert!(errors(without_zone).contains("needs its time zone"));
}

/// With yum, `Removing:` means stop, whichever way the site calls it.
#[test]
fn yum_must_not_remove() {
    for (argv, guarded) in [
        (vec!["yum", "-y", "update", "nlserver6-v7"], true),
        (vec!["/usr/bin/dnf", "-y", "upgrade"], true),
        (vec!["/bin/sh", "-c", "cd /tmp && yum -y update x"], true),
        (vec!["/bin/sh", "-c", "echo yummy"], false),
        (vec!["rpm", "-Uvh", "yum"], false),
    ] {
        let mut platform = standalone();
        let change = Override { command: Some(command(&argv)), ..Override::default() };
        platform.overrides.insert("install.packages".into(), change);
        let plan = only(platform);
        let Action::Command(command) = &step(&plan, "solo", "install.packages").spec.action else { panic!() };
        let rules: Vec<&str> = command.fail_on.iter().map(|rule| rule.starts_with.as_str()).collect();
        assert_eq!(rules, if guarded { vec!["Removing:"] } else { vec![] }, "{argv:?}");
    }
}

#[test]
fn windows_hosts_are_called_by_their_version() {
    let commands = |version: SourceVersion| {
        let plan = only(from_version(version, with_windows()));
        let gates = plan.steps().filter_map(|step| match &step.spec.action {
            Action::Gate { commands, ask, .. } => Some(format!("{ask}\n{}", commands.join("\n"))),
            _ => None,
        });
        gates.collect::<Vec<_>>().join("\n")
    };
    let v5 = commands(SourceVersion::V5_11);
    for expected in [
        "net stop nlserver5",
        "ren \"Neolane v5\" \"Neolane v5.back\"",
        "sc config nlserver5 start= disabled",
        "never config-default.xml",
        "Rename _autoStart back to autoStart",
        "nlserver config -postupgrade -instance:win_prod -timezone:Europe/Paris",
    ] {
        assert!(v5.contains(expected), "{expected}\n{v5}");
    }
    let v7 = commands(SourceVersion::V7);
    assert!(v7.contains("over the build that is there") && !v7.contains("ren \""), "{v7}");
}
