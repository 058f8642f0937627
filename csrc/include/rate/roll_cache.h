// The next cache of every layer: the last rows of the old cache and the new hidden states together.

#pragma once

#include <cstdint>
#include <vector>

#include "rate/rows.h"

namespace rate {

struct RollLayer {
    Rows cache;           // [batch, cache_rows, dim]
    int64_t cache_rows;   // c
    Rows hidden;          // [batch, hidden_rows, dim]
    int64_t hidden_rows;  // Lq
    char* out;            // contiguous [batch, kept(cache_len), dim]

    RATE_SHARED int64_t kept(int64_t cache_len) const {
        return cache_len < cache_rows + hidden_rows ? cache_len : cache_rows + hidden_rows;
    }
    RATE_SHARED int64_t kept_of_hidden(int64_t cache_len) const {
        return cache_len < hidden_rows ? cache_len : hidden_rows;
    }
};

// Writes all of every layer's out, which must not overlap any input.
void roll_cache_cpu(const std::vector<RollLayer>& layers, int64_t batch, int64_t cache_len, int64_t row_bytes,
                    int threads);
void roll_cache_cuda(const std::vector<RollLayer>& layers, int64_t batch, int64_t cache_len, int64_t row_bytes,
                     void* stream);

}  // namespace rate
