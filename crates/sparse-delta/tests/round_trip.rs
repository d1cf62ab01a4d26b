//! Fine-tune to delta and back, byte for byte, for every shape that checkpoints come in.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Made, Noise, checkpoint, make_delta, model, put, rebuild, round_trip, safetensors, tree, tuned,
    write_weights,
};
use proptest::prelude::*;
use sparse_checkpoint::Dtype;

/// Round trip of two sets of weights, each in one file.
fn pair(base: &[Made], fine: &[Made]) -> sparse_delta::Compressed {
    round_trip(checkpoint(base, None).path(), checkpoint(fine, None).path())
}

#[test]
fn a_light_fine_tune_is_small() {
    let base = model(Dtype::BF16, 1);
    let made = pair(&base, &tuned(&base, 1e-4, 2));
    assert!(made.ratio() > 3.0, "{made:?}");
}

#[test]
fn a_copy_of_the_base_costs_almost_nothing() {
    for dtype in [Dtype::BF16, Dtype::F32, Dtype::I32] {
        let base = model(dtype, 1);
        let made = pair(&base, &base);
        assert!(made.delta_bytes < 1200, "{made:?}");
        assert_eq!(made.changed_parameters, 0);
    }
}

#[test]
fn shards_may_be_cut_differently() {
    let base = model(Dtype::BF16, 1);
    let fine = tuned(&base, 1e-4, 2);
    for (base_limit, fine_limit) in [
        (None, 50_000),
        (Some(50_000), u64::MAX),
        (Some(60_000), 40_000),
    ] {
        let (base, fine) = (
            checkpoint(&base, base_limit),
            checkpoint(&fine, Some(fine_limit)),
        );
        round_trip(base.path(), fine.path());
    }
    let made = round_trip(
        checkpoint(&base, None).path(),
        checkpoint(&base, Some(50_000)).path(),
    );
    assert!(made.delta_bytes * 60 < made.original_bytes, "{made:?}");
}

#[test]
fn renamed_tensors_are_found_by_content() {
    let base = model(Dtype::BF16, 1);
    let rename = |tensors: &[Made]| -> Vec<Made> {
        let name = |t: &Made| t.named(&format!("model.transformer.{}", t.spec.name));
        tensors.iter().map(name).collect()
    };
    let made = pair(&base, &rename(&base));
    assert!(made.delta_bytes * 60 < made.original_bytes, "{made:?}");
    let plain = pair(&base, &tuned(&base, 1e-4, 2));
    let renamed = pair(&base, &rename(&tuned(&base, 1e-4, 2)));
    assert!(renamed.delta_bytes < plain.delta_bytes + 600, "{renamed:?}");
}

#[test]
fn many_tensors_of_one_shape_are_found_under_other_names() {
    let noise = &mut Noise::new(31);
    let expert = |n: usize| format!("layers.{}.experts.{}.w", n / 64, n % 64);
    let base: Vec<Made> = (0..1500)
        .map(|n| Made::random(&expert(n), Dtype::BF16, &[8, 32], noise))
        .collect();
    let renamed: Vec<Made> = base
        .iter()
        .map(|t| t.named(&format!("model.{}", t.spec.name)))
        .collect();
    let made = pair(&base, &renamed);
    assert_eq!(made.changed_parameters, 0);
    assert!(made.delta_bytes * 6 < made.original_bytes, "{made:?}");
}

#[test]
fn a_tensor_that_was_renamed_and_grew_is_found() {
    let noise = &mut Noise::new(32);
    let base = [
        Made::random("wte", Dtype::BF16, &[1000, 64], noise),
        Made::random("other", Dtype::BF16, &[900, 64], noise),
    ];
    let mut bytes = base[0].tuned(1e-4, noise).bytes;
    bytes.extend(Made::random("wte", Dtype::BF16, &[8, 64], noise).bytes);
    let grown = |name: &str| Made::new(name, Dtype::BF16, &[1008, 64], bytes.clone());
    let same_name = pair(&base, &[grown("wte")]);
    let renamed = pair(&base, &[grown("model.embed_tokens")]);
    assert!(
        renamed.delta_bytes < same_name.delta_bytes + 100,
        "{renamed:?}"
    );
}

