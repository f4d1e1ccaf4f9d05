//! Becoming root on a host: by sudo, doas or su, with a password or without, on a pseudo-terminal where the host insists on one.

use super::bootstrap::find;
use super::text::tail;
use inventory::BecomeMethod;
use russh::Pty;

/// How the script's shell becomes root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elevation {
    /// By which program; [`BecomeMethod::None`]: not at all.
    pub(super) method: BecomeMethod,
    /// A password is at hand. Of sudo it also has what the question looks like, not guessable, so that nothing printed by chance is taken
    /// for it.
    pub(super) asks: Option<String>,
    /// On a pseudo-terminal: sudo's `requiretty`; and doas and su ask nowhere else.
    pub(super) terminal: bool,
}

/// What kept it from becoming root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) seen: String,
    pub(super) next: String,
    /// It may work on a pseudo-terminal.
    pub(super) wants_terminal: bool,
}

/// What to do where sudoers allows another command than ours.
const OLDER_RULE: &str = "A file made before an update, or for another host_state, allows another command: print it again with caravan inventory sudoers";

/// A terminal that passes every byte as it is, in both directions (RFC 4254, section 8).
pub(super) const RAW: &[(Pty, u32)] = &[
    (Pty::ECHO, 0),
    (Pty::ECHOE, 0),
    (Pty::ECHOK, 0),
    (Pty::ECHONL, 0),
    (Pty::ECHOCTL, 0),
    (Pty::ICANON, 0),
    (Pty::ISIG, 0),
    (Pty::IEXTEN, 0),
    (Pty::OPOST, 0),
    (Pty::ONLCR, 0),
    (Pty::ICRNL, 0),
    (Pty::INLCR, 0),
    (Pty::IGNCR, 0),
    (Pty::ISTRIP, 0),
    (Pty::INPCK, 0),
    (Pty::PARMRK, 0),
    (Pty::IXON, 0),
    (Pty::IXOFF, 0),
    (Pty::IXANY, 0),
    (Pty::CS8, 1),
    (Pty::PARENB, 0),
];

impl Elevation {
    /// None.
    pub(super) fn none() -> Self {
        Self { method: BecomeMethod::None, asks: None, terminal: false }
    }

    /// `question`: what sudo is to print when it asks for the password that is at hand.
    pub(super) fn by(method: BecomeMethod, question: Option<String>) -> Self {
        let terminal = match method {
            BecomeMethod::None | BecomeMethod::Sudo => false,
            BecomeMethod::Doas => question.is_some(),
            BecomeMethod::Su => true,
        };
        Self { method, asks: question, terminal }
    }

    /// The same on a pseudo-terminal.
    pub(super) fn on_terminal(self) -> Self {
        Self { terminal: true, ..self }
    }

    /// The command that runs `shell`, a command line, as root. In the C locale, because what these programs say is read.
    pub(super) fn command(&self, shell: &str) -> String {
        match (self.method, &self.asks) {
            (BecomeMethod::None, _) => format!("exec {shell}"),
            (BecomeMethod::Sudo, None) => format!("exec env LC_ALL=C sudo -n -- {shell}"),
            (BecomeMethod::Sudo, Some(question)) => format!("exec env LC_ALL=C sudo -S -p {question} -- {shell}"),
            (BecomeMethod::Doas, None) => format!("exec env LC_ALL=C doas -n {shell}"),
            (BecomeMethod::Doas, Some(_)) => format!("exec env LC_ALL=C doas {shell}"),
            // What stands behind the command is its `$0` and `$@`.
            (BecomeMethod::Su, _) => format!("exec env LC_ALL=C su root -c 'exec \"$0\" \"$@\"' -- {shell}"),
        }
    }

    /// Where the question for the password ends in what was printed.
    pub(super) fn asked(&self, printed: &[u8]) -> Option<usize> {
        let question: &[u8] = match (self.method, &self.asks) {
            (BecomeMethod::Sudo, Some(question)) => question.as_bytes(),
            (BecomeMethod::Doas, Some(_)) => b") password:",
            (BecomeMethod::Su, Some(_)) => b"Password:",
            _ => return None,
        };
        let end = find(printed, question)? + question.len();
        // The blank behind it belongs to it.
        Some(if printed.get(end) == Some(&b' ') { end + 1 } else { end })
    }

    /// What the complaint of the program means (their texts in the C locale: sudo 1.7 to 1.9 and sudo-rs, OpenDoas, the su of util-linux and
    /// of shadow). `given`: the password was given.
    pub(super) fn refusal(&self, said: &str, user: &str, given: bool) -> Option<Refusal> {
        let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
        let name = match self.method {
            BecomeMethod::None => return None,
            BecomeMethod::Sudo => "sudo",
            BecomeMethod::Doas => "doas",
            BecomeMethod::Su => "su",
        };
        let refusal = |seen: String, next: String| Some(Refusal { seen, next, wants_terminal: false });
        if has(&["must have a tty", "no tty present and no askpass", "must be run from a terminal", "a tty is required"])
            && !has(&["password is required"])
        {
            let next = match self.method {
                BecomeMethod::Sudo => format!("Put `Defaults:{user} !requiretty` into sudoers"),
                _ => "Use sudo, or log in as root with become: none".to_owned(),
            };
            return Some(Refusal { seen: format!("{name} wants a terminal (requiretty)"), next, wants_terminal: !self.terminal });
        }
        let shown = || tail(said.as_bytes(), 160);
        if has(&["not in the sudoers file"]) {
            let seen = format!("{user} may not use sudo: it is not in the sudoers file");
            return refusal(seen, "See caravan inventory sudoers".to_owned());
        }
        if has(&["not allowed to execute"]) {
            return refusal(format!("{user} may use sudo, but not for this command: {}", shown()), OLDER_RULE.to_owned());
        }
        if has(&[
            "may not run sudo",
            "is not allowed to run sudo",
            "I'm sorry",
            "doas: Operation not permitted",
            "doas is not enabled",
        ]) {
            let next = match self.method {
                BecomeMethod::Sudo => "See caravan inventory sudoers".to_owned(),
                _ => format!("Allow it for {user} in doas.conf"),
            };
            return refusal(format!("{user} may not use {name} for this: {}", shown()), next);
        }
        let wrong = [
            "incorrect password",
            "Sorry, try again",
            "Authentication failed",
            "Authentication failure",
            "no password was provided",
        ];
        if has(&wrong) && given {
            return refusal(format!("{name} does not accept the password"), "Correct become.password for this host".to_owned());
        }
        let asked = ["a password is required", "password is required", "interactive authentication is required"];
        let asked_elsewhere =
            self.asks.is_none() && has(&["Authentication required", "Authentication failed", "Authentication failure"]);
        if has(&asked) || asked_elsewhere {
            let next = match self.method {
                // With NOPASSWD for another command it says no more than this.
                BecomeMethod::Sudo => format!(
                    "Set become.password, or allow it with NOPASSWD. If a line of sudoers does that, it may not allow this command: {OLDER_RULE}"
                ),
                BecomeMethod::Doas => "Set become.password, or allow it with nopass".to_owned(),
                _ => "Set become.password to root's own password".to_owned(),
            };
            return refusal(format!("{name} asks {user} for a password, and the inventory gives none"), next);
        }
        if said.contains(name)
            && has(&["No such file or directory", "not found", "Permission denied"])
            && !said.contains("/caravan-agent")
        {
            let next = "Install it, or log in as root with become: none".to_owned();
            return refusal(format!("{name} is not installed or not in the PATH"), next);
        }
        None
    }
}
