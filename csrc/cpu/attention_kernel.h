// What one instruction set's build of the attention kernel offers to attention.cpp.

#pragma once

#include "rate/attention.h"

namespace rate {

struct AttentionKernel {
    const char* name;
    // Floats of scratch memory a thread needs, 64-byte aligned.
    int64_t (*forward_scratch)(const AttentionProblem&);
    int64_t (*backward_scratch)(const AttentionProblem&);
    // One head of the batch entries begin .. end - 1.
    void (*forward)(const AttentionProblem&, const AttentionForward&, int64_t head, int64_t begin, int64_t end,
                    float* scratch);
    // partial: table_columns + 2 rows of head_dim, the gradients of the table (by column) and of both biases, over
    // these batch entries. Not written without a position term.
    void (*backward)(const AttentionProblem&, const AttentionBackward&, int64_t head, int64_t begin, int64_t end,
                     float* partial, float* scratch);
};

// Null where the compiler was not asked for the instruction set.
const AttentionKernel* attention_avx512();
const AttentionKernel* attention_avx2();
const AttentionKernel* attention_portable();

}  // namespace rate
