// Runs the operations over heap buffers of exactly the needed size, so that an address sanitizer sees any access
// outside them, and compares every byte with the definition. Exits with 1 and a line on a difference.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cpu/attention_kernel.h"
#include "rate/attention.h"
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

// Attention over m memory rows, n rows that see what is before them, and m rows that see everything.
struct Attention {
    int64_t batch, heads, m, n, cache, dim;
    bool relative, published, hidden;
    int64_t rows = 2 * m + n, keys = cache + rows, columns = relative ? keys + (m ? m - 1 : 0) : 0;
    int64_t queries = batch * rows * heads * dim, stored = batch * keys * heads * dim;
    std::vector<float> query = numbers(queries), key = numbers(stored), value = numbers(stored),
                       gradient = numbers(queries), u = numbers(heads * dim), v = numbers(heads * dim),
                       table = numbers(heads * dim * columns);
    std::vector<int32_t> first{}, stop{}, hide{};
    std::vector<float> out = empty(queries), statistics = empty(batch * heads * rows * 2), d_query = empty(queries),
                       d_key = empty(stored), d_value = empty(stored), d_u = empty(heads * dim),
                       d_v = empty(heads * dim), d_table = empty(heads * dim * columns);

    static std::vector<float> numbers(int64_t count) {
        std::vector<float> result(static_cast<size_t>(count));
        for (float& x : result) x = static_cast<float>((g_next++ * 7919) % 2001 - 1000) / 1000.0f;
        return result;
    }
    static std::vector<float> empty(int64_t count) { return std::vector<float>(static_cast<size_t>(count), NAN); }

    rate::AttentionProblem problem() {
        for (int64_t i = static_cast<int64_t>(first.size()); i < rows; ++i) {
            first.push_back(static_cast<int32_t>(i < m || i >= m + n ? cache : 0));
            stop.push_back(static_cast<int32_t>(i < m ? cache + m : i < m + n ? cache + i + 1 : keys));
        }
        if (hidden && hide.empty()) {
            for (int64_t b = 0; b < batch; ++b) {
                hide.push_back(static_cast<int32_t>(cache + m));
                hide.push_back(static_cast<int32_t>(cache + m + (b * 5) % (n + 1)));
            }
        }
        const auto view = [&](const std::vector<float>& x, int64_t length) {
            return rate::HeadRows<const float>{x.data(), length * heads * dim, heads * dim, dim};
        };
        return {batch, heads, rows, keys, dim, columns, published, 0.5f, view(query, rows), view(key, keys),
                view(value, keys), u.data(), v.data(), table.data(), first.data(), stop.data(),
                hidden ? hide.data() : nullptr};
    }
    rate::AttentionBackward results() {
        return {{gradient.data(), rows * heads * dim, heads * dim, dim}, statistics.data(), d_query.data(),
                d_key.data(), d_value.data(), d_u.data(), d_v.data(), d_table.data()};
    }
    void check() const {
        for (const auto* x : {&out, &statistics, &d_query, &d_key, &d_value, &d_u, &d_v, &d_table}) {
            if (!relative && (x == &d_u || x == &d_v || x == &d_table)) continue;
            for (const float y : *x) {
                if (std::isfinite(y)) continue;
                std::printf("attention: not written, or made of what was not written\n");
                std::exit(1);
            }
        }
    }
};

void attend(Attention a, int threads) {
    const rate::AttentionProblem problem = a.problem();
    rate::attention_forward_cpu(problem, {a.out.data(), a.statistics.data()}, threads);
    rate::attention_backward_cpu(problem, a.results(), threads);
    a.check();
    const Attention expected = a;
    for (const rate::AttentionKernel* kernel :
         {rate::attention_portable(), rate::attention_avx2(), rate::attention_avx512()}) {
        if (!kernel) continue;
        const int64_t size = std::max(kernel->forward_scratch(problem), kernel->backward_scratch(problem));
        std::vector<float> partial(static_cast<size_t>((a.columns + 2) * a.dim));
        for (int64_t head = 0; head < a.heads; ++head) {
            // Scratch of exactly the size that was asked for, full of what must not be read.
            std::vector<float> scratch = Attention::empty(size);
            kernel->forward(problem, {a.out.data(), a.statistics.data()}, head, 0, a.batch, scratch.data());
            scratch = Attention::empty(size);
            kernel->backward(problem, a.results(), head, 0, a.batch, partial.data(), scratch.data());
        }
        a.check();
        for (size_t i = 0; i < a.d_query.size(); ++i) {
            if (std::abs(a.d_query[i] - expected.d_query[i]) < 1e-4f && std::abs(a.out[i] - expected.out[i]) < 1e-5f) {
                continue;
            }
            std::printf("attention: instruction sets differ\n");
            std::exit(1);
        }
    }
}

}  // namespace

int main() {
    for (const bool relative : {false, true}) {
        for (const bool flag : {false, true}) {
            for (const int64_t m : {0, 1, 5, 50}) {
                for (const int64_t n : {1, 2, 13, 60}) {
                    for (const int64_t dim : {1, 8, 20, 32, 40}) {
                        attend({2, 2, m, n, flag ? 7 : 0, dim, relative, relative && flag, !flag}, flag ? 3 : 1);
                    }
                }
            }
        }
    }
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
        pack(16, 15, true, 300, true, 4096, 0, true, threads);  // tens of megabytes: really split over threads
        roll(16, 300, 200, 310, 4096, 0, threads);
    }
    std::printf("all equal\n");
}
