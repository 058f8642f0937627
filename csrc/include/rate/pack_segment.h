// A segment as one sequence: the embeddings of K steps interleaved, with the memory tokens around them.
//
//     [ memory m | R_0 o_0 a_0 R_1 o_1 a_1 ... | memory m, if written ]
//
// The last action may be missing: tokens is 3K, or 3K - 1.

#pragma once

#include <cstdint>

#include "rate/rows.h"

namespace rate {

struct PackShape {
    int64_t batch;
    int64_t num_memory;  // m
    int64_t num_write;   // m, or 0 without write memory
    int64_t tokens;      // n = 3K or 3K - 1
    int64_t row_bytes;   // d times the element size

    RATE_SHARED int64_t rows() const { return num_memory + tokens + num_write; }
};

struct PackInputs {
    Rows memory;  // not read when num_memory is 0
    Rows returns;
    Rows observations;
    Rows actions;
};

// Where row `row` of batch entry `batch` of the packed sequence comes from.
RATE_SHARED const char* packed_row(const PackShape& shape, const PackInputs& inputs, int64_t batch,
                                               int64_t row) {
    const int64_t token = row - shape.num_memory;
    if (token < 0) return inputs.memory.at(batch, row);
    if (token >= shape.tokens) return inputs.memory.at(batch, token - shape.tokens);
    const int64_t step = token / 3;
    switch (token % 3) {
        case 0: return inputs.returns.at(batch, step);
        case 1: return inputs.observations.at(batch, step);
        default: return inputs.actions.at(batch, step);
    }
}

// Writes all of out, a contiguous [batch, rows(), dim].
void pack_segment_cpu(const PackShape& shape, const PackInputs& inputs, char* out, int threads);
void pack_segment_cuda(const PackShape& shape, const PackInputs& inputs, char* out, void* stream);

enum class Element : int64_t { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

// Contiguous [batch, m or K or K - 1, dim]; memory is not written when num_memory is 0.
struct UnpackOutputs {
    char* memory;
    char* returns;
    char* observations;
    char* actions;
};

// The gradient of packing: every output's rows from the packed gradient; memory's two places are added, half types in
// float32, and rounded once. Writes all of the outputs.
void unpack_segment_cuda(const PackShape& shape, const Rows& gradient, Element element, const UnpackOutputs& outputs,
                         void* stream);

}  // namespace rate
