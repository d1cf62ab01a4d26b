//! `zstd --patch-from`: the base is a prefix that matches may reach back into.

use anyhow::{Result, ensure};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, compress_bound};

use super::frames::zstd_error;
use crate::method::Method;
use crate::pair::Layout;

/// The window that the command line can decode with `--long=31`.
const LARGEST_WINDOW_LOG: u32 = 31;

/// One zstd frame over all tensor data with the whole base as its prefix, a window
/// that spans both, and long-distance matching, as the command line sets them.
pub struct PatchFrom {
    name: &'static str,
    about: &'static str,
    level: i32,
}

impl PatchFrom {
    /// `zstd -3 --patch-from`.
    pub fn level_3() -> Self {
        Self {
            name: "patch-3",
            about: "zstd -3 --patch-from=base --long",
            level: 3,
        }
    }

    /// `zstd -19 --patch-from`.
    pub fn level_19() -> Self {
        Self {
            name: "patch-19",
            about: "zstd -19 --patch-from=base --long",
            level: 19,
        }
    }
}

/// The smallest window that holds the base and the fine-tune.
fn window_log(base: &[u8], fine_len: usize) -> u32 {
    let span = (base.len() + fine_len).max(1 << 10);
    span.next_power_of_two()
        .trailing_zeros()
        .min(LARGEST_WINDOW_LOG)
}

impl Method for PatchFrom {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn encode(&mut self, _: &Layout, base: &[u8], fine: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let mut encoder = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(self.level),
            CParameter::WindowLog(window_log(base, fine.len())),
            CParameter::EnableLongDistanceMatching(true),
        ] {
            encoder.set_parameter(parameter).map_err(zstd_error)?;
        }
        encoder.ref_prefix(base).map_err(zstd_error)?;
        out.reserve(compress_bound(fine.len()));
        encoder.compress2(out, fine).map_err(zstd_error)?;
        Ok(())
    }

    fn decode(&mut self, _: &Layout, base: &[u8], encoded: &[u8], out: &mut [u8]) -> Result<()> {
        let mut decoder = DCtx::create();
        let window = DParameter::WindowLogMax(window_log(base, out.len()));
        decoder.set_parameter(window).map_err(zstd_error)?;
        decoder.ref_prefix(base).map_err(zstd_error)?;
        let size = decoder.decompress(out, encoded).map_err(zstd_error)?;
        ensure!(
            size == out.len(),
            "zstd gave {size} bytes, expected {}",
            out.len()
        );
        Ok(())
    }
}
