//! Small checkpoints made up in the test, and the checks that every pair of them must pass.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use sparse_checkpoint::{Checkpoint, Dtype, Error, TensorSpec, WriteOptions, write_shards};
use sparse_delta::{
    CompressOptions, Compressed, Effort, Existing, ReconstructOptions, Silent, compress, estimate,
    reconstruct, reconstruct_tensor, verify,
};
use tempfile::TempDir;

/// A deterministic stream of numbers.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    pub fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    /// Roughly normal with standard deviation 1.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.next() as f32 / 4_294_967_296.0).sum();
        (sum - 2.0) * 1.732
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// A tensor and its bytes.
#[derive(Clone, Debug)]
pub struct Made {
    pub spec: TensorSpec,
    pub bytes: Vec<u8>,
}

impl Made {
    pub fn new(name: &str, dtype: Dtype, shape: &[u64], bytes: Vec<u8>) -> Made {
        let spec = TensorSpec::new(name, dtype, shape);
        assert_eq!(spec.bytes().unwrap(), bytes.len() as u64);
        Made { spec, bytes }
    }

    /// Normal weights of standard deviation 0.02; random bits where the dtype is no plain float.
    pub fn random(name: &str, dtype: Dtype, shape: &[u64], noise: &mut Noise) -> Made {
        let spec = TensorSpec::new(name, dtype, shape);
        let len = spec.bytes().unwrap() as usize;
        let elements: u64 = shape.iter().product();
        let bytes = match dtype {
            Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64 => (0..elements)
                .flat_map(|_| number(dtype, 0.02 * noise.normal()))
                .collect(),
            Dtype::BOOL => (0..len).map(|_| (noise.next() & 1) as u8).collect(),
            _ => noise.bytes(len),
        };
        Made { spec, bytes }
    }

    /// A fine-tune of this tensor: floats moved a little, a tenth of other bytes changed.
    pub fn tuned(&self, step: f32, noise: &mut Noise) -> Made {
        let dtype = self.spec.dtype;
        let mut bytes = self.bytes.clone();
        match dtype {
            Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64 => {
                let width = dtype.bits() as usize / 8;
                for word in bytes.chunks_exact_mut(width) {
                    let moved = value(dtype, word) + step * noise.normal();
                    word.copy_from_slice(&number(dtype, moved));
                }
            }
            _ => {
                for byte in &mut bytes {
                    if noise.below(10) == 0 {
                        *byte ^= 1;
                    }
                }
            }
        }
        Made {
            spec: self.spec.clone(),
            bytes,
        }
    }

    pub fn named(&self, name: &str) -> Made {
        Made::new(name, self.spec.dtype, &self.spec.shape, self.bytes.clone())
    }

    /// The same values in another float dtype, rounded to nearest.
    pub fn cast(&self, dtype: Dtype) -> Made {
        let width = self.spec.dtype.bits() as usize / 8;
        let bytes = self
            .bytes
            .chunks_exact(width)
            .flat_map(|word| number(dtype, value(self.spec.dtype, word)))
            .collect();
        Made::new(&self.spec.name, dtype, &self.spec.shape, bytes)
    }
}

/// A number as the little-endian word of a float dtype.
pub fn number(dtype: Dtype, value: f32) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
        _ => panic!("{dtype} is no plain float"),
    }
}

fn value(dtype: Dtype, word: &[u8]) -> f32 {
    match dtype {
        Dtype::BF16 => bf16::from_le_bytes(word.try_into().unwrap()).to_f32(),
        Dtype::F16 => f16::from_le_bytes(word.try_into().unwrap()).to_f32(),
        Dtype::F32 => f32::from_le_bytes(word.try_into().unwrap()),
        Dtype::F64 => f64::from_le_bytes(word.try_into().unwrap()) as f32,
        _ => panic!("{dtype} is no plain float"),
    }
}

/// Weights of a tiny language model.
pub fn model(dtype: Dtype, seed: u64) -> Vec<Made> {
    let noise = &mut Noise::new(seed);
    vec![
        Made::random("wte.weight", dtype, &[300, 64], noise),
        Made::random("h.0.attn.weight", dtype, &[64, 192], noise),
        Made::random("h.0.mlp.weight", dtype, &[64, 256], noise),
        Made::random("h.0.norm.weight", dtype, &[64], noise),
        Made::random("h.1.mlp.weight", dtype, &[64, 256], noise),
        Made::random("h.1.mlp.bias", dtype, &[256], noise),
    ]
}

/// Every tensor of `base` moved a little.
pub fn tuned(base: &[Made], step: f32, seed: u64) -> Vec<Made> {
    let noise = &mut Noise::new(seed);
    base.iter()
        .map(|tensor| tensor.tuned(step, noise))
        .collect()
}

/// A checkpoint folder with these weights, in shards of at most so many bytes.
pub fn checkpoint(tensors: &[Made], max_shard_bytes: Option<u64>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_weights(dir.path(), tensors, max_shard_bytes);
    dir
}

pub fn write_weights(dir: &Path, tensors: &[Made], max_shard_bytes: Option<u64>) {
    let specs: Vec<TensorSpec> = tensors.iter().map(|t| t.spec.clone()).collect();
    let options = WriteOptions {
        max_shard_bytes,
        ..WriteOptions::default()
    };
    write_shards(dir, &specs, &options, |spec, out| -> Result<(), Error> {
        let tensor = tensors.iter().find(|t| t.spec.name == spec.name).unwrap();
        out.write_all(&tensor.bytes)
    })
    .unwrap();
}

