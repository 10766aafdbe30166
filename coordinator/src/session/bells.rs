//! Bells of several futures that one task polls: it hears which of them have rung, and does not poll the others.
//!
//! Knows nothing about what the futures do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

/// The bells of one task, those that are not in use among them.
#[derive(Default)]
pub(super) struct Bells {
    /// Made with the first bell.
    task: Option<Arc<AtomicWaker>>,
    unused: Vec<Bell>,
}

/// Of one future: whatever wakes it rings.
pub(super) struct Bell {
    clapper: Arc<Clapper>,
    waker: Waker,
}

struct Clapper {
    has_rung: AtomicBool,
    task: Arc<AtomicWaker>,
}

impl Bells {
    /// One that has rung: its future was never polled with it.
    pub(super) fn hang(&mut self) -> Bell {
        let bell = self.unused.pop().unwrap_or_else(|| {
            let task = Arc::clone(self.task.get_or_insert_default());
            let clapper = Arc::new(Clapper { has_rung: AtomicBool::new(true), task });
            Bell { waker: Waker::from(Arc::clone(&clapper)), clapper }
        });
        bell.clapper.has_rung.store(true, Ordering::Release);
        bell
    }

    /// Takes one back. A future that was polled with it may still ring it, for whoever has it then, in vain.
    pub(super) fn take_down(&mut self, bell: Bell) {
        self.unused.push(bell);
    }

    /// From now on the task of this context is woken when one rings. To be called before they are asked.
    pub(super) fn listen(&self, context: &Context<'_>) {
        if let Some(task) = &self.task {
            task.register(context.waker());
        }
    }
}

impl Bell {
    /// Whether it has rung since this was asked.
    pub(super) fn has_rung(&self) -> bool {
        self.clapper.has_rung.swap(false, Ordering::AcqRel)
    }

    /// For its future to be polled in.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::*;

    struct Counted(std::sync::atomic::AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_rings_is_heard_once_and_alone_and_wakes_the_task() {
        let counted = Arc::new(Counted(0.into()));
        let woken = || counted.0.load(Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&counted));
        let mut bells = Bells::default();
        let (one, other) = (bells.hang(), bells.hang());
        assert!(one.has_rung() && other.has_rung(), "each is polled once in any case");
        bells.listen(&Context::from_waker(&waker));
        assert!(!one.has_rung() && !other.has_rung() && woken() == 0);
        other.context().waker().wake_by_ref();
        assert_eq!((one.has_rung(), other.has_rung(), woken()), (false, true, 1));
        assert!(!other.has_rung());
    }

    #[test]
    fn one_that_is_used_again_has_rung_and_wakes_the_task_that_listens_now() {
        let counted = Arc::new(Counted(0.into()));
        let waker = Waker::from(Arc::clone(&counted));
        let mut bells = Bells::default();
        let bell = bells.hang();
        bells.listen(&Context::from_waker(&noop_waker()));
        let of_before = bell.context().waker().clone();
        assert!(bell.has_rung());
        bells.take_down(bell);
        let bell = bells.hang();
        assert!(bell.has_rung());
        bells.listen(&Context::from_waker(&waker));
        of_before.wake();
        assert_eq!((bell.has_rung(), counted.0.load(Ordering::Relaxed)), (true, 1), "in vain, and no harm");
    }
}
