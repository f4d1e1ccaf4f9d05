//! How a command ends: the exit codes are a contract.

/// How a command ended; the exit codes are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well; warnings allowed.
    Ok,
    /// A step or check failed or is unknown.
    Failed,
    /// Wrong usage or inventory.
    Usage,
    /// A host could not be reached or authenticated.
    Unreachable,
    /// Another operator holds the lock.
    Locked,
    /// Waits for a person.
    Waiting,
    /// The plan was refused because the fleet moved.
    Moved,
    /// Internal or state error.
    Internal,
    /// Detached by a second Ctrl-C.
    Detached,
}

impl Exit {
    /// The exit with this code, as a run's record has it.
    pub fn from_code(code: u8) -> Self {
        let all =
            [Self::Ok, Self::Failed, Self::Usage, Self::Unreachable, Self::Locked, Self::Waiting, Self::Moved, Self::Detached];
        all.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Internal)
    }

    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Locked => 4,
            Self::Waiting => 5,
            Self::Moved => 6,
            Self::Internal => 7,
            Self::Detached => 130,
        }
    }
}

/// Why a command ended without doing its work: a text for standard error and the code that goes with it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened and what to do, for people.
    pub message: String,
}

impl Failure {
    /// A failure with its exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}
