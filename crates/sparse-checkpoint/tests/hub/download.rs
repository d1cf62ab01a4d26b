//! Fetched whole, whatever the connection does.

use super::*;

#[test]
fn a_model_is_fetched_into_the_layout_that_others_read_and_then_found_there() {
    let setup = setup(hub());
    let mut seen = Vec::new();
    let snapshot = resolve("o/n", &setup.config, &mut |at| {
        seen.push((at.file.to_owned(), at.done, at.total, at.position, at.files));
        ControlFlow::Continue(())
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
        4,
        "four files belong to it, none is left incomplete"
    );
    let size = weights().len() as u64;
    assert_eq!(
        *seen.last().unwrap(),
        ("model.safetensors".into(), size, Some(size), 3, 4)
    );

    let requests = setup.server.hub.lock().unwrap().log.len();
    assert_eq!(setup.resolve("o/n").unwrap(), snapshot);
    assert_eq!(setup.resolve(&format!("o/n@{COMMIT}")).unwrap(), snapshot);
    let offline = HubConfig {
        offline: true,
        ..setup.config.clone()
    };
    assert_eq!(resolve("o/n@main", &offline, &mut go_on).unwrap(), snapshot);
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
fn a_download_that_is_stopped_goes_on_later_where_it_was() {
    let setup = setup(hub());
    setup.edit("model.safetensors", |file| {
        (file.cut_after, file.cuts, file.stalls) = (Some(300_000), 1, true);
    });
    let started = std::time::Instant::now();
    let mut idle = 0;
    // Stopped when nothing has come for a while: the server holds the connection open.
    let error = resolve("o/n", &setup.config, &mut |at| {
        idle += usize::from(at.file == "model.safetensors" && at.done == 300_000);
        match idle {
            0..3 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })
    .unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "not prompt");
    assert!(!setup.repo().join("refs/main").exists());

    setup.edit("model.safetensors", |file| file.stalls = false);
    assert_whole(&setup.resolve("o/n").unwrap());
    let gets = setup.server.requests("GET");
    assert!(gets.last().unwrap().ends_with("bytes=300000-"), "{gets:?}");
}

#[test]
fn a_download_is_stopped_at_any_file() {
    let setup = setup(hub());
    for stop_at in ["config.json", "model.safetensors"] {
        let result = resolve("o/n", &setup.config, &mut |at| match at.file == stop_at {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(matches!(result, Err(Error::Interrupted)), "{stop_at}");
    }
    assert_whole(&setup.resolve("o/n").unwrap());
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
    assert_eq!(setup.blobs().len(), 3, "the small files only");
    setup.edit("model.safetensors", |file| file.bytes = weights());
    assert_whole(&setup.resolve("o/n").unwrap());
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
    assert_eq!(setup.blobs().len(), 4);
}

#[test]
fn headers_come_without_their_weights() {
    let setup = setup(hub());
    let into = tempfile::tempdir().unwrap();
    let found = resolve_headers("o/n", &setup.config, into.path(), &mut go_on).unwrap();
    assert_eq!(found, into.path());
    let checkpoint = Checkpoint::open(&found).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().elements(), 1_000_000);
    assert!(checkpoint.file("config.json").is_some());
    let file = fs::metadata(found.join("model.safetensors")).unwrap();
    assert_eq!(file.len(), weights().len() as u64);
    assert!(
        setup.blobs().is_empty(),
        "nothing that passes for a model is in the cache"
    );
    // What is in the cache is taken from there.
    let whole = setup.resolve("o/n").unwrap();
    let again = tempfile::tempdir().unwrap();
    let found = resolve_headers("o/n", &setup.config, again.path(), &mut go_on).unwrap();
    assert_eq!(found, whole);
}

#[test]
fn a_header_that_breaks_off_is_an_error() {
    let setup = setup(hub());
    setup.edit("model.safetensors", |file| {
        (file.cut_after, file.cuts) = (Some(5), 100);
    });
    let into = tempfile::tempdir().unwrap();
    let result = resolve_headers("o/n", &setup.config, into.path(), &mut go_on);
    assert!(matches!(result, Err(Error::Hub(_))), "{result:?}");
}
