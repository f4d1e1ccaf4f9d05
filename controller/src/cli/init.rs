//! `caravan init`: an inventory to start from.

use super::{Context, Exit, Failure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use inventory::Topology;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Writes a commented inventory for a topology, ready to edit. Never overwrites a file.
#[derive(Debug, Clone, clap::Args)]
pub struct InitArgs {
    /// How the platform's servers are arranged.
    #[arg(long, value_name = "TOPOLOGY", default_value = "standard", value_parser = topologies())]
    pub topology: Topology,
    /// The file to write; `-` is standard output [default: the inventory, ./fleet.yaml].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn topologies() -> impl TypedValueParser<Value = Topology> {
    // What is not in the list does not get as far as the lookup.
    PossibleValuesParser::new(Topology::ALL.map(Topology::as_str))
        .try_map(|word| Topology::ALL.into_iter().find(|topology| topology.as_str() == word).ok_or("unknown topology"))
}

/// Writes the file.
///
/// # Errors
/// [`Exit::Usage`] when the file exists, [`Exit::Internal`] when it cannot be written.
pub async fn run(context: &Context, args: &InitArgs) -> Result<Exit, Failure> {
    let text = inventory::init_template(args.topology);
    let path = args.output.as_deref().unwrap_or(&context.inventory);
    if path == Path::new("-") {
        return super::print(super::check::Outcome { text, exit: Exit::Ok });
    }
    write_new(path, &text)?;
    if context.verbosity >= 0 {
        say!("{} is written, for a `{}` platform. Edit it, then:  caravan -i {0} inventory check", path.display(), args.topology);
    }
    Ok(Exit::Ok)
}

/// Writes a file that is not there yet. What was begun and could not be finished is taken away again.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let internal =
        |error: std::io::Error| Failure::new(Exit::Internal, format!("error: {} cannot be written: {error}", path.display()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(
            Exit::Usage,
            format!("error: {} exists already and stays as it is; give another file with -o FILE", path.display()),
        ),
        _ => internal(error),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        internal(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: InitArgs,
    }

    fn context(inventory: PathBuf) -> Context {
        Context { inventory, state_dir: PathBuf::new(), format: Format::Text, color: (false, false), verbosity: -1 }
    }

    #[tokio::test]
    async fn writes_an_inventory_once_and_never_over_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fleet.yaml");
        for topology in Topology::ALL {
            let args = Typed::try_parse_from(["init", "--topology", topology.as_str()]).unwrap().args;
            assert_eq!(run(&context(path.clone()), &args).await.unwrap(), Exit::Ok);
            assert_eq!(inventory::load(&path).unwrap().fleet.platforms[0].topology, topology);
            let failure = run(&context(path.clone()), &args).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains("exists already"), "{failure}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), inventory::init_template(topology));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let args = Typed::try_parse_from(["init", "-o", directory.path().join("no/fleet.yaml").to_str().unwrap()]).unwrap().args;
        let failure = run(&context(PathBuf::new()), &args).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Internal);
        assert!(failure.message.contains("no/fleet.yaml cannot be written"), "{failure}");
    }

    #[test]
    fn topologies_are_those_of_the_inventory() {
        assert!(Typed::try_parse_from(["init", "--topology", "standart"]).is_err());
        assert_eq!(Typed::try_parse_from(["init"]).unwrap().args.topology, Topology::Standard);
    }
}
