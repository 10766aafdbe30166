// The numbers that weights and hidden vectors are kept in, 16 bytes at a time; all arithmetic is in f32. Knows nothing about
// what the numbers mean.
#pragma once

#include "platform.cuh"

struct Bf16 {
    unsigned short bits;
};
struct F16 {
    unsigned short bits;
};

/// Numbers in 16 bytes.
template <class W>
constexpr int PACK = 16 / static_cast<int>(sizeof(W));

__device__ __forceinline__ void unpack(const uint4& raw, float (&values)[4], float) {
    values[0] = __uint_as_float(raw.x);
    values[1] = __uint_as_float(raw.y);
    values[2] = __uint_as_float(raw.z);
    values[3] = __uint_as_float(raw.w);
}

__device__ __forceinline__ void unpack(const uint4& raw, float (&values)[8], Bf16) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int word = 0; word < 4; word++) {
        values[2 * word] = __uint_as_float(words[word] << 16);
        values[2 * word + 1] = __uint_as_float(words[word] & 0xffff0000u);
    }
}

__device__ __forceinline__ void unpack(const uint4& raw, float (&values)[8], F16) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int word = 0; word < 4; word++) {
        values[2 * word] = f16_to_float(words[word] & 0xffffu);
        values[2 * word + 1] = f16_to_float(words[word] >> 16);
    }
}

/// COUNT numbers, which may be in f32 where weights are not.
template <int COUNT, class X>
__device__ __forceinline__ void read(const X* address, float (&values)[COUNT]) {
    float part[PACK<X>];
#pragma unroll
    for (int start = 0; start < COUNT; start += PACK<X>) {
        // First all of it, so that it is one load.
        const uint4 raw = *reinterpret_cast<const uint4*>(address + start);
        unpack(raw, part, X{});
#pragma unroll
        for (int index = 0; index < PACK<X>; index++) {
            values[start + index] = part[index];
        }
    }
}

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(Bf16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
__device__ __forceinline__ float widen(F16 value) { return f16_to_float(value.bits); }

/// To the nearest number of the type, ties to even.
template <class W>
__device__ __forceinline__ W narrow(float value);

template <>
__device__ __forceinline__ float narrow<float>(float value) {
    return value;
}

template <>
__device__ __forceinline__ Bf16 narrow<Bf16>(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return Bf16{static_cast<unsigned short>((bits >> 16) | 0x40u)};  // NaN stays NaN.
    }
    return Bf16{static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <>
__device__ __forceinline__ F16 narrow<F16>(float value) {
    return F16{float_to_f16(value)};
}
