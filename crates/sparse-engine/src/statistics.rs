//! What goes into each linear layer, on average: what calibration needs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::kernels::matmul::multiply;
use crate::kernels::panels::{Values, WIDTH};
use crate::kernels::{Level, vector};
use crate::linear::{Linear, Rows};
use crate::model::{Model, Tap};

/// Inputs of every linear layer of a model, summed up as they pass by.
///
/// Memory does not grow with the text: 16 bytes for each input of a layer, and 4 for each pair of
/// inputs where the full second moment is asked for. Layers that read the same rows, as queries,
/// keys and values do, are counted once.
///
/// ```
/// # use sparse_checkpoint::Checkpoint;
/// # use sparse_engine::{Model, ModelConfig, Plain};
/// use sparse_engine::Statistics;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base");
/// # let checkpoint = Checkpoint::open(dir.as_ref())?;
/// # let config = ModelConfig::read(&checkpoint)?;
/// # let model = Model::load(config, &Plain::open(&checkpoint)?, 2, &|_, _| ())?;
/// let mut statistics = Statistics::new(|layer| layer.ends_with("c_fc"));
/// model.run(&[&[1, 2, 3, 4]], Some(&mut statistics))?;
///
/// let layer = statistics.layer("transformer.h.0.mlp.c_fc").ok_or("no such layer")?;
/// assert_eq!(layer.rows(), 4);
/// assert_eq!(layer.mean_abs().len(), 128);
/// assert_eq!(layer.gram().map(<[f32]>::len), Some(128 * 128));
/// # Ok(())
/// # }
/// ```
pub struct Statistics {
    groups: Vec<LayerStatistics>,
    /// Layers, and the group that each reads.
    layers: BTreeMap<String, usize>,
    /// The rows that were seen last, by place and number, and their group.
    last: Option<(usize, usize, usize)>,
    wants_gram: Box<dyn Fn(&str) -> bool + Send>,
    room: Room,
}

/// Room for a batch's rows: transposed, and in panels.
#[derive(Default)]
struct Room {
    transposed: Vec<f32>,
    panels: Vec<f32>,
}

/// Inputs of one layer, or of several that read the same.
#[derive(Debug)]
pub struct LayerStatistics {
    /// The layer that it was first seen for: the only one that adds to it.
    owner: String,
    rows: u64,
    abs: Vec<f64>,
    squares: Vec<f64>,
    gram: Option<Vec<f32>>,
}

impl std::fmt::Debug for Statistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statistics")
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}

impl Statistics {
    /// Nothing yet; `wants_gram` says for which layers, by name, the full second moment is kept.
    pub fn new(wants_gram: impl Fn(&str) -> bool + Send + 'static) -> Statistics {
        Statistics {
            groups: Vec::new(),
            layers: BTreeMap::new(),
            last: None,
            wants_gram: Box::new(wants_gram),
            room: Room::default(),
        }
    }

    /// What went into a layer, by its name in the checkpoint.
    pub fn layer(&self, name: &str) -> Option<&LayerStatistics> {
        self.layers.get(name).map(|&group| &self.groups[group])
    }

    /// The names of the layers that were seen, those that read the same together; groups are in the
    /// order in which they ran.
    pub fn groups(&self) -> Vec<Vec<&str>> {
        let mut groups = vec![Vec::new(); self.groups.len()];
        for (name, &group) in &self.layers {
            groups[group].push(name.as_str());
        }
        groups
    }

    /// Every layer that was seen, by name.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &LayerStatistics)> {
        self.layers
            .iter()
            .map(|(name, &group)| (name.as_str(), &self.groups[group]))
    }

    /// The expected square of the length of what each layer of `model` makes of its inputs, bias
    /// left out and inputs taken for uncorrelated: by how much the model's rows would change if
    /// every weight of the layer changed by its own size. Layers that were not seen are left out.
    pub fn importance(&self, model: &Model) -> Vec<(String, f64)> {
        let seen = model
            .layers()
            .filter_map(|(name, linear)| Some((name, linear, self.layer(name)?)));
        seen.map(|(name, linear, layer)| (name.to_owned(), layer.importance(&**linear)))
            .collect()
    }
}

