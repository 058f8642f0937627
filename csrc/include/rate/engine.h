// The acting engine: what its three calls do. The same on every device; positions by distance or by the separable
// form, the order of environments and when the read memory runs are an implementation's own choice.
//
// The score of the row in slot i and the key in slot j, for head h, is
//
//     s_ij = ((q_i + u) . k_j + (q_i + v) . W e(i - j)) / sqrt(d_head),    e(t) = [sin(w t), cos(w t)],
//     w_k = 10000^(-2 k / d_model),  k = 0 .. d_model / 2 - 1,
//
// in signed shift: also for slots ahead. Row i sees visible_slots(i). Layer norms divide by sqrt(variance + 1e-5).
//
// A call concerns the environments whose count or mask says so; all others keep every bit of their state and get no
// output. Environments stand at different places, and what one computes does not depend on the others: not on which
// they are, not on how many, not on where they stand.

#pragma once

#include <cstdint>

#include "rate/engine_parameters.h"
#include "rate/engine_shape.h"
#include "rate/engine_state.h"

namespace rate {

// New tokens, for B environments. Token number t of a segment is, by t % 3, a return-to-go, an observation or an
// action. At most three come in one call, so each kind comes at most once, and each array has one place for it.
struct TokenInput {
    const int64_t* count;            // [B]: 0 to 3 new tokens; 0 leaves the environment alone
    const float* returns;            // [B], not yet divided by return_scale
    const float* observations;       // [B][observation_size] or, embedded, [B][d_model]; contiguous, as all arrays
    const int64_t* observation_ids;  // [B], discrete observations, in place of the line above
    const float* actions;            // [B][action_size], in units of the environment, or
    const int64_t* action_ids;       // [B], discrete actions, 0 .. action_size (the last: no action)
    // Null, or tokens that the caller has embedded: [B][3][d_model], the first count of each are read, and none of the
    // arrays above.
    const float* embedded;
};

// Why a call did nothing. kind is the token's: 0 return-to-go, 1 observation, 2 action, 3 embedded; -1 for the others.
enum class Problem : int32_t {
    none,
    bad_count,  // not 0 to 3
    not_reset,
    too_long,    // the segment would hold more than segment_tokens
    missing,     // the token's array is null
    not_finite,  // NaN or infinity in what would be read
    out_of_range,
};
struct Refusal {
    Problem problem = Problem::none;
    int32_t env = -1;  // the lowest index with a problem
    int32_t kind = -1;
};

// Any of them may be null. Of the last new token of every environment that has one:
struct TokenOutput {
    float* hidden;       // [B][d_model]: what the last layer (and the final norm, if any) gives
    float* predictions;  // [B][action_size]: the head's logits, or its actions in units of the environment
};

// step(input, output)
//     Runs the new tokens through all layers, after the read memory where kReadDone is 0, and keeps their keys and
//     values (and hidden rows): slot first_token() + kTokens and on. kTokens rises by count.
//
// end_segment(mask, input)          mask: bool [B]
//     For the environments of the mask: runs count (0 to 3) last tokens as step does, then the write memory, whose
//     inputs are the memory's rows, in slots first_write(kTokens) and on; then
//       - the memory becomes the last layer's (and final norm's) outputs at the write rows, or the gate's answer,
//         gate(old memory, those outputs);
//       - the cache becomes the last cache_len of [valid cache, all rows of the segment in slot order: read, tokens,
//         write], right-aligned: hidden rows, and their keys and values. In published_gated blocks these keys and
//         values are projected anew, for there a cached row passes one norm and a running row two:
//         k = W_k inner_norm(hidden);
//       - kCached = min(cache_len, kCached + rows), kTokens = 0, kReadDone = 0.
//     Without memory there is nothing to write, and only the cache rolls. count is read for these environments only.
//
// reset(mask)
//     For the environments of the mask: the memory becomes the parameter `memory`, kReady 1, all other counters 0.
//     A fresh state block holds zeros.
//
// step and end_segment refuse a call with a Problem in any environment that it concerns; the state of all environments
// is then as before the call. (On CUDA the binding checks what the host knows before the launch.)

}  // namespace rate
