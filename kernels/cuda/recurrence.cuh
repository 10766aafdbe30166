// The LSTM: c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c'), as PyTorch's nn.LSTM has it. Three ways through a layer: a step of
// few rows with its products (`lstm_rows`), the cells of a step whose products are there (`cell`), and all steps of a few
// sequences in one launch (`scan`). Knows nothing about vocabularies or answers.
#pragma once

#include "arguments.cuh"
#include "products.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// A unit's state after a step.
struct Unit {
    float h, c;
};

__device__ __forceinline__ Unit update(const float (&gates)[4], float c) {
    const float after = sigmoid(gates[1]) * c + sigmoid(gates[0]) * tanhf(gates[2]);
    return Unit{sigmoid(gates[3]) * tanhf(after), after};
}

/// A unit's four numbers of a table or of biases, added to its gates.
__device__ __forceinline__ void add_four(float (&gates)[4], const float* numbers) {
    const float4 four = *reinterpret_cast<const float4*>(numbers);
    gates[0] += four.x;
    gates[1] += four.y;
    gates[2] += four.z;
    gates[3] += four.w;
}

template <class W>
__device__ __forceinline__ void add_of_table(float (&gates)[4], const W* table, u32 token, u32 hidden, u32 unit) {
    const W* four = table + (static_cast<size_t>(token) * hidden + unit) * 4;
#pragma unroll
    for (int gate = 0; gate < 4; gate++) {
        gates[gate] += widen(four[gate]);
    }
}

/// Where h of a layer stands in a slot; c follows `padded` numbers later.
__device__ __forceinline__ float* in_slot(float* slots, u32 slot, u32 slot_numbers, u32 layer, u32 padded) {
    return slots + static_cast<size_t>(slot) * slot_numbers + static_cast<size_t>(layer) * 2 * padded;
}

__device__ __forceinline__ const float* in_slot(
    const float* slots, u32 slot, u32 slot_numbers, u32 layer, u32 padded) {
    return slots + static_cast<size_t>(slot) * slot_numbers + static_cast<size_t>(layer) * 2 * padded;
}

/// A step of up to ROWS rows for each block row of the grid: a warp for each unit. Reads the states in the slots `from` and
/// writes those in `to`, which are others.
template <class W, int ROWS>
__device__ __forceinline__ void lstm_rows(const RowsArguments& a) {
    const u32 unit = blockIdx.x * warps() + warp();
    if (unit >= a.hidden) {
        return;  // The whole warp.
    }
    const u32 first = blockIdx.y * ROWS;
    float sums[4][ROWS] = {};
    const float* before[ROWS];
    const float* below[ROWS];
    const W* embedded[ROWS];
#pragma unroll
    for (int index = 0; index < ROWS; index++) {
        // Rows beyond the last read the last one's numbers, and nobody reads theirs.
        const u32 row = first + index < a.rows ? first + index : a.rows - 1;
        before[index] = in_slot(a.slots, a.from[row], a.slot_numbers, a.layer, a.padded);
        below[index] = nullptr;
        embedded[index] = nullptr;
        if (a.input_kind == BELOW) {
            below[index] = in_slot(a.slots, a.to[row], a.slot_numbers, a.layer - 1, a.padded);
        } else if (a.input_kind == EMBEDDING) {
            embedded[index] =
                static_cast<const W*>(a.input) + static_cast<size_t>(a.tokens[row]) * a.input_depth;
        }
    }
    if (a.input_kind != TABLE) {
        const W* weights =
            static_cast<const W*>(a.input_weights) + static_cast<size_t>(unit) * 4 * a.input_depth;
        if (a.input_kind == BELOW) {
            add_products<W, ROWS>(sums, weights, a.input_depth, a.input_depth, below);
        } else {
            add_products<W, ROWS>(sums, weights, a.input_depth, a.input_depth, embedded);
        }
    }
    const W* weights = static_cast<const W*>(a.weights) + static_cast<size_t>(unit) * 4 * a.padded;
    add_products<W, ROWS>(sums, weights, a.padded, a.padded, before);
    float gates[4] = {};
    distribute<ROWS>(sums, gates);
    const u32 row = first + lane();
    if (lane() >= ROWS || row >= a.rows) {
        return;
    }
    if (a.input_kind == TABLE) {
        add_of_table(gates, static_cast<const W*>(a.input), a.tokens[row], a.hidden, unit);
    } else {
        add_four(gates, a.bias + 4 * unit);
    }
    const float c = in_slot(a.slots, a.from[row], a.slot_numbers, a.layer, a.padded)[a.padded + unit];
    const Unit after = update(gates, c);
    float* target = in_slot(a.slots, a.to[row], a.slot_numbers, a.layer, a.padded);
    target[unit] = widen(narrow<W>(after.h));
    target[a.padded + unit] = after.c;
}

