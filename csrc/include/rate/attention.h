// Relative-position attention over a segment, forward and backward, float32, for CPUs.
//
//     s_ij = (q_i + u) . k_j + (q_i + v) . r(i + c - j),    out_i = sum_j softmax_j(scale s_ij) v_j
//
// Row i stands at position i + c, c = key_rows - query_rows, and sees the keys first[i] <= j < stop[i], less those that
// are hidden from a whole batch entry. r is a table by distance, so that a band of it serves a block of scores:
// column t of the table is r(key_rows - 1 - t), and the score of (i, j) reads column j + query_rows - 1 - i.

// No functions here: this header is compiled for several instruction sets into one module.

#pragma once

#include <cstdint>

namespace rate {

// A [batch, rows, heads, head_dim] tensor with contiguous last dimension. Strides in elements.
template <typename T>
struct HeadRows {
    T* data;
    int64_t batch_stride;
    int64_t row_stride;
    int64_t head_stride;
};

struct AttentionProblem {
    int64_t batch;
    int64_t heads;
    int64_t query_rows;
    int64_t key_rows;
    int64_t head_dim;
    int64_t table_columns;  // 0: no position term, and neither biases nor table
    bool published_shift;   // keys ahead of a row get what Transformer-XL's relative shift leaves there
    float scale;
    HeadRows<const float> query;
    HeadRows<const float> key;
    HeadRows<const float> value;
    const float* content_bias;   // u [heads, head_dim]
    const float* position_bias;  // v [heads, head_dim]
    const float* table;          // [heads, head_dim, table_columns]
    const int32_t* first;        // [query_rows]
    const int32_t* stop;         // [query_rows]
    const int32_t* hidden;       // [batch, 2]: keys hidden[b][0] <= j < hidden[b][1] are seen by nobody; or null
};

struct AttentionForward {
    float* out;  // contiguous [batch, query_rows, heads, head_dim]
    // [batch, heads, query_rows, 2]: the largest scaled score of a row, and one over the sum of exp(score - largest).
    // Zeros where a row sees nothing. (The log of the sum, which is shorter, costs digits where scores are large.)
    float* statistics;
};

struct AttentionBackward {
    HeadRows<const float> gradient;
    const float* statistics;
    float* d_query;  // contiguous, as are all gradients
    float* d_key;
    float* d_value;
    float* d_content_bias;
    float* d_position_bias;
    float* d_table;
};

// Write all of their outputs, and the same bits for any number of threads.
void attention_forward_cpu(const AttentionProblem& problem, const AttentionForward& result, int threads);
void attention_backward_cpu(const AttentionProblem& problem, const AttentionBackward& result, int threads);

// The instruction set the running processor gets: "avx512", "avx2" or "portable".
const char* attention_instructions();

}  // namespace rate
