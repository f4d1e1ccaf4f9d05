//! The commands that make sense now, as they are typed at this workstation.

use super::{Context, args};
use crate::report::{self, Next, Typed, word};
use crate::view::View;

/// What can be done about a run now. `driven`: a controller drives it at this moment.
pub(super) fn next(context: &Context, view: &View, driven: bool) -> Vec<Next> {
    report::next(view, driven, &typed(context))
}

/// How commands are typed here: what the defaults say is left out.
pub(super) fn typed(context: &Context) -> Typed {
    let given = |option: &str, path: &std::path::Path| format!(" {option} {}", word(&path.display().to_string()));
    let inventory =
        if context.inventory == std::path::Path::new(args::INVENTORY) { String::new() } else { given("-i", &context.inventory) };
    let state = match args::default_state_dir() {
        Ok(default) if default == context.state_dir => String::new(),
        _ => given("--state-dir", &context.state_dir),
    };
    Typed { inventory, state }
}

/// One command about a run in the state directory.
pub(super) fn here(context: &Context, command: &str) -> String {
    typed(context).here(command)
}

/// One command that talks to hosts.
pub(super) fn fleet(context: &Context, command: &str) -> String {
    typed(context).fleet(command)
}
