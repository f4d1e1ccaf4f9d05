//! `caravan`: migrates whole fleets of Adobe Campaign Classic servers to v7 from one workstation.

use std::process::ExitCode;

fn main() -> ExitCode {
    controller::secrets::keep_memory_private();
    ExitCode::from(controller::cli::main(std::env::args_os()))
}
