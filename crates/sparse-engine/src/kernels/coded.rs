//! Rows of 8-bit activations times weights in codes.
//!
//! A weight is `scale * code + offset`; scale and offset are those of its output and its group of
//! inputs. A matrix lies in panels of sixteen outputs, each of them blocks of 32 inputs (16 where
//! groups are that short), each of these steps of four inputs. A step of a panel is
//!
//! - 32 bytes of 4-bit codes: byte `4j + i` has input `i` of output `j` in its low nibble, of
//!   output `j + 8` in its high one;
//! - or 64 bytes of 8-bit codes: byte `4j + i` is input `i` of output `j`;
//! - or 48 bytes of 6-bit codes: their low four bits as above, then 16 bytes whose byte `b` has the
//!   high two bits of bytes `b` and `b + 16` of the low nibbles, then of the high ones.
//!
//! So a register holds eight outputs, and one product with four activations in every lane does all
//! of them. Activations are rounded to 8 bits with a scale per block. Sums within a block are
//! whole numbers and the order of the others is fixed: every level gives the same bits.

use super::Level;
use super::panels::{WIDTH, f16_to_f32};

/// Inputs of a step.
pub(crate) const STEP: usize = 4;
/// Rows of activations that a kernel works on at a time.
pub(crate) const ROWS: usize = 4;

/// Codes of a matrix in panels.
#[derive(Debug)]
pub(crate) enum Codes {
    /// 0 to 15, two in a byte.
    Nibbles(Vec<u8>),
    /// -128 to 127, as bytes.
    Bytes(Vec<u8>),
    /// -32 to 31, plus 32.
    Sixes(Vec<u8>),
    /// 0 to 15, two in a byte, standing for the numbers of a table.
    Table(Vec<u8>, [i8; 16]),
}

impl Codes {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Codes::Nibbles(bytes)
            | Codes::Bytes(bytes)
            | Codes::Sixes(bytes)
            | Codes::Table(bytes, _) => bytes,
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Codes::Nibbles(bytes)
            | Codes::Bytes(bytes)
            | Codes::Sixes(bytes)
            | Codes::Table(bytes, _) => bytes,
        }
    }

    /// Bytes of a step of a panel.
    pub fn step_bytes(&self) -> usize {
        match self {
            Codes::Nibbles(_) | Codes::Table(..) => STEP * WIDTH / 2,
            Codes::Bytes(_) => STEP * WIDTH,
            Codes::Sixes(_) => STEP * WIDTH / 4 * 3,
        }
    }
}

/// Where a code is in the bytes of a matrix: its low bits, and the two above them if it has six.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub byte: usize,
    pub shift: u32,
    pub above: Option<(usize, u32)>,
}

/// A number for each group of each output, in panels: value `j` of group `g` of panel `p` is at
/// `(p * groups + g) * 16 + j`.
#[derive(Debug)]
pub(crate) enum PerGroup {
    F16(Vec<u16>),
    F32(Vec<f32>),
    /// The product of a fine number for each group and a coarse one for each `span` groups.
    Nested {
        fine: Vec<u16>,
        coarse: Vec<f32>,
        span: usize,
    },
}

impl PerGroup {
    /// Of output `lane` of panel `panel`; `groups` is how many a row has.
    pub fn at(&self, groups: usize, panel: usize, group: usize, lane: usize) -> f32 {
        let at = (panel * groups + group) * WIDTH + lane;
        match self {
            PerGroup::F16(values) => f16_to_f32(values[at]),
            PerGroup::F32(values) => values[at],
            PerGroup::Nested { fine, coarse, span } => {
                let spans = groups.div_ceil(*span);
                f16_to_f32(fine[at]) * coarse[(panel * spans + group / span) * WIDTH + lane]
            }
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            PerGroup::F16(values) => 2 * values.len(),
            PerGroup::F32(values) => 4 * values.len(),
            PerGroup::Nested { fine, coarse, .. } => 2 * fine.len() + 4 * coarse.len(),
        }
    }

    /// Whether it holds a number for each of `panels * groups` groups.
    fn covers(&self, panels: usize, groups: usize) -> bool {
        let len = panels * groups * WIDTH;
        match self {
            PerGroup::F16(values) => values.len() == len,
            PerGroup::F32(values) => values.len() == len,
            PerGroup::Nested { fine, coarse, span } => {
                let spans = groups.div_ceil((*span).max(1));
                *span > 0 && fine.len() == len && coarse.len() == panels * spans * WIDTH
            }
        }
    }
}

