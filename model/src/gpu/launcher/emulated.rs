//! A device without a device: kernels of the emulation, products one number after the other. Launches and the lanes of copies
//! are queues, of which it does what it may when it likes, by chance: nothing that is launched has run before somebody waits for
//! it, or all of it has; a copy is made as soon as its mark is passed, or after everything else. What relies on more than it
//! waited for is found out. Knows nothing about what is computed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

use candle_core::{Error, Result};
use chorus_kernels::emulated::Chance;
use chorus_kernels::{Address, Arguments, Grid, Kernel, WeightKind};
use half::{bf16, f16};

use super::{Lane, Product, Properties};

/// Its memory: more than any test needs that does not ask for too much.
pub(super) const MEMORY_BYTES: u64 = 4 << 30;

/// A small device: few enough blocks for a scan to take the host no time, and so little shared memory that some rows are
/// staged and some are not.
pub(super) const PROPERTIES: Properties =
    Properties { multiprocessors: 3, shared_bytes: 48 << 10, cache_bytes: 1 << 20 };

/// What waits to be done. Whoever uses it takes turns, as the engine does.
#[derive(Debug, Default)]
pub(crate) struct Emulated {
    launches: RefCell<Queue>,
    /// By their lanes.
    copies: [RefCell<Queue>; 2],
    chance: Chance,
}

/// A place in one of the queues: behind so many.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Launches(usize),
    Copies(Lane, usize),
}

/// A piece of work, and how many launches it comes after.
type Work = (usize, Box<dyn FnOnce() -> Result<()> + Send>);

#[derive(Default)]
struct Queue {
    done: usize,
    waiting: VecDeque<Work>,
    /// How many go well before one fails, where tests want that.
    good: Option<usize>,
}

impl Emulated {
    /// # Safety
    /// As for [`super::Launcher::launch`].
    pub(super) unsafe fn launch<A: Arguments>(&self, kernel: Kernel, grid: Grid, arguments: &A) {
        let arguments = *arguments;
        self.launches.borrow_mut().push(0, move || {
            // SAFETY: the caller's.
            let launched = unsafe { chorus_kernels::emulated::launch(kernel, grid, &arguments) };
            launched.map_err(|error| Error::msg(format!("kernel {kernel}: {error}")))
        });
    }

    /// # Safety
    /// As for [`super::Launcher::multiply`].
    pub(super) unsafe fn multiply(&self, product: &Product) {
        let product = *product;
        self.launches.borrow_mut().push(0, move || {
            // SAFETY: the caller's.
            unsafe { multiply(&product) };
            Ok(())
        });
    }

    /// # Safety
    /// As for [`super::Launcher::copy_out`].
    pub(super) unsafe fn copy_out(
        &self,
        lane: Lane,
        after: Option<Mark>,
        from: Address,
        to: &mut [u8],
    ) -> Mark {
        let after = match after {
            Some(Mark::Launches(place)) => place,
            _ => 0,
        };
        let mut copies = self.lane(lane).borrow_mut();
        // SAFETY: the caller's.
        copies.push(after, unsafe { copy(from, Address(to.as_mut_ptr() as u64), to.len()) });
        let mark = Mark::Copies(lane, copies.end());
        drop(copies);
        self.go_on();
        mark
    }

    /// # Safety
    /// As for [`super::Launcher::copy_in`].
    pub(super) unsafe fn copy_in(&self, from: &[u8], to: Address) {
        // SAFETY: the caller's.
        let copy = unsafe { copy(Address(from.as_ptr() as u64), to, from.len()) };
        self.launches.borrow_mut().push(0, copy);
    }

    pub(super) fn mark(&self) -> Mark {
        let mark = Mark::Launches(self.launches.borrow().end());
        self.go_on();
        mark
    }

