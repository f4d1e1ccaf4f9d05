//! The command that starts the agent on a host, and the words that its shell script answers with. Pure text.
//!
//! The login shell that reads the command may be anything: csh, fish, an old ksh. So the command is `exec /bin/sh -c` with single
//! quotes around words that contain no single quote, no `!` (csh's history), no line end and no backslash (fish), each below 1,000
//! bytes (the longest word of the original csh).
//!
//! The script looks for the agent by digest, and runs it. Otherwise it asks for it with one line, receives it on standard input,
//! checks the digest, keeps it, and runs it.

use super::elevation::Elevation;
use super::embedded::EmbeddedAgent;

/// How an answer line of the script begins. The script puts it together from two halves, so that a login shell that prints the
/// command itself is not taken for an answer.
const ANSWER: &str = "caravan-bootstrap:";
/// The longest word that is put on the command line.
const LONGEST_WORD: usize = 900;
/// The longest answer line that is waited for.
const LONGEST_ANSWER: usize = 2000;

/// What the script answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It needs the agent for this system; `packed`: it can unpack gzip.
    Need { system: String, packed: bool },
    /// There is no agent for this system and machine.
    NoAgent { system: String },
    /// The kernel, of this name and release, is older than the agent can do with.
    OldKernel(String),
    /// It cannot go on.
    Failed(String),
}

/// The command to execute. `host_state` is Caravan's directory on the host, used where the shell runs as root. `restricted`: the login shell
/// runs programs of its PATH alone, and stays (rbash).
///
/// # Errors
/// `host_state` cannot be written in a shell command.
pub(super) fn command(
    agents: &[EmbeddedAgent],
    host_state: &str,
    elevation: &Elevation,
    restricted: bool,
) -> Result<String, String> {
    let words = words(agents, host_state)?;
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = elevation.command(&format!("/bin/sh -c '{}' caravan {}", joined(&words), quoted.join(" ")));
    if restricted {
        let line = line.strip_prefix("exec ").unwrap_or(&line);
        return Ok(line.strip_prefix("/bin/").unwrap_or(line).to_owned());
    }
    Ok(line)
}

/// The same as the arguments that the login shell makes of it, for what compares them (sudoers).
///
/// # Errors
/// As [`command`].
pub(super) fn arguments(agents: &[EmbeddedAgent], host_state: &str) -> Result<Vec<String>, String> {
    let words = words(agents, host_state)?;
    let first = ["/bin/sh".to_owned(), "-c".to_owned(), joined(&words), "caravan".to_owned()];
    Ok(first.into_iter().chain(words).collect())
}

