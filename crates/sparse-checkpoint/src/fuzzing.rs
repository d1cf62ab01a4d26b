//! Ways in for fuzzers, past what the public interface checks first.

/// Reads what a hub answered: a listing, or headers with a line each.
pub fn hub_answer(answer: &[u8]) {
    crate::hub::fuzz_answer(answer);
}
