//! The cells, each with what is to come of it: `as root` or `as the account`, or what the refusal says.

/// One host of the fleet: an account of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    /// A server of `servers.rs`.
    pub(super) server: &'static str,
    /// `ssh.legacy` in the inventory.
    pub(super) legacy: &'static str,
    /// How one logs in.
    pub(super) login: &'static str,
    /// How one becomes root.
    pub(super) root: &'static str,
    /// The account's login shell.
    pub(super) shell: &'static str,
    /// What is odd about the host or the way to it.
    pub(super) host: &'static str,
    /// What comes of it.
    pub(super) result: &'static str,
}

/// It works, as the login account.
pub(super) const ACCOUNT: &str = "as the account";
/// It works, as root.
pub(super) const ROOT: &str = "as root";

const fn cell(server: &'static str, login: &'static str, root: &'static str, shell: &'static str, result: &'static str) -> Cell {
    Cell { server, legacy: "", login, root, shell, host: "", result }
}

impl Cell {
    const fn legacy(self, legacy: &'static str) -> Self {
        Self { legacy, ..self }
    }

    const fn on(self, host: &'static str) -> Self {
        Self { host, ..self }
    }
}

const RHEL6: &str = "[diffie-hellman-group14-sha1, ssh-rsa, aes128-cbc, hmac-sha1]";
const LSH: &str = "[diffie-hellman-group14-sha1, ssh-rsa, aes256-cbc, hmac-sha1]";

