// The ends of a call: new tokens become rows, and the last layer's rows become outputs.

#pragma once

#include "cuda/engine_work.h"

namespace rate {

// Column `column` of the token with this number, embedded.
__device__ inline float embed(const Work& work, const EngineEnv& env, int token, int column) {
    const EngineShape& shape = work.plan.shape;
    const ModelParameters& p = work.plan.parameters.model;
    const TokenInput& input = work.call.input;
    const Parameters model = work.model;
    const int d = shape.d_model, room = work.plan.parameters.d, kind = token % 3;
    if (input.embedded) {
        return input.embedded[(int64_t{env.index} * 3 + token - (env.tokens - env.fresh)) * d + column];
    }
    if (kind == 0) {
        return input.returns[env.index] / shape.return_scale * model[p.return_weight.offset + column] +
               model[p.return_bias.offset + column];
    }
    if (kind == 1 && shape.observation == Observation::embedded) {
        return input.observations[int64_t{env.index} * d + column];
    }
    if (kind == 1 && shape.observation == Observation::discrete) {
        return model[p.observation_weight.offset + input.observation_ids[env.index] * room + column];
    }
    if (kind == 1) {
        const float* observed = input.observations + int64_t{env.index} * shape.observation_size;
        float sum = model[p.observation_bias.offset + column];
#pragma unroll 4
        for (int i = 0; i < shape.observation_size; ++i) {
            float value = observed[i];
            if (shape.normalized) {
                value = (value - model[p.observation_mean.offset + i]) /
                        model[p.observation_std.offset + i];
            }
            sum += value * model[p.observation_weight.offset + int64_t{i} * room + column];
        }
        return sum;
    }
    float sum;
    if (shape.action == Action::discrete) {
        sum = model[p.action_weight.offset + input.action_ids[env.index] * room + column];
    } else {
        const float* acted = input.actions + int64_t{env.index} * shape.action_size;
        sum = model[p.action_bias.offset + column];
        for (int i = 0; i < shape.action_size; ++i) {
            sum += acted[i] / shape.action_scale *
                   model[p.action_weight.offset + int64_t{i} * room + column];
        }
    }
    return shape.action_tanh ? tanhf(sum) : sum;
}

// All rows of the stream: memory's rows and embedded tokens; zeros in columns beyond d and in places without a row.
__device__ inline void load_rows(const Work& work) {
    const EngineShape& shape = work.plan.shape;
    const int room = work.plan.parameters.d;
    for_each_column(work.tiles * kTile, room, [&](int place, int column) {
        const Row row = work.row(place);
        float value = 0;
        if (row.slot >= 0 && column < shape.d_model) {
            const EngineEnv& env = *row.env;
            if (row.number < 0 || row.number >= env.tokens) {
                const int memory_row = row.number < 0 ? row.number + shape.num_memory : row.number - env.tokens;
                value = work.memory_of(env)[memory_row * room + column];
            } else {
                value = embed(work, env, row.number, column);
            }
        }
        work.stream[place * room + column] = value;
    });
}

// hidden and predictions of the last new token of every environment that has one.
__device__ inline void store_outputs(const Work& work) {
    const EngineShape& shape = work.plan.shape;
    const ParameterLayout& p = work.plan.parameters;
    const TokenOutput& output = work.call.output;
    for (int item = warp_id(); item < work.envs * shape.action_size; item += warp_count()) {
        const EngineEnv& env = work.env(item / shape.action_size);
        const int action = item % shape.action_size;
        if (env.fresh == 0) continue;
        const float* row = work.stream + (env.first_tile * kTile + env.rows - 1) * p.d;
        if (output.hidden && action == 0) {
#pragma unroll 1
            for (int i = lane_id(); i < shape.d_model; i += 32) {
                output.hidden[int64_t{env.index} * shape.d_model + i] = row[i];
            }
        }
        if (!output.predictions) continue;
        float sum = 0;
#pragma unroll 1
        for (int i = lane_id(); i < shape.d_model; i += 32) {
            sum += row[i] * work.model[p.model.head_weight.offset + int64_t{i} * p.actions + action];
        }
        sum = warp_sum(sum);
        if (shape.action == Action::continuous) {
            sum = tanhf(sum + work.model[p.model.head_bias.offset + action]) * shape.action_scale;
        }
        if (lane_id() == 0) output.predictions[int64_t{env.index} * shape.action_size + action] = sum;
    }
}

}  // namespace rate
