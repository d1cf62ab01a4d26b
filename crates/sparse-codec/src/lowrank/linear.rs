//! Small dense linear algebra for the search; only the encoder uses it, so no sum's order matters.

use crate::simd::vectorised;

/// `rank` vectors of `len` numbers, one after another.
#[derive(Debug, Clone)]
pub(super) struct Vectors {
    pub(super) len: usize,
    pub(super) rank: usize,
    pub(super) data: Vec<f64>,
}

impl Vectors {
    pub(super) fn zeros(len: usize, rank: usize) -> Self {
        Self {
            len,
            rank,
            data: vec![0.0; len * rank],
        }
    }

    /// Uniform numbers in [-1, 1) that depend on nothing but the sizes.
    pub(super) fn random(len: usize, rank: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut all = Self::zeros(len, rank);
        for value in &mut all.data {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *value = (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        }
        all
    }

    pub(super) fn vector(&self, k: usize) -> &[f64] {
        &self.data[k * self.len..][..self.len]
    }

    /// Keeps the first `rank` vectors.
    pub(super) fn truncate(&mut self, rank: usize) {
        self.data.truncate(rank * self.len);
        self.rank = rank;
    }

    /// Rounded copies, for the loops that do not need more.
    pub(super) fn single(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }

    /// All inner products: a symmetric `rank` x `rank` matrix.
    fn gram(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.rank * self.rank];
        for k in 0..self.rank {
            for l in 0..=k {
                let product = dot(self.vector(k), self.vector(l));
                out[k * self.rank + l] = product;
                out[l * self.rank + k] = product;
            }
        }
        out
    }

    /// New vectors: number `k` is the sum over `l` of `weights[l * columns + k]` times vector `l`.
    fn combine(&self, weights: &[f64], columns: usize) -> Self {
        let mut out = Self::zeros(self.len, columns);
        for (k, sum) in out.data.chunks_exact_mut(self.len).enumerate() {
            for l in 0..self.rank {
                add_scaled(sum, weights[l * columns + k], self.vector(l));
            }
        }
        out
    }

    /// An orthonormal basis of what the vectors span: Gram and Schmidt's, each vector cleared of
    /// those before it twice. What is lost in rounding becomes zero.
    pub(super) fn orthonormal(mut self) -> Self {
        for k in 0..self.rank {
            let (known, rest) = self.data.split_at_mut(k * self.len);
            let vector = &mut rest[..self.len];
            let before = dot(vector, vector);
            for _ in 0..2 {
                for other in known.chunks_exact(self.len) {
                    let product = dot(vector, other);
                    add_scaled(vector, -product, other);
                }
            }
            let after = dot(vector, vector);
            let scale = if after > before * 1e-14 && after > 0.0 {
                1.0 / after.sqrt()
            } else {
                0.0
            };
            for x in vector {
                *x *= scale;
            }
        }
        self
    }
}

vectorised! {
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        let mut lanes = [0.0f64; 32];
        let (a, a_rest) = a.as_chunks::<32>();
        let (b, b_rest) = b.as_chunks::<32>();
        for (a, b) in a.iter().zip(b) {
            for (lane, (x, y)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                *lane += x * y;
            }
        }
        let tail: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        lanes.iter().sum::<f64>() + tail
    }
}

vectorised! {
    /// Adds `scale` times `other`.
    fn add_scaled(sum: &mut [f64], scale: f64, other: &[f64]) {
        for (sum, x) in sum.iter_mut().zip(other) {
            *sum += scale * x;
        }
    }
}