    pub(super) fn wait(&self, mark: Mark) -> Result<()> {
        match mark {
            Mark::Launches(place) => self.launches.borrow_mut().run_to(place)?,
            Mark::Copies(lane, place) => {
                if self.chance.happens() {
                    self.launches.borrow_mut().run()?;
                }
                let mut copies = self.lane(lane).borrow_mut();
                let after = copies.after(place);
                self.launches.borrow_mut().run_to(after)?;
                copies.run_to(place)?;
            }
        }
        self.go_on();
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<()> {
        let queues = [&self.launches].into_iter().chain(&self.copies);
        // All of them, whatever fails.
        queues.map(|queue| queue.borrow_mut().run()).fold(Ok(()), Result::and)
    }

    /// Has some launch, or copy, fail: after so many that go well.
    #[cfg(test)]
    pub(in crate::gpu) fn fail(&self, good: usize, lane: Option<Lane>) {
        lane.map_or(&self.launches, |lane| self.lane(lane)).borrow_mut().good = Some(good);
    }

    /// How many launches nobody has waited for.
    #[cfg(test)]
    pub(in crate::gpu) fn launches_waiting(&self) -> usize {
        self.launches.borrow().waiting.len()
    }

    /// Never does by itself what nobody waits for.
    #[cfg(test)]
    pub(in crate::gpu) fn be_late(&self) {
        self.chance.never();
    }

    fn lane(&self, lane: Lane) -> &RefCell<Queue> {
        let [rows, states] = &self.copies;
        match lane {
            Lane::Rows => rows,
            Lane::States => states,
        }
    }

    /// Does something that may be done by now, or nothing. What fails there is told to whoever waits next.
    fn go_on(&self) {
        if self.chance.happens() {
            let mut launches = self.launches.borrow_mut();
            let end = launches.end();
            launches.try_to(end);
        }
        if self.chance.happens() {
            let done = self.launches.borrow().done;
            for copies in &self.copies {
                let mut copies = copies.borrow_mut();
                let place = copies.possible(done);
                copies.try_to(place);
            }
        }
    }
}

impl Queue {
    fn push(&mut self, after: usize, work: impl FnOnce() -> Result<()> + Send + 'static) {
        self.waiting.push_back((after, Box::new(work)));
    }

    fn end(&self) -> usize {
        self.done + self.waiting.len()
    }

    /// How many launches what comes before a place comes after.
    fn after(&self, place: usize) -> usize {
        let before = self.waiting.iter().take(place.saturating_sub(self.done));
        before.map(|(after, _)| *after).max().unwrap_or(0)
    }

    /// The place up to which nothing comes after more launches than these.
    fn possible(&self, launches: usize) -> usize {
        self.done + self.waiting.iter().take_while(|(after, _)| *after <= launches).count()
    }

    fn run(&mut self) -> Result<()> {
        let mut result = Ok(());
        while !self.waiting.is_empty() {
            result = result.and(self.run_to(self.end()));
        }
        result
    }

    /// Does what comes before a place. What fails is over as well.
    fn run_to(&mut self, place: usize) -> Result<()> {
        while self.done < place
            && let Some((_, work)) = self.waiting.pop_front()
        {
            self.done += 1;
            match self.good {
                Some(0) => {
                    self.good = None;
                    return Err(Error::msg("scripted failure"));
                }
                Some(good) => self.good = Some(good - 1),
                None => {}
            }
            work()?;
        }
        Ok(())
    }

    /// The same unless something is to fail, which is for those to hear who wait.
    fn try_to(&mut self, place: usize) {
        if self.good.is_none()
            && let Err(error) = self.run_to(place)
        {
            self.waiting.push_front((0, Box::new(move || Err(error))));
            self.done -= 1;
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, waiting) = (self.done, self.waiting.len());
        formatter.debug_struct("Queue").field("done", &done).field("waiting", &waiting).finish()
    }
}

/// # Safety
/// So many bytes are there when it is done, and nobody else uses them.
unsafe fn copy(from: Address, to: Address, bytes: usize) -> impl FnOnce() -> Result<()> + Send + 'static {
    move || {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
        Ok(())
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
