// What the worker asks of NVIDIA's libraries (the driver, cuBLAS, cuRAND), on the CPU: for tests of all that is
// for GPUs where there is none. Stricter than a GPU in two ways: memory that nobody has written to is full of NaN, and
// who reads or writes beyond a tensor dies at once. Work is done when it is asked for, so that nothing is said
// about what depends on the order of streams, and nothing about speed.
#include <cuda.h>
#include <vector_types.h>

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace {

const size_t MEMORY = size_t(8) << 30;
const size_t PAGE = sysconf(_SC_PAGESIZE);

[[noreturn]] void die(const char *what, const std::string &name) {
    fprintf(stderr, "emulated GPU: %s: %s\n", what, name.c_str());
    abort();
}

// Memory: each piece ends where a page begins that nobody may touch.

struct Piece {
    size_t mapped, size;
};
std::mutex memory;
std::map<uintptr_t, Piece> pieces;
size_t taken = 0;

size_t rounded(size_t size, size_t to) { return (size + to - 1) / to * to; }

CUresult allocate(CUdeviceptr *at, size_t size) {
    std::lock_guard<std::mutex> guard(memory);
    size_t room = rounded(size ? size : 1, 16), mapped = rounded(room, PAGE) + PAGE;
    if (taken + room > MEMORY) return CUDA_ERROR_OUT_OF_MEMORY;
    void *start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    mprotect((char *)start + mapped - PAGE, PAGE, PROT_NONE);
    memset(start, 0xff, mapped - PAGE);
    *at = (uintptr_t)start + mapped - PAGE - room;
    pieces[*at] = {mapped, size};
    taken += room;
    return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr at) {
    std::lock_guard<std::mutex> guard(memory);
    auto found = pieces.find(at);
    if (found == pieces.end()) die("freed what was not allocated", std::to_string(at));
    auto [mapped, size] = found->second;
    size_t room = rounded(size ? size : 1, 16);
    for (size_t i = size; i < room; ++i)
        if (((unsigned char *)at)[i] != 0xff) die("somebody wrote beyond a tensor of bytes", std::to_string(size));
    munmap((void *)(at + room + PAGE - mapped), mapped);
    pieces.erase(found);
    taken -= room;
    return CUDA_SUCCESS;
}

// The threads of a block: each runs until it waits for others or ends. The next then starts on the same stack if it
// ended, on another if it waits.

struct Thread {
    uint3 at;
    struct Stack *stack;
    unsigned barriers, exchanges;
    bool ended;
};
struct Stack {
    ucontext_t start;
    jmp_buf at;
    bool begun;
};

std::mutex running;
jmp_buf scheduler;
std::vector<Stack *> spare;
std::vector<Thread> threads;
std::vector<uint64_t> exchanged[2];
size_t current, begun;
unsigned released_barriers, waiting, alive;
void (*kernel)(void **);
void **arguments;

void die_of_memory(int) {
    Dl_info found = {};
    dladdr((void *)kernel, &found);
    die("this kernel reads or writes beyond a tensor", found.dli_sname ? found.dli_sname : "unknown");
}

} // namespace

extern "C" {
uint3 threadIdx, blockIdx, blockDim, gridDim;
}

