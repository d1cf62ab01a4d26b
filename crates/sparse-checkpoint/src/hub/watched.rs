//! Work that waits for a network, and can be stopped while it waits.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::{OnProgress, Progress};
use crate::Error;

/// How often the caller is asked, while nothing arrives, whether to go on.
const POLL: Duration = Duration::from_millis(50);
/// How long work that is stopped may take to put down what it holds.
const GRACE: Duration = Duration::from_millis(500);
/// Reports that may wait for the caller.
const UNREAD: usize = 16;

/// Takes news of the work; an error tells it to stop.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Progress<'_>) -> Result<(), Error>;

/// [`Progress`] that can be sent.
#[derive(Default)]
struct News {
    file: String,
    done: u64,
    total: Option<u64>,
    position: usize,
    files: usize,
}

/// Does `work` on a thread of its own and hands what it tells to `progress` on this one.
///
/// A server that does not answer, a file that another process has locked and the pause before
/// another attempt block a thread for up to minutes. This one is never blocked: when `progress`
/// breaks off, the work ends at its next report, and nobody waits for that.
pub(super) fn watched<T: Send + 'static>(
    progress: OnProgress<'_>,
    work: impl FnOnce(Tell<'_>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = mpsc::sync_channel::<News>(UNREAD);
    let worker = thread::spawn(move || {
        work(&mut |at| {
            let news = News {
                file: at.file.to_owned(),
                done: at.done,
                total: at.total,
                position: at.position,
                files: at.files,
            };
            sender.send(news).map_err(|_| Error::Interrupted)
        })
    });
    let mut last = News::default();
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(news) => last = news,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match worker.join() {
                Ok(result) => return result,
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
        let at = Progress {
            file: &last.file,
            done: last.done,
            total: last.total,
            position: last.position,
            files: last.files,
        };
        if progress(at) == ControlFlow::Break(()) {
            break;
        }
    }
    drop(receiver);
    let stopped = Instant::now();
    while !worker.is_finished() && stopped.elapsed() < GRACE {
        thread::sleep(Duration::from_millis(5));
    }
    Err(Error::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_in_order_before_the_result() {
        let mut seen = Vec::new();
        let result = watched(
            &mut |at| {
                seen.push(at.done);
                ControlFlow::Continue(())
            },
            |tell| {
                for done in 1..100 {
                    tell(Progress {
                        done,
                        ..Progress::default()
                    })?;
                }
                Ok("done")
            },
        );
        assert_eq!(result.unwrap(), "done");
        seen.dedup();
        assert!(
            seen.iter().copied().filter(|&n| n > 0).eq(1..100),
            "{seen:?}"
        );
    }

    #[test]
    fn work_that_is_stuck_is_not_waited_for() {
        let (release, stuck) = mpsc::channel::<()>();
        let result = watched(&mut |_| ControlFlow::Break(()), move |_| {
            let _ = stuck.recv();
            Ok(())
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        // Until here the work could not end.
        drop(release);
    }
}
