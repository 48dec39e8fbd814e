// A kernel and its launch in one source, as hipcc compiles it; only the device
// headers, which need AMD's device library, are left out.

#include <hip/hip_runtime_api.h>

#include <cstdio>

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))

__device__ unsigned scale = 3;

__global__ void multiply(unsigned *values, unsigned n) {
    unsigned i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    if (i < n) values[i] *= scale;
}

int main() {
    constexpr unsigned n = 1000;
    unsigned host[n], scaled = 0, *device = nullptr;
    for (unsigned i = 0; i < n; i++) host[i] = i;
    if (hipMalloc(reinterpret_cast<void **>(&device), sizeof host) != hipSuccess) return 1;
    if (hipMemcpy(device, host, sizeof host, hipMemcpyHostToDevice) != hipSuccess) return 2;
    multiply<<<(n + 63) / 64, 64>>>(device, n);
    scaled = 5;
    if (hipMemcpyToSymbol(scale, &scaled, sizeof scaled, 0, hipMemcpyHostToDevice) != hipSuccess)
        return 3;
    multiply<<<(n + 63) / 64, 64>>>(device, n);
    if (hipGetLastError() != hipSuccess) return 4;
    if (hipMemcpy(host, device, sizeof host, hipMemcpyDeviceToHost) != hipSuccess) return 5;
    for (unsigned i = 0; i < n; i++)
        if (host[i] != i * 15) return 6;
    std::puts("passed");
}
