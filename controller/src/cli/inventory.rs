//! Reading the inventory.
use super::{Context, Exit, Failure};
use inventory::Fleet;

/// The fleet of the inventory.
pub fn load_fleet(context: &Context) -> Result<Fleet, Failure> {
    match inventory::load(&context.inventory) {
        Ok(loaded) => Ok(loaded.fleet),
        Err(problems) => Err(Failure::new(Exit::Usage, problems.render(context.color.1))),
    }
}
