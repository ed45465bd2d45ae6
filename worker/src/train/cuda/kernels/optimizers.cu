// One step of each optimizer, in place, of all parameters and lanes at once.
#include "common.cuh"

// A parameter: its numbers, their gradients and its moments, each [lanes, size]; the first of the blocks that
// work on it, and the first of the numbers that its rule has.
struct Parameter {
    float *p;
    const float *g;
    float *moments[3];
    long long size, first_block, first_number;
};

// A rule is what each lane's update is made of, in the order of its fields. Lanes are the second dimension of
// the grid.
#define OPTIMIZER(name, numbers)                                                                        \
    KERNEL name(const Parameter *parameters, const float *rules, int count) {                            \
        int which = 0;                                                                                   \
        while (which + 1 < count && parameters[which + 1].first_block <= blockIdx.x) ++which;            \
        const Parameter it = parameters[which];                                                          \
        size_t in_lane = (size_t)(blockIdx.x - it.first_block) * blockDim.x + threadIdx.x;               \
        if (in_lane >= it.size) return;                                                                  \
        const float *rule = rules + it.first_number + blockIdx.y * (numbers);                            \
        size_t i = (size_t)blockIdx.y * it.size + in_lane;                                               \
        name##_step(it.p, it.g, it.moments[0], it.moments[1], it.moments[2], rule, i);                   \
    }

__device__ __forceinline__ void sgd_step(float *p, const float *g, float *buffer, float *, float *, const float *rule, size_t i) {
    float place = p[i];
    float learning_rate = rule[0], weight_decay = rule[1], momentum = rule[2];
    bool nesterov = rule[3] != 0.0f;
    float direction = g[i] + weight_decay * place;
    if (momentum != 0.0f) {
        float moved = buffer[i] = momentum * buffer[i] + direction;
        direction = nesterov ? direction + momentum * moved : moved;
    }
    p[i] = place - learning_rate * direction;
}
OPTIMIZER(sgd, 4)

__device__ __forceinline__ void rmsprop_step(float *p, const float *g, float *square, float *buffer, float *mean, const float *rule, size_t i) {
    float place = p[i];
    float learning_rate = rule[0], weight_decay = rule[1], momentum = rule[2], alpha = rule[3], rest = rule[4],
          epsilon = rule[5];
    bool centered = rule[6] != 0.0f;
    float gradient = g[i] + weight_decay * place;
    float squares = square[i] = alpha * square[i] + rest * gradient * gradient;
    float variance = squares;
    if (centered) {
        float of_mean = mean[i] += (gradient - mean[i]) * rest;
        variance -= of_mean * of_mean;
        // Of gradients that hardly vary, rounding can make the variance negative.
        if (variance < 0.0f) variance = 0.0f;
    }
    float direction = gradient / (sqrtf(variance) + epsilon);
    if (momentum != 0.0f || centered) direction = buffer[i] = momentum * buffer[i] + direction;
    p[i] = place - learning_rate * direction;
}
OPTIMIZER(rmsprop, 7)

__device__ __forceinline__ void adagrad_step(float *p, const float *g, float *sum, float *, float *, const float *rule, size_t i) {
    float place = p[i];
    float learning_rate = rule[0], weight_decay = rule[1], epsilon = rule[2];
    float gradient = g[i] + weight_decay * place;
    float squares = sum[i] += gradient * gradient;
    p[i] = place - learning_rate * gradient / (sqrtf(squares) + epsilon);
}
OPTIMIZER(adagrad, 3)

__device__ __forceinline__ void adadelta_step(float *p, const float *g, float *square, float *changes, float *, const float *rule, size_t i) {
    float place = p[i];
    float learning_rate = rule[0], weight_decay = rule[1], rho = rule[2], rest = rule[3], epsilon = rule[4];
    float gradient = g[i] + weight_decay * place;
    float squares = square[i] = rho * square[i] + rest * gradient * gradient;
    float change = sqrtf(changes[i] + epsilon) / sqrtf(squares + epsilon) * gradient;
    changes[i] = rho * changes[i] + rest * change * change;
    p[i] = place - learning_rate * change;
}
OPTIMIZER(adadelta, 5)

__device__ __forceinline__ void adam_step(float *p, const float *g, float *first, float *second, float *, const float *rule, size_t i) {
    float place = p[i];
    float shrink = rule[0], weight_decay = rule[1], one_minus_beta1 = rule[2], beta2 = rule[3],
          one_minus_beta2 = rule[4], correction = rule[5], step_size = rule[6], epsilon = rule[7];
    float gradient = g[i] + weight_decay * place;
    float mean = first[i] += (gradient - first[i]) * one_minus_beta1;
    float squares = second[i] = beta2 * second[i] + one_minus_beta2 * gradient * gradient;
    p[i] = place * shrink - step_size * mean / (sqrtf(squares) * correction + epsilon);
}
OPTIMIZER(adam, 8)

__device__ __forceinline__ void nadam_step(float *p, const float *g, float *first, float *second, float *, const float *rule, size_t i) {
    float place = p[i];
    float weight_decay = rule[0], one_minus_beta1 = rule[1], beta2 = rule[2], one_minus_beta2 = rule[3],
          correction = rule[4], gradient_step = rule[5], momentum_step = rule[6], epsilon = rule[7];
    float gradient = g[i] + weight_decay * place;
    float mean = first[i] += (gradient - first[i]) * one_minus_beta1;
    float squares = second[i] = beta2 * second[i] + one_minus_beta2 * gradient * gradient;
    p[i] = place - (gradient_step * gradient + momentum_step * mean) / (sqrtf(squares) * correction + epsilon);
}
OPTIMIZER(nadam, 8)

__device__ __forceinline__ void lion_step(float *p, const float *g, float *mean, float *, float *, const float *rule, size_t i) {
    float place = p[i];
    float learning_rate = rule[0], shrink = rule[1], beta1 = rule[2], one_minus_beta1 = rule[3], beta2 = rule[4],
          one_minus_beta2 = rule[5];
    float direction = beta1 * mean[i] + one_minus_beta1 * g[i];
    mean[i] = beta2 * mean[i] + one_minus_beta2 * g[i];
    // NaN stays NaN: a diverged run must show as one.
    if (!isnan(direction)) direction = direction > 0.0f ? 1.0f : direction < 0.0f ? -1.0f : 0.0f;
    p[i] = place * shrink - learning_rate * direction;
}
OPTIMIZER(lion, 6)
