//! What plans are made of, topology by topology.

use crate::plan_fleet::*;
use controller::plan::{Phase, PlannedStep, PlatformPlan, StagePlan};
use inventory::{KeepAt, Role, SecretRef};
use proto::Action;

fn only(platform: inventory::Platform) -> PlatformPlan {
    plan(&fleet(vec![platform])).unwrap().platforms.remove(0)
}

fn stages(plan: &PlatformPlan, phase: Phase) -> &[StagePlan] {
    &plan.phases.iter().find(|planned| planned.name == phase).unwrap().stages
}

fn outline(plan: &PlatformPlan, phase: Phase) -> Vec<String> {
    stages(plan, phase).iter().map(|stage| format!("{}: {}", stage.name, stage.hosts.join(" "))).collect()
}

fn names_on<'a>(stage: &'a StagePlan, host: &str) -> Vec<&'a str> {
    stage.steps.iter().filter(|step| step.host == host).map(|step| step.name.as_str()).collect()
}

#[test]
fn a_standard_platform_goes_marketing_mta_tracking() {
    let plan = only(standard());
    let everything = "mkt1 mta1 mta2 mta3 trk01 trk02 trk03 trk04";
    assert_eq!(outline(&plan, Phase::Migrate), ["marketing: mkt1", "mta: mta1 mta2 mta3", "tracking: trk01 trk02 trk03 trk04"]);
    assert_eq!(
        outline(&plan, Phase::Restart),
        [
            "zones: mkt1",
            "tracking: trk01 trk02 trk03 trk04",
            "mta: mta1 mta2 mta3",
            "marketing: mkt1",
            &format!("service: {everything}")
        ]
    );
    assert_eq!(
        outline(&plan, Phase::Stop),
        ["web-servers: trk01 trk02 trk03 trk04".to_owned(), format!("nlserver: {everything} db1")]
    );
    assert_eq!(outline(&plan, Phase::Backup), ["database: db1".to_owned(), format!("trees: {everything}")]);
    assert_eq!(outline(&plan, Phase::Verify), [format!("verify: {everything} db1"), format!("passwords: {everything} db1")]);
}

#[test]
fn a_host_goes_through_the_vendors_procedure() {
    let plan = only(standard());
    assert_eq!(
        names_on(&stages(&plan, Phase::Migrate)[0], "mkt1"),
        [
            "remove.packages",
            "install.packages",
            "restore.conf",
            "restore.customers",
            "restore.var",
            "carry.internal-password",
            "conf.reload",
            "postupgrade.check",
            "postupgrade.old-logs",
            "postupgrade"
        ]
    );
    assert_eq!(
        names_on(&stages(&plan, Phase::Migrate)[2], "trk01"),
        [
            "remove.packages",
            "install.packages",
            "restore.conf",
            "restore.customers",
            "restore.var",
            "carry.internal-password",
            "carry.redirection",
            "conf.trackinglogd",
            "conf.reload",
            "conf.reload-tracking"
        ]
    );
    assert_eq!(
        names_on(&stages(&plan, Phase::Backup)[0], "db1"),
        ["backup.database-dir", "backup.database", "backup.database-verify"]
    );
}

fn step<'a>(plan: &'a PlatformPlan, id: &str) -> &'a PlannedStep {
    plan.steps().find(|step| step.id.0 == id).unwrap_or_else(|| panic!("no step {id}"))
}

fn argv(step: &PlannedStep) -> Vec<String> {
    step.command.clone().unwrap_or_default()
}

