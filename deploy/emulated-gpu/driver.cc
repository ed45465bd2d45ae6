// What the worker asks of NVIDIA's libraries (the driver, cuBLAS, cuRAND), on the CPU: for tests of all that is
// for GPUs where there is none. Stricter than a GPU in two ways: tensors begin as ones in every bit, which is NaN, and
// a kernel that reads or writes beyond one dies. Blocks and threads run forwards at one launch and backwards at another, at
// random, so that what depends on their order does not come out the same twice. Work is done when it is asked for: nothing is
// said about what depends on the order of streams, and nothing about speed.
#include <cuda.h>
#include <vector_types.h>

#include <algorithm>
#include <cerrno>
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

// Memory: each piece ends where a page begins that nobody may touch, but for what fills it up to 16 bytes. That, and what
// lies before it, is looked at when the piece is given back. Like the driver, this keeps what was given back.

struct Piece {
    unsigned char *start;
    size_t mapped, size;
};
std::mutex memory;
std::map<uintptr_t, Piece> pieces;
size_t taken = 0, reserved = 0;

size_t rounded(size_t size, size_t to) { return (size + to - 1) / to * to; }

CUresult allocate(CUdeviceptr *at, size_t size) {
    std::lock_guard<std::mutex> guard(memory);
    if (size > MEMORY - taken) return CUDA_ERROR_OUT_OF_MEMORY;
    size_t room = rounded(size ? size : 1, 16), mapped = rounded(room, PAGE) + PAGE;
    auto *start = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    if (mprotect(start + mapped - PAGE, PAGE, PROT_NONE)) die("no page can be guarded", strerror(errno));
    memset(start, 0xff, mapped - PAGE);
    *at = (uintptr_t)start + mapped - PAGE - room;
    pieces[*at] = {(unsigned char *)start, mapped, size};
    taken += size;
    reserved = std::max(reserved, taken);
    return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr at) {
    std::lock_guard<std::mutex> guard(memory);
    auto found = pieces.find(at);
    if (found == pieces.end()) die("freed what was not allocated", std::to_string(at));
    auto [start, mapped, size] = found->second;
    auto *first = (unsigned char *)at, *end = start + mapped - PAGE;
    auto written = [](unsigned char byte) { return byte != 0xff; };
    if (std::any_of(start, first, written) || std::any_of(first + size, end, written))
        die("somebody wrote before or beyond a tensor, of bytes", std::to_string(size));
    munmap(start, mapped);
    pieces.erase(found);
    taken -= size;
    return CUDA_SUCCESS;
}

// The threads of a block: each runs until it waits for others or ends. The next then starts on the same stack if it
// ended, on another if it waits.

struct Stack {
    ucontext_t start;
    jmp_buf at;
    bool begun;
};
struct Thread {
    uint3 at;
    Stack *stack;
    unsigned barriers, exchanges;
    bool begun, ended;
};

std::mutex running;
jmp_buf scheduler;
std::vector<Stack *> spare;
std::vector<Thread> threads;
std::vector<uint64_t> exchanged[2];
// Which thread runs, how many have begun, and how often one got further: where none does, all wait for ever.
size_t current, begun, progress;
unsigned released_barriers, waiting, alive;
bool backwards = false;
uint64_t order = 0;
void (*kernel)(void **);
void **arguments;

thread_local bool in_kernel = false;
struct sigaction otherwise;

std::string name_of_kernel() {
    const std::string PREFIX = "emulated_";
    Dl_info found = {};
    dladdr((void *)kernel, &found);
    return found.dli_sname ? found.dli_sname + PREFIX.size() : "unknown";
}

