//! Bugs that are planted to show that the simulation finds them. None of them is a switch in the product: a host or a disk of the
//! simulation misbehaves, or a filter between hosts and engine does.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A barrier that counts an unknown outcome as success: what hosts report as unknown reaches the engine as done.
    UnknownIsDone,
    /// A host starts the runner before its journal says so.
    IntentAfterAct,
    /// A host does not look at its lock before it begins a step.
    TokenNotChecked,
    /// A host forgets what it took back: a controller that repeats its grant without having heard of it starts the step after all.
    ForgetsRevoked,
    /// A host tells a result before its journal has it.
    ToldBeforeDurable,
    /// The controller's disk says that something is durable before it is.
    DiskLies,
}

impl Plant {
    /// All of them, with the names by which they are asked for.
    pub const ALL: [(&'static str, Self); 6] = [
        ("unknown-is-done", Self::UnknownIsDone),
        ("intent-after-act", Self::IntentAfterAct),
        ("token-not-checked", Self::TokenNotChecked),
        ("forgets-revoked", Self::ForgetsRevoked),
        ("told-before-durable", Self::ToldBeforeDurable),
        ("disk-lies", Self::DiskLies),
    ];
}
