//! Where a model computes, with how many threads and in which numbers: the flags of every command that runs one.

use std::num::NonZeroUsize;

use chorus_model::{Precision, Quantization, check_device, use_threads};

/// What the commands that run models share.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct ComputeArgs {
    /// The device that computes: cpu, cuda or cuda:N; several, as in cuda:0,cuda:1, where a command starts workers, which
    /// are then spread over them
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Threads that compute on the CPU (default: one for each processor)
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Numbers of the weights: f32 as in the file, or smaller, faster and a little less exact: int8 on the CPU, bf16 and
    /// f16 on a GPU
    #[arg(long, value_name = "TYPE", default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
    /// Quantise the weights while they are loaded: q8_0, q6k or q4k, the smaller the fewer bits they have (on the CPU)
    #[arg(long, value_name = "TYPE", conflicts_with = "precision")]
    pub(crate) quantize: Option<Quantization>,
}

/// Threads that help one: more would hardly find a part to take.
const MOST_SPARE: usize = 7;
/// More threads than any machine has processors for; each costs memory.
const MAX_THREADS: usize = 1024;

impl ComputeArgs {
    /// The names of several devices, each checked.
    ///
    /// # Errors
    /// One of them is no device.
    pub(crate) fn check_devices(&self) -> anyhow::Result<()> {
        self.device.split(',').try_for_each(|name| Ok(check_device(name)?))
    }

    /// The device of one of several workers.
    pub(crate) fn device_of(&self, worker: usize) -> &str {
        let devices: Vec<&str> = self.device.split(',').collect();
        devices.get(worker % devices.len()).copied().unwrap_or_default()
    }

    /// Sizes this process's pool of threads, before anything computes.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        self.threads.map_or(Ok(()), |threads| Ok(use_threads(threads)?))
    }
}

/// The threads of each of several processes that share this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareOfThreads {
    /// That compute.
    pub(crate) own: NonZeroUsize,
    /// That help where a single one computes, on the processors that the others leave.
    pub(crate) spare: usize,
}

impl ShareOfThreads {
    /// Of the threads that were asked for, or of as many as there are processors, for each of so many processes.
    pub(crate) fn of(asked: Option<NonZeroUsize>, processes: usize) -> Self {
        let all = asked.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        let own = NonZeroUsize::new(all.get() / processes.max(1)).unwrap_or(NonZeroUsize::MIN);
        let spare = if own == NonZeroUsize::MIN { (all.get() - 1).min(MOST_SPARE) } else { 0 };
        Self { own, spare }
    }
}

/// Reads a number of threads.
pub(crate) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let expected = || format!("expected a whole number from 1 to {MAX_THREADS}");
    let threads: NonZeroUsize = text.parse().map_err(|_| expected())?;
    if threads.get() > MAX_THREADS { Err(expected()) } else { Ok(threads) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_evenly_and_everybody_has_one() {
        let share = |threads, processes| ShareOfThreads::of(NonZeroUsize::new(threads), processes);
        let shares = [(16, 3), (2, 3), (4, 3), (4, 1), (1, 3), (1, 0), (64, 33)];
        let shares = shares.map(|(threads, processes)| share(threads, processes));
        assert_eq!(shares.map(|share| share.own.get()), [5, 1, 1, 4, 1, 1, 1]);
        assert_eq!(shares.map(|share| share.spare), [0, 1, 3, 0, 0, 0, 7]);
    }

    #[test]
    fn a_number_of_threads_is_refused_with_its_range() {
        for wrong in ["0", "-1", "x", "1025"] {
            assert!(threads(wrong).unwrap_err().contains("from 1 to 1024"), "{wrong}");
        }
        assert_eq!(threads("8").unwrap().get(), 8);
    }
}