/// What is added to `scale * code`.
#[derive(Debug)]
pub(crate) enum Offsets {
    /// Nothing.
    None,
    /// `-zero * scale`, the zero point being the same everywhere.
    Zero(f32),
    /// `-zero * scale`.
    Zeros(PerGroup),
    /// The number itself.
    Values(PerGroup),
}

/// A matrix in codes.
#[derive(Debug)]
pub(crate) struct Panels {
    pub codes: Codes,
    /// Inputs of a block: 16 or 32.
    pub block: usize,
    /// Blocks of a row; the last one is filled up with zeros.
    pub blocks: usize,
    /// Blocks of a group; the last group of a row may have fewer.
    pub group_blocks: usize,
    pub scales: PerGroup,
    pub offsets: Offsets,
}

impl Panels {
    pub fn groups(&self) -> usize {
        self.blocks.div_ceil(self.group_blocks)
    }

    pub fn bytes(&self) -> usize {
        let offsets = match &self.offsets {
            Offsets::None | Offsets::Zero(_) => 0,
            Offsets::Zeros(values) | Offsets::Values(values) => values.bytes(),
        };
        self.codes.bytes().len() + self.scales.bytes() + offsets
    }

    /// Bytes of codes in a block of a panel.
    pub fn block_bytes(&self) -> usize {
        self.block / STEP * self.codes.step_bytes()
    }

    /// What is added to each weight of a group whose scale is `scale`.
    pub fn offset(&self, panel: usize, group: usize, lane: usize, scale: f32) -> f32 {
        let groups = self.groups();
        match &self.offsets {
            Offsets::None => 0.0,
            Offsets::Zero(zero) => -(*zero * scale),
            Offsets::Zeros(zeros) => -(zeros.at(groups, panel, group, lane) * scale),
            Offsets::Values(values) => values.at(groups, panel, group, lane),
        }
    }

    /// Where the code of an input is.
    pub fn place(&self, panel: usize, input: usize, lane: usize) -> Place {
        let step =
            panel * self.blocks * self.block_bytes() + input / STEP * self.codes.step_bytes();
        let (i, nibble) = (input % STEP, lane % 8 * STEP + input % STEP);
        let high = lane as u32 / 8;
        let mut place = Place {
            byte: step + nibble,
            shift: 4 * high,
            above: None,
        };
        match self.codes {
            Codes::Nibbles(_) | Codes::Table(..) => {}
            Codes::Bytes(_) => {
                (place.byte, place.shift) = (step + lane * STEP + i, 0);
            }
            Codes::Sixes(_) => {
                let byte = step + STEP * WIDTH / 2 + nibble % WIDTH;
                place.above = Some((byte, 4 * high + 2 * (nibble / WIDTH) as u32));
            }
        }
        place
    }

    /// The code of an input as it is stored.
    pub fn stored(&self, panel: usize, input: usize, lane: usize) -> u8 {
        let (place, bytes) = (self.place(panel, input, lane), self.codes.bytes());
        let low = bytes[place.byte] >> place.shift;
        match (&self.codes, place.above) {
            (Codes::Bytes(_), _) => low,
            (_, None) => low & 15,
            (_, Some((byte, shift))) => low & 15 | (bytes[byte] >> shift & 3) << 4,
        }
    }

    /// A code as the number that the kernels multiply.
    pub fn code(&self, panel: usize, input: usize, lane: usize) -> i32 {
        let stored = self.stored(panel, input, lane);
        match &self.codes {
            Codes::Nibbles(_) => i32::from(stored),
            Codes::Bytes(_) => i32::from(stored as i8),
            Codes::Sixes(_) => i32::from(stored) - 32,
            Codes::Table(_, table) => i32::from(table[usize::from(stored)]),
        }
    }

    fn assert_whole(&self, panel: usize) {
        assert!(matches!(self.block, 16 | 32) && self.group_blocks > 0);
        let panels = self.codes.bytes().len() / (self.blocks * self.block_bytes()).max(1);
        assert!(panel < panels && self.scales.covers(panels, self.groups()));
        assert!(match &self.offsets {
            Offsets::None | Offsets::Zero(_) => true,
            Offsets::Zeros(values) | Offsets::Values(values) =>
                values.covers(panels, self.groups()),
        });
    }
}

/// Rows of activations, rounded to 8 bits.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    /// `blocks * block` for each row.
    pub codes: Vec<i8>,
    /// One per block, row by row.
    pub scales: Vec<f32>,
    /// The sum of the rounded activations of each group, row by row; empty where nothing is added
    /// to products.
    pub sums: Vec<f32>,
}