/// Bfloat16 matrices, one behind the other, each changed by two components of its own.
fn merged(base: &Made, scale: f32, noise: &mut Noise) -> Made {
    let [.., rows, cols] = base.spec.shape[..] else {
        panic!("no matrix");
    };
    let words = base
        .bytes
        .chunks(2)
        .map(|b| half::bf16::from_le_bytes([b[0], b[1]]));
    let mut values: Vec<f32> = words.map(half::bf16::to_f32).collect();
    for layer in values.chunks_mut((rows * cols) as usize) {
        for _ in 0..2 {
            let left: Vec<f32> = (0..rows).map(|_| noise.normal() * scale).collect();
            let right: Vec<f32> = (0..cols).map(|_| noise.normal()).collect();
            for (row, left) in layer.chunks_mut(cols as usize).zip(&left) {
                row.iter_mut().zip(&right).for_each(|(w, r)| *w += left * r);
            }
        }
    }
    let words = values
        .iter()
        .map(|&v| half::bf16::from_f32(v).to_le_bytes());
    let bytes = words.flatten().collect();
    Made::new(&base.spec.name, Dtype::BF16, &base.spec.shape, bytes)
}

#[test]
fn merged_loras_are_found_in_stacked_tensors() {
    let noise = &mut Noise::new(33);
    // Three layers, each changed by two components of its own.
    let (layers, rows, cols) = (3, 96, 128);
    let base = Made::random("w", Dtype::BF16, &[layers, rows, cols], noise);
    let tuned = merged(&base, 0.01, noise);
    let (one, other) = (std::slice::from_ref(&base), std::slice::from_ref(&tuned));
    let stacked = pair(one, other);
    assert!(stacked.modes.contains_key("lowrank"), "{stacked:?}");
    let flat = |bytes: &[u8]| -> Vec<Made> {
        bytes
            .chunks((rows * cols * 2) as usize)
            .enumerate()
            .map(|(n, b)| Made::new(&format!("w{n}"), Dtype::BF16, &[rows, cols], b.to_vec()))
            .collect()
    };
    let apart = pair(&flat(&base.bytes), &flat(&tuned.bytes));
    assert!(
        stacked.delta_bytes < apart.delta_bytes + 300,
        "{stacked:?} {apart:?}"
    );
}

#[test]
fn estimates_see_changes_that_stand_together() {
    let noise = &mut Noise::new(34);
    let changed = |base: &Made, from: usize, to: usize, noise: &mut Noise| -> Made {
        let mut fine = base.clone();
        let tuned = base.tuned(1e-2, noise).bytes;
        fine.bytes[from..to].copy_from_slice(&tuned[from..to]);
        fine
    };
    // `round_trip` compares estimate and size.
    let long_rows = Made::random("w", Dtype::F32, &[4, 300_000], noise);
    let fine = changed(&long_rows, 3_600_000, 4_800_000, noise);
    pair(&[long_rows], &[fine]);
    let vector = Made::random("w", Dtype::BF16, &[1_500_000], noise);
    let fine = changed(&vector, 2_900_000, 3_000_000, noise);
    pair(&[vector], &[fine]);
    let embedding = Made::random("wte", Dtype::BF16, &[20_000, 64], noise);
    let fine = changed(&embedding, 2_000_000, 2_010_000, noise);
    pair(std::slice::from_ref(&embedding), &[fine]);
    let fine = changed(&embedding, 300_000, 1_700_000, noise);
    pair(&[embedding], &[fine]);
    let codes = Made::random("q", Dtype::I8, &[3000, 1000], noise);
    let mut fine = codes.clone();
    let new = noise.bytes(100_000);
    fine.bytes[700_000..800_000].copy_from_slice(&new);
    pair(&[codes], &[fine]);
}

