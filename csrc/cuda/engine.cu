// The acting engine's kernels and their launches. One block takes its environments through a whole call.
//
// A block runs through nearly all of this code once per layer, so loops off the main path are kept rolled
// (#pragma unroll 1): the instruction cache is small.

#include "rate/engine_cuda.h"

#include <cmath>

#include "cuda/engine_check.h"
#include "cuda/engine_end.h"
#include "cuda/engine_layer.h"
#include "cuda/engine_tokens.h"
#include "cuda/launch.h"

namespace rate {
namespace {

// Fills in the block's environments and gives the number of its tiles.
__device__ int place_rows(const EnginePlan& plan, const EngineCall& call, int envs) {
    EngineEnv* list = reinterpret_cast<EngineEnv*>(shared_floats() + plan.shared.envs);
    int32_t* tile_env = reinterpret_cast<int32_t*>(shared_floats() + plan.shared.tile_env);
    const EngineShape& shape = plan.shape;
    for_each(envs, [&](int64_t e) {
        const int index = static_cast<int>(blockIdx.x) * plan.group + static_cast<int>(e);
        const int32_t* counters = counters_of(plan, call, index);
        const bool ends = call.mask && call.mask[index], idle = call.mask && !ends;
        const int fresh = idle ? 0 : static_cast<int>(call.input.count[index]);
        const int writes = ends ? shape.num_memory : 0;
        const bool reads = shape.num_memory && !counters[kReadDone] && fresh + writes > 0;
        list[e] = {index, counters[kTokens] + fresh, fresh, counters[kCached],
                   reads ? shape.first_read() : shape.first_token() + counters[kTokens],
                   (reads ? shape.num_memory : 0) + fresh + writes, 0, ends};
    });
    __syncthreads();
    int tiles = 0;
    for (int e = 0; e < envs; ++e) {
        const int count = (list[e].rows + kTile - 1) / kTile;
        if (threadIdx.x == 0) list[e].first_tile = tiles;
        for_each(count, [&](int64_t i) { tile_env[tiles + i] = e; });
        tiles += count;
    }
    __syncthreads();
    return tiles;
}

// The last block to finish moves all counters, so that none moves while another block still reads it.
__device__ void finish(const EnginePlan& plan, const EngineCall& call, int32_t key) {
    int32_t* last = reinterpret_cast<int32_t*>(shared_floats() + plan.shared.reduce);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        *last = atomicAdd(call.report + 1, 1) == static_cast<int32_t>(gridDim.x) - 1;
    }
    __syncthreads();
    if (!*last) return;
    if (key == kNoProblem) {
        for_each(plan.batch, [&](int64_t env) { count_on(plan, call, static_cast<int>(env)); });
    }
    if (threadIdx.x == 0) {
        call.report[0] = key;
        call.report[1] = 0;
    }
}

__global__ void __launch_bounds__(kMaxThreads)
    advance(const __grid_constant__ EnginePlan plan, const __grid_constant__ EngineCall call) {
    const int32_t key = call.checked ? call.report[0] : block_problem(plan, call, threadIdx.x, blockDim.x);
    if (key == kNoProblem) {
        const int envs = min(plan.group, plan.batch - static_cast<int>(blockIdx.x) * plan.group);
        __syncthreads();
        const int tiles = place_rows(plan, call, envs);
        float* scratch = call.scratch + blockIdx.x * plan.scratch_stride;
        const int64_t places = int64_t{plan.tiles} * kTile;
        const Work work{
            plan,
            call,
            {call.model, call.bfloat16 != 0},
            plan.shared.stream < 0 ? scratch : shared_floats() + plan.shared.stream,
            plan.shared.query < 0 ? scratch + places * plan.parameters.d : shared_floats() + plan.shared.query,
            scratch + plan.scratch_gate,
            tiles,
            envs};
        load_rows(work);
        __syncthreads();
        if (tiles) {
            for (int layer = 0; layer < plan.shape.num_layers; ++layer) run_layer(work, layer);
        }
        if (plan.shape.block == Block::pre_norm) {
            norm_stream(work, 0, tiles * kTile, work.model + plan.parameters.model.final_norm_weight.offset,
                        work.model + plan.parameters.model.final_norm_bias.offset);
            __syncthreads();
        }
        if (call.mask) {
            end_segments(work);
        } else {
            store_outputs(work);
        }
    }
    finish(plan, call, key);
}

__global__ void __launch_bounds__(kMaxThreads)
    check(const __grid_constant__ EnginePlan plan, const __grid_constant__ EngineCall call) {
    const int64_t first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const int32_t key = block_problem(plan, call, first, int64_t{gridDim.x} * blockDim.x);
    if (threadIdx.x == 0 && key != kNoProblem) atomicMin(call.report, key);
}

__global__ void __launch_bounds__(kMaxThreads)
    reset_memory(const __grid_constant__ EnginePlan plan, const __grid_constant__ EngineCall call) {
    const int env = static_cast<int>(blockIdx.x);
    if (!call.mask[env]) return;
    float* memory = call.state + env * plan.state.stride + plan.state.memory;
    const Parameters from = Parameters{call.model, call.bfloat16 != 0} + plan.parameters.model.memory.offset;
    for_each(int64_t{plan.shape.num_memory} * plan.parameters.d, [&](int64_t i) { memory[i] = from[i]; });
    int32_t* counters = const_cast<int32_t*>(counters_of(plan, call, env));
    for_each(kCounters, [&](int64_t i) { counters[i] = i == kReady; });
}

int32_t attribute(cudaDeviceAttr which) {
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
}

}  // namespace