#[test]
fn families_and_init_systems_differ_where_the_vendor_says() {
    let plan = only(standard());
    assert_eq!(argv(step(&plan, "emea/stop/web-servers/trk01/stop.web-server")), ["systemctl", "stop", "apache2"]);
    assert_eq!(argv(step(&plan, "emea/stop/web-servers/trk03/stop.web-server")), ["/etc/init.d/httpd", "stop"]);
    assert_eq!(argv(step(&plan, "emea/stop/nlserver/trk01/stop.nlserver")), ["systemctl", "stop", "nlserver6"]);
    assert_eq!(argv(step(&plan, "emea/restart/service/trk01/start.service")), ["systemctl", "start", "nlserver"]);
    assert_eq!(argv(step(&plan, "emea/restart/service/trk03/start.service")), ["/etc/init.d/nlserver6", "start"]);
    assert_eq!(argv(step(&plan, "emea/migrate/tracking/trk01/remove.packages")), ["dpkg", "--purge", "nlserver6", "nlthirdparty6"]);
    assert_eq!(
        argv(step(&plan, "emea/migrate/tracking/trk03/install.packages")),
        [
            "rpm".to_owned(),
            "-Uvh".to_owned(),
            "--replacepkgs".to_owned(),
            format!("/var/lib/caravan/packages/{RPM_SHA}/nlserver6-v7-9383-0.x86_64.rpm")
        ]
    );
    assert!(matches!(step(&plan, "emea/preflight/packages/trk03/packages.download").spec.action, Action::Download { .. }));
}

#[test]
fn the_database_password_is_named_and_never_there() {
    let plan = only(standard());
    let Action::Command(command) = &step(&plan, "emea/backup/database/db1:emea_prod/backup.database").spec.action else { panic!() };
    assert_eq!(command.secret_files["PGPASSFILE"], "db1:*:emea_prod:campaign:{secret:database/emea_prod}");
    assert_eq!(command.argv[2], "--file=/backup/{run}/emea_prod.dump");
    assert!(!serde_json::to_string(&plan).unwrap().contains("db.pw"));

    let mut platform = standard();
    platform.instances[0].database.as_mut().unwrap().password = None;
    let plan = only(platform);
    let Action::Command(command) = &step(&plan, "emea/backup/database/db1:emea_prod/backup.database").spec.action else { panic!() };
    assert!(command.secret_files.is_empty());
}

#[test]
fn a_dump_is_restored_into_the_scratch_database_right_after_it_was_read() {
    let planned = |own_password: Option<SecretRef>, password: Option<SecretRef>| {
        let mut platform = standard();
        add_scratch(&mut platform.instances[0], own_password);
        platform.instances[0].database.as_mut().unwrap().password = password;
        only(platform)
    };
    let reference = || Some(SecretRef::File("scratch.pw".into()));
    let plan = planned(reference(), reference());
    assert_eq!(
        names_on(&stages(&plan, Phase::Backup)[0], "db1"),
        ["backup.database-dir", "backup.database", "backup.database-verify", "backup.database-restore", "backup.database-restored"]
    );
    let secret_files = |plan: &PlatformPlan, name: &str| {
        let step = step(plan, &format!("emea/backup/database/db1:emea_prod/{name}"));
        let Action::Command(command) = &step.spec.action else { panic!("{name}") };
        command.secret_files.clone()
    };
    let restore = step(&plan, "emea/backup/database/db1:emea_prod/backup.database-restore");
    let line = argv(restore).join(" ");
    assert!(line.starts_with("pg_restore --clean --if-exists --no-owner --exit-on-error --single-transaction"), "{line}");
    assert!(line.ends_with("--host=scratch1 --username=tester --dbname=tried /backup/{run}/emea_prod.dump"), "{line}");
    for name in ["backup.database-restore", "backup.database-restored"] {
        assert_eq!(secret_files(&plan, name)["PGPASSFILE"], "scratch1:*:tried:tester:{secret:scratch/emea_prod}");
        // Without a password of its own, it has that of the instance's database; without that either, the host logs in in its own way.
        let shared = planned(None, reference());
        assert_eq!(secret_files(&shared, name)["PGPASSFILE"], "scratch1:*:tried:tester:{secret:database/emea_prod}");
        assert!(secret_files(&planned(None, None), name).is_empty());
    }
    assert!(!serde_json::to_string(&plan).unwrap().contains("scratch.pw"));
}

#[test]
fn password_file_fields_are_escaped() {
    let mut platform = standard();
    platform.instances[0].database.as_mut().unwrap().user = "a:b\\c".into();
    let plan = only(platform);
    let Action::Command(command) = &step(&plan, "emea/backup/database/db1:emea_prod/backup.database").spec.action else { panic!() };
    assert_eq!(command.secret_files["PGPASSFILE"], "db1:*:emea_prod:a\\:b\\\\c:{secret:database/emea_prod}");
}

