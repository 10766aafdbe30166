//! The device, its context, modules and launches. Knows nothing about memory or what a kernel computes.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use chorus_kernels::{Grid, emulated};

use crate::stream::Stream;
use crate::{INVALID_VALUE, LAUNCH_FAILED, NOT_FOUND, SUCCESS, Unused, fail};

/// The attributes that are asked for, by CUDA's numbers.
const MULTIPROCESSORS: c_uint = 16;
const SHARED_BYTES_AT_MOST: c_uint = 97;
const MEMORY_POOLS: c_uint = 115;
const COMPUTE_CAPABILITY_MAJOR: c_uint = 75;
const CACHE_BYTES: c_uint = 38;
/// Those of a Hopper device, but for the multiprocessors: fewer of them make a scan quick.
const DEVICE_MULTIPROCESSORS: c_int = 3;
const DEVICE_SHARED_BYTES: c_int = 227 << 10;
const DEVICE_COMPUTE_CAPABILITY_MAJOR: c_int = 9;
const DEVICE_CACHE_BYTES: c_int = 50 << 20;
/// What a block has without asking for more.
const PLAIN_SHARED_BYTES: c_uint = 48 << 10;
/// The attribute of a function that asks.
const DYNAMIC_SHARED_BYTES: c_uint = 8;

/// A kernel of a module.
struct Function {
    name: String,
    shared_bytes: Cell<c_uint>,
}

/// Something to point to, where CUDA gives a handle.
static HANDLE: u8 = 0;

fn handle() -> *mut c_void {
    (&raw const HANDLE).cast_mut().cast()
}

thread_local! {
    static CONTEXT: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
}

/// Writes a value to where the caller wants it.
///
/// # Safety
/// As in CUDA.
unsafe fn put<T>(place: *mut T, value: T) -> c_int {
    // SAFETY: the caller's.
    unsafe { place.write(value) };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_: Unused) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    if ordinal != 0 {
        return fail(101, format_args!("there is one device, and no {ordinal}"));
    }
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(device, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(count, 1) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, _: c_int) -> c_int {
    let found = match attribute {
        MULTIPROCESSORS => DEVICE_MULTIPROCESSORS,
        SHARED_BYTES_AT_MOST => DEVICE_SHARED_BYTES,
        MEMORY_POOLS => 1,
        COMPUTE_CAPABILITY_MAJOR => DEVICE_COMPUTE_CAPABILITY_MAJOR,
        CACHE_BYTES => DEVICE_CACHE_BYTES,
        other => return fail(INVALID_VALUE, format_args!("attribute {other} is not known here")),
    };
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(value, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _: c_int) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(context, handle()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(_: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(context, CONTEXT.get()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    CONTEXT.set(context);
    SUCCESS
}

/// Called before a device's first stream is made. Streams of other devices' handles are their own.
#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut *mut c_void, _: *const c_void) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(module, handle()) }
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(_: *mut c_void) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut *mut c_void,
    _: *mut c_void,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    if emulated::argument_bytes(&name).is_none() {
        return fail(NOT_FOUND, format_args!("there is no kernel {name} here"));
    }
    let found = Function { name, shared_bytes: Cell::new(PLAIN_SHARED_BYTES) };
    // Of a module, which is never unloaded here.
    // SAFETY: the caller's, as in CUDA.
    unsafe { put(function, Box::into_raw(Box::new(found)).cast()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncSetAttribute(function: *const c_void, attribute: c_uint, value: c_int) -> c_int {
    // SAFETY: what `cuModuleGetFunction` gave.
    let function = unsafe { &*function.cast::<Function>() };
    match c_uint::try_from(value) {
        Ok(bytes) if attribute == DYNAMIC_SHARED_BYTES && value <= DEVICE_SHARED_BYTES => {
            function.shared_bytes.set(bytes);
            SUCCESS
        }
        _ => fail(INVALID_VALUE, format_args!("attribute {attribute} of {} can't be {value}", function.name)),
    }
}

/// A launch: its arguments are copied at once, as CUDA does.
///
/// # Safety
/// As in CUDA.
unsafe fn launch(
    function: *const c_void,
    grid: Grid,
    others: [c_uint; 3],
    stream: *const Stream,
    arguments: *const *const c_void,
) -> c_int {
    // SAFETY: what `cuModuleGetFunction` gave; a function is never given back here.
    let function: &'static Function = unsafe { &*function.cast() };
    let name = &function.name;
    if others != [1; 3] || grid.blocks.0 == 0 || !(1..=65_535).contains(&grid.blocks.1) {
        return fail(INVALID_VALUE, format_args!("{name} has no such grid: {grid:?}"));
    }
    if grid.shared_bytes > function.shared_bytes.get() {
        return fail(
            INVALID_VALUE,
            format_args!("{name} has not asked for {} bytes of shared memory", grid.shared_bytes),
        );
    }
    let Some(bytes) = emulated::argument_bytes(name) else { return NOT_FOUND };
    let mut copy = vec![0_u64; bytes.div_ceil(size_of::<u64>())];
    // SAFETY: the first argument is the kernel's only one, and of that size.
    unsafe { ptr::copy_nonoverlapping((*arguments).cast::<u8>(), copy.as_mut_ptr().cast(), bytes) };
    Stream::give(
        stream,
        Box::new(move || {
            // SAFETY: the caller's, as in CUDA: what the arguments point to is there until the stream is done.
            match unsafe { emulated::launch_named(name, grid, copy.as_ptr().cast()) } {
                Ok(()) => SUCCESS,
                Err(error) => fail(LAUNCH_FAILED, format_args!("{name}: {error}")),
            }
        }),
    )
}

/// How a grid is launched, field by field as CUDA has it.
#[repr(C)]
struct LaunchConfig {
    blocks: [c_uint; 3],
    threads: [c_uint; 3],
    shared_bytes: c_uint,
    stream: *const Stream,
    attributes: *const LaunchAttribute,
    attribute_count: c_uint,
}

/// One of its attributes; the value is the first word of a union of 64 bytes.
#[repr(C)]
struct LaunchAttribute {
    id: c_uint,
    padding: c_uint,
    value: [c_int; 16],
}

/// Ids of attributes: all blocks run at the same time; the launch may begin before the one before it is done, which here no
/// launch does.
const COOPERATIVE: c_uint = 2;
const BEGINS_EARLY: c_uint = 6;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: *const c_void,
    arguments: *const *const c_void,
    _: *const c_void,
) -> c_int {
    // SAFETY: the caller's, as in CUDA.
    let LaunchConfig { blocks: [x, y, z], threads, shared_bytes, stream, attributes, attribute_count } =
        unsafe { &*config };
    let mut grid = Grid::new((*x, *y), threads[0]).with_shared(*shared_bytes);
    for index in 0..*attribute_count as usize {
        // SAFETY: as above: there are so many.
        match unsafe { &*attributes.add(index) } {
            LaunchAttribute { id: COOPERATIVE, value: [1, ..], .. } => grid = grid.cooperative(),
            LaunchAttribute { id: BEGINS_EARLY, value: [1, ..], .. } => {}
            LaunchAttribute { id, value, .. } => {
                return fail(INVALID_VALUE, format_args!("attribute {id} of a launch can't be {}", value[0]));
            }
        }
    }
    if grid.is_cooperative && x.saturating_mul(*y) > DEVICE_MULTIPROCESSORS as c_uint {
        return fail(720, format_args!("{x} times {y} blocks don't run at the same time here"));
    }
    // SAFETY: as above.
    unsafe { launch(function, grid, [*z, threads[1], threads[2]], *stream, arguments) }
}