pub(super) const CELLS: &[Cell] = &[
    // Every way to root, every login shell, most ways to log in, on the server that most hosts have.
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT),
    cell("OpenSSH", "rsa key", "sudo", "bash", ROOT),
    cell("OpenSSH", "ecdsa key", "sudo, password", "tcsh", ROOT),
    cell("OpenSSH", "encrypted key", "sudo, terminal", "fish", ROOT),
    cell("OpenSSH", "ssh-agent", "sudo, terminal, password", "zsh", ROOT),
    cell("OpenSSH", "certificate", "doas", "dash", ROOT),
    cell("OpenSSH", "password", "doas, password", "noisy bash", ROOT),
    cell("OpenSSH", "key and password", "su", "rbash", ROOT),
    cell("OpenSSH", "ed25519 key", "sudo, terminal, password", "rbash", ROOT),
    cell("OpenSSH", "rsa key", "su", "fish", ROOT),
    cell("OpenSSH", "ecdsa key", "doas, password", "zsh", ROOT),
    cell("OpenSSH", "encrypted key", "sudo, password", "noisy bash", ROOT),
    cell("OpenSSH", "ssh-agent", "none", "tcsh", ACCOUNT),
    cell("OpenSSH", "certificate", "sudo", "fish", ROOT),
    cell("OpenSSH", "password", "sudo, terminal", "dash", ROOT),
    cell("OpenSSH", "key and password", "none", "zsh", ACCOUNT),
    cell("OpenSSH", "certificate", "none", "rbash", ACCOUNT),
    cell("OpenSSH", "ed25519 key", "su", "tcsh", ROOT),
    cell("OpenSSH", "ed25519 key", "doas, password", "fish", ROOT),
    cell("OpenSSH", "password", "su", "noisy bash", ROOT),
    // Questions, by PAM.
    cell("OpenSSH, PAM", "questions", "none", "bash", ACCOUNT),
    cell("OpenSSH, PAM", "questions", "sudo, password", "fish", ROOT),
    cell("OpenSSH, PAM", "questions", "su", "tcsh", ROOT),
    cell("OpenSSH, PAM", "key and questions", "sudo", "zsh", ROOT),
    cell("OpenSSH, PAM", "wrong password", "none", "sh", "the server offers publickey, keyboard-interactive"),
    // Servers that have little.
    cell("OpenSSH, curve25519 and chacha20", "ed25519 key", "sudo, password", "dash", ROOT),
    cell("OpenSSH, curve25519 and chacha20", "rsa key", "none", "fish", ACCOUNT),
    cell("OpenSSH, curve25519 and chacha20", "password", "sudo, terminal, password", "tcsh", ROOT),
    cell("OpenSSH, nistp256 and aes128-gcm", "ecdsa key", "doas", "noisy bash", ROOT),
    cell("OpenSSH, nistp256 and aes128-gcm", "certificate", "sudo, terminal", "sh", ROOT),
    cell("OpenSSH, nistp256 and aes128-gcm", "ssh-agent", "su", "zsh", ROOT),
    cell("OpenSSH, group14-sha256 and aes256-ctr", "rsa key", "sudo", "tcsh", ROOT),
    cell("OpenSSH, group14-sha256 and aes256-ctr", "encrypted key", "doas, password", "bash", ROOT),
    cell("OpenSSH, group14-sha256 and aes256-ctr", "password", "none", "rbash", ACCOUNT),
    cell("OpenSSH, umac alone", "ed25519 key", "none", "sh", "Caravan has none of these"),
    // Servers of OpenSSH 5.3's age, which have to be allowed their algorithms.
    cell("OpenSSH as on RHEL 6", "rsa key", "sudo, terminal, password", "bash", ROOT).legacy("true"),
    cell("OpenSSH as on RHEL 6", "rsa key", "sudo", "noisy bash", ROOT).legacy(RHEL6),
    cell("OpenSSH as on RHEL 6", "password", "su", "tcsh", ROOT).legacy(RHEL6),
    cell(
        "OpenSSH as on RHEL 6",
        "password",
        "none",
        "sh",
        "set ssh.legacy: [diffie-hellman-group14-sha1, ssh-rsa, aes128-cbc, hmac-sha1]",
    ),
    cell(
        "OpenSSH as on RHEL 6",
        "rsa key",
        "none",
        "sh",
        "no common algorithm (cipher); the server offers key exchange diffie-hellman-group14-sha1",
    )
    .legacy("[diffie-hellman-group14-sha1, ssh-rsa]"),
    cell("OpenSSH, group-exchange-sha1", "ed25519 key", "sudo, password", "sh", ROOT)
        .legacy("[diffie-hellman-group-exchange-sha1, aes256-cbc, hmac-sha1-etm@openssh.com]"),
    cell("OpenSSH, group-exchange-sha1", "ecdsa key", "none", "dash", ACCOUNT).legacy("true"),
    cell("OpenSSH, rsa with SHA-1", "rsa key", "none", "bash", ACCOUNT).legacy("[ssh-rsa]"),
    cell("asyncssh, rsa with SHA-1", "rsa key", "sudo", "sh", ROOT).legacy("[ssh-rsa]"),
    cell("asyncssh, rsa with SHA-1", "rsa key", "none", "sh", "ssh.legacy: [ssh-rsa] would allow that"),
    cell("lsh", "rsa key", "none", "sh", ACCOUNT).legacy(LSH),
    cell("lsh", "rsa key", "sudo", "bash", ROOT).legacy(LSH),
    cell("lsh", "password", "sudo, password", "tcsh", ROOT).legacy("true"),
    cell("lsh", "password", "su", "dash", ROOT).legacy(LSH),
    cell("lsh", "rsa key", "none", "sh", "set ssh.legacy: [diffie-hellman-group14-sha1, ssh-rsa, aes256-cbc, hmac-sha1]"),
    // Other servers.
    cell("dropbear", "ed25519 key", "sudo", "sh", ROOT),
    cell("dropbear", "rsa key", "sudo, password", "tcsh", ROOT),
    cell("dropbear", "ecdsa key", "sudo, terminal, password", "bash", ROOT),
    cell("dropbear", "encrypted key", "none", "fish", ACCOUNT),
    cell("dropbear", "ssh-agent", "doas", "zsh", ROOT),
    cell("dropbear", "password", "su", "dash", ROOT),
    cell("dropbear", "wrong key", "none", "sh", "the server offers publickey"),
    cell("tinysshd", "ed25519 key", "none", "sh", ACCOUNT),
    cell("tinysshd", "encrypted key", "sudo", "fish", ROOT),
    cell("tinysshd", "ssh-agent", "sudo, terminal", "bash", ROOT),
    cell("tinysshd", "ed25519 key", "sudo, password", "tcsh", ROOT),
    cell("tinysshd", "rsa key", "none", "sh", "the server offers publickey"),
    cell("asyncssh", "ed25519 key", "none", "zsh", ACCOUNT),
    cell("asyncssh", "rsa key", "sudo", "sh", ROOT),
    cell("asyncssh", "certificate", "sudo, password", "bash", ROOT),
    cell("asyncssh", "password", "doas", "fish", ROOT),
    cell("asyncssh", "questions", "none", "tcsh", ACCOUNT),
    // Logins and root that are refused.
    cell("OpenSSH", "wrong key", "none", "sh", "or a key that it accepts in ssh.identity"),
    cell("OpenSSH", "wrong password", "none", "sh", "the server offers publickey, password"),
    cell("OpenSSH", "ed25519 key", "sudo, wrong password", "sh", "cannot become root: sudo does not accept the password"),
    cell("OpenSSH", "ed25519 key", "sudo, not in sudoers", "fish", "See caravan inventory sudoers"),
    cell("OpenSSH", "ed25519 key", "sudo, no password given", "tcsh", "for a password, and the inventory gives none"),
    cell("OpenSSH", "ed25519 key", "su, wrong password", "zsh", "su does not accept the password"),
    cell("OpenSSH", "ed25519 key", "doas, not allowed", "bash", "may not use doas"),
    // Login shells that run nothing.
    cell("OpenSSH", "ed25519 key", "none", "nologin", "runs no commands (nologin, false?)"),
    cell("OpenSSH", "ed25519 key", "none", "false", "runs no commands (nologin, false?)"),
    cell("OpenSSH", "ed25519 key", "none", "rbash without sh", "a restricted one: put `sh` into its PATH"),
    // Hosts that are poor, full, or too old.
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("home without exec"),
    cell("OpenSSH", "ed25519 key", "none", "bash", ACCOUNT).on("home and /var/tmp without exec"),
    cell("OpenSSH", "ed25519 key", "none", "dash", ACCOUNT).on("home, /var/tmp and /tmp without exec"),
    cell("OpenSSH", "ed25519 key", "none", "sh", "programs cannot be executed there: noexec").on("nothing with exec"),
    cell("OpenSSH", "ed25519 key", "sudo", "sh", "programs cannot be executed there: noexec").on("host_state without exec"),
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("home full"),
    cell("OpenSSH", "ed25519 key", "none", "bash", "no room for").on("everything full"),
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("no sha256sum, no mktemp"),
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("no hash tool, home without exec"),
    cell("OpenSSH", "ed25519 key", "none", "sh", "the kernel is Linux 2.6.32-754.el6.x86_64, and the agent needs Linux 3.2")
        .on("old kernel"),
    cell("OpenSSH", "ed25519 key", "none", "sh", "the machine is \"SunOS sun4v\"").on("another machine"),
    // Ways.
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("at ::1"),
    cell("OpenSSH", "ed25519 key", "sudo", "bash", ROOT).on("at fe80::1%lo"),
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("behind [::1]:PORT"),
    cell("OpenSSH", "ed25519 key", "none", "bash", ACCOUNT).on("behind [fe80::1%lo]:PORT"),
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("a name whose first address refuses"),
    cell("OpenSSH", "ed25519 key", "none", "sh", ACCOUNT).on("a name whose first address is silent"),
];
