// CUDA's words for one thread of an emulated grid. Every thread is a coroutine that the host resumes (src/emulated); where
// threads wait for each other, it gives control back. All threads run on one thread of the host, so what is atomic on a
// device is plain here. Knows nothing about the kernels.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

extern "C" {
struct EmulatedIndex {
    unsigned x, y, z;
};
/// Who the running thread is. Mirrored in src/emulated/mod.rs.
struct EmulatedThread {
    EmulatedIndex thread, block, block_size, grid_size;
    void* shared;
    /// A word pair for each lane of the warp.
    std::uint64_t* lanes;
};
const EmulatedThread* chorus_emulated_thread();
enum EmulatedWait : unsigned { BLOCK = 0, WARP_LANES = 1, PAUSE = 2 };
void chorus_emulated_wait(unsigned why);
float chorus_emulated_f16_to_float(std::uint16_t bits);
std::uint16_t chorus_emulated_float_to_f16(float value);
}

#define threadIdx (chorus_emulated_thread()->thread)
#define blockIdx (chorus_emulated_thread()->block)
#define blockDim (chorus_emulated_thread()->block_size)
#define gridDim (chorus_emulated_thread()->grid_size)

#define KERNEL_AHEAD(name, Arguments, threads, blocks, ahead, body)                                \
    static void emulated_##name(const void* a) {                                                   \
        ahead(*static_cast<const Arguments*>(a));                                                  \
        body(*static_cast<const Arguments*>(a));                                                   \
    }                                                                                              \
    static const EmulatedKernel kernel_##name(#name, threads, sizeof(Arguments), emulated_##name);

/// A kernel by its name, in a list that the host reads.
struct EmulatedKernel {
    const char* name;
    unsigned threads;
    std::size_t argument_bytes;
    void (*run)(const void*);
    const EmulatedKernel* next;
    static const EmulatedKernel*& first() {
        static const EmulatedKernel* kernels = nullptr;
        return kernels;
    }
    EmulatedKernel(const char* name, unsigned threads, std::size_t argument_bytes, void (*run)(const void*))
        : name(name), threads(threads), argument_bytes(argument_bytes), run(run), next(first()) {
        first() = this;
    }
};

template <class T>
inline T* shared_memory() {
    return static_cast<T*>(chorus_emulated_thread()->shared);
}

inline void __syncthreads() { chorus_emulated_wait(BLOCK); }
inline void __threadfence() {}
inline void fetch(const void*) {}
inline void pause() { chorus_emulated_wait(PAUSE); }

template <class T>
inline T emulated_exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t));
    const EmulatedThread* self = chorus_emulated_thread();
    std::uint64_t* lanes = self->lanes;
    std::memcpy(&lanes[self->thread.x % 32], &value, sizeof(T));
    chorus_emulated_wait(WARP_LANES);
    T other;
    std::memcpy(&other, &lanes[from % 32], sizeof(T));
    chorus_emulated_wait(WARP_LANES);
    return other;
}

template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulated_exchange(value, (threadIdx.x % 32) ^ static_cast<unsigned>(mask));
}

/// The lowest lanes keep their own value.
template <class T>
inline T __shfl_up_sync(unsigned, T value, unsigned by) {
    const unsigned own = threadIdx.x % 32;
    return emulated_exchange(value, own >= by ? own - by : own);
}

template <class T>
inline T __shfl_sync(unsigned, T value, int from) {
    return emulated_exchange(value, static_cast<unsigned>(from));
}

template <class T>
inline T atomicAdd(T* address, T by) {
    T before = *address;
    *address = before + by;
    return before;
}

template <class T>
inline T atomicMin(T* address, T value) {
    T before = *address;
    *address = value < before ? value : before;
    return before;
}

inline unsigned read_now(const unsigned* address) { return *static_cast<const volatile unsigned*>(address); }
inline uint4 read_shared_by_blocks(const uint4* address) { return *address; }

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}
inline float f16_to_float(unsigned bits) { return chorus_emulated_f16_to_float(static_cast<std::uint16_t>(bits)); }
inline unsigned short float_to_f16(float value) { return chorus_emulated_float_to_f16(value); }
