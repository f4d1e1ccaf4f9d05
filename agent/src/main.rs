//! The binary `caravan-agent`. What it does is in the library.

#[cfg(small)]
mod small;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    agent::run(&args)
}
