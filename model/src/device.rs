//! The device that a model runs on, as people name it: `cpu`, `cuda` or `cuda:N`.
//!
//! Knows nothing about models.

use candle_core::Device;
use thiserror::Error;

/// Why a device can't be used.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// No such name.
    #[error("device {found:?} is unknown, allowed are cpu, cuda and cuda:N (N from 0)")]
    Unknown {
        /// What was asked for.
        found: String,
    },
    /// This program was built without CUDA.
    #[error(
        "device {found:?} needs a program built with CUDA (cargo build --features cuda); this one runs on cpu only"
    )]
    NotBuilt {
        /// What was asked for.
        found: String,
    },
    /// The device is not there or does not work.
    #[error("device {found:?} can't be opened")]
    Open {
        /// What was asked for.
        found: String,
        /// What CUDA says.
        source: candle_core::Error,
    },
}

/// What a model runs on.
#[derive(Debug, Clone)]
pub enum Processor {
    /// The processors of this machine.
    Cpu,
    /// A device that has kernels for it.
    #[cfg(any(feature = "cuda", feature = "emulated"))]
    Device(Device),
}

impl Processor {
    /// Opens the one of that name: as [`open_device`] has them, and `emulated` where tests have built that.
    ///
    /// # Errors
    /// There is no such name, or the device can't be opened.
    pub fn open(name: &str) -> Result<Self, DeviceError> {
        #[cfg(feature = "emulated")]
        if name == "emulated" {
            return Ok(Self::Device(Device::Cpu));
        }
        match open_device(name)? {
            #[cfg(feature = "cuda")]
            device @ Device::Cuda(_) => Ok(Self::Device(device)),
            _ => Ok(Self::Cpu),
        }
    }
}

/// Opens the device of that name.
///
/// ```
/// assert!(chorus_model::open_device("cpu").unwrap().is_cpu());
/// assert!(chorus_model::open_device("cuda:x").is_err());
/// ```
pub fn open_device(name: &str) -> Result<Device, DeviceError> {
    let found = name.to_owned();
    let Some(ordinal) = ordinal(name)? else { return Ok(Device::Cpu) };
    if !candle_core::utils::cuda_is_available() {
        return Err(DeviceError::NotBuilt { found });
    }
    // A stream of its own: whoever calls the model, from whatever thread, uses that one.
    Device::new_cuda_with_stream(ordinal).map_err(|source| DeviceError::Open { found, source })
}

/// Whether there may be a device of that name, which is not opened.
///
/// # Errors
/// There is no such name.
pub fn check_device(name: &str) -> Result<(), DeviceError> {
    if cfg!(feature = "emulated") && name == "emulated" { Ok(()) } else { ordinal(name).map(drop) }
}

/// Which GPU; none for the CPU.
fn ordinal(name: &str) -> Result<Option<usize>, DeviceError> {
    let unknown = || DeviceError::Unknown { found: name.to_owned() };
    match name.split_once(':') {
        None if name == "cpu" => Ok(None),
        None if name == "cuda" => Ok(Some(0)),
        Some(("cuda", ordinal)) if ordinal.bytes().all(|byte| byte.is_ascii_digit()) => {
            ordinal.parse().map(Some).map_err(|_| unknown())
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cpu_cuda_and_cuda_with_a_number() {
        assert!(open_device("cpu").unwrap().is_cpu());
        for name in ["", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:99999999999999999999", "gpu"] {
            assert!(matches!(open_device(name), Err(DeviceError::Unknown { .. })), "{name:?}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_is_refused_where_it_was_not_built() {
        for name in ["cuda", "cuda:1"] {
            let message = open_device(name).unwrap_err().to_string();
            assert!(message.contains("--features cuda"), "{message}");
        }
    }
}
