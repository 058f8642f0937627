// Views of tensors: what every operation takes in place of a tensor. No ownership, no Python, no torch.

#pragma once

#include <cstdint>

#include "rate/shared.h"

namespace rate {

// A [batch, rows, dim] tensor with contiguous last dimension. Strides are in bytes; 0 means expanded.
struct Rows {
    const char* data;
    int64_t batch_stride;
    int64_t row_stride;

    RATE_SHARED const char* at(int64_t batch, int64_t row) const {
        return data + batch * batch_stride + row * row_stride;
    }
};

}  // namespace rate