impl Tap for Statistics {
    fn input(&mut self, layer: &str, rows: Rows<'_>) -> ControlFlow<()> {
        if rows.count() == 0 {
            return ControlFlow::Continue(());
        }
        let place = (rows.row(0).as_ptr() as usize, rows.count());
        let group = match (self.layers.get(layer), self.last) {
            (Some(&group), _) => group,
            // The rows that another layer has just read: nothing is in between.
            (None, Some((at, count, group))) if (at, count) == place => group,
            (None, _) => {
                self.groups.push(LayerStatistics::new(
                    layer,
                    rows.width(),
                    (self.wants_gram)(layer),
                ));
                self.groups.len() - 1
            }
        };
        self.layers.entry(layer.to_owned()).or_insert(group);
        self.last = Some((place.0, place.1, group));
        let group = &mut self.groups[group];
        if group.owner == layer {
            group.add(rows, &mut self.room);
        }
        ControlFlow::Continue(())
    }
}

impl LayerStatistics {
    fn new(owner: &str, inputs: usize, gram: bool) -> LayerStatistics {
        LayerStatistics {
            owner: owner.to_owned(),
            rows: 0,
            abs: vec![0.0; inputs],
            squares: vec![0.0; inputs],
            gram: gram.then(|| vec![0.0; inputs * inputs]),
        }
    }

    /// Rows that went in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The mean of |x| of each input.
    pub fn mean_abs(&self) -> Vec<f64> {
        self.abs.iter().map(|sum| sum / self.rows as f64).collect()
    }

    /// The mean of x² of each input.
    pub fn second_moment(&self) -> Vec<f64> {
        self.squares
            .iter()
            .map(|sum| sum / self.rows as f64)
            .collect()
    }

    /// The sum of x xᵀ over all rows, row-major, where it was asked for.
    pub fn gram(&self) -> Option<&[f32]> {
        self.gram.as_deref()
    }

    /// Takes the sum of x xᵀ out, where it was asked for: it is the largest part by far.
    pub fn take_gram(&mut self) -> Option<Vec<f32>> {
        self.gram.take()
    }

    fn importance(&self, linear: &dyn Linear) -> f64 {
        let moments = self.second_moment();
        let mut weights = vec![0.0; linear.inputs()];
        let mut sum = 0.0;
        for output in 0..linear.outputs() {
            linear.weights(output, &mut weights);
            let terms = weights.iter().zip(&moments);
            sum += terms
                .map(|(&weight, moment)| f64::from(weight).powi(2) * moment)
                .sum::<f64>();
        }
        sum
    }

    fn add(&mut self, rows: Rows<'_>, room: &mut Room) {
        self.rows += rows.count() as u64;
        let level = Level::detect();
        let stripes = self
            .abs
            .par_chunks_mut(STRIPE)
            .zip(self.squares.par_chunks_mut(STRIPE));
        stripes.enumerate().for_each(|(stripe, (abs, squares))| {
            for row in 0..rows.count() {
                let values = &rows.row(row)[stripe * STRIPE..];
                vector::add_moments(level, abs, squares, &values[..abs.len()]);
            }
        });
        if let Some(gram) = &mut self.gram {
            add_gram(rows, room, gram);
        }
    }
}

/// Inputs whose moments are worked on together: whole tiles of the product's rows.
const STRIPE: usize = 48;
/// Rows and columns that are transposed at a time.
const SQUARE: usize = 16;

