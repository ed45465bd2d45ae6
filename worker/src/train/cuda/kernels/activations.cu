// Bias, ReLU, dropout, the loss, and images as a model takes them.
#include "common.cuh"

// y = activation(y + bias), in place. y: [lanes, rows, columns], bias: [lanes, columns].
KERNEL add_bias(float *y, const float *bias, int lane_size, int columns, int count, int relu) {
    int i = thread_index();
    if (i >= count) return;
    y[i] = activate(y[i] + bias[i / lane_size * columns + i % columns], relu);
}

KERNEL relu(const float *x, float *y, int count) {
    int i = thread_index();
    if (i < count) y[i] = activate(x[i], 1);
}

KERNEL relu_gradient(const float *y, const float *dy, float *dx, int count) {
    int i = thread_index();
    if (i < count) dx[i] = before_activation(y[i], dy[i], 1);
}

// The gradient before the activation, and its sums over runs of rows.
// y, dy, dz: [lanes, rows, columns], sums: [lanes, runs, columns]. Without ReLU dz is left as it is.
KERNEL bias_gradient(const float *y, const float *dy, float *dz, float *sums, int rows, int columns, int run,
                     int relu) {
    int column = blockIdx.x * COLUMNS + threadIdx.x;
    size_t lane = (size_t)blockIdx.z * rows * columns;
    int last = min((int)(blockIdx.y + 1) * run, rows);
    float sum = 0.0f;
    if (column < columns) {
        for (int row = blockIdx.y * run + threadIdx.y; row < last; row += ROWS) {
            size_t at = lane + (size_t)row * columns + column;
            float gradient = dy[at];
            if (relu) {
                gradient = before_activation(y[at], gradient, 1);
                dz[at] = gradient;
            }
            sum += gradient;
        }
    }
    sum = over_rows(sum);
    if (threadIdx.y == 0 && column < columns) sums[(blockIdx.z * gridDim.y + blockIdx.y) * columns + column] = sum;
}

// runs: [lanes, runs, columns], sums: [lanes, columns].
KERNEL add_runs(const float *runs, float *sums, int count_of_runs, int columns, int count) {
    int i = thread_index();
    if (i >= count) return;
    double sum = 0.0;
    for (int run = 0; run < count_of_runs; ++run) sum += runs[(i / columns * count_of_runs + run) * columns + i % columns];
    sums[i] = (float)sum;
}

__device__ __forceinline__ void quarter_round(unsigned &a, unsigned &b, unsigned &c, unsigned &d) {
    a += b, d ^= a, d = __funnelshift_l(d, d, 16);
    c += d, b ^= c, b = __funnelshift_l(b, b, 12);
    a += b, d ^= a, d = __funnelshift_l(d, d, 8);
    c += d, b ^= c, b = __funnelshift_l(b, b, 7);
}

// Drops units, each lane by its own ChaCha8 stream, of which each unit takes 16 bits after the first 32.
// A thread makes one block of the stream. lanes: for each lane the key (8 words), the number below
// which a draw drops, and the bits of the factor of what is kept.
KERNEL dropout(const float *x, const unsigned *lanes, float *y, int lane_size) {
    const unsigned *lane = lanes + blockIdx.y * 10;
    int first = thread_index() * 32 - 2;
    if (first >= lane_size) return;
    unsigned start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    for (int i = 0; i < 8; ++i) start[4 + i] = lane[i];
    start[12] = thread_index();
    start[13] = start[14] = start[15] = 0;
    unsigned s[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) s[i] = start[i];
#pragma unroll
    for (int round = 0; round < 4; ++round) {
        quarter_round(s[0], s[4], s[8], s[12]);
        quarter_round(s[1], s[5], s[9], s[13]);
        quarter_round(s[2], s[6], s[10], s[14]);
        quarter_round(s[3], s[7], s[11], s[15]);
        quarter_round(s[0], s[5], s[10], s[15]);
        quarter_round(s[1], s[6], s[11], s[12]);
        quarter_round(s[2], s[7], s[8], s[13]);
        quarter_round(s[3], s[4], s[9], s[14]);
    }
    unsigned threshold = lane[8];
    float kept = __uint_as_float(lane[9]);
    size_t of_lane = (size_t)blockIdx.y * lane_size;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        int unit = first + i;
        unsigned draw = (s[i / 2] + start[i / 2]) >> (i % 2 * 16) & 0xffff;
        if (unit >= 0 && unit < lane_size) y[of_lane + unit] = x[of_lane + unit] * (draw < threshold ? 0.0f : kept);
    }
}

