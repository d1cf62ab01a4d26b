//! Damaged artifacts and wrong bases: always noticed, never a panic, never wrong output.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Made, Noise, make_delta, put, rebuild, safetensors, tree, write_weights};
use sparse_checkpoint::{Checkpoint, Dtype};
use sparse_delta::{Error, Existing, Silent, info, reconstruct_tensor, verify};
use tempfile::TempDir;

/// A base, a fine-tune that uses every part of the format, and its delta.
struct Fixture {
    dir: TempDir,
    delta: Vec<u8>,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let [base, fine] = ["base", "fine"].map(|name| dir.path().join(name));
        fs::create_dir(&base).unwrap();
        fs::create_dir(&fine).unwrap();
        let noise = &mut Noise::new(1);
        let bf16 = |name: &str, shape: &[u64], noise: &mut Noise| {
            Made::random(name, Dtype::BF16, shape, noise)
        };
        let of_base = vec![
            bf16("copied", &[600], noise),
            bf16("delta", &[20, 30], noise),
            bf16("grown", &[8, 20], noise),
            bf16("cast", &[300], noise),
            bf16("sparse", &[900], noise),
            Made::random("raw", Dtype::I32, &[100], noise),
            Made::random("unused", Dtype::I32, &[10], noise),
        ];
        let mut of_fine = of_base[..6].to_vec();
        of_fine[1] = of_base[1].tuned(1e-3, noise);
        of_fine[2] = bf16("grown", &[10, 20], noise);
        of_fine[2].bytes[..320].copy_from_slice(&of_base[2].tuned(1e-4, noise).bytes);
        of_fine[3] = of_base[3].cast(Dtype::F32).tuned(1e-5, noise);
        of_fine[4].bytes[700] ^= 1;
        of_fine[5] = of_base[5].tuned(0.0, noise);
        of_fine.push(bf16("full", &[25, 10], noise));
        of_fine.push(of_fine[0].named("tied"));
        of_fine.push(Made::new(
            "constant",
            Dtype::F32,
            &[64],
            [0, 0, 128, 63].repeat(64),
        ));
        of_fine.push(Made::random("bytes", Dtype::U8, &[50], noise));
        write_weights(&base, &of_base, None);
        write_weights(&fine, &of_fine, Some(3000));
        let text = r#"{"odd":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#;
        put(&fine, "gaps.safetensors", &safetensors(text, b"abcdefgh"));
        put(&base, "config.json", b"{\"a\": 1, \"b\": [1, 2, 3]}");
        put(&fine, "config.json", b"{\"a\": 2, \"b\": [1, 2, 3]}");
        put(&base, "same.txt", b"equal in both");
        put(&fine, "same.txt", b"equal in both");
        put(&fine, "new.txt", b"only in the fine-tune");
        make_delta(&base, &fine, &dir.path().join("delta"), 1);
        let delta = fs::read(dir.path().join("delta/delta.safetensors")).unwrap();
        Fixture { dir, delta }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A delta folder with these bytes.
    fn with(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let folder = self.path(name);
        put(&folder, "delta.safetensors", bytes);
        folder
    }

    fn open_base(&self) -> Checkpoint {
        Checkpoint::open(&self.path("base")).unwrap()
    }

    /// Rebuilding either fails, leaving nothing, or gives the original.
    fn never_wrong(&self, delta: &Path) -> bool {
        let out = delta.with_extension("out");
        match rebuild(&self.path("base"), delta, &out) {
            Ok(()) => {
                let same = tree(&out) == tree(&self.path("fine"));
                fs::remove_dir_all(&out).unwrap();
                assert!(same, "a damaged delta was rebuilt to something else");
                true
            }
            Err(error) => {
                assert!(!out.exists());
                // What is damaged is named, however far the decoder came.
                assert!(!matches!(error, Error::Mismatch { .. }), "{error}");
                assert!(error.hint().is_some(), "{error}");
                false
            }
        }
    }
}

fn seems_whole(delta: &Path, base: Option<&Checkpoint>) -> bool {
    verify(delta, base, 1, &Silent).is_ok_and(|problems| problems.is_empty())
}

#[test]
fn the_fixture_uses_every_mode() {
    let fixture = Fixture::new();
    let info = info(&fixture.path("delta")).unwrap();
    for mode in ["copy", "alias", "delta", "full", "raw"] {
        assert!(info.tensors.iter().any(|t| t.mode == mode), "{mode}");
    }
    for kind in ["shard", "copy", "against-base", "packed"] {
        assert!(info.files.iter().any(|f| f.kind == kind), "{kind}");
    }
    assert!(fixture.never_wrong(&fixture.path("delta")));
}

