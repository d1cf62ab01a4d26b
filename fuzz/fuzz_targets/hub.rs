//! What a hub answers, and the names of its repositories.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_checkpoint::RepoId;

fuzz_target!(|input: &[u8]| {
    sparse_checkpoint::fuzzing::hub_answer(input);
    let Ok(spec) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(repo) = RepoId::parse(spec) {
        assert_eq!(repo.to_string(), spec);
        let mut parts = repo.id().split('/').chain(repo.revision().split('/'));
        assert!(parts.all(|part| !part.is_empty() && part != "." && part != ".."));
        assert!(repo.id().matches('/').count() <= 1);
    }
});