__device__ __forceinline__ float log_sum(const float *logits, int classes) {
    float largest = logits[0];
    for (int i = 1; i < classes; ++i) largest = logits[i] > largest ? logits[i] : largest;
    float sum = 0.0f;
    for (int i = 0; i < classes; ++i) sum += expf(logits[i] - largest);
    return largest + logf(sum);
}

// The mean cross-entropy of each lane, a block of 256 for each. logits: [lanes, batch, classes]; share: what
// the other label counts.
KERNEL cross_entropy(const float *logits, const unsigned char *labels, const unsigned char *others,
                     const float *smoothing, float *losses, int batch, int classes, float share) {
    double sum = 0.0;
    float smooth = smoothing[blockIdx.x];
    for (int image = threadIdx.x; image < batch; image += 256) {
        const float *row = logits + ((size_t)blockIdx.x * batch + image) * classes;
        float whole = log_sum(row, classes);
        float loss = (1.0f - share) * (whole - row[labels[image]]);
        if (share > 0.0f) loss += share * (whole - row[others[image]]);
        loss *= 1.0f - smooth;
        if (smooth > 0.0f) {
            float all = 0.0f;
            for (int i = 0; i < classes; ++i) all += whole - row[i];
            loss += smooth * all / classes;
        }
        sum += loss;
    }
    sum = over_block(sum);
    if (threadIdx.x == 0) losses[blockIdx.x] = (float)(sum / batch);
}

// Of the logits, a thread for each row, from the gradients of the losses of all lanes.
KERNEL cross_entropy_gradient(const float *logits, const unsigned char *labels, const unsigned char *others,
                              const float *smoothing, const float *dlosses, float *dlogits, int batch, int classes,
                              int rows, float share) {
    int i = thread_index();
    if (i >= rows) return;
    int lane = i / batch, image = i % batch;
    const float *row = logits + (size_t)i * classes;
    float whole = log_sum(row, classes), smooth = smoothing[lane], scale = dlosses[lane] / batch;
    for (int k = 0; k < classes; ++k) {
        float target = smooth / classes;
        if (k == labels[image]) target += (1.0f - smooth) * (1.0f - share);
        if (share > 0.0f && k == others[image]) target += (1.0f - smooth) * share;
        dlogits[(size_t)i * classes + k] = (expf(row[k] - whole) - target) * scale;
    }
}

// Adds a batch's losses and right predictions to the sums of each lane, a block of 256 for each.
KERNEL tally(const float *losses, const float *logits, const unsigned char *labels, double *loss_sums,
             double *right, int batch, int classes) {
    int found = 0;
    for (int image = threadIdx.x; image < batch; image += 256) {
        const float *row = logits + ((size_t)blockIdx.x * batch + image) * classes;
        int best = 0;
        for (int i = 1; i < classes; ++i) best = row[i] > row[best] ? i : best;
        found += best == labels[image];
    }
    double all = over_block(found);
    if (threadIdx.x == 0) {
        loss_sums[blockIdx.x] += (double)losses[blockIdx.x] * batch;
        right[blockIdx.x] += all;
    }
}

// Images of grey values by their indices, standardised.
KERNEL gather_images(const unsigned char *grey, const unsigned *indices, float *images, int pixels, int count,
                     float factor, float offset) {
    int i = thread_index();
    if (i < count) images[i] = grey[(size_t)indices[i / pixels] * pixels + i % pixels] * factor + offset;
}
