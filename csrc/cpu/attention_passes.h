// The two passes over one head of a few batch entries, forward and backward.

#pragma once

#include "cpu/attention_block.h"

namespace {

struct ForwardMemory {
    Block block;
    float *values, *scores, *sums;
    int64_t score_row;

    ForwardMemory(const AttentionProblem& p, Scratch& scratch) : block(p, scratch, false) {
        values = scratch.take(p.key_rows * block.size.dim);
        score_row = block.size.keys;
        scores = scratch.take(kRows * score_row);
        sums = scratch.take(kRows * block.size.dim);
    }
};

int64_t forward_scratch(const AttentionProblem& p) {
    Scratch scratch{nullptr};
    ForwardMemory(p, scratch);
    return scratch.used;
}

// A row of scores becomes exp(score - largest). What makes weights of it: the largest, and one over the sum.
RATE_INLINE void normalise(float* row, int64_t keys, float* statistics) {
    Vec most = Vec{} - __builtin_inff();
    for (int64_t j = 0; j < keys; j += kLanes) {
        const Vec x = load(row + j);
        most = x > most ? x : most;
    }
    const float largest = maximum(most);
    if (!(largest > -__builtin_inff())) {  // it sees nothing
        clear(row, round_up(keys, kLanes));
        statistics[0] = statistics[1] = 0.0f;
        return;
    }
    Vec sum{};
    for (int64_t j = 0; j < keys; j += kLanes) {
        const Vec e = exponential(load(row + j) - largest);
        store(row + j, e);
        sum += e;
    }
    statistics[0] = largest;
    statistics[1] = 1.0f / total(sum);
}

void forward(const AttentionProblem& p, const AttentionForward& result, int64_t head, int64_t from, int64_t to,
             float* memory) {
    Scratch scratch{memory};
    ForwardMemory m(p, scratch);
    Block& block = m.block;
    const int64_t dim = block.size.dim;
    block.set_head(head);
    for (int64_t batch = from; batch < to; ++batch) {
        pack_keys(block, p.key, batch, head, m.values, block.keys_by_dim);  // rows that the next line overwrites
        pack(p.value, batch, head, 0, p.key_rows, p.head_dim, m.values, dim);
        float* statistics = result.statistics + (batch * p.heads + head) * p.query_rows * 2;
        for (int64_t row = 0; row < p.query_rows; row += block.rows) {
            block.set_rows(batch, head, row);
            for (int64_t r = 0; r < block.rows; r += kRows) {
                const int64_t count = block.panel_rows(r), keys = block.panel_keys(r);
                block.scores(r, keys, m.scores, m.score_row);
                for (int64_t i = 0; i < count; ++i) {
                    float* scores = m.scores + i * m.score_row;
                    block.mask(batch, r + i, keys, scores);
                    normalise(scores, keys, statistics + (row + r + i) * 2);
                }
                product(count, p.head_dim, keys, {m.scores, m.score_row, 1}, m.values + block.first * dim, dim,
                        {m.sums, dim, nullptr, 0});
                for (int64_t i = 0; i < count; ++i) {
                    float* out = result.out + ((batch * p.query_rows + row + r + i) * p.heads + head) * p.head_dim;
                    const float inverse = statistics[(row + r + i) * 2 + 1];
                    scale_row(m.sums + i * dim, inverse, p.head_dim, out);
                }
            }
        }
    }
}

// --- Backward --------------------------------------------------------------------------------------------------------

struct BackwardMemory {
    Block block;
    float *keys, *values_by_dim, *gradient;         // [key_rows, dim], [head_dim, size.keys], [kBlock, dim]
    float *weights, *d_scores;                      // [kBlock, row], each row between its margins
    float *d_content, *d_position, *d_ahead;        // [kBlock, dim], and one more row of the last
    float *d_key, *d_value;                         // [key_rows, dim]
    float *d_table, *d_content_bias, *d_position_bias;  // [table_rows, dim], [dim]
    int64_t row;

