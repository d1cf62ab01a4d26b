//! Writes a few valid inputs for each target to `seeds/`.

use std::fs;
use std::path::Path;

use sparse_checkpoint::Checkpoint;
use sparse_codec::{Encoder, Fitter, Layout, Scales, encode_full};
use sparse_delta::fuzzing::{encode_raw, take_apart};
use sparse_delta::{CompressOptions, Effort, Existing, Silent, compress};
use sparse_fuzz::{base, bytes, checkpoint, put_part, words};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[1,13]},"b":{"dtype":"F4","shape":[],"data_offsets":[13,13]}}"#;
    put(
        "header",
        "gaps",
        &[
            &20u64.to_le_bytes(),
            header.replace("[],", "[0],").as_bytes(),
        ]
        .concat(),
    )?;
    put("header", "empty", b"\0\0\0\0\0\0\0\0{}")?;

    let (_dir, base) = base();
    for (name, fine) in [
        ("light", checkpoint(|i| u32::from(i % 3 == 0))),
        ("equal", checkpoint(|_| 0)),
        (
            "strange",
            checkpoint(|i| (i as u32).wrapping_mul(0x9e37_79b9)),
        ),
    ] {
        let fine_checkpoint = Checkpoint::open(fine.path())?;
        let out = fine.path().join("delta");
        let options = CompressOptions {
            effort: Effort::High,
            base_id: "base".to_owned(),
            threads: 1,
            existing: Existing::Keep,
        };
        compress(&base, &fine_checkpoint, &out, &options, &Silent)?;
        let (index, data) = take_apart(&out)?;
        put("index", name, &index)?;
        let mut artifact = Vec::new();
        put_part(&mut artifact, &index);
        artifact.extend(data);
        put("artifact", name, &artifact)?;
    }

    for (number, layout) in [Layout::BF16, Layout::F16, Layout::F32]
        .into_iter()
        .enumerate()
    {
        let (width, len) = (100u16, 1000u16);
        let base = words(layout, len.into());
        for (name, every) in [("dense", 3), ("sparse", 90)] {
            let step = |(i, &w): (usize, &u32)| w ^ u32::from(i % every == 0);
            let fine: Vec<u32> = base.iter().enumerate().map(step).collect();
            let (tables, scales, chunk) = match layout.bits() {
                16 => {
                    let narrow =
                        |words: &[u32]| words.iter().map(|&w| w as u16).collect::<Vec<_>>();
                    code(layout, &narrow(&base), &narrow(&fine))
                }
                _ => code(layout, &base, &fine),
            };
            let mut seed = vec![number as u8, 0];
            seed.extend(width.to_le_bytes());
            seed.extend(len.to_le_bytes());
            seed.extend([0, 0]);
            put_part(&mut seed, &scales);
            put_part(&mut seed, &tables);
            seed.extend(&chunk);
            let name = format!("{name}-{number}");
            put("chunk", &name, &seed)?;
            put("tables", &name, &tables)?;
            put(
                "scales",
                &name,
                &[&width.to_le_bytes(), scales.as_slice()].concat(),
            )?;
        }
        let mut full = vec![number as u8, 1];
        full.extend(width.to_le_bytes());
        full.extend(len.to_le_bytes());
        full.extend([0; 6]);
        encode_full(layout, 100, &base, &mut full);
        put("chunk", &format!("full-{number}"), &full)?;
        let mut seed = vec![number as u8, number as u8, 64, 0];
        seed.extend(bytes(layout, &base[..200]));
        put("round_trip", &format!("words-{number}"), &seed)?;
    }
    put("low_rank", "zeros", &[&[0, 4, 4, 1][..], &[0; 40]].concat())?;
    let text = b"chunks of bytes, of bytes, of bytes".repeat(4);
    for (name, base) in [("plain", None), ("xor", Some(vec![0x5a; text.len()]))] {
        let coded = encode_raw(base.as_deref(), &text, 4)?;
        let head = [8 | u8::from(base.is_some()), text.len() as u8, 0];
        put("raw_chunk", name, &[&head[..], &coded].concat())?;
    }
    Ok(())
}

/// Tables, scales and a chunk.
fn code<W: sparse_codec::Word>(
    layout: Layout,
    base: &[W],
    fine: &[W],
) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let segment = Scales::segment_for(100);
    let runs = base.chunks(segment).zip(fine.chunks(segment)).enumerate();
    let mut fitter = Fitter::new(layout);
    fitter.add(
        100,
        fine.len() as u64,
        runs.map(|(i, (b, f))| (i * segment, b, f)),
    );
    let fit = fitter.fit();
    let (mut tables, mut scales, mut chunk) = (Vec::new(), Vec::new(), Vec::new());
    fit.tables.write(&mut tables);
    fit.scales[0].write(&mut scales);
    Encoder::new(layout, &fit).encode(&fit.scales[0], 0, base, fine, &mut chunk);
    (tables, scales, chunk)
}

fn put(target: &str, name: &str, seed: &[u8]) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), seed)?)
}
