//! From what the user typed to an open checkpoint.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sparse_checkpoint::{Checkpoint, Error, HubConfig, OnProgress};
use sparse_delta::Progress as _;

use crate::context::Context;

/// Opens a checkpoint directory, or a hub id from the cache or the hub.
pub fn open(spec: &str, context: &Context) -> anyhow::Result<Checkpoint> {
    resolve(context, |config, progress| {
        sparse_checkpoint::resolve(spec, config, progress)
    })
}

/// [`open`] for who does not look at weights: of a hub id that is not in the cache their headers
/// come into the folder `scratch`, and nothing else of them.
pub fn open_headers(spec: &str, scratch: &Path, context: &Context) -> anyhow::Result<Checkpoint> {
    resolve(context, |config, progress| {
        sparse_checkpoint::resolve_headers(spec, config, scratch, progress)
    })
}

fn resolve(
    context: &Context,
    find: impl FnOnce(&HubConfig, OnProgress<'_>) -> Result<PathBuf, Error>,
) -> anyhow::Result<Checkpoint> {
    let config = HubConfig::from_vars(|name| std::env::var(name).ok());
    let bar = context.bar();
    let (mut file, mut last) = (String::new(), 0);
    let path = find(&config, &mut |progress| {
        if file != progress.file {
            file = progress.file.to_owned();
            last = 0;
            bar.start("download", progress.total.unwrap_or(0));
        }
        bar.advance(progress.done.saturating_sub(last));
        last = progress.done;
        if context.interrupted() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    bar.clear();
    Ok(Checkpoint::open(&path)?)
}
