// The acting engine: where each parameter lies in the flat parameter block.
//
// The block is `size` elements of one type: float32, or bfloat16 on CUDA, at the same offsets counted in elements.
// Every entry starts at a multiple of 16 elements, and so does every row of a matrix. What no parameter covers, at the
// end of rows and between heads, is 0: a kernel may read and multiply it, and padded outputs come out 0.
//
// A matrix that multiplies from the right lies as [in][out], the transpose of torch.nn.Linear's weight, so that the
// outputs of one input are contiguous.

#pragma once

#include <cstdint>

#include "rate/engine_shape.h"

namespace rate {

constexpr int32_t kParameterAlign = 16;  // elements
constexpr int32_t kParameterVersion = 1;  // rises when an offset changes for some shape

RATE_SHARED int64_t padded(int64_t count) {
    return (count + kParameterAlign - 1) / kParameterAlign * kParameterAlign;
}

// Element (row group g, row r, column group h, column x) is at offset + (g row_step + r) stride + h column_step + x.
struct ParameterMatrix {
    int64_t offset = -1;  // from the block's start, or the layer's; -1: this shape has no such parameter
    int32_t row_groups = 1;
    int32_t rows = 0;  // per group
    int32_t row_step = 0;
    int32_t column_groups = 1;
    int32_t columns = 0;  // per group
    int32_t column_step = 0;
    int32_t stride = 0;      // of a row: column_groups * column_step
    int32_t transposed = 0;  // whether torch holds it as [out, in]

    RATE_SHARED bool present() const { return offset >= 0; }
    RATE_SHARED int64_t elements() const { return int64_t{row_groups} * row_step * stride; }
};

// hs = head_stride, the room of one head among a row's heads; d = d_model.
#define RATE_MODEL_PARAMETERS(X)                                                      \
    X(content_bias)         /* u [H][hs], shared by all layers                     */ \
    X(position_bias)        /* v [H][hs]                                           */ \
    X(memory)               /* [m][d], the memory an episode starts with           */ \
    X(final_norm_weight)    /* [d], pre_norm only, as the next                     */ \
    X(final_norm_bias)                                                                \
    X(gate_query_weight)    /* [d][d], as the other three maps of the gate         */ \
    X(gate_query_bias)      /* [d]                                                 */ \
    X(gate_key_weight)                                                                \
    X(gate_key_bias)                                                                  \
    X(gate_value_weight)                                                              \
    X(gate_value_bias)                                                                \
    X(gate_output_weight)                                                             \
    X(gate_output_bias)                                                               \
    X(return_weight)        /* [1][d]                                              */ \
    X(return_bias)          /* [d]                                                 */ \
    X(observation_weight)   /* [observation_size][d]: a vector's map, or a table   */ \
    X(observation_bias)     /* [d], vector only                                    */ \
    X(observation_mean)     /* [observation_size], normalized only, as the next    */ \
    X(observation_std)                                                                \
    X(action_weight)        /* [action_size][d], or a table [action_size + 1][d]   */ \
    X(action_bias)          /* [d], continuous only                                */ \
    X(head_weight)          /* [d][action_size]                                    */ \
    X(head_bias)            /* [action_size], continuous only                      */

#define RATE_LAYER_PARAMETERS(X)                                                      \
    X(attention_norm_weight) /* [d]                                                */ \
    X(attention_norm_bias)                                                            \
    X(inner_norm_weight)     /* [d], published_gated only, as the next             */ \
    X(inner_norm_bias)                                                                \
    X(qkv)                   /* [d][3][H][hs]                                      */ \
    X(position)              /* W [H d_head][d], as torch holds it                 */ \
    X(output)                /* [H][hs][d]                                         */ \
    X(attention_from_update) /* [d][3][d]: W_r, W_z, W_g; gated only, to the bias  */ \
    X(attention_from_stream) /* [d][2][d]: U_r, U_z                                */ \
    X(attention_from_reset)  /* [d][d]: U_g                                        */ \
    X(attention_gate_bias)   /* [d]                                                */ \
    X(feed_forward_norm_weight) /* [d], only where d_inner > 0, as all below       */ \
    X(feed_forward_norm_bias)                                                         \
    X(feed_forward_in)       /* [d][d_inner]                                       */ \
    X(feed_forward_in_bias)  /* [d_inner]                                          */ \
    X(feed_forward_out)      /* [d_inner][d]                                       */ \
    X(feed_forward_out_bias) /* [d]                                                */ \
    X(feed_forward_from_update) /* as in attention, gated only                     */ \
    X(feed_forward_from_stream)                                                       \
    X(feed_forward_from_reset)                                                        \
    X(feed_forward_gate_bias)

#define RATE_DECLARE(name) ParameterMatrix name;
struct ModelParameters {
    RATE_MODEL_PARAMETERS(RATE_DECLARE)
};
struct LayerParameters {  // offsets from the layer's start
    RATE_LAYER_PARAMETERS(RATE_DECLARE)
};
#undef RATE_DECLARE

struct ParameterLayout {
    ModelParameters model;
    LayerParameters layer;
    int64_t first_layer = 0;   // layer l starts at first_layer + l * layer_stride
    int64_t layer_stride = 0;
    int64_t size = 0;          // elements of the whole block
    int32_t d = 0;             // padded(d_model): the room of a row of the residual stream
    int32_t head_stride = 0;   // hs = padded(d_head)
    int32_t heads = 0;         // H hs: the room of a row of queries, keys or values
    int32_t inner = 0;         // padded(d_inner)
    int32_t actions = 0;       // padded(action_size)
};

// The one function that computes offsets (csrc/cpu/engine_layout.cpp).
ParameterLayout parameter_layout(const EngineShape& shape);

}  // namespace rate
