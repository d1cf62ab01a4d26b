//! `sparse demo`: the whole tour on the checkpoint that ships with the repository.
//!
//! The base is in the program itself, the fine-tune as a delta of it. Every row does the work and
//! checks what came out; one that does not hold makes the command fail.

mod example;
mod model;
mod peers;

use std::fs;
use std::path::Path;

use serde_json::json;
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec, WriteOptions, write_shards};
use sparse_delta::{CompressOptions, Effort, Existing, ReconstructOptions};

use crate::context::{Context, Hinted, Outcome};
use crate::progress::Bar;
use crate::table;

/// What deltas call the base.
const BASE_ID: &str = "examples/base";

/// One line of the table.
struct Row {
    what: &'static str,
    result: String,
    holds: bool,
}

/// Runs the tour and prints its table.
pub fn run(context: &Context) -> anyhow::Result<Outcome> {
    let scratch = tempfile::tempdir().map_err(|error| Hinted {
        message: format!("cannot make a folder for the demo: {error}"),
        hint: "set TMPDIR to a folder with 30 MB of room".to_owned(),
    })?;
    let bar = context.bar();
    let tour = Tour {
        dir: scratch.path(),
        context,
        bar: &bar,
    };
    let mut rows = Vec::new();
    let base = example::write_base(&tour.dir.join("base"))?;
    rows.push(tour.rebuild_shipped(&base)?);
    let fine = Checkpoint::open(&tour.dir.join("finetune"))?;
    rows.extend(tour.compress(&base, &fine)?);
    rows.push(tour.one_tensor(&base, &fine)?);
    rows.push(tour.estimate(&base, &fine)?);
    rows.push(tour.wrong_base(&fine)?);
    rows.push(tour.noise()?);
    tour.go_on()?;
    rows.extend(model::rows(&base, &fine, context.threads())?);
    tour.go_on()?;
    let others = peers::sizes(&base, &fine)?;
    bar.clear();
    let ours = fs::metadata(tour.dir.join("delta/delta.safetensors"))?.len();
    rows.push(Row {
        what: "smaller than the others",
        result: "delta sizes below, same pair, same run".to_owned(),
        holds: others.iter().all(|other| ours < other.bytes),
    });
    let ok = rows.iter().all(|row| row.holds);
    let mut text = String::new();
    for row in &rows {
        let mark = if row.holds { "ok" } else { "FAILED" };
        text.push_str(&format!("{mark:6} {:25} {}\n", row.what, row.result));
    }
    text.push_str(&format!(
        "\n{:34} {:>10} {:>8}\n",
        "the fine-tune stored by", "size", "smaller"
    ));
    let original = fine.total_bytes();
    let mut line = |name: &str, bytes: u64| {
        let ratio = original as f64 / bytes as f64;
        text.push_str(&format!(
            "{name:34} {:>10} {ratio:>7.2}x\n",
            table::bytes(bytes)
        ));
    };
    line("sparse delta (all files)", ours);
    for other in &others {
        line(other.name, other.bytes);
    }
    let value = json!({
        "ok": ok,
        "original_bytes": original,
        "delta_bytes": ours,
        "rows": rows.iter().map(|r| json!({"what": r.what, "result": r.result, "ok": r.holds})).collect::<Vec<_>>(),
        "others": others.iter().map(|o| json!({"name": o.name, "bytes": o.bytes})).collect::<Vec<_>>(),
    });
    context.emit(&value, &text)?;
    Ok(if ok { Outcome::Yes } else { Outcome::No })
}

struct Tour<'a> {
    dir: &'a Path,
    context: &'a Context,
    bar: &'a Bar,
}

