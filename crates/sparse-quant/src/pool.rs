//! A bounded pool of threads for one piece of work.

/// Runs `work` so that what it does in parallel uses this many threads.
pub(crate) fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    match rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
    {
        Ok(pool) => pool.install(work),
        // The system gives no more threads: the shared pool will do.
        Err(_) => work(),
    }
}