#[test]
fn power_topologies_go_tracking_execution_marketing() {
    assert_eq!(
        outline(&only(power_booster()), Phase::Migrate),
        ["tracking: pb-trk", "power-booster+mta: pb-exec pb-mta", "marketing: pb-mkt"]
    );
    let plan = only(power_cluster());
    assert_eq!(
        outline(&plan, Phase::Migrate),
        ["tracking: pc-trk1 pc-trk2", "power-cluster: pc-exec1 pc-exec2", "marketing: pc-mkt1 pc-mkt2"]
    );
    assert_eq!(
        outline(&plan, Phase::Restart)[1..4],
        ["tracking: pc-trk1 pc-trk2", "power-cluster: pc-exec1 pc-exec2", "marketing: pc-mkt1 pc-mkt2"]
    );
    let marketing = &stages(&plan, Phase::Migrate)[2];
    let postupgrades: Vec<&str> = plan.steps().filter(|step| step.name == "postupgrade").map(|step| step.id.0.as_str()).collect();
    assert_eq!(
        postupgrades,
        [
            "cluster/migrate/power-cluster/pc-exec1:pc_exec1/postupgrade",
            "cluster/migrate/power-cluster/pc-exec2:pc_exec2/postupgrade",
            "cluster/migrate/marketing/pc-mkt1:pc_prod/postupgrade"
        ]
    );
    // The second marketing server has its packages before the postupgrade on the first begins.
    let packages = marketing.steps.iter().find(|step| step.host == "pc-mkt2" && step.name == "install.packages").unwrap();
    let postupgrade = marketing.steps.iter().find(|step| step.name == "postupgrade").unwrap();
    assert!(packages.wave < postupgrade.wave);
}

#[test]
fn cloud_messaging_waits_for_the_vendor_and_the_dba() {
    let plan = only(cloud_messaging());
    let gates: Vec<String> = plan
        .steps()
        .filter_map(|step| match &step.spec.action {
            Action::Gate { gate, .. } => Some(format!("{} {gate}", step.spec.id)),
            _ => None,
        })
        .collect();
    assert_eq!(
        gates,
        [
            "cloud/preflight/gates/cm-mkt/vendor-execution-servers cloud/vendor-execution-servers",
            "cloud/backup/database/cm-mkt:cm_prod/backup-by-dba cloud/backup-by-dba.cm_prod",
            "cloud/backup/database/cm-mid:cm_mid/backup-by-dba cloud/backup-by-dba.cm_mid",
        ]
    );
    assert_eq!(outline(&plan, Phase::Migrate), ["marketing: cm-mkt", "mid-sourcing: cm-mid", "tracking: cm-trk1 cm-trk2"]);
}

#[test]
fn a_standalone_machine_migrates_in_one_stage() {
    let plan = only(standalone());
    assert_eq!(outline(&plan, Phase::Migrate), ["machine: solo"]);
    assert_eq!(outline(&plan, Phase::Restart), ["zones: solo", "tracking: solo", "mta: solo", "marketing: solo", "service: solo"]);
    let packages = names_on(&stages(&plan, Phase::Migrate)[0], "solo").iter().filter(|name| **name == "install.packages").count();
    assert_eq!(packages, 1);
}

#[test]
fn a_host_with_several_roles_has_its_packages_once_and_its_roles_in_their_stages() {
    let platform = several_roles();
    let full = plan(&fleet(vec![platform])).unwrap();
    let plan = &full.platforms[0];
    let migrate = stages(plan, Phase::Migrate);
    assert_eq!(outline(plan, Phase::Migrate), ["marketing: all1", "mta: front1 front2", "tracking: all1 front1 front2"]);
    assert!(names_on(&migrate[0], "all1").contains(&"install.packages"));
    assert_eq!(names_on(&migrate[2], "all1"), ["carry.redirection", "conf.trackinglogd", "conf.reload-tracking"]);
    // all1 is a tracking server and is migrated ahead of the mail servers; the front servers are one kind of server.
    let warnings: Vec<&String> = full.warnings.iter().filter(|warning| warning.contains("ahead")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("mixed: all1 is marketing and tracking"), "{}", warnings[0]);
}

