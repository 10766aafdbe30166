//! The threads that compute: the process's pool, and spare threads beside a single one. Knows nothing about what they compute.

use std::cell::Cell;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

use thiserror::Error;

/// Why there are no threads that compute as they were asked for.
#[derive(Debug, Error)]
pub enum ThreadsError {
    /// The pool can't have the size that was asked for.
    #[error("can't have {threads} threads that compute")]
    Pool {
        /// The size.
        threads: NonZeroUsize,
        /// Why not.
        source: rayon::ThreadPoolBuildError,
    },
    /// The system has no priority below that of all other threads, or does not allow it.
    #[error("can't have threads that run below all others")]
    Priority,
}

/// What a thread has beside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spare {
    /// No spare threads.
    Absent,
    /// They take parts of its products.
    Helping,
    /// They do not: for now, or since there are none any more.
    Resting,
}

thread_local! {
    static SPARE: Cell<Spare> = const { Cell::new(Spare::Absent) };
}

/// Sets the size of the pool, once and before anything computes; otherwise it has a thread for each processor. Products
/// that are too small to share stay on the thread that asks for them.
///
/// # Errors
/// The system has no threads for it, or the pool has begun.
pub fn use_threads(threads: NonZeroUsize) -> Result<(), ThreadsError> {
    let name = |index| format!("chorus-compute-{index}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).thread_name(name);
    pool.build_global().map_err(|source| ThreadsError::Pool { threads, source })
}

/// Threads that take parts of one thread's products while processors have nothing else to do: they run below every other
/// thread of the machine. So the last of several processes is helped out by those processors that the others have left; a
/// machine where all are busy is slowed down by them, since whoever gives them a part waits for it
/// ([`without_spare_threads`]). Dropping it ends them; the thread computes alone from then on.
#[derive(Debug)]
pub struct SpareThreads {
    _pool: rayon::ThreadPool,
    /// It is of the thread that it was made for, and goes to no other.
    _of_its_thread: PhantomData<*const ()>,
}

impl SpareThreads {
    /// So many for the thread that calls this, which may do so once.
    ///
    /// # Errors
    /// The system has no threads for it or none of so low a priority, or this thread has some.
    pub fn of_this_thread(count: NonZeroUsize) -> Result<Self, ThreadsError> {
        // Found out beside, since whoever gives way can't take that back everywhere.
        let allowed = std::thread::scope(|scope| scope.spawn(give_way).join());
        if !allowed.unwrap_or(false) {
            return Err(ThreadsError::Priority);
        }
        let (threads, had) = (count.saturating_add(1), SPARE.get());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .use_current_thread()
            .thread_name(|index| format!("chorus-spare-{index}"))
            .start_handler(|_| {
                give_way();
            });
        // Whether or not it can be built, this thread is of no other pool from now on.
        SPARE.set(if had == Spare::Absent { Spare::Resting } else { had });
        let pool = pool.build().map_err(|source| ThreadsError::Pool { threads, source })?;
        SPARE.set(Spare::Helping);
        Ok(Self { _pool: pool, _of_its_thread: PhantomData })
    }
}

impl Drop for SpareThreads {
    fn drop(&mut self) {
        SPARE.set(Spare::Resting);
    }
}

/// Runs `work`, a model's forward, without this thread's [`SpareThreads`], if it has any.
pub fn without_spare_threads<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(Spare);
    impl Drop for Restore {
        fn drop(&mut self) {
            SPARE.set(self.0);
        }
    }
    let before = SPARE.get();
    let _restore = Restore(before);
    if before == Spare::Helping {
        SPARE.set(Spare::Resting);
    }
    work()
}

/// How many threads may take parts of this thread's products, itself among them.
pub(crate) fn sharing() -> usize {
    match SPARE.get() {
        Spare::Resting => 1,
        Spare::Helping | Spare::Absent => rayon::current_num_threads(),
    }
}

/// Has this thread run below all others; whether it does now.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn give_way() -> bool {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id, thread_schedule_policy,
    };

    // Others need not even wait for the end of its time slice.
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    // The policy is what matters, and stays where the priority within it, of which there is one, can't be set.
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    thread_schedule_policy() == Ok(idle)
}

/// Has this thread run below others; whether it does now.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn give_way() -> bool {
    thread_priority::set_current_thread_priority(thread_priority::ThreadPriority::Min).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    /// In a thread that nothing else has.
    fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn spare_threads_take_parts_unless_they_rest() {
        in_a_thread(|| {
            let spare = SpareThreads::of_this_thread(TWO).unwrap();
            assert_eq!(sharing(), 3);
            assert_eq!(without_spare_threads(sharing), 1);
            let panicked = std::panic::catch_unwind(|| without_spare_threads(|| panic!("on purpose")));
            assert!(panicked.is_err() && sharing() == 3, "they help again, however it ended");
            // Each of the two waits for the other: they are on two threads at once.
            let both = Barrier::new(2);
            rayon::join(|| both.wait(), || both.wait());
            drop(spare);
            assert_eq!(sharing(), 1, "nobody is left to take a part");
        });
    }

    #[test]
    fn what_has_no_spare_threads_is_shared_as_ever() {
        in_a_thread(|| assert_eq!(without_spare_threads(sharing), rayon::current_num_threads()));
    }

    #[test]
    fn a_thread_has_spare_threads_once() {
        in_a_thread(|| {
            let _spare = SpareThreads::of_this_thread(TWO).unwrap();
            let error = SpareThreads::of_this_thread(TWO).unwrap_err();
            assert_eq!(error.to_string(), "can't have 3 threads that compute");
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn spare_threads_run_below_all_others() {
        use thread_priority::thread_schedule_policy;

        in_a_thread(|| {
            let before = thread_schedule_policy().unwrap();
            let _spare = SpareThreads::of_this_thread(TWO).unwrap();
            let both = Barrier::new(2);
            let policy = || {
                both.wait();
                thread_schedule_policy().unwrap()
            };
            let (own, spare) = rayon::join(policy, policy);
            assert_eq!(own, before);
            assert_eq!(format!("{spare:?}"), "Normal(Idle)");
        });
    }
}
