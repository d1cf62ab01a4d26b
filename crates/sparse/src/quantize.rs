//! `sparse quantize` and `sparse dequantize`: checkpoints in the formats that people's tools load.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sparse_checkpoint::Checkpoint;
use sparse_quant::{
    Calibration, Changes, DEFAULT_SAMPLES, DEFAULT_SHARD_BYTES, Error, Estimate, Format, Options,
    PRESETS, Preset, QuantSpec,
};

use crate::context::{Context, Hinted, Outcome};
use crate::machine::peak_memory_bytes;
use crate::output::check_apart;
use crate::{resolve, table};

/// What to quantize, and how.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct QuantizeArgs {
    /// Checkpoint directory or hub id (owner/name[@revision])
    #[arg(required_unless_present = "list")]
    model: Option<String>,
    /// How to quantize; --list shows all
    #[arg(long, value_name = "NAME", required_unless_present_any = ["list", "estimate"])]
    preset: Option<String>,
    /// Folder to write to
    #[arg(short, long, value_name = "DIR", required_unless_present_any = ["list", "estimate"])]
    output: Option<PathBuf>,
    /// Format to write, where a preset has several
    #[arg(long, value_name = "F")]
    format: Option<Format>,
    /// Bits of a code, where the method has several: 2, 3, 4 or 8
    #[arg(long, value_name = "N", requires = "preset")]
    bits: Option<u32>,
    /// Weights that share a scale; -1 for a whole row
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = group_size, requires = "preset")]
    group_size: Option<GroupSize>,
    /// Let zero be any code, not only the middle one (rtn, gptq)
    #[arg(long, requires = "preset")]
    zero_points: bool,
    /// Put inputs of like importance into a group, wherever they are (gptq's desc_act): better
    /// with small groups
    #[arg(long, requires = "preset")]
    act_order: bool,
    /// Text to calibrate on; by default one that comes with the program. GGUF presets calibrate
    /// (an importance matrix) only if it is given
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Windows of the calibration text to use
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SAMPLES as u32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    samples: u32,
    /// Which windows
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Most bytes of weights in one file
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SHARD_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    max_shard_bytes: u64,
    /// Show all presets
    #[arg(long, conflicts_with_all = ["model", "preset", "output", "estimate"])]
    list: bool,
    /// Say how large the output would be, from configuration and headers alone
    #[arg(long, conflicts_with = "output")]
    estimate: bool,
}

/// Weights that share a scale.
#[derive(Clone, Copy, Debug)]
struct GroupSize(Option<usize>);

fn group_size(text: &str) -> Result<GroupSize, String> {
    match text.parse() {
        Ok(-1) => Ok(GroupSize(None)),
        Ok(size @ 1..=0xff_ffff) => Ok(GroupSize(Some(size as usize))),
        Ok(_) | Err(_) => Err("it should be a number of weights, or -1".to_owned()),
    }
}

