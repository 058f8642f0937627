// The acting engine: what it keeps of B environments between calls, and where.
//
// The state block is B * stride elements of four bytes, 64-byte aligned; environment b owns stride elements from
// b * stride on, and nothing of it lies elsewhere: to move an environment, copy them. They are
//
//     counters   int32 [16]: see Counter; those not named are 0
//     memory     float [m][d]: what the running segment's read memory is made of
//     per layer  keys    float [H][slots / 32][d_head][32]: W_k of every slot's input, 32 slots side by side
//                values  float [H][slots][hs]
//                hidden  float [slots][d], the layer's input of every slot; only where cache_len > 0
//
// with d, hs of ParameterLayout and `slots` rounded up to 32. Slots are those of EngineShape: the cache's rows are
// right-aligned before slot cache_len. Elements that no counter declares valid hold anything, NaN included: a kernel
// masks them by selection, never by multiplication with 0.

#pragma once

#include <cstdint>

#include "rate/engine_parameters.h"

namespace rate {

constexpr int32_t kKeyBlock = 32;      // slots
constexpr int32_t kStateAlign = 16;    // elements
constexpr int32_t kStateVersion = 1;   // rises when an element moves for some shape

enum Counter : int32_t {
    kTokens,    // tokens of the running segment whose keys and values are there, 0 .. segment_tokens
    kCached,    // valid rows of the cache, 0 .. cache_len
    kReadDone,  // 1: keys and values of the read memory are there. 0: the next call that runs tokens makes them first
    kReady,     // 1: was reset, and may be given tokens
    kCounters = 16,
};

struct StateLayout {
    int64_t stride = 0;  // elements of one environment
    int64_t counters = 0;
    int64_t memory = 0;
    int64_t first_layer = 0;   // layer l starts at first_layer + l * layer_stride
    int64_t layer_stride = 0;
    int64_t keys = 0;          // from the layer's start, as the next two
    int64_t values = 0;
    int64_t hidden = -1;       // -1: not kept
    int32_t slots = 0;         // rounded up to kKeyBlock
};

StateLayout state_layout(const EngineShape& shape);  // csrc/cpu/engine_layout.cpp

// Element (slot, head, x) from the start of a layer's keys, and of its values.
RATE_SHARED int64_t key_offset(const EngineShape& shape, const StateLayout& state, int32_t slot, int32_t head,
                               int32_t x) {
    const int64_t block = int64_t{head} * (state.slots / kKeyBlock) + slot / kKeyBlock;
    return (block * shape.d_head + x) * kKeyBlock + slot % kKeyBlock;
}
RATE_SHARED int64_t value_offset(const EngineShape& shape, const StateLayout& state, int32_t slot, int32_t head,
                                 int32_t x) {
    return (int64_t{head} * state.slots + slot) * padded(shape.d_head) + x;
}

}  // namespace rate