#[test]
fn bytes_that_belong_to_no_tensor_may_be_many() {
    let noise = &mut Noise::new(35);
    let text = r#"{"a":{"dtype":"BF16","shape":[20],"data_offsets":[1000000,1000040]}}"#;
    let (base, fine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(base.path(), "m.safetensors", &safetensors("{}", &[]));
    put(
        fine.path(),
        "m.safetensors",
        &safetensors(text, &noise.bytes(3_500_000)),
    );
    round_trip(base.path(), fine.path());
}

#[test]
fn vocabularies_grow_and_shrink() {
    for dtype in [Dtype::BF16, Dtype::F32] {
        let noise = &mut Noise::new(3);
        let small = Made::random("wte", dtype, &[1000, 64], noise);
        let mut bytes = small.tuned(1e-4, noise).bytes;
        bytes.extend(Made::random("wte", dtype, &[24, 64], noise).bytes);
        let large = Made::new("wte", dtype, &[1024, 64], bytes);
        let grown = pair(std::slice::from_ref(&small), std::slice::from_ref(&large));
        let shrunk = pair(&[large], &[small]);
        for made in [grown, shrunk] {
            assert!(made.ratio() > 1.4, "{made:?}");
        }
    }
}

#[test]
fn every_dtype_comes_back() {
    let noise = &mut Noise::new(4);
    let base: Vec<Made> = Dtype::ALL
        .iter()
        .map(|&dtype| Made::random(&format!("t.{dtype}"), dtype, &[40, 24], noise))
        .collect();
    pair(&base, &tuned(&base, 1e-4, 5));
    pair(&base, &base);
    // Without a counterpart in the base.
    pair(&[Made::random("x", Dtype::F32, &[3], noise)], &base);
}

#[test]
fn empty_scalar_and_single_tensors_come_back() {
    let noise = &mut Noise::new(5);
    for dtype in Dtype::ALL {
        let shapes: &[&[u64]] = match dtype.bits() % 8 {
            0 => &[&[0], &[4, 0], &[0, 4], &[], &[1], &[1, 1], &[2, 0, 3]],
            _ => &[&[0], &[4, 0], &[0, 4], &[2, 0, 3], &[4]],
        };
        let base: Vec<Made> = shapes
            .iter()
            .map(|shape| Made::random(&format!("t{shape:?}"), dtype, shape, noise))
            .collect();
        pair(&base, &tuned(&base, 1e-3, 6));
        pair(&base[..1], &base);
    }
}

#[test]
fn an_empty_tensor_may_have_huge_other_sides() {
    let shape = [0, 1 << 40, 1 << 40];
    for dtype in [Dtype::BF16, Dtype::I64] {
        let odd = Made::new("odd", dtype, &shape, Vec::new());
        let noise = &mut Noise::new(6);
        let both = [odd, Made::random("w", dtype, &[30], noise)];
        pair(&both, &both);
        pair(&both[1..], &both);
    }
}

#[test]
fn tied_tensors_are_stored_once() {
    let noise = &mut Noise::new(7);
    let base = Made::random("wte", Dtype::BF16, &[500, 64], noise);
    let fine = base.tuned(1e-4, noise);
    let once = pair(std::slice::from_ref(&base), std::slice::from_ref(&fine));
    let tied = [fine.clone(), fine.named("lm_head"), fine.named("a.copy")];
    let twice = pair(std::slice::from_ref(&base), &tied);
    assert!(twice.delta_bytes < once.delta_bytes + 400, "{twice:?}");
    // Across shards, and between dtypes of the same bits.
    let words = Made::new("words", Dtype::U16, &[64, 500], fine.bytes.clone());
    let spread = [tied.as_slice(), &[words]].concat();
    let spread = checkpoint(&spread, Some(1000));
    let made = round_trip(checkpoint(&[base], None).path(), spread.path());
    assert!(made.delta_bytes < once.delta_bytes + 1200, "{made:?}");
}

#[test]
fn the_same_name_in_two_shards_comes_back() {
    let noise = &mut Noise::new(8);
    let [one, other] = [0, 1].map(|_| Made::random("w", Dtype::BF16, &[700], noise));
    let base = checkpoint(std::slice::from_ref(&one), None);
    let fine = tempfile::tempdir().unwrap();
    let text = r#"{"w":{"dtype":"BF16","shape":[700],"data_offsets":[0,1400]}}"#;
    put(fine.path(), "a.safetensors", &safetensors(text, &one.bytes));
    put(
        fine.path(),
        "b.safetensors",
        &safetensors(text, &other.bytes),
    );
    round_trip(base.path(), fine.path());
    // As when a folder holds a second copy in half precision: either may be the better base.
    for weights in [&one, &other] {
        let tuned = checkpoint(&[weights.tuned(1e-5, noise)], None);
        round_trip(fine.path(), tuned.path());
    }
}

/// Some of many layers are searched for predictions and stand for the others, which change by
/// more or less than they do. `round_trip` compares estimate and size.
#[test]
fn some_of_many_layers_stand_for_the_others_in_estimates() {
    let noise = &mut Noise::new(35);
    let parts = (0..40).map(|i| format!("layers.{}.{}.w", i / 2, ["up", "down"][i % 2]));
    let base: Vec<Made> = parts
        .map(|name| Made::random(&name, Dtype::BF16, &[128, 160], noise))
        .collect();
    let scale = |i: usize| 0.004 * (1 + i % 5) as f32;
    // One of the two matrices of most layers is merged, all others are as they were.
    let loras: Vec<Made> = base
        .iter()
        .enumerate()
        .map(|(i, made)| match i % 2 {
            0 if i > 2 => merged(made, scale(i), noise),
            _ => made.clone(),
        })
        .collect();
    let made = pair(&base, &loras);
    assert!(made.modes.contains_key("lowrank") && made.modes.contains_key("copy"));
    // And one with a change that is not low-rank on top.
    let tuned: Vec<Made> = loras.iter().map(|made| made.tuned(1e-4, noise)).collect();
    pair(&base, &tuned);
}

#[test]
fn info_says_how_most_chunks_are_coded() {
    let noise = &mut Noise::new(36);
    let words = |name: &str, words: Vec<u16>| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        Made::new(name, Dtype::BF16, &[100, 400], bytes)
    };
    let word = |noise: &mut Noise| 0x3c00 | noise.next() as u16 & 0x80ff;
    let old: Vec<u16> = (0..40_000).map(|_| word(noise)).collect();
    let mut moved = |often: u32| -> Vec<u16> {
        let step = |word: &u16| word + u16::from(noise.below(often) == 0);
        old.iter().map(step).collect()
    };
    let names = ["all", "few", "flat", "same"];
    let base = checkpoint(&names.map(|name| words(name, old.clone())), None);
    let fine = [moved(1), moved(4000), vec![0x3f80; 40_000], old.clone()];
    let fine: Vec<Made> = names
        .iter()
        .zip(fine)
        .map(|(name, w)| words(name, w))
        .collect();
    let fine = checkpoint(&fine, None);
    let work = tempfile::tempdir().unwrap();
    let delta = work.path().join("delta");
    make_delta(base.path(), fine.path(), &delta, 1);
    let info = sparse_delta::info(&delta).unwrap();
    let modes: Vec<_> = info
        .tensors
        .iter()
        .map(|t| (t.name.as_str(), t.mode))
        .collect();
    let expected = [
        ("all", "delta"),
        ("few", "sparse"),
        ("flat", "const"),
        ("same", "copy"),
    ];
    for (name, mode) in expected {
        assert!(modes.contains(&(name, mode)), "{name}: {modes:?}");
    }
}

