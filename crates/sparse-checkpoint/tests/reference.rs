//! The reference implementation reads what is written here, and the other way round.
#![allow(clippy::unwrap_used)]

use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use sparse_checkpoint::{
    Checkpoint, Dtype, TensorSpec, TensorWriter, WriteOptions, parse_header, write_shards,
};

/// One tensor of every type, named after it, and an empty one.
fn specs() -> Vec<TensorSpec> {
    let named = Dtype::ALL
        .into_iter()
        .map(|dtype| TensorSpec::new(dtype.name(), dtype, [3, 8]));
    named
        .chain([TensorSpec::new("empty", Dtype::BF16, [0, 8])])
        .collect()
}

fn content(spec: &TensorSpec) -> Vec<u8> {
    let seed = spec.name.len() as u8;
    (0..spec.bytes().unwrap())
        .map(|at| (at as u8).wrapping_mul(31) ^ seed)
        .collect()
}

fn fill(spec: &TensorSpec, out: &mut TensorWriter<'_>) -> Result<(), sparse_checkpoint::Error> {
    out.write_all(&content(spec))
}

#[test]
fn the_reference_reads_what_is_written_here() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &specs(), &WriteOptions::default(), fill).unwrap();
    let bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), specs().len());
    for spec in specs() {
        let tensor = read.tensor(&spec.name).unwrap();
        let shape: Vec<u64> = tensor.shape().iter().map(|&size| size as u64).collect();
        assert_eq!(
            (tensor.dtype().to_string(), shape),
            (spec.dtype.to_string(), spec.shape.clone())
        );
        assert_eq!(tensor.data(), content(&spec));
    }
}

#[test]
fn what_the_reference_writes_is_read_here_and_is_the_same_file() {
    let owned: Vec<_> = specs()
        .into_iter()
        .map(|spec| (content(&spec), spec))
        .collect();
    let views = owned.iter().map(|(data, spec)| {
        let dtype = serde_json::from_value(serde_json::json!(spec.dtype)).unwrap();
        let shape = spec.shape.iter().map(|&size| size as usize).collect();
        (
            spec.name.clone(),
            TensorView::new(dtype, shape, data).unwrap(),
        )
    });
    let metadata = WriteOptions::default().metadata.into_iter().collect();
    let theirs = serialize(views, Some(metadata)).unwrap();

    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &specs(), &WriteOptions::default(), fill).unwrap();
    assert_eq!(
        fs::read(dir.path().join("model.safetensors")).unwrap(),
        theirs
    );
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for (data, spec) in &owned {
        assert_eq!(
            checkpoint.tensor(&spec.name).unwrap().bytes().unwrap(),
            data
        );
    }
}

#[test]
fn whatever_the_reference_accepts_is_accepted_here() {
    // Not the other way round: holes between tensors are refused there.
    for (text, data) in [
        ("{}", 0),
        ("{}   ", 0),
        (r#"{"__metadata__":{"a":"b"}}"#, 0),
        (
            r#"{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
            4,
        ),
        (
            r#"{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4],"more":[{}]}}"#,
            4,
        ),
        (
            r#"{"e":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"f":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            1,
        ),
    ] {
        let file = [
            &(text.len() as u64).to_le_bytes(),
            text.as_bytes(),
            &vec![0; data],
        ]
        .concat();
        SafeTensors::deserialize(&file).unwrap();
        parse_header(text.as_bytes(), data as u64).unwrap();
    }
}
