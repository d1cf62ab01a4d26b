//! Hubs that are down, refuse, or lie; and who gets to see the token.

use super::*;

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
    let error = resolve("o/n", &config, &mut go_on).unwrap_err();
    assert!(
        error.to_string().contains("http://127.0.0.1:1/api"),
        "{error}"
    );
    let message = error.to_string();
    assert!(
        message.starts_with("o/n is neither a folder here"),
        "{message}"
    );
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("check the path") && hint.contains("HF_ENDPOINT"));
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
    for name in ["../../x.json", "../../x.safetensors", "a:b.json"] {
        let names = format!(r#"{{"rfilename":"model.safetensors"}},{{"rfilename":"{name}"}}"#);
        let setup = setup(Hub {
            listing: Some(format!(r#"{{"sha":"{COMMIT}","siblings":[{names}]}}"#)),
            ..hub()
        });
        let error = setup.hub_error("o/n");
        assert!(matches!(error, HubError::FileName { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
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
fn an_odd_name_of_a_file_that_nobody_needs_is_no_obstacle() {
    let mut hub = hub();
    for name in ["a:b.png", "con", "../escape.bin"] {
        hub.files.insert(name.to_owned(), small("no need"));
    }
    let setup = setup(hub);
    assert_whole(&setup.resolve("o/n").unwrap());
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
