//! `verify`: is the delta whole, and does it rebuild the original from this base?

use std::path::Path;

use sparse_checkpoint::Checkpoint;

use crate::Error;
use crate::artifact::Artifact;
use crate::base::check_base;
use crate::progress::Progress;
use crate::reconstruct::{Decoders, Sink, check_all_stored, rebuild};

/// Lists everything that is wrong with `delta`; an empty list means that it is whole.
///
/// Without a base, every stored byte is checked against its digest. With one, the base is checked
/// too and every file rebuilt in memory and compared with the original's SHA-256.
///
/// # Errors
/// [`Error::NotADelta`] where there is no delta at all, [`Error::Version`] or
/// [`Error::Features`] for one from a later version, [`Error::Interrupted`].
pub fn verify(
    delta: &Path,
    base: Option<&Checkpoint>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<String>, Error> {
    let artifact = match Artifact::open(delta) {
        Ok(artifact) => artifact,
        Err(error @ (Error::Damaged { .. } | Error::Checkpoint(_))) => {
            return Ok(vec![error.to_string()]);
        }
        Err(error) => return Err(error),
    };
    let mut problems = Vec::new();
    progress.start("verify", artifact.bytes());
    check_all_stored(&artifact, progress, |error| note(error, &mut problems))?;
    let Some(base) = base else {
        return Ok(problems);
    };
    if let Err(error) = check_base(&artifact, base, threads, progress) {
        note(error, &mut problems)?;
        return Ok(problems);
    }
    let decoders = match Decoders::new(&artifact, base) {
        Ok(decoders) => decoders,
        Err(error) => {
            note(error, &mut problems)?;
            return Ok(problems);
        }
    };
    progress.start(
        "rebuild",
        artifact.index().files.iter().map(|f| f.size).sum(),
    );
    for number in 0..artifact.index().files.len() {
        if let Err(error) = rebuild(&decoders, number, threads, progress, &mut Nowhere) {
            note(error, &mut problems)?;
        }
    }
    Ok(problems)
}

/// Adds the error to the problems, once, unless it is no problem of the delta.
fn note(error: Error, problems: &mut Vec<String>) -> Result<(), Error> {
    if matches!(error, Error::Interrupted) {
        return Err(error);
    }
    let text = error.to_string();
    if !problems.contains(&text) {
        problems.push(text);
    }
    Ok(())
}

struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}