#[test]
fn constant_tensors_are_a_few_bytes() {
    let ones = |name: &str, shape: &[u64], value: f32| {
        let count = shape.iter().product::<u64>() as usize;
        let bytes = common::number(Dtype::F32, value).repeat(count);
        Made::new(name, Dtype::F32, shape, bytes)
    };
    let base = [ones("norm", &[4096], 1.0), ones("bias", &[4096], 0.0)];
    let fine = [ones("norm", &[4096], 0.5), ones("bias", &[4096], -0.0)];
    let made = pair(&base, &fine);
    assert!(made.delta_bytes < 1200, "{made:?}");
    pair(&fine, &[ones("other", &[20_000], f32::NAN)]);
}

#[test]
fn bits_that_comparisons_miss_come_back() {
    let odd: [u32; 10] = [
        0x7fc0_1234,
        0xffff_ffff,
        0x7f80_0001,
        0x7f80_0000,
        0xff80_0000,
        0,
        1 << 31,
        1,
        0x8000_0001,
        0x7f7f_ffff,
    ];
    let words = |dtype: Dtype, order: &[u32]| -> Made {
        let width = dtype.bits() as usize / 8;
        let bytes = order
            .iter()
            .flat_map(|w| w.to_le_bytes()[4 - width..].to_vec());
        Made::new("w", dtype, &[order.len() as u64], bytes.collect())
    };
    for dtype in [
        Dtype::F32,
        Dtype::BF16,
        Dtype::F16,
        Dtype::F8_E4M3,
        Dtype::F8_E5M2,
    ] {
        let forward: Vec<u32> = odd.iter().copied().cycle().take(5000).collect();
        let mut other = forward.clone();
        other.rotate_left(3);
        pair(&[words(dtype, &forward)], &[words(dtype, &other)]);
        pair(&[words(dtype, &forward)], &[words(dtype, &forward)]);
        let noise = &mut Noise::new(9);
        let base = Made::random("w", dtype, &[5000], noise);
        pair(std::slice::from_ref(&base), &[words(dtype, &forward)]);
        pair(&[words(dtype, &forward)], &[base]);
    }
}

