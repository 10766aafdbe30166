//! The one product of cuBLAS that models use, number by number, and what has to be said before it. Knows nothing about what is
//! multiplied.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use half::{bf16, f16};

use crate::stream::Stream;
use crate::{SUCCESS, fail};

/// cuBLAS's codes and names of types.
const NOT_SUPPORTED: c_int = 15;
const F32: c_uint = 0;
const F16: c_uint = 2;
const BF16: c_uint = 14;
const COMPUTE_F32: c_uint = 68;

/// A handle.
struct Handle {
    stream: Cell<*const Stream>,
    /// Whether it has memory of its own: else it would take some by itself, which nothing that is recorded may.
    has_workspace: Cell<bool>,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasCreate_v2(handle: *mut *mut Handle) -> c_int {
    let made = Handle { stream: Cell::new(ptr::null()), has_workspace: Cell::new(false) };
    // SAFETY: the caller's, as in cuBLAS.
    unsafe { handle.write(Box::into_raw(Box::new(made))) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasDestroy_v2(handle: *mut Handle) -> c_int {
    // SAFETY: what `cublasCreate_v2` gave.
    drop(unsafe { Box::from_raw(handle) });
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasSetStream_v2(handle: *const Handle, stream: *const Stream) -> c_int {
    // SAFETY: what `cublasCreate_v2` gave.
    let handle = unsafe { &*handle };
    handle.stream.set(stream);
    // As cuBLAS does.
    handle.has_workspace.set(false);
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasSetWorkspace_v2(handle: *const Handle, _: *mut c_void, bytes: usize) -> c_int {
    // SAFETY: what `cublasCreate_v2` gave.
    unsafe { &*handle }.has_workspace.set(bytes > 0);
    SUCCESS
}

/// # Safety
/// There is a number of this type.
unsafe fn number(numbers: u64, of_type: c_uint, index: usize) -> f32 {
    // SAFETY: the caller's, in each.
    unsafe {
        match of_type {
            F16 => (*(numbers as *const f16).add(index)).to_f32(),
            BF16 => (*(numbers as *const bf16).add(index)).to_f32(),
            _ => *(numbers as *const f32).add(index),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cublasGemmEx(
    handle: *const Handle,
    transposed: c_uint,
    transposed_b: c_uint,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const f32,
    a: u64,
    a_type: c_uint,
    lda: c_int,
    b: u64,
    b_type: c_uint,
    ldb: c_int,
    beta: *const f32,
    c: u64,
    c_type: c_uint,
    ldc: c_int,
    compute: c_uint,
    _: c_int,
) -> c_int {
    // SAFETY: what `cublasCreate_v2` gave, and numbers on the host.
    let (handle, alpha, beta) = unsafe { (&*handle, *alpha, *beta) };
    let known = |of_type| [F32, F16, BF16].contains(&of_type);
    if (transposed, transposed_b, c_type, compute) != (1, 0, F32, COMPUTE_F32)
        || !known(a_type)
        || !known(b_type)
    {
        return fail(NOT_SUPPORTED, "a product of another kind than the rehearsal knows");
    }
    if Stream::records(handle.stream.get()) && !handle.has_workspace.get() {
        return fail(NOT_SUPPORTED, "a product is recorded, and cuBLAS has no memory of its own");
    }
    let [m, n, k, lda, ldb, ldc] = [m, n, k, lda, ldb, ldc].map(|size| size as usize);
    Stream::give(
        handle.stream.get(),
        Box::new(move || {
            for column in 0..n {
                for row in 0..m {
                    // SAFETY: the caller's, as in cuBLAS.
                    unsafe {
                        let product = |index: usize| {
                            number(a, a_type, row * lda + index) * number(b, b_type, column * ldb + index)
                        };
                        let sum: f32 = (0..k).map(product).sum();
                        let place = (c as *mut f32).add(column * ldc + row);
                        let before = if beta == 0.0 { 0.0 } else { beta * *place };
                        place.write(alpha * sum + before);
                    }
                }
            }
            SUCCESS
        }),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn curandCreateGenerator(generator: *mut *mut c_void, _: c_uint) -> c_int {
    // SAFETY: the caller's, as in cuRAND.
    unsafe { generator.write(ptr::dangling_mut::<u8>().cast()) };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn curandSetPseudoRandomGeneratorSeed(_: *mut c_void, _: u64) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn curandSetStream(_: *mut c_void, _: *const Stream) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn curandDestroyGenerator(_: *mut c_void) -> c_int {
    SUCCESS
}
