// Loads a code object through HIP's module API and checks what its kernels do.
// Usage: module_api FILE

#include <hip/hip_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void check(hipError_t error, const char *call, int line) {
    if (error == hipSuccess) return;
    std::fprintf(stderr, "line %d: %s: %s: %s\n", line, call, hipGetErrorName(error),
                 hipGetErrorString(error));
    std::exit(1);
}
#define CHECK(call) check(call, #call, __LINE__)

static void require(bool holds, const char *what, int line) {
    if (holds) return;
    std::fprintf(stderr, "line %d: %s does not hold\n", line, what);
    std::exit(1);
}
#define REQUIRE(condition) require(condition, #condition, __LINE__)

template <typename T> static T *upload(const std::vector<T> &values) {
    void *device = nullptr;
    CHECK(hipMalloc(&device, values.size() * sizeof(T)));
    CHECK(hipMemcpy(device, values.data(), values.size() * sizeof(T), hipMemcpyHostToDevice));
    return static_cast<T *>(device);
}

template <typename T> static std::vector<T> download(const T *device, size_t count) {
    std::vector<T> values(count);
    std::memset(values.data(), 0xff, count * sizeof(T));
    CHECK(hipMemcpy(values.data(), device, count * sizeof(T), hipMemcpyDeviceToHost));
    return values;
}

constexpr unsigned n = 10000, block = 256, grid = (n + block - 1) / block;

static hipFunction_t function(hipModule_t module, const char *name) {
    hipFunction_t found = nullptr;
    CHECK(hipModuleGetFunction(&found, module, name));
    return found;
}

static void axpy(hipModule_t module, hipStream_t stream) {
    std::vector<float> x(n), y(n);
    for (unsigned i = 0; i < n; i++) x[i] = 0.25f * i, y[i] = 100.0f - i;
    float *dx = upload(x), *dy = upload(y), a = 3.0f, bias = 0.5f;

    hipDeviceptr_t variable = nullptr;
    size_t bytes = 0;
    CHECK(hipModuleGetGlobal(&variable, &bytes, module, "bias"));
    REQUIRE(bytes == sizeof(float));
    CHECK(hipMemcpyHtoD(variable, &bias, sizeof bias));

    unsigned count = n;
    void *parameters[] = {&a, &dx, &dy, &count};
    CHECK(hipModuleLaunchKernel(function(module, "axpy"), grid, 1, 1, block, 1, 1, 0, stream,
                                parameters, nullptr));
    CHECK(hipStreamSynchronize(stream));
    // Every value is a multiple of 1/4 below 2^16: single precision is exact.
    std::vector<float> got = download(dy, n);
    for (unsigned i = 0; i < n; i++) REQUIRE(got[i] == a * x[i] + y[i] + bias);
    CHECK(hipFree(dx));
    CHECK(hipFree(dy));
}

static void block_sums(hipModule_t module, hipStream_t stream) {
    std::vector<float> x(n);
    for (unsigned i = 0; i < n; i++) x[i] = static_cast<float>(i % 97);
    float *dx = upload(x), *sums = upload(std::vector<float>(grid, NAN));

    struct { const float *x; float *sums; unsigned n; } packed = {dx, sums, n};
    size_t bytes = 20;
    void *extra[] = {HIP_LAUNCH_PARAM_BUFFER_POINTER, &packed, HIP_LAUNCH_PARAM_BUFFER_SIZE,
                     &bytes, HIP_LAUNCH_PARAM_END};
    CHECK(hipModuleLaunchKernel(function(module, "block_sums"), grid, 1, 1, block, 1, 1, 0,
                                stream, nullptr, extra));
    CHECK(hipStreamSynchronize(stream));
    std::vector<float> got = download(sums, grid);
    for (unsigned g = 0; g < grid; g++) {
        float expected = 0;
        for (unsigned i = g * block; i < n && i < (g + 1) * block; i++) expected += x[i];
        REQUIRE(got[g] == expected);
    }
}

static void histogram(hipModule_t module, hipStream_t stream) {
    std::vector<unsigned> values(n), expected(16, 0);
    for (unsigned i = 0; i < n; i++) values[i] = i * 2654435761u >> 7, expected[values[i] % 16]++;
    unsigned *dv = upload(values), *counts = upload(std::vector<unsigned>(16, 77)), count = n;
    void *parameters[] = {&dv, &counts, &count};

    // As a graph: the clear and the kernel, launched twice.
    CHECK(hipStreamBeginCapture(stream, hipStreamCaptureModeGlobal));
    CHECK(hipMemsetAsync(counts, 0, 16 * sizeof(unsigned), stream));
    CHECK(hipModuleLaunchKernel(function(module, "histogram"), grid, 1, 1, block, 1, 1, 0,
                                stream, parameters, nullptr));
    hipGraph_t graph = nullptr;
    CHECK(hipStreamEndCapture(stream, &graph));
    hipGraphExec_t executable = nullptr;
    CHECK(hipGraphInstantiate(&executable, graph, nullptr, nullptr, 0));
    for (int launch = 0; launch < 2; launch++) CHECK(hipGraphLaunch(executable, stream));
    CHECK(hipStreamSynchronize(stream));
    REQUIRE(download(counts, 16) == expected);
}

