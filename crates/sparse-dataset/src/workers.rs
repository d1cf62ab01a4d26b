//! Work on several threads, with results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, Result};

/// Pieces that wait to be taken.
const WAITING: usize = 1;
/// As much as a program's first thread usually has: readers of nested types call themselves.
const STACK: usize = 8 << 20;

/// Starts a thread; nothing where the system has no more.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    let builder = Builder::new().stack_size(STACK);
    builder.spawn_scoped(scope, work).ok()
}

/// What a thread came to; its panic goes on here.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Lets `produce` hand on pieces that `consume` takes in order: with two threads or more on one of
/// its own. The first error ends both.
pub(crate) fn handed_on<T: Send>(
    threads: usize,
    produce: impl FnOnce(&mut dyn FnMut(T) -> Result<()>) -> Result<()>,
    mut consume: impl FnMut(T) -> Result<()> + Send,
) -> Result<()> {
    if threads < 2 {
        return produce(&mut consume);
    }
    let mut produce = Some(produce);
    let done = std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        let consume = &mut consume;
        let consumer = spawn(scope, move || receiver.into_iter().try_for_each(consume))?;
        let produced = produce.take()?(&mut |piece| {
            // Who does not take it says why.
            sender.send(piece).map_err(|_| Error::Interrupted)
        });
        drop(sender);
        Some(joined(consumer).and(produced))
    });
    match (done, produce) {
        (Some(done), _) => done,
        // There was no thread to be had.
        (None, Some(produce)) => produce(&mut consume),
        (None, None) => Ok(()),
    }
}

/// Does `work` on every item, on as many threads as there are `states`, and gives the results in
/// order.
pub(crate) fn each<T: Sync, S: Send, R: Send>(
    items: &[T],
    states: &mut [S],
    work: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let some = |state: &mut S| {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            match items.get(number) {
                Some(item) => done.push((number, work(state, item))),
                None => return done,
            }
        }
    };
    let useful = states.len().min(items.len());
    let Some((own, others)) = states[..useful].split_first_mut() else {
        return Vec::new();
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = others
            .iter_mut()
            .map_while(|state| spawn(scope, || some(state)))
            .collect();
        let mut done = some(own);
        for other in others {
            done.extend(joined(other));
        }
        done
    });
    done.sort_unstable_by_key(|&(number, _)| number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn failure(what: &str) -> Error {
        Error::Columnar {
            path: what.into(),
            message: what.to_owned(),
        }
    }

    #[test]
    fn pieces_arrive_in_order_and_the_first_error_is_told() {
        for threads in [1, 2, 8] {
            let run = |produced: u32, taken: u32| {
                let mut found = Vec::new();
                let result = handed_on(
                    threads,
                    |put| {
                        (0..produced).try_for_each(put)?;
                        if produced < 100 {
                            return Err(failure("producer"));
                        }
                        Ok(())
                    },
                    |piece| {
                        found.push(piece);
                        if piece == taken {
                            return Err(failure("consumer"));
                        }
                        Ok(())
                    },
                );
                (found, result.map_err(|error| error.to_string()))
            };
            let (found, result) = run(100, 1000);
            assert_eq!((found, result), ((0..100).collect(), Ok(())));
            let (found, result) = run(5, 1000);
            assert_eq!(found, [0, 1, 2, 3, 4]);
            assert!(result.unwrap_err().contains("producer"));
            let (found, result) = run(100, 3);
            assert_eq!(found, [0, 1, 2, 3]);
            assert!(result.unwrap_err().contains("consumer"));
        }
    }

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let squares: Vec<u64> = items.iter().map(|n| n * n).collect();
        for threads in [0, 1, 3, 200] {
            let mut counts = vec![0; threads];
            let found = each(&items, &mut counts, |count, item| {
                *count += 1;
                item * item
            });
            if threads == 0 {
                assert_eq!(found, []);
            } else {
                assert_eq!(found, squares);
                assert_eq!(counts.iter().sum::<u64>(), 100);
            }
        }
    }

    #[test]
    fn a_panic_on_another_thread_is_one_of_the_callers() {
        let caught = std::panic::catch_unwind(|| {
            handed_on(2, |put| (0..9).try_for_each(put), |_: u32| panic!("here"))
        });
        assert!(caught.is_err());
        let caught = std::panic::catch_unwind(|| {
            each(&[1, 2, 3], &mut [(), ()], |(), item| assert!(*item < 3))
        });
        assert!(caught.is_err());
    }
}