/// Adds Xᵀ X: the product of the transposed rows with the rows themselves, as a matrix whose
/// inputs are rows and whose outputs are inputs. It is symmetric to the last bit, so a stripe of
/// lines is computed as far as the diagonal, and the rest is copied.
fn add_gram(rows: Rows<'_>, room: &mut Room, gram: &mut [f32]) {
    let (count, width) = (rows.count(), rows.width());
    let Room { transposed, panels } = room;
    transposed.resize(width * count, 0.0);
    transposed
        .par_chunks_mut(SQUARE * count)
        .enumerate()
        .for_each(|(stripe, lines)| transpose(rows, stripe * SQUARE, lines));
    panels.resize(width.next_multiple_of(WIDTH) * count, 0.0);
    panels
        .par_chunks_exact_mut(WIDTH * count)
        .enumerate()
        .for_each(|(panel, panel_values)| {
            let columns = panel * WIDTH..width.min((panel + 1) * WIDTH);
            for (at, values) in panel_values
                .as_chunks_mut::<WIDTH>()
                .0
                .iter_mut()
                .enumerate()
            {
                let row = &rows.row(at)[columns.clone()];
                match <&[f32; WIDTH]>::try_from(row) {
                    Ok(row) => *values = *row,
                    Err(_) => values[..row.len()].copy_from_slice(row),
                }
            }
        });
    let (level, matrix) = (Level::detect(), Values::F32(std::mem::take(panels)));
    let transposed = Rows::new(transposed, width, count);
    gram.par_chunks_mut(STRIPE * width)
        .enumerate()
        .for_each_init(Vec::new, |products, (stripe, lines)| {
            let start = stripe * STRIPE;
            let end = width.min(start + STRIPE);
            let stride = end.next_multiple_of(WIDTH);
            products.resize((end - start) * stride, 0.0);
            let x = transposed.slice(start..end);
            multiply(
                level,
                x,
                &matrix,
                count,
                0..stride / WIDTH,
                products,
                stride,
            );
            let lines = lines.chunks_exact_mut(width);
            for (line, products) in lines.zip(products.chunks_exact(stride)) {
                vector::add(level, &mut line[..end], &products[..end]);
            }
        });
    mirror(gram, width);
    if let Values::F32(values) = matrix {
        *panels = values;
    }
}

/// Copies what is below the diagonal of a square matrix to above it.
fn mirror(gram: &mut [f32], width: usize) {
    for start in (0..width).step_by(SQUARE) {
        let end = width.min(start + SQUARE);
        let (lines, below) = gram.split_at_mut(end * width);
        let below = Rows::new(below, width - end, width);
        for at in (0..below.count()).step_by(SQUARE) {
            let rows = below.slice(at..below.count().min(at + SQUARE));
            let square = turned(rows, start, end - start);
            let lines = lines[start * width..].chunks_exact_mut(width);
            for (line, values) in lines.zip(&square) {
                line[end + at..][..rows.count()].copy_from_slice(&values[..rows.count()]);
            }
        }
    }
}

/// Writes the columns from `first` on as lines of `rows.count()` values, at most [`SQUARE`] of them:
/// square by square, as lines that begin a power of two apart share few places of the cache.
fn transpose(rows: Rows<'_>, first: usize, lines: &mut [f32]) {
    let count = rows.count();
    let columns = lines.len() / count;
    for start in (0..count).step_by(SQUARE) {
        let end = count.min(start + SQUARE);
        let square = turned(rows.slice(start..end), first, columns);
        for (line, values) in lines.chunks_exact_mut(count).zip(&square) {
            line[start..end].copy_from_slice(&values[..end - start]);
        }
    }
}

