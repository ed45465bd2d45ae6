// CUDA C++ as kernels see it, for a compiler that makes code for the CPU. The threads of a block run one after
// another, each until it waits for others (driver.cc).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#include <vector_types.h>
#include <vector_functions.h>

#undef __shared__
#undef __launch_bounds__
// One block runs at a time, so that its memory may be anybody's. It begins with what the last one left.
#define __shared__ static
#define __launch_bounds__(...)

extern "C" {
extern uint3 threadIdx, blockIdx, blockDim, gridDim;
void emulated_barrier();
uint64_t emulated_exchange(unsigned mask, uint64_t value, unsigned other);
}

inline void __syncthreads() { emulated_barrier(); }

template <typename T> T __shfl_xor_sync(unsigned mask, T value, int distance, int = 32) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    bits = emulated_exchange(mask, bits, thread ^ distance);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

template <typename T> T exchanged(T *at, T value) {
    T old = *at;
    *at = value;
    return old;
}
template <typename T, typename V> T atomicAdd(T *at, V value) { return exchanged(at, T(*at + T(value))); }
template <typename T, typename V> T atomicMin(T *at, V value) { return exchanged(at, std::min(*at, T(value))); }
template <typename T, typename V> T atomicMax(T *at, V value) { return exchanged(at, std::max(*at, T(value))); }
template <typename T, typename V, typename W> T atomicCAS(T *at, V expected, W value) {
    return exchanged(at, *at == T(expected) ? T(value) : *at);
}

template <typename To, typename From> To as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}
inline float __uint_as_float(unsigned bits) { return as<float>(bits); }
inline float __int_as_float(int bits) { return as<float>(bits); }
inline unsigned __float_as_uint(float number) { return as<unsigned>(number); }
inline int __float_as_int(float number) { return as<int>(number); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((uint64_t)high << 32 | low) << (by & 31) >> 32);
}
inline double __longlong_as_double(long long bits) { return as<double>(bits); }
inline long long __double_as_longlong(double number) { return as<long long>(number); }

using std::isnan;
using std::signbit;
template <typename A, typename B> auto min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B> auto max(A a, B b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
inline float normcdff(float x) { return (float)normcdf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }

// How the driver calls a kernel, of whose parameters it gets a pointer each.
template <typename... Parameters, size_t... I>
void called(void (*kernel)(Parameters...), void **arguments, std::index_sequence<I...>) {
    kernel(*(Parameters *)arguments[I]...);
}
template <typename... Parameters> void called(void (*kernel)(Parameters...), void **arguments) {
    called(kernel, arguments, std::index_sequence_for<Parameters...>());
}
#define EMULATED(kernel) \
    extern "C" void emulated_##kernel(void **arguments) { called(kernel, arguments); }
