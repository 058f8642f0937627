// Splits copying work over threads.
//
// Threads are started per call instead of waiting in a pool: a pool does not survive fork(), which data loaders use.
// One core copies at close to the speed of memory, so that a thread pays only for much more than a cache holds:
// 9 MB took longer in two threads than in one. Less than twice this runs in the caller.

#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace rate {

constexpr int64_t kBytesPerThread = int64_t{16} << 20;

// Calls body(begin, end) on ranges that together cover [0, count) once. body must not throw.
template <typename Body>
void parallel_for(int64_t count, int64_t bytes, int threads, const Body& body) {
    const int64_t parts = std::max<int64_t>(1, std::min({int64_t{threads}, bytes / kBytesPerThread, count}));
    const auto run = [&](int64_t part) { body(count * part / parts, count * (part + 1) / parts); };
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(parts - 1));
    int64_t started = 1;
    try {
        for (; started < parts; ++started) helpers.emplace_back(run, started);
    } catch (const std::system_error&) {
        // No more threads to be had: the caller does the parts that were not handed out.
    }
    run(0);
    for (int64_t part = started; part < parts; ++part) run(part);
    for (std::thread& helper : helpers) helper.join();
}

}  // namespace rate
