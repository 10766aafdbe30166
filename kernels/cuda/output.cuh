// The output layer's products for few rows: a warp for four tokens of the vocabulary. Biases are added by who reads the
// logits. Knows nothing about what is wanted of them.
#pragma once

#include "moves.cuh"
#include "products.cuh"

/// Asks for the weights of the warp's tokens.
template <class W>
__device__ __forceinline__ void fetch_for_project(const ProjectArguments& a) {
    const u32 output = 4 * (blockIdx.x * warps() + warp());
    if (output < a.outputs) {
        fetch_rows(static_cast<const W*>(a.weights) + static_cast<size_t>(output) * a.padded, a.padded, a.ahead);
    }
}

/// Logits of four tokens in up to ROWS rows.
template <class W, int ROWS>
__device__ __forceinline__ void project(const ProjectArguments& a) {
    const u32 output = 4 * (blockIdx.x * warps() + warp());
    if (output >= a.outputs) {
        return;  // The whole warp.
    }
    const W* weights = static_cast<const W*>(a.weights) + static_cast<size_t>(output) * a.padded;
    float sums[4][ROWS] = {};
    if (a.selected) {
        const W* rows[ROWS];
#pragma unroll
        for (int index = 0; index < ROWS; index++) {
            const u32 row = static_cast<u32>(index) < a.rows ? index : a.rows - 1;
            rows[index] = static_cast<const W*>(a.selected) + static_cast<size_t>(row) * a.padded;
        }
        add_products<W, ROWS>(sums, weights, a.padded, a.padded, rows);
    } else {
        const float* rows[ROWS];
#pragma unroll
        for (int index = 0; index < ROWS; index++) {
            const u32 row = static_cast<u32>(index) < a.rows ? index : a.rows - 1;
            rows[index] = in_slot(a.slots, a.sources[row] & ~IS_SLOT, a.slot_numbers, a.layer, a.padded);
        }
        add_products<W, ROWS>(sums, weights, a.padded, a.padded, rows);
    }
    float own[4] = {};
    distribute<ROWS>(sums, own);
    const u32 row = lane();
    if (lane() < ROWS && row < a.rows) {
        float4* target = reinterpret_cast<float4*>(a.logits + static_cast<size_t>(row) * a.outputs + output);
        *target = make_float4(own[0], own[1], own[2], own[3]);
    }
}
