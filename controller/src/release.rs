//! The versions of v7 in the order they came out.

/// A v7 release: first named by year (`18.10` to `21.1.3`, in banners `7.0 18.10`), then `7.1` and on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    renamed: bool,
    numbers: Vec<u32>,
}

impl Release {
    /// Reads a version (`7.4.1`, `21.1.3`, `7.0 18.10`). What is no number ends it.
    pub(crate) fn of(version: &str) -> Self {
        let last = version.split_whitespace().next_back().unwrap_or(version);
        let numbers: Vec<u32> = last.split('.').map_while(|part| part.parse().ok()).collect();
        let renamed = matches!(numbers.as_slice(), [7, minor, ..] if *minor > 0);
        Self { renamed, numbers }
    }

    /// Whether this one is known to have come out before another. `7` and `7.0` do not say when they did.
    pub(crate) fn is_before(&self, other: &str) -> bool {
        !matches!(self.numbers.as_slice(), [] | [7] | [7, 0]) && *self < Self::of(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_named_by_year_come_before_the_others() {
        let order = ["7.0 16.4", "18.4", "18.10", "19.1.4", "20.1", "20.1.1", "21.1.3", "7.1", "7.2.1", "7.4.1"];
        assert!(order.windows(2).all(|pair| Release::of(pair[0]).is_before(pair[1]) && !Release::of(pair[1]).is_before(pair[0])));
        for unsaid in ["7", "7.0", "", "latest"] {
            assert!(!Release::of(unsaid).is_before("20.1"), "{unsaid}");
        }
    }
}