    BackwardMemory(const AttentionProblem& p, Scratch& scratch) : block(p, scratch, true) {
        const int64_t dim = block.size.dim;
        row = round_up(p.key_rows, kLanes) + 2 * kMargin + 16;
        keys = scratch.take(p.key_rows * dim);
        values_by_dim = scratch.take(p.head_dim * block.size.keys);
        gradient = scratch.take(kBlock * dim);
        weights = scratch.take(kBlock * row + kMargin);
        d_scores = scratch.take(kBlock * row + kMargin);
        d_content = scratch.take(kBlock * dim);
        d_position = scratch.take(kBlock * dim);
        d_ahead = scratch.take((kBlock + 1) * dim);
        d_key = scratch.take(p.key_rows * dim);
        d_value = scratch.take(p.key_rows * dim);
        d_table = scratch.take(block.size.table_rows * dim);
        d_content_bias = scratch.take(dim);
        d_position_bias = scratch.take(dim);
        if (!scratch.start) return;
        clear(d_scores, kBlock * row + kMargin);  // the margins stay zero
        weights += kMargin;                       // column 0 of row 0
        d_scores += kMargin;
    }
};

int64_t backward_scratch(const AttentionProblem& p) {
    Scratch scratch{nullptr};
    BackwardMemory(p, scratch);
    return scratch.used;
}

// The weights of the panel at row r, the gradient of its scores, and of its queries where they meet keys.
void backward_panel(BackwardMemory& m, int64_t batch, int64_t r, const float* statistics) {
    const Block& block = m.block;
    const AttentionProblem& p = block.p;
    const int64_t dim = block.size.dim, count = block.panel_rows(r), keys = block.panel_keys(r);
    float *weights = m.weights + r * m.row, *d_scores = m.d_scores + r * m.row;
    block.scores(r, keys, weights, m.row);
    product(count, keys, p.head_dim, {m.gradient + r * dim, dim, 1}, m.values_by_dim + block.first, block.size.keys,
            {d_scores, m.row, nullptr, 0});
    for (int64_t i = 0; i < count; ++i) {
        float *w = weights + i * m.row, *d = d_scores + i * m.row;
        block.mask(batch, r + i, keys, w);
        const float largest = statistics[(r + i) * 2], inverse = statistics[(r + i) * 2 + 1];
        // The mean of d is taken of the very numbers it is subtracted from: where one key has all the weight, the
        // difference is then 0 as it should be.
        Vec sum{};
        int64_t j = 0;
        for (; j < keys; j += kLanes) {
            const Vec weight = exponential(load(w + j) - largest) * inverse;
            store(w + j, weight);
            sum += weight * load(d + j);
        }
        const float mean = total(sum);
        for (j = 0; j < keys; j += kLanes) store(d + j, load(w + j) * (load(d + j) - mean));
        // Panels of keys read as far as the block's last key, and bands as far as a block's rows beyond it.
        const int64_t end = round_up(block.last - block.first, kLanes);
        clear(w + j, end - j);
        clear(d + j, end + kMargin - j);
    }
    product(count, dim, keys, {d_scores, m.row, 1}, m.keys + block.first * dim, dim,
            {m.d_content + r * dim, dim, nullptr, 0});
}

// Moves the gradient of what the published shift put ahead of the rows from the band to where it was read.
void unshift_ahead(BackwardMemory& m) {
    const Block& block = m.block;
    const int64_t dim = block.size.dim;
    for (int64_t r = 0; r < block.rows; ++r) {
        for (int64_t key = block.ahead(r); key < block.seen(r); ++key) {
            const float g = m.d_scores[r * m.row + key];
            m.d_scores[r * m.row + key] = 0.0f;
            const int64_t column = block.shifted_column(r, key);
            if (column < 0) continue;
            float *d_query = m.d_ahead + (r + 1) * dim, *d_table = m.d_table + column * dim;
            const float *query = block.position + (r + 1) * dim, *table = block.table_by_row + column * dim;
            for (int64_t k = 0; k < dim; k += kLanes) {
                store(d_query + k, load(d_query + k) + load(table + k) * g);
                store(d_table + k, load(d_table + k) + load(query + k) * g);
            }
        }
    }
}

// d_key and d_value of the block's keys: kRows keys at a time, over the rows that see one of them.
void backward_keys(BackwardMemory& m) {
    const Block& block = m.block;
    const int64_t dim = block.size.dim, width = block.last - block.first;
    for (int64_t key = 0; key < width; key += kRows) {
        const int64_t count = smaller(kRows, width - key);
        int64_t begin = 0, end = block.rows;
        while (begin < end && block.seen(begin) <= key) ++begin;
        while (end > begin && block.seen(end - 1) <= key) --end;
        if (begin == end) continue;
        float *d_value = m.d_value + (block.first + key) * dim, *d_key = m.d_key + (block.first + key) * dim;
        product(count, dim, end - begin, {m.weights + begin * m.row + key, 1, m.row}, m.gradient + begin * dim, dim,
                {d_value, dim, d_value, dim});
        product(count, dim, end - begin, {m.d_scores + begin * m.row + key, 1, m.row}, block.content + begin * dim, dim,
                {d_key, dim, d_key, dim});
    }
}

// The gradients of the queries where they meet the table, and of the table.
void backward_band(BackwardMemory& m) {
    const Block& block = m.block;
    const int64_t dim = block.size.dim, rows = block.rows, width = block.last - block.first;
    if (block.p.published_shift) unshift_ahead(m);
    for (int64_t r = 0; r < rows; r += kRows) {
        const int64_t count = block.panel_rows(r), keys = block.panel_keys(r);
        product(count, dim, keys ? keys + count - 1 : 0, {m.d_scores + r * m.row - (count - 1), m.row + 1, 1},
                block.table_by_row + block.band_start(r, count) * dim, dim, {m.d_position + r * dim, dim, nullptr, 0});
    }
    float* d_table = m.d_table + block.band_start(0, rows) * dim;
    for (int64_t column = 0; column < width + rows - 1; column += kRows) {
        const int64_t count = smaller(kRows, width + rows - 1 - column);
        // In the band's column x, row r of the block has its key x - (rows - 1) + r.
        int64_t begin = larger(0, rows - column - count), end = rows;
        while (end > begin && column - (rows - 1) + end - 1 >= block.seen(end - 1)) --end;
        if (begin == end) continue;
        float* out = d_table + column * dim;
        product(count, dim, end - begin, {m.d_scores - (rows - 1) + column + begin * (m.row + 1), 1, m.row + 1},
                block.position + begin * dim, dim, {out, dim, out, dim});
    }
}

void unpack(const float* from, int64_t from_row, int64_t rows, int64_t dim, float* out, int64_t out_row) {
    for (int64_t i = 0; i < rows; ++i) copy_row(from + i * from_row, dim, out + i * out_row);
}

void add_rows(const float* from, int64_t rows, int64_t dim, float* sum) {
    for (int64_t i = 0; i < rows; ++i) {
        for (int64_t k = 0; k < dim; k += kLanes) store(sum + k, load(sum + k) + load(from + i * dim + k));
    }
}

// The block's rows of d_query, and their share of the biases' gradients.
void finish_rows(BackwardMemory& m, int64_t batch, int64_t head, float* d_query) {
    const Block& block = m.block;
    const AttentionProblem& p = block.p;
    const int64_t dim = block.size.dim;
    if (block.table) {
        if (p.published_shift) add_rows(m.d_ahead, 1, block.rows * dim, m.d_position);
        add_rows(m.d_content, block.rows, dim, m.d_content_bias);
        add_rows(m.d_position, block.rows, dim, m.d_position_bias);
        add_rows(m.d_position, 1, block.rows * dim, m.d_content);
    }
    float* out = d_query + ((batch * p.query_rows + block.begin) * p.heads + head) * p.head_dim;
    for (int64_t i = 0; i < block.rows; ++i, out += p.heads * p.head_dim) {
        scale_row(m.d_content + i * dim, p.scale, p.head_dim, out);
    }
}

void backward(const AttentionProblem& p, const AttentionBackward& result, int64_t head, int64_t from, int64_t to,
              float* partial, float* memory) {
    Scratch scratch{memory};
    BackwardMemory m(p, scratch);
    Block& block = m.block;
    const int64_t dim = block.size.dim, model = p.heads * p.head_dim;
    block.set_head(head);
    if (block.table) clear(m.d_table, block.size.table_rows * dim);
    clear(m.d_content_bias, dim);
    clear(m.d_position_bias, dim);
    for (int64_t batch = from; batch < to; ++batch) {
        pack_keys(block, p.value, batch, head, m.keys, m.values_by_dim);  // rows that the next line overwrites
        pack_keys(block, p.key, batch, head, m.keys, block.keys_by_dim);
        clear(m.d_key, p.key_rows * dim);
        clear(m.d_value, p.key_rows * dim);
        clear(m.d_ahead, (kBlock + 1) * dim);
        for (int64_t row = 0; row < p.query_rows; row += block.rows) {
            block.set_rows(batch, head, row);
            pack(result.gradient, batch, head, row, block.rows, p.head_dim, m.gradient, dim);
            const float* statistics = result.statistics + ((batch * p.heads + head) * p.query_rows + row) * 2;
            for (int64_t r = 0; r < block.rows; r += kRows) backward_panel(m, batch, r, statistics);
            backward_keys(m);
            if (block.table) backward_band(m);
            finish_rows(m, batch, head, result.d_query);
            unpack(m.d_ahead + block.rows * dim, dim, 1, dim, m.d_ahead, dim);  // the next block's first row
            clear(m.d_ahead + dim, kBlock * dim);
        }
        const int64_t at = (batch * p.key_rows * p.heads + head) * p.head_dim;
        unpack(m.d_key, dim, p.key_rows, p.head_dim, result.d_key + at, model);
        unpack(m.d_value, dim, p.key_rows, p.head_dim, result.d_value + at, model);
    }
    if (!block.table) return;
    unpack(m.d_table, dim, p.table_columns, p.head_dim, partial, p.head_dim);
    for (int64_t k = 0; k < dim; ++k) {
        m.d_content_bias[k] *= p.scale;  // the scaled queries have already brought the table's gradient its factor
        m.d_position_bias[k] *= p.scale;
    }
    unpack(m.d_content_bias, dim, 1, p.head_dim, partial + p.table_columns * p.head_dim, p.head_dim);
    unpack(m.d_position_bias, dim, 1, p.head_dim, partial + (p.table_columns + 1) * p.head_dim, p.head_dim);
}

}  // namespace
