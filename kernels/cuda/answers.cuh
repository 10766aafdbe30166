// What is wanted of rows of logits, found where they stand: a block for each row. Norms, the likeliest tokens, those above a
// threshold, the logits of some tokens, and draws: the same functions as those of a row on the host. Knows nothing about
// models.
#pragma once

#include <cfloat>

#include "arguments.cuh"
#include "block.cuh"
#include "numbers.cuh"

constexpr int ANSWER_THREADS = 512;
constexpr int BINS = 256;
/// Packs of four logits that a thread asks for before it looks at one.
constexpr int PACKS_AHEAD = 4;
/// Packs whose exponentials are added in f32 before the sum goes on in f64.
constexpr int EXACT = 2;

/// Shared memory of a block beside the row: histograms of each warp, and room for what threads find out together.
struct AnswerRoom {
    u32 bins[ANSWER_THREADS / WARP][BINS];
    double doubles[ANSWER_THREADS / WARP + 1];
    float floats[ANSWER_THREADS / WARP + 1];
    u32 words[ANSWER_THREADS / WARP + 1];
    u32 bin;
    u32 above;
};

/// A thread's tokens: side by side, and an odd number of them, so that the threads of a warp read different banks.
struct Share {
    u32 start, end;
};

/// A row, its bias added: staged in shared memory, or read where it is.
struct LogitRow {
    const float* logits;
    const float* bias;
    __device__ __forceinline__ float operator[](u32 token) const {
        return bias ? logits[token] + bias[token] : logits[token];
    }
};

