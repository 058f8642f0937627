// The acting engine on a CPU: checks what comes in, chooses the instruction set, divides environments among threads.

#include "rate/engine_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "cpu/attention_tasks.h"
#include "cpu/engine_kernel.h"

namespace rate {
namespace {

constexpr int32_t kRowsTogether = 64;          // about as many as pass the layers together; their rows stay in cache
constexpr int64_t kProductsPerThread = 400000;  // below this, waking a thread takes longer than what it would do

const EngineKernel& chosen() {
    static const EngineKernel& kernel = [&]() -> const EngineKernel& {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_cpu_init();
        if (engine_avx512() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
            return *engine_avx512();
        }
        if (engine_avx2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return *engine_avx2();
#endif
        return *engine_portable();
    }();
    return kernel;
}

struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Floats = std::unique_ptr<float[], Free>;

Floats allocate(int64_t count) {
    return Floats(static_cast<float*>(::operator new[](static_cast<size_t>(count) * 4, std::align_val_t{64})));
}

// e(t) for the distances t = origin - column: [d_model][columns], made in double and rounded once.
Floats sinusoids(int32_t d_model, int64_t columns, int32_t origin) {
    Floats table = allocate(d_model * columns);
    const int32_t half = d_model / 2;
    for (int32_t k = 0; k < half; ++k) {
        const double frequency = std::pow(10000.0, -2.0 * k / d_model);
        for (int64_t column = 0; column < columns; ++column) {
            const double angle = frequency * static_cast<double>(origin - column);
            table[k * columns + column] = static_cast<float>(std::sin(angle));
            table[(half + k) * columns + column] = static_cast<float>(std::cos(angle));
        }
    }
    return table;
}

bool finite(const float* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        if (!std::isfinite(values[i])) return false;
    }
    return true;
}

Problem problem_of(const float* values, int64_t count) {
    if (!values) return Problem::missing;
    return finite(values, count) ? Problem::none : Problem::not_finite;
}

Problem problem_of(const int64_t* ids, int64_t env, int64_t size) {
    if (!ids) return Problem::missing;
    return ids[env] >= 0 && ids[env] < size ? Problem::none : Problem::out_of_range;
}

Problem problem_of_token(const EngineShape& s, const TokenInput& in, int64_t env, int32_t kind) {
    if (kind == 0) return problem_of(in.returns ? in.returns + env : nullptr, 1);
    if (kind == 1) {
        if (s.observation == Observation::discrete) return problem_of(in.observation_ids, env, s.observation_size);
        const int64_t size = s.observation == Observation::embedded ? s.d_model : s.observation_size;
        return problem_of(in.observations ? in.observations + env * size : nullptr, size);
    }
    if (s.action == Action::discrete) return problem_of(in.action_ids, env, s.action_size + 1);
    return problem_of(in.actions ? in.actions + env * s.action_size : nullptr, s.action_size);
}

}  // namespace

struct CpuEngine::Work {
    EngineModel model;
    const EngineKernel* kernel;
    int32_t batch;
    float* state;
    Floats table;
    Floats scratch;
    int64_t scratch_size = 0, scratch_of_one = 0;
    std::vector<int32_t> envs;        // [B], those of the running call
    std::vector<EngineGroup> groups;  // [B]
    std::mutex busy;

    int32_t* counters(int32_t env) const {
        return reinterpret_cast<int32_t*>(state + env * model.state.stride + model.state.counters);
    }

    Refusal refusal(const TokenInput& in, const bool* ends) const {
        const EngineShape& s = model.shape;
        for (int32_t env = 0; env < batch; ++env) {
            if (ends && !ends[env]) continue;
            const int32_t* const c = counters(env);
            const int64_t count = in.count[env];
            if (count < 0 || count > 3) return {Problem::bad_count, env, -1};
            if ((count || ends) && !c[kReady]) return {Problem::not_reset, env, -1};
            if (c[kTokens] + count > s.segment_tokens) return {Problem::too_long, env, -1};
            if (in.embedded) {
                if (!finite(in.embedded + int64_t{env} * 3 * s.d_model, count * s.d_model)) {
                    return {Problem::not_finite, env, 3};
                }
                continue;
            }
            Refusal first;
            for (int32_t i = 0; i < count; ++i) {
                const int32_t kind = (c[kTokens] + i) % 3;
                const Problem problem = problem_of_token(s, in, env, kind);
                if (problem != Problem::none && (first.kind < 0 || kind < first.kind)) first = {problem, env, kind};
            }
            if (first.problem != Problem::none) return first;
        }
        return {};
    }

    // Products of one row with the weights and with the slots, roughly.
    int64_t products() const {
        const EngineShape& s = model.shape;
        return model.places.layer_stride + int64_t{3} * model.places.heads * s.slots();
    }

