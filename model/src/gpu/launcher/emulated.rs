//! A device without a device: kernels of the emulation, products one number after the other. It is as late as a device may
//! be. What is launched has not run before somebody waits for it, and a copy is made when all that was launched has run: what
//! relies on more than it waited for is found out. Knows nothing about what is computed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

use candle_core::{Error, Result};
use chorus_kernels::{Address, Arguments, Grid, Kernel, WeightKind};
use half::{bf16, f16};

use super::{Product, Properties};

/// Its memory: more than any test needs that does not ask for too much.
pub(super) const MEMORY_BYTES: u64 = 4 << 30;

/// A small device: few enough blocks for a scan to take the host no time, and so little shared memory that some rows are
/// staged and some are not.
pub(super) const PROPERTIES: Properties = Properties { multiprocessors: 3, shared_bytes: 48 << 10 };

/// What waits to be done. Whoever uses it takes turns, as the engine does.
#[derive(Debug, Default)]
pub(crate) struct Emulated {
    launches: RefCell<Queue>,
    copies: RefCell<Queue>,
}

/// A place in one of the queues: behind so many.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Launches(usize),
    Copies(usize),
}

type Work = Box<dyn FnOnce() -> Result<()> + Send>;

#[derive(Default)]
struct Queue {
    done: usize,
    waiting: VecDeque<Work>,
}

impl Emulated {
    /// # Safety
    /// As for [`super::Launcher::launch`].
    pub(super) unsafe fn launch<A: Arguments>(&self, kernel: Kernel, grid: Grid, arguments: &A) {
        let arguments = *arguments;
        self.launches.borrow_mut().push(move || {
            // SAFETY: the caller's.
            let launched = unsafe { chorus_kernels::emulated::launch(kernel, grid, &arguments) };
            launched.map_err(|error| Error::msg(format!("kernel {kernel}: {error}")))
        });
    }

    /// # Safety
    /// As for [`super::Launcher::multiply`].
    pub(super) unsafe fn multiply(&self, product: &Product) {
        let product = *product;
        self.launches.borrow_mut().push(move || {
            // SAFETY: the caller's.
            unsafe { multiply(&product) };
            Ok(())
        });
    }

    /// # Safety
    /// As for [`super::Launcher::copy_out`].
    pub(super) unsafe fn copy_out(&self, _: Mark, from: Address, to: &mut [u8]) -> Mark {
        let (to, bytes) = (Address(to.as_mut_ptr() as u64), to.len());
        let mut copies = self.copies.borrow_mut();
        copies.push(move || {
            // SAFETY: the caller's.
            unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
            Ok(())
        });
        Mark::Copies(copies.end())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark::Launches(self.launches.borrow().end())
    }

    pub(super) fn wait(&self, mark: Mark) -> Result<()> {
        match mark {
            Mark::Launches(place) => self.launches.borrow_mut().run_to(place),
            Mark::Copies(place) => {
                self.launches.borrow_mut().run()?;
                self.copies.borrow_mut().run_to(place)
            }
        }
    }

    pub(super) fn finish(&self) -> Result<()> {
        self.launches.borrow_mut().run()?;
        self.copies.borrow_mut().run()
    }
}

impl Queue {
    fn push(&mut self, work: impl FnOnce() -> Result<()> + Send + 'static) {
        self.waiting.push_back(Box::new(work));
    }

    fn end(&self) -> usize {
        self.done + self.waiting.len()
    }

    fn run(&mut self) -> Result<()> {
        self.run_to(self.end())
    }

    /// Does what comes before a place. What fails is over as well.
    fn run_to(&mut self, place: usize) -> Result<()> {
        while self.done < place
            && let Some(work) = self.waiting.pop_front()
        {
            self.done += 1;
            work()?;
        }
        Ok(())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, waiting) = (self.done, self.waiting.len());
        formatter.debug_struct("Queue").field("done", &done).field("waiting", &waiting).finish()
    }
}

/// # Safety
/// All addresses are memory of the host, of the product's sizes.
unsafe fn multiply(product: &Product) {
    let Product { kind, weights, outputs, depth, input, rows, sums, adds } = *product;
    // SAFETY: the caller's.
    let (weights, input) =
        unsafe { (numbers(kind, weights, outputs * depth), numbers(kind, input, rows * depth)) };
    // SAFETY: the caller's.
    let sums = unsafe { std::slice::from_raw_parts_mut(sums.0 as *mut f32, rows * outputs) };
    for (input, sums) in input.chunks_exact(depth).zip(sums.chunks_exact_mut(outputs)) {
        for (weights, sum) in weights.chunks_exact(depth).zip(sums) {
            let own: f32 = weights.iter().zip(input).map(|(weight, input)| weight * input).sum();
            *sum = if adds { *sum + own } else { own };
        }
    }
}

/// # Safety
/// There are so many numbers of the kind.
unsafe fn numbers(kind: WeightKind, address: Address, count: usize) -> Vec<f32> {
    // SAFETY: the caller's, in each.
    unsafe {
        match kind {
            WeightKind::F32 => std::slice::from_raw_parts(address.0 as *const f32, count).to_vec(),
            WeightKind::Bf16 => widen(std::slice::from_raw_parts(address.0 as *const bf16, count)),
            WeightKind::F16 => widen(std::slice::from_raw_parts(address.0 as *const f16, count)),
        }
    }
}

fn widen<T: Copy + Into<f32>>(numbers: &[T]) -> Vec<f32> {
    numbers.iter().map(|&number| number.into()).collect()
}
