//! Models from a hub on this machine: found in the cache, fetched, resumed, refused.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sparse_checkpoint::{Checkpoint, Error, HubConfig, HubError, resolve};
use support::{COMMIT, Hub, Served, Server};
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
        ("README.md", small("no need")),
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
        resolve(spec, &self.config, &mut |_| {})
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
    assert_eq!(files, ["config.json", "sub/tokenizer.json"]);
}

#[test]
fn a_model_is_fetched_into_the_layout_that_others_read_and_then_found_there() {
    let setup = setup(hub());
    let mut seen = Vec::new();
    let snapshot = resolve("o/n", &setup.config, &mut |at| {
        seen.push((at.file.to_owned(), at.done, at.total, at.position, at.files));
    })
    .unwrap();
    assert_whole(&snapshot);
    assert_eq!(snapshot, setup.repo().join("snapshots").join(COMMIT));
    assert_eq!(
        fs::read_to_string(setup.repo().join("refs/main")).unwrap(),
        COMMIT
    );
    #[cfg(unix)]
    for (file, up) in [
        ("config.json", "../../"),
        ("sub/tokenizer.json", "../../../"),
    ] {
        let link = fs::read_link(snapshot.join(file)).unwrap();
        assert!(
            link.to_str().unwrap().starts_with(&format!("{up}blobs/")),
            "{link:?}"
        );
    }
    assert_eq!(
        setup.blobs().len(),
        3,
        "three files are needed, none is left incomplete"
    );
    let size = weights().len() as u64;
    assert_eq!(
        *seen.last().unwrap(),
        ("model.safetensors".into(), size, Some(size), 2, 3)
    );

    let requests = setup.server.hub.lock().unwrap().log.len();
    assert_eq!(setup.resolve("o/n").unwrap(), snapshot);
    assert_eq!(setup.resolve(&format!("o/n@{COMMIT}")).unwrap(), snapshot);
    let offline = HubConfig {
        offline: true,
        ..setup.config.clone()
    };
    assert_eq!(
        resolve("o/n@main", &offline, &mut |_| {}).unwrap(),
        snapshot
    );
    assert_eq!(
        setup.server.hub.lock().unwrap().log.len(),
        requests,
        "no more requests"
    );
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let setup = setup(hub());
    setup.edit("model.safetensors", |file| {
        (file.cut_after, file.cuts) = (Some(300_000), 3);
    });
    assert_whole(&setup.resolve("o/n@v1").unwrap());
    let gets = setup.server.requests("GET");
    let ranges: Vec<_> = gets.iter().filter(|get| get.contains("/store/")).collect();
    assert_eq!(ranges.len(), 4);
    assert!(ranges[1].ends_with("bytes=300000-"), "{ranges:?}");
    assert!(ranges[3].ends_with("bytes=900000-"), "{ranges:?}");
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_gave_up() {
    let setup = setup(hub());
    setup.edit("model.safetensors", |file| {
        (file.cut_after, file.cuts) = (Some(0), 100)
    });
    let error = setup.hub_error("o/n");
    assert!(matches!(&error, HubError::Transport { url, .. } if url.contains("model.safetensors")));
    assert!(
        !setup.repo().join("refs/main").exists(),
        "the revision is noted last"
    );

    let incomplete = setup
        .blobs()
        .into_iter()
        .find(|blob| blob.ends_with(".incomplete"))
        .unwrap();
    fs::write(
        setup.repo().join("blobs").join(incomplete),
        &weights()[..500_000],
    )
    .unwrap();
    setup.edit("model.safetensors", |file| file.cuts = 0);
    let before = setup.server.requests("GET").len();
    assert_whole(&setup.resolve("o/n").unwrap());
    let gets = setup.server.requests("GET")[before..].to_vec();
    assert_eq!(
        gets.len(),
        3,
        "the listing, and one file through a redirect: {gets:?}"
    );
    assert!(gets[2].ends_with("bytes=500000-"));
}

#[test]
fn leftovers_that_do_not_belong_to_the_file_are_thrown_away() {
    let size = weights().len();
    for leftover in [vec![1; 1000], vec![1; size], vec![1; size + 1]] {
        let setup = setup(hub());
        let blobs = setup.repo().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let name = format!("{}.incomplete", sha256(&weights()));
        fs::write(blobs.join(name), leftover).unwrap();
        assert_whole(&setup.resolve("o/n").unwrap());
    }
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let setup = setup(hub());
    setup.edit("model.safetensors", |file| {
        (file.cut_after, file.cuts, file.no_ranges) = (Some(300_000), 2, true);
    });
    assert_whole(&setup.resolve("o/n").unwrap());
}

#[test]
fn a_file_with_the_wrong_content_never_gets_its_name() {
    let setup = setup(hub());
    setup.edit("model.safetensors", |file| {
        *file.bytes.last_mut().unwrap() ^= 1
    });
    let error = setup.hub_error("o/n");
    assert!(
        matches!(&error, HubError::WrongDigest { expected, .. } if *expected == sha256(&weights()))
    );
    assert_eq!(setup.blobs().len(), 2, "the small files only");
    setup.edit("model.safetensors", |file| file.bytes = weights());
    assert_whole(&setup.resolve("o/n").unwrap());
}

#[test]
fn refusals_say_what_to_do() {
    for (status, code, expected, hint) in [
        (
            404,
            "RepoNotFound",
            "neither a folder here nor a model",
            "spelling",
        ),
        (404, "", "neither a folder here nor a model", "spelling"),
        (404, "RevisionNotFound", "o/n@v2 at", "after the @"),
        (401, "GatedRepo", "denies access to o/n@v2", "HF_TOKEN"),
        (403, "", "denies access to o/n@v2", "HF_TOKEN"),
        (500, "", "HTTP 500", "try again"),
    ] {
        let setup = setup(Hub {
            refuse: Some((status, code)),
            ..hub()
        });
        let error = setup.resolve("o/n@v2").unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(
            error.hint().unwrap().contains(hint),
            "{error}: {:?}",
            error.hint()
        );
        assert!(!setup.repo().exists(), "nothing is left behind");
    }
}

#[test]
fn a_hub_that_is_down_is_named() {
    let setup = setup(hub());
    let config = HubConfig {
        endpoint: "http://127.0.0.1:1".to_owned(),
        ..setup.config.clone()
    };
    let error = resolve("o/n", &config, &mut |_| {}).unwrap_err();
    assert!(
        error.to_string().contains("http://127.0.0.1:1/api"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("HF_ENDPOINT"));
}

#[test]
fn a_busy_hub_is_asked_again() {
    let setup = setup(Hub { busy: 2, ..hub() });
    assert_whole(&setup.resolve("o/n").unwrap());
}

#[test]
fn the_token_is_sent_to_the_hub() {
    let mut setup = setup(hub());
    let token = setup.cache.path().join("token");
    fs::write(&token, "hf_test\n").unwrap();
    setup.config.token_file = Some(token);
    setup.resolve("o/n").unwrap();
    let hub = setup.server.hub.lock().unwrap();
    assert!(hub.log.iter().all(|request| request[3] == "Bearer hf_test"));
}

#[test]
fn the_token_is_not_sent_to_where_the_hub_redirects() {
    let store = Server::start(hub());
    let elsewhere = store.url.replace("127.0.0.1", "localhost");
    let mut setup = setup(hub());
    setup.config.token = Some("hf_test".to_owned());
    setup.edit("model.safetensors", |file| file.store = elsewhere);
    assert_whole(&setup.resolve("o/n").unwrap());
    let log = &store.hub.lock().unwrap().log;
    assert!(
        !log.is_empty() && log.iter().all(|request| request[3].is_empty()),
        "{log:?}"
    );
}

#[test]
fn a_hostile_listing_writes_nothing_outside_of_the_cache() {
    for (listing, expected) in [
        (
            format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"../../x.json"}}]}}"#),
            "unsafe path",
        ),
        (
            r#"{"sha":"../../..","siblings":[]}"#.to_owned(),
            "not a commit id",
        ),
        ("<html>".to_owned(), "expected value"),
    ] {
        let setup = setup(Hub {
            listing: Some(listing),
            ..hub()
        });
        let error = setup.hub_error("o/n");
        assert!(matches!(&error, HubError::Protocol { message, .. } if message.contains(expected)));
        assert!(!setup.repo().exists());
    }
    for etag in ["", "../../../escape", "a/b", "con"] {
        let setup = setup(hub());
        setup.edit("config.json", |file| file.etag = etag.to_owned());
        assert!(
            matches!(setup.hub_error("o/n"), HubError::Protocol { .. }),
            "{etag}"
        );
    }
}

#[test]
fn a_repository_without_safetensors_says_so_before_anything_is_fetched() {
    let mut hub = hub();
    hub.files.remove("model.safetensors");
    let setup = setup(hub);
    let error = setup.resolve("o/n").unwrap_err();
    assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
    assert!(error.hint().unwrap().contains("convert"));
    assert!(setup.blobs().is_empty());
}

#[test]
fn two_processes_at_once_end_with_one_whole_copy() {
    let setup = setup(hub());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| setup.resolve("o/n").unwrap()))
            .collect();
        runs.into_iter()
            .for_each(|run| assert_whole(&run.join().unwrap()));
    });
    let gets = setup.server.requests("GET");
    assert_eq!(gets.iter().filter(|get| get.contains("/store/")).count(), 1);
    assert_eq!(setup.blobs().len(), 3);
}