namespace {

void go_on_as(size_t thread) {
    current = thread;
    threadIdx = threads[thread].at;
}

void release_barrier_if_all_wait() {
    if (alive > 0 && waiting == alive) {
        waiting = 0;
        ++released_barriers;
    }
}

// What every stack runs: threads that have not begun, one after another.
void work() {
    for (;;) {
        while (begun < threads.size()) {
            Stack *stack = threads[current].stack;
            size_t next = begun++;
            threads[next].stack = stack;
            go_on_as(next);
            kernel(arguments);
            threads[current].ended = true;
            --alive;
            release_barrier_if_all_wait();
        }
        Stack *stack = threads[current].stack;
        if (!_setjmp(stack->at)) {
            spare.push_back(stack);
            _longjmp(scheduler, 1);
        }
    }
}

// To whoever is next; comes back when it is this thread's turn again.
void give_way() {
    size_t self = current;
    if (!_setjmp(threads[self].stack->at)) _longjmp(scheduler, 1);
    go_on_as(self);
}

void switch_to(Stack *stack) {
    if (_setjmp(scheduler)) return;
    if (stack->begun) _longjmp(stack->at, 1);
    stack->begun = true;
    setcontext(&stack->start);
}

Stack *fresh() {
    if (spare.empty()) {
        const size_t SIZE = 256 << 10;
        auto *stack = new Stack();
        getcontext(&stack->start);
        stack->start.uc_stack.ss_sp = mmap(nullptr, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        stack->start.uc_stack.ss_size = SIZE;
        makecontext(&stack->start, work, 0);
        return stack;
    }
    Stack *stack = spare.back();
    spare.pop_back();
    return stack;
}

void run_block(uint3 dim) {
    threads.clear();
    for (unsigned z = 0; z < dim.z; ++z)
        for (unsigned y = 0; y < dim.y; ++y)
            for (unsigned x = 0; x < dim.x; ++x) threads.push_back({{x, y, z}, nullptr, 0, 0, false});
    for (auto &slots : exchanged) slots.resize(threads.size());
    begun = released_barriers = waiting = 0;
    alive = threads.size();
    while (begun < threads.size()) {
        current = begun;
        Stack *stack = fresh();
        threads[begun].stack = stack;
        switch_to(stack);
    }
    while (alive > 0)
        for (size_t thread = 0; thread < threads.size(); ++thread)
            if (!threads[thread].ended) switch_to(threads[thread].stack);
}

} // namespace

extern "C" {

void emulated_barrier() {
    unsigned mine = ++threads[current].barriers;
    ++waiting;
    release_barrier_if_all_wait();
    while (released_barriers < mine) give_way();
}

// What another thread of the warp passes at the same point. Two sets of places: nobody is ahead by two.
uint64_t emulated_exchange(uint64_t value, unsigned other) {
    const size_t WARP = 32;
    size_t self = current;
    unsigned mine = ++threads[self].exchanges;
    exchanged[mine % 2][self] = value;
    size_t first = self / WARP * WARP, last = std::min(first + WARP, threads.size());
    for (size_t thread = first; thread < last; ++thread)
        while (thread >= begun || (!threads[thread].ended && threads[thread].exchanges < mine)) give_way();
    return exchanged[mine % 2][other < threads.size() ? other : self];
}

// The driver.

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult, const char **name) { return *name = "an error", CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_OUT_OF_MEMORY    ? "out of memory"
            : error == CUDA_ERROR_INVALID_DEVICE ? "invalid device ordinal"
                                                 : "not supported by the emulated GPU";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) { return *count = 1, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int number) {
    *device = number;
    return number == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int size, CUdevice) {
    snprintf(name, size, "Emulated GPU");
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice) { return memset(uuid, 0, sizeof(*uuid)), CUDA_SUCCESS; }
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) { return *bytes = MEMORY, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 1; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) { return *context = (CUcontext)1, CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
thread_local CUcontext bound = nullptr;
CUresult cuCtxSetCurrent(CUcontext context) { return bound = context, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { return *context = bound, CUDA_SUCCESS; }
CUresult cuCtxSynchronize() { return CUDA_SUCCESS; }

CUresult cuStreamCreate(CUstream *stream, unsigned) { return *stream = (CUstream)2, CUDA_SUCCESS; }
CUresult cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *event, unsigned) { return *event = (CUevent)3, CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }

CUresult cuMemGetInfo_v2(size_t *left, size_t *all) { return *left = MEMORY - taken, *all = MEMORY, CUDA_SUCCESS; }
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice) { return *pool = (CUmemoryPool)4, CUDA_SUCCESS; }
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void *) { return CUDA_SUCCESS; }
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute, void *value) {
    return *(uint64_t *)value = taken, CUDA_SUCCESS;
}
CUresult cuMemAllocAsync(CUdeviceptr *at, size_t size, CUstream) { return allocate(at, size); }
CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t size) { return allocate(at, size); }
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream) { return release(at); }
CUresult cuMemFree_v2(CUdeviceptr at) { return release(at); }
CUresult cuMemHostAlloc(void **at, size_t size, unsigned) { return *at = malloc(size), CUDA_SUCCESS; }
CUresult cuMemFreeHost(void *at) { return free(at), CUDA_SUCCESS; }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream) {
    return memcpy((void *)to, from, size), CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream) {
    return memcpy(to, (void *)from, size), CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream) {
    return memmove((void *)to, (void *)from, size), CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char byte, size_t size, CUstream) {
    return memset((void *)at, byte, size), CUDA_SUCCESS;
}

// A module's text is the path of the library that nvcc, beside this file, made of it.
CUresult cuModuleLoadData(CUmodule *module, const void *text) {
    void *library = dlopen((const char *)text, RTLD_NOW | RTLD_LOCAL);
    if (!library) die("no such kernels", dlerror());
    return *module = (CUmodule)library, CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    *function = (CUfunction)dlsym((void *)module, ("emulated_" + std::string(name)).c_str());
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned across, unsigned down,
                        unsigned deep, unsigned shared, CUstream, void **passed, void **extra) {
    if (shared || extra) die("memory of a size that the kernel does not name", "shared");
    size_t size = size_t(across) * down * deep;
    if (size_t(x) * y * z == 0 || size == 0 || size > 1024 || y > 65535 || z > 65535) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard<std::mutex> guard(running);
    auto before = signal(SIGSEGV, die_of_memory);
    kernel = (void (*)(void **))function;
    arguments = passed;
    gridDim = {x, y, z};
    blockDim = {across, down, deep};
    for (blockIdx.z = 0; blockIdx.z < z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < x; ++blockIdx.x) run_block(blockDim);
    signal(SIGSEGV, before);
    return CUDA_SUCCESS;
}

