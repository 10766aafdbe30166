//! Launches on an NVIDIA device: kernels by their PTX, products by cuBLAS, and recorded launches as one CUDA graph. They go
//! through the one stream of candle's device; copies to the host go through others, beside them. Knows nothing about what
//! is computed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::{self, CudaBlas, result::gemm_ex};
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaFunction, CudaGraph, CudaStream, PinnedHostSlice, result, sys,
};
use candle_core::{CudaDevice, Error, Result, bail};
use chorus_kernels::{Address, Arguments, Grid, Kernel, WeightKind, ptx, waits_by_itself};

use super::{HostMemory, Lane, Product, Properties};
use crate::gpu::recording::Recording;

/// Launches that are kept as graphs; more kinds of them than a server sees in its steady state.
const RECORDINGS: usize = 4096;
/// Times that the same launches are made before they are recorded, which costs more than making them.
const PATIENCE: u32 = 2;
/// Memory in which cuBLAS may compute: what NVIDIA advises for Hopper, so that it takes none by itself, in a graph least of all.
const BLAS_BYTES: usize = 32 << 20;
/// Up to here handles are no streams of their own: the context's default one, and that of each thread.
const SHARED_STREAMS: usize = 2;
/// The compute capability from which on a launch may begin before the one before it is done.
const HOPPER: u32 = 9;
/// Shared memory that every block may have without asking.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// A device, with what is kept of it between launches.
#[derive(Debug)]
pub(crate) struct Cuda {
    stream: Arc<CudaStream>,
    /// By their lanes.
    copies: [Arc<CudaStream>; 2],
    events: EventPool,
    blas: Arc<CudaBlas>,
    /// Held for cuBLAS.
    _blas_memory: candle_core::cuda_backend::cudarc::driver::CudaSlice<u8>,
    device: CudaDevice,
    /// And whether they wait for the launch before by themselves.
    functions: RefCell<HashMap<Kernel, (CudaFunction, bool)>>,
    recorded: RefCell<HashMap<Recording, Recorded>>,
    properties: Properties,
    /// Whether the device can begin a launch before the one before it is done.
    begins_early: bool,
}

/// Launches that were made before.
enum Recorded {
    Times(u32),
    /// The driver records no such launches.
    Never,
    Graph(Graph),
}

/// A graph, launched by whoever holds the engine's lock.
struct Graph(CudaGraph);

// SAFETY: CUDA's graphs may be used from any thread, one at a time; the engine is behind a lock.
unsafe impl Send for Graph {}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Times(times) => formatter.debug_tuple("Times").field(times).finish(),
            Self::Never => formatter.write_str("Never"),
            Self::Graph(_) => formatter.write_str("Graph"),
        }
    }
}

/// Events that are in no use: one is made anew only where there is none.
type EventPool = Arc<Mutex<Vec<CudaEvent>>>;

/// An event that was recorded; back in the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Event {
    event: Option<CudaEvent>,
    pool: EventPool,
}

/// Page-locked memory of the host.
#[derive(Debug)]
pub(super) struct LockedMemory {
    memory: PinnedHostSlice<u8>,
    first: *mut u8,
}

// SAFETY: the memory is the value's own, and so is its address.
unsafe impl Send for LockedMemory {}

/// How a grid is launched, if not like any other: all blocks at the same time; or, where devices can, as soon as the launch
/// before lets it begin. Every kernel waits for that one by itself, and so for all before ("programmatic dependent launch").
fn launch_attribute(grid: Grid, begins_early: bool) -> Option<sys::CUlaunchAttribute> {
    use sys::CUlaunchAttributeID::{
        CU_LAUNCH_ATTRIBUTE_COOPERATIVE, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
    };
    let (id, value) = if grid.is_cooperative {
        (CU_LAUNCH_ATTRIBUTE_COOPERATIVE, sys::CUlaunchAttributeValue { cooperative: 1 })
    } else if begins_early {
        let value = sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 };
        (CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, value)
    } else {
        return None;
    };
    Some(sys::CUlaunchAttribute { id, pad: [0; 4], value })
}

