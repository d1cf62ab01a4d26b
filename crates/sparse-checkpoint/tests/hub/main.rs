//! Models from a hub on this machine: found in the cache, fetched, resumed, refused.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used)]

mod download;
mod refusals;
mod server;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use server::{COMMIT, Hub, Served, Server};
use sha2::{Digest, Sha256};
use sparse_checkpoint::{
    Checkpoint, Error, HubConfig, HubError, Progress, resolve, resolve_headers,
};
use tempfile::TempDir;

/// Weights of some size, as a valid file.
fn weights() -> Vec<u8> {
    let text = r#"{"w":{"dtype":"U8","shape":[1000000],"data_offsets":[0,1000000]}}"#;
    let data: Vec<u8> = (0..1_000_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn large(bytes: Vec<u8>) -> Served {
    Served {
        etag: sha256(&bytes),
        bytes,
        large: true,
        ..Served::default()
    }
}

fn small(text: &str) -> Served {
    let etag = sha256(text.as_bytes())[..40].to_owned();
    Served {
        bytes: text.into(),
        etag,
        ..Served::default()
    }
}

fn hub() -> Hub {
    let files = [
        ("config.json", small("{}")),
        ("README.md", small("a card")),
        ("pytorch_model.bin", small("no need")),
        ("model.safetensors", large(weights())),
        ("sub/tokenizer.json", small("[]")),
    ];
    let files = files.map(|(name, served)| (name.to_owned(), served)).into();
    Hub {
        files,
        ..Hub::default()
    }
}

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

struct Setup {
    server: Server,
    cache: TempDir,
    config: HubConfig,
}

fn setup(hub: Hub) -> Setup {
    let (server, cache) = (Server::start(hub), tempfile::tempdir().unwrap());
    let config = HubConfig {
        cache_dir: Some(cache.path().to_path_buf()),
        endpoint: server.url.clone(),
        retries: 2,
        retry_delay: Duration::from_millis(1),
        ..HubConfig::default()
    };
    Setup {
        server,
        cache,
        config,
    }
}

impl Setup {
    fn resolve(&self, spec: &str) -> Result<PathBuf, Error> {
        resolve(spec, &self.config, &mut go_on)
    }

    fn hub_error(&self, spec: &str) -> HubError {
        match self.resolve(spec).unwrap_err() {
            Error::Hub(error) => *error,
            error => panic!("{error}"),
        }
    }

    fn repo(&self) -> PathBuf {
        self.cache.path().join("models--o--n")
    }

    fn blobs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repo().join("blobs")) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Served)) {
        change(self.server.hub.lock().unwrap().files.get_mut(file).unwrap());
    }
}

fn assert_whole(snapshot: &Path) {
    assert_eq!(
        fs::read(snapshot.join("model.safetensors")).unwrap(),
        weights()
    );
    let checkpoint = Checkpoint::open(snapshot).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().elements(), 1_000_000);
    let files: Vec<_> = checkpoint
        .files()
        .iter()
        .map(|file| file.path().as_str())
        .collect();
    assert_eq!(files, ["README.md", "config.json", "sub/tokenizer.json"]);
}
