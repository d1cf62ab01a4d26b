//! From what the user typed to an open checkpoint.

use sparse_checkpoint::{Checkpoint, HubConfig};
use sparse_delta::Progress as _;

use crate::context::Context;

/// Opens a checkpoint directory, or a hub id from the cache or the hub.
pub fn open(spec: &str, context: &Context) -> anyhow::Result<Checkpoint> {
    let config = HubConfig::from_vars(|name| std::env::var(name).ok());
    let bar = context.bar();
    let (mut file, mut last) = (String::new(), 0);
    let path = sparse_checkpoint::resolve(spec, &config, &mut |progress| {
        if file != progress.file {
            file = progress.file.to_owned();
            last = 0;
            bar.start("download", progress.total.unwrap_or(0));
        }
        bar.advance(progress.done.saturating_sub(last));
        last = progress.done;
    })?;
    bar.clear();
    Ok(Checkpoint::open(&path)?)
}
