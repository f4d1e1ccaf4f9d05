//! The agents that this build carries, by the machine they run on.

use std::io::Read;

/// One agent binary, compressed.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedAgent {
    /// What `uname -sm` prints on the machines it runs on.
    pub system: &'static str,
    /// The target it was built for.
    pub target: &'static str,
    /// Compiler and C library that it was made with. The same ones make the same bytes of the same sources, anywhere.
    pub made_by: &'static str,
    /// SHA-256 of the binary itself, lower-case hex.
    pub sha256: &'static str,
    /// Size of the binary itself, in bytes.
    pub size: usize,
    /// The binary, compressed with gzip.
    pub gzip: &'static [u8],
}

/// The agents of this build.
pub static AGENTS: &[EmbeddedAgent] = include!(concat!(env!("OUT_DIR"), "/agents.rs"));

impl EmbeddedAgent {
    /// The binary itself, for hosts without gzip.
    ///
    /// # Errors
    /// When the compressed form is damaged.
    pub fn unpack(&self) -> std::io::Result<Vec<u8>> {
        let mut binary = Vec::with_capacity(self.size);
        flate2::read::GzDecoder::new(self.gzip).read_to_end(&mut binary)?;
        Ok(binary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn each_agent_is_what_the_table_says() {
        assert!(!AGENTS.is_empty(), "this build carries no agent");
        for agent in AGENTS {
            let binary = agent.unpack().unwrap();
            assert_eq!(binary.len(), agent.size);
            let digest: String = Sha256::digest(&binary).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, agent.sha256, "{}", agent.target);
        }
    }
}
