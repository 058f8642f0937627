// The acting engine on random models, at random places, under whatever sanitizer it is built with: every instruction
// set gives the same to rounding; bits depend neither on threads, nor on neighbours, nor on what lies in the state
// where nothing valid is; a state goes on elsewhere; a refused call changes nothing; engines do not share anything.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "cpu/engine_kernel.h"
#include "rate/engine_cpu.h"

namespace {

using rate::EngineShape;
using Random = std::mt19937;

#define REQUIRE(condition)                                                    \
    do {                                                                      \
        if (!(condition)) {                                                   \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                     \
        }                                                                     \
    } while (false)

int pick(Random& random, std::initializer_list<int> of) {
    return of.begin()[std::uniform_int_distribution<size_t>(0, of.size() - 1)(random)];
}

float normal(Random& random) { return std::normal_distribution<float>()(random); }

EngineShape random_shape(Random& random) {
    EngineShape s{};
    s.d_model = pick(random, {6, 10, 16, 30, 48});
    s.num_layers = pick(random, {1, 2, 3});
    s.num_heads = pick(random, {1, 2, 3});
    s.d_head = pick(random, {1, 5, 16, 20});
    s.block = static_cast<rate::Block>(pick(random, {0, 1, 2}));
    s.gated = s.block == rate::Block::pre_norm ? pick(random, {0, 1}) : s.block == rate::Block::published_gated;
    s.d_inner = s.gated ? pick(random, {1, 33}) : pick(random, {0, 24, 33});
    s.num_memory = pick(random, {0, 1, 3, 17});
    s.segment_tokens = 3 * pick(random, {1, 2, 5, 14});
    s.cache_len = pick(random, {0, 1, 7, 70});
    s.read_cache = pick(random, {0, 1});
    s.gate_heads = s.num_memory ? pick(random, {0, 1, 2}) : 0;
    s.gate_activation = static_cast<rate::Activation>(pick(random, {0, 1, 2, 3}));
    s.observation = static_cast<rate::Observation>(pick(random, {0, 1, 2}));
    s.observation_size = s.observation == rate::Observation::embedded ? 0 : pick(random, {1, 4, 19});
    s.normalized = s.observation == rate::Observation::vector && pick(random, {0, 1});
    s.action = static_cast<rate::Action>(pick(random, {0, 1}));
    s.action_size = pick(random, {1, 4, 18});
    s.action_tanh = pick(random, {0, 1});
    s.action_scale = 1.5f;
    s.return_scale = 2.0f;
    return s;
}

void fill(const rate::ParameterMatrix& m, float* block, Random& random, bool positive) {
    if (!m.present()) return;
    for (int64_t g = 0; g < m.row_groups; ++g) {
        for (int64_t r = 0; r < m.rows; ++r) {
            for (int64_t h = 0; h < m.column_groups; ++h) {
                for (int64_t x = 0; x < m.columns; ++x) {
                    const float value = 0.3f * normal(random);
                    block[m.offset + (g * m.row_step + r) * m.stride + h * m.column_step + x] =
                        positive ? 1.0f + std::fabs(value) : value;
                }
            }
        }
    }
}

std::vector<float> random_parameters(const EngineShape& shape, Random& random) {
    const rate::ParameterLayout layout = rate::parameter_layout(shape);
    std::vector<float> block(static_cast<size_t>(layout.size));
    const auto positive = [](const char* name) {
        return std::strstr(name, "norm_weight") || std::strstr(name, "_std");
    };
#define FILL(name) fill(layout.model.name, block.data(), random, positive(#name));
    RATE_MODEL_PARAMETERS(FILL)
#undef FILL
    for (int layer = 0; layer < shape.num_layers; ++layer) {
        float* const at = block.data() + layout.first_layer + layer * layout.layer_stride;
#define FILL(name) fill(layout.layer.name, at, random, positive(#name));
        RATE_LAYER_PARAMETERS(FILL)
#undef FILL
    }
    return block;
}

// What all environments are given at one time.
struct Given {
    std::vector<int64_t> count, observation_ids, action_ids;
    std::vector<float> returns, observations, actions, embedded;
    std::unique_ptr<bool[]> ends, resets;
    bool any_end = false, use_embedded = false;

