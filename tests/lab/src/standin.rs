//! `standin`: the stand-ins alone. A tenth of `lab` in size, which counts where it is archived on every host of hundreds of fleets.

use std::process::ExitCode;

fn main() -> ExitCode {
    lab::run_standin().unwrap_or_else(|| {
        let text = "standin: this program works under the names of the programs that it stands in for (nlserver, dpkg, ...)\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        ExitCode::FAILURE
    })
}
