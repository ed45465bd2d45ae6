// Batch normalisation. x, y and their gradients: [lanes, rows, columns]; all else: [lanes, columns], or
// [lanes, runs, columns] where runs of rows are added up first.
#include "common.cuh"

#define EPSILON 1e-5f
#define MOMENTUM 0.1f

__device__ __forceinline__ float normal(float x, float mean, float variance) {
    return (x - mean) * (1.0f / sqrtf(variance + EPSILON));
}

// Sums of the distances from the first row, and of their squares: near the mean little is lost.
KERNEL moments(const float *x, float *sums, float *squares, int rows, int columns, int run) {
    int column = blockIdx.x * COLUMNS + threadIdx.x;
    const float *lane = x + (size_t)blockIdx.z * rows * columns;
    int last = min((int)(blockIdx.y + 1) * run, rows);
    float sum = 0.0f, square = 0.0f;
    if (column < columns) {
        float first = lane[column];
        for (int row = blockIdx.y * run + threadIdx.y; row < last; row += ROWS) {
            float distance = lane[(size_t)row * columns + column] - first;
            sum += distance;
            square += distance * distance;
        }
    }
    sum = over_rows(sum);
    square = over_rows(square);
    if (threadIdx.y == 0 && column < columns) {
        int at = (blockIdx.z * gridDim.y + blockIdx.y) * columns + column;
        sums[at] = sum;
        squares[at] = square;
    }
}

// Takes a batch's mean and biased variance down, and into the running ones, there unbiased. shift: of the mean
// from the first row.
__device__ __forceinline__ void keep(double first, double shift, double square, int rows, int at, float *mean,
                                     float *variance, float *running_mean, float *running_variance) {
    double spread = square - shift * shift;
    // Of numbers that are all alike rounding may leave less than nothing; NaN stays NaN.
    if (spread < 0.0) spread = 0.0;
    float of_mean = (float)(first + shift);
    mean[at] = of_mean;
    variance[at] = (float)spread;
    float unbiased = (float)(spread * rows / (rows - 1.0));
    running_mean[at] = running_mean[at] * (1.0f - MOMENTUM) + of_mean * MOMENTUM;
    running_variance[at] = running_variance[at] * (1.0f - MOMENTUM) + unbiased * MOMENTUM;
}

// Mean and variance from the runs.
KERNEL statistics(const float *x, const float *sums, const float *squares, float *mean, float *variance,
                  float *running_mean, float *running_variance, int rows, int columns, int runs, int count) {
    int i = thread_index();
    if (i >= count) return;
    int lane = i / columns, column = i % columns;
    double sum = 0.0, square = 0.0;
    for (int run = 0; run < runs; ++run) {
        sum += sums[(lane * runs + run) * columns + column];
        square += squares[(lane * runs + run) * columns + column];
    }
    double first = x[(size_t)lane * rows * columns + column];
    keep(first, sum / rows, square / rows, rows, i, mean, variance, running_mean, running_variance);
}

KERNEL normalize(const float *x, const float *mean, const float *variance, const float *weight, const float *bias,
                 float *y, int lane_size, int columns, int count, int relu) {
    int i = thread_index();
    if (i >= count) return;
    int at = i / lane_size * columns + i % columns;
    y[i] = activate(fmaf(normal(x[i], mean[at], variance[at]), weight[at], bias[at]), relu);
}

// Sums, over runs of rows, of the gradient before the activation, and of that times the normalised input.
KERNEL normalize_sums(const float *x, const float *dy, const float *mean, const float *variance,
                      const float *weight, const float *bias, float *sums, float *products, int rows, int columns,
                      int run, int relu) {
    int column = blockIdx.x * COLUMNS + threadIdx.x;
    size_t lane = (size_t)blockIdx.z * rows * columns;
    int last = min((int)(blockIdx.y + 1) * run, rows);
    float sum = 0.0f, product = 0.0f;
    if (column < columns) {
        int of_column = blockIdx.z * columns + column;
        for (int row = blockIdx.y * run + threadIdx.y; row < last; row += ROWS) {
            size_t at = lane + (size_t)row * columns + column;
            float x_normal = normal(x[at], mean[of_column], variance[of_column]);
            float gradient = before_activation(fmaf(x_normal, weight[of_column], bias[of_column]), dy[at], relu);
            sum += gradient;
            product += gradient * x_normal;
        }
    }
    sum = over_rows(sum);
    product = over_rows(product);
    if (threadIdx.y == 0 && column < columns) {
        int at = (blockIdx.z * gridDim.y + blockIdx.y) * columns + column;
        sums[at] = sum;
        products[at] = product;
    }
}