    rate::TokenInput input() const {
        return {count.data(), returns.data(), observations.data(), observation_ids.data(), actions.data(),
                action_ids.data(), use_embedded ? embedded.data() : nullptr};
    }
    // Of one environment alone.
    rate::TokenInput input(const EngineShape& s, int env) const {
        rate::TokenInput in = input();
        const int64_t seen = s.observation == rate::Observation::embedded ? s.d_model : s.observation_size;
        in.count += env;
        in.returns += env;
        in.observations += env * seen;
        in.observation_ids += env;
        in.actions += env * s.action_size;
        in.action_ids += env;
        if (in.embedded) in.embedded += int64_t{env} * 3 * s.d_model;
        return in;
    }
};

Given random_given(const EngineShape& s, int batch, const std::vector<int>& held, Random& random) {
    Given g;
    const int64_t seen = s.observation == rate::Observation::embedded ? s.d_model : s.observation_size;
    g.ends = std::make_unique<bool[]>(static_cast<size_t>(batch));
    g.resets = std::make_unique<bool[]>(static_cast<size_t>(batch));
    g.use_embedded = pick(random, {0, 0, 1});
    for (int env = 0; env < batch; ++env) {
        const int most = std::min(3, s.segment_tokens - held[static_cast<size_t>(env)]);
        g.count.push_back(std::min(most, pick(random, {0, 1, 2, 3})));
        g.ends[static_cast<size_t>(env)] = most == 0 || pick(random, {0, 0, 0, 0, 0, 1});
        g.resets[static_cast<size_t>(env)] = pick(random, {0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
        g.any_end = g.any_end || g.ends[static_cast<size_t>(env)];
        g.returns.push_back(normal(random));
        g.observation_ids.push_back(pick(random, {0, 1, 2, 3}) % std::max(1, s.observation_size));
        g.action_ids.push_back(pick(random, {0, 1, 2, 3}) % (s.action_size + 1));
        for (int64_t i = 0; i < seen; ++i) g.observations.push_back(normal(random));
        for (int64_t i = 0; i < s.action_size; ++i) g.actions.push_back(normal(random));
        for (int64_t i = 0; i < 3 * s.d_model; ++i) g.embedded.push_back(normal(random));
    }
    return g;
}

// An engine with its state, which holds NaN wherever no counter says otherwise.
struct Player {
    EngineShape shape;
    int batch;
    std::vector<float> state;
    std::unique_ptr<rate::CpuEngine> engine;
    std::vector<float> hidden, predictions;

    Player(const EngineShape& s, const std::vector<float>& parameters, int environments,
           const rate::EngineKernel* kernel)
        : shape(s), batch(environments) {
        const int64_t stride = rate::state_layout(s).stride;
        state.assign(static_cast<size_t>(batch * stride), std::numeric_limits<float>::quiet_NaN());
        for (int env = 0; env < batch; ++env) {
            std::memset(state.data() + env * stride, 0, rate::kCounters * sizeof(float));
        }
        engine = std::make_unique<rate::CpuEngine>(s, parameters.data(), batch, state.data(), kernel);
        hidden.assign(static_cast<size_t>(batch * s.d_model), 0.0f);
        predictions.assign(static_cast<size_t>(batch * s.action_size), 0.0f);
    }
    // As Given says: some environments end their segments, the others step.
    void play(const rate::TokenInput& in, const bool* ends, const bool* resets, int threads) {
        std::vector<int64_t> count(in.count, in.count + batch);
        REQUIRE(engine->end_segment(ends, in, threads).problem == rate::Problem::none);
        for (int env = 0; env < batch; ++env) {
            if (ends[env]) count[static_cast<size_t>(env)] = 0;
        }
        rate::TokenInput rest = in;
        rest.count = count.data();
        REQUIRE(engine->step(rest, {hidden.data(), predictions.data()}, threads).problem == rate::Problem::none);
        engine->reset(resets);
    }
};

bool same(const float* a, const float* b, size_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

void require_near(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        REQUIRE(std::isfinite(a[i]));
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    REQUIRE(difference <= 1e-7 * size + 1e-12);
}

void require_refused(Player& player, const Given& given, int env) {
    const std::vector<float> before = player.state;
    std::vector<float> returns(given.returns.size(), std::numeric_limits<float>::infinity());
    std::vector<float> embedded(given.embedded.size(), std::numeric_limits<float>::quiet_NaN());
    rate::TokenInput in = given.input();
    in.returns = returns.data();
    if (in.embedded) in.embedded = embedded.data();
    std::vector<int64_t> count(given.count.size(), 0);
    in.count = count.data();
    const int64_t stride = rate::state_layout(player.shape).stride;
    int32_t held;
    std::memcpy(&held, player.state.data() + env * stride + rate::kTokens, sizeof held);
    if (held % 3 || held == player.shape.segment_tokens) return;  // the next token is no return-to-go
    count[static_cast<size_t>(env)] = 1;
    const rate::Refusal refusal = player.engine->step(in, {nullptr, nullptr}, 2);
    REQUIRE(refusal.problem == rate::Problem::not_finite && refusal.env == env);
    count[static_cast<size_t>(env)] = 4;
    REQUIRE(player.engine->step(in, {nullptr, nullptr}, 2).problem == rate::Problem::bad_count);
    REQUIRE(same(player.state.data(), before.data(), before.size()));
}

void compare(unsigned seed, int steps) {
    Random random(seed);
    const EngineShape shape = random_shape(random);
    const std::vector<float> parameters = random_parameters(shape, random);
    const int batch = pick(random, {1, 4, 9});
    const int64_t stride = rate::state_layout(shape).stride;
    const bool all[16] = {true, true, true, true, true, true, true, true, true};

    std::vector<std::unique_ptr<Player>> kernels, alone;
    for (const auto* kernel : {rate::engine_portable(), rate::engine_avx2(), rate::engine_avx512()}) {
        if (kernel) kernels.push_back(std::make_unique<Player>(shape, parameters, batch, kernel));
    }
    Player threaded(shape, parameters, batch, rate::engine_portable());
    for (int env = 0; env < batch; ++env) {
        alone.push_back(std::make_unique<Player>(shape, parameters, 1, rate::engine_portable()));
        alone.back()->engine->reset(all);
    }
    for (auto& player : kernels) player->engine->reset(all);
    threaded.engine->reset(all);

    std::vector<int> held(static_cast<size_t>(batch));
    for (int t = 0; t < steps; ++t) {
        const Given given = random_given(shape, batch, held, random);
        for (size_t k = 1; k < kernels.size(); ++k) {  // from one state: some of these models amplify any difference
            std::copy(kernels[0]->state.begin(), kernels[0]->state.end(), kernels[k]->state.begin());
        }
        for (auto& player : kernels) player->play(given.input(), given.ends.get(), given.resets.get(), 1);
        threaded.play(given.input(), given.ends.get(), given.resets.get(), 3);
        const Player& first = *kernels[0];
        REQUIRE(same(threaded.hidden.data(), first.hidden.data(), first.hidden.size()));
        REQUIRE(same(threaded.predictions.data(), first.predictions.data(), first.predictions.size()));
        for (int env = 0; env < batch; ++env) {
            Player& one = *alone[static_cast<size_t>(env)];
            one.play(given.input(shape, env), &given.ends[static_cast<size_t>(env)],
                     &given.resets[static_cast<size_t>(env)], 1);
            const auto d = static_cast<size_t>(shape.d_model);
            REQUIRE(same(one.hidden.data(), first.hidden.data() + static_cast<size_t>(env) * d, d));
            int32_t& tokens = held[static_cast<size_t>(env)];
            std::memcpy(&tokens, first.state.data() + env * stride + rate::kTokens, sizeof tokens);
        }
        for (size_t k = 1; k < kernels.size(); ++k) {
            require_near(kernels[k]->hidden, first.hidden);
            require_near(kernels[k]->predictions, first.predictions);
        }
        if (t % 7 == 3) require_refused(threaded, given, t % batch);
        if (t % 11 == 5) {  // goes on from a copy of another's state
            std::copy(first.state.begin(), first.state.end(), threaded.state.begin());
            threaded.engine = std::make_unique<rate::CpuEngine>(shape, parameters.data(), batch, threaded.state.data(),
                                                                rate::engine_portable());
        }
    }
}

}  // namespace

int main() {
    for (unsigned seed = 0; seed < 24; ++seed) compare(seed, 30);
    std::vector<std::thread> others;  // several engines in several threads
    for (unsigned seed = 100; seed < 104; ++seed) others.emplace_back([seed] { compare(seed, 15); });
    for (std::thread& other : others) other.join();
    std::puts("all equal");
}
