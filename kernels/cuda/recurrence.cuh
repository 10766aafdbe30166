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

__device__ __forceinline__ void add(float (&gates)[4], const float (&others)[4]) {
#pragma unroll
    for (int gate = 0; gate < 4; gate++) {
        gates[gate] += others[gate];
    }
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

/// Asks for the weights of the warp's unit.
template <class W>
__device__ __forceinline__ void fetch_for_rows(const RowsArguments& a) {
    const u32 unit = blockIdx.x * warps() + warp();
    if (unit >= a.hidden) {
        return;
    }
    if (a.input_kind != TABLE) {
        fetch_rows(static_cast<const W*>(a.input_weights) + static_cast<size_t>(unit) * 4 * a.input_depth,
                   a.input_depth, a.input_ahead);
    }
    fetch_rows(static_cast<const W*>(a.weights) + static_cast<size_t>(unit) * 4 * a.padded, a.padded, a.ahead);
}

/// A step of up to ROWS rows: a warp for each unit. Reads the states in the slots `from` and writes those in `to`, which are
/// others.
template <class W, int ROWS>
__device__ __forceinline__ void lstm_rows(const RowsArguments& a) {
    const u32 unit = blockIdx.x * warps() + warp();
    if (unit >= a.hidden) {
        return;  // The whole warp.
    }
    // The lane's own row, in the end: what is added to its products is on its way while those are computed.
    const u32 own_row = lane();
    const bool has_row = lane() < ROWS && own_row < a.rows;
    float begun[4] = {};
    float c = 0.0f;
    if (has_row) {
        if (a.input_kind == TABLE) {
            add_of_table(begun, static_cast<const W*>(a.input), a.tokens[own_row], a.hidden, unit);
        } else {
            add_four(begun, a.bias + 4 * unit);
        }
        c = in_slot(a.slots, a.from[own_row], a.slot_numbers, a.layer, a.padded)[a.padded + unit];
    }
    // Rows beyond the last read the last one's numbers, and nobody reads theirs.
    const auto row_of = [&](int index) { return static_cast<u32>(index) < a.rows ? index : a.rows - 1; };
    float sums[4][ROWS] = {};
    if (a.input_kind != TABLE) {
        const W* weights =
            static_cast<const W*>(a.input_weights) + static_cast<size_t>(unit) * 4 * a.input_depth;
        if (a.input_kind == BELOW) {
            const float* below[ROWS];
#pragma unroll
            for (int index = 0; index < ROWS; index++) {
                below[index] = in_slot(a.slots, a.to[row_of(index)], a.slot_numbers, a.layer - 1, a.padded);
            }
            add_products<W, ROWS>(sums, weights, a.input_depth, a.input_depth, below);
        } else {
            const W* embedded[ROWS];
#pragma unroll
            for (int index = 0; index < ROWS; index++) {
                embedded[index] = static_cast<const W*>(a.input) +
                    static_cast<size_t>(a.tokens[row_of(index)]) * a.input_depth;
            }
            add_products<W, ROWS>(sums, weights, a.input_depth, a.input_depth, embedded);
        }
    }
    const W* weights = static_cast<const W*>(a.weights) + static_cast<size_t>(unit) * 4 * a.padded;
    const float* before[ROWS];
#pragma unroll
    for (int index = 0; index < ROWS; index++) {
        before[index] = in_slot(a.slots, a.from[row_of(index)], a.slot_numbers, a.layer, a.padded);
    }
    add_products<W, ROWS>(sums, weights, a.padded, a.padded, before);
    float gates[4] = {};
    distribute<ROWS>(sums, gates);
    if (!has_row) {
        return;
    }
    add(gates, begun);
    const Unit after = update(gates, c);
    float* target = in_slot(a.slots, a.to[own_row], a.slot_numbers, a.layer, a.padded);
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

/// This block has come here, too; what it wrote before is there for whoever waits.
__device__ __forceinline__ void arrive(u32* counter) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(counter, 1u);
    }
}

/// All blocks of the grid have come there `count` times.
__device__ __forceinline__ void wait_for_grid(u32* counter, u32 count) {
    if (threadIdx.x == 0) {
        while (read_now(counter) < count * gridDim.x) {
            pause();
        }
        __threadfence();
    }
    __syncthreads();
}

/// Threads of a block of a scan.
constexpr int SCAN_THREADS = 512;

/// What the gates of a unit begin with in a row of the block: all that does not depend on the step before.
template <class W>
__device__ __forceinline__ void begin_gates(float (&gates)[4], const ScanArguments& a, u32 row, u32 unit) {
    if (a.table) {
        add_of_table(gates, static_cast<const W*>(a.table), a.tokens[row], a.hidden, unit);
    } else {
        add_four(gates, a.bias + 4 * unit);
        add_four(gates, a.projected + (static_cast<size_t>(row) * a.hidden + unit) * 4);
    }
}

