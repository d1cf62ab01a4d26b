//! Arithmetic on slices: matrix products over weights in panels, and what a transformer does to
//! rows of activations. Each kernel has a scalar twin, and the level is chosen at run time.

pub(crate) mod coded;
#[cfg(target_arch = "x86_64")]
mod coded_avx2;
mod level;
pub(crate) mod matmul;
#[cfg(target_arch = "x86_64")]
mod matmul_avx2;
pub(crate) mod panels;
pub mod vector;

pub use level::{Level, Vectorize, vectorized};
