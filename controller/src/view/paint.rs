//! Colours of a terminal, where they are wanted.

/// Paints text, or leaves it as it is (`NO_COLOR`, `--color never`, not a terminal).
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Colours when `on`.
    pub fn new(on: bool) -> Self {
        Self { on }
    }

    /// For what is well.
    pub fn green(self, text: &str) -> String {
        self.sgr("32", text)
    }

    /// For what failed.
    pub fn red(self, text: &str) -> String {
        self.sgr("31", text)
    }

    /// For what wants a look.
    pub fn yellow(self, text: &str) -> String {
        self.sgr("33", text)
    }

    /// For what is in motion.
    pub fn cyan(self, text: &str) -> String {
        self.sgr("36", text)
    }

    /// For what matters less.
    pub fn dim(self, text: &str) -> String {
        self.sgr("2", text)
    }

    /// For what matters most.
    pub fn bold(self, text: &str) -> String {
        self.sgr("1", text)
    }

    fn sgr(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
