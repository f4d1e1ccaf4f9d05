//! Random numbers that are the same for a seed on every machine and with every version of every library (SplitMix64): a seed that
//! failed years ago still means something.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for something that has a name, so that what one part draws does not move the numbers of another.
    pub(crate) fn fork(&self, name: &str) -> Self {
        let folded =
            name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        Self(mix(self.0 ^ folded))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        // The bias is far below what a few hundred thousand histories could show.
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `parts` of 10,000 cases.
    pub(crate) fn chance(&mut self, parts: u32) -> bool {
        self.below(10_000) < u64::from(parts)
    }

    /// One of several; each is as likely as its weight says.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(u32, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| u64::from(*weight)).sum());
        for (weight, choice) in choices {
            if at < u64::from(*weight) {
                return *choice;
            }
            at -= u64::from(*weight);
        }
        choices[0].1
    }

    /// A time in milliseconds: most are short, a few are as long as `high`.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let bits = 64 - (high / low.max(1)).leading_zeros();
        let top = low.max(1) << self.below(u64::from(bits) + 1);
        self.between(low, top.clamp(low, high))
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
