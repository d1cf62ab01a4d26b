//! Work on chunks in parallel, results in order, never more than a few chunks in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc;

/// Threads beyond these are not used: what is under way together must fit into memory.
const MOST_THREADS: usize = 64;

/// Runs `work` over `jobs` on `threads` threads and hands the results to `sink` in the order of
/// the jobs. At most `4 * threads` jobs are under way at a time.
///
/// Each thread has a state of its own, made by `state`. The first error in the order of the jobs,
/// of the work or of the sink, stops everything and is returned; one of a job as soon as it comes.
pub(crate) fn ordered<J: Send, R: Send, S, E: Send>(
    threads: usize,
    jobs: impl IntoIterator<Item = Result<J, E>>,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J) -> Result<R, E> + Sync,
    mut sink: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.min(MOST_THREADS);
    if threads <= 1 {
        let mut state = state();
        return jobs
            .into_iter()
            .try_for_each(|job| sink(work(&mut state, job?)?));
    }
    let (job_sender, job_receiver) = mpsc::channel::<(usize, J)>();
    let job_receiver = Mutex::new(job_receiver);
    std::thread::scope(|scope| {
        // Dropped however this ends, which is what ends the workers.
        let job_sender = job_sender;
        let (sender, receiver) = mpsc::channel::<Option<(usize, Result<R, E>)>>();
        for _ in 0..threads {
            let (sender, job_receiver, state, work) =
                (sender.clone(), &job_receiver, &state, &work);
            scope.spawn(move || {
                let _last_word = LastWord(sender.clone());
                let mut state = state();
                loop {
                    // A poisoned lock means that another worker panicked: stop.
                    let Ok(Ok((number, job))) = job_receiver.lock().map(|r| r.recv()) else {
                        return;
                    };
                    if sender.send(Some((number, work(&mut state, job)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);

        let mut jobs = jobs.into_iter().fuse();
        let mut waiting = BTreeMap::new();
        let (mut sent, mut done) = (0usize, 0usize);
        loop {
            while sent - done < 4 * threads {
                match jobs.next() {
                    // Sending fails only when every worker is gone; receiving then tells.
                    Some(job) => drop(job_sender.send((sent, job?))),
                    None => break,
                }
                sent += 1;
            }
            if sent == done {
                return Ok(());
            }
            let Ok(Some((number, result))) = receiver.recv() else {
                // A worker panicked; leaving the scope passes the panic on.
                return Ok(());
            };
            waiting.insert(number, result);
            while let Some(result) = waiting.remove(&done) {
                sink(result?)?;
                done += 1;
            }
        }
    })
}

/// Sends `None` when its thread panics: the others would wait for its result for ever.
struct LastWord<T>(mpsc::Sender<Option<T>>);

impl<T> Drop for LastWord<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The receiver may have stopped already.
            let _ = self.0.send(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        for threads in [1, 2, 5] {
            let mut seen = Vec::new();
            let jobs = (0..200u64).map(Ok::<_, ()>);
            let work = |_: &mut (), n: u64| {
                std::thread::sleep(std::time::Duration::from_micros(n * 7919 % 50));
                Ok(n * n)
            };
            ordered(
                threads,
                jobs,
                || (),
                work,
                |n| {
                    seen.push(n);
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(seen, (0..200).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_passed_on() {
        let work = |_: &mut (), n: i32| {
            if n == 5 {
                panic!("as planned")
            } else {
                Ok::<_, ()>(n)
            }
        };
        let _ = ordered(3, (0..100).map(Ok), || (), work, |_| Ok(()));
    }

    #[test]
    fn the_first_error_stops_everything() {
        for threads in [1, 3] {
            let jobs = (0..).map(|n| if n == 70 { Err("job") } else { Ok(n) });
            let work = |_: &mut (), n: i32| Ok(n);
            assert_eq!(ordered(threads, jobs, || (), work, |_| Ok(())), Err("job"));
            let jobs = (0..).map(Ok);
            let work = |_: &mut (), n: i32| if n == 30 { Err("work") } else { Ok(n) };
            assert_eq!(ordered(threads, jobs, || (), work, |_| Ok(())), Err("work"));
            let work = |_: &mut (), n: i32| Ok(n);
            assert_eq!(
                ordered(
                    threads,
                    (0..).map(Ok),
                    || (),
                    work,
                    |n| if n == 9 { Err("sink") } else { Ok(()) }
                ),
                Err("sink")
            );
        }
    }
}