KERNEL normalize_gradient(const float *x, const float *dy, const float *mean, const float *variance,
                          const float *weight, const float *bias, const float *dweight, const float *dbias,
                          float *dx, int lane_size, int columns, int rows, int count, int relu) {
    int i = thread_index();
    if (i >= count) return;
    int at = i / lane_size * columns + i % columns;
    float x_normal = normal(x[i], mean[at], variance[at]);
    float gradient = before_activation(fmaf(x_normal, weight[at], bias[at]), dy[i], relu);
    float centred = gradient - (dbias[at] + x_normal * dweight[at]) / rows;
    dx[i] = weight[at] * (1.0f / sqrtf(variance[at] + EPSILON)) * centred;
}

// All of the forward pass, where rows are so few that a block had better go through them twice.
KERNEL normalize_at_once(const float *x, const float *weight, const float *bias, float *mean, float *variance,
                         float *running_mean, float *running_variance, float *y, int rows, int columns, int relu) {
    int column = blockIdx.x * COLUMNS + threadIdx.x;
    size_t lane = (size_t)blockIdx.z * rows * columns;
    int at = blockIdx.z * columns + column;
    float first = 0.0f, sum = 0.0f, square = 0.0f;
    if (column < columns) {
        first = x[lane + column];
        for (int row = threadIdx.y; row < rows; row += ROWS) {
            float distance = x[lane + (size_t)row * columns + column] - first;
            sum += distance;
            square += distance * distance;
        }
    }
    sum = over_rows(sum);
    square = over_rows(square);
    if (threadIdx.y == 0 && column < columns) {
        keep(first, (double)sum / rows, (double)square / rows, rows, at, mean, variance, running_mean, running_variance);
    }
    __syncthreads();
    if (column >= columns) return;
    float of_mean = mean[at], of_variance = variance[at], factor = weight[at], offset = bias[at];
    for (int row = threadIdx.y; row < rows; row += ROWS) {
        size_t i = lane + (size_t)row * columns + column;
        y[i] = activate(fmaf(normal(x[i], of_mean, of_variance), factor, offset), relu);
    }
}

// All of the backward pass, likewise.
KERNEL normalize_gradient_at_once(const float *x, const float *dy, const float *mean, const float *variance,
                                  const float *weight, const float *bias, float *dweight, float *dbias, float *dx,
                                  int rows, int columns, int relu) {
    int column = blockIdx.x * COLUMNS + threadIdx.x;
    size_t lane = (size_t)blockIdx.z * rows * columns;
    int at = blockIdx.z * columns + column;
    float of_mean = 0.0f, of_variance = 0.0f, factor = 0.0f, offset = 0.0f, sum = 0.0f, product = 0.0f;
    if (column < columns) {
        of_mean = mean[at], of_variance = variance[at], factor = weight[at], offset = bias[at];
        for (int row = threadIdx.y; row < rows; row += ROWS) {
            size_t i = lane + (size_t)row * columns + column;
            float x_normal = normal(x[i], of_mean, of_variance);
            float gradient = before_activation(fmaf(x_normal, factor, offset), dy[i], relu);
            sum += gradient;
            product += gradient * x_normal;
        }
    }
    sum = over_rows(sum);
    product = over_rows(product);
    if (column >= columns) return;
    if (threadIdx.y == 0) {
        dbias[at] = sum;
        dweight[at] = product;
    }
    float scale = factor * (1.0f / sqrtf(of_variance + EPSILON));
    for (int row = threadIdx.y; row < rows; row += ROWS) {
        size_t i = lane + (size_t)row * columns + column;
        float x_normal = normal(x[i], of_mean, of_variance);
        float gradient = before_activation(fmaf(x_normal, factor, offset), dy[i], relu);
        dx[i] = scale * (gradient - (sum + x_normal * product) / rows);
    }
}
