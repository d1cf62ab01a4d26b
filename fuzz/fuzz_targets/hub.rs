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
        assert!(!spec.contains("..") && !spec.starts_with('/'));
        assert!(repo.id().matches('/').count() <= 1);
    }
});
