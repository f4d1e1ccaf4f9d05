//! Medians, and what they are held against.

use crate::measure::Sample;
use crate::{Contender, Workload};
use std::fmt::Write as _;

/// Total CPU beside the floor's, w1 and w2.
const CPU_RATIO: f64 = 1.3;
/// Wall time beside the floor's, w1 and w2.
const WALL_RATIO: f64 = 1.4;
/// The controller's CPU for a host in w2, in milliseconds.
const CONTROLLER_MS: f64 = 3.0;
/// The server side's CPU beside that of `ssh cat`, w3.
const PUSH_RATIO: f64 = 1.0;
/// Wall time and sshd's CPU beside those of `scp`, w4.
const SCP_RATIO: f64 = 1.1;

/// The most memory that the controller may have, in KiB.
fn memory_limit(hosts: usize) -> f64 {
    (40 * 1024 + 100 * hosts) as f64
}

/// One workload on one number of hosts.
pub(crate) fn render(workload: Workload, hosts: usize, samples: &[Sample]) -> String {
    let mut text = format!("\n{}, {hosts} hosts\n", workload.title());
    let _ = writeln!(
        text,
        "  {:26}{:>16}{:>16}{:>14}{:>16}{:>10}{:>13}",
        "median", "client ms/host", "server ms/host", "of it sshd", "total ms/host", "wall s", "memory MiB"
    );
    let per_host = |seconds: f64| seconds * 1000.0 / hosts as f64;
    for contender in workload.contenders() {
        let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().filter(|s| s.contender == *contender).map(value));
        let _ = writeln!(
            text,
            "  {:26}{:16.2}{:16.2}{:14.2}{:16.2}{:10.3}{:13.1}",
            contender.name(),
            per_host(of(&|s| s.client_cpu_s)),
            per_host(of(&|s| s.server_cpu_s)),
            per_host(of(&|s| s.sshd_cpu_s)),
            per_host(of(&Sample::total_cpu_s)),
            of(&|s| s.wall_s),
            of(&|s| s.memory_kib as f64) / 1024.0,
        );
    }
    let own = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().filter(|s| s.contender == Contender::Caravan).map(value));
    let memory = own(&|s| s.memory_kib as f64);
    match workload {
        Workload::W1 | Workload::W2 => {
            target(&mut text, "total CPU / floor", ratio(samples, Contender::Floor, &Sample::total_cpu_s), CPU_RATIO);
            target(&mut text, "wall / floor", ratio(samples, Contender::Floor, &|s| s.wall_s), WALL_RATIO);
            let with_programs = ratio(samples, Contender::FloorWithPrograms, &Sample::total_cpu_s);
            let _ = writeln!(text, "  {:44}{with_programs:8.2}", "total CPU / floor with programs");
        }
        Workload::W3 => {
            for other in [Contender::SshCat, Contender::SshCatSame] {
                target(
                    &mut text,
                    &format!("server CPU / {}", other.name()),
                    ratio(samples, other, &|s| s.server_cpu_s),
                    PUSH_RATIO,
                );
            }
        }
        Workload::W4 => {
            for other in [Contender::Scp, Contender::ScpSame] {
                let mut beside = |what: &str, value: &dyn Fn(&Sample) -> f64| {
                    target(&mut text, &format!("{what} / {}", other.name()), ratio(samples, other, value), SCP_RATIO);
                };
                beside("wall", &|s| s.wall_s);
                beside("sshd CPU", &|s| s.sshd_cpu_s);
                beside("server CPU", &|s| s.server_cpu_s);
            }
        }
    }
    if workload == Workload::W2 {
        target(&mut text, "controller ms/host", per_host(own(&|s| s.client_cpu_s)), CONTROLLER_MS);
    }
    target(&mut text, "memory MiB", memory / 1024.0, memory_limit(hosts) / 1024.0);
    text
}

/// The median of the ratios of samples that were taken one after the other: what disturbs the machine disturbs both.
fn ratio(samples: &[Sample], other: Contender, value: &dyn Fn(&Sample) -> f64) -> f64 {
    let of = |contender: Contender, run: u8| samples.iter().find(|s| s.contender == contender && s.run == run).map(value);
    let ratios = samples.iter().filter(|s| s.contender == Contender::Caravan).filter_map(|own| {
        let other = of(other, own.run)?;
        (other > 0.0).then(|| value(own) / other)
    });
    median(ratios)
}

/// A figure beside what it should be at most.
pub(crate) fn target(text: &mut String, what: &str, value: f64, limit: f64) {
    let verdict = if value <= limit { "met" } else { "MISSED" };
    let _ = writeln!(text, "  {what:44}{value:8.2}   target at most {limit:8.2}   {verdict}");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2)) {
        (Some(lower), Some(upper)) => (lower + upper) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contender: Contender, run: u8, cpu: f64) -> Sample {
        Sample {
            workload: Workload::W2,
            contender,
            hosts: 10,
            run,
            client_cpu_s: cpu / 4.0,
            server_cpu_s: cpu * 3.0 / 4.0,
            sshd_cpu_s: cpu / 2.0,
            wall_s: cpu,
            memory_kib: 10 * 1024,
        }
    }

    #[test]
    fn samples_are_compared_within_their_run() {
        // The second run was disturbed, for both alike.
        let samples = [(0, 1.2, 1.0), (1, 12.0, 10.0), (2, 1.25, 1.0)]
            .into_iter()
            .flat_map(|(run, own, floor)| [sample(Contender::Caravan, run, own), sample(Contender::Floor, run, floor)]);
        let samples: Vec<Sample> = samples.collect();
        assert!((ratio(&samples, Contender::Floor, &Sample::total_cpu_s) - 1.2).abs() < 1e-9);
        let text = render(Workload::W2, 10, &samples);
        let verdict = |what: &str| text.lines().find(|line| line.trim().starts_with(what)).unwrap().rsplit(' ').next().unwrap();
        assert_eq!(verdict("total CPU / floor"), "met");
        assert_eq!(verdict("controller ms/host"), "MISSED");
        assert_eq!(verdict("memory MiB"), "met");
    }

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}
