// Numbers from one place to another: a call's own numbers onto the device, states out of their slots, embeddings, and the
// hidden vectors whose logits are wanted. Knows nothing about what is computed from them.
#pragma once

#include "arguments.cuh"
#include "numbers.cuh"
#include "recurrence.cuh"

/// The call's numbers from memory of the host, which the device reads by itself; and zero for what is counted.
__device__ __forceinline__ void begin(const BeginArguments& a) {
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    // Each of them goes a long way: as many words as there are in one load.
    const uint4* source = reinterpret_cast<const uint4*>(a.source);
    uint4* target = reinterpret_cast<uint4*>(a.target);
    for (u32 pack = thread; pack < a.words / 4; pack += gridDim.x * blockDim.x) {
        target[pack] = source[pack];
    }
    if (thread < a.words % 4) {
        const u32 word = a.words / 4 * 4 + thread;
        a.target[word] = a.source[word];
    }
    if (thread < a.counter_count) {
        a.counters[thread] = 0;
    }
}

/// h of every layer out of the slots.
template <class W>
__device__ __forceinline__ void load(const LoadArguments& a) {
    const u32 row = blockIdx.x;
    const u32 layer = blockIdx.y;
    const float* source = in_slot(a.slots, a.from[row], a.slot_numbers, layer, a.padded);
    W* target = static_cast<W*>(a.before) + (static_cast<size_t>(layer) * a.rows + row) * a.padded;
    for (u32 index = threadIdx.x; index < a.padded; index += blockDim.x) {
        target[index] = narrow<W>(source[index]);
    }
}

template <class W>
__device__ __forceinline__ void embed(const EmbedArguments& a) {
    const u32 row = blockIdx.x;
    const W* source = static_cast<const W*>(a.embedding) + static_cast<size_t>(a.tokens[row]) * a.depth;
    W* target = static_cast<W*>(a.target) + static_cast<size_t>(row) * a.depth;
    for (u32 index = threadIdx.x; index < a.depth; index += blockDim.x) {
        target[index] = source[index];
    }
}

/// What the first layer's gates begin with, for a token in each row.
template <class W>
__device__ __forceinline__ void tabulate(const TabulateArguments& a) {
    const u32 number = blockIdx.y * blockDim.x + threadIdx.x;
    const size_t place = static_cast<size_t>(blockIdx.x) * a.numbers + number;
    if (number < a.numbers) {
        static_cast<W*>(a.table)[place] = narrow<W>(a.products[place] + a.bias[number]);
    }
}

/// Says of a source that it is a slot.
constexpr u32 IS_SLOT = 0x80000000u;

template <class W>
__device__ __forceinline__ void select(const SelectArguments& a) {
    const u32 row = blockIdx.x;
    const u32 source = a.sources[row];
    W* target = static_cast<W*>(a.target) + static_cast<size_t>(row) * a.padded;
    if (source & IS_SLOT) {
        const float* hidden = in_slot(a.slots, source & ~IS_SLOT, a.slot_numbers, a.layer, a.padded);
        for (u32 index = threadIdx.x; index < a.padded; index += blockDim.x) {
            target[index] = narrow<W>(hidden[index]);
        }
    } else {
        const W* hidden = static_cast<const W*>(a.hidden) + static_cast<size_t>(source) * a.padded;
        for (u32 index = threadIdx.x; index < a.padded; index += blockDim.x) {
            target[index] = hidden[index];
        }
    }
}
