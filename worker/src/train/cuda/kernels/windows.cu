// Windows over images: [images, height, width, channels].
#include "common.cuh"

// Every window as a row: [images, rows * columns, size * size * channels]. A thread moves `T`, which may be
// several channels; `channels` counts those. Images are the second dimension of the grid.
template <typename T>
__device__ void unroll_windows(const T *x, T *y, int height, int width, int channels, int rows, int columns,
                               int size, int stride, int padding, int images, T nothing) {
    int patch = size * size * channels, of_image = rows * columns * patch;
    int i = thread_index();
    if (i >= of_image) return;
    int window = i / patch, place = i % patch / channels, channel = i % channels;
    int row = window / columns * stride + place / size - padding;
    int column = window % columns * stride + place % size - padding;
    bool inside = row >= 0 && row < height && column >= 0 && column < width;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        const T *from = x + (size_t)image * height * width * channels;
        y[(size_t)image * of_image + i] = inside ? from[(row * width + column) * channels + channel] : nothing;
    }
}

KERNEL unroll(const float *x, float *y, int height, int width, int channels, int rows, int columns, int size,
              int stride, int padding, int images) {
    unroll_windows(x, y, height, width, channels, rows, columns, size, stride, padding, images, 0.0f);
}

KERNEL unroll4(const float4 *x, float4 *y, int height, int width, int channels, int rows, int columns, int size,
               int stride, int padding, int images) {
    float4 nothing = {0.0f, 0.0f, 0.0f, 0.0f};
    unroll_windows(x, y, height, width, channels, rows, columns, size, stride, padding, images, nothing);
}

__device__ __forceinline__ void add(float &sum, float number) { sum += number; }
__device__ __forceinline__ void add(float4 &sum, float4 number) {
    sum.x += number.x, sum.y += number.y, sum.z += number.z, sum.w += number.w;
}

// Takes each window that a pixel is in, and the pixel's place in it, always in the same order.
template <typename Take>
__device__ __forceinline__ void each_window(int row, int column, int rows, int columns, int size, int stride,
                                            int padding, Take take) {
    for (int inner_row = 0; inner_row < size; ++inner_row) {
        int first = row + padding - inner_row;
        if (first < 0 || first % stride != 0 || first / stride >= rows) continue;
        for (int inner_column = 0; inner_column < size; ++inner_column) {
            int left = column + padding - inner_column;
            if (left < 0 || left % stride != 0 || left / stride >= columns) continue;
            take(first / stride * columns + left / stride, inner_row * size + inner_column);
        }
    }
}

// The way back: every pixel is the sum of the places of windows that were taken from it.
template <typename T>
__device__ void fold_windows(const T *y, T *x, int height, int width, int channels, int rows, int columns,
                             int size, int stride, int padding, int images, T nothing) {
    int patch = size * size * channels, of_image = height * width * channels;
    int i = thread_index();
    if (i >= of_image) return;
    int channel = i % channels, row = i / channels / width, column = i / channels % width;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        const T *from = y + (size_t)image * rows * columns * patch + channel;
        T sum = nothing;
        each_window(row, column, rows, columns, size, stride, padding, [&](int window, int place) {
            add(sum, from[(size_t)window * patch + place * channels]);
        });
        x[(size_t)image * of_image + i] = sum;
    }
}

KERNEL fold(const float *y, float *x, int height, int width, int channels, int rows, int columns, int size,
            int stride, int padding, int images) {
    fold_windows(y, x, height, width, channels, rows, columns, size, stride, padding, images, 0.0f);
}

KERNEL fold4(const float4 *y, float4 *x, int height, int width, int channels, int rows, int columns, int size,
             int stride, int padding, int images) {
    float4 nothing = {0.0f, 0.0f, 0.0f, 0.0f};
    fold_windows(y, x, height, width, channels, rows, columns, size, stride, padding, images, nothing);
}

// The largest number of every window, and its place: the first of equal ones; NaN above all.
KERNEL max_pool(const float *x, float *y, unsigned char *winners, int height, int width, int channels, int rows,
                int columns, int size, int stride, int padding, int images) {
    int of_image = rows * columns * channels;
    int i = thread_index();
    if (i >= of_image) return;
    int channel = i % channels;
    int top = i / channels / columns * stride - padding, left = i / channels % columns * stride - padding;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        const float *from = x + (size_t)image * height * width * channels;
        float best = 0.0f;
        int winner = -1;
        for (int row = max(0, -top); row < size && top + row < height; ++row) {
            for (int column = max(0, -left); column < size && left + column < width; ++column) {
                float number = from[((top + row) * width + left + column) * channels + channel];
                if (winner < 0 || number > best || (isnan(number) && !isnan(best))) {
                    best = number;
                    winner = row * size + column;
                }
            }
        }
        y[(size_t)image * of_image + i] = best;
        winners[(size_t)image * of_image + i] = (unsigned char)winner;
    }
}

KERNEL max_pool_gradient(const float *dy, const unsigned char *winners, float *dx, int height, int width,
                         int channels, int rows, int columns, int size, int stride, int padding, int images) {
    int of_image = height * width * channels, of_result = rows * columns * channels;
    int i = thread_index();
    if (i >= of_image) return;
    int channel = i % channels, row = i / channels / width, column = i / channels % width;
    for (int image = blockIdx.y; image < images; image += gridDim.y) {
        size_t results = (size_t)image * of_result + channel;
        float sum = 0.0f;
        each_window(row, column, rows, columns, size, stride, padding, [&](int window, int place) {
            size_t at = results + (size_t)window * channels;
            if (winners[at] == place) sum += dy[at];
        });
        dx[(size_t)image * of_image + i] = sum;
    }
}
