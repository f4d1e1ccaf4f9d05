//! What went wrong, with equal errors folded.

use super::model::{HostState, StageView, View};
use super::record::FindingView;
use std::collections::HashMap;

/// One error, and everything it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What kind it is.
    pub kind: TroubleKind,
    /// A step's name or a check's name; empty for hosts out of reach.
    pub what: String,
    /// What was expected and what was seen, as the first host of it said. Where several hosts said so, their names are left out.
    pub message: String,
    /// What to do about it, where a check said so.
    pub remedy: String,
    /// The hosts, in the plan's order; empty where a check is about a whole platform.
    pub hosts: Vec<String>,
    /// The first failed step of it, in [`View::steps`].
    pub step: Option<usize>,
    /// The ids of its findings, for `--override`.
    pub findings: Vec<String>,
}

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// A step failed, or nobody can tell how it ended.
    Step,
    /// Hosts cannot be reached.
    Unreachable,
    /// A check failed or could not be carried out.
    Finding,
}

impl View {
    /// What went wrong in a stage (and, for the first stage of a phase, what its checks found), most hosts first.
    pub fn troubles(&self, stage: &StageView) -> Vec<Trouble> {
        let mut folded = Folded::default();
        for host in &stage.hosts {
            match host.state {
                HostState::Failed => {
                    let Some((at, step)) = host.worst.and_then(|at| Some((at, self.steps.get(at)?))) else { continue };
                    let message = if step.message.is_empty() { said(step.exit_code) } else { step.message.clone() };
                    let trouble = folded.add(TroubleKind::Step, &step.name, &message, Some(&host.name), self.short(&host.name));
                    trouble.step.get_or_insert(at);
                }
                HostState::Unreachable => {
                    let reason = self.interruption(&host.name).map_or("", |known| known.reason.as_str());
                    // Such a reason begins with the host's name, which is told beside it.
                    let reason = reason.strip_prefix(host.name.as_str()).map_or(reason, str::trim_start);
                    folded.add(TroubleKind::Unreachable, "", reason, Some(&host.name), self.short(&host.name));
                }
                HostState::Waiting | HostState::Running | HostState::Done | HostState::Dropped => {}
            }
        }
        let Some(platform) = self.platforms.get(stage.platform) else { return folded.troubles };
        let first = platform.phases.get(stage.phase).and_then(|phase| phase.stages.clone().next());
        let is_first = first.and_then(|at| self.stages.get(at)).is_some_and(|first| first.name == stage.name);
        let phase = stage.phase_name.as_str();
        // Checks that were made again stand where the platform stood.
        let here = |known: &FindingView| known.stage == stage.name || (is_first && known.stage.is_empty());
        let mine = self.findings.iter().filter(|known| known.blocks() && known.phase == phase && here(known));
        for finding in mine.map(|known| &known.finding).filter(|finding| finding.platform == platform.name) {
            let host = finding.host.as_deref();
            let short = host.map_or("", |host| self.short(host));
            let trouble = folded.add(TroubleKind::Finding, &finding.check, &finding.message, host, short);
            trouble.remedy.clone_from(&finding.remedy);
            trouble.findings.push(finding.id.clone());
        }
        folded.troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.hosts.len()));
        folded.troubles
    }
}

fn said(exit_code: Option<i32>) -> String {
    exit_code.map_or_else(|| "no result is known".to_owned(), |code| format!("exit code {code}"))
}

/// What makes two errors the same: everything but host names and words that look like an address or a measured time.
pub fn signature(message: &str, host: &str, short: &str) -> String {
    let words = message.split_whitespace().map(|word| {
        let varies = word.contains(|c: char| c.is_ascii_digit()) && word.contains(['.', ':']);
        if varies || (!host.is_empty() && word.contains(host)) || (!short.is_empty() && word.contains(short)) {
            "…"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[derive(Default)]
struct Folded {
    troubles: Vec<Trouble>,
    known: HashMap<(TroubleKind, String, String), usize>,
}

impl Folded {
    fn add(&mut self, kind: TroubleKind, what: &str, message: &str, host: Option<&str>, short: &str) -> &mut Trouble {
        let signature = signature(message, host.unwrap_or(""), short);
        let at = *self.known.entry((kind, what.to_owned(), signature.clone())).or_insert_with(|| {
            self.troubles.push(Trouble {
                kind,
                what: what.to_owned(),
                message: message.to_owned(),
                remedy: String::new(),
                hosts: Vec::new(),
                step: None,
                findings: Vec::new(),
            });
            self.troubles.len() - 1
        });
        let trouble = &mut self.troubles[at];
        if let Some(host) = host {
            if trouble.hosts.len() == 1 {
                trouble.message = signature;
            }
            trouble.hosts.push(host.to_owned());
        }
        trouble
    }
}