/// All steps of a layer for up to ROWS sequences of falling lengths, all blocks of the grid at the same time on the device. A
/// block has some units, and keeps the weights of as many as fit in shared memory from the first step to the last. A warp
/// multiplies one part of a unit's depth; then a thread for each unit of each sequence adds the parts up, and has its cell in a
/// register. What does not depend on the step before is fetched while the blocks wait for each other.
template <class W, int ROWS>
__device__ __forceinline__ void scan(const ScanArguments& a) {
    const u32 first_unit = blockIdx.x * a.units;
    const u32 units = first_unit + a.units < a.hidden ? a.units : a.hidden - first_unit;
    // Shared memory: hidden vectors [ROWS][padded], products [units][parts][ROWS] of four gates, weights.
    W* staged = shared_memory<W>();
    float4* products = reinterpret_cast<float4*>(staged + static_cast<size_t>(ROWS) * a.padded);
    W* kept = reinterpret_cast<W*>(products + static_cast<size_t>(a.units) * a.parts * ROWS);
    const W* weights = static_cast<const W*>(a.weights) + static_cast<size_t>(first_unit) * 4 * a.padded;
    const u32 kept_units = a.kept < units ? a.kept : units;
    for (u32 pack = threadIdx.x; pack < kept_units * 4 * a.padded / PACK<W>; pack += blockDim.x) {
        reinterpret_cast<uint4*>(kept)[pack] = reinterpret_cast<const uint4*>(weights)[pack];
    }
    const u32 depth = a.padded / PACK<W>;
    const u32 part_depth = (depth + a.parts - 1) / a.parts;

    // This thread's unit of this sequence, if it has one.
    const u32 row = threadIdx.x % ROWS;
    const u32 unit = first_unit + threadIdx.x / ROWS;
    const bool has_unit = threadIdx.x / ROWS < units;
    W* hidden = static_cast<W*>(a.after);
    float begun[4] = {};
    float c = 0.0f;
    if (has_unit && row < a.offsets[1] - a.offsets[0]) {
        begin_gates<W>(begun, a, a.offsets[0] + row, unit);
        c = in_slot(a.slots, a.from[row], a.slot_numbers, a.layer, a.padded)[a.padded + unit];
    }
    for (u32 step = 0; step < a.steps; step++) {
        const u32 start = a.offsets[step];
        const u32 size = a.offsets[step + 1] - start;
        const u32 next_size = step + 1 < a.steps ? a.offsets[step + 2] - a.offsets[step + 1] : 0;
        const W* before = step == 0 ? static_cast<const W*>(a.before)
                                    : hidden + static_cast<size_t>(a.offsets[step - 1]) * a.padded;
        for (u32 pack = threadIdx.x; pack < size * depth; pack += blockDim.x) {
            reinterpret_cast<uint4*>(staged)[pack] =
                read_shared_by_blocks(reinterpret_cast<const uint4*>(before) + pack);
        }
        __syncthreads();
        for (u32 item = warp(); item < units * a.parts; item += warps()) {
            const u32 own = item / a.parts;
            const u32 from = item % a.parts * part_depth;
            const u32 rest = from < depth ? depth - from : 0;
            const u32 packs = part_depth < rest ? part_depth : rest;
            const W* rows[ROWS];
#pragma unroll
            for (int index = 0; index < ROWS; index++) {
                const u32 other = static_cast<u32>(index) < size ? index : size - 1;
                rows[index] = staged + static_cast<size_t>(other) * a.padded + from * PACK<W>;
            }
            const W* own_weights =
                (own < kept_units ? kept : weights) + static_cast<size_t>(own) * 4 * a.padded + from * PACK<W>;
            float sums[4][ROWS] = {};
            // Most of them are near: so many registers as far ones take are not there for a block of this size.
            add_products<W, ROWS, ROWS == 1 ? 4 : AHEAD<ROWS>>(
                sums, own_weights, a.padded, packs * PACK<W>, rows);
            float gates[4] = {};
            distribute<ROWS>(sums, gates);
            if (lane() < ROWS) {
                products[item * ROWS + lane()] = make_float4(gates[0], gates[1], gates[2], gates[3]);
            }
        }
        __syncthreads();
        if (has_unit && row < size) {
            float gates[4] = {};
            add(gates, begun);
            for (u32 part = 0; part < a.parts; part++) {
                add_four(gates, &products[(threadIdx.x / ROWS * a.parts + part) * ROWS + row].x);
            }
            const Unit after = update(gates, c);
            c = after.c;
            const W h = narrow<W>(after.h);
            hidden[static_cast<size_t>(start + row) * a.padded + unit] = h;
            if (row >= next_size) {
                float* target = in_slot(a.slots, a.to[row], a.slot_numbers, a.layer, a.padded);
                target[unit] = widen(h);
                target[a.padded + unit] = c;
            }
        }
        if (step + 1 < a.steps) {
            arrive(a.counter);
            if (has_unit && row < next_size) {
                begun[0] = begun[1] = begun[2] = begun[3] = 0.0f;
                begin_gates<W>(begun, a, start + size + row, unit);
            }
            wait_for_grid(a.counter, step + 1);
        }
    }
}
