//! Memory of the device and page-locked memory of the host: both are the process's own. What is taken holds no zeros, so that
//! whoever reads what nobody wrote finds out. What a stream does with it waits in the stream, unless the host's memory is not
//! page-locked: that is copied at once, as in CUDA. Knows nothing about what is in it.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::stream::Stream;
use crate::{CAPTURE_UNSUPPORTED, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS, fail};

/// CUDA's own allocations begin at a multiple of this.
const ALIGNMENT: usize = 256;
/// What the device has where nothing else is said.
const DEVICE_BYTES: usize = 16 << 30;

/// Every allocation by its address.
static TAKEN: LazyLock<Mutex<HashMap<u64, Layout>>> = LazyLock::new(Mutex::default);

fn device_bytes() -> usize {
    std::env::var("CHORUS_REHEARSAL_MEMORY").ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(DEVICE_BYTES)
}

fn used() -> usize {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).values().map(Layout::size).sum()
}

fn take(address: *mut u64, bytes: usize) -> c_int {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), ALIGNMENT) else { return INVALID_VALUE };
    if used() + bytes > device_bytes() {
        return OUT_OF_MEMORY;
    }
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc(layout) };
    if memory.is_null() {
        return OUT_OF_MEMORY;
    }
    // SAFETY: so many bytes were taken, and the caller's address is to be written.
    unsafe {
        memory.write_bytes(0xff, layout.size());
        address.write(memory as u64);
    }
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(memory as u64, layout);
    SUCCESS
}

fn give_back(address: u64) -> c_int {
    let Some(layout) = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&address) else {
        return fail(INVALID_VALUE, format_args!("{address:#x} was not taken, or given back already"));
    };
    // SAFETY: it was taken with that layout, and is no more in the list.
    unsafe { dealloc(address as *mut u8, layout) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: *const Stream) -> c_int {
    if Stream::records(stream) { CAPTURE_UNSUPPORTED } else { take(address, bytes) }
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: *const Stream) -> c_int {
    if Stream::records(stream) {
        return CAPTURE_UNSUPPORTED;
    }
    Stream::give(stream, Box::new(move || give_back(address)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, _: c_uint) -> c_int {
    take(address.cast(), bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemFreeHost(address: *mut c_void) -> c_int {
    give_back(address as u64)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, all: *mut usize) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe {
        free.write(device_bytes().saturating_sub(used()));
        all.write(device_bytes());
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: *const Stream) -> c_int {
    if Stream::records(stream) {
        return CAPTURE_UNSUPPORTED;
    }
    let set = move || {
        // SAFETY: the caller's, as in CUDA.
        unsafe { (address as *mut u8).write_bytes(value, bytes) };
        SUCCESS
    };
    Stream::give(stream, Box::new(set))
}

/// Whether these bytes are the device's or page-locked.
fn is_ours(address: u64, bytes: usize) -> bool {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let end = address + bytes as u64;
    taken.iter().any(|(&first, layout)| first <= address && end <= first + layout.size() as u64)
}

fn copy(to: u64, from: u64, bytes: usize, stream: *const Stream) -> c_int {
    if Stream::records(stream) {
        return fail(CAPTURE_UNSUPPORTED, "a copy in what is recorded");
    }
    let copy = move || {
        // SAFETY: the caller's, as in CUDA.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        SUCCESS
    };
    let given = Stream::give(stream, Box::new(copy));
    if is_ours(to, bytes) && is_ours(from, bytes) {
        Stream::go_on(stream);
        return given;
    }
    Stream::finish(stream)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: *const Stream,
) -> c_int {
    copy(to, from as u64, bytes, stream)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: u64,
    bytes: usize,
    stream: *const Stream,
) -> c_int {
    copy(to as u64, from, bytes, stream)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: *const Stream) -> c_int {
    copy(to, from, bytes, stream)
}
