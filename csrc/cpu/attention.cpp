// Chooses the instruction set, deals heads out to threads and adds up the gradients that heads share.

#include "rate/attention.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "cpu/attention_kernel.h"
#include "cpu/attention_tasks.h"

namespace rate {
namespace {

const AttentionKernel& chosen() {
    static const AttentionKernel& kernel = [&]() -> const AttentionKernel& {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_cpu_init();
        if (attention_avx512() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
            return *attention_avx512();
        }
        if (attention_avx2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
            return *attention_avx2();
        }
#endif
        return *attention_portable();
    }();
    return kernel;
}

// Grows and never shrinks: the pages stay mapped between calls. One per calling thread.
float* scratch_memory(int64_t floats) {
    struct Free {
        void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };
    thread_local std::unique_ptr<float[], Free> memory;
    thread_local int64_t size = 0;
    if (size < floats) {
        memory.reset();
        size = 0;
        memory.reset(static_cast<float*>(::operator new[](static_cast<size_t>(floats) * 4, std::align_val_t{64})));
        size = floats;
    }
    return memory.get();
}

// A task is a head of a few batch entries, so that what a head's entries share is prepared once for several. The
// division depends on the problem alone: sums over tasks are the same for any number of threads.
struct Division {
    int64_t heads, batch, parts;

    explicit Division(const AttentionProblem& p)
        : heads(p.heads),
          batch(p.batch),
          parts(std::min(p.batch, std::max<int64_t>(1, 64 / std::max<int64_t>(1, p.heads)))) {}
    int64_t tasks() const { return heads * parts; }
    // Heads change faster: they lie next to each other, and share the pages of memory that are looked up.
    int64_t head(int64_t task) const { return task % heads; }
    int64_t part(int64_t task) const { return task / heads; }
    int64_t begin(int64_t task) const { return batch * part(task) / parts; }
    int64_t end(int64_t task) const { return batch * (part(task) + 1) / parts; }
    int64_t partial(int64_t task) const { return head(task) * parts + part(task); }
};

void add_parts(const AttentionProblem& p, const AttentionBackward& result, const float* partial, int64_t parts,
               int64_t head) {
    const int64_t rows = p.table_columns + 2, count = rows * p.head_dim;
    float* sum = const_cast<float*>(partial) + head * parts * count;
    for (int64_t part = 1; part < parts; ++part) {
        const float* other = sum + part * count;
        for (int64_t i = 0; i < count; ++i) sum[i] += other[i];
    }
    float* d_table = result.d_table + head * p.head_dim * p.table_columns;
    for (int64_t column = 0; column < p.table_columns; ++column) {
        for (int64_t k = 0; k < p.head_dim; ++k) d_table[k * p.table_columns + column] = sum[column * p.head_dim + k];
    }
    const float* biases = sum + p.table_columns * p.head_dim;
    std::copy_n(biases, p.head_dim, result.d_content_bias + head * p.head_dim);
    std::copy_n(biases + p.head_dim, p.head_dim, result.d_position_bias + head * p.head_dim);
}

}  // namespace

const char* attention_instructions() { return chosen().name; }

void attention_forward_cpu(const AttentionProblem& p, const AttentionForward& result, int threads) {
    const Division division(p);
    const int64_t size = chosen().forward_scratch(p), workers = worker_count(division.tasks(), threads);
    float* memory = scratch_memory(workers * size);
    run_tasks(division.tasks(), workers, [&](int64_t task, int64_t worker) {
        chosen().forward(p, result, division.head(task), division.begin(task), division.end(task),
                         memory + worker * size);
    });
}

void attention_backward_cpu(const AttentionProblem& p, const AttentionBackward& result, int threads) {
    const Division division(p);
    const int64_t size = chosen().backward_scratch(p), workers = worker_count(division.tasks(), threads);
    const int64_t partial_size = p.table_columns ? (p.table_columns + 2) * p.head_dim : 0;
    float* memory = scratch_memory(workers * size + division.tasks() * partial_size);
    float* partial = memory + workers * size;
    run_tasks(division.tasks(), workers, [&](int64_t task, int64_t worker) {
        chosen().backward(p, result, division.head(task), division.begin(task), division.end(task),
                          partial + division.partial(task) * partial_size, memory + worker * size);
    });
    if (!partial_size) return;
    run_tasks(p.heads, std::min(workers, p.heads),
              [&](int64_t head, int64_t) { add_parts(p, result, partial, division.parts, head); });
}

}  // namespace rate