    void run(const TokenInput& in, const TokenOutput& out, const bool* ends, int threads) {
        int32_t active = 0;
        int64_t rows = 0;
        const int32_t m = model.shape.num_memory;
        const auto rows_of = [&](int32_t env) {
            const bool unread = !counters(env)[kReadDone];
            return static_cast<int32_t>(in.count[env]) + (unread ? m : 0) + (ends ? m : 0);
        };
        for (int32_t env = 0; env < batch; ++env) {
            if (ends ? !ends[env] : !in.count[env]) continue;
            envs[static_cast<size_t>(active++)] = env;
            rows += rows_of(env);
        }
        const int64_t useful = rows * model.shape.num_layers * products() / kProductsPerThread;
        const int64_t workers = std::max<int64_t>(1, std::min<int64_t>({threads, active, useful}));
        // At least 1: a segment may end without a row, where there is neither memory nor a last token.
        const int64_t target = std::max<int64_t>(1, std::min<int64_t>(kRowsTogether, (rows + workers - 1) / workers));
        size_t count = 0;
        for (int32_t first = 0; first < active;) {
            EngineGroup group{envs.data() + first, 0};
            // By what they need at most: read memory and write memory never pass together.
            for (int64_t used = 0; first < active && used < target; ++first, ++group.count) {
                used += std::max(1, std::min(rows_of(envs[static_cast<size_t>(first)]), model.shape.rows_at_most()));
            }
            groups[count++] = group;
        }
        if (scratch_size < workers) {
            scratch.reset();
            scratch = allocate(workers * scratch_of_one);
            scratch_size = workers;
        }
        const EngineCall call{&in, &out, ends, state};
        run_tasks(static_cast<int64_t>(count), workers, [&](int64_t task, int64_t worker) {
            kernel->run(model, call, groups[static_cast<size_t>(task)], scratch.get() + worker * scratch_of_one);
        });
    }
};

CpuEngine::CpuEngine(const EngineShape& shape, const float* parameters, int32_t batch, float* state,
                     const EngineKernel* kernel)
    : work_(std::make_unique<Work>()) {
    Work& w = *work_;
    EngineModel& model = w.model;
    model = {shape, parameter_layout(shape), state_layout(shape), parameters, nullptr, 0, shape.slots() - 1,
             kRowsTogether + shape.rows_at_most()};
    w.kernel = kernel ? kernel : &chosen();
    w.batch = batch;
    w.state = state;
    // Slots are scored a block at a time, so that a row may read up to a block beyond the last slot that it sees.
    model.columns = padded(shape.slots() + shape.num_memory + kKeyBlock);
    const int64_t inner = int64_t{shape.num_heads} * shape.d_head;
    w.table = allocate(shape.num_layers * inner * model.columns);
    const Floats waves = sinusoids(shape.d_model, model.columns, model.origin);
    for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
        const ParameterMatrix& position = model.places.layer.position;
        const float* weight = parameters + model.places.first_layer + layer * model.places.layer_stride + position.offset;
        w.kernel->multiply(weight, position.stride, inner, shape.d_model, waves.get(), model.columns,
                           w.table.get() + layer * inner * model.columns);
    }
    model.table = w.table.get();
    w.scratch_of_one = w.kernel->scratch(model);
    w.envs.resize(static_cast<size_t>(batch));
    w.groups.resize(static_cast<size_t>(batch));
}

CpuEngine::~CpuEngine() = default;

Refusal CpuEngine::step(const TokenInput& input, const TokenOutput& output, int threads) {
    const std::lock_guard<std::mutex> lock(work_->busy);
    const Refusal refusal = work_->refusal(input, nullptr);
    if (refusal.problem == Problem::none) work_->run(input, output, nullptr, threads);
    return refusal;
}

Refusal CpuEngine::end_segment(const bool* mask, const TokenInput& input, int threads) {
    const std::lock_guard<std::mutex> lock(work_->busy);
    const Refusal refusal = work_->refusal(input, mask);
    if (refusal.problem == Problem::none) work_->run(input, {nullptr, nullptr}, mask, threads);
    return refusal;
}

void CpuEngine::reset(const bool* mask) {
    const std::lock_guard<std::mutex> lock(work_->busy);
    const EngineModel& model = work_->model;
    for (int32_t env = 0; env < work_->batch; ++env) {
        if (!mask[env]) continue;
        int32_t* const c = work_->counters(env);
        std::fill_n(c, kCounters, 0);
        c[kReady] = 1;
        if (!model.shape.num_memory) continue;
        std::memcpy(work_->state + env * model.state.stride + model.state.memory,
                    model.parameters + model.places.model.memory.offset,
                    static_cast<size_t>(model.shape.num_memory) * static_cast<size_t>(model.places.d) * 4);
    }
}

const char* CpuEngine::instructions() { return chosen().name; }

}  // namespace rate
