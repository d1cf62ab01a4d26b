//! What every format must do: store what its specs promise, and give it back; and refuse what is
//! damaged.

use proptest::prelude::*;
use sparse_checkpoint::{Checkpoint, TensorSpec, WriteOptions, write_shards};
use tempfile::TempDir;

use super::compressed::Layout;
use super::gptq::Version;
use super::*;
use crate::Matrix;
use crate::method::affine::tests::any_affine;
use crate::method::{affine, int8, nf4, quanto};

const LAYER: &str = "model.layers.0.mlp.up_proj";

/// A checkpoint with these parts.
fn store(parts: &[Part]) -> (TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
    write_shards::<sparse_checkpoint::Error>(
        dir.path(),
        &specs,
        &WriteOptions::default(),
        |spec, out| {
            let part = parts.iter().find(|part| part.spec == *spec).unwrap();
            out.write_all(&part.bytes)
        },
    )
    .unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    (dir, checkpoint)
}

fn matrix(rows: usize, cols: usize) -> Matrix {
    let value = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0).powi(3);
    Matrix::new(rows, cols, (0..rows * cols).map(value).collect()).unwrap()
}

/// Every format's parts of a layer, with a way to read it back as weights.
type Read = Box<dyn Fn(&Checkpoint) -> Result<Matrix, Error>>;

fn every_format() -> Vec<(&'static str, Vec<Part>, Read)> {
    let weights = matrix(32, 64);
    let affine = |bits, symmetric| {
        let spec = affine::AffineSpec {
            least_zero: 1,
            ..affine::tests::spec(bits, 32, symmetric)
        };
        crate::method::rtn::quantize(&weights, &spec)
    };
    let layout = |bits, symmetric| Layout {
        bits,
        group_size: Some(32),
        symmetric,
    };
    let nested = nf4::quantize(&weights, true);
    let plain = nf4::quantize(&weights, false);
    let read_nf4 = || -> Read { Box::new(|c| Ok(bnb4::read(c, LAYER)?.dequantize())) };
    let mut all: Vec<(&'static str, Vec<Part>, Read)> = vec![
        ("nf4", bnb4::parts(LAYER, &plain, Dtype::BF16), read_nf4()),
        (
            "nf4 nested",
            bnb4::parts(LAYER, &nested, Dtype::F16),
            read_nf4(),
        ),
        (
            "int8",
            bnb8::parts(LAYER, &int8::quantize(&weights)),
            Box::new(|c| Ok(bnb8::read(c, LAYER)?.dequantize())),
        ),
        (
            "awq",
            awq::parts(LAYER, &affine(4, false)),
            Box::new(|c| Ok(awq::read(c, LAYER)?.dequantize())),
        ),
        (
            "quanto 8",
            quanto_parts::parts_of(&quanto::quantize8(&weights, Dtype::BF16)),
            Box::new(|c| Ok(super::quanto::read(c, LAYER, None)?.dequantize())),
        ),
        (
            "quanto 4",
            quanto_parts::parts_of(&quanto::quantize4(&weights, Dtype::F16)),
            Box::new(|c| Ok(super::quanto::read(c, LAYER, None)?.dequantize())),
        ),
    ];
    for (name, version) in [("gptq", Version::V1), ("gptq_v2", Version::V2)] {
        all.push((
            name,
            gptq::parts(LAYER, &affine(3, false), version),
            Box::new(move |c| Ok(gptq::read(c, LAYER, 3, version)?.dequantize())),
        ));
    }
    for (name, bits) in [("hqq 4", 4), ("hqq 3", 3)] {
        all.push((
            name,
            hqq::parts(LAYER, &crate::method::hqq::quantize(&weights, bits, 64)),
            Box::new(|c| Ok(hqq::read(c, LAYER)?.dequantize())),
        ));
    }
    for (name, symmetric) in [("compressed", true), ("compressed with zeros", false)] {
        all.push((
            name,
            compressed::parts(
                LAYER,
                &affine(4, symmetric),
                layout(4, symmetric),
                Dtype::F16,
            ),
            Box::new(move |c| Ok(compressed::read(c, LAYER, layout(4, symmetric))?.dequantize())),
        ));
    }
    all
}

mod quanto_parts {
    use super::*;
    use crate::method::quanto::Quanto;

    pub fn parts_of(weight: &Quanto) -> Vec<Part> {
        crate::format::quanto::parts(LAYER, weight)
    }
}

#[test]
fn parts_are_what_specs_promise_and_come_back() {
    for (name, parts, read) in every_format() {
        for part in &parts {
            assert_eq!(
                part.spec.bytes().unwrap(),
                part.bytes.len() as u64,
                "{name}: {:?}",
                part.spec
            );
        }
        let (_dir, checkpoint) = store(&parts);
        let back = read(&checkpoint).unwrap();
        let original = matrix(32, 64);
        let off = original
            .data()
            .iter()
            .zip(back.data())
            .map(|(a, b)| (a - b).abs());
        let worst = off.fold(0.0, f32::max);
        assert!(worst < 0.3, "{name}: {worst}");
    }
}

