//! One thread of a grid: a coroutine, who it is, and what it waits for. Knows nothing about the other threads.

use std::{
    cell::Cell,
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use corosensei::{Coroutine, CoroutineResult, Yielder, stack::DefaultStack};
use half::f16;

/// Bytes of a thread's stack: a kernel keeps little there, and libm less.
const STACK_BYTES: usize = 64 << 10;

/// Three numbers, as CUDA has them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Index {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) z: u32,
}

/// Who a thread is. Mirrors `EmulatedThread` in `cuda/emulated.hpp`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Identity {
    pub(super) thread: Index,
    pub(super) block: Index,
    pub(super) block_size: Index,
    pub(super) grid_size: Index,
    pub(super) shared: *mut u128,
    pub(super) lanes: *mut u64,
}

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    Ready,
    /// All threads of its block that have not ended.
    Block,
    /// All lanes of its warp.
    Lanes,
    /// That another thread writes.
    Pause,
    /// It has ended.
    Over,
}

/// A thread and how far it is.
pub(super) struct Thread {
    pub(super) wait: Wait,
    identity: Box<Identity>,
    /// Where it gives control back; set when it first runs.
    yielder: Box<Cell<*const Yielder<(), Wait>>>,
    coroutine: Option<Coroutine<(), Wait, (), DefaultStack>>,
}

/// Whoever runs right now on this thread of the host.
struct Running {
    identity: Cell<*const Identity>,
    yielder: Cell<*const Yielder<(), Wait>>,
}

thread_local! {
    static RUNNING: Running = const { Running { identity: Cell::new(ptr::null()), yielder: Cell::new(ptr::null()) } };
}

/// Stacks of threads that have ended, for those that follow, on whichever thread of the host: a system has only so many
/// pieces of memory for a process.
static STACKS: Mutex<Vec<DefaultStack>> = Mutex::new(Vec::new());

impl Thread {
    /// A thread that has not begun. The body must live until it has ended or is forgotten.
    pub(super) fn new(identity: Identity, body: &'static dyn Fn()) -> std::io::Result<Self> {
        let yielder: Box<Cell<*const Yielder<(), Wait>>> = Box::new(Cell::new(ptr::null()));
        let own: *const Cell<*const Yielder<(), Wait>> = &raw const *yielder;
        let coroutine = Coroutine::with_stack(stack()?, move |yielder: &Yielder<(), Wait>, ()| {
            // SAFETY: the cell is boxed in the thread, which outlives its coroutine.
            unsafe { &*own }.set(yielder);
            RUNNING.with(|running| running.yielder.set(yielder));
            body();
        });
        Ok(Self { wait: Wait::Ready, identity: Box::new(identity), yielder, coroutine: Some(coroutine) })
    }

    /// Runs it until it waits or ends.
    pub(super) fn resume(&mut self) {
        let Some(mut coroutine) = self.coroutine.take() else { return };
        RUNNING.with(|running| {
            running.identity.set(&raw const *self.identity);
            running.yielder.set(self.yielder.get());
        });
        self.wait = match coroutine.resume(()) {
            CoroutineResult::Yield(wait) => {
                self.coroutine = Some(coroutine);
                wait
            }
            CoroutineResult::Return(()) => {
                stacks().push(coroutine.into_stack());
                Wait::Over
            }
        };
    }

    /// Gives up a thread that will never end: there are frames of C++ on its stack, which nothing may unwind.
    pub(super) fn forget(&mut self) {
        std::mem::forget(self.coroutine.take());
    }
}

fn stacks() -> MutexGuard<'static, Vec<DefaultStack>> {
    STACKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stack() -> std::io::Result<DefaultStack> {
    let kept = stacks().pop();
    kept.map_or_else(|| DefaultStack::new(STACK_BYTES), Ok)
}

/// Called by kernels.
#[unsafe(no_mangle)]
extern "C" fn chorus_emulated_thread() -> *const Identity {
    RUNNING.with(|running| running.identity.get())
}

/// Called by kernels.
#[unsafe(no_mangle)]
extern "C" fn chorus_emulated_wait(why: u32) {
    let wait = match why {
        0 => Wait::Block,
        1 => Wait::Lanes,
        _ => Wait::Pause,
    };
    let yielder = RUNNING.with(|running| running.yielder.get());
    // SAFETY: only a running thread calls, and while it runs this is its own.
    unsafe { &*yielder }.suspend(wait);
}

/// Called by kernels.
#[unsafe(no_mangle)]
extern "C" fn chorus_emulated_f16_to_float(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// Called by kernels.
#[unsafe(no_mangle)]
extern "C" fn chorus_emulated_float_to_f16(value: f32) -> u16 {
    f16::from_f32(value).to_bits()
}
