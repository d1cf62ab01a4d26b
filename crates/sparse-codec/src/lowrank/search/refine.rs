//! Weighted least squares: alternates between the sides of a decomposition.

use super::decompose::scale;
use crate::Word;
use crate::lowrank::linear::{Vectors, singular};
use crate::lowrank::panels;
use crate::lowrank::view::{Buffers, View, combine, dots, subtract};

/// Rounds of weighted least squares: steps below this many median steps count no more than those
/// of this size, and whether words whose change is explained already have no say. (They keep theirs
/// in 32-bit formats, where the merge's own arithmetic is no more exact than the step.)
const ROUNDS: [(f32, bool); 7] = [
    (0.3, false),
    (0.1, false),
    (0.05, false),
    (0.03, false),
    (0.03, false),
    (0.03, true),
    (0.03, true),
];
/// Steps of conjugate gradients in each round.
const STEPS: usize = 3;

/// Alternates between the sides. Before and after, `left` is orthonormal and `right` is not.
pub(super) fn refine<W: Word>(
    view: &View<'_, W>,
    turned: &View<'_, W>,
    left: &mut Vectors,
    right: &mut Vectors,
) {
    for (floor, hinge) in ROUNDS {
        let hinge = hinge && view.layout.bits() == 16;
        solve(turned, left, right, floor, hinge);
        let values = singular(left, right);
        scale(left, &values);
        solve(view, right, left, floor, hinge);
        let values = singular(left, right);
        scale(right, &values);
    }
}

/// Moves `moving`, a vector of numbers for each row of the view, towards the least squares
/// solution given `fixed`, which is orthonormal.
fn solve<W: Word>(
    view: &View<'_, W>,
    fixed: &Vectors,
    moving: &mut Vectors,
    floor: f32,
    hinge: bool,
) {
    let rank = fixed.rank;
    let single = fixed.single();
    let single_panels = panels(&single, fixed.len);
    let double_panels = panels(&fixed.data, fixed.len);
    let mut buffers = Buffers::new(view.cols);
    let mut system = System::new(rank);
    let mut coefficients = vec![0.0; rank];
    for row in view.rows() {
        view.load(row, &mut buffers);
        for (k, coefficient) in coefficients.iter_mut().enumerate() {
            *coefficient = moving.data[k * view.rows + row];
        }
        subtract(&coefficients, &double_panels, &mut buffers.change);
        let words = buffers.change.iter().zip(&buffers.step);
        for ((rest, weight), (&change, &step)) in
            buffers.rest.iter_mut().zip(&mut buffers.weight).zip(words)
        {
            *weight = 1.0 / (step * step + floor * floor);
            let change = change as f32;
            *rest = if hinge {
                1.7 * (change - change.clamp(-0.5 * step, 0.5 * step))
            } else {
                change
            };
        }
        system.solve(&single, &single_panels, &mut buffers);
        for (k, &x) in system.solution.iter().enumerate() {
            moving.data[k * view.rows + row] += f64::from(x);
        }
    }
}

/// Conjugate gradients for one row.
struct System {
    solution: Vec<f32>,
    rest: Vec<f32>,
    direction: Vec<f32>,
    image: Vec<f32>,
}

impl System {
    fn new(rank: usize) -> Self {
        Self {
            solution: vec![0.0; rank],
            rest: vec![0.0; rank],
            direction: vec![0.0; rank],
            image: vec![0.0; rank],
        }
    }

    /// Minimises the weighted squares of `buffers.rest` less the vectors' combination.
    fn solve(&mut self, vectors: &[f32], panels: &[f32], buffers: &mut Buffers) {
        for (image, (x, w)) in buffers
            .image
            .iter_mut()
            .zip(buffers.rest.iter().zip(&buffers.weight))
        {
            *image = x * w;
        }
        dots(&buffers.image, vectors, &mut self.rest);
        self.direction.copy_from_slice(&self.rest);
        self.solution.fill(0.0);
        let mut norm = product(&self.rest, &self.rest);
        for _ in 0..STEPS {
            combine(&self.direction, panels, &mut buffers.image);
            for (image, w) in buffers.image.iter_mut().zip(&buffers.weight) {
                *image *= w;
            }
            dots(&buffers.image, vectors, &mut self.image);
            let curvature = product(&self.direction, &self.image);
            if curvature <= 0.0 || norm <= 0.0 {
                return;
            }
            let length = norm / curvature;
            for k in 0..self.rest.len() {
                self.solution[k] += length * self.direction[k];
                self.rest[k] -= length * self.image[k];
            }
            let next = product(&self.rest, &self.rest);
            for (direction, rest) in self.direction.iter_mut().zip(&self.rest) {
                *direction = rest + next / norm * *direction;
            }
            norm = next;
        }
    }
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