// What cannot begin is refused at the call and leaves the device as it was.
static void refusals(hipModule_t module, hipStream_t stream) {
    hipFunction_t kernel = function(module, "block_sums");
    void *x = nullptr, *sums = nullptr;
    unsigned count = 0;
    void *parameters[] = {&x, &sums, &count}, *missing[] = {&x, nullptr, &count};
    auto launch = [&](unsigned grid, unsigned threads, unsigned lds, void **arguments) {
        return hipModuleLaunchKernel(kernel, grid, 1, 1, threads, 1, 1, lds, stream, arguments,
                                     nullptr);
    };
    REQUIRE(launch(0, block, 0, parameters) == hipErrorInvalidConfiguration);
    REQUIRE(launch(1, 0, 0, parameters) == hipErrorInvalidConfiguration);
    REQUIRE(launch(1, 1025, 0, parameters) == hipErrorInvalidConfiguration);
    REQUIRE(launch(1u << 31, 1024, 0, parameters) == hipErrorInvalidConfiguration);
    REQUIRE(launch(1, block, 64 << 10, parameters) == hipErrorLaunchOutOfResources);
    REQUIRE(launch(1, block, 0, missing) == hipErrorInvalidValue);
    REQUIRE(launch(1, block, 0, nullptr) == hipErrorInvalidValue);
    CHECK(hipDeviceSynchronize());
}

static void stray(hipModule_t module) {
    unsigned *p = upload(std::vector<unsigned>(4, 0));
    void *parameters[] = {&p};
    CHECK(hipModuleLaunchKernel(function(module, "stray"), 1, 1, 1, 1, 1, 1, 0, nullptr,
                                parameters, nullptr));
    REQUIRE(hipDeviceSynchronize() == hipErrorIllegalAddress);
    void *q = nullptr;
    REQUIRE(hipMalloc(&q, 16) == hipErrorIllegalAddress);
    REQUIRE(hipGetLastError() == hipErrorIllegalAddress);
    CHECK(hipDeviceReset());
    CHECK(hipMalloc(&q, 16));
}

// Device 0 writes into device 1's memory, which takes peer access.
static void peers(const char *file) {
    CHECK(hipSetDevice(1));
    unsigned *theirs = upload(std::vector<unsigned>(16, 1));
    CHECK(hipSetDevice(0));
    unsigned *values = nullptr, *pinned = nullptr, count = 16;
    CHECK(hipHostMalloc(reinterpret_cast<void **>(&pinned), 16 * sizeof *pinned));
    for (unsigned i = 0; i < 16; i++) pinned[i] = i;
    values = pinned;
    void *parameters[] = {&values, &theirs, &count};
    for (bool allowed : {false, true}) {
        hipModule_t module = nullptr;
        CHECK(hipModuleLoad(&module, file));
        if (allowed) CHECK(hipDeviceEnablePeerAccess(1, 0));
        CHECK(hipModuleLaunchKernel(function(module, "histogram"), 1, 1, 1, block, 1, 1, 0,
                                    nullptr, parameters, nullptr));
        REQUIRE(hipDeviceSynchronize() == (allowed ? hipSuccess : hipErrorIllegalAddress));
        if (!allowed) CHECK(hipDeviceReset());
    }
    REQUIRE(download(theirs, 16) == std::vector<unsigned>(16, 2));
    CHECK(hipHostFree(pinned));
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    int devices = 0, lanes = 0;
    CHECK(hipInit(0));
    CHECK(hipGetDeviceCount(&devices));
    REQUIRE(devices == 2);
    hipDeviceProp_t properties;
    CHECK(hipGetDeviceProperties(&properties, 0));
    REQUIRE(!std::strcmp(properties.gcnArchName, "gfx1100"));
    REQUIRE(properties.warpSize == 32 && properties.pageableMemoryAccess == 0);
    CHECK(hipDeviceGetAttribute(&lanes, hipDeviceAttributeWarpSize, 0));
    REQUIRE(lanes == 32);

    hipModule_t module = nullptr;
    CHECK(hipModuleLoad(&module, argv[1]));
    hipStream_t stream = nullptr;
    CHECK(hipStreamCreate(&stream));
    int blocks = 0;
    CHECK(hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        &blocks, function(module, "block_sums"), block, 0));
    REQUIRE(blocks == 8);
    axpy(module, stream);
    block_sums(module, stream);
    histogram(module, stream);
    refusals(module, stream);
    stray(module);
    peers(argv[1]);
    std::puts("passed");
}
