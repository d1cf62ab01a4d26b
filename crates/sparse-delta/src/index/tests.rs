//! Indexes that no compressor wrote: refused when read, before anything is allocated for them.

use std::fs;

use sparse_checkpoint::{Checkpoint, parse_header};
use sparse_codec::put_varint;
use tempfile::TempDir;

use super::*;
use crate::{Error, Existing, ReconstructOptions, Silent, info, reconstruct, verify};

/// Tensor bytes 0 to 8, in a shard of one tensor `w` of eight bytes.
const HEADER: &str = r#"{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#;

fn path(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

fn tensor(source: Source) -> Tensor {
    let (check, stored_check) = (Check([0; 8]), [0; 4]);
    Tensor {
        check,
        stored_check,
        source,
    }
}

fn raw(chunks: &[u64]) -> Source {
    let (base, chunks) = (None, chunks.to_vec());
    Source::Raw(Raw { base, chunks })
}

fn base(name: &str, dtype: Dtype, shape: &[u64]) -> BaseTensor {
    BaseTensor {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        check: [0; 4],
    }
}

fn coded(base: Option<BaseTensor>) -> Coded {
    Coded {
        base,
        shift: 0,
        tables: 0,
        low_rank: false,
        model: 0,
        chunks: vec![1],
    }
}

fn shard(name: &str, header: &str, data_len: u64, sources: Vec<Source>) -> File {
    let header = parse_header(header.as_bytes(), data_len).unwrap();
    let gaps = u64::from(!header.gaps().is_empty());
    File {
        path: path(name),
        size: 8 + header.text().len() as u64 + data_len,
        digest: FileDigest([0; 32]),
        stored_check: [0; 4],
        content: Content::Shard(Shard {
            header,
            tensors: sources.into_iter().map(tensor).collect(),
            gaps,
        }),
    }
}

fn one_tensor(source: Source) -> File {
    shard("model.safetensors", HEADER, 8, vec![source])
}

fn bf16(shape: &str, bytes: u64, source: Source) -> File {
    let header =
        format!(r#"{{"w":{{"dtype":"BF16","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
    shard("model.safetensors", &header, bytes, vec![source])
}

fn blob(name: &str, source: BlobSource, size: u64, stored: u64) -> File {
    File {
        path: path(name),
        size,
        digest: FileDigest([0; 32]),
        stored_check: [0; 4],
        content: Content::Blob(Blob { source, stored }),
    }
}

fn index(files: Vec<File>) -> Index {
    Index {
        required: 0,
        optional: 0,
        creator: "a test".to_owned(),
        base_id: "owner/base".to_owned(),
        base_digest: BaseDigest([0; 32]),
        tables: Vec::new(),
        files,
    }
}

/// What reading an index with these files says.
fn reason(files: Vec<File>) -> String {
    Index::read(&index(files).write()).unwrap_err().to_string()
}

/// A delta folder with this index and data.
fn delta(index: &Index, data: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    crate::crafted::write(index, data, dir.path()).unwrap();
    dir
}

/// A base with a tensor `w` of eight bytes, or of this dtype and shape.
fn open_base(header: &str, data: usize) -> (TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let length = (header.len() as u64).to_le_bytes();
    let bytes = [&length, header.as_bytes(), &vec![0; data]].concat();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let base = Checkpoint::open(dir.path()).unwrap();
    (dir, base)
}

/// Rebuilds against `base`, whose digest is first put into the index; it must fail.
fn rebuild(mut index: Index, data: &[u8], base: &Checkpoint) -> Error {
    crate::crafted::trust(&mut index, data, base);
    let folder = delta(&index, data);
    assert!(info(folder.path()).is_ok(), "{:?}", info(folder.path()));
    let problems = verify(folder.path(), Some(base), 2, &Silent).unwrap();
    assert!(!problems.is_empty());
    let out = folder.path().join("out");
    let options = ReconstructOptions {
        threads: 2,
        existing: Existing::Keep,
    };
    let error = reconstruct(base, folder.path(), &out, &options, &Silent).unwrap_err();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    error
}

#[test]
fn a_sound_index_is_read_back() {
    let files = vec![
        one_tensor(raw(&[9])),
        blob("config.json", BlobSource::Packed, 3, 1),
    ];
    let index = index(files);
    let back = Index::read(&index.write()).unwrap();
    assert_eq!(format!("{back:?}"), format!("{index:?}"));
}

#[test]
fn every_truncation_and_longer_index_is_refused() {
    let bytes = index(vec![one_tensor(raw(&[9]))]).write();
    for len in 0..bytes.len() {
        assert!(Index::read(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(Index::read(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn flipped_bytes_are_refused_or_read() {
    let bytes = index(vec![
        bf16(
            "[2,2]",
            8,
            Source::Coded(coded(Some(base("v", Dtype::F32, &[3, 2])))),
        ),
        blob(
            "a",
            BlobSource::Against(BaseFile {
                path: path("b"),
                size: 4,
            }),
            3,
            1,
        ),
    ]);
    let bytes = Index {
        tables: vec![vec![1, 2]],
        ..bytes
    }
    .write();
    assert!(Index::read(&bytes).is_ok());
    for at in 0..bytes.len() {
        for value in 0..=255 {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let _ = Index::read(&bytes);
        }
    }
}

#[test]
fn huge_counts_and_lengths_are_refused() {
    // Required, optional, creator, base id, table sets, files.
    for (field, fields) in [("text length", 2), ("table sets", 4), ("files", 5)] {
        for huge in [1 << 20, u64::MAX] {
            let mut bytes = vec![0; fields];
            put_varint(&mut bytes, huge);
            bytes.extend([0; 40]);
            let error = Index::read(&bytes).unwrap_err().to_string();
            assert!(error.contains("than the data"), "{field}: {error}");
        }
    }
    let mut bytes = index(vec![one_tensor(raw(&[]))]).write();
    let count = bytes.len() - 32 - 32 - 8 - 1;
    assert_eq!(bytes[count], 0);
    bytes.splice(count..=count, [0xff, 0xff, 0xff, 0x7f]);
    assert!(reason_of(&bytes).contains("number of chunks"));
}

fn reason_of(bytes: &[u8]) -> String {
    Index::read(bytes).unwrap_err().to_string()
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let good = index(vec![blob("ab/cd.txt", BlobSource::Packed, 3, 1)]).write();
    let at = good.windows(9).position(|w| w == b"ab/cd.txt").unwrap();
    for bad in [
        "../cd.txt",
        "/b/cd.txt",
        "ab/../txt",
        "ab//d.txt",
        "./ab.text",
        "C:\\cd.txt",
        "ab\0cd.txt",
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 9].copy_from_slice(bad.as_bytes());
        assert!(reason_of(&bytes).contains("path"), "{bad}");
    }
}

#[test]
fn paths_that_clash_are_refused() {
    let file = |name: &str| blob(name, BlobSource::Packed, 3, 1);
    for pair in [["a", "a"], ["a", "a/b"], ["a/b/c", "a"]] {
        let error = reason(pair.map(file).to_vec());
        assert!(error.contains("cannot both be files"), "{error}");
    }
    let apart = ["a.txt", "a/b", "a-b", "a/b.c", "ab"].map(file).to_vec();
    assert!(Index::read(&index(apart).write()).is_ok());
}

#[test]
fn aliases_point_back_to_what_is_stored() {
    let two = r#"{"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"x":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}"#;
    let model = |sources| vec![shard("m.safetensors", two, 16, sources)];
    assert!(Index::read(&index(model(vec![raw(&[9]), Source::Alias(0, 0)])).write()).is_ok());
    for (first, second) in [
        (Source::Alias(0, 0), raw(&[9])),           // itself
        (Source::Alias(0, 1), raw(&[9])),           // a later one
        (Source::Alias(0, 1), Source::Alias(0, 0)), // each other
        (raw(&[9]), Source::Alias(0, 1)),           // itself, at the end
        (raw(&[9]), Source::Alias(1, 0)),           // no such file
        (raw(&[9]), Source::Alias(usize::MAX, usize::MAX)),
    ] {
        assert!(reason(model(vec![first, second])).contains("alias"));
    }
    let mut files = model(vec![raw(&[9]), Source::Alias(0, 0)]);
    files.push(one_tensor(Source::Alias(0, 1)));
    assert!(reason(files).contains("alias"), "of an alias");
    let files = vec![
        blob("config.json", BlobSource::Packed, 8, 8),
        one_tensor(Source::Alias(0, 0)),
    ];
    assert!(reason(files).contains("alias"), "of no tensor");
    let other = r#"{"w":{"dtype":"U8","shape":[7],"data_offsets":[0,7]}}"#;
    let mut files = vec![shard("a.safetensors", other, 7, vec![raw(&[8])])];
    files.push(one_tensor(Source::Alias(0, 0)));
    assert!(reason(files).contains("alias"), "of another size");
}

#[test]
fn base_references_must_fit() {
    let huge = base("w", Dtype::BF16, &[1 << 40, 1 << 40]);
    let file = |base| vec![bf16("[4]", 8, Source::Coded(coded(Some(base))))];
    assert!(reason(file(huge)).contains("overflow"));
    let many = base("w", Dtype::BF16, &[1; 3]);
    assert!(reason(file(many)).contains("another kind"));
    assert!(reason(file(base("w", Dtype::I64, &[4]))).contains("another kind"));
    assert!(reason(file(base("w", Dtype::BF16, &[4]))).contains("table set 0 of 0"));
    let copy = |base| vec![one_tensor(Source::Copy(base))];
    assert!(reason(copy(base("w", Dtype::U8, &[9]))).contains("another dtype or shape"));
    assert!(reason(copy(base("w", Dtype::I8, &[8]))).contains("another dtype or shape"));
    let chunks = vec![9];
    let source = Source::Raw(Raw {
        base: Some(base("w", Dtype::U8, &[4, 2])),
        chunks,
    });
    assert!(reason(vec![one_tensor(source)]).contains("another dtype or shape"));
    let not_modelled = one_tensor(Source::Coded(coded(None)));
    assert!(reason(vec![not_modelled]).contains("not modelled"));
    let low_rank = Coded {
        low_rank: true,
        ..coded(None)
    };
    let error = reason(vec![bf16("[2,2]", 8, Source::Coded(low_rank))]);
    assert!(error.contains("without a base"), "{error}");
}

#[test]
fn sizes_that_overflow_are_refused() {
    let chunks = [1 << 60, 2];
    assert!(reason(vec![one_tensor(raw(&chunks))]).contains("overflow"));
    let model = Coded {
        model: 1 << 60,
        ..coded(None)
    };
    let scales = vec![bf16("[4]", 8, Source::Coded(model))];
    assert!(reason(scales).contains("scales without a base"));
    let file = |name| blob(name, BlobSource::Packed, u64::MAX / 2 + 1, 1);
    assert!(reason(vec![file("a"), file("b")]).contains("overflow"));
    let file = |name| blob(name, BlobSource::Packed, 1, u64::MAX / 2 + 1);
    let folder = delta(&index(vec![file("a"), file("b")]), &[0; 8]);
    assert!(matches!(info(folder.path()), Err(Error::Damaged { .. })));
}

#[test]
fn data_that_the_index_does_not_account_for_is_damage() {
    let index = index(vec![one_tensor(raw(&[9]))]);
    for len in [0, 8, 10] {
        let folder = delta(&index, &vec![0; len]);
        let problems = verify(folder.path(), None, 1, &Silent).unwrap();
        assert!(problems[0].contains("accounts for 9 bytes"), "{problems:?}");
    }
}

#[test]
fn unknown_required_features_ask_for_a_newer_program() {
    let files = || vec![one_tensor(raw(&[9]))];
    let index = |required, optional| Index {
        required,
        optional,
        ..index(files())
    };
    let folder = delta(&index(KNOWN_FEATURES | 1 << 40, 0), &[0; 9]);
    for error in [
        info(folder.path()).unwrap_err(),
        verify(folder.path(), None, 1, &Silent).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Features { features, .. } if features == 1 << 40));
        assert!(error.hint().unwrap().contains("update"));
    }
    let folder = delta(&index(KNOWN_FEATURES, u64::MAX), &[0; 9]);
    assert!(info(folder.path()).is_ok(), "optional ones may be ignored");
}

#[test]
fn chunks_must_make_up_their_tensor() {
    let (_dir, base) = open_base("{}", 0);
    for chunks in [vec![], vec![4, 5], vec![1; 9]] {
        let data = vec![0; chunks.iter().sum::<u64>() as usize];
        let error = rebuild(index(vec![one_tensor(raw(&chunks))]), &data, &base);
        assert!(error.to_string().contains("do not make up"), "{error}");
    }
    let error = rebuild(index(vec![one_tensor(raw(&[9]))]), &[0; 9], &base);
    assert!(
        error.to_string().contains("was not rebuilt exactly"),
        "{error}"
    );
    // Stored bytes that are not those that were written are named, though they would decode.
    let folder = delta(&index(vec![one_tensor(raw(&[9]))]), &[0; 9]);
    let options = ReconstructOptions {
        threads: 1,
        existing: Existing::Keep,
    };
    let out = folder.path().join("out");
    let error = reconstruct(&base, folder.path(), &out, &options, &Silent).unwrap_err();
    let named = r#"tensor "w" is damaged: its stored bytes have another digest"#;
    assert!(error.to_string().contains(named), "{error}");
    let error = rebuild(index(vec![one_tensor(raw(&[9]))]), &[8; 9], &base);
    assert!(
        error.to_string().contains("unknown kind of chunk 8"),
        "{error}"
    );
}

#[test]
fn garbage_in_place_of_scales_and_factors_is_damage() {
    let header = r#"{"w":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#;
    let (_dir, opened) = open_base(header, 8);
    let base = base("w", Dtype::BF16, &[2, 2]);
    for low_rank in [false, true] {
        let source = Coded {
            low_rank,
            model: 5,
            ..coded(Some(base.clone()))
        };
        let file = bf16("[2,2]", 8, Source::Coded(source));
        let index = Index {
            tables: vec![vec![1, 2, 3]],
            ..index(vec![file])
        };
        let error = rebuild(index, &[0xff; 6], &opened);
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_low_rank_prediction_without_factors_is_damage() {
    let header = r#"{"w":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#;
    let (_dir, opened) = open_base(header, 8);
    let source = Coded {
        low_rank: true,
        ..coded(Some(base("w", Dtype::BF16, &[2, 2])))
    };
    let mut tables = Vec::new();
    sparse_codec::TableSet::none().write(&mut tables);
    let file = bf16("[2,2]", 8, Source::Coded(source));
    let index = Index {
        tables: vec![tables],
        ..index(vec![file])
    };
    let error = rebuild(index, &[0], &opened);
    assert!(error.to_string().contains("no low-rank factors"), "{error}");
}

#[test]
fn declared_terabytes_take_no_memory() {
    let (_dir, base) = open_base("{}", 0);
    let many = 1u64 << 40;
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{many}],"data_offsets":[0,{many}]}}}}"#);
    let file = shard("model.safetensors", &header, many, vec![raw(&[9])]);
    rebuild(index(vec![file]), &[0; 9], &base);
    let whole = bf16(&format!("[{}]", many / 2), many, Source::Coded(coded(None)));
    rebuild(index(vec![whole]), &[0], &base);
    // A gap of a terabyte, said to be packed in a byte.
    let gap = shard("model.safetensors", "{}", many, vec![]);
    let error = rebuild(index(vec![gap]), &[0], &base);
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let file = blob("a.bin", BlobSource::Packed, many, 1);
    rebuild(index(vec![file]), &[0], &base);
}

#[test]
fn a_bomb_of_a_file_stops_at_its_declared_size() {
    let mut packed = Vec::new();
    let bomb = std::io::Read::take(std::io::repeat(0), 1 << 30);
    crate::raw::pack(bomb, &[], 1 << 30, &mut packed).unwrap();
    let (_dir, base) = open_base("{}", 0);
    let file = blob("a.bin", BlobSource::Packed, 100, packed.len() as u64);
    let error = rebuild(index(vec![file]), &packed, &base);
    assert!(
        error.to_string().contains("unpacks to more than 100"),
        "{error}"
    );
}

#[test]
fn an_index_that_unpacks_beyond_all_bounds_is_refused() {
    let packed = zstd::bulk::compress(&vec![0; MAX_INDEX_BYTES as usize + 9], 1).unwrap();
    let error = crate::artifact::unpack_index(&packed).unwrap_err();
    assert!(error.contains("unpacks to more"), "{error}");
    assert!(crate::artifact::unpack_index(b"no zstd frame").is_err());
}

#[test]
fn base_files_are_paths_in_the_base_only() {
    let source = BlobSource::Copy(BaseFile {
        path: path("zz/secret"),
        size: 4,
    });
    let mut bytes = index(vec![blob("a", source, 4, 0)]).write();
    let at = bytes.windows(9).position(|w| w == b"zz/secret").unwrap();
    bytes[at..at + 9].copy_from_slice(b"../secret");
    assert!(reason_of(&bytes).contains("path"));
}
