// Deals tasks of unequal length out to threads.
//
// In a process that has loaded an OpenMP runtime, as every process with torch has, its threads do the work: they keep
// spinning for a while after each of torch's own operations, and threads of ours would have to share the cores with
// them. Elsewhere threads are started per call. After fork() this works where torch's own operations do.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
extern "C" void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags)
    __attribute__((weak));
#endif

namespace rate {

inline int64_t worker_count(int64_t tasks, int threads) {
    return std::max<int64_t>(1, std::min<int64_t>(tasks, threads));
}

// Calls body(task, worker) for every task once; two calls at a time have different workers. body must not throw.
template <typename Body>
void run_tasks(int64_t tasks, int64_t workers, const Body& body) {
    struct Shared {
        const Body& body;
        int64_t tasks;
        std::atomic<int64_t> next_task{0}, next_worker{0};

        void work() {
            const int64_t worker = next_worker++;
            for (int64_t task = next_task++; task < tasks; task = next_task++) body(task, worker);
        }
    } shared{body, tasks, {}, {}};
    if (workers <= 1) return shared.work();
#if defined(__linux__)
    if (GOMP_parallel) {
        return GOMP_parallel([](void* data) { static_cast<Shared*>(data)->work(); }, &shared,
                             static_cast<unsigned>(workers), 0);
    }
#endif
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(workers - 1));
    try {
        while (static_cast<int64_t>(helpers.size()) < workers - 1) helpers.emplace_back([&] { shared.work(); });
    } catch (const std::system_error&) {
        // No more threads to be had: those there are do the work.
    }
    shared.work();
    for (std::thread& helper : helpers) helper.join();
}

}  // namespace rate
