// What all kernels share. Arguments come in one order: tensors, then sizes, then numbers.
//
// No kernel adds with atomics: whatever runs when, every sum is added up in one order, so that a
// result has the same bits every time.
#pragma once

#define KERNEL extern "C" __global__ void

// Columns of a block that adds up columns, and rows that it goes through at once.
#define COLUMNS 32
#define ROWS 16

__device__ __forceinline__ int thread_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Written so that NaN stays NaN: a diverged run must show as one.
__device__ __forceinline__ float activate(float x, int relu) { return relu && x < 0.0f ? 0.0f : x; }

// The gradient before the activation, from its result and the gradient of that.
__device__ __forceinline__ float before_activation(float y, float dy, int relu) {
    return relu && y <= 0.0f ? 0.0f : dy;
}

// Adds the sums that the rows of threads of a block have of their columns; those of the first row
// then hold the whole.
__device__ __forceinline__ float over_rows(float sum) {
    __shared__ float sums[ROWS][COLUMNS];
    __syncthreads();
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    float total = 0.0f;
    for (int row = 0; row < ROWS; ++row) total += sums[row][threadIdx.x];
    return total;
}

// Adds the sums that the threads of a block of 256 have.
__device__ __forceinline__ double over_block(double sum) {
    __shared__ double sums[256];
    __syncthreads();
    sums[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}
