//! Where in a run something is to happen: at the first event of a kind about a step, whichever host it is on.

use lab::agent::step_name;
use proto::Event;
use std::fmt;
use std::str::FromStr;

/// A kind of event and the step (or stage) that it is about, without platform and host: `step_finished:install.packages`,
/// `barrier_opened:migrate/marketing`, `run_started`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Point {
    /// The event's `kind`.
    pub(crate) kind: String,
    /// The step's name, the phase and the stage, or nothing.
    pub(crate) subject: String,
}

impl Point {
    /// Of one event.
    pub(crate) fn of(event: &Event) -> Self {
        let kind = serde_json::to_value(&event.kind).ok().and_then(|value| Some(value.get("kind")?.as_str()?.to_owned()));
        let scope = &event.scope;
        let subject = match (&scope.step, &scope.phase) {
            (Some(step), _) => step_name(step).to_owned(),
            (None, Some(phase)) => {
                [Some(phase.as_str()), scope.stage.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("/")
            }
            (None, None) => String::new(),
        };
        Self { kind: kind.unwrap_or_default(), subject }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject.as_str() {
            "" => f.write_str(&self.kind),
            subject => write!(f, "{}:{subject}", self.kind),
        }
    }
}

impl FromStr for Point {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, subject) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { kind: kind.to_owned(), subject: subject.to_owned() })
    }
}
