//! Programs as steps: rules on their output, profiles, secrets, time limits, services, other accounts.

use crate::common::{AGENT, Bridge, Host, argv, exists, script, shell, step, wait_until, with_probe};
use proto::message::Granted;
use proto::step::{Command, LineRule, ServiceManager, ServiceOp};
use proto::{Action, FromAgent, Outcome, Probe, RunAs, Secret, ToAgent};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

fn command(id: &str, command: Command) -> Granted {
    step(id, Action::Command(command))
}

fn secrets(pairs: &[(&str, &str)]) -> ToAgent {
    ToAgent::Secrets { values: pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect() }
}

#[test]
fn lines_can_mean_failure_whatever_the_exit_code_says() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut postupgrade = script(&host, "echo '>> a warning'; echo '  >>> PU-0005 no such table'; exit 0");
    postupgrade.fail_on =
        vec![LineRule { starts_with: ">>>".to_owned(), means: "postupgrade stopped".to_owned(), ..LineRule::default() }];
    bridge
        .perform(command("a/a/a/a/x", postupgrade))
        .expect(Outcome::Failed)
        .says("postupgrade stopped: >>> PU-0005 no such table");
    let mut warned = script(&host, "printf '>> a warning'; exit 3");
    warned.fail_on = vec![LineRule { starts_with: ">>>".to_owned(), ..LineRule::default() }];
    warned.ok = vec![0, 3];
    bridge.perform(command("a/a/a/a/y", warned)).expect(Outcome::Ok);
    bridge.finish();
}

#[test]
fn a_code_anywhere_in_a_line_can_mean_failure() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let rule = |starts_with: &str, contains: &str, means: &str| LineRule {
        starts_with: starts_with.to_owned(),
        contains: contains.to_owned(),
        means: means.to_owned(),
    };
    let rules = [
        rule(">>>", "", "it stopped"),
        rule("", "PU-0007", "an error"),
        rule("done", "with errors", "both"),
        // Asks nothing, and is about nothing.
        rule("", " ", "anything"),
    ];
    let far = format!("{} PU-0007", "x".repeat(1000));
    let cases = [
        ("11:57:52 >>   PU-0007 no such form", Some("an error: 11:57:52 >>   PU-0007 no such form")),
        ("2011-10-04 11:57:51.804Z B67B28C0 1 error log PU-0007 x", Some("an error: 2011-10-04")),
        (">>> PU-0007 x", Some("it stopped: >>> PU-0007 x")),
        ("done with errors", Some("both: done with errors")),
        (&far, Some("an error: xxx")),
        ("done", None),
        ("ended with errors", None),
        ("11:57:52 >>   JST-310040 obsolete", None),
        ("11:57:52 >>   PU-0003 the form was changed", None),
    ];
    for (index, (line, expected)) in cases.into_iter().enumerate() {
        let mut postupgrade = script(&host, &format!("echo '{line}'"));
        postupgrade.fail_on = rules.to_vec();
        let ran = bridge.perform(command(&format!("a/a/a/a/x{index}"), postupgrade));
        match expected {
            Some(says) => drop(ran.expect(Outcome::Failed).says(says)),
            None => drop(ran.expect(Outcome::Ok)),
        }
    }
    bridge.finish();
}

#[test]
fn profiles_are_sourced_if_they_are_there() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    std::fs::write(host.path("env.sh"), "FROM_PROFILE=yes\nexport FROM_PROFILE\n").unwrap();
    for (profile, expected) in [("env.sh", "yes a b"), ("none.sh", "no a b")] {
        let mut command = script(&host, "");
        command.argv = argv(&["/bin/sh", "-c", "echo ${FROM_PROFILE:-no} \"$1\"", "x", "a b"]);
        command.profile = Some(host.text(profile));
        let ended = bridge.perform(step(&format!("a/a/a/a/{profile}"), Action::Command(command))).expect(Outcome::Ok);
        assert_eq!(ended.output.trim(), expected);
    }
    bridge.finish();
}

/// The bootstrap takes every right on what it makes from others; packages and services must not inherit that.
#[test]
fn programs_have_the_umask_of_services() {
    let host = Host::new();
    let mut bridge = Bridge::by(std::process::Command::new("/bin/sh").args(["-c", "umask 077; exec \"$0\" bridge", AGENT])).greet();
    bridge.send_attach(&host, 0, BTreeMap::new());
    assert!(matches!(bridge.message(), FromAgent::Attached { .. }));
    let ended = bridge.perform(shell(&host, "a/a/a/a/umask", "umask; touch made; stat -c %a made")).expect(Outcome::Ok);
    assert_eq!(ended.output, "0022\n644\n");
    // What the agent writes itself is nobody else's business, before and after it.
    let own = std::process::Command::new("find").arg(host.run_dir()).args(["-type", "d", "-perm", "/077"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&own.stdout), "");
    bridge.finish();
}