#[test]
fn windows_hosts_are_gates_at_their_place() {
    let plan = only(with_windows());
    for host in ["win-mkt", "win-trk"] {
        assert!(plan.steps().filter(|step| step.host == host).all(|step| step.action == "gate"), "{host}");
        for phase in [Phase::Preflight, Phase::Stop, Phase::Backup, Phase::Migrate, Phase::Restart, Phase::Verify] {
            assert!(stages(&plan, phase).iter().any(|stage| stage.hosts.iter().any(|name| name == host)), "{host} in {phase}");
        }
    }
    assert_eq!(outline(&plan, Phase::Migrate), ["marketing: win-mkt", "mta: win-mta", "tracking: win-trk lin-trk"]);
    let Action::Gate { gate, commands, .. } = &step(&plan, "redmond/stop/web-servers/win-trk/windows.stop-web").spec.action else {
        panic!()
    };
    assert_eq!((gate.as_str(), commands.as_slice()), ("redmond/windows.stop-web.win-trk", &["iisreset /stop".to_owned()][..]));
    // Deliveries end first, where there are any.
    let stopped_by = |host: &str| match &step(&plan, &format!("redmond/stop/nlserver/{host}/windows.stop")).spec.action {
        Action::Gate { commands, .. } => commands[..2].to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stopped_by("win-mkt"), ["nlserver stop mta@win_prod", "net stop nlserver6"]);
    assert_eq!(stopped_by("win-trk")[0], "net stop nlserver6");
}

#[test]
fn without_become_everything_runs_as_the_login_user() {
    let mut platform = standard();
    for host in &mut platform.hosts {
        host.become_.method = inventory::BecomeMethod::None;
    }
    assert!(
        only(platform.clone()).steps().all(|step| step.run_as == proto::RunAs::Login && step.spec.run_as == proto::RunAs::Login)
    );
    // Where the login account is root, the steps of the Campaign account are still that account's.
    for host in &mut platform.hosts {
        host.ssh.user = Some("root".to_owned());
    }
    let (as_root, sudo) = (only(platform), only(standard()));
    let accounts = |plan: &PlatformPlan| plan.steps().map(|step| (step.id.clone(), step.spec.run_as.clone())).collect::<Vec<_>>();
    assert_eq!(accounts(&as_root), accounts(&sudo));
    let plan = only(standard());
    assert_eq!(step(&plan, "emea/migrate/mta/mta1/restore.conf").run_as, proto::RunAs::User("neolane".into()));
    assert_eq!(step(&plan, "emea/migrate/mta/mta1/install.packages").run_as, proto::RunAs::User("root".into()));
}

#[test]
fn a_site_can_order_within_the_vendors_rules() {
    let mut platform = standard();
    platform.restart_order = Some(vec![Role::Mta, Role::Tracking, Role::Marketing]);
    assert_eq!(outline(&only(platform), Phase::Restart)[1], "mta: mta1 mta2 mta3");
    let mut platform = power_booster();
    platform.order = Some(vec![Role::Mta, Role::Tracking, Role::PowerBooster, Role::Marketing]);
    assert_eq!(outline(&only(platform), Phase::Migrate)[0], "mta: pb-mta");
}

#[test]
fn a_step_that_is_changed_keeps_its_place_and_its_proof() {
    let plan = only(overridden());
    let stop = step(&plan, "emea/stop/nlserver/mkt1/stop.nlserver");
    assert_eq!(argv(stop), ["systemctl", "stop", "nlserver"]);
    let migrate = &stages(&plan, Phase::Migrate)[0];
    assert_eq!(names_on(migrate, "mkt1")[1..4], ["site.snapshot", "install.packages", "site.tell"]);
    assert_eq!(argv(step(&plan, "emea/migrate/marketing/mkt1/site.snapshot")), ["/opt/site/snapshot", "mkt1"]);
    assert_eq!(argv(step(&plan, "emea/migrate/marketing/mkt1/site.tell"))[2], "logger {migrated}");
    let skipped = step(&plan, "emea/backup/trees/mkt1/backup.archive");
    assert_eq!(skipped.skip.as_deref(), Some("the storage makes snapshots"));
    assert!(skipped.spec.probe.is_some());
    let mail = step(&plan, "emea/restart/mta/mta1:emea_prod/start.inMail");
    assert_eq!(argv(mail), ["/opt/site/inmail", "emea_prod"]);
    assert_eq!((mail.run_as.clone(), mail.spec.limits.deadline_s), (proto::RunAs::User("root".into()), 5));
    let Action::Command(command) = &mail.spec.action else { panic!() };
    assert!(command.starts_service && mail.spec.probe.is_some());
}

