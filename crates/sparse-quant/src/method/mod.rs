//! Quantization methods: pure functions from a matrix, and what calibration says about its
//! inputs, to codes and scales. One file each.

pub mod affine;
pub mod awq;
mod cholesky;
pub mod dynamic_map;
pub mod ggml;
pub mod gptq;
pub mod hqq;
pub mod int8;
pub mod nf4;
pub mod quanto;
pub(crate) mod round;
pub mod rtn;
