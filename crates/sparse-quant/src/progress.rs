//! How long work tells its caller how far it is, and is told to stop.

/// Receives progress; the library itself prints nothing.
pub trait Progress: Sync {
    /// Of `total` weights of the model, `done` have been handled in this stage.
    fn step(&self, stage: &str, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Whether to give up; asked between layers.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Ignores progress and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