void on_fault(int) {
    if (in_kernel) die("a kernel reads or writes beyond a tensor", name_of_kernel());
    sigaction(SIGSEGV, &otherwise, nullptr);
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

size_t next_to_begin() { return backwards ? threads.size() - 1 - begun : begun; }

// What every stack runs: threads that have not begun, one after another.
void work() {
    for (;;) {
        while (begun < threads.size()) {
            Stack *stack = threads[current].stack;
            size_t next = next_to_begin();
            ++begun;
            threads[next].stack = stack;
            threads[next].begun = true;
            go_on_as(next);
            kernel(arguments);
            threads[current].ended = true;
            --alive;
            ++progress;
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
        void *room = mmap(nullptr, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED || mprotect(room, PAGE, PROT_NONE)) die("no stack for a thread", strerror(errno));
        stack->start.uc_stack.ss_sp = room;
        stack->start.uc_stack.ss_size = SIZE;
        makecontext(&stack->start, work, 0);
        return stack;
    }
    Stack *stack = spare.back();
    spare.pop_back();
    return stack;
}

void run_block() {
    threads.clear();
    for (unsigned z = 0; z < blockDim.z; ++z)
        for (unsigned y = 0; y < blockDim.y; ++y)
            for (unsigned x = 0; x < blockDim.x; ++x) threads.push_back({{x, y, z}, nullptr, 0, 0, false, false});
    for (auto &slots : exchanged) slots.resize(threads.size());
    begun = released_barriers = waiting = 0;
    alive = threads.size();
    while (begun < threads.size()) {
        current = next_to_begin();
        Stack *stack = fresh();
        threads[current].stack = stack;
        switch_to(stack);
    }
    while (alive > 0) {
        size_t before = progress;
        for (size_t i = 0; i < threads.size(); ++i) {
            Thread &thread = threads[backwards ? threads.size() - 1 - i : i];
            if (!thread.ended) switch_to(thread.stack);
        }
        if (progress == before) die("the threads of a block wait for one another for ever", name_of_kernel());
    }
}

} // namespace

extern "C" {

void emulated_barrier() {
    unsigned mine = ++threads[current].barriers;
    ++waiting;
    release_barrier_if_all_wait();
    while (released_barriers < mine) give_way();
    ++progress;
}

// What another thread of the warp passes at the same point, where those of the mask come by. Two sets of places:
// nobody is ahead by two.
uint64_t emulated_exchange(unsigned mask, uint64_t value, unsigned other) {
    const size_t WARP = 32;
    size_t self = current;
    unsigned mine = ++threads[self].exchanges;
    exchanged[mine % 2][self] = value;
    size_t first = self / WARP * WARP, last = std::min(first + WARP, threads.size());
    for (size_t thread = first; thread < last; ++thread)
        if (mask >> (thread - first) & 1)
            while (!threads[thread].begun || (!threads[thread].ended && threads[thread].exchanges < mine)) give_way();
    ++progress;
    return exchanged[mine % 2][other < threads.size() ? other : self];
}

// The driver.

CUresult cuInit(unsigned) {
    // Kernels look among what everybody may see for what they share with this, and a program that loads this
    // may have kept it to itself.
    if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL)) die("not loaded as libcuda.so.1", dlerror());
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_OUT_OF_MEMORY    ? "out of memory"
            : error == CUDA_ERROR_INVALID_DEVICE ? "invalid device ordinal"
                                                 : "not supported by the emulated GPU";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *device, int number) {
    *device = number;
    return number == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
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
const CUresult UNBOUND = CUDA_ERROR_INVALID_CONTEXT;
CUresult cuCtxSetCurrent(CUcontext context) { return bound = context, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { return *context = bound, CUDA_SUCCESS; }

CUresult cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *event, unsigned) { return *event = (CUevent)3, CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }

CUresult cuMemGetInfo_v2(size_t *left, size_t *all) { return *left = MEMORY - reserved, *all = MEMORY, CUDA_SUCCESS; }
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice) { return *pool = (CUmemoryPool)4, CUDA_SUCCESS; }
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void *) { return CUDA_SUCCESS; }
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: *(uint64_t *)value = reserved; break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *(uint64_t *)value = taken; break;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}
CUresult cuMemAllocAsync(CUdeviceptr *at, size_t size, CUstream) { return bound ? allocate(at, size) : UNBOUND; }
CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t size) { return bound ? allocate(at, size) : UNBOUND; }
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream) { return release(at); }
CUresult cuMemFree_v2(CUdeviceptr at) { return release(at); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream) {
    return bound ? (memcpy((void *)to, from, size), CUDA_SUCCESS) : UNBOUND;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream) {
    return bound ? (memcpy(to, (void *)from, size), CUDA_SUCCESS) : UNBOUND;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream) {
    return bound ? (memmove((void *)to, (void *)from, size), CUDA_SUCCESS) : UNBOUND;
}
CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char byte, size_t size, CUstream) {
    return bound ? (memset((void *)at, byte, size), CUDA_SUCCESS) : UNBOUND;
}

// A module's text is the path of the library that nvcc, beside this file, made of it.
CUresult cuModuleLoadData(CUmodule *module, const void *text) {
    if (!*(const char *)text) die("these kernels are left out", "see nvcc beside driver.cc");
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
    if (!bound) return UNBOUND;
    size_t blocks = size_t(x) * y * z, size = size_t(across) * down * deep;
    if (blocks == 0 || size == 0 || size > 1024 || y > 65535 || z > 65535) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard<std::mutex> guard(running);
    static const bool CAUGHT = [] {
        struct sigaction caught = {};
        caught.sa_handler = on_fault;
        caught.sa_flags = SA_ONSTACK | SA_NODEFER;
        return sigaction(SIGSEGV, &caught, &otherwise) == 0;
    }();
    in_kernel = CAUGHT;
    kernel = (void (*)(void **))function;
    arguments = passed;
    gridDim = {x, y, z};
    blockDim = {across, down, deep};
    for (size_t i = 0; i < blocks; ++i) {
        size_t block = backwards ? blocks - 1 - i : i;
        blockIdx = {unsigned(block % x), unsigned(block / x % y), unsigned(block / x / y)};
        run_block();
    }
    order = order * 6364136223846793005 + 1442695040888963407; // Knuth's, of MMIX
    backwards = order >> 63;
    in_kernel = false;
    return CUDA_SUCCESS;
}

// cuBLAS: of products, those of f32 and f64. Columns come first.

int cublasCreate_v2(void **handle) { return *handle = (void *)5, 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, CUstream) { return 0; }

} // extern "C"

namespace {

const int INVALID = 7, NOT_SUPPORTED = 15, F32 = 0;

template <typename T>
int multiply(bool a_transposed, bool b_transposed, int m, int n, int k, T alpha, const T *a, int lda, long long stride_a,
             const T *b, int ldb, long long stride_b, T beta, T *c, int ldc, long long stride_c, int batch) {
    if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < std::max(1, a_transposed ? k : m) ||
        ldb < std::max(1, b_transposed ? n : k) || ldc < std::max(1, m))
        return INVALID;
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
