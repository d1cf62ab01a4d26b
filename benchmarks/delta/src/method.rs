//! What a delta method is to this benchmark: bytes in, bytes out.

use anyhow::Result;

use crate::pair::Layout;

/// A lossless method over tensor data that is already in memory, on one thread.
///
/// Methods are given reused output buffers and may keep contexts and scratch space
/// in `self`, so that what is timed is the coding and not the allocator.
pub trait Method {
    /// Short name for tables and `--methods`.
    fn name(&self) -> &'static str;

    /// One line that says what is coded and how.
    fn about(&self) -> &'static str;

    /// Appends the encoded fine-tune to `out`, which comes empty.
    fn encode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        fine: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// Rebuilds the fine-tune into `out`, which has its size.
    fn decode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        encoded: &[u8],
        out: &mut [u8],
    ) -> Result<()>;
}