/// Writes a file, with the folders above it.
pub fn put(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A safetensors file with this header text and data.
pub fn safetensors(text: &str, data: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data].concat()
}

/// Every file below a folder, by relative path.
pub fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
                files.insert(name.to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

pub fn make_delta(base: &Path, fine: &Path, output: &Path, threads: usize) -> Compressed {
    make_delta_at(Effort::High, base, fine, output, threads)
}

pub fn make_delta_at(
    effort: Effort,
    base: &Path,
    fine: &Path,
    output: &Path,
    threads: usize,
) -> Compressed {
    let options = CompressOptions {
        effort,
        base_id: "owner/base".to_owned(),
        threads,
        existing: Existing::Keep,
    };
    let (base, fine) = (Checkpoint::open(base), Checkpoint::open(fine));
    compress(&base.unwrap(), &fine.unwrap(), output, &options, &Silent).unwrap()
}

pub fn rebuild(base: &Path, delta: &Path, output: &Path) -> Result<(), sparse_delta::Error> {
    let options = ReconstructOptions {
        threads: 2,
        existing: Existing::Keep,
    };
    reconstruct(&Checkpoint::open(base)?, delta, output, &options, &Silent).map(|_| ())
}

/// Takes `fine` through everything a delta is for, and checks each promise.
pub fn round_trip(base: &Path, fine: &Path) -> Compressed {
    let work = tempfile::tempdir().unwrap();
    let [one, four, tensor_out] = ["one", "four", "tensor"].map(|name| work.path().join(name));
    let made = make_delta(base, fine, &one, 1);
    assert_eq!(
        make_delta(base, fine, &four, 4).delta_bytes,
        made.delta_bytes
    );
    assert!(tree(&one) == tree(&four), "threads change the artifact");
    let on_disk: usize = tree(&one).values().map(Vec::len).sum();
    assert_eq!(made.delta_bytes, on_disk as u64);
    // What docs/delta-format.md promises.
    let paths = tree(fine).into_keys();
    let for_files: u64 = paths.map(|path| 64 + path.len() as u64).sum();
    let limit = made.original_bytes + made.original_bytes / 1000 + 1024 + for_files;
    assert!(made.delta_bytes <= limit, "{} > {limit}", made.delta_bytes);

    let fastest = work.path().join("fastest");
    let fastest_made = make_delta_at(Effort::Fastest, base, fine, &fastest, 2);
    assert!(fastest_made.delta_bytes <= limit);
    for (delta, name) in [(&one, "out"), (&fastest, "fastest-out")] {
        let out = work.path().join(name);
        rebuild(base, delta, &out).unwrap();
        let (expected, found) = (tree(fine), tree(&out));
        assert!(expected.keys().eq(found.keys()), "{:?}", found.keys());
        for (path, bytes) in &expected {
            assert!(bytes == &found[path], "{path} differs");
        }
    }

    let base = Checkpoint::open(base).unwrap();
    let none: [String; 0] = [];
    assert_eq!(verify(&one, None, 2, &Silent).unwrap(), none);
    assert_eq!(verify(&one, Some(&base), 2, &Silent).unwrap(), none);

    let fine = Checkpoint::open(fine).unwrap();
    for (effort, made) in [(Effort::High, &made), (Effort::Fastest, &fastest_made)] {
        let guess = estimate(&base, &fine, "owner/base", effort, 2, &Silent).unwrap();
        assert_eq!(guess.original_bytes, made.original_bytes);
        let error = guess.estimated_delta_bytes as f64 / made.delta_bytes as f64 - 1.0;
        let unchanged = 1.0 - made.changed_parameters as f64 / made.parameters.max(1) as f64;
        assert!((guess.unchanged_fraction - unchanged).abs() < 1e-9);
        if made.delta_bytes > 5_000 {
            let (guess, made) = (guess.estimated_delta_bytes, made.delta_bytes);
            assert!(
                error.abs() < 0.05,
                "{effort:?}: estimated {guess}, is {made}"
            );
        }
    }

    let info = sparse_delta::info(&one).unwrap();
    assert_eq!(info.tensors.len(), fine.tensors().count());
    let names: Vec<&str> = fine.tensors().map(|t| t.name()).collect();
    // A name that two shards have is ambiguous.
    let once = |name: &str| names.iter().filter(|&&n| n == name).count() == 1;
    for tensor in fine.tensors().filter(|t| once(t.name())) {
        fs::create_dir_all(&tensor_out).unwrap();
        let path = tensor_out.join("one.safetensors");
        let (name, replace) = (tensor.name(), Existing::Replace);
        let size = reconstruct_tensor(&base, &one, name, &path, replace, &Silent).unwrap();
        assert_eq!(size, fs::metadata(&path).unwrap().len());
        let rebuilt = Checkpoint::open(&tensor_out).unwrap();
        let rebuilt = rebuilt.tensor(name).unwrap();
        assert_eq!(rebuilt.dtype(), tensor.dtype());
        assert_eq!(rebuilt.shape(), tensor.shape());
        assert!(
            rebuilt.bytes().unwrap() == tensor.bytes().unwrap(),
            "{name}"
        );
    }
    made
}