struct CudaEngine::Plans {
    EnginePlan step, end;
    EngineCall memory;

    void run(const EnginePlan& plan, const TokenInput& input, const TokenOutput& output, const bool* mask,
             void* stream) const {
        EngineCall call = memory;
        call.input = input;
        call.output = output;
        call.mask = mask;
        const int64_t numbers = int64_t{plan.batch} * input_numbers(plan.shape, input.embedded != nullptr);
        call.checked = numbers > kScanned;
        const size_t shared = static_cast<size_t>(plan.shared.size) * sizeof(float);
        const unsigned threads = static_cast<unsigned>(plan.threads);
        if (call.checked) {
            check_cuda(cudaMemsetAsync(call.report, kNoProblem & 0xff, sizeof(int32_t),
                                       static_cast<cudaStream_t>(stream)), "cudaMemsetAsync");
            const int64_t blocks = std::min<int64_t>((numbers + threads - 1) / threads, 512);
            launch("engine: check", check, dim3(static_cast<unsigned>(blocks)), threads, shared, stream, plan, call);
        }
        launch("engine", advance, dim3(static_cast<unsigned>(plan.blocks)), threads, shared, stream, plan, call);
    }
};

CudaEngine::CudaEngine(const EngineShape& shape, bool bfloat16, int32_t batch, int32_t threads) {
    static_assert(sizeof(EnginePlan) + sizeof(EngineCall) <= 4096, "a kernel's arguments take at most 4 KB");
    if (batch < 1 || threads < 0 || threads > kMaxThreads || threads % 32) {
        throw std::invalid_argument("CudaEngine: impossible sizes");
    }
    const int32_t processors = attribute(cudaDevAttrMultiProcessorCount);
    const int32_t limit = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    plans_ = std::make_unique<Plans>();
    plans_->step = plan_engine(shape, batch, false, processors, limit, threads);
    plans_->end = plan_engine(shape, batch, true, processors, limit, threads);
    plans_->memory = {};
    plans_->memory.bfloat16 = bfloat16;
    for (const void* kernel : {reinterpret_cast<const void*>(advance), reinterpret_cast<const void*>(check)}) {
        check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, limit),
                   "cudaFuncSetAttribute");
    }
}

CudaEngine::~CudaEngine() = default;

int64_t CudaEngine::angles() const {
    return int64_t{plans_->step.state.slots} * plans_->step.shape.d_model;
}

int64_t CudaEngine::scratch() const {
    return std::max(plans_->step.scratch_stride, plans_->end.scratch_stride) * plans_->step.blocks;
}

void CudaEngine::fill_angles(float* on_the_host) const {
    const int64_t d = plans_->step.shape.d_model, half = d / 2;
    for (int64_t slot = 0; slot < plans_->step.state.slots; ++slot) {
        for (int64_t k = 0; k < half; ++k) {
            const double frequency = std::pow(10000.0, -2.0 * static_cast<double>(k) / static_cast<double>(d));
            const double angle = frequency * static_cast<double>(slot);
            float* at = on_the_host + (slot / kKeyBlock * d + k) * kKeyBlock + slot % kKeyBlock;
            at[0] = static_cast<float>(std::cos(angle));
            at[half * kKeyBlock] = static_cast<float>(std::sin(angle));
        }
    }
}

void CudaEngine::attach(const CudaEngineMemory& memory) {
    plans_->memory.model = static_cast<const char*>(memory.parameters);
    plans_->memory.state = memory.state;
    plans_->memory.angles = memory.angles;
    plans_->memory.scratch = memory.scratch;
    plans_->memory.report = memory.report;
}

void CudaEngine::step(const TokenInput& input, const TokenOutput& output, void* stream) const {
    plans_->run(plans_->step, input, output, nullptr, stream);
}

void CudaEngine::end_segment(const bool* mask, const TokenInput& input, void* stream) const {
    plans_->run(plans_->end, input, {}, mask, stream);
}

void CudaEngine::reset(const bool* mask, void* stream) const {
    EngineCall call = plans_->memory;
    call.mask = mask;
    const dim3 blocks(static_cast<unsigned>(plans_->step.batch));
    launch("engine: reset", reset_memory, blocks, 128, 0, stream, plans_->step, call);
}

Refusal CudaEngine::refusal(int32_t report) { return refusal_of(report); }

}  // namespace rate
