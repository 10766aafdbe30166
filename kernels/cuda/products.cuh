// Four rows of weights times a few rows of activations, by one warp: what a step is made of while a batch is small and the
// weights' way from memory is all that counts. Knows nothing about what the rows are.
#pragma once

#include "numbers.cuh"

/// Packs of each weight row that a lane asks for before it multiplies: their way from memory is long, and registers are few.
template <int ROWS>
constexpr int AHEAD = ROWS == 1 ? 6 : ROWS == 2 ? 4 : ROWS == 4 ? 2 : 1;

/// Whether it asks for the next ones before that, too: where multiplying takes as long as their way.
template <int ROWS>
constexpr bool IS_DOUBLE = ROWS >= 4;

/// What a lane has of weight rows 0 to 3.
template <class W, int ROWS, int COUNT>
struct Weights {
    static constexpr int STEP = WARP * PACK<W>;
    uint4 packs[COUNT][4];

    __device__ __forceinline__ void ask(const W* weights, int stride, int depth, int first) {
#pragma unroll
        for (int ahead = 0; ahead < COUNT; ahead++) {
            const int start = first + ahead * STEP;
#pragma unroll
            for (int row = 0; row < 4; row++) {
                if (start < depth) {
                    packs[ahead][row] = *reinterpret_cast<const uint4*>(weights + row * stride + start);
                }
            }
        }
    }

    template <class X>
    __device__ __forceinline__ void multiply(
        float (&sums)[4][ROWS], int depth, int first, const X* const (&rows)[ROWS]) const {
#pragma unroll
        for (int ahead = 0; ahead < COUNT; ahead++) {
            const int start = first + ahead * STEP;
            if (start < depth) {
                float part[4][PACK<W>];
#pragma unroll
                for (int row = 0; row < 4; row++) {
                    unpack(packs[ahead][row], part[row], W{});
                }
#pragma unroll
                for (int row = 0; row < ROWS; row++) {
                    float values[PACK<W>];
                    read(rows[row] + start, values);
#pragma unroll
                    for (int out = 0; out < 4; out++) {
#pragma unroll
                        for (int index = 0; index < PACK<W>; index++) {
                            sums[out][row] += part[out][index] * values[index];
                        }
                    }
                }
            }
        }
    }
};

/// Adds the products of weight rows 0 to 3, `stride` numbers apart, with the activations to the lane's part of the sums.
/// `depth` is a multiple of 8, and every row begins at 16 bytes.
template <class W, int ROWS, int COUNT = AHEAD<ROWS>, class X>
__device__ __forceinline__ void add_products(
    float (&sums)[4][ROWS], const W* weights, int stride, int depth, const X* const (&rows)[ROWS]) {
    constexpr int STRIDE = COUNT * Weights<W, ROWS, COUNT>::STEP;
    Weights<W, ROWS, COUNT> own;
    const int first = lane() * PACK<W>;
    if constexpr (IS_DOUBLE<ROWS>) {
        own.ask(weights, stride, depth, first);
    }
    for (int start = first; start < depth; start += STRIDE) {
        if constexpr (IS_DOUBLE<ROWS>) {
            Weights<W, ROWS, COUNT> next = own;
            next.ask(weights, stride, depth, start + STRIDE);
            own.multiply(sums, depth, start, rows);
            own = next;
        } else {
            own.ask(weights, stride, depth, start);
            own.multiply(sums, depth, start, rows);
        }
    }
}

/// Asks the cache for the first `count` numbers of weight rows 0 to 3, for whoever multiplies with them soon.
template <class W>
__device__ __forceinline__ void fetch_rows(const W* weights, unsigned stride, unsigned count) {
    constexpr unsigned LINE = 128 / sizeof(W);
    constexpr unsigned LANES = WARP / 4;
    const W* row = weights + lane() / LANES * stride;
    for (unsigned start = lane() % LANES * LINE; start < count; start += LANES * LINE) {
        fetch(row + start);
    }
}

/// Adds each number up over all lanes: at first every lane hands half of its numbers to the other half of the lanes, and so on,
/// until it has its share of them. Number i of 32 or fewer is in lane 32 i / COUNT then, and of 64 in lane i / 2. Each sum is
/// that of the lanes 16, 8, 4, 2 and 1 apart in this order, however many numbers there are.
template <int DISTANCE, int LEFT, int COUNT>
__device__ __forceinline__ void add_lanes(float (&numbers)[COUNT]) {
    if constexpr (DISTANCE > 0) {
        if constexpr (LEFT > 1) {
            const bool is_upper = (lane() & DISTANCE) != 0;
#pragma unroll
            for (int index = 0; index < LEFT / 2; index++) {
                const float lower = numbers[index];
                const float upper = numbers[LEFT / 2 + index];
                const float given = __shfl_xor_sync(ALL_LANES, is_upper ? lower : upper, DISTANCE);
                numbers[index] = (is_upper ? upper : lower) + given;
            }
        } else {
            numbers[0] += __shfl_xor_sync(ALL_LANES, numbers[0], DISTANCE);
        }
        add_lanes<DISTANCE / 2, (LEFT > 1 ? LEFT / 2 : 1)>(numbers);
    }
}

/// The whole sums; lane r keeps those of row r.
template <int ROWS>
__device__ __forceinline__ void distribute(const float (&sums)[4][ROWS], float (&own)[4]) {
    constexpr int COUNT = 4 * ROWS;
    static_assert(COUNT <= 2 * WARP);
    float numbers[COUNT];
#pragma unroll
    for (int index = 0; index < COUNT; index++) {
        numbers[index] = sums[index % 4][index / 4];
    }
    add_lanes<WARP / 2, COUNT>(numbers);
    const int row = lane() % ROWS;
#pragma unroll
    for (int out = 0; out < 4; out++) {
        const int index = 4 * row + out;
        const int from = COUNT > WARP ? index / 2 : index * (WARP / COUNT);
        own[out] = __shfl_sync(ALL_LANES, numbers[COUNT > WARP ? out % 2 : 0], from);
    }
}