// cuBLAS: of products, those of f32 and f64. Columns come first.

int cublasCreate_v2(void **handle) { return *handle = (void *)5, 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, CUstream) { return 0; }

} // extern "C"

namespace {

template <typename T>
int multiply(bool a_transposed, bool b_transposed, int m, int n, int k, T alpha, const T *a, int lda, long long stride_a,
             const T *b, int ldb, long long stride_b, T beta, T *c, int ldc, long long stride_c, int batch) {
    std::vector<T> columns(size_t(m) * k);
    for (int i = 0; i < batch; ++i, a += stride_a, b += stride_b, c += stride_c) {
        if (i == 0 || stride_a != 0)
            for (int l = 0; l < k; ++l)
                for (int row = 0; row < m; ++row)
                    columns[size_t(l) * m + row] = a_transposed ? a[size_t(row) * lda + l] : a[size_t(l) * lda + row];
        // Four columns of so many rows at a time, so that they stay where the CPU has them at hand.
        const int ROWS = 512;
        for (int row = 0; row < m; row += ROWS) {
            int rows = std::min(ROWS, m - row);
            for (int column = 0; column < n; column += 4) {
                T sums[4][ROWS] = {};
                int columns_left = std::min(4, n - column);
                for (int l = 0; l < k; ++l) {
                    const T *from = columns.data() + size_t(l) * m + row;
                    T factors[4] = {};
                    for (int j = 0; j < columns_left; ++j)
                        factors[j] = b_transposed ? b[size_t(l) * ldb + column + j] : b[size_t(column + j) * ldb + l];
                    for (int r = 0; r < rows; ++r) {
                        T value = from[r];
                        sums[0][r] += factors[0] * value;
                        sums[1][r] += factors[1] * value;
                        sums[2][r] += factors[2] * value;
                        sums[3][r] += factors[3] * value;
                    }
                }
                for (int j = 0; j < columns_left; ++j) {
                    T *out = c + size_t(column + j) * ldc + row;
                    // What is only to be written may hold anything.
                    for (int r = 0; r < rows; ++r) out[r] = alpha * sums[j][r] + (beta == 0 ? 0 : beta * out[r]);
                }
            }
        }
    }
    return 0;
}

const int NOT_SUPPORTED = 15, F32 = 0, F64 = 1;

} // namespace

extern "C" {

int cublasSgemm_v2(void *, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda,
                   const float *b, int ldb, const float *beta, float *c, int ldc) {
    return multiply<float>(ta, tb, m, n, k, *alpha, a, lda, 0, b, ldb, 0, *beta, c, ldc, 0, 1);
}
int cublasSgemmStridedBatched(void *, int ta, int tb, int m, int n, int k, const float *alpha, const float *a, int lda,
                              long long sa, const float *b, int ldb, long long sb, const float *beta, float *c,
                              int ldc, long long sc, int batch) {
    return multiply<float>(ta, tb, m, n, k, *alpha, a, lda, sa, b, ldb, sb, *beta, c, ldc, sc, batch);
}
int cublasDgemmStridedBatched(void *, int ta, int tb, int m, int n, int k, const double *alpha, const double *a,
                              int lda, long long sa, const double *b, int ldb, long long sb, const double *beta,
                              double *c, int ldc, long long sc, int batch) {
    return multiply<double>(ta, tb, m, n, k, *alpha, a, lda, sa, b, ldb, sb, *beta, c, ldc, sc, batch);
}
int cublasGemmStridedBatchedEx(void *, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                               int a_type, int lda, long long sa, const void *b, int, int ldb, long long sb,
                               const void *beta, void *c, int, int ldc, long long sc, int batch, int, int) {
    if (a_type != F32) return NOT_SUPPORTED;
    return multiply<float>(ta, tb, m, n, k, *(float *)alpha, (float *)a, lda, sa, (float *)b, ldb, sb, *(float *)beta,
                           (float *)c, ldc, sc, batch);
}

// cuRAND: made, never asked, for all that is drawn is drawn on the host.

int curandCreateGenerator(void **generator, int) { return *generator = (void *)6, 0; }
int curandDestroyGenerator(void *) { return 0; }
int curandSetStream(void *, CUstream) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }

} // extern "C"
