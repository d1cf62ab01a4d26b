//! What the fuzz targets share: reading their input, and a base to decode against.

use sparse_checkpoint::{Checkpoint, Dtype, Error, TensorSpec, WriteOptions, write_shards};
use sparse_codec::Layout;
use tempfile::TempDir;

/// Takes the input apart.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// The next two bytes as a number.
    pub fn number(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    /// A part that starts with its length.
    pub fn part(&mut self) -> &'a [u8] {
        let len = self.number().min(self.0.len());
        self.0.split_off(..len).unwrap_or_default()
    }
}

/// Puts a part that [`Input::part`] takes.
pub fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u16).to_le_bytes());
    out.extend_from_slice(part);
}

/// One of the layouts, some with low bits left out.
pub fn layout(byte: u8) -> Layout {
    match byte % 6 {
        0 => Layout::BF16,
        1 => Layout::F16,
        2 => Layout::F32,
        3 => Layout::F8_E4M3,
        4 => Layout::F8_E5M2,
        _ => Layout::F32.with_shift(16).unwrap_or(Layout::F32),
    }
}

/// Words that look like weights, the same every time.
pub fn words(layout: Layout, len: usize) -> Vec<u32> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = (f32::from((state >> 16) as u16) - 32768.0) * 1e-6;
            let single = value.to_bits();
            match layout.bits() {
                32 if layout.shift() > 0 => single >> 16 << 16,
                32 => single,
                16 => single >> 16,
                _ => single >> 24,
            }
        })
        .collect()
}

/// The words as bytes.
pub fn bytes(layout: Layout, words: &[u32]) -> Vec<u8> {
    let each = layout.bytes();
    words
        .iter()
        .flat_map(|w| w.to_le_bytes()[..each].to_vec())
        .collect()
}

/// The specs of the base that artifacts are decoded against.
pub fn specs() -> Vec<(TensorSpec, Layout)> {
    vec![
        (TensorSpec::new("a", Dtype::BF16, [20, 30]), Layout::BF16),
        (TensorSpec::new("b", Dtype::F32, [100]), Layout::F32),
        (
            TensorSpec::new("c", Dtype::F8_E4M3, [4, 8]),
            Layout::F8_E4M3,
        ),
        (TensorSpec::new("d", Dtype::U8, [32]), Layout::F8_E5M2),
    ]
}

/// Writes a checkpoint with [`specs`], each word XORed with one chosen by `change`.
pub fn checkpoint(change: impl Fn(usize) -> u32) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let of = specs();
    let specs: Vec<TensorSpec> = of.iter().map(|s| s.0.clone()).collect();
    write_shards(dir.path(), &specs, &WriteOptions::default(), |spec, out| {
        let layout = of
            .iter()
            .find(|s| s.0.name == spec.name)
            .map_or(Layout::F32, |s| s.1);
        let mut words = words(layout, spec.shape.iter().product::<u64>() as usize);
        words
            .iter_mut()
            .enumerate()
            .for_each(|(i, w)| *w ^= change(i));
        out.write_all(&bytes(layout, &words))?;
        Ok::<(), Error>(())
    })
    .expect("a checkpoint");
    std::fs::write(dir.path().join("config.json"), [b'x', change(0) as u8]).expect("a file");
    dir
}

/// The base, for as long as the process runs.
pub fn base() -> (TempDir, Checkpoint) {
    let dir = checkpoint(|_| 0);
    let base = Checkpoint::open(dir.path()).expect("a base");
    (dir, base)
}
