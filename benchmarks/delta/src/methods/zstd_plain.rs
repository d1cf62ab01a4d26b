//! zstd on the fine-tune alone.

use anyhow::{Result, ensure};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

use super::frames::zstd_error;
use crate::method::Method;
use crate::pair::Layout;

/// One zstd frame over all tensor data; the base is not used.
pub struct ZstdPlain {
    name: &'static str,
    about: &'static str,
    level: i32,
    encoder: CCtx<'static>,
    decoder: DCtx<'static>,
}

impl ZstdPlain {
    /// `zstd -3`.
    pub fn level_3() -> Self {
        Self::new("zstd-3", "zstd -3 on the fine-tune alone", 3)
    }

    /// `zstd -19`.
    pub fn level_19() -> Self {
        Self::new("zstd-19", "zstd -19 on the fine-tune alone", 19)
    }

    fn new(name: &'static str, about: &'static str, level: i32) -> Self {
        Self {
            name,
            about,
            level,
            encoder: CCtx::create(),
            decoder: DCtx::create(),
        }
    }
}

impl Method for ZstdPlain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn encode(&mut self, _: &Layout, _: &[u8], fine: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let level = CParameter::CompressionLevel(self.level);
        self.encoder.set_parameter(level).map_err(zstd_error)?;
        out.reserve(compress_bound(fine.len()));
        self.encoder.compress2(out, fine).map_err(zstd_error)?;
        Ok(())
    }

    fn decode(&mut self, _: &Layout, _: &[u8], encoded: &[u8], out: &mut [u8]) -> Result<()> {
        let size = self.decoder.decompress(out, encoded).map_err(zstd_error)?;
        ensure!(
            size == out.len(),
            "zstd gave {size} bytes, expected {}",
            out.len()
        );
        Ok(())
    }
}
