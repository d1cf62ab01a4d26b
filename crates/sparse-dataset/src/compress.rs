//! Making a delta.

use std::path::Path;

use crate::artifact::{
    FILE_NAME, FORMAT_VERSION, MAGIC, MORE_KEYED, MORE_PAGES, MORE_PRIMED, OPTIONAL_FOLDER,
    REQUIRED_BYTES, REQUIRED_COLUMNAR, REQUIRED_DICTIONARIES, REQUIRED_LENIENT, REQUIRED_MORE,
    REQUIRED_NO_HEADER, REQUIRED_QUICK, REQUIRED_REFERENCES, checksum,
};
use crate::columnar::{guarded, keeps_dictionaries};
use crate::descriptions::Descriptions;
use crate::error::Result;
use crate::format::Format;
use crate::inputs::{Base, DataFile, DataFiles};
use crate::matching::HashMatrix;
use crate::output::Output;
use crate::report::split_report;
use crate::spec::{CompressReport, CompressSpec, Progress, SplitReport};
use crate::split::{Opened, compress_split};
use crate::wire::put_number;
use crate::workers::{joined, spawn};

/// Writes the delta from `base` to `derivative` (each a file or a folder of
/// splits) into the folder `output`, which must exist.
///
/// # Errors
/// Every variant of [`crate::Error`] that concerns inputs; nothing is left behind.
pub fn compress(
    base: &Path,
    derivative: &Path,
    output: &Path,
    spec: &CompressSpec,
    progress: &dyn Progress,
) -> Result<CompressReport> {
    let DataFiles { files, skipped } = DataFiles::of(derivative)?;
    let (base, mut first) = open_both(base, files.first(), spec, progress);
    let (mut base, hashes) = base?;
    base.rows.carry();
    let mut artifact = Output::create(&output.join(FILE_NAME))?;
    let mut head = MAGIC.to_vec();
    let any = |of: fn(Format) -> bool| {
        let mut files = files.iter();
        files.any(|file| Format::of(&file.path).is_ok_and(of))
    };
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let mut dictionaries = false;
    for file in &files {
        dictionaries |= guarded(&file.path, || keeps_dictionaries(&file.path))?;
    }
    let columnar = any(|format| !format.is_text());
    let more = bit(any(|format| format == Format::Parquet), MORE_PAGES)
        | bit(columnar || files.len() > 1, MORE_PRIMED)
        | bit(spec.key.is_some(), MORE_KEYED);
    let required = REQUIRED_BYTES
        | REQUIRED_REFERENCES
        | REQUIRED_QUICK
        | bit(columnar, REQUIRED_COLUMNAR)
        | bit(more != 0, REQUIRED_MORE)
        | bit(dictionaries, REQUIRED_DICTIONARIES)
        | bit(spec.lenient, REQUIRED_LENIENT)
        | bit(!spec.header, REQUIRED_NO_HEADER);
    let optional = bit(derivative.is_dir(), OPTIONAL_FOLDER);
    head.extend_from_slice(&[FORMAT_VERSION, required, optional]);
    base.digests.write(&mut head);
    if more != 0 {
        head.push(more);
    }
    put_number(&mut head, files.len() as u64);
    artifact.write(&head)?;
    let mut splits = Vec::new();
    let mut descriptions = Descriptions::new(more & MORE_PRIMED != 0);
    for file in &files {
        let read = || Opened::new(&file.path, spec, progress);
        let opened = first.take().unwrap_or_else(read);
        let split = compress_split(
            &mut base,
            &hashes,
            file,
            opened?,
            spec,
            (&artifact, &descriptions),
            progress,
        )?;
        let before = artifact.written;
        split.write(&mut artifact, &mut descriptions)?;
        splits.push(split_report(&split.header, artifact.written - before));
    }
    let check = checksum(artifact.digest());
    artifact.write(&check)?;
    let report = CompressReport {
        derivative_bytes: splits.iter().map(|split: &SplitReport| split.bytes).sum(),
        delta_bytes: artifact.written,
        byte_exact: splits.iter().all(|split| split.byte_exact),
        splits,
        skipped,
    };
    artifact.commit()?;
    Ok(report)
}

/// Opens the base and hashes its cells, and opens the first file of the derivative beside that if
/// there is a thread for it.
fn open_both(
    base: &Path,
    first: Option<&DataFile>,
    spec: &CompressSpec,
    progress: &dyn Progress,
) -> (Result<(Base, HashMatrix)>, Option<Result<Opened>>) {
    let open_base = || Base::hashed(base, spec, progress);
    let Some(first) = first.filter(|_| spec.threads > 1) else {
        return (open_base(), None);
    };
    std::thread::scope(|scope| {
        let first = spawn(scope, || Opened::new(&first.path, spec, progress));
        let base = open_base();
        (base, first.map(joined))
    })
}
