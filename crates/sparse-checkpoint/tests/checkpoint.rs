//! Opening directories as they are found in the wild: whole, odd and broken.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use sparse_checkpoint::{
    Checkpoint, Dtype, Error, TensorSpec, TensorWriter, WriteOptions, write_shards,
};
use tempfile::TempDir;

/// A safetensors file with this header text and data.
fn safetensors(text: &str, data: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data].concat()
}

fn one_byte(name: &str, value: u8) -> Vec<u8> {
    let text = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
    safetensors(&text, &[value])
}

fn dir(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

fn open_error(dir: &Path) -> Error {
    Checkpoint::open(dir).unwrap_err()
}

#[test]
fn everything_in_the_folder_is_listed_once_and_in_order() {
    let dir = dir(&[
        ("unet/b.safetensors", &one_byte("b", 2)),
        ("a.safetensors", &one_byte("a", 1)),
        ("config.json", br#"{"model_type":"gpt2"}"#),
        ("unet/config.json", b"{}"),
        (".gitattributes", b"*"),
        (".git/HEAD", b"ref"),
        (".cache/huggingface/x", b"x"),
    ]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let shards: Vec<_> = checkpoint
        .shards()
        .iter()
        .map(|s| s.path().as_str())
        .collect();
    let files: Vec<_> = checkpoint
        .files()
        .iter()
        .map(|f| f.path().as_str())
        .collect();
    assert_eq!(shards, ["a.safetensors", "unet/b.safetensors"]);
    assert_eq!(files, [".gitattributes", "config.json", "unet/config.json"]);
    assert_eq!(checkpoint.config().unwrap()["model_type"], "gpt2");
    let sizes = checkpoint.shards().iter().map(|s| s.size());
    let expected = sizes
        .chain(checkpoint.files().iter().map(|f| f.size()))
        .sum::<u64>();
    assert_eq!(checkpoint.total_bytes(), expected);
    assert_eq!(checkpoint.tensor("b").unwrap().bytes().unwrap(), [2]);
    assert!(checkpoint.tensor("c").is_none());
    assert!(checkpoint.file("config.json").is_some());
}

#[test]
fn bytes_that_belong_to_no_tensor_can_be_read() {
    let text = r#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}  "#;
    let file = safetensors(text, &[9, 1, 2, 8, 7]);
    let dir = dir(&[("model.safetensors", &file)]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let shard = &checkpoint.shards()[0];
    assert_eq!(shard.header_text(), text);
    assert_eq!(shard.gaps(), [0..1, 3..5]);
    let mut tail = [0; 2];
    shard.read_at(shard.data_start() + 3, &mut tail).unwrap();
    assert_eq!(tail, [8, 7]);
    assert_eq!(&shard.map().unwrap()[..], file);
    let w = shard.tensor("w").unwrap();
    assert_eq!(w.bytes().unwrap(), [1, 2]);
}

#[test]
fn reads_outside_of_a_tensor_are_refused() {
    let dir = dir(&[("model.safetensors", &one_byte("w", 5))]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let w = checkpoint.tensor("w").unwrap();
    let mut byte = [0];
    w.read_range(0..1, &mut byte).unwrap();
    assert_eq!(byte, [5]);
    w.read_range(1..1, &mut []).unwrap();
    #[allow(clippy::reversed_empty_ranges)]
    for range in [1..2, 0..2, 1..0, 0..0, u64::MAX..u64::MAX] {
        let error = w.read_range(range, &mut byte).unwrap_err().to_string();
        assert!(
            error.contains("tensor \"w\"") && error.contains("model.safetensors"),
            "{error}"
        );
    }
    let shard = w.shard();
    assert!(shard.read_at(shard.size(), &mut byte).is_err());
    assert!(shard.read_at(u64::MAX, &mut byte).is_err());
}

#[test]
fn a_name_in_several_shards_is_resolved_by_the_index_or_else_by_path_order() {
    let files: &[(&str, &[u8])] = &[
        ("1.safetensors", &one_byte("w", 1)),
        ("2.safetensors", &one_byte("w", 2)),
    ];
    let folder = dir(files);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().bytes().unwrap(), [1]);
    assert_eq!(checkpoint.tensors().count(), 2);

    let index = br#"{"metadata":{"total_size":1},"weight_map":{"w":"2.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().bytes().unwrap(), [2]);
}

#[test]
fn an_index_must_name_what_is_there() {
    for (index, expected) in [
        (
            r#"{"weight_map":{"w":"2.safetensors"}}"#,
            r#"tensor "w" should be in shard "2.safetensors", which is missing"#,
        ),
        (
            r#"{"weight_map":{"v":"1.safetensors"}}"#,
            r#"tensor "v" should be in shard "1.safetensors", which does not hold it"#,
        ),
        (
            r#"{"weight_map":{"w":"../1.safetensors"}}"#,
            "which is missing",
        ),
        (
            r#"{"weight_map":{"w":"1.safetensors","w":"1.safetensors"}}"#,
            "\"w\" appears twice",
        ),
        ("{}", "missing field `weight_map`"),
        ("", "EOF"),
    ] {
        let dir = dir(&[
            ("sub/1.safetensors", &one_byte("w", 1)),
            ("sub/x.safetensors.index.json", index.as_bytes()),
        ]);
        let message = open_error(dir.path()).to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("x.safetensors.index.json"), "{message}");
    }
}

#[test]
fn a_truncated_shard_says_how_much_is_there_and_how_much_is_promised() {
    let whole = one_byte("w", 1);
    let dir = dir(&[("model.safetensors", &whole[..whole.len() - 1])]);
    let error = open_error(dir.path());
    let expected = format!(
        "shard is {} bytes, header promises {}",
        whole.len() - 1,
        whole.len()
    );
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(error.hint().unwrap().contains("again"));
}

#[test]
fn every_truncation_and_every_flipped_byte_is_an_error_or_a_valid_checkpoint() {
    let spec = [
        TensorSpec::new("w", Dtype::F16, [2]),
        TensorSpec::new("v", Dtype::F32, [1]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let fill = |_: &TensorSpec, out: &mut TensorWriter<'_>| out.write_all(&[1; 4]);
    write_shards(dir.path(), &spec, &WriteOptions::default(), fill).unwrap();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let message = open_error(dir.path()).to_string();
        assert!(message.contains("model.safetensors"), "{message}");
    }
    for at in 0..whole.len() {
        for mask in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= mask;
            fs::write(&path, &damaged).unwrap();
            match Checkpoint::open(dir.path()) {
                Err(error) => assert!(error.to_string().contains("model.safetensors"), "{error}"),
                Ok(checkpoint) => checkpoint.tensors().for_each(|tensor| {
                    assert_eq!(tensor.bytes().unwrap().len() as u64, tensor.byte_len());
                }),
            }
        }
    }
}

#[test]
fn a_file_that_shrinks_after_opening_is_reported_not_a_crash() {
    let dir = dir(&[
        ("model.safetensors", &one_byte("w", 1)),
        ("config.json", b"{}"),
    ]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    for name in ["model.safetensors", "config.json"] {
        fs::File::options()
            .write(true)
            .open(dir.path().join(name))
            .unwrap()
            .set_len(1)
            .unwrap();
    }
    let w = checkpoint.tensor("w").unwrap();
    for error in [
        w.read_range(0..1, &mut [0]).unwrap_err(),
        w.bytes().unwrap_err(),
        checkpoint.config().unwrap_err(),
    ] {
        assert!(matches!(error, Error::Changed { found: 1, .. }), "{error}");
    }
}

#[test]
fn a_folder_without_weights_lists_what_it_has() {
    let empty = open_error(dir(&[]).path());
    assert!(empty.to_string().contains("found nothing"), "{empty}");
    let torch = open_error(dir(&[("pytorch_model.bin", b""), ("config.json", b"{}")]).path());
    assert!(
        torch.to_string().contains("config.json, pytorch_model.bin"),
        "{torch}"
    );
    assert!(torch.hint().unwrap().contains("convert"));
}

#[test]
fn what_is_not_a_checkpoint_is_named() {
    let dir = dir(&[("model.safetensors", &one_byte("w", 1))]);
    let missing = open_error(&dir.path().join("nowhere"));
    assert!(matches!(missing, Error::NotFound { .. }) && missing.to_string().contains("nowhere"));
    let file = open_error(&dir.path().join("model.safetensors"));
    assert!(matches!(file, Error::NotADirectory { .. }));
    let config = Checkpoint::open(dir.path()).unwrap().config().unwrap_err();
    assert!(
        config.to_string().contains("config.json does not exist"),
        "{config}"
    );
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    let error = open_error(dir(&[("model.safetensors", pointer)]).path());
    assert!(error.hint().unwrap().contains("git lfs pull"), "{error}");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_to_files_are_followed_and_links_to_folders_are_not() {
        let blobs = dir(&[("blob", &one_byte("w", 7))]);
        let dir = dir(&[("config.json", b"{}")]);
        symlink(
            blobs.path().join("blob"),
            dir.path().join("model.safetensors"),
        )
        .unwrap();
        symlink(dir.path(), dir.path().join("loop")).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.tensor("w").unwrap().bytes().unwrap(), [7]);
        assert_eq!(checkpoint.files().len(), 1);
        assert_eq!(checkpoint.skipped()[0].as_str(), "loop");
    }

    #[test]
    fn whatever_is_not_a_file_is_named() {
        let gone = dir(&[]);
        symlink("nowhere", gone.path().join("model.safetensors")).unwrap();
        assert!(
            open_error(gone.path())
                .to_string()
                .contains("a link to a missing file")
        );

        let socket = dir(&[]);
        let _listener = UnixListener::bind(socket.path().join("s")).unwrap();
        assert!(
            open_error(socket.path())
                .to_string()
                .contains("s is a socket")
        );
    }

    #[test]
    fn names_that_could_not_be_restored_are_errors() {
        for name in [&b"\xff"[..], b"a\\b", b"nul.json"] {
            let dir = tempfile::tempdir().unwrap();
            let name = std::ffi::OsStr::from_bytes(name);
            // Not every file system takes such a name in the first place.
            if fs::write(dir.path().join(name), b"").is_ok() {
                assert!(open_error(dir.path()).hint().unwrap().contains("rename"));
            }
        }
    }
}

#[test]
fn a_checkpoint_can_be_read_from_many_threads() {
    let dir = dir(&[("model.safetensors", &one_byte("w", 5))]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let w = checkpoint.tensor("w").unwrap();
                let mut byte = [0];
                w.read_range(0..1, &mut byte).unwrap();
                assert_eq!(byte, w.bytes().unwrap());
            });
        }
    });
}

#[test]
fn tensors_are_the_same_by_their_bytes() {
    let long = |name: &str, last: u8| {
        let length = (1 << 20) + 1;
        let text = format!(
            r#"{{"{name}":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#
        );
        let mut data = vec![7; length];
        data[length - 1] = last;
        safetensors(&text, &data)
    };
    let dir = dir(&[
        ("a.safetensors", &long("a", 1)),
        ("b.safetensors", &long("b", 1)),
        ("c.safetensors", &long("c", 2)),
        ("d.safetensors", &one_byte("d", 7)),
    ]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let tensor = |name| checkpoint.tensor(name).unwrap();
    for (other, same) in [("a", true), ("b", true), ("c", false), ("d", false)] {
        assert_eq!(
            tensor("a").same_bytes(&tensor(other)).unwrap(),
            same,
            "{other}"
        );
    }
}
