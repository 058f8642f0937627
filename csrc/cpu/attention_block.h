// A block of query rows on its way to scores, shared by the forward and the backward pass.
//
// Rows are taken kRows at a time, each panel up to the last key that one of its rows sees. The position term of a
// panel is a band of the table's product: row i of it, moved by i, is the row of scores. So a band buffer with rows
// of n floats read with rows of n - 1 is a panel of scores, and the gradient of the scores read with rows of n + 1 is
// the gradient of the band: nothing is ever shifted in memory.

#pragma once

#include "cpu/attention_kernel.h"
#include "cpu/attention_tile.h"

namespace {

using rate::AttentionBackward;
using rate::AttentionForward;
using rate::AttentionProblem;
using rate::HeadRows;

constexpr int64_t kBlock = 48;  // rows of a block: a multiple of every kRows
constexpr int64_t kMargin = 64;  // floats left and right of a row of a block that other rows' bands reach
static_assert(kMargin >= kBlock + kRows && kBlock % kRows == 0, "the panels of a block, and their bands");

// Hands out pieces of the scratch memory; with a null start it only counts.
struct Scratch {
    float* start;
    int64_t used = 0;
    float* take(int64_t count) {
        float* piece = start ? start + used : nullptr;
        used += round_up(count, 16);
        return piece;
    }
};

struct Sizes {
    int64_t dim;         // head_dim in whole vectors: length of a packed row
    int64_t keys;        // row length of what has a column per key
    int64_t table;       // row length of the table
    int64_t table_rows;  // rows of the table packed by column

    explicit Sizes(const AttentionProblem& p)
        : dim(round_up(p.head_dim, kLanes)),
          keys(round_up(p.key_rows, kLanes) + 3 * kLanes),  // not a multiple of a page in any common case
          table(round_up(p.table_columns + kBlock + kLanes, kLanes) + 3 * kLanes),
          table_rows(p.table_columns + kBlock + kRows) {}
};

inline const float* row_of(const HeadRows<const float>& rows, int64_t batch, int64_t row, int64_t head) {
    return rows.data + batch * rows.batch_stride + row * rows.row_stride + head * rows.head_stride;
}

inline void pack(const HeadRows<const float>& from, int64_t batch, int64_t head, int64_t row, int64_t rows, int64_t dim,
                 float* out, int64_t out_row) {
    for (int64_t i = 0; i < rows; ++i) {
        copy_row(row_of(from, batch, row + i, head), dim, out + i * out_row);
        for (int64_t k = dim; k < out_row; ++k) out[i * out_row + k] = 0.0f;
    }
}

// out[i, :] = (row i of from + bias) * scale
inline void pack_query(const AttentionProblem& p, int64_t batch, int64_t head, int64_t row, int64_t rows,
                       const float* bias, float* out, int64_t out_row) {
    for (int64_t i = 0; i < rows; ++i) {
        const float* in = row_of(p.query, batch, row + i, head);
        if (bias) add_row(in, bias, p.scale, p.head_dim, out + i * out_row);
        else scale_row(in, p.scale, p.head_dim, out + i * out_row);
        for (int64_t k = p.head_dim; k < out_row; ++k) out[i * out_row + k] = 0.0f;
    }
}

// Everything a block of rows shares on its way to scores, forward and backward.
struct Block {
    const AttentionProblem& p;
    const Sizes size;
    float* keys_by_dim;   // [head_dim, size.keys]
    float* table;         // [head_dim, size.table], or null
    float* table_by_row;  // [size.table_rows, size.dim], or null
    float* content;       // (q + u) scale, [kBlock, size.dim]
    float* position;      // (q + v) scale, [kBlock + 1, size.dim]: one more row for the published shift
    float* band;          // [kRows, size.band]
    int64_t band_row;
    int64_t begin = 0, rows = 0, first = 0, last = 0;  // the block's rows; its keys are first .. last - 1

    Block(const AttentionProblem& problem, Scratch& scratch, bool by_row) : p(problem), size(problem) {
        const bool relative = p.table_columns > 0;
        keys_by_dim = scratch.take(p.head_dim * size.keys);
        table = relative ? scratch.take(p.head_dim * size.table) : nullptr;
        table_by_row = relative && (by_row || p.published_shift) ? scratch.take(size.table_rows * size.dim) : nullptr;
        content = scratch.take(kBlock * size.dim);
        position = relative ? scratch.take((kBlock + 1) * size.dim) : nullptr;
        band_row = round_up(p.key_rows, kLanes) + 3 * kLanes;
        band = relative ? scratch.take(kRows * band_row) : nullptr;
    }