impl Activations {
    /// Rounds one more row of `panels.blocks * panels.block` values.
    pub fn push(&mut self, level: Level, row: &[f32], panels: &Panels) {
        assert_eq!(row.len(), panels.blocks * panels.block);
        let start = self.codes.len();
        self.codes.resize(start + row.len(), 0);
        let codes = &mut self.codes[start..];
        let first = self.scales.len();
        self.scales.resize(first + panels.blocks, 0.0);
        let scales = &mut self.scales[first..];
        match level {
            Level::Scalar => round(row, panels.block, codes, scales),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Vnni => super::coded_avx2::round(row, panels.block, codes, scales),
        }
        if matches!(panels.offsets, Offsets::None) {
            return;
        }
        let blocks = codes.chunks_exact(panels.block).zip(scales.iter());
        let sums: Vec<f32> = blocks
            .map(|(codes, &scale)| {
                codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32 * scale
            })
            .collect();
        self.sums.extend(
            sums.chunks(panels.group_blocks)
                .map(|group| group.iter().sum::<f32>()),
        );
    }
}

/// Blocks of activations as codes of -127 to 127 and a scale. A number that is not finite makes
/// its block's scale NaN, so that it is seen in the end.
#[inline(always)]
pub(super) fn round(row: &[f32], block: usize, codes: &mut [i8], scales: &mut [f32]) {
    let blocks = row.chunks_exact(block).zip(codes.chunks_exact_mut(block));
    for ((values, codes), scale) in blocks.zip(scales) {
        let mut lanes = [0.0f32; 8];
        let mut poison = [0.0f32; 8];
        for eight in values.chunks_exact(8) {
            for ((lane, poison), value) in lanes.iter_mut().zip(&mut poison).zip(eight) {
                let value_abs = value.abs();
                *lane = if value_abs > *lane { value_abs } else { *lane };
                *poison += value * 0.0;
            }
        }
        let largest = lanes.iter().fold(0.0f32, |a, &b| if b > a { b } else { a });
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        *scale = largest / 127.0 + poison.iter().sum::<f32>();
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value * inverse).round_ties_even() as i8;
        }
    }
}

/// The weights of a panel as numbers, sixteen for each column of codes, into `out`; `table` has the
/// numbers that codes stand for, where they are not themselves.
pub(crate) fn widen(
    level: Level,
    panels: &Panels,
    panel: usize,
    table: Option<&[f32; 16]>,
    out: &mut [f32],
) {
    assert!(out.len() <= panels.blocks * panels.block * WIDTH);
    match level {
        Level::Scalar => widen_panel(panels, panel, table, out),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Vnni => super::coded_avx2::widen(panels, panel, table, out),
    }
}

#[inline(always)]
pub(super) fn widen_panel(
    panels: &Panels,
    panel: usize,
    table: Option<&[f32; 16]>,
    out: &mut [f32],
) {
    let groups = panels.groups();
    let step_bytes = panels.codes.step_bytes();
    let start = panel * panels.blocks * panels.block_bytes();
    let bytes = &panels.codes.bytes()[start..][..panels.blocks * panels.block_bytes()];
    let group_columns = panels.group_blocks * panels.block;
    for (group, out) in out.chunks_mut(group_columns * WIDTH).enumerate() {
        let scales: [f32; WIDTH] =
            std::array::from_fn(|lane| panels.scales.at(groups, panel, group, lane));
        let mut offsets = scales;
        for (lane, offset) in offsets.iter_mut().enumerate() {
            *offset = panels.offset(panel, group, lane, *offset);
        }
        let first = group * group_columns / STEP;
        for (at, out) in out.chunks_mut(STEP * WIDTH).enumerate() {
            let step = &bytes[(first + at) * step_bytes..][..step_bytes];
            let words = step.as_chunks::<STEP>().0;
            for (i, out) in out.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
                let numbers: [f32; WIDTH] = match (&panels.codes, table) {
                    (Codes::Bytes(_), _) => std::array::from_fn(|lane| {
                        let word = i32::from_le_bytes(words[lane]);
                        (word << (24 - 8 * i) >> 24) as f32
                    }),
                    (Codes::Sixes(_), _) => std::array::from_fn(|lane| {
                        let low = i32::from_le_bytes(words[lane % 8]) >> (8 * i + lane / 8 * 4);
                        let high = i32::from_le_bytes(words[8 + lane % 4])
                            >> (8 * i + lane / 8 * 4 + lane % 8 / 4 * 2);
                        ((low & 15 | (high & 3) << 4) - 32) as f32
                    }),
                    (_, None) => std::array::from_fn(|lane| {
                        let word = i32::from_le_bytes(words[lane % 8]);
                        (word >> (8 * i + lane / 8 * 4) & 15) as f32
                    }),
                    (_, Some(table)) => std::array::from_fn(|lane| {
                        let byte = words[lane % 8][i];
                        table[usize::from(if lane < 8 { byte & 15 } else { byte >> 4 })]
                    }),
                };
                for ((out, number), (scale, offset)) in
                    out.iter_mut().zip(numbers).zip(scales.iter().zip(&offsets))
                {
                    *out = scale * number + offset;
                }
            }
        }
    }
}