#[test]
fn the_base_may_be_of_another_dtype() {
    let wide = [Dtype::BF16, Dtype::F16, Dtype::F32];
    for from in wide {
        for to in wide.into_iter().filter(|&to| to != from) {
            let base = model(from, 10);
            let plain: Vec<Made> = base.iter().map(|t| t.cast(to)).collect();
            pair(&base, &tuned(&plain, 1e-4, 11));
            // An odd word cannot be had by casting: NaNs, infinities, subnormals.
            let mut odd = Made::random("wte.weight", to, &[300, 64], &mut Noise::new(12));
            odd.bytes = Noise::new(13).bytes(odd.bytes.len());
            pair(&base, &[odd]);
            if from == Dtype::F32 && to == Dtype::BF16 {
                let made = pair(&base, &plain);
                assert!(made.delta_bytes < 3000, "a plain cast: {made:?}");
            }
        }
    }
}

#[test]
fn half_precision_kept_in_fp32_costs_as_half_precision() {
    let base = model(Dtype::BF16, 14);
    let fine = tuned(&base, 1e-4, 15);
    let single = |ts: &[Made]| -> Vec<Made> { ts.iter().map(|t| t.cast(Dtype::F32)).collect() };
    let half = pair(&base, &fine);
    let full = pair(&single(&base), &single(&fine));
    assert!(full.delta_bytes < half.delta_bytes * 11 / 10, "{full:?}");
}

#[test]
fn strangers_are_no_larger_than_without_a_base() {
    let base = model(Dtype::BF16, 16);
    let fine = model(Dtype::BF16, 17);
    let against = pair(&base, &fine);
    let alone = pair(
        &[Made::random("x", Dtype::I8, &[3], &mut Noise::new(1))],
        &fine,
    );
    assert!(against.delta_bytes < alone.delta_bytes * 101 / 100 + 200);
    assert!(against.ratio() > 1.3, "{against:?}");
}

#[test]
fn random_bytes_never_grow() {
    let noise = &mut Noise::new(18);
    for dtype in [
        Dtype::U8,
        Dtype::BF16,
        Dtype::F16,
        Dtype::F32,
        Dtype::F64,
        Dtype::F8_E5M2,
    ] {
        let each = u64::from(dtype.bits() / 8);
        let tensor = |noise: &mut Noise| {
            Made::new(
                "w",
                dtype,
                &[600, 500],
                noise.bytes(300_000 * each as usize),
            )
        };
        let (base, fine) = (tensor(noise), tensor(noise));
        let made = pair(&[base], &[fine]); // the limit is in `round_trip`
        assert!(made.ratio() < 1.02);
    }
}

#[test]
fn headers_gaps_and_trailing_bytes_are_kept() {
    let base = tempfile::tempdir().unwrap();
    let fine = tempfile::tempdir().unwrap();
    let noise = &mut Noise::new(19);
    let data = noise.bytes(200);
    let text = r#"{"a":{"dtype":"BF16","shape":[20],"data_offsets":[0,40]},"b":{"dtype":"U8","shape":[3,5],"data_offsets":[40,55]}}"#;
    put(
        base.path(),
        "model.safetensors",
        &safetensors(text, &data[..55]),
    );
    let odd = [
        // Gaps before, between and after; keys out of order; odd white space.
        "{ \"b\" :{\"data_offsets\":[101,116],\"shape\":[3,5],\"dtype\":\"U8\"},\n\t\"__metadata__\":{\"k\":\"v \\u00e9\",\"format\":\"pt\"}, \"a\":{\"dtype\":\"BF16\",\"shape\":[20],\"data_offsets\":[7,47]} }   \n ",
        // No padding: data at an odd offset, weights unaligned.
        r#"{"__metadata__":{},"a":{"dtype":"BF16","shape":[20],"data_offsets":[1,41]}} "#,
        // No tensor at all.
        r#"{"__metadata__":{"only":"this"}}"#,
        "{}",
    ];
    for (number, text) in odd.iter().enumerate() {
        let name = format!("sub/{number}.safetensors");
        put(fine.path(), &name, &safetensors(text, &data));
    }
    put(fine.path(), "empty.safetensors", &safetensors("{}  ", &[]));
    round_trip(base.path(), fine.path());
    round_trip(fine.path(), base.path());
    round_trip(fine.path(), fine.path());
}

