//! BitX, the delta of ZipLLM (NSDI '26): XOR against the base's tensor, two byte
//! planes, zstd level 3 on each.
//!
//! The published layout is that of bfloat16 for every type: exponent bits in one
//! plane, sign and mantissa in the other. For wider elements [`BitX::byte_planes`]
//! splits into bytes, which is the kinder reading of the paper.

use anyhow::Result;
use zstd::zstd_safe::DCtx;

use super::frames::{FrameReader, FrameWriter};
use super::planes;
use crate::method::Method;
use crate::pair::{Layout, TensorSpan};

/// How the XOR of two tensors is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planes {
    /// Exponent byte, sign-and-mantissa byte of each 16-bit word.
    Exponent,
    /// One plane per byte of a 32-bit element; other types as `Exponent`.
    Bytes,
}

/// XOR, planes, zstd; one tensor at a time.
pub struct BitX {
    name: &'static str,
    about: &'static str,
    level: i32,
    layout: Planes,
    encoder: Option<FrameWriter>,
    decoder: DCtx<'static>,
    scratch: Vec<u8>,
}

impl BitX {
    /// The method as published, at zstd level 3.
    pub fn published() -> Self {
        Self::new(
            "bitx",
            "XOR, exponent and sign+mantissa planes, zstd -3",
            3,
            Planes::Exponent,
        )
    }

    /// As published but for the level.
    pub fn level_19() -> Self {
        Self::new(
            "bitx-19",
            "XOR, exponent and sign+mantissa planes, zstd -19",
            19,
            Planes::Exponent,
        )
    }

    /// Byte planes for 32-bit elements.
    pub fn byte_planes() -> Self {
        Self::new(
            "bitx-bytes",
            "XOR, a plane per byte (32-bit types), zstd -3",
            3,
            Planes::Bytes,
        )
    }

    fn new(name: &'static str, about: &'static str, level: i32, layout: Planes) -> Self {
        Self {
            name,
            about,
            level,
            layout,
            encoder: None,
            decoder: DCtx::create(),
            scratch: Vec::new(),
        }
    }

    fn shape(&self, tensor: &TensorSpan) -> Shape {
        let bytes = tensor.fine.len();
        match (tensor.base.is_some(), tensor.dtype.bitsize()) {
            (true, 32) if self.layout == Planes::Bytes => Shape::Four(bytes / 4),
            (true, 16..) if bytes.is_multiple_of(2) => Shape::Two(bytes / 2),
            (true, _) => Shape::Xor,
            (false, _) => Shape::Whole,
        }
    }
}

/// What is stored for one tensor, and the length of a plane.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Two(usize),
    Four(usize),
    Xor,
    Whole,
}

impl Method for BitX {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn encode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        fine: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => FrameWriter::new(self.level)?,
        };
        for tensor in &layout.tensors {
            let fine = &fine[tensor.fine.clone()];
            let base = &base[tensor.base.clone().unwrap_or(0..0)];
            let shape = self.shape(tensor);
            self.scratch.resize(self.scratch.len().max(fine.len()), 0);
            let scratch = &mut self.scratch[..fine.len()];
            match shape {
                Shape::Two(length) => {
                    let (exponent, rest) = scratch.split_at_mut(length);
                    planes::split_exponent(base, fine, exponent, rest);
                    encoder.write(exponent, out)?;
                    encoder.write(rest, out)?;
                }
                Shape::Four(length) => {
                    planes::split_bytes::<4>(base, fine, scratch);
                    for plane in scratch.chunks_exact(length.max(1)) {
                        encoder.write(plane, out)?;
                    }
                }
                Shape::Xor => {
                    planes::xor(base, fine, scratch);
                    encoder.write(scratch, out)?;
                }
                Shape::Whole => encoder.write(fine, out)?,
            }
        }
        self.encoder = Some(encoder);
        Ok(())
    }

    fn decode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        encoded: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let mut frames = FrameReader::new(encoded);
        for tensor in &layout.tensors {
            let fine = &mut out[tensor.fine.clone()];
            let base = &base[tensor.base.clone().unwrap_or(0..0)];
            let shape = self.shape(tensor);
            self.scratch.resize(self.scratch.len().max(fine.len()), 0);
            let scratch = &mut self.scratch[..fine.len()];
            match shape {
                Shape::Two(length) => {
                    let (exponent, rest) = scratch.split_at_mut(length);
                    frames.read(&mut self.decoder, exponent)?;
                    frames.read(&mut self.decoder, rest)?;
                    planes::join_exponent(base, exponent, rest, fine);
                }
                Shape::Four(length) => {
                    for plane in scratch.chunks_exact_mut(length.max(1)) {
                        frames.read(&mut self.decoder, plane)?;
                    }
                    planes::join_four(base, planes::quarters(scratch), fine);
                }
                Shape::Xor => {
                    frames.read(&mut self.decoder, scratch)?;
                    planes::xor(base, scratch, fine);
                }
                Shape::Whole => frames.read(&mut self.decoder, fine)?,
            }
        }
        Ok(())
    }
}