/// Orders as the numbers do; the two zeros are equal.
__device__ __forceinline__ u32 order_of(float logit) {
    const u32 bits = __float_as_uint(logit + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The order of the k-th likeliest token, and how many tokens of that very order are among the k.
__device__ __forceinline__ u32 order_of_kth(const LogitRow& row, Share share, u32 k, AnswerRoom& room, u32& equal) {
    u32 found = 0, mask = 0, rest = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        u32* bins = room.bins[warp()];
        for (int bin = lane(); bin < BINS; bin += WARP) {
            bins[bin] = 0;
        }
        __syncthreads();
        for (u32 token = share.start; token < share.end; token++) {
            const u32 order = order_of(row[token]);
            if ((order & mask) == found) {
                atomicAdd(&bins[(order >> shift) & (BINS - 1)], 1u);
            }
        }
        __syncthreads();
        // From the likeliest down; each thread sums the warps' counts of one bin.
        u32 count = 0;
        const u32 bin = BINS - 1 - threadIdx.x;
        if (threadIdx.x < BINS) {
            for (int other = 0; other < warps(); other++) {
                count += room.bins[other][bin];
            }
        }
        u32 total;
        const u32 before = block_sum_before(count, room.words, total);
        if (threadIdx.x < BINS && before < rest && rest <= before + count) {
            room.bin = bin;
            room.above = before;
        }
        __syncthreads();
        found |= room.bin << shift;
        mask |= static_cast<u32>(BINS - 1) << shift;
        rest -= room.above;
        __syncthreads();
    }
    equal = rest;
    return found;
}

/// Tokens in ascending order into the ask's list.
template <class Wanted>
__device__ __forceinline__ u32 list_tokens(
    const AnswersArguments& a, const Ask& ask, const LogitRow& row, Share share, AnswerRoom& room, Wanted wanted) {
    u32 count = 0;
    for (u32 token = share.start; token < share.end; token++) {
        count += wanted(token, row[token]) ? 1 : 0;
    }
    u32 total;
    u32 place = block_sum_before(count, room.words, total);
    for (u32 token = share.start; token < share.end; token++) {
        const float logit = row[token];
        if (wanted(token, logit)) {
            if (place < ask.room) {
                a.lists[ask.list + place] = token;
                a.lists[ask.list + ask.room + place] = __float_as_uint(logit);
            }
            place++;
        }
    }
    return total;
}

__device__ __forceinline__ u32 find_top(
    const AnswersArguments& a, const Ask& ask, const Answer& known, const LogitRow& row, Share share, AnswerRoom& room) {
    const double largest = known.largest, log_sum = known.log_sum, threshold = ask.number;
    const auto is_above = [=](float logit) {
        return static_cast<double>(logit) - largest - log_sum > threshold;
    };
    u32 above = 0;
    for (u32 token = share.start; token < share.end; token++) {
        above += is_above(row[token]) ? 1 : 0;
    }
    u32 total;
    block_sum_before(above, room.words, total);
    if (total >= ask.count) {
        return list_tokens(a, ask, row, share, room, [=](u32, float logit) { return is_above(logit); });
    }
    const u32 k = ask.count < a.vocabulary ? ask.count : a.vocabulary;
    u32 equal;
    const u32 last = order_of_kth(row, share, k, room, equal);
    // Of those that are as likely as the last one the first few: how many stand before this thread's.
    u32 own = 0;
    for (u32 token = share.start; token < share.end; token++) {
        own += order_of(row[token]) == last ? 1 : 0;
    }
    u32 rank = block_sum_before(own, room.words, total);
    // Each thread goes through its tokens twice, in order: counting, then writing.
    const u32 first_rank = rank;
    return list_tokens(a, ask, row, share, room, [&](u32 token, float logit) {
        rank = token == share.start ? first_rank : rank;
        const u32 order = order_of(logit);
        return order > last || (order == last && rank++ < equal);
    });
}

__device__ __forceinline__ u32 find_draw(
    const Ask& ask, float largest, const LogitRow& row, Share share, AnswerRoom& room) {
    double own = 0.0;
    for (u32 token = share.start; token < share.end; token++) {
        own += static_cast<double>(expf(row[token] - largest));
    }
    double total;
    const double before = block_sum_before(own, room.doubles, total);
    const double place = ask.number * total;
    const u32 none = 0xffffffffu;
    const auto lower = [](u32 one, u32 other) { return one < other ? one : other; };
    const auto higher = [](u32 one, u32 other) { return one > other ? one : other; };
    // Whoever's tokens hold the place. The sums are rounded: where nobody's do, the last token that can be drawn is.
    // A thread without weight holds none, however its sum was rounded.
    u32 holder = block_reduce(own > 0.0 && before + own > place ? threadIdx.x : none, room.words, lower);
    if (holder == none) {
        holder = block_reduce(own > 0.0 ? threadIdx.x : 0u, room.words, higher);
    }
    if (threadIdx.x == holder) {
        double sum = before;
        u32 drawn = share.start;
        for (u32 token = share.start; token < share.end; token++) {
            const float weight = expf(row[token] - largest);
            drawn = weight > 0.0f ? token : drawn;
            sum += static_cast<double>(weight);
            if (weight > 0.0f && sum > place) {
                break;
            }
        }
        room.bin = drawn;
    }
    __syncthreads();
    return room.bin;
}

/// What a thread knows of the logits that it has read: the largest one, infinite where one is not finite, and the sum of
/// exp(logit - largest).
struct Mass {
    float largest;
    double sum;
};

/// Reads a row once, every thread its packs of four, and puts it with its bias to `target`, if there is one. The sum is
/// rescaled whenever a larger logit is found (Milakov and Gimelshein, "Online normalizer calculation for softmax").
__device__ __forceinline__ Mass read_row(const AnswersArguments& a, const float* logits, float* target) {
    const float4* source = reinterpret_cast<const float4*>(logits);
    const float4* bias = reinterpret_cast<const float4*>(a.bias);
    const u32 packs = a.outputs / 4;
    Mass mass{-FLT_MAX, 0.0};
    bool is_finite = true;
    for (u32 first = threadIdx.x; first < packs; first += PACKS_AHEAD * blockDim.x) {
        float4 raw[PACKS_AHEAD] = {}, added[PACKS_AHEAD] = {};
#pragma unroll
        for (int ahead = 0; ahead < PACKS_AHEAD; ahead++) {
            const u32 pack = first + ahead * blockDim.x;
            if (pack < packs) {
                raw[ahead] = source[pack];
                added[ahead] = bias[pack];
            }
        }
        float values[PACKS_AHEAD][4];
        float largest = mass.largest;
#pragma unroll
        for (int ahead = 0; ahead < PACKS_AHEAD; ahead++) {
            const u32 pack = first + ahead * blockDim.x;
            values[ahead][0] = raw[ahead].x + added[ahead].x;
            values[ahead][1] = raw[ahead].y + added[ahead].y;
            values[ahead][2] = raw[ahead].z + added[ahead].z;
            values[ahead][3] = raw[ahead].w + added[ahead].w;
            if (target && pack < packs) {
                const float(&four)[4] = values[ahead];
                reinterpret_cast<float4*>(target)[pack] = make_float4(four[0], four[1], four[2], four[3]);
            }
#pragma unroll
            for (int index = 0; index < 4; index++) {
                // What fills the last pack up is no logit.
                const bool is_token = pack < packs && 4 * pack + index < a.vocabulary;
                float& value = values[ahead][index];
                value = is_token ? value : -INFINITY;
                is_finite = is_finite && (!is_token || fabsf(value) <= FLT_MAX);
                largest = value > largest ? value : largest;
            }
        }
        if (largest > mass.largest) {
            mass.sum *= static_cast<double>(expf(mass.largest - largest));
            mass.largest = largest;
        }
#pragma unroll
        for (int ahead = 0; ahead < PACKS_AHEAD; ahead += EXACT) {
            float part = 0.0f;
#pragma unroll
            for (int index = 0; index < 4 * EXACT; index++) {
                part += expf(values[ahead + index / 4][index % 4] - largest);
            }
            mass.sum += static_cast<double>(part);
        }
    }
    mass.largest = is_finite ? mass.largest : INFINITY;
    return mass;
}

__device__ __forceinline__ void answers(const AnswersArguments& a) {
    AnswerRoom& room = *shared_memory<AnswerRoom>();
    float* staged = reinterpret_cast<float*>(shared_memory<char>() + (sizeof(AnswerRoom) + 15) / 16 * 16);
    const u32 index = blockIdx.x;
    const Ask ask = a.asks[index];
    float* logits = a.logits + static_cast<size_t>(index) * a.outputs;
    float* target = ask.kind == ASK_ROW ? logits : a.is_staged ? staged : nullptr;
    const Mass own = read_row(a, logits, target);
    // The first wait of the reduction is for what the threads have put there, too.
    const float largest =
        block_reduce(own.largest, room.floats, [](float one, float other) { return one > other ? one : other; });
    const LogitRow row{target ? target : logits, target ? nullptr : a.bias};
    Answer answer{NAN, largest, 0.0f, 0, 0};
    if (largest <= FLT_MAX) {
        const double part = own.sum * static_cast<double>(expf(own.largest - largest));
        const double sum =
            block_reduce(part, room.doubles, [](double one, double other) { return one + other; });
        answer.log_sum = log(sum);
        if (ask.target != NO_TOKEN) {
            answer.target = row[ask.target];
        }
        const u32 each = ((a.vocabulary + blockDim.x - 1) / blockDim.x) | 1u;
        const u32 start = threadIdx.x * each < a.vocabulary ? threadIdx.x * each : a.vocabulary;
        const Share share{start, start + each < a.vocabulary ? start + each : a.vocabulary};
        if (ask.kind == ASK_TOP) {
            answer.count = find_top(a, ask, answer, row, share, room);
        } else if (ask.kind == ASK_IDS) {
            for (u32 place = threadIdx.x; place < ask.count; place += blockDim.x) {
                a.lists[ask.list + place] = __float_as_uint(row[a.ids[ask.ids + place]]);
            }
        } else if (ask.kind == ASK_DRAW) {
            answer.drawn = find_draw(ask, largest, row, share, room);
        }
    }
    if (threadIdx.x == 0) {
        a.answers[index] = answer;
    }
}
