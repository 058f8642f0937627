// Runs the operations over heap buffers of exactly the needed size, so that an address sanitizer sees any access
// outside them, and compares every byte with the definition. Exits with 1 and a line on a difference.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "rate/pack_segment.h"
#include "rate/roll_cache.h"

namespace {

int64_t g_next = 0;

struct Buffer {
    std::unique_ptr<char[]> data;
    int64_t batch_stride, row_stride;

    Buffer(int64_t batch, int64_t rows, int64_t row_bytes, int64_t gap, bool expanded)
        : data(new char[static_cast<size_t>((expanded ? 1 : batch) * rows * (row_bytes + gap))]),
          batch_stride(expanded ? 0 : rows * (row_bytes + gap)),
          row_stride(row_bytes + gap) {
        const int64_t size = (expanded ? 1 : batch) * rows * (row_bytes + gap);
        for (int64_t i = 0; i < size; ++i) data[i] = static_cast<char>(g_next++ * 31 + 7);
    }
    rate::Rows view() const { return {data.get(), batch_stride, row_stride}; }
    const char* row(int64_t b, int64_t r) const { return data.get() + b * batch_stride + r * row_stride; }
};

void expect(const char* got, const char* wanted, int64_t bytes, const char* what) {
    for (int64_t i = 0; i < bytes; ++i) {
        if (got[i] == wanted[i]) continue;
        std::printf("%s: wrong byte\n", what);
        std::exit(1);
    }
}

void pack(int64_t batch, int64_t memory, bool write, int64_t steps, bool last_action, int64_t row_bytes, int64_t gap,
          bool expanded, int threads) {
    const int64_t tokens = 3 * steps - !last_action;
    const rate::PackShape shape{batch, memory, write ? memory : 0, tokens, row_bytes};
    const Buffer m(batch, memory, row_bytes, gap, expanded), r(batch, steps, row_bytes, 0, false),
        o(batch, steps, row_bytes, gap, false), a(batch, steps - !last_action, row_bytes, gap, false);
    const std::unique_ptr<char[]> out(new char[static_cast<size_t>(batch * shape.rows() * row_bytes)]);
    rate::pack_segment_cpu(shape, {m.view(), r.view(), o.view(), a.view()}, out.get(), threads);
    const char* at = out.get();
    for (int64_t b = 0; b < batch; ++b) {
        const auto next = [&](const Buffer& from, int64_t row) {
            expect(at, from.row(b, row), row_bytes, "pack_segment");
            at += row_bytes;
        };
        for (int64_t i = 0; i < memory; ++i) next(m, i);
        for (int64_t t = 0; t < tokens; ++t) next(t % 3 == 0 ? r : t % 3 == 1 ? o : a, t / 3);
        for (int64_t i = 0; i < shape.num_write; ++i) next(m, i);
    }
}

void roll(int64_t batch, int64_t c, int64_t lq, int64_t cache_len, int64_t row_bytes, int64_t gap, int threads) {
    std::vector<Buffer> cache, hidden;
    std::vector<std::unique_ptr<char[]>> outs;
    std::vector<rate::RollLayer> layers;
    for (int64_t extra = 0; extra < 3; ++extra) {
        cache.emplace_back(batch, c + extra, row_bytes, gap, false);
        hidden.emplace_back(batch, lq, row_bytes, extra, extra == 1);
        rate::RollLayer layer{cache.back().view(), c + extra, hidden.back().view(), lq, nullptr};
        outs.emplace_back(new char[static_cast<size_t>(batch * layer.kept(cache_len) * row_bytes)]);
        layer.out = outs.back().get();
        layers.push_back(layer);
    }
    rate::roll_cache_cpu(layers, batch, cache_len, row_bytes, threads);
    for (size_t l = 0; l < layers.size(); ++l) {
        const int64_t kept = layers[l].kept(cache_len), old = layers[l].cache_rows, first = old + lq - kept;
        for (int64_t b = 0; b < batch; ++b) {
            for (int64_t i = 0; i < kept; ++i) {
                const int64_t row = first + i;
                expect(layers[l].out + (b * kept + i) * row_bytes,
                       row < old ? cache[l].row(b, row) : hidden[l].row(b, row - old), row_bytes, "roll_cache");
            }
        }
    }
}

}  // namespace

int main() {
    for (const int threads : {1, 2, 5}) {
        for (const int64_t row_bytes : {0, 2, 6, 256}) {
            for (const int64_t gap : {0, 3}) {
                for (const int64_t batch : {0, 1, 3}) {
                    for (const bool flag : {false, true}) {
                        for (const int64_t memory : {0, 1, 4}) {
                            for (const int64_t steps : {1, 2, 7}) {
                                pack(batch, memory, flag, steps, true, row_bytes, gap, flag, threads);
                                pack(batch, memory, flag, steps, false, row_bytes, gap, !flag, threads);
                            }
                        }
                    }
                    for (const int64_t c : {0, 1, 6}) {
                        for (const int64_t lq : {0, 1, 5}) {
                            for (const int64_t keep : {0, 1, 5, 6, 50}) {
                                roll(batch, c, lq, keep, row_bytes, gap, threads);
                            }
                        }
                    }
                }
            }
        }
        pack(7, 15, true, 300, true, 4096, 0, true, threads);  // tens of megabytes: really split over threads
        roll(7, 300, 200, 310, 4096, 0, threads);
    }
    std::printf("all equal\n");
}
