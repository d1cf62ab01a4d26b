//! Length-prefixed zstd frames, one after the other: what per-tensor methods write.

use anyhow::{Context, Result, anyhow, ensure};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// Turns zstd's error code into an error.
pub fn zstd_error(code: usize) -> anyhow::Error {
    anyhow!("zstd: {}", get_error_name(code))
}

/// Appends frames to a buffer.
pub struct FrameWriter {
    context: CCtx<'static>,
    frame: Vec<u8>,
}

impl FrameWriter {
    /// A writer at a compression level.
    pub fn new(level: i32) -> Result<Self> {
        let mut context = CCtx::create();
        context
            .set_parameter(CParameter::CompressionLevel(level))
            .map_err(zstd_error)?;
        context
            .set_parameter(CParameter::ContentSizeFlag(true))
            .map_err(zstd_error)?;
        Ok(Self {
            context,
            frame: Vec::new(),
        })
    }

    /// Compresses `data` to the end of `out`.
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.frame.clear();
        self.frame.reserve(compress_bound(data.len()));
        let size = self
            .context
            .compress2(&mut self.frame, data)
            .map_err(zstd_error)?;
        debug_assert_eq!(size, self.frame.len());
        write_bytes(&self.frame, out)?;
        Ok(())
    }
}

/// Appends bytes that are compressed already.
pub fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let length = u32::try_from(bytes.len()).context("a frame is larger than 4 GiB")?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Reads frames in the order in which they were written.
pub struct FrameReader<'a> {
    rest: &'a [u8],
}

impl<'a> FrameReader<'a> {
    /// Starts at the first frame.
    pub fn new(encoded: &'a [u8]) -> Self {
        Self { rest: encoded }
    }

    /// The next frame's bytes, still compressed.
    pub fn next_bytes(&mut self) -> Result<&'a [u8]> {
        let (length, rest) = self
            .rest
            .split_first_chunk::<4>()
            .context("input is truncated")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (frame, rest) = rest
            .split_at_checked(length)
            .context("input is truncated")?;
        self.rest = rest;
        Ok(frame)
    }

    /// Decompresses the next frame into exactly `out`.
    pub fn read(&mut self, context: &mut DCtx<'_>, out: &mut [u8]) -> Result<()> {
        let frame = self.next_bytes()?;
        let size = context.decompress(out, frame).map_err(zstd_error)?;
        ensure!(
            size == out.len(),
            "a frame holds {size} bytes, expected {}",
            out.len()
        );
        Ok(())
    }
}
