//! Processor time, of a thread or of another process. Knows nothing about what it is spent on.
//!
//! The clocks are POSIX's (`CLOCK_THREAD_CPUTIME_ID`, `clock_getcpuclockid`): nanoseconds in user and kernel mode
//! together, of all threads that a process has or had, where `/proc/PID/stat` counts ticks of ten milliseconds.

use std::{io, time::Duration};

/// The name of a process's clock holds 29 bits of its id; a larger one, which no system gives, would name another clock.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const LARGEST_ID: i32 = (1 << 28) - 1;

/// Processor time that the calling thread has used.
///
/// # Errors
/// The system has no such clock.
#[cfg(unix)]
pub fn of_this_thread() -> io::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Processor time that the calling thread has used.
///
/// # Errors
/// The system has no such clock.
#[cfg(not(unix))]
pub fn of_this_thread() -> io::Result<Duration> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Processor time that a process has used, by its id.
///
/// # Errors
/// There is no such process, or the system (anything but Linux and the BSDs) has no such clock.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub fn of_process(id: u32) -> io::Result<Duration> {
    let pid = i32::try_from(id).ok().filter(|pid| (1..=LARGEST_ID).contains(pid));
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid))?;
    Ok(nix::time::clock_gettime(clock)?.into())
}

/// Processor time that a process has used, by its id.
///
/// # Errors
/// There is no such process, or the system (anything but Linux and the BSDs) has no such clock.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub fn of_process(_id: u32) -> io::Result<Duration> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Until the thread's clock has moved on, which is no matter of how fast the machine is.
    fn spend(time: Duration) {
        let before = of_this_thread().unwrap();
        let mut number = 1_u64;
        while of_this_thread().unwrap() < before + time {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
    }

    #[test]
    fn a_process_has_used_what_its_threads_have() {
        let before = of_process(std::process::id()).unwrap();
        let spent = Duration::from_millis(5);
        std::thread::spawn(move || spend(spent)).join().unwrap();
        spend(spent);
        assert!(of_process(std::process::id()).unwrap() >= before + 2 * spent);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_time() {
        // 2^22 is the most that Linux gives.
        for id in [0, (1 << 22) + 1, 1 << 28, i32::MAX as u32, u32::MAX] {
            assert!(of_process(id).is_err(), "{id}");
        }
    }
}
