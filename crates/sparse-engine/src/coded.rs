//! A linear layer whose weights stay codes: 4 or 8 bits with scales for groups of inputs.

use std::ops::Range;

use crate::kernels::Level;
use crate::kernels::coded::{self, Offsets, PanelNumbers, Panels, PerGroup, ROWS, STEP};
use crate::kernels::panels::{Values, WIDTH};
use crate::linear::{Dense, Linear, Prepared, Rows};

/// How activations meet weights in codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// As they are; weights become numbers a tile at a time. What an artifact is worth is measured
    /// so.
    F32,
    /// Rounded to 8 bits with a scale for each 32 of a row: products of whole numbers, several
    /// times as fast.
    Int8,
}

/// Codes of a matrix, row by row, one in a byte.
#[derive(Clone, Copy, Debug)]
pub enum CodedWeights<'a> {
    /// 0 to 15.
    Unsigned4(&'a [u8]),
    /// -128 to 127.
    Signed8(&'a [i8]),
    /// 0 to 15, standing for sixteen numbers between -1 and 1.
    Table4(&'a [u8], &'a [f32; 16]),
}

/// A number for each group of each output: groups of the first output, of the second, ...
#[derive(Clone, Copy, Debug)]
pub enum GroupNumbers<'a> {
    /// As they are. Stored in half precision where that holds every one of them exactly.
    Plain(&'a [f32]),
    /// Each a product: a fine number, exact in half precision, for each group, and a coarse one
    /// for each `span` groups of an output.
    Nested {
        /// One per group.
        fine: &'a [f32],
        /// One per span.
        coarse: &'a [f32],
        /// Groups of a span.
        span: usize,
    },
}

/// What makes a weight of `scale * code` besides the scale.
#[derive(Clone, Copy, Debug)]
pub enum GroupOffsets<'a> {
    /// Nothing.
    None,
    /// `scale * (code - zero)`, one zero point everywhere.
    Zero(f32),
    /// `scale * (code - zero)`.
    Zeros(GroupNumbers<'a>),
    /// `scale * code + offset`.
    Values(GroupNumbers<'a>),
}

/// A matrix in codes, as a checkpoint has it.
#[derive(Clone, Copy, Debug)]
pub struct CodedMatrix<'a> {
    /// Number of outputs (N).
    pub outputs: usize,
    /// Number of inputs (K).
    pub inputs: usize,
    /// Inputs of a group; the last one of a row may have fewer.
    pub group: usize,
    /// `outputs * inputs` codes.
    pub codes: CodedWeights<'a>,
    /// One per output and group.
    pub scales: GroupNumbers<'a>,
    /// One per output and group.
    pub offsets: GroupOffsets<'a>,
    /// Input `order[i]` is the one that column `i` of the codes belongs to, where columns were
    /// sorted into groups (GPTQ's act-order); a permutation.
    pub order: Option<&'a [u32]>,
}

/// A linear layer that multiplies codes as they are.
#[derive(Debug)]
pub struct Coded {
    panels: Panels,
    inputs: usize,
    outputs: usize,
    /// The numbers that codes stand for, where they are not themselves.
    table: Option<[f32; 16]>,
    /// What the integers of the kernel's table are multiplied by.
    unit: f32,
    order: Option<Vec<u32>>,
    activations: Activations,
    /// From this magnitude on, an activation meets its weights in f32 whatever the others do.
    outlier: f32,
    level: Level,
}

impl Coded {
    /// Lays a matrix out for the kernels, or `None` where its groups are not whole blocks of 16
    /// inputs, or slices are not as long as the shape needs.
    pub fn new(matrix: CodedMatrix<'_>, activations: Activations) -> Option<Coded> {
        let (outputs, inputs) = (matrix.outputs, matrix.inputs);
        let group = matrix.group.min(inputs);
        let block = match group {
            0 => return None,
            _ if group == inputs || group.is_multiple_of(32) => 32,
            _ if group.is_multiple_of(16) => 16,
            _ => return None,
        };
        let (groups, panels) = (inputs.div_ceil(group), outputs.div_ceil(WIDTH));
        let blocks = inputs.div_ceil(block);
        let size = panels.checked_mul(WIDTH)?.checked_mul(blocks * block)?;
        let (codes, table, unit) = match matrix.codes {
            CodedWeights::Unsigned4(_) => (coded::Codes::Nibbles(vec![0; size / 2]), None, 1.0),
            CodedWeights::Signed8(codes) if six_bits(codes) => {
                (coded::Codes::Sixes(vec![0; size / 4 * 3]), None, 1.0)
            }
            CodedWeights::Signed8(_) => (coded::Codes::Bytes(vec![0; size]), None, 1.0),
            CodedWeights::Table4(_, table) => {
                let (integers, unit) = whole_table(table);
                let codes = coded::Codes::Table(vec![0; size / 2], integers);
                (codes, Some(*table), unit)
            }
        };
        let lay = |numbers| lay(numbers, outputs, groups);
        let mut panels = Panels {
            codes,
            block,
            blocks,
            group_blocks: group.div_ceil(block),
            scales: lay(matrix.scales)?,
            offsets: match matrix.offsets {
                GroupOffsets::None => Offsets::None,
                GroupOffsets::Zero(zero) => Offsets::Zero(zero),
                GroupOffsets::Zeros(zeros) => Offsets::Zeros(lay(zeros)?),
                GroupOffsets::Values(values) => Offsets::Values(lay(values)?),
            },
        };
        match matrix.codes {
            CodedWeights::Unsigned4(codes) | CodedWeights::Table4(codes, _) => {
                fill(&mut panels, codes, inputs, outputs, |code| code & 15)?;
            }
            CodedWeights::Signed8(codes) if matches!(panels.codes, coded::Codes::Sixes(_)) => {
                fill(&mut panels, codes, inputs, outputs, |code| {
                    (code + 32) as u8
                })?;
            }
            CodedWeights::Signed8(codes) => {
                fill(&mut panels, codes, inputs, outputs, |code| code as u8)?;
            }
        }
        let order = match matrix.order {
            Some(order) if is_permutation(order, inputs) => Some(order.to_vec()),
            Some(_) => return None,
            None => None,
        };
        Some(Coded {
            panels,
            inputs,
            outputs,
            table,
            unit,
            order,
            activations,
            outlier: f32::INFINITY,
            level: Level::detect(),
        })
    }

    /// Lets activations of this magnitude and more meet their weights in f32: LLM.int8's outliers.
    #[must_use]
    pub fn with_outliers(self, magnitude: f32) -> Coded {
        Coded {
            outlier: magnitude,
            ..self
        }
    }

    /// The input of column `column` of the codes.
    fn input(&self, column: usize) -> usize {
        self.order
            .as_ref()
            .map_or(column, |order| order[column] as usize)
    }

    /// Scale and offset of a group of an output.
    fn group(&self, output: usize, group: usize) -> (f32, f32) {
        let (panel, lane) = (output / WIDTH, output % WIDTH);
        let scale = self
            .panels
            .scales
            .at(self.panels.groups(), panel, group, lane);
        (scale, self.panels.offset(panel, group, lane, scale))
    }

    /// What a code is multiplied by the scale for.
    fn number(&self, output: usize, column: usize) -> f32 {
        let (panel, lane) = (output / WIDTH, output % WIDTH);
        match &self.table {
            Some(table) => table[usize::from(self.panels.stored(panel, column, lane))],
            None => self.panels.code(panel, column, lane) as f32,
        }
    }

    /// Hands out the weights of an output, input by input.
    fn each_weight(&self, output: usize, mut give: impl FnMut(usize, f32)) {
        let group_inputs = self.panels.group_blocks * self.panels.block;
        for start in (0..self.inputs).step_by(group_inputs) {
            let (scale, offset) = self.group(output, start / group_inputs);
            for column in start..(start + group_inputs).min(self.inputs) {
                let weight = scale * self.number(output, column) + offset;
                give(self.input(column), weight);
            }
        }
    }

    /// Weights as numbers, in the panels of a plain layer.
    fn dense(&self, outputs: Range<usize>) -> Dense {
        let panel_len = self.inputs * WIDTH;
        let panels = outputs.start / WIDTH..outputs.end.div_ceil(WIDTH);
        let mut values = vec![0.0; panels.len() * panel_len];
        let mut sorted = vec![0.0; if self.order.is_some() { panel_len } else { 0 }];
        for (panel, values) in panels.zip(values.chunks_exact_mut(panel_len)) {
            let table = self.table.as_ref();
            let Some(order) = &self.order else {
                coded::widen(self.level, &self.panels, panel, table, values);
                continue;
            };
            coded::widen(self.level, &self.panels, panel, table, &mut sorted);
            for (sixteen, &input) in sorted.chunks_exact(WIDTH).zip(order) {
                values[input as usize * WIDTH..][..WIDTH].copy_from_slice(sixteen);
            }
        }
        Dense::new(Values::F32(values), self.inputs, outputs.len())
    }

    fn add_outliers(&self, prepared: &Prepared, outputs: Range<usize>, out: &mut [f32]) {
        let group_inputs = self.panels.group_blocks * self.panels.block;
        let width = outputs.len();
        for outlier in &prepared.outliers {
            let out = &mut out[outlier.row * width..][..width];
            for (out, output) in out.iter_mut().zip(outputs.clone()) {
                let (scale, offset) = self.group(output, outlier.column / group_inputs);
                let weight = scale * self.number(output, outlier.column) + offset;
                *out += outlier.value * weight;
            }
        }
    }
}

impl Linear for Coded {
    fn tile_rows(&self) -> usize {
        192
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn bytes(&self) -> usize {
        self.panels.bytes() + self.order.as_ref().map_or(0, |order| 4 * order.len())
    }

    fn rounds(&self) -> bool {
        self.activations == Activations::Int8
    }

    fn prepare(&self, rows: Rows<'_>, prepared: &mut Prepared) {
        if self.activations == Activations::F32 {
            return;
        }
        let mut padded = vec![0.0; self.panels.blocks * self.panels.block];
        for at in 0..rows.count() {
            let row = rows.row(at);
            match &self.order {
                None => padded[..self.inputs].copy_from_slice(row),
                Some(order) => {
                    for (value, &input) in padded.iter_mut().zip(order) {
                        *value = row[input as usize];
                    }
                }
            }
            if self.outlier.is_finite() {
                for (column, value) in padded.iter_mut().enumerate() {
                    if value.abs() >= self.outlier {
                        prepared.outliers.push(Outlier {
                            row: at,
                            column,
                            value: *value,
                        });
                        *value = 0.0;
                    }
                }
            }
            prepared.activations.push(self.level, &padded, &self.panels);
        }
        if self.table.is_some() {
            for scale in &mut prepared.activations.scales {
                *scale *= self.unit;
            }
        }
    }

    fn tile(&self, rows: Rows<'_>, prepared: &Prepared, outputs: Range<usize>, out: &mut [f32]) {
        let width = outputs.len();
        if self.activations == Activations::F32 {
            self.dense(outputs).tile(rows, prepared, 0..width, out);
            return;
        }
        let mut numbers = PanelNumbers::default();
        for panel in outputs.start / WIDTH..outputs.end.div_ceil(WIDTH) {
            numbers.fill(self.level, &self.panels, panel, rows.count());
            let begin = panel * WIDTH - outputs.start;
            let lanes = WIDTH.min(width - begin);
            for first in (0..rows.count()).step_by(ROWS) {
                let mut results = [[0.0; WIDTH]; ROWS];
                let results = &mut results[..ROWS.min(rows.count() - first)];
                let x = &prepared.activations;
                coded::multiply(self.level, x, first, &self.panels, panel, &numbers, results);
                for (row, results) in (first..).zip(results) {
                    out[row * width + begin..][..lanes].copy_from_slice(&results[..lanes]);
                }
            }
        }
        self.add_outliers(prepared, outputs, out);
    }

    fn weights(&self, output: usize, out: &mut [f32]) {
        self.each_weight(output, |input, weight| out[input] = weight);
    }
}

/// An activation that is multiplied in f32.
#[derive(Debug)]
pub(crate) struct Outlier {
    row: usize,
    column: usize,
    value: f32,
}

fn is_permutation(order: &[u32], len: usize) -> bool {
    let mut seen = vec![false; len];
    order.len() == len
        && order.iter().all(|&input| {
            let fresh = seen.get_mut(input as usize).filter(|seen| !**seen);
            fresh.map(|seen| *seen = true).is_some()
        })
}

/// Sixteen numbers as whole ones of at most 127 times a unit: the unit at which the squares of
/// the differences, taken relative to the largest number, are least.
fn whole_table(table: &[f32; 16]) -> ([i8; 16], f32) {
    let largest = table
        .iter()
        .fold(0.0f32, |max, v| max.max(v.abs()))
        .max(1e-30);
    let round = |unit: f32| table.map(|value| (value / unit).round().clamp(-127.0, 127.0));
    let error = |unit: f32| -> f32 {
        let rounded = round(unit);
        let off = table.iter().zip(rounded).map(|(v, r)| v - r * unit);
        off.map(|off| off * off).sum()
    };
    let units = (0..=2048).map(|step| largest / (127.0 - step as f32 / 64.0));
    let unit = units
        .min_by(|&a, &b| error(a).total_cmp(&error(b)))
        .unwrap_or(largest / 127.0);
    (round(unit).map(|value| value as i8), unit)
}

/// Numbers of groups in panels.
fn lay(numbers: GroupNumbers<'_>, outputs: usize, groups: usize) -> Option<PerGroup> {
    let panels = |values: &[f32], count: usize| {
        let mut out = vec![0.0f32; outputs.div_ceil(WIDTH) * count * WIDTH];
        for (output, row) in values.chunks_exact(count).enumerate() {
            for (group, &value) in row.iter().enumerate() {
                out[(output / WIDTH * count + group) * WIDTH + output % WIDTH] = value;
            }
        }
        out
    };
    let halves = |values: &[f32]| -> Option<Vec<u16>> {
        let half = |&value: &f32| {
            let half = half::f16::from_f32(value);
            (half.to_f32().to_bits() == value.to_bits()).then(|| half.to_bits())
        };
        values.iter().map(half).collect()
    };
    match numbers {
        GroupNumbers::Plain(values) => {
            (values.len() == outputs * groups).then_some(())?;
            let values = panels(values, groups);
            Some(halves(&values).map_or_else(|| PerGroup::F32(values), PerGroup::F16))
        }
        GroupNumbers::Nested { fine, coarse, span } => {
            let spans = groups.div_ceil(span.max(1));
            (fine.len() == outputs * groups && coarse.len() == outputs * spans).then_some(())?;
            Some(PerGroup::Nested {
                fine: halves(&panels(fine, groups))?,
                coarse: panels(coarse, spans),
                span: (span > 0).then_some(span)?,
            })
        }
    }
}

fn fill<T: Copy>(
    panels: &mut Panels,
    codes: &[T],
    inputs: usize,
    outputs: usize,
    byte: impl Fn(T) -> u8,
) -> Option<()> {
    (codes.len() == outputs * inputs).then_some(())?;
    let step = panels.codes.step_bytes();
    for (output, row) in codes.chunks_exact(inputs).enumerate() {
        let place = panels.place(output / WIDTH, 0, output % WIDTH);
        let bytes = panels.codes.bytes_mut();
        for (at, four) in row.chunks(STEP).enumerate() {
            let low = &mut bytes[place.byte + at * step..][..four.len()];
            for (low, &code) in low.iter_mut().zip(four) {
                // A code of more than four bits has the rest elsewhere, or is alone in its byte.
                let code = byte(code);
                let code = if place.above.is_some() {
                    code & 15
                } else {
                    code
                };
                *low |= code << place.shift;
            }
            let Some((above, shift)) = place.above else {
                continue;
            };
            let high = &mut bytes[above + at * step..][..four.len()];
            for (high, &code) in high.iter_mut().zip(four) {
                *high |= (byte(code) >> 4) << shift;
            }
        }
    }
    Some(())
}

/// Whether codes are few enough for six bits, as those of llama.cpp's types of five and six are.
fn six_bits(codes: &[i8]) -> bool {
    codes.iter().all(|code| (-32..32).contains(code))
}
