// Rows times a matrix, and what is done to single rows. Compiled once per instruction set, as attention_tile.h.
//
// Every output is one chain of fused additions over the inputs in order, whatever the number of rows: what a row gives
// does not depend, to the last bit, on the rows beside it.

#pragma once

#include "cpu/attention_tile.h"

namespace {

// A right factor [depth][columns], rows `stride` apart, and what is added to each output, or null.
struct Matrix {
    const float* data;
    int64_t depth;
    int64_t columns;  // a multiple of 16
    int64_t stride;
    const float* bias;
};

template <int M, int N>
RATE_INLINE void multiply_tile(const float* x, int64_t x_row, const Matrix& w, int64_t column, float* y,
                               int64_t y_row) {
    Vec sum[M][N] = {};
    const float* right = w.data + column;
    for (int64_t k = 0; k < w.depth; ++k, right += w.stride) {
        Vec b[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) b[n] = load(right + n * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) {
            const float a = x[i * x_row + k];
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[i][n] += b[n] * a;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
            if (w.bias) sum[i][n] += load(w.bias + column + n * kLanes);
            store(y + i * y_row + column + n * kLanes, sum[i][n]);
        }
    }
}

template <int M, int N>
void multiply_columns(const float* x, int64_t x_row, const Matrix& w, int64_t& column, float* y, int64_t y_row) {
    for (; column + N * kLanes <= w.columns; column += N * kLanes) multiply_tile<M, N>(x, x_row, w, column, y, y_row);
}

// Few rows: wider tiles, for the additions of one output wait for each other.
template <int M, int N>
void multiply_few(const float* x, int64_t x_row, const Matrix& w, float* y, int64_t y_row) {
    int64_t column = 0;
    multiply_columns<M, N>(x, x_row, w, column, y, y_row);
    multiply_columns<M, 2>(x, x_row, w, column, y, y_row);
    multiply_columns<M, 1>(x, x_row, w, column, y, y_row);
}

template <int N>
void multiply_strip(const float* x, int64_t x_row, int64_t rows, const Matrix& w, int64_t column, float* y,
                    int64_t y_row) {
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) multiply_tile<kRows, N>(x + i * x_row, x_row, w, column, y + i * y_row, y_row);
    x += i * x_row;
    y += i * y_row;
    switch (rows - i) {
        case 1: return multiply_tile<1, N>(x, x_row, w, column, y, y_row);
        case 2: return multiply_tile<2, N>(x, x_row, w, column, y, y_row);
        case 3: return multiply_tile<3, N>(x, x_row, w, column, y, y_row);
#if RATE_ROWS > 4
        case 4: return multiply_tile<4, N>(x, x_row, w, column, y, y_row);
        case 5: return multiply_tile<5, N>(x, x_row, w, column, y, y_row);
#endif
#if RATE_ROWS > 6
        case 6: return multiply_tile<6, N>(x, x_row, w, column, y, y_row);
        case 7: return multiply_tile<7, N>(x, x_row, w, column, y, y_row);
#endif
    }
}

// y [rows][columns] = x [rows][depth] w (+ bias)
inline void multiply(const float* x, int64_t x_row, int64_t rows, const Matrix& w, float* y, int64_t y_row) {
    switch (rows) {
        case 0: return;
        case 1: return multiply_few<1, 8>(x, x_row, w, y, y_row);
        case 2: return multiply_few<2, 4>(x, x_row, w, y, y_row);
        case 3: return multiply_few<3, kLanes == 16 ? 4 : 2>(x, x_row, w, y, y_row);
    }
    int64_t column = 0;  // a strip of the matrix stays in the nearest cache while all rows pass it
    for (; column + 2 * kLanes <= w.columns; column += 2 * kLanes) multiply_strip<2>(x, x_row, rows, w, column, y, y_row);
    for (; column < w.columns; column += kLanes) multiply_strip<1>(x, x_row, rows, w, column, y, y_row);
}

inline void multiply_rows(const float* x, int64_t x_row, int64_t rows, int64_t depth, const float* w, int64_t columns,
                          float* y) {
    multiply(x, x_row, rows, {w, depth, columns, columns, nullptr}, y, columns);
}

// --- Rows ------------------------------------------------------------------------------------------------------------

RATE_INLINE Vec sigmoid(Vec x) {
    const Vec most = Vec{} + 87.0f, negated = -x;
    return 1.0f / (1.0f + exponential(negated < most ? negated : most));
}

RATE_INLINE Vec hyperbolic_tangent(Vec x) {
    const Vec size = x < 0.0f ? -x : x, e = exponential(size * -2.0f);
    const Vec t = (1.0f - e) / (1.0f + e);
    // Near 0 the difference above loses digits; the series does not.
    const Vec square = x * x;
    const Vec series = x + x * square * (square * (square * -0.05396825f + 0.13333333f) - 0.33333333f);
    return size < 0.15f ? series : (x < 0.0f ? -t : t);
}

inline void rectify(float* x, int64_t count) {
    for (int64_t k = 0; k < count; k += kLanes) {
        const Vec v = load(x + k);
        store(x + k, v > 0.0f ? v : Vec{});
    }
}

inline void leaky_rectify(float* x, int64_t count) {
    for (int64_t k = 0; k < count; k += kLanes) {
        const Vec v = load(x + k);
        store(x + k, v > 0.0f ? v : v * 0.01f);
    }
}

inline void squash(float* x, int64_t count) {
    for (int64_t k = 0; k < count; k += kLanes) store(x + k, hyperbolic_tangent(load(x + k)));
}

// y = norm(x) over d numbers; both have room for whole vectors. weight and bias are 0 behind the d-th.
inline void normalize(const float* x, int64_t d, int64_t room, const float* weight, const float* bias, float* y) {
    Vec sum{};
    int64_t k = 0;
    for (; k + kLanes <= d; k += kLanes) sum += load(x + k);
    float mean = total(sum);
    for (int64_t t = k; t < d; ++t) mean += x[t];
    mean /= static_cast<float>(d);
    Vec squares{};
    for (k = 0; k + kLanes <= d; k += kLanes) {
        const Vec centred = load(x + k) - mean;
        squares += centred * centred;
    }
    float variance = total(squares);
    for (int64_t t = k; t < d; ++t) variance += (x[t] - mean) * (x[t] - mean);
    const float scale = 1.0f / __builtin_sqrtf(variance / static_cast<float>(d) + 1e-5f);
    for (k = 0; k < room; k += kLanes) {
        store(y + k, (load(x + k) - mean) * scale * load(weight + k) + load(bias + k));
    }
}

// y = factor x + y
inline void accumulate(const float* x, float factor, int64_t count, float* y) {
    for (int64_t k = 0; k < count; k += kLanes) store(y + k, load(x + k) * factor + load(y + k));
}

RATE_INLINE void copy_floats(const float* from, int64_t count, float* to) {
    __builtin_memcpy(to, from, static_cast<size_t>(count) * 4);
}

}  // namespace