/// Scales and offsets of the groups of one panel: sixteen of each for each group.
#[derive(Debug, Default)]
pub(crate) struct PanelNumbers {
    /// `2 * 16` for each group.
    values: Vec<f32>,
}

impl PanelNumbers {
    /// Those of panel `panel`, for so many rows: one row alone takes them as they are stored.
    pub fn fill(&mut self, level: Level, panels: &Panels, panel: usize, rows: usize) {
        panels.assert_whole(panel);
        if rows == 1 && level != Level::Scalar {
            return;
        }
        self.values.resize(panels.groups() * 2 * WIDTH, 0.0);
        match level {
            Level::Scalar => numbers(panels, panel, &mut self.values),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the level says that the processor has AVX2 and F16C; the panel is whole, and
            // there is room for its groups.
            Level::Avx2 | Level::Vnni => unsafe {
                super::coded_avx2::numbers(panels, panel, &mut self.values);
            },
        }
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

fn numbers(panels: &Panels, panel: usize, out: &mut [f32]) {
    let groups = panels.groups();
    for (group, out) in out.chunks_exact_mut(2 * WIDTH).enumerate() {
        let (scales, offsets) = out.split_at_mut(WIDTH);
        for (lane, (scale, offset)) in scales.iter_mut().zip(offsets).enumerate() {
            *scale = panels.scales.at(groups, panel, group, lane);
            *offset = panels.offset(panel, group, lane, *scale);
        }
    }
}

/// `out[r][j]` = row `first + r` of `x` times output `j` of panel `panel`, whose numbers are
/// `numbers`.
///
/// # Panics
/// If there are no such rows, more than [`ROWS`], or no such panel.
pub(crate) fn multiply(
    level: Level,
    x: &Activations,
    first: usize,
    panels: &Panels,
    panel: usize,
    numbers: &PanelNumbers,
    out: &mut [[f32; WIDTH]],
) {
    let (rows, width) = (first + out.len(), panels.blocks * panels.block);
    assert!((1..=ROWS).contains(&out.len()) && x.codes.len() >= rows * width);
    assert!(x.scales.len() >= rows * panels.blocks);
    assert!(matches!(panels.offsets, Offsets::None) || x.sums.len() >= rows * panels.groups());
    let filled = numbers.values.len() == panels.groups() * 2 * WIDTH;
    assert!(filled || out.len() == 1 && level != Level::Scalar);
    panels.assert_whole(panel);
    match level {
        Level::Scalar => multiply_scalar(x, first, panels, panel, numbers, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that the processor has AVX2 and FMA; all slices are as long as
        // was just asserted.
        Level::Avx2 => unsafe {
            super::coded_avx2::multiply(x, first, panels, panel, numbers, out);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above, with AVX-512's dot products.
        Level::Vnni => unsafe {
            super::coded_avx2::multiply_vnni(x, first, panels, panel, numbers, out);
        },
    }
}

fn multiply_scalar(
    x: &Activations,
    first: usize,
    panels: &Panels,
    panel: usize,
    numbers: &PanelNumbers,
    out: &mut [[f32; WIDTH]],
) {
    let (block, blocks, groups) = (panels.block, panels.blocks, panels.groups());
    for (row, out) in (first..).zip(out) {
        let codes = &x.codes[row * blocks * block..][..blocks * block];
        let scales = &x.scales[row * blocks..][..blocks];
        for (lane, out) in out.iter_mut().enumerate() {
            let mut sum = 0.0f32;
            for (group, numbers) in numbers.values.chunks_exact(2 * WIDTH).enumerate() {
                let mut part = 0.0f32;
                let first = group * panels.group_blocks;
                let last = (first + panels.group_blocks).min(blocks);
                for (at, &own) in scales[first..last].iter().enumerate() {
                    let inputs = (first + at) * block..(first + at + 1) * block;
                    let dot: i32 = inputs
                        .map(|input| panels.code(panel, input, lane) * i32::from(codes[input]))
                        .sum();
                    part = (dot as f32).mul_add(own, part);
                }
                sum = part.mul_add(numbers[lane], sum);
                if !matches!(panels.offsets, Offsets::None) {
                    sum = x.sums[row * groups + group].mul_add(numbers[WIDTH + lane], sum);
                }
            }
            *out = sum;
        }
    }
}

#[cfg(test)]
mod tests;