/// Every byte of the artifact is flipped in several ways. `verify` notices, but for two kinds that
/// change nothing: white space for white space in the padded header, and bits of the index's zstd
/// frame that its decoder ignores (the unpacked index has a checksum, and is the same).
#[test]
fn every_flipped_byte_is_noticed() {
    let fixture = Fixture::new();
    let base = fixture.open_base();
    let data = 256..256 + data_len(&fixture.delta);
    let shown = format!("{:?}", info(&fixture.path("delta")).unwrap());
    std::thread::scope(|scope| {
        for (thread, flip) in [0x01u8, 0xff, 0x80, 0x29].into_iter().enumerate() {
            let (fixture, base, data, shown) = (&fixture, &base, data.clone(), &shown);
            scope.spawn(move || {
                let mut bytes = fixture.delta.clone();
                let mut unnoticed_in_index = 0;
                for at in 0..bytes.len() {
                    bytes[at] ^= flip;
                    let delta = fixture.with(&format!("flipped{thread}"), &bytes);
                    let unnoticed = seems_whole(&delta, None);
                    if unnoticed {
                        let blank = at < 256 && bytes[at] == b'\t';
                        let in_index = at >= data.end;
                        assert!(blank || in_index, "byte {at} ^ {flip:#x}");
                        assert_eq!(format!("{:?}", info(&delta).unwrap()), *shown);
                        assert!(fixture.never_wrong(&delta), "byte {at} ^ {flip:#x}");
                        unnoticed_in_index += usize::from(in_index);
                    } else if at % 16 == thread {
                        fixture.never_wrong(&delta);
                    }
                    // Decoders see damage that the digests would have stopped, too.
                    if flip == 0xff && data.contains(&at) {
                        assert!(!seems_whole(&delta, Some(base)), "byte {at}");
                    }
                    bytes[at] ^= flip;
                }
                assert!(unnoticed_in_index <= 8, "{unnoticed_in_index}");
            });
        }
    });
}