/// Some columns, from `first` on, of some rows, at most [`SQUARE`] of each, column by column.
fn turned(rows: Rows<'_>, first: usize, columns: usize) -> [[f32; SQUARE]; SQUARE] {
    let mut square = [[0.0; SQUARE]; SQUARE];
    if rows.count() < SQUARE || columns < SQUARE {
        for at in 0..rows.count() {
            let values = &rows.row(at)[first..first + columns];
            for (line, &value) in square.iter_mut().zip(values) {
                line[at] = value;
            }
        }
        return square;
    }
    // Four by four, which registers turn.
    for at in (0..SQUARE).step_by(4) {
        let four: [&[[f32; 4]]; 4] =
            std::array::from_fn(|i| rows.row(at + i)[first..first + SQUARE].as_chunks().0);
        for (lines, part) in square.chunks_exact_mut(4).zip(0..) {
            for (column, line) in lines.iter_mut().enumerate() {
                let values: [f32; 4] = std::array::from_fn(|i| four[i][part][column]);
                line[at..at + 4].copy_from_slice(&values);
            }
        }
    }
    square
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::Dense;

    fn rows(count: usize, width: usize) -> Vec<f32> {
        (0..count * width)
            .map(|i| ((i * 7919) % 23) as f32 / 8.0 - 1.0)
            .collect()
    }

    #[test]
    fn stripes_of_a_second_moment_make_a_symmetric_whole() {
        let (count, width) = (9, 2 * STRIPE + 44);
        let values = rows(count, width);
        let mut gram = vec![1.0; width * width];
        let mut room = Room::default();
        add_gram(Rows::new(&values, count, width), &mut room, &mut gram);
        for i in 0..width {
            for j in 0..width {
                let pairs = values.chunks(width).map(|row| row[i] * row[j]);
                // Multiples of 1/64: sums are exact.
                assert_eq!(gram[i * width + j], 1.0 + pairs.sum::<f32>(), "{i} {j}");
            }
        }
    }

    #[test]
    fn moments_are_those_of_the_definition_over_several_batches() {
        let (count, width) = (41, 35);
        let values = rows(count, width);
        let mut statistics = Statistics::new(|_| true);
        for part in values.chunks(10 * width) {
            let _ = statistics.input("a", Rows::new(part, part.len() / width, width));
            let _ = statistics.input("b", Rows::new(part, part.len() / width, width));
        }
        let (a, b) = (
            statistics.layer("a").unwrap(),
            statistics.layer("b").unwrap(),
        );
        assert!(std::ptr::eq(a, b), "layers with the same input share it");
        assert_eq!(statistics.groups(), [["a", "b"]]);
        assert_eq!(a.rows(), count as u64);
        for i in 0..width {
            let column = |k: usize| values.iter().skip(k).step_by(width).map(|&x| f64::from(x));
            let abs = column(i).map(f64::abs).sum::<f64>() / count as f64;
            assert!((a.mean_abs()[i] - abs).abs() < 1e-12);
            for j in 0..width {
                let sum: f64 = column(i).zip(column(j)).map(|(x, y)| x * y).sum();
                let found = f64::from(a.gram().unwrap()[i * width + j]);
                assert!((found - sum).abs() < 1e-3, "{found} {sum}");
                if i == j {
                    assert!((a.second_moment()[i] - sum / count as f64).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn layers_with_rows_of_their_own_are_apart() {
        let mut statistics = Statistics::new(|_| false);
        let (x, y) = (rows(2, 3), rows(2, 3));
        let _ = statistics.input("a", Rows::new(&x, 2, 3));
        let _ = statistics.input("b", Rows::new(&y, 2, 3));
        assert_eq!(statistics.groups(), [["a"], ["b"]]);
        assert!(!std::ptr::eq(
            statistics.layer("a").unwrap(),
            statistics.layer("b").unwrap()
        ));
        assert!(statistics.layer("a").unwrap().gram().is_none());
        assert!(statistics.layer("c").is_none());
    }

    #[test]
    fn importance_is_the_expected_square_of_the_output() {
        let layer = Dense::from_f32(&[1.0, 2.0, 0.0, 3.0], 2);
        let mut statistics = LayerStatistics::new("a", 2, false);
        let rows = Rows::new(&[1.0, 0.0, 1.0, 2.0], 2, 2);
        statistics.add(rows, &mut Room::default());
        // E[x²] = (1, 2); columns of the weights have squares (1, 13).
        assert_eq!(statistics.importance(&layer), 1.0 + 26.0);
    }
}