#[test]
fn files_beside_the_weights_come_back() {
    let weights = model(Dtype::BF16, 20);
    let (base, fine) = (checkpoint(&weights, None), checkpoint(&weights, None));
    let noise = &mut Noise::new(21);
    let text = "a tokenizer, say, with a merge on every line\n".repeat(200);
    let large = noise.bytes(3_000_000);
    for (path, of_base, of_fine) in [
        ("config.json", Some(b"{}".to_vec()), Some(b"{}".to_vec())),
        (
            "tokenizer.json",
            Some(text.clone().into()),
            Some(format!("{text}more").into()),
        ),
        ("new.txt", None, Some(b"new".to_vec())),
        ("gone.txt", Some(b"gone".to_vec()), None),
        ("empty", Some(vec![]), Some(vec![])),
        ("emptied", Some(b"1".to_vec()), Some(vec![])),
        ("filled", Some(vec![]), Some(b"2".to_vec())),
        (
            "a/b/c/deep.bin",
            Some(large.clone()),
            Some([b"x", large.as_slice()].concat()),
        ),
        ("a/b.bin", None, Some(noise.bytes(2_000_000))),
        ("zeros", None, Some(vec![0; 4_000_000])),
        ("ünï cödé", Some(b"1".to_vec()), Some(b"2".to_vec())),
    ] {
        for (dir, bytes) in [(&base, of_base), (&fine, of_fine)] {
            if let Some(bytes) = bytes {
                put(dir.path(), path, &bytes);
            }
        }
    }
    let made = round_trip(base.path(), fine.path());
    assert!(made.delta_bytes < 2_010_000, "{made:?}");
}

#[test]
fn estimates_see_the_end_of_a_file_and_tensors_that_are_equal() {
    let weights = model(Dtype::BF16, 22);
    let (base, fine) = (checkpoint(&weights, None), checkpoint(&weights, None));
    let text = "a line of a tokenizer\n".repeat(250_000).into_bytes();
    put(base.path(), "merges.txt", &text);
    let noise = Noise::new(23).bytes(700_000);
    put(fine.path(), "merges.txt", &[text, noise].concat());
    round_trip(base.path(), fine.path());
    let bias = |n: u32| Made::new(&format!("layer.{n}.bias"), Dtype::F32, &[64], vec![0; 256]);
    let biases: Vec<Made> = (0..400).map(bias).collect();
    pair(&biases, &biases);
    pair(&model(Dtype::F32, 24), &biases);
}

#[test]
fn the_smallest_and_the_most_files_cost_what_is_promised() {
    let one = [Made::new("w", Dtype::U8, &[1], vec![7])];
    pair(&one, &one);
    pair(&model(Dtype::BF16, 1), &one);
    let (base, fine) = (checkpoint(&one, None), checkpoint(&one, None));
    let noise = &mut Noise::new(26);
    for number in 0..200 {
        put(fine.path(), &format!("{number}"), &noise.bytes(500));
    }
    round_trip(base.path(), fine.path());
}

#[test]
fn a_file_beyond_any_dictionary_is_a_copy_if_it_is_equal() {
    let weights = model(Dtype::BF16, 27);
    let (base, fine) = (checkpoint(&weights, None), checkpoint(&weights, None));
    for dir in [&base, &fine] {
        let file = std::fs::File::create(dir.path().join("large.bin")).unwrap();
        file.set_len((64 << 20) + 1).unwrap(); // a hole
    }
    let work = tempfile::tempdir().unwrap();
    let [delta, back] = ["delta", "back"].map(|name| work.path().join(name));
    let made = make_delta(base.path(), fine.path(), &delta, 2);
    assert!(made.delta_bytes < 1200, "{made:?}");
    rebuild(base.path(), &delta, &back).unwrap();
    assert!(tree(&back) == tree(fine.path()));

    std::fs::write(base.path().join("large.bin"), "no more").unwrap();
    let error = rebuild(base.path(), &delta, &work.path().join("no")).unwrap_err();
    assert!(
        error.to_string().contains("file large.bin differs"),
        "{error}"
    );
}

#[test]
fn tensors_may_be_missing_on_either_side() {
    let base = model(Dtype::BF16, 22);
    let fine = tuned(&base, 1e-4, 23);
    pair(&base, &fine[1..3]);
    pair(&base[1..3], &fine);
    let transposed = Made::new("wte.weight", Dtype::BF16, &[64, 300], fine[0].bytes.clone());
    pair(&base, &[transposed]);
}

