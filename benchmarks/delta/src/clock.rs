//! Time that a thread itself ran, so that other work on the machine does not count.

use std::time::{Duration, Instant};

/// Time since [`Clock::start`].
pub struct Clock {
    wall: Instant,
    ran: Option<Duration>,
}

impl Clock {
    /// Starts for this thread.
    pub fn start() -> Self {
        // First, so that what the thread runs is a part of it: asking for that takes a while itself.
        let wall = Instant::now();
        Self { wall, ran: ran() }
    }

    /// How long this thread has run since; wall time where the system does not say.
    pub fn elapsed(&self) -> Duration {
        let wall = self.wall.elapsed();
        match (self.ran, ran()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => wall,
        }
    }
}

/// Time on a CPU, from Linux's scheduler, which counts in nanoseconds when a thread gives way.
fn ran() -> Option<Duration> {
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_and_sleep_does_not() {
        let clock = Clock::start();
        let mut sum = 0u64;
        while clock.wall.elapsed() < Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        let worked = clock.elapsed();
        assert!(worked > Duration::ZERO && worked <= clock.wall.elapsed());
        if clock.ran.is_some() {
            std::thread::sleep(Duration::from_millis(50));
            assert!(clock.elapsed() < worked + Duration::from_millis(40));
        }
    }
}