#[test]
fn the_hash_covers_inventory_and_steps_and_is_stable() {
    let hash = |platform: inventory::Platform| plan(&fleet(vec![platform])).unwrap().hash;
    let first = hash(standard());
    assert_eq!(first, hash(standard()));
    assert_eq!(first.len(), 64);
    let mut moved = standard();
    moved.hosts[0].address = "10.0.0.9".into();
    assert_ne!(first, hash(moved));
    assert_ne!(first, hash(overridden()));
}

#[test]
fn a_plan_survives_its_json_form() {
    let made = plan(&fleet(vec![standard(), with_windows(), overridden_named("apac")])).unwrap();
    let text = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<controller::plan::Plan>(&text).unwrap(), made);
}

fn overridden_named(name: &str) -> inventory::Platform {
    let mut platform = overridden();
    platform.name = name.into();
    platform
}

#[test]
fn package_files_are_looked_at_where_the_plan_is_carried_out() {
    use controller::plan::{FileCheck, build, build_with};
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = fleet(vec![standard()]);
    fleet.base = dir.path().to_owned();
    let error = build(&fleet, &queries).unwrap_err().to_string();
    assert!(error.contains("nlserver6-v7-9383-amd64_deb11.deb: does not exist"), "{error}");
    assert!(!build_with(&fleet, &queries, FileCheck::Optional).unwrap().warnings.is_empty());

    std::fs::create_dir(dir.path().join("old")).unwrap();
    std::fs::write(dir.path().join("old/nlserver6_8989_amd64.deb"), "old").unwrap();
    std::fs::write(dir.path().join("nlserver6-v7-9383-amd64_deb11.deb"), "new package").unwrap();
    let plan = build(&fleet, &queries).unwrap();
    let sizes: Vec<(&str, u64)> = plan.files.iter().map(|file| (file.sha256.as_str(), file.size)).collect();
    assert_eq!(sizes, [(OLD_SHA, 3), (DEB_SHA, 11)]);
    let push = step(&plan.platforms[0], "emea/preflight/packages/mkt1/packages.push");
    assert!(matches!(&push.spec.action, Action::PushFile { size: 11, .. }));
}

#[test]
fn copies_are_kept_behind_what_they_are_of_and_before_anything_is_replaced() {
    let plan = only(keeping(KeepAt::Host { name: "vault".into(), dir: "/srv/kept".into() }, standard()));
    let backup = stages(&plan, Phase::Backup);
    assert_eq!(
        names_on(&backup[0], "db1"),
        ["backup.database-dir", "backup.database", "backup.database-verify", "backup.database-keep"]
    );
    assert_eq!(names_on(&backup[1], "trk01"), ["backup.move-tree", "backup.archive", "backup.keep"]);
    let keep = step(&plan, "emea/backup/trees/trk01/backup.keep");
    let expected = serde_json::json!({ "keep": {
        "source": "/usr/local/neolane/nl6.back-{run}.tar.gz",
        "name": "nl6.back.tar.gz.age",
        "to": { "host": { "host": "vault", "dest": "/srv/kept/{run}/trk01/nl6.back.tar.gz.age" } },
        "encrypt_to": [AGE_KEY],
        "limit": 20 << 20,
    } });
    assert_eq!(serde_json::to_value(&keep.spec.action).unwrap(), expected);
    let dump = step(&plan, "emea/backup/database/db1:emea_prod/backup.database-keep");
    assert!(dump.title.contains("the dump of emea_prod on vault"), "{}", dump.title);
    assert_eq!(dump.spec.limits.deadline_s, 0);
    let none = only(standard());
    assert!(none.steps().all(|step| !step.name.ends_with("keep")), "nothing is kept that nobody asked for");
}