impl Tour<'_> {
    /// Ends the tour where somebody has pressed Ctrl-C.
    fn go_on(&self) -> anyhow::Result<()> {
        if self.context.interrupted() {
            return Err(sparse_delta::Error::Interrupted.into());
        }
        Ok(())
    }

    fn rebuild_shipped(&self, base: &Checkpoint) -> anyhow::Result<Row> {
        let delta = example::write_delta(&self.dir.join("shipped"))?;
        let made = self.reconstruct(base, &delta, "finetune")?;
        let known = example::matches_recorded(&self.dir.join("finetune"))?;
        Ok(Row {
            what: "rebuild the fine-tune",
            result: format!(
                "{} files, {} from {}, SHA-256 as recorded",
                made.files,
                table::bytes(made.bytes),
                table::bytes(fs::metadata(delta.join("delta.safetensors"))?.len())
            ),
            holds: known,
        })
    }

    fn reconstruct(
        &self,
        base: &Checkpoint,
        delta: &Path,
        name: &str,
    ) -> anyhow::Result<sparse_delta::Reconstructed> {
        let options = ReconstructOptions {
            threads: self.context.threads(),
            existing: Existing::Keep,
        };
        let output = self.dir.join(name);
        Ok(sparse_delta::reconstruct(
            base, delta, &output, &options, self.bar,
        )?)
    }

    fn compress_to(
        &self,
        base: &Checkpoint,
        fine: &Checkpoint,
        name: &str,
    ) -> anyhow::Result<sparse_delta::Compressed> {
        let options = CompressOptions {
            base_id: BASE_ID.to_owned(),
            effort: Effort::High,
            threads: self.context.threads(),
            existing: Existing::Keep,
        };
        let output = self.dir.join(name);
        Ok(sparse_delta::compress(
            base, fine, &output, &options, self.bar,
        )?)
    }

    fn compress(&self, base: &Checkpoint, fine: &Checkpoint) -> anyhow::Result<Vec<Row>> {
        let made = self.compress_to(base, fine, "delta")?;
        let delta = self.dir.join("delta");
        self.reconstruct(base, &delta, "again")?;
        let same = same_files(fine.root(), &self.dir.join("again"))?;
        let problems = sparse_delta::verify(&delta, Some(base), self.context.threads(), self.bar)?;
        let weights = table::count(made.parameters);
        let changed = 100.0 * made.changed_parameters as f64 / made.parameters as f64;
        Ok(vec![
            Row {
                what: "compress",
                result: format!(
                    "{} to {}, {:.2}x smaller",
                    table::bytes(made.original_bytes),
                    table::bytes(made.delta_bytes),
                    made.ratio()
                ),
                holds: made.ratio() > 1.0,
            },
            Row {
                what: "reconstruct",
                result: format!("{weights} weights, {changed:.1}% changed, all files identical"),
                holds: same,
            },
            Row {
                what: "verify",
                result: format!("{} problems", problems.len()),
                holds: problems.is_empty(),
            },
        ])
    }

    fn one_tensor(&self, base: &Checkpoint, fine: &Checkpoint) -> anyhow::Result<Row> {
        let largest = fine.tensors().max_by_key(|t| t.byte_len());
        let Some(tensor) = largest else {
            anyhow::bail!("the example has no tensors");
        };
        let output = self.dir.join("one.safetensors");
        let delta = self.dir.join("delta");
        sparse_delta::reconstruct_tensor(
            base,
            &delta,
            tensor.name(),
            &output,
            Existing::Keep,
            self.bar,
        )?;
        let file = fs::read(&output)?;
        Ok(Row {
            what: "reconstruct one tensor",
            result: format!("{}, {}", tensor.name(), table::bytes(tensor.byte_len())),
            holds: file.ends_with(tensor.bytes()?),
        })
    }

    fn estimate(&self, base: &Checkpoint, fine: &Checkpoint) -> anyhow::Result<Row> {
        let guess = sparse_delta::estimate(
            base,
            fine,
            BASE_ID,
            Effort::High,
            self.context.threads(),
            self.bar,
        )?;
        let real = fs::metadata(self.dir.join("delta/delta.safetensors"))?.len();
        let off = 100.0 * (guess.estimated_delta_bytes as f64 / real as f64 - 1.0);
        Ok(Row {
            what: "estimate",
            result: format!(
                "{}, {off:+.1}% off",
                table::bytes(guess.estimated_delta_bytes)
            ),
            holds: off.abs() < 5.0,
        })
    }

    /// The fine-tune itself as base must be refused before anything is written.
    fn wrong_base(&self, fine: &Checkpoint) -> anyhow::Result<Row> {
        let options = ReconstructOptions {
            threads: self.context.threads(),
            existing: Existing::Keep,
        };
        let output = self.dir.join("wrong");
        let delta = self.dir.join("delta");
        let refused = sparse_delta::reconstruct(fine, &delta, &output, &options, self.bar);
        Ok(Row {
            what: "refuse a wrong base",
            result: match &refused {
                Ok(_) => "it was accepted".to_owned(),
                Err(_) => "refused, nothing written".to_owned(),
            },
            holds: matches!(refused, Err(sparse_delta::Error::BaseDiffers { .. }))
                && !output.exists(),
        })
    }

    /// A layer in fp32 plus independent noise, which leaves little to find: the difference of
    /// two fp32 numbers has as many random bits as the noise is large.
    fn noise(&self) -> anyhow::Result<Row> {
        let spec = [TensorSpec::new("layer", Dtype::F32, [768, 768])];
        let mut normal = example::normal();
        let weights: Vec<f32> = (0..768 * 768).map(|_| 0.14 * normal()).collect();
        let noisy: Vec<f32> = weights.iter().map(|w| w + 0.02 * normal()).collect();
        for (name, values) in [("layer", &weights), ("noisy", &noisy)] {
            let dir = self.dir.join(name);
            fs::create_dir(&dir)?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            write_shards(&dir, &spec, &WriteOptions::default(), |_, out| {
                out.write_all(&bytes)
            })?;
        }
        let base = Checkpoint::open(&self.dir.join("layer"))?;
        let fine = Checkpoint::open(&self.dir.join("noisy"))?;
        let made = self.compress_to(&base, &fine, "noise-delta")?;
        self.reconstruct(&base, &self.dir.join("noise-delta"), "noise-again")?;
        let same = same_files(fine.root(), &self.dir.join("noise-again"))?;
        Ok(Row {
            what: "a layer plus random noise",
            result: format!("{:.2}x smaller, error exactly 0", made.ratio()),
            holds: same && made.ratio() > 1.0,
        })
    }
}

/// Whether two checkpoints hold the same files with the same bytes.
fn same_files(a: &Path, b: &Path) -> anyhow::Result<bool> {
    let names = |dir: &Path| -> anyhow::Result<Vec<std::ffi::OsString>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let (left, right) = (names(a)?, names(b)?);
    if left != right {
        return Ok(false);
    }
    for name in left {
        if fs::read(a.join(&name))? != fs::read(b.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}
