//! A weight matrix in memory: one row per output, one column per input.

use rayon::prelude::*;

/// A row-major matrix of f32: `rows` outputs (N) by `cols` inputs (K).
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Matrix {
        Matrix {
            rows,
            cols,
            data: vec![0.0; rows * cols],
        }
    }

    /// A matrix of these values, row by row; `None` if there are not `rows * cols` of them.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Option<Matrix> {
        (rows.checked_mul(cols) == Some(data.len())).then_some(Matrix { rows, cols, data })
    }

    /// Number of outputs (N).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs (K).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row by row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All values, row by row.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The values, given away.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..][..self.cols]
    }

    /// Rows as columns.
    pub fn transposed(&self) -> Matrix {
        const TILE: usize = 32; // a tile of source and target fits the first cache
        let (rows, cols) = (self.rows, self.cols);
        let mut data = vec![0.0; self.data.len()];
        if rows > 0 && cols > 0 {
            data.par_chunks_mut(TILE * rows)
                .enumerate()
                .for_each(|(tile, out)| {
                    for row in (0..rows).step_by(TILE) {
                        for (at, out) in out.chunks_exact_mut(rows).enumerate() {
                            let col = tile * TILE + at;
                            let end = (row + TILE).min(rows);
                            for (row, out) in (row..end).zip(&mut out[row..end]) {
                                *out = self.data[row * cols + col];
                            }
                        }
                    }
                });
        }
        Matrix {
            rows: cols,
            cols: rows,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_gives_the_matrix_back() {
        for (rows, cols) in [(1, 1), (3, 70), (65, 33), (0, 4)] {
            let data = (0..rows * cols).map(|i| i as f32).collect();
            let matrix = Matrix::new(rows, cols, data).unwrap();
            let turned = matrix.transposed();
            assert_eq!((turned.rows(), turned.cols()), (cols, rows));
            if rows > 0 {
                assert_eq!(
                    turned.row(cols - 1)[rows - 1],
                    matrix.row(rows - 1)[cols - 1]
                );
            }
            assert_eq!(turned.transposed(), matrix);
        }
        assert!(Matrix::new(2, 2, vec![0.0; 3]).is_none());
    }
}