#[test]
fn a_missing_short_or_mistyped_tensor_is_an_error_that_names_the_layer() {
    for (name, parts, read) in every_format() {
        for at in 0..parts.len() {
            let mut missing = parts.clone();
            missing.remove(at);
            let mut short = parts.clone();
            if let Some(size) = short[at]
                .spec
                .shape
                .iter_mut()
                .rev()
                .find(|size| **size > 1)
            {
                *size -= 1;
                let bytes = short[at].spec.bytes().unwrap() as usize;
                short[at].bytes.truncate(bytes);
            }
            let mut flipped = parts.clone();
            flipped[at].bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
            for damaged in [missing, short, flipped] {
                let (_dir, checkpoint) = store(&damaged);
                if let Err(error) = read(&checkpoint) {
                    assert!(error.to_string().contains(LAYER), "{name}: {error}");
                }
            }
        }
        // What nothing could be read without.
        let marker = parts
            .iter()
            .max_by_key(|part| part.bytes.len())
            .unwrap()
            .spec
            .clone();
        let rest: Vec<Part> = parts
            .into_iter()
            .filter(|part| part.spec != marker)
            .collect();
        let (_dir, checkpoint) = store(&rest);
        assert!(read(&checkpoint).is_err(), "{name} without {}", marker.name);
    }
}

/// gptqmodel leaves the scales of a bf16 model in bf16.
#[test]
fn scales_may_be_of_other_floats() {
    let spec = affine::tests::spec(4, 32, false);
    let mut made = crate::method::rtn::quantize(&matrix(32, 64), &spec);
    // What all three types hold.
    for scale in &mut made.scales {
        *scale = 2f32.powi(scale.log2().round() as i32);
    }
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let stored = |mut parts: Vec<Part>| {
            for part in &mut parts {
                if part.spec.name.ends_with("scales") {
                    let values = to_f32(Dtype::F16, &part.bytes).unwrap();
                    part.bytes = crate::weights::from_f32(dtype, &values).unwrap();
                    part.spec.dtype = dtype;
                }
            }
            store(&parts)
        };
        let (_dir, checkpoint) = stored(gptq::parts(LAYER, &made, Version::V2));
        let back = gptq::read(&checkpoint, LAYER, 4, Version::V2).unwrap();
        assert_eq!(back, made, "{dtype}");
        let (_dir, checkpoint) = stored(awq::parts(LAYER, &made));
        assert_eq!(awq::read(&checkpoint, LAYER).unwrap(), made, "{dtype}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn affine_codes_come_back_exactly(weight in any_affine()) {
        for version in [Version::V1, Version::V2] {
            let (_dir, checkpoint) = store(&gptq::parts(LAYER, &weight, version));
            let back = gptq::read(&checkpoint, LAYER, weight.bits, version).unwrap();
            prop_assert_eq!(&back, &weight);
        }
        let layout = Layout {
            bits: weight.bits,
            group_size: Some(weight.group_size),
            symmetric: false,
        };
        let (_dir, checkpoint) = store(&compressed::parts(LAYER, &weight, layout, Dtype::F16));
        prop_assert_eq!(&compressed::read(&checkpoint, LAYER, layout).unwrap(), &weight);
        // AWQ has no ragged last group.
        if weight.bits == 4 && weight.cols.is_multiple_of(weight.group_size.min(weight.cols)) {
            let (_dir, checkpoint) = store(&awq::parts(LAYER, &weight));
            prop_assert_eq!(&awq::read(&checkpoint, LAYER).unwrap(), &weight);
        }
    }

    #[test]
    fn other_codes_come_back_exactly(values in prop::collection::vec(-1.0f32..1.0, 128)) {
        let weights = Matrix::new(4, 32, values).unwrap();
        for nested in [false, true] {
            let made = nf4::quantize(&weights, nested);
            let (_dir, checkpoint) = store(&bnb4::parts(LAYER, &made, Dtype::BF16));
            prop_assert_eq!(&bnb4::read(&checkpoint, LAYER).unwrap(), &made);
        }
        let made = int8::quantize(&weights);
        let (_dir, checkpoint) = store(&bnb8::parts(LAYER, &made));
        prop_assert_eq!(&bnb8::read(&checkpoint, LAYER).unwrap(), &made);
        for bits in [2, 3, 4, 8] {
            let made = crate::method::hqq::quantize(&weights, bits, 32);
            let (_dir, checkpoint) = store(&hqq::parts(LAYER, &made));
            prop_assert_eq!(&hqq::read(&checkpoint, LAYER).unwrap(), &made);
        }
    }
}