/// The cells of one step: a thread for each unit of each row.
template <class W>
__device__ __forceinline__ void cell(const CellArguments& a) {
    const u32 unit = blockIdx.y * blockDim.x + threadIdx.x;
    const u32 row = blockIdx.x;
    if (unit >= a.hidden) {
        return;
    }
    float gates[4] = {};
    add_four(gates, a.gates + (static_cast<size_t>(row) * a.hidden + unit) * 4);
    if (a.table) {
        add_of_table(gates, static_cast<const W*>(a.table), a.tokens[row], a.hidden, unit);
    } else {
        add_four(gates, a.bias + 4 * unit);
    }
    float* carry = a.carry + static_cast<size_t>(row) * a.padded + unit;
    const float c =
        a.is_first ? in_slot(a.slots, a.from[row], a.slot_numbers, a.layer, a.padded)[a.padded + unit] : *carry;
    const Unit after = update(gates, c);
    const W h = narrow<W>(after.h);
    static_cast<W*>(a.after)[static_cast<size_t>(row) * a.padded + unit] = h;
    if (row < a.next_size) {
        *carry = after.c;
    } else {
        float* target = in_slot(a.slots, a.to[row], a.slot_numbers, a.layer, a.padded);
        target[unit] = widen(h);
        target[a.padded + unit] = after.c;
    }
}

/// All blocks of the grid have come here `count` times.
__device__ __forceinline__ void wait_for_grid(u32* counter, u32 count) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd(counter, 1u);
        while (read_now(counter) < count * gridDim.x) {
            pause();
        }
        __threadfence();
    }
    __syncthreads();
}

/// All steps of a layer for sequences of falling lengths, all blocks of the grid at the same time on the device. A block has
/// some units, and where they fit keeps their weights in shared memory from the first step to the last.
template <class W, int ROWS>
__device__ __forceinline__ void scan(const ScanArguments& a) {
    const u32 first_unit = blockIdx.x * a.units;
    const u32 end_unit = first_unit + a.units < a.hidden ? first_unit + a.units : a.hidden;
    const W* weights = static_cast<const W*>(a.weights) + static_cast<size_t>(first_unit) * 4 * a.padded;
    if (a.is_kept && first_unit < end_unit) {
        uint4* kept = shared_memory<uint4>();
        const uint4* source = reinterpret_cast<const uint4*>(weights);
        const u32 packs = (end_unit - first_unit) * 4 * a.padded / PACK<W>;
        for (u32 pack = threadIdx.x; pack < packs; pack += blockDim.x) {
            kept[pack] = source[pack];
        }
        weights = reinterpret_cast<const W*>(kept);
        __syncthreads();
    }
    W* hidden = static_cast<W*>(a.after);
    for (u32 step = 0; step < a.steps; step++) {
        const u32 start = a.offsets[step];
        const u32 size = a.offsets[step + 1] - start;
        const u32 next_size = step + 1 < a.steps ? a.offsets[step + 2] - a.offsets[step + 1] : 0;
        const W* before = step == 0 ? static_cast<const W*>(a.before)
                                    : hidden + static_cast<size_t>(a.offsets[step - 1]) * a.padded;
        for (u32 unit = first_unit + warp(); unit < end_unit; unit += warps()) {
            for (u32 first = 0; first < size; first += ROWS) {
                float sums[4][ROWS] = {};
                const W* rows[ROWS];
#pragma unroll
                for (int index = 0; index < ROWS; index++) {
                    const u32 row = first + index < size ? first + index : size - 1;
                    rows[index] = before + static_cast<size_t>(row) * a.padded;
                }
                const W* own = weights + static_cast<size_t>(unit - first_unit) * 4 * a.padded;
                add_products<W, ROWS, true>(sums, own, a.padded, a.padded, rows);
                float gates[4] = {};
                distribute<ROWS>(sums, gates);
                const u32 row = first + lane();
                if (lane() >= ROWS || row >= size) {
                    continue;
                }
                if (a.table) {
                    add_of_table(gates, static_cast<const W*>(a.table), a.tokens[start + row], a.hidden, unit);
                } else {
                    add_four(gates, a.bias + 4 * unit);
                    add_four(gates, a.projected + (static_cast<size_t>(start + row) * a.hidden + unit) * 4);
                }
                float* carry = a.carry + static_cast<size_t>(row) * a.padded + unit;
                const float c = step == 0
                    ? in_slot(a.slots, a.from[row], a.slot_numbers, a.layer, a.padded)[a.padded + unit]
                    : *carry;
                const Unit after = update(gates, c);
                const W h = narrow<W>(after.h);
                hidden[static_cast<size_t>(start + row) * a.padded + unit] = h;
                if (row < next_size) {
                    *carry = after.c;
                } else {
                    float* target = in_slot(a.slots, a.to[row], a.slot_numbers, a.layer, a.padded);
                    target[unit] = widen(h);
                    target[a.padded + unit] = after.c;
                }
            }
        }
        if (step + 1 < a.steps) {
            wait_for_grid(a.counter, step + 1);
        }
    }
}