#[test]
fn secrets_reach_programs_in_memory_only_and_are_masked() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    bridge.send(&secrets(&[("database/x", "canary-4711")]));
    let show = "stat -L -c '%a %s' \"$PGPASSFILE\"; cat \"$PGPASSFILE\"; cat \"$PGPASSFILE\" | tr a-y b-z; printf canary; sleep 0.05; echo -4711; \
                echo > shown; while [ ! -e go ]; do sleep 0.01; done; echo bad $(cut -d: -f5 $PGPASSFILE) >&2; exit 1";
    let mut dump = script(&host, show);
    dump.secret_files = BTreeMap::from([("PGPASSFILE".to_owned(), "db:*:c:u:{secret:database/x}".to_owned())]);
    bridge.grant(vec![command("a/a/a/a/dump", dump)]);
    host.wait_for("shown");
    // Nobody else can open it, and nothing shows the value.
    for pid in host.processes("PGPASSFILE") {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("canary-4711"), "in {file}");
        }
        for fd in std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().flatten() {
            if std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:")) {
                assert_eq!(std::fs::metadata(fd.path()).unwrap().permissions().mode() & 0o7777, 0o600);
            }
        }
    }
    std::fs::write(host.path("go"), "").unwrap();
    let ended = bridge.until_finished("a/a/a/a/dump").expect(Outcome::Failed).says("bad ***");
    assert!(ended.output.starts_with("600 20\ndb:*:c:u:***"), "{ended:?}");
    assert!(ended.output.contains("dbobsz-4711") && ended.output.contains("***\nbad ***\n"), "{ended:?}");
    bridge.finish();
    let found = std::process::Command::new("grep").args(["-r", "canary-4711", &host.state()]).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_step_waits_for_its_secrets() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut needy = script(&host, "cat \"$FILE\" | wc -c");
    needy.secret_files = BTreeMap::from([("FILE".to_owned(), "{secret:late}".to_owned())]);
    bridge.grant(vec![command("a/a/a/a/x", needy)]);
    assert!(bridge.next(Duration::from_millis(200)).is_err());
    bridge.send(&secrets(&[("late", "four")]));
    let ended = bridge.until_finished("a/a/a/a/x").expect(Outcome::Ok);
    assert_eq!(ended.output.trim(), "4");
    bridge.finish();
}

#[test]
fn a_step_ends_at_its_deadline() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let mut hangs = |id: &str, probe: Option<Probe>| {
        let mut step = shell(&host, id, "echo working; sleep 1000; true");
        step.spec.limits.deadline_s = 1;
        step.spec.probe = probe;
        let began = Instant::now();
        let ended = bridge.perform(step);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(ended.output, "working\n");
        ended.says("did not end within 1 s")
    };
    hangs("a/a/a/a/1", None).expect(Outcome::Unknown);
    hangs("a/a/a/a/2", Some(exists(&host.path("effect")))).expect(Outcome::Failed).says("its effect is not there");
    hangs("a/a/a/a/3", Some(exists(host.dir.path()))).expect(Outcome::Failed).says("its effect is there all the same");
    bridge.finish();
    wait_until("the end of what hung", || host.processes("sleep 1000").is_empty());
}

#[test]
fn a_step_lasts_as_long_as_its_descendants() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let forks = "(sleep 0.5; echo late > effect) > /dev/null 2>&1 < /dev/null & exit 0";
    bridge.perform(with_probe(shell(&host, "a/a/a/a/x", forks), exists(&host.path("effect")))).expect(Outcome::Ok);
    let mut daemon = shell(&host, "a/a/a/a/y", "(sleep 1000; true) > /dev/null 2>&1 < /dev/null & exit 0");
    daemon.spec.limits.deadline_s = 1;
    bridge.perform(daemon).expect(Outcome::Unknown).says("starts_service");
    bridge.finish();
}

