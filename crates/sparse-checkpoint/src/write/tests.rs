use std::fs;

use super::*;
use crate::Checkpoint;

fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("b", Dtype::F16, [3]),
        TensorSpec::new("a", Dtype::F16, [2, 2]),
        TensorSpec::new("c", Dtype::F32, [1]),
        TensorSpec::new("none", Dtype::F32, [0]),
    ]
}

/// Fills every tensor with the first letter of its name.
fn letters(spec: &TensorSpec, out: &mut TensorWriter<'_>) -> Result<(), Error> {
    let letter = spec.name.as_bytes()[0];
    let bytes = spec.bytes().unwrap();
    (0..bytes).try_for_each(|_| out.write_all(&[letter]))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn one_file_reads_back_with_aligned_tensors() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &specs(), &WriteOptions::default(), letters).unwrap();
    assert_eq!(names(dir.path()), ["model.safetensors"]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let order: Vec<_> = checkpoint.tensors().map(|tensor| tensor.name()).collect();
    assert_eq!(order, ["c", "none", "a", "b"], "by dtype, then by name");
    for tensor in checkpoint.tensors() {
        assert!(
            tensor
                .bytes()
                .unwrap()
                .iter()
                .all(|&byte| byte == tensor.name().as_bytes()[0])
        );
        let size = u64::from(tensor.dtype().bytes().unwrap());
        assert_eq!(
            (tensor.shard().data_start() + tensor.info().range().start) % size,
            0
        );
    }
    let shard = &checkpoint.shards()[0];
    assert_eq!(shard.header().metadata()["format"], "pt");
    assert!(shard.gaps().is_empty());
}

#[test]
fn shards_are_cut_at_the_limit_and_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions {
        max_shard_bytes: Some(10),
        ..WriteOptions::default()
    };
    write_shards(dir.path(), &specs(), &options, letters).unwrap();
    assert_eq!(
        names(dir.path()),
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            "model.safetensors.index.json",
        ]
    );
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.tensor("c").unwrap().bytes().unwrap(), b"cccc");
    assert_eq!(
        checkpoint.tensor("a").unwrap().shard().path().as_str(),
        names(dir.path())[1]
    );
}

#[test]
fn a_tensor_larger_than_the_limit_gets_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions {
        max_shard_bytes: Some(1),
        ..WriteOptions::default()
    };
    let paths = write_shards(dir.path(), &specs()[..3], &options, letters).unwrap();
    assert_eq!(paths.len(), 4, "three shards and their index");
}

#[test]
fn a_wrong_length_leaves_nothing_behind() {
    for (written, found) in [(3, 3), (5, 5)] {
        let dir = tempfile::tempdir().unwrap();
        let specs = [TensorSpec::new("w", Dtype::F32, [1])];
        let error = write_shards(dir.path(), &specs, &WriteOptions::default(), |_, out| {
            out.write_all(&vec![0; written])
        })
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("\"w\" needs 4 bytes, {found} were written"))
        );
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn an_error_of_the_caller_passes_through_and_leaves_nothing_behind() {
    #[derive(Debug)]
    struct Mine;
    impl From<Error> for Mine {
        fn from(_: Error) -> Mine {
            Mine
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let result = write_shards(dir.path(), &specs(), &WriteOptions::default(), |_, _| {
        Err(Mine)
    });
    assert!(result.is_err());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn impossible_tensors_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let same = [
        TensorSpec::new("w", Dtype::U8, [1]),
        TensorSpec::new("w", Dtype::U8, [1]),
    ];
    let huge = [TensorSpec::new("w", Dtype::F32, [u64::MAX, 2])];
    let odd = [TensorSpec::new("w", Dtype::F4, [3])];
    let reserved = [TensorSpec::new("__metadata__", Dtype::U8, [1])];
    let limited = WriteOptions {
        max_shard_bytes: Some(1),
        ..WriteOptions::default()
    };
    for specs in [&same[..], &huge, &odd, &reserved] {
        for options in [&WriteOptions::default(), &limited] {
            assert!(
                write_shards(dir.path(), specs, options, letters).is_err(),
                "{specs:?}"
            );
        }
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_shard_must_get_all_of_its_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("x.safetensors");
    let writer = ShardWriter::create(&target, &specs(), &BTreeMap::new()).unwrap();
    assert!(
        writer
            .finish()
            .unwrap_err()
            .to_string()
            .contains("0 of 4 tensors")
    );
    let mut writer = ShardWriter::create(&target, &[], &BTreeMap::new()).unwrap();
    assert!(
        writer.write_tensor(letters).is_err(),
        "there is none to write"
    );
    writer.finish().unwrap();
    assert_eq!(names(dir.path()), ["x.safetensors"]);
}
