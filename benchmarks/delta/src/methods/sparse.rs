//! Sparse itself, on data in memory: what `sparse delta` does between reading and writing.
//!
//! As for every method, names, shapes and digests are not counted; tables, scales and low-rank
//! factors are. The size of the whole artifact is a row of its own.

use anyhow::{Context, Result};
use safetensors::Dtype;
use sparse_codec::{
    Encoder, Fitter, Layout as Format, LowRank, Model, Reader, Sampling, Scales, Scratch, TableSet,
    Word, decode, encode_full, put_varint,
};

use sparse_delta::Effort;

use crate::method::Method;
use crate::pair::{Layout, TensorSpan};

/// Weights in a chunk, at most.
const CHUNK: usize = 1 << 18;
/// Most components of a prediction that is not exact.
const MOST: usize = 32;

/// `sparse delta` at one of its efforts.
pub struct Sparse {
    name: &'static str,
    about: &'static str,
    effort: Effort,
    scratch: Scratch,
}

impl Sparse {
    /// `--effort fastest`.
    pub fn fastest() -> Self {
        Self {
            name: "sparse-fastest",
            about: "steps given the steps expected, rank codes",
            effort: Effort::Fastest,
            scratch: Scratch::default(),
        }
    }

    /// `--effort fast`.
    pub fn fast() -> Self {
        Self {
            name: "sparse-fast",
            about: "steps given the steps expected, rANS",
            effort: Effort::Fast,
            scratch: Scratch::default(),
        }
    }

    /// `--effort high`, the default.
    pub fn high() -> Self {
        Self {
            name: "sparse",
            about: "the same on top of low-rank predictions of every matrix",
            effort: Effort::High,
            scratch: Scratch::default(),
        }
    }
}

impl Method for Sparse {
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
        let effort = self.effort;
        match layout.main_dtype() {
            Dtype::F32 => encode::<u32>(Format::F32, Dtype::F32, effort, layout, base, fine, out),
            Dtype::F16 => encode::<u16>(Format::F16, Dtype::F16, effort, layout, base, fine, out),
            _ => encode::<u16>(Format::BF16, Dtype::BF16, effort, layout, base, fine, out),
        }
    }

    fn decode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        encoded: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let scratch = &mut self.scratch;
        match layout.main_dtype() {
            Dtype::F32 => {
                decode_all::<u32>(Format::F32, Dtype::F32, layout, base, encoded, scratch, out)
            }
            Dtype::F16 => {
                decode_all::<u16>(Format::F16, Dtype::F16, layout, base, encoded, scratch, out)
            }
            _ => decode_all::<u16>(
                Format::BF16,
                Dtype::BF16,
                layout,
                base,
                encoded,
                scratch,
                out,
            ),
        }
    }
}

/// Words of a tensor, in place where they are aligned.
fn words<W: Word + bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    bytes: &[u8],
) -> std::borrow::Cow<'_, [W]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(words) => words.into(),
        Err(_) => bytemuck::pod_collect_to_vec(bytes).into(),
    }
}

fn width(tensor: &TensorSpan) -> usize {
    tensor.shape.last().copied().unwrap_or(1)
}

fn is_coded(tensor: &TensorSpan, dtype: Dtype) -> bool {
    tensor.dtype == dtype && tensor.base.is_some()
}

fn encode<W: Word + bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    format: Format,
    dtype: Dtype,
    effort: Effort,
    layout: &Layout,
    base: &[u8],
    fine: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let high = effort == Effort::High;
    // Low-rank changes first: scales and tables are fitted to what they leave.
    let mut predictions: Vec<Option<(LowRank, Vec<W>)>> = Vec::new();
    for tensor in &layout.tensors {
        predictions.push(predict(format, dtype, high, tensor, base, fine));
    }
    let total = layout.weights() as u64;
    let sampling = if high {
        Sampling::thorough(total)
    } else {
        Sampling::quick(total)
    };
    let fitter = || match effort {
        Effort::High => Fitter::new(format),
        Effort::Fast => Fitter::new(format).without_columns(),
        Effort::Fastest => Fitter::new(format).without_columns().ranked(),
    };
    let mut fitters = [fitter(), fitter()];
    for (tensor, predicted) in layout.tensors.iter().zip(&predictions) {
        let Some(range) = tensor.base.clone().filter(|_| is_coded(tensor, dtype)) else {
            continue;
        };
        let (b, f) = (
            words::<W>(&base[range]),
            words::<W>(&fine[tensor.fine.clone()]),
        );
        let b = predicted.as_ref().map_or(&*b, |p| &p.1);
        let segment = Scales::segment_for(width(tensor));
        let runs = sampling.starts(b.len() as u64, width(tensor)).map(|start| {
            let start = start as usize;
            let end = (start + segment).min(b.len());
            (start, &b[start..end], &f[start..end])
        });
        fitters[usize::from(predicted.is_some())].add(width(tensor), b.len() as u64, runs);
    }
    let fits = fitters.map(Fitter::fit);
    let mut encoders = fits.each_ref().map(|fit| Encoder::new(format, fit));
    let mut next = [0; 2];
    for fit in &fits {
        fit.tables.write(out);
    }
    let mut chunk_bytes = Vec::new();
    for (tensor, predicted) in layout.tensors.iter().zip(&predictions) {
        let range = tensor.base.clone().filter(|_| is_coded(tensor, dtype));
        let Some(range) = range else {
            let bytes = &fine[tensor.fine.clone()];
            if tensor.dtype == dtype {
                let segment = Scales::segment_for(width(tensor));
                for part in words::<W>(bytes).chunks(CHUNK / segment * segment) {
                    chunk_bytes.clear();
                    encode_full(format, segment, part, &mut chunk_bytes);
                    put(&chunk_bytes, out);
                }
            } else {
                put(&zstd::bulk::compress(bytes, 3)?, out);
            }
            continue;
        };
        let (b, f) = (
            words::<W>(&base[range]),
            words::<W>(&fine[tensor.fine.clone()]),
        );
        let b = predicted.as_ref().map_or(&*b, |p| &p.1);
        let which = usize::from(predicted.is_some());
        let scales = &fits[which].scales[next[which]];
        next[which] += 1;
        out.push(which as u8);
        scales.write(out);
        if let Some((low_rank, _)) = predicted {
            low_rank.write(out);
        }
        let chunk = CHUNK / scales.segment() * scales.segment();
        for start in (0..f.len()).step_by(chunk) {
            let end = (start + chunk).min(f.len());
            chunk_bytes.clear();
            encoders[which].encode(
                scales,
                start,
                &b[start..end],
                &f[start..end],
                &mut chunk_bytes,
            );
            put(&chunk_bytes, out);
        }
    }
    Ok(())
}

