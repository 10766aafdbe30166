// What the kernels need of the language that they are written in: CUDA C++ where nvcc compiles them, and the same words in
// plain C++ where a test runs them on the host (emulated.hpp). Knows nothing about what is computed.
#pragma once

#ifdef __CUDACC__

#include <cuda_fp16.h>

#define KERNEL_AHEAD(name, Arguments, threads, blocks, ahead, body)           \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Arguments a) { \
        let_next_launch_begin();                                              \
        ahead(a);                                                             \
        wait_for_launch_before();                                             \
        body(a);                                                              \
    }

/// The launch behind this one may take what is free of the device from here on. All that it reads it waits for.
__device__ __forceinline__ void let_next_launch_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// All launches before this one are done, and what they wrote is there.
__device__ __forceinline__ void wait_for_launch_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Into the cache that all multiprocessors share.
__device__ __forceinline__ void fetch(const void* address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

/// The block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
    extern __shared__ uint4 chorus_shared[];
    return reinterpret_cast<T*>(chorus_shared);
}

/// Where a thread waits for another one's write.
__device__ __forceinline__ void pause() { __nanosleep(20); }

/// A number that threads of other blocks write, as it is now.
__device__ __forceinline__ unsigned read_now(const unsigned* address) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}

/// 16 bytes that other blocks may have written in this launch: past the multiprocessor's own cache.
__device__ __forceinline__ uint4 read_shared_by_blocks(const uint4* address) { return __ldcg(address); }

__device__ __forceinline__ float f16_to_float(unsigned bits) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

__device__ __forceinline__ unsigned short float_to_f16(float value) {
    return __half_as_ushort(__float2half_rn(value));
}

#else
#include "emulated.hpp"
#endif

/// A kernel whose launch begins with nothing.
#define KERNEL(name, Arguments, threads, body) KERNEL_AHEAD(name, Arguments, threads, 1, nothing, body)

/// What a kernel does before the launch before it is done: it reads nothing but weights.
template <class Arguments>
__device__ __forceinline__ void nothing(const Arguments&) {}

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % WARP; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / WARP; }
__device__ __forceinline__ int warps() { return static_cast<int>(blockDim.x) / WARP; }