vectorised! {
    /// Rotates two vectors into one another by an angle of this sine and cosine.
    fn turn(sine: f64, cosine: f64, first: &mut [f64], second: &mut [f64]) {
        for (x, y) in first.iter_mut().zip(second) {
            (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
        }
    }
}

/// As [`singular`], where `right` is orthonormal already.
pub(super) fn singular_of_half(left: &mut Vectors, right: &mut Vectors) -> Vec<f64> {
    let rank = left.rank;
    let eigen = Eigen::of(left.gram(), rank);
    *left = left.combine(&eigen.scaled(|x| 1.0 / x), rank);
    *right = right.combine(&eigen.scaled(|_| 1.0), rank);
    eigen.values.iter().map(|&x| x.max(0.0).sqrt()).collect()
}

/// Singular values and vectors of `sum_k left_k right_k^T`, largest first; the vectors come out
/// orthonormal.
pub(super) fn singular(left: &mut Vectors, right: &mut Vectors) -> Vec<f64> {
    let rank = left.rank;
    let first = Eigen::of(left.gram(), rank);
    let unit = left.combine(&first.scaled(|x| 1.0 / x), rank);
    let other = right.combine(&first.scaled(|x| x), rank);
    let second = Eigen::of(other.gram(), rank);
    *left = unit.combine(&second.scaled(|_| 1.0), rank);
    *right = other.combine(&second.scaled(|x| 1.0 / x), rank);
    second.values.iter().map(|&x| x.max(0.0).sqrt()).collect()
}

/// Eigenvalues, largest first, and eigenvectors (in columns) of a symmetric matrix.
struct Eigen {
    rank: usize,
    values: Vec<f64>,
    /// Row-major; the vector of value `k` is column `k`.
    vectors: Vec<f64>,
}

impl Eigen {
    /// Cyclic Jacobi rotations (Golub and Van Loan, section 8.5).
    fn of(mut a: Vec<f64>, n: usize) -> Self {
        // Rows of `v` are the eigenvectors until the end: rotations then run along memory.
        let mut v = vec![0.0; n * n];
        for i in 0..n {
            v[i * n + i] = 1.0;
        }
        let mut turned = vec![0.0; 2 * n];
        let total: f64 = a.iter().map(|x| x * x).sum();
        for _ in 0..30 {
            let diagonal: f64 = (0..n).map(|i| a[i * n + i] * a[i * n + i]).sum();
            if total - diagonal <= 1e-22 * total && off_diagonal(&a, n) <= 1e-22 * total {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    rotate(&mut a, &mut v, &mut turned, n, p, q);
                }
            }
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
        let mut vectors = vec![0.0; n * n];
        for (k, &i) in order.iter().enumerate() {
            for l in 0..n {
                vectors[l * n + k] = v[i * n + l];
            }
        }
        Self {
            rank: n,
            values: order.iter().map(|&i| a[i * n + i]).collect(),
            vectors,
        }
    }

    /// The eigenvectors, each times `scale` of the square root of its value; zero where the value
    /// is lost in rounding.
    fn scaled(&self, scale: impl Fn(f64) -> f64) -> Vec<f64> {
        let least = self.values.first().map_or(0.0, |&x| x * 1e-14);
        let scales: Vec<f64> = self
            .values
            .iter()
            .map(|&x| {
                if x > least && x > 0.0 {
                    scale(x.sqrt())
                } else {
                    0.0
                }
            })
            .collect();
        self.vectors
            .chunks_exact(self.rank.max(1))
            .flat_map(|row| row.iter().zip(&scales).map(|(x, s)| x * s))
            .collect()
    }
}

fn off_diagonal(a: &[f64], n: usize) -> f64 {
    (0..n)
        .flat_map(|i| (0..n).filter(move |&j| j != i).map(move |j| (i, j)))
        .map(|(i, j)| a[i * n + j] * a[i * n + j])
        .sum()
}

fn rotate(a: &mut [f64], v: &mut [f64], turned: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    let (app, aqq) = (a[p * n + p], a[q * n + q]);
    // An angle of 1e-12 is more than anybody asks for.
    if apq * apq <= 1e-24 * (app * aqq).abs() || apq == 0.0 {
        return;
    }
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for matrix in [&mut *a, v] {
        let (head, tail) = matrix.split_at_mut(q * n);
        turn(s, c, &mut head[p * n..][..n], &mut tail[..n]);
    }
    // The columns are the rows, but where they meet.
    turned[..n].copy_from_slice(&a[p * n..][..n]);
    turned[n..].copy_from_slice(&a[q * n..][..n]);
    let (first, second) = turned.split_at(n);
    for (row, (&x, &y)) in a.chunks_exact_mut(n).zip(first.iter().zip(second)) {
        (row[p], row[q]) = (x, y);
    }
    for (row, turned) in [(p, first), (q, second)] {
        let (x, y) = (turned[p], turned[q]);
        (a[row * n + p], a[row * n + q]) = (c * x - s * y, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_vectors_are_orthonormal_and_multiply_back() {
        let mut left = Vectors::random(50, 7);
        let mut right = Vectors::random(40, 7);
        right.data.rotate_left(11);
        let value = |l: &Vectors, r: &Vectors, s: &[f64], i: usize, j: usize| -> f64 {
            (0..7).map(|k| s[k] * l.vector(k)[i] * r.vector(k)[j]).sum()
        };
        let before: Vec<f64> = (0..50 * 40)
            .map(|x| value(&left, &right, &[1.0; 7], x / 40, x % 40))
            .collect();
        let values = singular(&mut left, &mut right);
        assert!(values.is_sorted_by(|a, b| a >= b));
        for (x, &expected) in before.iter().enumerate() {
            assert!((value(&left, &right, &values, x / 40, x % 40) - expected).abs() < 1e-9);
        }
        for k in 0..7 {
            for l in 0..7 {
                let unit = f64::from(u8::from(k == l));
                assert!((dot(left.vector(k), left.vector(l)) - unit).abs() < 1e-9);
                assert!((dot(right.vector(k), right.vector(l)) - unit).abs() < 1e-9);
            }
        }
    }
}
