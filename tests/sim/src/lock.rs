//! The lock of a simulated host: the rules of invariant 6 as the agent has them (`agent/src/host_lock.rs`), without files.

use proto::message::Claim;

/// What stands in `host_state/lock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who holds the host.
    pub holder: Option<Holder>,
    /// The newest token that was given out. It only ever grows, also over releases.
    pub token: u64,
}

/// Who holds a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The run.
    pub run: String,
    /// The workstation's state directory.
    pub seat: String,
    /// The controller process.
    pub controller: String,
}

impl Lock {
    /// The lock as it is once this claim is granted.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn claim(&self, run: &str, claim: &Claim) -> Result<Self, String> {
        let wants = Holder { run: run.to_owned(), seat: claim.seat.clone(), controller: claim.controller.clone() };
        let token = match &self.holder {
            Some(holder) if *holder == wants => self.token,
            None => self.token + 1,
            Some(holder) => {
                let own = holder.run == run || claim.succeeds.as_ref() == Some(&holder.run);
                if claim.take_over.is_none() && !(own && holder.seat == claim.seat) {
                    return Err(format!("run {} of {} holds this host (token {})", holder.run, holder.seat, self.token));
                }
                self.token + 1
            }
        };
        Ok(Self { holder: Some(wants), token })
    }

    /// The lock after its holder let go of it.
    pub fn released(&self) -> Self {
        Self { holder: None, token: self.token }
    }

    /// The token of a run's controller, while it has the host.
    pub fn token_of(&self, run: &str, controller: &str) -> Option<u64> {
        let holder = self.holder.as_ref()?;
        (holder.run == run && holder.controller == controller).then_some(self.token)
    }
}