    void set_head(int64_t head) const {
        if (!table) return;
        const float* in = p.table + head * p.head_dim * p.table_columns;
        for (int64_t k = 0; k < p.head_dim; ++k) {
            copy_row(in + k * p.table_columns, p.table_columns, table + k * size.table);
            clear(table + k * size.table + p.table_columns, size.table - p.table_columns);
        }
        if (!table_by_row) return;
        clear(table_by_row, size.table_rows * size.dim);
        transpose(in, p.table_columns, p.head_dim, p.table_columns, table_by_row, size.dim);
    }

    // The next block of rows from `row` on that see the same first key.
    void set_rows(int64_t batch, int64_t head, int64_t row) {
        begin = row;
        first = p.first[row];
        last = first;
        rows = 0;
        for (; rows < kBlock && row + rows < p.query_rows && p.first[row + rows] == first; ++rows) {
            last = larger(last, p.stop[row + rows]);
        }
        pack_query(p, batch, head, row, rows, table ? p.content_bias + head * p.head_dim : nullptr, content, size.dim);
        if (!table) return;
        const int64_t following = smaller(rows + 1, p.query_rows - row);
        pack_query(p, batch, head, row, following, p.position_bias + head * p.head_dim, position, size.dim);
    }

    int64_t place(int64_t r) const { return begin + r + p.key_rows - p.query_rows; }  // the row's own key
    int64_t seen(int64_t r) const { return larger(p.stop[begin + r] - first, 0); }
    int64_t panel_rows(int64_t r) const { return smaller(kRows, rows - r); }
    int64_t panel_keys(int64_t r) const {
        int64_t most = 0;
        for (int64_t i = r; i < r + panel_rows(r); ++i) most = larger(most, seen(i));
        return most;
    }
    // The table's column for the first key and the panel's last row: where the panel's band starts.
    int64_t band_start(int64_t r, int64_t count) const { return first + p.query_rows - (begin + r + count); }
    // The first key, counted from `first`, that is ahead of the row; seen(r) or more: none is.
    int64_t ahead(int64_t r) const { return larger(place(r) + 1 - first, 0); }
    // Where the published shift reads the table for a key that far ahead of a row, with the next row's query; -1: it
    // leaves 0 there.
    int64_t shifted_column(int64_t r, int64_t key) const { return key + first - place(r) - 2; }

    // scores[i, j] for the panel at row r; whole vectors of keys. What a row does not see is left as it comes out.
    void scores(int64_t r, int64_t keys, float* out, int64_t out_row) const {
        const int64_t count = panel_rows(r);
        const Factors a{content + r * size.dim, size.dim, 1};
        const float* keys_from = keys_by_dim + first;
        if (!table) return product(count, keys, p.head_dim, a, keys_from, size.keys, {out, out_row, nullptr, 0});
        const int64_t start = band_start(r, count), width = round_up(keys, kLanes) + count - 1;
        product(count, width, p.head_dim, {position + r * size.dim, size.dim, 1}, table + start, size.table,
                {band, band_row, nullptr, 0});
        float* shifted = band + count - 1;
        if (p.published_shift) shift_ahead(r, count, shifted);
        product(count, keys, p.head_dim, a, keys_from, size.keys, {out, out_row, shifted, band_row - 1});
    }

    void shift_ahead(int64_t r, int64_t count, float* shifted) const {
        for (int64_t i = 0; i < count; ++i) {
            for (int64_t key = ahead(r + i); key < seen(r + i); ++key) {
                const int64_t column = shifted_column(r + i, key);
                Vec sum{};
                for (int64_t k = 0; column >= 0 && k < size.dim; k += kLanes) {
                    sum += load(position + (r + i + 1) * size.dim + k) * load(table_by_row + column * size.dim + k);
                }
                shifted[i * (band_row - 1) + key] = total(sum);
            }
        }
    }

    // -infinity where row r of the block does not see the key, up to whole vectors of `keys`.
    void mask(int64_t batch, int64_t r, int64_t keys, float* row) const {
        const float never = -__builtin_inff();
        for (int64_t j = seen(r); j < round_up(keys, kLanes); ++j) row[j] = never;
        if (!p.hidden) return;
        const int64_t stop = smaller(p.hidden[2 * batch + 1] - first, seen(r));
        for (int64_t j = larger(p.hidden[2 * batch] - first, 0); j < stop; ++j) row[j] = never;
    }
};

// The keys' rows of a tensor, and the same by dimension, with zeros in the columns after the last key.
inline void pack_keys(const Block& block, const HeadRows<const float>& from, int64_t batch, int64_t head, float* rows,
                      float* by_dim) {
    const AttentionProblem& p = block.p;
    pack(from, batch, head, 0, p.key_rows, p.head_dim, rows, block.size.dim);
    transpose(rows, block.size.dim, p.key_rows, p.head_dim, by_dim, block.size.keys);
    for (int64_t k = 0; k < p.head_dim; ++k) {
        clear(by_dim + k * block.size.keys + p.key_rows, block.size.keys - p.key_rows);
    }
}

}  // namespace
