//! Entropy coding: a binary range coder and the models that feed it.
//!
//! Every model is written once, generic over [`BitCoder`]: the encoder returns
//! the bit it was given, the decoder returns the bit it read. Encoding and
//! decoding therefore cannot drift apart.

mod number;
mod permutation;
mod range;
mod text;

pub(crate) use number::{Bit, Number, Symbol};
pub(crate) use permutation::Remaining;
pub(crate) use range::{BitCoder, Decoder, Encoder, Silent};
pub(crate) use text::TextModel;