impl Cuda {
    pub(super) fn new(device: &CudaDevice) -> Result<Self> {
        let (stream, blas) = (device.cuda_stream(), device.cublas_handle());
        if stream.cu_stream() as usize <= SHARED_STREAMS {
            bail!("a model needs a CUDA device with a stream of its own, as open_device makes one");
        }
        // SAFETY: all launches are on one stream, copies on others wait for marks, and all is done before memory goes.
        unsafe { device.disable_event_tracking() };
        // SAFETY: whatever is in it.
        let memory = unsafe { stream.alloc::<u8>(BLAS_BYTES) }.map_err(Error::wrap)?;
        {
            use candle_core::cuda_backend::cudarc::driver::DevicePtr;
            let (address, _guard) = memory.device_ptr(&stream);
            // SAFETY: the memory is held for as long as the handle is used here.
            let status = unsafe {
                cublas::sys::cublasSetWorkspace_v2(*blas.handle(), address as *mut c_void, BLAS_BYTES)
            };
            status.result().map_err(Error::wrap)?;
        }
        let attribute = |attribute| -> Result<u32> {
            let value = stream.context().attribute(attribute).map_err(Error::wrap)?;
            u32::try_from(value).map_err(Error::wrap)
        };
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        };
        let properties = Properties {
            multiprocessors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            cache_bytes: attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        };
        let begins_early = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? >= HOPPER;
        let lane = || stream.context().new_stream().map_err(Error::wrap);
        Ok(Self {
            copies: [lane()?, lane()?],
            events: EventPool::default(),
            stream,
            blas,
            _blas_memory: memory,
            device: device.clone(),
            functions: RefCell::default(),
            recorded: RefCell::default(),
            properties,
            begins_early,
        })
    }

    pub(super) fn properties(&self) -> Properties {
        self.properties
    }

    /// Free bytes and all of them.
    pub(super) fn free_bytes(&self) -> Result<(u64, u64)> {
        let (free, all) = self.stream.context().mem_get_info().map_err(Error::wrap)?;
        Ok((free as u64, all as u64))
    }

    pub(super) fn host_memory(&self, bytes: usize) -> Result<HostMemory> {
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: it is written before it is handed on.
        let memory = unsafe { self.stream.context().alloc_pinned_with_flags::<u8>(bytes, flags) };
        let mut memory = memory.map_err(Error::wrap)?;
        let first = memory.as_mut_ptr().map_err(Error::wrap)?;
        // SAFETY: there are so many bytes.
        unsafe { first.write_bytes(0, bytes) };
        Ok(HostMemory::locked(LockedMemory { memory, first }))
    }

    /// # Safety
    /// As for [`super::Launcher::launch`].
    pub(super) unsafe fn launch<A: Arguments>(
        &self,
        kernel: Kernel,
        grid: Grid,
        arguments: &A,
    ) -> Result<()> {
        let (function, waits) = self.function(kernel)?;
        self.stream.context().bind_to_thread().map_err(Error::wrap)?;
        let mut attribute = launch_attribute(grid, self.begins_early && waits);
        let config = sys::CUlaunchConfig {
            gridDimX: grid.blocks.0,
            gridDimY: grid.blocks.1,
            gridDimZ: 1,
            blockDimX: grid.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: grid.shared_bytes,
            hStream: self.stream.cu_stream(),
            attrs: attribute.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut),
            numAttrs: attribute.is_some().into(),
        };
        let mut arguments = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
        // SAFETY: the caller's; the kernel has one argument, whose type is that of the kernel.
        let launched = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        launched.result().map_err(|error| Error::wrap(error).context(format!("kernel {kernel}")))
    }

    /// # Safety
    /// As for [`super::Launcher::launch`].
    pub(super) unsafe fn multiply(&self, product: &Product) -> Result<()> {
        use cublas::sys::{
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T},
            cudaDataType_t as Type,
        };
        let Product { kind, weights, outputs, depth, input, rows, sums, adds } = *product;
        let number = match kind {
            WeightKind::F32 => Type::CUDA_R_32F,
            WeightKind::Bf16 => Type::CUDA_R_16BF,
            WeightKind::F16 => Type::CUDA_R_16F,
        };
        let size = |size: usize| i32::try_from(size).map_err(Error::wrap);
        let (outputs, depth, rows) = (size(outputs)?, size(depth)?, size(rows)?);
        let (one, beta) = (1.0_f32, if adds { 1.0_f32 } else { 0.0 });
        self.stream.context().bind_to_thread().map_err(Error::wrap)?;
        // Of columns, as cuBLAS has it: sums[outputs, rows] = weightsᵀ[outputs, depth] input[depth, rows].
        // SAFETY: the caller's; the sizes are those of the product.
        let multiplied = unsafe {
            gemm_ex(
                *self.blas.handle(),
                CUBLAS_OP_T,
                CUBLAS_OP_N,
                outputs,
                rows,
                depth,
                (&raw const one).cast(),
                weights.0 as *const c_void,
                number,
                depth,
                input.0 as *const c_void,
                number,
                depth,
                (&raw const beta).cast(),
                sums.0 as *mut c_void,
                Type::CUDA_R_32F,
                outputs,
                CUBLAS_COMPUTE_32F,
                CUBLAS_GEMM_DFALT,
            )
        };
        multiplied.map_err(Error::wrap)
    }

    /// Makes launches; from the third time on as one graph.
    pub(super) fn run_recorded(&self, recording: Recording, launches: &dyn Fn() -> Result<()>) -> Result<()> {
        {
            let mut recorded = self.recorded.borrow_mut();
            match recorded.get_mut(&recording) {
                Some(Recorded::Graph(graph)) => return graph.0.launch().map_err(Error::wrap),
                Some(Recorded::Times(times)) if *times < PATIENCE => *times += 1,
                Some(Recorded::Times(_)) => match self.record(launches) {
                    Ok(graph) => {
                        graph.launch().map_err(Error::wrap)?;
                        recorded.insert(recording, Recorded::Graph(Graph(graph)));
                        return Ok(());
                    }
                    // Nothing was launched: what can't be recorded is made each time.
                    Err(_) => drop(recorded.insert(recording, Recorded::Never)),
                },
                Some(Recorded::Never) => {}
                None => {
                    if recorded.len() >= RECORDINGS {
                        recorded.clear();
                    }
                    recorded.insert(recording, Recorded::Times(1));
                }
            }
        }
        launches()
    }

    fn record(&self, launches: &dyn Fn() -> Result<()>) -> Result<CudaGraph> {
        // Other threads of the process, which may have other models, go on meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(Error::wrap)?;
        let made = launches();
        // Ended in any case, or the stream would stay in this mode.
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags).map_err(Error::wrap);
        made?;
        graph?.ok_or_else(|| Error::msg("CUDA recorded no graph"))
    }

    /// All streams, whatever one of them says.
    pub(super) fn finish(&self) -> Result<()> {
        let streams = [&self.stream].into_iter().chain(&self.copies);
        // An error may be an old one of something that was dropped; then nothing was waited for.
        let finish = |stream: &Arc<CudaStream>| stream.synchronize().or_else(|_| stream.synchronize());
        streams.map(|stream| finish(stream).map_err(Error::wrap)).fold(Ok(()), Result::and)
    }

    /// # Safety
    /// As for [`super::Launcher::copy_out`].
    pub(super) unsafe fn copy_out(
        &self,
        lane: Lane,
        after: Option<&Event>,
        from: Address,
        to: &mut HostMemory,
        bytes: usize,
    ) -> Result<Event> {
        let [rows, states] = &self.copies;
        let stream = match lane {
            Lane::Rows => rows,
            Lane::States => states,
        };
        if let Some(event) = after.and_then(|after| after.event.as_ref()) {
            stream.wait(event).map_err(Error::wrap)?;
        }
        self.stream.context().bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: the caller's; the memory of the host is page-locked and has so many bytes, which the slice checks.
        let copied =
            unsafe { result::memcpy_dtoh_async(&mut to.bytes_mut()[..bytes], from.0, stream.cu_stream()) };
        copied.map_err(Error::wrap)?;
        self.record_event(stream)
    }

    /// # Safety
    /// As for [`super::Launcher::copy_in`].
    pub(super) unsafe fn copy_in(&self, from: &HostMemory, to: Address, bytes: usize) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: the caller's; the memory of the host is page-locked.
        let copied =
            unsafe { result::memcpy_htod_async(to.0, &from.bytes()[..bytes], self.stream.cu_stream()) };
        copied.map_err(Error::wrap)
    }

    pub(super) fn mark(&self) -> Result<Event> {
        self.record_event(&self.stream)
    }

    fn record_event(&self, stream: &CudaStream) -> Result<Event> {
        let kept = self.events.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let event = match kept {
            Some(event) => event,
            None => stream.context().new_event(None).map_err(Error::wrap)?,
        };
        event.record(stream).map_err(Error::wrap)?;
        Ok(Event { event: Some(event), pool: Arc::clone(&self.events) })
    }

    fn function(&self, kernel: Kernel) -> Result<(CudaFunction, bool)> {
        if let Some(found) = self.functions.borrow().get(&kernel) {
            return Ok(found.clone());
        }
        let name = kernel.to_string();
        let (module, text) = ptx(kernel);
        let function = self.device.get_or_load_custom_func(&name, module, text)?.into_cuda_function();
        if self.properties.shared_bytes > PLAIN_SHARED_BYTES {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, self.properties.shared_bytes as i32).map_err(Error::wrap)?;
        }
        let found = (function, waits_by_itself(kernel));
        self.functions.borrow_mut().insert(kernel, found.clone());
        Ok(found)
    }
}

impl Event {
    pub(super) fn wait(&self) -> Result<()> {
        self.event.as_ref().map_or(Ok(()), CudaEvent::synchronize).map_err(Error::wrap)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).extend(self.event.take());
    }
}

impl LockedMemory {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: it was written when it was taken, and has so many bytes.
        unsafe { std::slice::from_raw_parts(self.first, self.memory.num_bytes()) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and it is lent exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.memory.num_bytes()) }
    }
}
