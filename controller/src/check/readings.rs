//! What a host answered, looked up by question.

use super::passwords::PasswordReading;
use crate::hosts::{AgentHello, OpenError};
use proto::inspect::{Answer, FileFacts, Fingerprint, PathKind, Query, ReadError, Reading, System, XmlValue};

/// What is known of a host. It cannot be serialised: it holds fingerprints, which reach no file.
#[derive(Debug, Clone, PartialEq)]
pub enum HostState {
    /// It answered.
    Reached(Box<Reached>),
    /// It did not.
    Unreachable {
        /// Why, for people: what was seen and what to do.
        reason: String,
        /// What kind of reason.
        kind: Unreached,
    },
}

/// A host that answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    /// Its answers.
    pub readings: Readings,
    /// The controller's clock when it was asked, milliseconds since 1970 UTC.
    pub asked_ms: u64,
    /// The controller's clock when its answers were there, milliseconds since 1970 UTC.
    pub answered_ms: u64,
    /// Its agent.
    pub agent: AgentHello,
}

/// Why a host did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreached {
    /// No connection.
    Network,
    /// Its host key is not known, or is another.
    HostKey,
    /// It refuses the login.
    Authentication,
    /// Root cannot be had.
    Become,
    /// The agent does not start, or does not answer as it should.
    Agent,
    /// The connection ended before the answer was there.
    Lost,
    /// It took longer than it may.
    TimedOut,
    /// It was left out: nothing is known of it.
    NotAsked,
}

impl HostState {
    /// What is known of a host that could not be opened.
    pub fn from_error(error: &OpenError) -> Self {
        let kind = match error {
            OpenError::Unreachable { .. } => Unreached::Network,
            OpenError::HostKey { .. } => Unreached::HostKey,
            OpenError::Authentication { .. } => Unreached::Authentication,
            OpenError::Become { .. } => Unreached::Become,
            OpenError::Agent { .. } => Unreached::Agent,
        };
        Self::Unreachable { reason: error.to_string(), kind }
    }

    /// The host's answers, where it answered.
    pub fn reached(&self) -> Option<&Reached> {
        match self {
            Self::Reached(reached) => Some(reached),
            Self::Unreachable { .. } => None,
        }
    }
}

/// The questions that a host was asked, each with its answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings(Vec<(Query, Reading)>);

impl Readings {
    /// Pairs questions with answers; `None` when there are not as many answers as questions.
    pub fn new(queries: Vec<Query>, readings: Vec<Reading>) -> Option<Self> {
        (queries.len() == readings.len()).then(|| Self(queries.into_iter().zip(readings).collect()))
    }

    /// Whether a question was asked at all.
    pub fn asked(&self, query: &Query) -> bool {
        self.0.iter().any(|(asked, _)| asked == query)
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// The reason that the host gave, or that it was not asked.
    pub fn get(&self, query: &Query) -> Result<&Answer, ReadError> {
        match self.0.iter().find(|(asked, _)| asked == query) {
            Some((_, reading)) => reading.as_ref().map_err(Clone::clone),
            None => Err(ReadError::Failed("this was not asked".to_owned())),
        }
    }

    /// What the host is.
    ///
    /// # Errors
    /// As [`Self::get`], or the answer is of another kind.
    pub fn system(&self) -> Result<&System, ReadError> {
        match self.get(&Query::System)? {
            Answer::System(system) => Ok(system),
            _ => Err(other_kind()),
        }
    }

    /// What a path is.
    ///
    /// # Errors
    /// As [`Self::system`].
    pub fn path(&self, path: &str) -> Result<PathKind, ReadError> {
        match self.get(&Query::Path { path: path.to_owned() })? {
            Answer::Path(kind) => Ok(*kind),
            _ => Err(other_kind()),
        }
    }

    /// Free bytes and inodes where a path is or would be.
    ///
    /// # Errors
    /// As [`Self::system`].
    pub fn space(&self, path: &str) -> Result<(u64, u64), ReadError> {
        match self.get(&Query::Space { path: path.to_owned() })? {
            Answer::Space { free, inodes } => Ok((*free, *inodes)),
            _ => Err(other_kind()),
        }
    }

    /// Size, age and digest of a file.
    ///
    /// # Errors
    /// As [`Self::system`].
    pub fn file(&self, path: &str) -> Result<&FileFacts, ReadError> {
        match self.get(&Query::File { path: path.to_owned() })? {
            Answer::File(facts) => Ok(facts),
            _ => Err(other_kind()),
        }
    }

    /// Exit code and output of a program.
    ///
    /// # Errors
    /// As [`Self::system`].
    pub fn output(&self, query: &Query) -> Result<(i32, &str), ReadError> {
        match self.get(query)? {
            Answer::Output { code, text } => Ok((*code, text)),
            _ => Err(other_kind()),
        }
    }

    /// The elements that an XML question selected.
    ///
    /// # Errors
    /// As [`Self::system`].
    pub fn xml(&self, query: &Query) -> Result<&[XmlValue], ReadError> {
        match self.get(query)? {
            Answer::Xml(values) => Ok(values),
            _ => Err(other_kind()),
        }
    }

    /// Names and versions of the packages that are installed.
    ///
    /// # Errors
    /// As [`Self::system`].
    pub fn packages(&self, query: &Query) -> Result<&[(String, String)], ReadError> {
        match self.get(query)? {
            Answer::Packages(packages) => Ok(packages),
            _ => Err(other_kind()),
        }
    }

    /// A stored password, as far as it may be known.
    pub fn password(&self, query: &Query) -> PasswordReading {
        match self.get(query) {
            Ok(Answer::Fingerprint(Fingerprint::Unset)) => PasswordReading::Unset,
            Ok(Answer::Fingerprint(Fingerprint::Keyed(fingerprint))) => PasswordReading::stored(fingerprint.clone()),
            Ok(_) => PasswordReading::Unreadable(other_kind().to_string()),
            Err(error) => PasswordReading::Unreadable(error.to_string()),
        }
    }
}

fn other_kind() -> ReadError {
    ReadError::Failed("the agent answered another question than it was asked".to_owned())
}