#[test]
fn a_service_outlives_its_step_and_may_go_on_talking() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    std::fs::create_dir(host.path("init.d")).unwrap();
    let init = "#!/bin/sh\necho \"Starting $0\"\n(trap '' PIPE; while [ ! -e \"$(dirname \"$0\")/stop\" ]; do echo chatter; echo x >> \"$(dirname \"$0\")/alive\"; sleep 0.02; done; \
                echo done > \"$(dirname \"$0\")/ended\") &\n";
    std::fs::write(host.path("init.d/nlserver6"), init).unwrap();
    std::fs::set_permissions(host.path("init.d/nlserver6"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let action =
        Action::Service { manager: ServiceManager::Sysv(host.text("init.d")), name: "nlserver6".to_owned(), op: ServiceOp::Start };
    let ended =
        bridge.perform(with_probe(step("a/a/a/a/start", action), exists(&host.path("init.d/nlserver6")))).expect(Outcome::Ok);
    assert!(ended.output.contains("Starting"), "{ended:?}");
    let lines = || host.read("init.d/alive").lines().count();
    let at_end = lines();
    wait_until("the service to go on", || lines() > at_end + 5);
    // It holds nothing of the step's.
    bridge.finish();
    let step = host.run_dir().join("steps/0000/lock");
    std::fs::File::open(step).unwrap().try_lock().expect("the service holds the lock of its step");
    std::fs::write(host.path("init.d/stop"), "").unwrap();
    host.wait_for("init.d/ended");
}

#[test]
fn another_account_does_the_work_without_rights_of_root() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    let as_nobody = |mut step: Granted| {
        step.spec.run_as = RunAs::User("nobody".to_owned());
        step
    };
    let who = shell(&host, "a/a/a/a/who", "id -un; id -G; echo $HOME $LOGNAME; cat \"$FILE\"; stat -L -c %U $FILE; exit 0");
    let Action::Command(mut command) = who.spec.action.clone() else { unreachable!() };
    if !rustix::process::geteuid().is_root() {
        bridge.perform(as_nobody(who)).expect(Outcome::Failed).says("cannot become nobody");
        eprintln!("skipped in part: only root can become somebody else");
        return bridge.finish();
    }
    bridge.send(&secrets(&[("s", "canary")]));
    command.secret_files = BTreeMap::from([("FILE".to_owned(), "{secret:s}!".to_owned())]);
    command.dir = None;
    let ended = bridge.perform(as_nobody(step("a/a/a/a/who", Action::Command(command)))).expect(Outcome::Ok);
    let nobody = std::process::Command::new("id").args(["-G", "nobody"]).output().unwrap();
    let lines: Vec<&str> = ended.output.lines().collect();
    assert_eq!(lines[0], "nobody");
    assert_eq!(lines[1], String::from_utf8_lossy(&nobody.stdout).trim());
    assert!(lines[2].ends_with(" nobody"), "{lines:?}");
    assert_eq!(lines[3], "***!nobody", "{lines:?}");
    // The directory belongs to root: neither the action nor the probe can look into it.
    let denied = with_probe(shell(&host, "a/a/a/a/denied", "true"), exists(&host.path("x")));
    bridge.perform(as_nobody(denied)).expect(Outcome::Failed);
    let mut missing = shell(&host, "a/a/a/a/missing", "true");
    missing.spec.run_as = RunAs::User("no-such-account".to_owned());
    bridge.perform(missing).expect(Outcome::Failed).says("no-such-account does not exist");
    bridge.finish();
}

#[test]
fn processes_are_ended_by_what_it_takes() {
    let host = Host::new();
    let mut bridge = Bridge::attach(&host);
    std::fs::create_dir(host.path("bin")).unwrap();
    // A shell under the directory stands for the program: what counts is the executable.
    std::fs::copy("/bin/sh", host.path("bin/nlserver")).unwrap();
    let start = |text: &str| {
        let mut command = std::process::Command::new(host.path("bin/nlserver"));
        command.args(["-c", text, &host.text("")]).spawn().unwrap()
    };
    let stop = |id: &str| {
        let action = Action::StopProcesses { under: host.text("bin"), term_after_s: 0, kill_after_s: 1 };
        with_probe(step(id, action), Probe::NoProcesses { under: host.text("bin") })
    };
    bridge.perform(stop("a/a/a/a/none")).expect(Outcome::Ok);
    let mut meek = start("echo > \"$0/meek\"; while :; do sleep 0.01; done");
    host.wait_for("meek");
    // A deleted executable still runs.
    std::fs::rename(host.path("bin/nlserver"), host.path("bin/old")).unwrap();
    std::fs::remove_file(host.path("bin/old")).unwrap();
    let reaper = std::thread::spawn(move || meek.wait().unwrap());
    bridge.perform(stop("a/a/a/a/meek")).expect(Outcome::Ok).says("SIGTERM was needed");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&reaper.join().unwrap()), Some(Signal::TERM.as_raw()));
    std::fs::copy("/bin/sh", host.path("bin/nlserver")).unwrap();
    let mut stubborn = start("trap '' TERM; echo > \"$0/stubborn\"; while :; do sleep 0.01; done");
    host.wait_for("stubborn");
    let reaper = std::thread::spawn(move || stubborn.wait().unwrap());
    bridge.perform(stop("a/a/a/a/stubborn")).expect(Outcome::Ok).says("SIGKILL was needed");
    reaper.join().unwrap();
    bridge.finish();
}