/// What to turn back.
#[derive(Debug, clap::Args)]
pub struct DequantizeArgs {
    /// Checkpoint directory or hub id of a quantized model, or a GGUF file
    model: String,
    /// Folder to write the plain checkpoint (f32) to
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// Runs `sparse quantize`.
pub fn run(args: &QuantizeArgs, context: &Context) -> anyhow::Result<Outcome> {
    if args.list {
        return list(context);
    }
    let changes = Changes {
        bits: args.bits,
        group_size: args.group_size.map(|size| size.0),
        zero_points: args.zero_points,
        act_order: args.act_order,
    };
    let preset = match &args.preset {
        Some(name) => Some(Preset::named(name)?.with(changes)?),
        None => None,
    };
    let model = args.model.as_deref().unwrap_or_default();
    match (preset, &args.output) {
        (Some(preset), Some(output)) => quantize(model, preset, output, args, context),
        (preset, _) => estimate(model, preset, args, context),
    }
}

fn list(context: &Context) -> anyhow::Result<Outcome> {
    let mut text = format!(
        "{:13}  {:6} {:>4}  {:>5}  {:4}  {}\n",
        "preset", "method", "bits", "group", "text", "formats"
    );
    let mut rows: Vec<Value> = Vec::new();
    for preset in PRESETS {
        let formats: Vec<String> = preset.formats.iter().map(Format::to_string).collect();
        let group = preset
            .group_size
            .map_or("-".to_owned(), |size| size.to_string());
        text.push_str(&format!(
            "{:13}  {:6} {:>4}  {group:>5}  {:4}  {}\n",
            preset.name,
            preset.method.name(),
            preset.bits,
            if preset.calibrated { "yes" } else { "no" },
            formats.join(" ")
        ));
        rows.push(json!({
            "preset": preset.name,
            "method": preset.method.name(),
            "bits": preset.bits,
            "group_size": preset.group_size,
            "calibrated": preset.calibrated,
            "formats": formats,
        }));
    }
    context.emit(&json!({ "presets": rows }), &text)?;
    Ok(Outcome::Yes)
}

fn quantize(
    model: &str,
    preset: Preset,
    output: &Path,
    args: &QuantizeArgs,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let format = preset.format(args.format)?;
    context.check_output(output)?;
    let checkpoint = or_gguf(model, resolve::open(model, context))?;
    check_apart(output, &[checkpoint.root()])?;
    let options = Options {
        calibration: calibration(args, preset.calibrated)?,
        ..options(args.max_shard_bytes, context)
    };
    let spec = QuantSpec { preset, format };
    let bar = context.bar();
    let made = sparse_quant::quantize(&checkpoint, output, &spec, &options, &bar)?;
    drop(bar);
    let mut text = table::fields(&[
        (
            "written",
            format!(
                "{}  {:.2}x smaller, as {format}",
                table::bytes(made.quantized_bytes),
                made.ratio()
            ),
        ),
        (
            "layers",
            format!(
                "{}, {:.3} bits per weight with scales",
                made.layers, made.effective_bits_per_weight
            ),
        ),
        ("took", table::seconds(made.seconds)),
    ]);
    for note in &made.notes {
        text.push_str(&table::wrap(&format!("note: {note}"), 0));
    }
    context.emit(
        &json!({
            "preset": preset.name,
            "method": preset.method.name(),
            "bits": preset.bits,
            "group_size": made.group_size,
            "format": format.to_string(),
            "original_bytes": made.original_bytes,
            "quantized_bytes": made.quantized_bytes,
            "ratio": made.ratio(),
            "parameters": made.parameters,
            "effective_bits_per_weight": made.effective_bits_per_weight,
            "layers": made.layers,
            "skipped": made.skipped,
            "notes": made.notes,
            "seconds": made.seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }),
        &text,
    )?;
    Ok(Outcome::Yes)
}

/// A GGUF file is not a checkpoint, but quantized already.
fn or_gguf(model: &str, opened: anyhow::Result<Checkpoint>) -> anyhow::Result<Checkpoint> {
    opened.map_err(|error| match sparse_quant::gguf::find(Path::new(model)) {
        Some(path) => Error::AlreadyQuantized {
            path,
            found: "gguf".to_owned(),
        }
        .into(),
        None => error,
    })
}

/// How large a preset's output would be, in the format asked for or the first that goes with the
/// model.
fn estimate_preset(
    checkpoint: &Checkpoint,
    preset: &Preset,
    asked: Option<Format>,
    options: &Options,
) -> Result<(Format, Estimate), Error> {
    let of = |format| {
        let spec = QuantSpec {
            preset: *preset,
            format,
        };
        let guess = sparse_quant::estimate(checkpoint, &spec, options)?;
        Ok((format, guess))
    };
    let first = of(preset.format(asked)?);
    if asked.is_some() || !matches!(first, Err(Error::Unsupported { .. })) {
        return first;
    }
    // If no other does either, the default's reason is the one to tell.
    let others = &preset.formats[1..];
    others
        .iter()
        .find_map(|&format| of(format).ok())
        .map_or(first, Ok)
}

fn estimate(
    model: &str,
    preset: Option<Preset>,
    args: &QuantizeArgs,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let scratch = tempfile::tempdir()?;
    let checkpoint = or_gguf(model, resolve::open_headers(model, scratch.path(), context))?;
    let options = Options {
        calibration: calibration(args, false)?,
        ..options(args.max_shard_bytes, context)
    };
    let presets: Vec<Preset> = preset.map_or(PRESETS.to_vec(), |preset| vec![preset]);
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    let mut text = String::new();
    let mut parameters = 0;
    for preset in &presets {
        let (format, guess) = match estimate_preset(&checkpoint, preset, args.format, &options) {
            Ok(found) => found,
            // Of all presets, those that have not the format asked for are not meant.
            Err(Error::WrongFormat { .. }) if presets.len() > 1 => continue,
            Err(error) => {
                refused.push((preset.name, error));
                continue;
            }
        };
        parameters = guess.parameters;
        let (half, full) = (2 * parameters, 4 * parameters);
        let ratio = |bytes: u64| bytes as f64 / guess.quantized_bytes.max(1) as f64;
        let savings = 100.0 * (1.0 - guess.quantized_bytes as f64 / half.max(1) as f64);
        text.push_str(&format!(
            "{:16} {:>10}  {:6.2}x smaller than fp16  {savings:5.1}% saved",
            preset.name,
            table::bytes(guess.quantized_bytes),
            ratio(half),
        ));
        if format != preset.formats[0] {
            text.push_str(&format!("  as {format}"));
        }
        text.push('\n');
        for note in guess.notes.iter().filter(|_| presets.len() == 1) {
            text.push_str(&table::wrap(&format!("note: {note}"), 0));
        }
        rows.push(json!({
            "preset": preset.name,
            "format": format.to_string(),
            "notes": guess.notes,
            "quantized_bytes": guess.quantized_bytes,
            "ratio_to_fp16": ratio(half),
            "ratio_to_fp32": ratio(full),
            "savings_pct": savings,
        }));
    }
    if rows.is_empty() && !refused.is_empty() {
        return Err(refused.swap_remove(0).1.into());
    }
    for (name, error) in &refused {
        let reason = error.to_string();
        text.push_str(&match reason.starts_with(name) {
            true => table::wrap(&reason, 2),
            false => table::wrap(&format!("{name}: {reason}"), 2),
        });
    }
    let refused: Vec<Value> = refused
        .iter()
        .map(|(name, error)| json!({ "preset": name, "reason": error.to_string() }))
        .collect();
    let head = table::fields(&[
        ("weights", table::count(parameters)),
        ("as fp32", table::bytes(4 * parameters)),
        ("as fp16", table::bytes(2 * parameters)),
    ]);
    context.emit(
        &json!({
            "parameters": parameters,
            "bytes_fp32": 4 * parameters,
            "bytes_fp16": 2 * parameters,
            "presets": rows,
            "refused": refused,
        }),
        &format!("{head}\n{text}"),
    )?;
    Ok(Outcome::Yes)
}

/// Runs `sparse dequantize`.
pub fn dequantize(args: &DequantizeArgs, context: &Context) -> anyhow::Result<Outcome> {
    context.check_output(&args.output)?;
    let options = options(DEFAULT_SHARD_BYTES, context);
    let bar = context.bar();
    let folder = Path::new(&args.model);
    let gguf = sparse_quant::gguf::find(folder);
    let layers = if let Some(file) = gguf {
        check_apart(&args.output, &[folder])?;
        sparse_quant::dequantize_gguf(&file, &args.output, &options, &bar)?
    } else {
        let checkpoint = resolve::open(&args.model, context)?;
        check_apart(&args.output, &[checkpoint.root()])?;
        sparse_quant::dequantize(&checkpoint, &args.output, &options, &bar)?
    };
    drop(bar);
    context.emit(
        &json!({ "layers": layers, "peak_memory_bytes": peak_memory_bytes() }),
        &table::fields(&[("layers", format!("{layers}, as f32"))]),
    )?;
    Ok(Outcome::Yes)
}

fn options(max_shard_bytes: u64, context: &Context) -> Options {
    Options {
        threads: context.threads(),
        existing: context.existing(),
        max_shard_bytes,
        calibration: None,
    }
}

/// The calibration text, read before anything slow is done; without one the program's own, where
/// one is `needed`.
fn calibration(args: &QuantizeArgs, needed: bool) -> anyhow::Result<Option<Calibration>> {
    let text = match &args.calibration {
        None if !needed => return Ok(None),
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| Hinted {
            message: format!("cannot read {}: {error}", path.display()),
            hint: "pass a text file in UTF-8".to_owned(),
        })?),
    };
    Ok(Some(Calibration {
        text,
        samples: args.samples as usize,
        seed: args.seed,
    }))
}
