// What the threads of a block find out together. Every thread of the block calls, and every thread gets the result; `room`
// is shared memory for one number of each warp and one more. Knows nothing about what the numbers are.
#pragma once

#include "platform.cuh"

/// Combines one number of each thread by an operation that does not care for order.
template <class T, class Combine>
__device__ __forceinline__ T block_reduce(T value, T* room, Combine combine) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value = combine(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    __syncthreads();  // Whoever still reads the last result.
    if (lane() == 0) {
        room[warp()] = value;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        T all = room[0];
        for (int index = 1; index < warps(); index++) {
            all = combine(all, room[index]);
        }
        room[warps()] = all;
    }
    __syncthreads();
    return room[warps()];
}

/// The sum of the numbers of the threads before this one; `total` becomes that of all.
template <class T>
__device__ __forceinline__ T block_sum_before(T value, T* room, T& total) {
    T upto = value;
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
        const T other = __shfl_up_sync(ALL_LANES, upto, distance);
        upto = lane() >= distance ? upto + other : upto;
    }
    __syncthreads();  // Whoever still reads the last result.
    if (lane() == WARP - 1) {
        room[warp()] = upto;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        T sum = 0;
        for (int index = 0; index < warps(); index++) {
            const T own = room[index];
            room[index] = sum;
            sum += own;
        }
        room[warps()] = sum;
    }
    __syncthreads();
    total = room[warps()];
    return room[warp()] + upto - value;
}
