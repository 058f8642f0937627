// The acting engine: the sizes and switches of a model. Everything else about the engine's memory follows from them.

#pragma once

#include <cstdint>

#include "rate/shared.h"

namespace rate {

enum class Block : int32_t {
    pre_norm,         // x + attention(norm(x)); x + feed_forward(norm(x)); with gating, GTrXL's units for both sums
    published,        // norm(2 x + attention(x)); norm(x + feed_forward(x))
    published_gated,  // GTrXL as published: two norms before attention, one for the cache, a residual inside the unit
};
enum class Activation : int32_t { none, relu, leaky_relu, tanh };
enum class Observation : int32_t { embedded, vector, discrete };  // embedded: the caller encodes (images)
enum class Action : int32_t { discrete, continuous };

// Names and meanings are those of the model's configuration. All counts are at least 0.
struct EngineShape {
    int32_t d_model;  // even; also d_pos, the size of a sinusoid
    int32_t num_layers;
    int32_t num_heads;
    int32_t d_head;
    int32_t d_inner;         // 0: no feed-forward part
    int32_t num_memory;      // m; 0: no memory tokens at all
    int32_t segment_tokens;  // n at most, 3 K
    int32_t cache_len;       // c at most
    int32_t read_cache;      // whether memory tokens see the cache
    int32_t gate_heads;      // 0: what was written is the next memory
    int32_t gated;           // GTrXL's units; always with Block::published_gated, never with Block::published
    Block block;
    Activation gate_activation;

    Observation observation;
    int32_t observation_size;  // numbers of a vector, or of discrete observations; 0 when embedded
    int32_t normalized;        // a vector observation is standardised
    Action action;
    int32_t action_size;  // numbers of an action vector, or of discrete actions
    int32_t action_tanh;  // embedded actions pass a tanh
    float action_scale;
    float return_scale;

    // A segment's places. A slot is also a position: only differences count, and keys never move while it runs.
    //
    //     [ cache, right-aligned: cache_len | read memory: m | tokens: n | write memory: m ]
    //
    // Write memory follows the n tokens that the segment holds when it ends, 3 K or fewer.
    RATE_SHARED int32_t first_read() const { return cache_len; }
    RATE_SHARED int32_t first_token() const { return cache_len + num_memory; }
    RATE_SHARED int32_t first_write(int32_t tokens) const { return first_token() + tokens; }
    RATE_SHARED int32_t slots() const { return cache_len + num_memory + segment_tokens + num_memory; }
    // Rows of one environment that may pass the layers in one call: the read memory and three tokens, or three tokens
    // and the write memory.
    RATE_SHARED int32_t rows_at_most() const { return num_memory + 3; }
};

struct KeyRange {
    int32_t first;
    int32_t stop;
};

// The slots that the row in `slot` sees, all of them, in a segment of `tokens` tokens with `cached` rows of cache.
// This is rate_kernels.SegmentLayout's rule; a test holds the two against each other.
RATE_SHARED KeyRange visible_slots(const EngineShape& shape, int32_t slot, int32_t tokens, int32_t cached) {
    const bool read = slot < shape.first_token(), write = slot >= shape.first_write(tokens);
    const bool sees_cache = !(read || write) || shape.read_cache;
    const int32_t first = sees_cache ? shape.first_read() - cached : shape.first_read();
    if (read) return {first, shape.first_token()};
    return {first, write ? shape.first_write(tokens) + shape.num_memory : slot + 1};
}

}  // namespace rate