/// The script in pieces that a login shell takes.
fn words(agents: &[EmbeddedAgent], host_state: &str) -> Result<Vec<String>, String> {
    let mut words = vec![String::new()];
    for letter in script(agents, host_state)?.chars() {
        match words.last_mut() {
            Some(word) if word.len() < LONGEST_WORD => word.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    Ok(words)
}

/// What makes a script of its pieces again.
fn joined(words: &[String]) -> String {
    let pieces: String = (1..=words.len()).map(|number| format!("${{{number}}}")).collect();
    format!("eval \"{pieces}\"")
}

fn script(agents: &[EmbeddedAgent], host_state: &str) -> Result<String, String> {
    // Inside double quotes inside single quotes, in any shell, and without a backslash to escape with.
    if let Some(bad) =
        host_state.chars().find(|letter| matches!(letter, '\'' | '!' | '\\' | '"' | '$' | '`') || letter.is_control())
    {
        return Err(format!("host_state {host_state:?} contains {bad:?}, which cannot be written in a command for every shell"));
    }
    let cases: String = agents
        .iter()
        .map(|agent| format!("\"{}\") d={};n={};r={};;", agent.system, agent.sha256, agent.gzip.len(), agent.size))
        .collect();
    // One statement a line here; joined by spaces in the command.
    let lines = [
        "unset LC_ALL;[ -t 0 ]&&stty raw -echo 2>/dev/null;umask 077;p=caravan-;say() { echo \"${p}bootstrap: $*\";};",
        // Each program costs a host more than everything else here: the kernel says what `id -u` would.
        "set -- $(uname -srm);s=\"$1 $3\";case \"$1 $2\" in",
        // Older than Linux 3.2.
        "\"Linux 1.\"*|\"Linux 2.\"*|\"Linux 3.0\"|\"Linux 3.0.\"*|\"Linux 3.0-\"*|\"Linux 3.1\"|\"Linux 3.1.\"*|\"Linux 3.1-\"*)",
        "say old \"$1 $2\";exit 0;;esac;",
        "u=;{ while read -r k r e x;do case $k in Uid:) u=$e;break;;esac;done </proc/self/status;} 2>/dev/null;",
        "[ -n \"$u\" ]||u=$(id -u);",
        &format!("case \"$s\" in {cases} *) say none \"$s\";exit 0;;esac;"),
        // Any of the three prints the digest; a host with none of them says so.
        "sum() { if command -v sha256sum;then sha256sum >&3;elif command -v shasum;then shasum -a 256 >&3;",
        "elif command -v openssl;then openssl dgst -sha256 >&3;else echo nosum >&3;fi 3>&1 >/dev/null 2>&1;};",
        "good() { case \"$(sum <\"$1\")\" in *$d*) return 0;;esac;return 1;};",
        // Root goes where nobody else can put anything in another's place: from the root directory on, each directory is root's and closed
        // to others, or one like /tmp, in which nobody renames what is another's.
        "safe() { q=$(cd -P \"$1\" 2>/dev/null&&pwd -P)||return 1;set --;while [ -n \"$q\" ];do set -- \"$q\" \"$@\";q=${q%/*};done;",
        "ls -ldn / \"$@\" 2>/dev/null|( n=0;while read -r m x o g y;do n=$((n+1));[ \"$o\" = 0 ]||exit 1;",
        "case \"$m\" in d????-??-*|d????????[tT]*) ;;d???????-*) [ \"$g\" = 0 ]||exit 1;;*) exit 1;;esac;done;[ $n -gt $# ]);};",
        // Everything on the way to the file belongs to us; in a directory that all can write to, nobody redirected it.
        "own() { [ -O \"${1%/*}\" ]&&[ -O \"$1\" ]&&[ -O \"$1/$d\" ]||return 1;[ \"$u\" -ne 0 ]||safe \"$1/$d\"||return 1;",
        "case \"$1\" in /tmp/*|/var/tmp/*|/dev/shm/*) [ -L \"${1%/*}\" ]&&return 1;;esac;return 0;};",
        &format!("if [ \"$u\" = 0 ];then set -- \"{host_state}/agent\";"),
        "else set -- \"${XDG_CACHE_HOME:-$HOME/.cache}/caravan/agent\" \"/var/tmp/caravan-$u/agent\" \"/tmp/caravan-$u/agent\" \"/dev/shm/caravan-$u/agent\";fi;",
        "for c in \"$@\";do f=\"$c/$d/caravan-agent\";if [ -f \"$f\" ]&&[ -x \"$f\" ]&&[ -O \"$f\" ]&&own \"$c\";then",
        // Root checks the digest at every start; others checked it when they wrote the file.
        "if [ \"$u\" -ne 0 ]||good \"$f\";then exec \"$f\" bridge;fi;fi;done;",
        "e=;[ \"$u\" -ne 0 ]||e=\" (and all above it to root, closed to others)\";",
        "t=;w=;for c in \"$@\";do x=\"$c/$d/.new.$$\";mkdir -p \"$c/$d\" 2>/dev/null;if own \"$c\";then",
        // A quota or a full disk is found before the agent is asked for, which cannot be had twice; so are mounts without exec (126), by
        // a file that this shell reads itself where the kernel does not refuse to execute it.
        "if (head -c $r /dev/zero >\"$x\") 2>/dev/null;then",
        "(echo exit >\"$x\";chmod 700 \"$x\";\"$x\") </dev/null >/dev/null 2>&1;if [ $? -ne 126 ];then t=\"$x\";break;fi;",
        "y=\"programs cannot be executed there: noexec\";else y=\"no room for $r bytes\";fi;rm -f \"$x\" 2>/dev/null;",
        "else y=\"cannot be written, or does not belong to uid $u alone$e\";fi;w=\"$w$c ($y), \";done;",
        "if [ -z \"$t\" ];then say failed \"there is no place for it: ${w%, }\";exit 0;fi;",
        "gone() { rm -f \"$t\";exit 1;};trap gone 1 13 15;",
        "if command -v gzip >/dev/null 2>&1;then say need gzip \"$s\";head -c $n|gzip -dc >\"$t\";",
        "else say need raw \"$s\";head -c $r >\"$t\";fi;",
        "chmod 700 \"$t\";k=$(sum <\"$t\");case \"$k\" in",
        // Nothing can prove the file later, so it is not kept: it runs from an open file that has no name any more.
        "nosum) exec 9<\"$t\";rm -f \"$t\";exec /proc/self/fd/9 bridge;;",
        "*$d*) f=\"${t%/*}/caravan-agent\";mv -f \"$t\" \"$f\";exec \"$f\" bridge;;esac;",
        "rm -f \"$t\";say failed \"the agent arrived damaged in ${t%/*} (is the disk full?)\"",
    ];
    Ok(lines.join(" "))
}

/// Looks for an answer in what arrived; also says how many bytes it took, with what stood before it.
pub(super) fn answer(bytes: &[u8]) -> Option<(Answer, usize)> {
    let start = find(bytes, ANSWER.as_bytes())? + ANSWER.len();
    let rest = bytes.get(start..)?;
    let length = match rest.iter().position(|byte| *byte == b'\n') {
        Some(length) => length,
        None if rest.len() < LONGEST_ANSWER => return None,
        None => rest.len(),
    };
    let line = String::from_utf8_lossy(rest.get(..length)?);
    let line = line.trim();
    let (word, text) = line.split_once(' ').unwrap_or((line, ""));
    let answer = match word {
        "none" => Answer::NoAgent { system: super::text::printable(text) },
        "need" => match text.split_once(' ') {
            Some(("gzip", system)) => Answer::Need { system: system.to_owned(), packed: true },
            Some(("raw", system)) => Answer::Need { system: system.to_owned(), packed: false },
            _ => Answer::Failed(format!("the start script said {:?}", super::text::printable(line))),
        },
        "old" => Answer::OldKernel(super::text::printable(text)),
        "failed" => Answer::Failed(super::text::printable(text)),
        _ => Answer::Failed(format!("the start script said {:?}", super::text::printable(line))),
    };
    Some((answer, start + length + 1))
}

/// Where a text begins in bytes.
pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory::BecomeMethod;
    use proptest::prelude::*;

    const AGENT: EmbeddedAgent = EmbeddedAgent {
        system: "Linux x86_64",
        target: "x86_64-unknown-linux-gnu",
        made_by: "",
        sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        size: 2_000_000,
        gzip: &[0; 100],
    };

    #[test]
    fn the_command_is_safe_in_every_login_shell() {
        let agents = [AGENT; 4];
        let question = || Some("marker:".to_owned());
        let methods = [BecomeMethod::Sudo, BecomeMethod::Doas, BecomeMethod::Su];
        let all = methods.into_iter().flat_map(|method| [Elevation::by(method, None), Elevation::by(method, question())]);
        for elevation in all.chain([Elevation::none()]) {
            let command = command(&agents, "/var/lib/caravan", &elevation, false).unwrap();
            assert!(!command.contains(['\n', '!', '\\']), "{command}");
            let words: Vec<&str> = command.split('\'').skip(1).step_by(2).collect();
            assert!(words.len() > 2 && words.iter().all(|word| word.len() < 1000), "{command}");
            let restricted = super::command(&agents, "/var/lib/caravan", &elevation, true).unwrap();
            let program = restricted.split(' ').next().unwrap();
            assert!(["sh", "env"].contains(&program) && command.ends_with(&restricted), "{restricted}");
            assert!(!command.contains(ANSWER), "a shell that echoes the command would be taken for an answer");
        }
    }

    #[test]
    fn a_directory_that_no_command_can_hold_is_refused() {
        for bad in ["/a'b", "/a!b", "/a\nb", "/a$b", "/a`b", "/a\"b", "/a\\b"] {
            assert!(command(&[AGENT], bad, &Elevation::none(), false).is_err(), "{bad:?}");
        }
        assert!(command(&[AGENT], "/srv/with space/ü", &Elevation::none(), false).is_ok());
    }

    #[test]
    fn answers_are_found_in_noise() {
        let need = Answer::Need { system: "Linux x86_64".to_owned(), packed: true };
        let line = b"Welcome\ncaravan-bootstrap: need gzip Linux x86_64\nrest";
        assert_eq!(answer(line), Some((need, line.len() - 4)));
        assert_eq!(answer(b"caravan-bootstrap: need gz"), None);
        assert_eq!(
            answer(b"caravan-bootstrap: none SunOS sun4v\n"),
            Some((Answer::NoAgent { system: "SunOS sun4v".to_owned() }, 36))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = answer(&bytes);
            let _ = answer(&[ANSWER.as_bytes(), &bytes].concat());
        }
    }
}