#[test]
fn many_chunks_come_back() {
    let noise = &mut Noise::new(24);
    // More than one chunk of weights and of raw bytes; rows of awkward lengths.
    let base = [
        Made::random("odd", Dtype::BF16, &[509, 1031], noise),
        Made::random("row", Dtype::BF16, &[600_001], noise),
        Made::random("int", Dtype::I16, &[700, 1001], noise),
        Made::random("double", Dtype::F64, &[300, 501], noise),
        Made::random("six", Dtype::F6_E2M3, &[1000, 1600], noise),
    ];
    let mut fine = tuned(&base, 1e-4, 25);
    fine.push(Made::random("new", Dtype::F16, &[509, 1031], noise));
    pair(&base, &fine);
}

#[derive(Debug, Clone, Copy)]
enum Relation {
    Equal,
    Tuned(u8),
    Stranger,
    OnlyBase,
    OnlyFine,
    Grown(u64),
    Cast(usize),
    Renamed,
}

fn relation() -> impl Strategy<Value = Relation> {
    prop_oneof![
        Just(Relation::Equal),
        (1u8..6).prop_map(Relation::Tuned),
        Just(Relation::Stranger),
        Just(Relation::OnlyBase),
        Just(Relation::OnlyFine),
        (1u64..5).prop_map(Relation::Grown),
        (0usize..3).prop_map(Relation::Cast),
        Just(Relation::Renamed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_pair_round_trips(
        tensors in proptest::collection::vec(
            (0..Dtype::ALL.len(), proptest::collection::vec(prop_oneof![0u64..3, 1u64..70], 0..4), relation()), 1..8),
        seed in 1u64..1_000_000,
        base_limit in prop_oneof![Just(u64::MAX), 1u64..5000],
        fine_limit in prop_oneof![Just(u64::MAX), 1u64..5000],
    ) {
        let noise = &mut Noise::new(seed);
        let wide = [Dtype::BF16, Dtype::F16, Dtype::F32];
        let (mut base, mut fine) = (Vec::new(), Vec::new());
        for (number, (dtype, mut shape, relation)) in tensors.into_iter().enumerate() {
            let dtype = Dtype::ALL[dtype];
            if !dtype.bits().is_multiple_of(8) {
                shape.push(4);
            }
            let name = format!("layer.{number}");
            let tensor = Made::random(&name, dtype, &shape, noise);
            let other = match relation {
                Relation::Equal => tensor.clone(),
                Relation::Tuned(size) => tensor.tuned(10f32.powi(-i32::from(size)), noise),
                Relation::Renamed => tensor.tuned(1e-4, noise).named(&format!("pre.{name}")),
                Relation::Cast(to) if wide.contains(&dtype) => tensor.cast(wide[to]),
                Relation::Grown(rows) if !shape.is_empty() && dtype.bits().is_multiple_of(8) => {
                    let more: Vec<u64> = [&[rows], &shape[1..]].concat();
                    let more = Made::random(&name, dtype, &more, noise);
                    shape[0] += rows;
                    Made::new(&name, dtype, &shape, [tensor.bytes.clone(), more.bytes].concat())
                }
                _ => Made::random(&name, dtype, &shape, noise),
            };
            if !matches!(relation, Relation::OnlyFine) {
                base.push(tensor);
            }
            if !matches!(relation, Relation::OnlyBase) {
                fine.push(other);
            }
        }
        let (base, fine) = (checkpoint(&base, Some(base_limit)), checkpoint(&fine, Some(fine_limit)));
        round_trip(base.path(), fine.path());
    }
}

#[test]
fn a_base_in_other_files_than_the_index_says_still_serves() {
    let weights = model(Dtype::BF16, 26);
    let base = checkpoint(&weights, None);
    let resharded = tempfile::tempdir().unwrap();
    write_weights(resharded.path(), &weights, Some(40_000));
    let fine = checkpoint(&tuned(&weights, 1e-4, 27), None);
    let work = tempfile::tempdir().unwrap();
    let (delta, out) = (work.path().join("d"), work.path().join("o"));
    make_delta(base.path(), fine.path(), &delta, 2);
    rebuild(resharded.path(), &delta, &out).unwrap();
    assert!(tree(fine.path()) == tree(&out));
}
