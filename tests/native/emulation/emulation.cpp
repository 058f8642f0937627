#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace rate {
float4 engine_shared[512 * 1024 / sizeof(float4)];  // csrc/cuda's dynamic shared memory
}

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

int multiprocessors = 132, shared_limit = 232448;

namespace {

constexpr size_t kStack = 256 * 1024;

enum class Waits { no, for_warp, for_block, done };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    Waits waits = Waits::no;
    unsigned thread = 0;
    void* fake_stack = nullptr;
};

struct Warp {
    unsigned char pieces[2][32 * 16];  // of this exchange, and of the one before, which others may still read
    int turn = 0;
    unsigned waiting = 0, size = 0;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
ucontext_t scheduler;
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;
unsigned alive = 0, at_barrier = 0;

void fail(const char* what) {
    std::fprintf(stderr, "emulation: block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, what);
    std::abort();
}

#if defined(__SANITIZE_ADDRESS__)
void* scheduler_stack = nullptr;
const void* scheduler_bottom = nullptr;
size_t scheduler_size = 0;
#endif

void to_scheduler() {
    Fiber* self = running;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(self->waits == Waits::done ? nullptr : &self->fake_stack, scheduler_bottom,
                                   scheduler_size);
#endif
    swapcontext(&self->context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(self->fake_stack, &scheduler_bottom, &scheduler_size);
#endif
}

void start() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
    (*body)();
    running->waits = Waits::done;
    to_scheduler();
}

void resume(Fiber& fiber) {
    running = &fiber;
    threadIdx = dim3(fiber.thread, 0, 0);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_stack, fiber.stack.get(), kStack);
#endif
    swapcontext(&scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_stack, nullptr, nullptr);
#endif
}

std::vector<unsigned> order(unsigned threads) {
    std::vector<unsigned> result(threads);
    for (unsigned i = 0; i < threads; ++i) result[i] = i;
    const char* wish = std::getenv("RATE_EMULATED_ORDER");
    if (!wish || !std::strcmp(wish, "forward")) return result;
    if (!std::strcmp(wish, "reverse")) {
        std::reverse(result.begin(), result.end());
    } else {
        std::shuffle(result.begin(), result.end(), std::mt19937(static_cast<unsigned>(std::atoi(wish))));
    }
    return result;
}

void run_block(unsigned threads, const std::vector<unsigned>& turns) {
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    warps.assign((threads + 31) / 32, Warp{});
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = *fibers[i];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStack;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, start, 0);
        fiber.waits = Waits::no;
        fiber.thread = i;
        ++warps[i / 32].size;
    }
    alive = threads;
    at_barrier = 0;
    while (alive) {
        bool moved = false;
        for (const unsigned i : turns) {
            Fiber& fiber = *fibers[i];
            if (fiber.waits != Waits::no) continue;
            resume(fiber);
            moved = true;
            if (fiber.waits == Waits::done) {
                --alive;
                --warps[i / 32].size;
            }
        }
        if (alive && at_barrier == alive) {
            at_barrier = 0;
            for (unsigned i = 0; i < threads; ++i) {
                if (fibers[i]->waits == Waits::for_block) fibers[i]->waits = Waits::no;
            }
            moved = true;
        }
        if (alive && !moved) fail("some threads wait at a barrier that others never reach");
    }
}

}  // namespace

void block_barrier() {
    ++at_barrier;
    running->waits = Waits::for_block;
    to_scheduler();
}

const unsigned char* exchange(const void* piece, size_t bytes) {
    const unsigned thread = running->thread;
    Warp& warp = warps[thread / 32];
    const int turn = warp.turn;
    if (bytes) std::memcpy(warp.pieces[turn] + 16 * (thread % 32), piece, bytes);
    if (++warp.waiting == warp.size) {
        warp.waiting = 0;
        warp.turn = 1 - turn;
        for (unsigned i = thread / 32 * 32; i < thread / 32 * 32 + 32 && i < fibers.size(); ++i) {
            if (fibers[i]->waits == Waits::for_warp) fibers[i]->waits = Waits::no;
        }
    } else {
        running->waits = Waits::for_warp;
        to_scheduler();
    }
    return warp.pieces[turn];
}

void run_grid(dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel) {
    body = &kernel;
    blockDim = dim3(threads);
    gridDim = blocks;
    const std::vector<unsigned> turns = order(threads);
    for (unsigned z = 0; z < blocks.z; ++z) {
        for (unsigned y = 0; y < blocks.y; ++y) {
            for (unsigned x = 0; x < blocks.x; ++x) {
                blockIdx = dim3(x, y, z);
                std::memset(rate::engine_shared, 0xff, sizeof(rate::engine_shared));
                run_block(threads, turns);
                const unsigned char* end = reinterpret_cast<const unsigned char*>(rate::engine_shared);
                for (size_t i = shared_bytes; i < sizeof(rate::engine_shared); ++i) {
                    if (end[i] != 0xff) fail("it wrote beyond its shared memory");
                }
            }
        }
    }
}

}  // namespace emulation

void emulated_multiply_tile(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Piece {
        uint32_t words[4];
    };
    const Piece first{{a[0], a[1], a[2], a[3]}}, second{{b0, b1, 0, 0}};
    unsigned char lanes[2][32 * 16];
    std::memcpy(lanes[0], emulation::exchange(&first, 16), sizeof(lanes[0]));
    std::memcpy(lanes[1], emulation::exchange(&second, 16), sizeof(lanes[1]));
    // Element `half` of word `word` of a lane's piece, a bfloat16.
    const auto element = [&](int matrix, int lane, int word, int half) {
        uint32_t bits;
        std::memcpy(&bits, lanes[matrix] + 16 * lane + 4 * word, sizeof(bits));
        bits = half ? bits & 0xffff0000u : bits << 16;
        float value;
        std::memcpy(&value, &bits, sizeof(value));
        return value;
    };
    const int lane = static_cast<int>(threadIdx.x) & 31;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
        float total = sum[i];
        for (int k = 0; k < 16; ++k) {
            const int in_half = k % 8;
            const float left = element(0, row % 8 * 4 + in_half / 2, (row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0), k % 2);
            const float right = element(1, column * 4 + in_half / 2, k >= 8 ? 1 : 0, k % 2);
            total += left * right;
        }
        sum[i] = total;
    }
}
