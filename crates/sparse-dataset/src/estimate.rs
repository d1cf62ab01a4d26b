//! What a delta would come to, from a part of the rows.

use std::path::Path;

use crate::decide::decide;
use crate::delta::{BlockEncoder, Levels, Setup};
use crate::error::Result;
use crate::format::Format;
use crate::inputs::{Base, DataFiles};
use crate::spec::{CompressSpec, Estimate, Progress, step};
use crate::split::Opened;
use crate::text::Template;

/// Rows of a sampled stretch, and stretches of a file.
const STRETCH: usize = 1024;
const STRETCHES: usize = 8;
/// Magic, digests, checksum and a typical header.
const OVERHEAD: u64 = 400;

/// Estimates the size of the delta from `base` to `derivative`.
///
/// # Errors
/// As for [`crate::compress`].
pub fn estimate(
    base: &Path,
    derivative: &Path,
    spec: &CompressSpec,
    progress: &dyn Progress,
) -> Result<Estimate> {
    let (mut base, hashes) = Base::hashed(base, spec, progress)?;
    let mut out = Estimate {
        derivative_bytes: 0,
        estimated_delta_bytes: OVERHEAD,
        unchanged_fraction: 0.0,
        sampled_rows: 0,
    };
    let mut unchanged = 0u64;
    for file in DataFiles::of(derivative)?.files {
        let file = file.path;
        let Opened {
            source, mut rows, ..
        } = Opened::new(&file, spec, progress)?;
        out.derivative_bytes += source.len;
        rows.take_apart(&base.rows.columns.names);
        let decided = decide(&mut base, &hashes, &file, &mut rows, spec, progress)?;
        let templates = match rows.text() {
            Some(table) => table.parser.templates.list.clone(),
            None => vec![Template::columnar(decided.columns.len())],
        };
        let mut setup = Setup::new(
            &decided.plan,
            &decided.columns,
            &rows.scales,
            templates,
            decided.model,
            &mut base.rows,
        );
        setup.paragraphs = Format::of(&file)?.has_paragraphs();
        setup.key = decided.key;
        let levels = Levels::new(spec.effort, source.len);
        let mut encoder = BlockEncoder::new(setup, &mut base.rows, levels)?;
        let count = decided.references.len();
        let stride = (count / STRETCHES).max(STRETCH);
        let (mut coded, mut sampled) = (0u64, 0u64);
        for first in (0..count).step_by(stride) {
            step(progress, "sampling", first as u64, count as u64)?;
            let references = &decided.references[first..(first + STRETCH).min(count)];
            coded += encoder
                .block(first as u32, references, &mut rows, &mut base.rows)?
                .len() as u64;
            sampled += references.len() as u64;
        }
        out.estimated_delta_bytes += (coded as f64 * count as f64 / sampled.max(1) as f64) as u64;
        out.sampled_rows += sampled;
        let counts = encoder.counts();
        unchanged += counts.referenced - counts.edited;
    }
    out.unchanged_fraction = unchanged as f64 / out.sampled_rows.max(1) as f64;
    Ok(out)
}