/// Bytes of the data section, as the header says.
fn data_len(delta: &[u8]) -> usize {
    let text = std::str::from_utf8(&delta[8..256]).unwrap();
    let shape = text
        .split(r#""data":{"dtype":"U8","shape":["#)
        .nth(1)
        .unwrap();
    shape.split(']').next().unwrap().parse().unwrap()
}

#[test]
fn every_truncation_is_noticed() {
    let fixture = Fixture::new();
    for len in 0..fixture.delta.len() {
        let delta = fixture.with("cut", &fixture.delta[..len]);
        assert!(!seems_whole(&delta, None), "{len} bytes");
        if len % 61 == 0 {
            assert!(!fixture.never_wrong(&delta));
        }
    }
}

#[test]
fn bytes_after_the_end_are_noticed() {
    let fixture = Fixture::new();
    let longer = [fixture.delta.as_slice(), &[0; 9]].concat();
    let delta = fixture.with("longer", &longer);
    assert!(!seems_whole(&delta, None));
}

#[test]
fn other_folders_are_no_deltas() {
    let fixture = Fixture::new();
    for path in ["nowhere", "base", "delta/delta.safetensors"] {
        let error = verify(&fixture.path(path), None, 1, &Silent).unwrap_err();
        assert!(matches!(error, Error::NotADelta { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    let other = fixture.with(
        "other",
        &fs::read(fixture.path("base/model.safetensors")).unwrap(),
    );
    let error = verify(&other, None, 1, &Silent).unwrap_err();
    assert!(matches!(error, Error::NotADelta { .. }), "{error}");
}

#[test]
fn a_later_version_is_not_called_damage() {
    let fixture = Fixture::new();
    let mut bytes = fixture.delta.clone();
    let needle = br#""format_version":"1""#;
    let at = bytes
        .windows(needle.len())
        .position(|w| w == needle)
        .unwrap();
    bytes[at + needle.len() - 2] = b'7';
    let delta = fixture.with("later", &bytes);
    for error in [
        verify(&delta, None, 1, &Silent).unwrap_err(),
        info(&delta).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Version { found: 7, .. }), "{error}");
        assert!(error.hint().unwrap().contains("update"));
    }
}

/// Rebuilding fails for the base in `path`; the error names `what`.
fn refused(fixture: &Fixture, base: &Path, what: &str) {
    let (delta, out) = (fixture.path("delta"), fixture.path("refused"));
    let error = rebuild(base, &delta, &out).unwrap_err();
    assert!(error.to_string().contains(what), "{error}");
    assert!(error.hint().is_some(), "{error}");
    assert!(!out.exists());
    if let Ok(base) = Checkpoint::open(base) {
        assert!(!seems_whole(&delta, Some(&base)));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_base_is_noticed() {
    let fixture = Fixture::new();
    let base = fixture.path("base");
    let whole = fs::read(base.join("model.safetensors")).unwrap();
    let opened = fixture.open_base();
    for tensor in opened.tensors() {
        let start = opened.shards()[0].data_start() + tensor.info().range().start;
        for (byte, bit) in [
            (0, 0),
            (tensor.byte_len() / 2, 3),
            (tensor.byte_len() - 1, 7),
        ] {
            let mut bytes = whole.clone();
            bytes[(start + byte) as usize] ^= 1 << bit;
            put(&fixture.path("flipped"), "model.safetensors", &bytes);
            for file in ["config.json", "same.txt"] {
                let copy = fs::read(base.join(file)).unwrap();
                put(&fixture.path("flipped"), file, &copy);
            }
            if tensor.name() == "unused" {
                let out = fixture.path("fine-again");
                rebuild(&fixture.path("flipped"), &fixture.path("delta"), &out).unwrap();
                fs::remove_dir_all(out).unwrap();
                continue;
            }
            let name = format!("tensor {:?} differs", tensor.name());
            refused(&fixture, &fixture.path("flipped"), &name);
            // One tensor alone checks its own base only.
            let flipped = Checkpoint::open(&fixture.path("flipped")).unwrap();
            let out = fixture.path("one.safetensors");
            let delta = fixture.path("delta");
            let error = reconstruct_tensor(
                &flipped,
                &delta,
                tensor.name(),
                &out,
                Existing::Keep,
                &Silent,
            );
            assert!(matches!(error, Err(Error::BaseDiffers { .. })), "{error:?}");
            assert!(!out.exists());
            let other = if tensor.name() == "delta" {
                "cast"
            } else {
                "delta"
            };
            reconstruct_tensor(&flipped, &delta, other, &out, Existing::Keep, &Silent).unwrap();
            fs::remove_file(out).unwrap();
        }
    }
}

#[test]
fn another_base_is_refused() {
    let fixture = Fixture::new();
    let original = fixture.path("base/model.safetensors");
    let whole = fs::read(&original).unwrap();
    let text = String::from_utf8_lossy(&whole[8..]).into_owned();
    let other = fixture.path("other");
    // Renamed, another shape, another dtype, cut short, nothing of it.
    for (from, to, what) in [
        ("\"copied\"", "\"copies\"", "it has no tensor \"copied\""),
        (
            "[20,30]",
            "[30,20]",
            "tensor \"delta\" differs: expected BF16 [20, 30]",
        ),
        (
            "{\"dtype\":\"I32\",\"shape\":[100]",
            "{\"dtype\":\"U32\",\"shape\":[100]",
            "tensor \"raw\"",
        ),
    ] {
        let at = text
            .find(from)
            .unwrap_or_else(|| panic!("{from} in {text}"))
            + 8;
        let mut bytes = whole.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        put(&other, "model.safetensors", &bytes);
        refused(&fixture, &other, what);
    }
    put(&other, "model.safetensors", &whole[..whole.len() - 1]);
    refused(&fixture, &other, "shard is");
    put(&other, "model.safetensors", &safetensors("{}", &[]));
    refused(&fixture, &other, "it has no tensor");
    // Files count, too.
    put(&other, "model.safetensors", &whole);
    refused(&fixture, &other, "it has no file config.json");
    put(&other, "config.json", b"{\"a\": 9, \"b\": [1, 2, 3]}");
    put(&other, "same.txt", b"equal in both");
    refused(&fixture, &other, "config.json");
    let config = fs::read(fixture.path("base/config.json")).unwrap();
    put(&other, "config.json", &config);
    put(&other, "same.txt", b"EQUAL in both");
    refused(&fixture, &other, "file same.txt differs: expected SHA-256");
    put(&other, "config.json", b"{}");
    refused(&fixture, &other, "config.json differs: expected 24 bytes");
}

#[test]
fn an_unknown_tensor_gets_a_suggestion() {
    let fixture = Fixture::new();
    let (base, out) = (fixture.open_base(), fixture.path("one.safetensors"));
    let get = |name: &str| {
        let delta = fixture.path("delta");
        reconstruct_tensor(&base, &delta, name, &out, Existing::Keep, &Silent).unwrap_err()
    };
    assert_eq!(get("model.grown").hint().unwrap(), "did you mean grown?");
    assert!(get("zzz").hint().unwrap().contains("sparse delta info"));
    assert!(!out.exists());
}

#[test]
fn an_existing_output_is_never_touched() {
    let fixture = Fixture::new();
    put(&fixture.path("out"), "mine", b"precious");
    let error = rebuild(
        &fixture.path("base"),
        &fixture.path("delta"),
        &fixture.path("out"),
    );
    assert!(matches!(
        error,
        Err(Error::Checkpoint(
            sparse_checkpoint::Error::OutputExists { .. }
        ))
    ));
    assert_eq!(tree(&fixture.path("out")).len(), 1);
}
