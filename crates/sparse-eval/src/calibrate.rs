//! Running a text through a model for what goes into its layers.

use sparse_engine::{Model, Statistics};

use crate::measure::inputs;
use crate::protocol::Plan;
use crate::{Error, Progress};

/// Adds the inputs of every layer, over the windows of a plan, to `statistics`.
///
/// # Errors
/// If the model fails, or the caller asks to stop.
pub fn calibrate(
    model: &Model,
    plan: &Plan,
    statistics: &mut Statistics,
    progress: &dyn Progress,
) -> Result<(), Error> {
    for batch in plan.batches() {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        model.run(&inputs(batch), Some(statistics))?;
        progress.advance(
            batch
                .iter()
                .map(|window| window.tokens.len() as u64 - 1)
                .sum(),
        );
    }
    Ok(())
}