fn put(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn predict<W: Word + bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    format: Format,
    dtype: Dtype,
    high: bool,
    tensor: &TensorSpan,
    base: &[u8],
    fine: &[u8],
) -> Option<(LowRank, Vec<W>)> {
    let range = tensor
        .base
        .clone()
        .filter(|_| high && is_coded(tensor, dtype))?;
    let &[rows, cols] = tensor.shape.as_slice() else {
        return None;
    };
    if rows < 32 || cols < 32 {
        return None;
    }
    let (b, f) = (
        words::<W>(&base[range]),
        words::<W>(&fine[tensor.fine.clone()]),
    );
    let found = LowRank::find(format, (rows, cols), &b, &f, &|| false).or_else(|| {
        (W::BITS == 16)
            .then(|| LowRank::fit(format, (rows, cols), &b, &f, MOST, &|| false))
            .flatten()
    })?;
    let mut predicted = vec![W::default(); b.len()];
    found.predict(format, 0, &b, &mut predicted);
    Some((found, predicted))
}

fn decode_all<W: Word + bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    format: Format,
    dtype: Dtype,
    layout: &Layout,
    base: &[u8],
    encoded: &[u8],
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<()> {
    let mut reader = Reader::new(encoded, "benchmark");
    let tables = [TableSet::read(&mut reader)?, TableSet::read(&mut reader)?];
    let mut predicted = vec![W::default(); CHUNK].into_boxed_slice();
    let mut rebuilt = vec![W::default(); CHUNK].into_boxed_slice();
    for tensor in &layout.tensors {
        let to = &mut out[tensor.fine.clone()];
        let range = tensor.base.clone().filter(|_| is_coded(tensor, dtype));
        let each = W::BITS as usize / 8;
        let Some(range) = range else {
            if tensor.dtype == dtype {
                let segment = Scales::segment_for(width(tensor));
                let model_scales = Scales::flat(width(tensor));
                let model = Model::new(format, &tables[0], &model_scales);
                for part in to.chunks_mut(CHUNK / segment * segment * each) {
                    let bytes = take(&mut reader)?;
                    let words = &mut rebuilt[..part.len() / each];
                    decode(&model, 0, &[], bytes, scratch, words)?;
                    part.copy_from_slice(bytemuck::cast_slice(words));
                }
            } else {
                zstd::bulk::decompress_to_buffer(take(&mut reader)?, to)
                    .context("a tensor of another type")?;
            }
            continue;
        };
        let which = usize::from(reader.u8()? == 1);
        let scales = Scales::read(&mut reader, width(tensor))?;
        let low_rank = match (which, tensor.shape.as_slice()) {
            (1, &[rows, cols]) => Some(LowRank::read(&mut reader, rows, cols)?),
            _ => None,
        };
        let model = Model::new(format, &tables[which], &scales);
        let b = words::<W>(&base[range]);
        let chunk = CHUNK / scales.segment() * scales.segment();
        for (number, part) in to.chunks_mut(chunk * each).enumerate() {
            let start = number * chunk;
            let len = part.len() / each;
            let mut from = &b[start..start + len];
            if let Some(low_rank) = &low_rank {
                low_rank.predict(format, start, from, &mut predicted[..len]);
                from = &predicted[..len];
            }
            let bytes = take(&mut reader)?;
            match bytemuck::try_cast_slice_mut(part) {
                Ok(words) => decode(&model, start, from, bytes, scratch, words)?,
                Err(_) => {
                    decode(&model, start, from, bytes, scratch, &mut rebuilt[..len])?;
                    part.copy_from_slice(bytemuck::cast_slice(&rebuilt[..len]));
                }
            }
        }
    }
    Ok(reader.finish()?)
}

fn take<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let len = reader.length("chunk", reader.remaining())?;
    Ok(reader.take(len)?)
}
