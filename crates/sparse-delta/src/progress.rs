//! How long work tells its caller how far it is, and is told to stop.

/// Receives progress; the library itself prints nothing.
pub trait Progress: Sync {
    /// A phase begins that will handle `bytes` bytes.
    fn start(&self, phase: &'static str, bytes: u64) {
        let _ = (phase, bytes);
    }

    /// So many bytes more are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether to give up; asked between chunks.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Ignores progress and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Counts bytes, and fails once the caller has asked to stop.
pub(crate) fn step(progress: &dyn Progress, bytes: u64) -> Result<(), crate::Error> {
    if progress.cancelled() {
        return Err(crate::Error::Interrupted);
    }
    progress.advance(bytes);
    Ok(())
}
