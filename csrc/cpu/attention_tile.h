// Register-tiled products, transposition and exponential on vectors of RATE_LANES floats.
//
// Compiled once per instruction set, so nothing here may have a name outside this translation unit, and nothing of
// the standard library is used: the linker might keep the wide build of a shared inline function for all.

#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed only to functions that are inlined
#endif

namespace {

constexpr int kLanes = RATE_LANES;
constexpr int kRows = RATE_ROWS;

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));  // wrap around where Ints must not
typedef float Loose __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));  // at any address

#define RATE_INLINE inline __attribute__((always_inline))

RATE_INLINE Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
RATE_INLINE void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

RATE_INLINE void clear(float* p, int64_t count) { __builtin_memset(p, 0, static_cast<size_t>(count) * 4); }

// A matrix of factors for a product: element (i, k) is at data[i * row + k * step].
struct Factors {
    const float* data;
    int64_t row;
    int64_t step;
};

struct Output {
    float* data;
    int64_t row;
    const float* more;  // what is added to the product, or null; may be data
    int64_t more_row;
};

// c[i, :] = sum_k a[i, k] b[k, :] + more[i, :] for M rows and N vectors. Added last: the sum rounds at its own size.
template <int M, int N>
void tile(const Factors& a, const float* b, int64_t b_row, int64_t depth, const Output& c) {
    Vec sum[M][N] = {};
    const float *at = a.data, *const more = c.more;
    float* const out = c.data;
    const int64_t row = a.row, step = a.step, out_row = c.row, more_row = c.more_row;
    for (int64_t k = 0; k < depth; ++k, at += step, b += b_row) {
        Vec right[N];
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) right[n] = load(b + n * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) {
            const float left = at[i * row];
#pragma GCC unroll 2
            for (int n = 0; n < N; ++n) sum[i][n] += right[n] * left;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) {
            if (more) sum[i][n] += load(more + i * more_row + n * kLanes);
            store(out + i * out_row + n * kLanes, sum[i][n]);
        }
    }
}

template <int M>
void panel(const Factors& a, const float* b, int64_t b_row, int64_t depth, const Output& c, int64_t columns) {
    int64_t j = 0;
    const auto part = [&] { return Output{c.data + j, c.row, c.more ? c.more + j : nullptr, c.more_row}; };
    for (; j + kLanes < columns; j += 2 * kLanes) tile<M, 2>(a, b + j, b_row, depth, part());
    if (j < columns) tile<M, 1>(a, b + j, b_row, depth, part());
}

// As tile, for up to kRows rows; columns are rounded up to whole vectors.
inline void product(int64_t rows, int64_t columns, int64_t depth, const Factors& a, const float* b, int64_t b_row,
                    const Output& c) {
    switch (rows) {
        case 1: return panel<1>(a, b, b_row, depth, c, columns);
        case 2: return panel<2>(a, b, b_row, depth, c, columns);
        case 3: return panel<3>(a, b, b_row, depth, c, columns);
        case 4: return panel<4>(a, b, b_row, depth, c, columns);
#if RATE_ROWS > 4
        case 5: return panel<5>(a, b, b_row, depth, c, columns);
        case 6: return panel<6>(a, b, b_row, depth, c, columns);
#endif
#if RATE_ROWS > 6
        case 7: return panel<7>(a, b, b_row, depth, c, columns);
        case 8: return panel<8>(a, b, b_row, depth, c, columns);
#endif
    }
}

// exp to within two units in the last place; 0 below -87, where the result would soon leave the normal numbers.
RATE_INLINE Vec exponential(Vec x) {
    const Ints kept = x >= Vec{} - 87.0f;
    const Vec magic = Vec{} + 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const Vec shifted = x * 1.44269504f + magic;
    const Vec n = shifted - magic;
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return reinterpret_cast<Vec>((reinterpret_cast<Words>(p) + (reinterpret_cast<Words>(shifted) << 23)) &
                                 reinterpret_cast<Words>(kept));
}

RATE_INLINE float total(Vec v) {
    float sum[kLanes];
    store(sum, v);
    for (int width = kLanes / 2; width; width /= 2) {
        for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
    }
    return sum[0];
}

RATE_INLINE float maximum(Vec v) {
    float most[kLanes];
    store(most, v);
    for (int i = 1; i < kLanes; ++i) most[0] = most[i] > most[0] ? most[i] : most[0];
    return most[0];
}

// out[k, i] = in[i, k], in squares of four where the compiler can shuffle.
inline void transpose(const float* in, int64_t in_row, int64_t rows, int64_t columns, float* out, int64_t out_row) {
    int64_t i = 0;
#if defined(__clang__) || __GNUC__ >= 12
    typedef float Four __attribute__((vector_size(16)));
    typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));
    for (; i + 4 <= rows; i += 4) {
        const float* from = in + i * in_row;
        int64_t k = 0;
        for (; k + 4 <= columns; k += 4) {
            const auto at = [&](int64_t r) -> Four {
                return *reinterpret_cast<const LooseFour*>(from + r * in_row + k);
            };
            const Four a = at(0), b = at(1), c = at(2), d = at(3);
            const Four ac0 = __builtin_shufflevector(a, c, 0, 4, 1, 5), ac1 = __builtin_shufflevector(a, c, 2, 6, 3, 7);
            const Four bd0 = __builtin_shufflevector(b, d, 0, 4, 1, 5), bd1 = __builtin_shufflevector(b, d, 2, 6, 3, 7);
            const auto put = [&](int64_t r, Four v) { *reinterpret_cast<LooseFour*>(out + (k + r) * out_row + i) = v; };
            put(0, __builtin_shufflevector(ac0, bd0, 0, 4, 1, 5));
            put(1, __builtin_shufflevector(ac0, bd0, 2, 6, 3, 7));
            put(2, __builtin_shufflevector(ac1, bd1, 0, 4, 1, 5));
            put(3, __builtin_shufflevector(ac1, bd1, 2, 6, 3, 7));
        }
        for (; k < columns; ++k) {
            for (int64_t r = 0; r < 4; ++r) out[k * out_row + i + r] = from[r * in_row + k];
        }
    }
#endif
    for (; i < rows; ++i) {
        for (int64_t k = 0; k < columns; ++k) out[k * out_row + i] = in[i * in_row + k];
    }
}

// Rows of a tensor: whole vectors, and what is left over one by one.
RATE_INLINE void copy_row(const float* in, int64_t count, float* out) {
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes) store(out + k, load(in + k));
    for (; k < count; ++k) out[k] = in[k];
}

RATE_INLINE void scale_row(const float* in, float factor, int64_t count, float* out) {
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes) store(out + k, load(in + k) * factor);
    for (; k < count; ++k) out[k] = in[k] * factor;
}

RATE_INLINE void add_row(const float* a, const float* b, float factor, int64_t count, float* out) {
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes) store(out + k, (load(a + k) + load(b + k)) * factor);
    for (; k < count; ++k) out[k] = (a[k] + b[k]) * factor;
}

}  // namespace
