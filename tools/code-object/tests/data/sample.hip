// Source of the code objects beside this file; build.sh makes them.
//
// Small kernels that between them have every field the reader decodes: static and dynamic LDS, a
// loop with barriers, scratch, a by-value struct, hidden arguments, a dynamic relocation, and a
// matrix instruction. Headers of ROCm are not needed.

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))

typedef float f4 __attribute__((ext_vector_type(4)));
typedef float f8 __attribute__((ext_vector_type(8)));
typedef short s4 __attribute__((ext_vector_type(4)));
typedef short s8 __attribute__((ext_vector_type(8)));
typedef short s16 __attribute__((ext_vector_type(16)));

static __device__ unsigned lane() { return __builtin_amdgcn_workitem_id_x(); }

static __device__ void barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

// Sums row `workgroup` through static LDS: a streaming loop, a tree of barriers, one store.
extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(256, 256))) void row_sum(
    const float *__restrict__ x, float *__restrict__ sum, unsigned columns) {
    __shared__ float partial[256];
    unsigned row = __builtin_amdgcn_workgroup_id_x();
    float s = 0;
#pragma clang loop unroll(disable)
    for (unsigned c = lane(); c < columns; c += 256) s += x[(unsigned long)row * columns + c];
    partial[lane()] = s;
#pragma clang loop unroll(disable)
    for (unsigned width = 128; width > 0; width /= 2) {
        barrier();
        if (lane() < width) partial[lane()] += partial[lane() + width];
    }
    if (lane() == 0) sum[row] = partial[0];
}

// An array indexed at run time (scratch), LDS sized at launch, a struct by value, the grid's size
// (a hidden argument).
struct pair {
    int first;
    long second;
};
extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(1, 64))) void shuffle(
    int *out, pair p, int steps) {
    extern __shared__ int buffer[];
    int slots[200];
#pragma clang loop unroll(disable)
    for (int i = 0; i < 200; i++) slots[i] = out[i];
#pragma clang loop unroll(disable)
    for (int i = 0; i < steps; i++) {
        int j = slots[i % 200] & 127;
        slots[j] += p.first;
        buffer[lane()] = slots[j];
    }
    const unsigned *blocks = (const unsigned *)__builtin_amdgcn_implicitarg_ptr();
    out[lane()] = slots[steps & 127] + buffer[lane() ^ 1] + (int)p.second + (int)blocks[0];
}

// Pointers in memory that the loader fixes up: one R_AMDGPU_RELATIVE64 each.
static __constant__ const int squares[4] = {0, 1, 4, 9};
static __constant__ const int cubes[4] = {0, 1, 8, 27};
__constant__ const int *const tables[2] __attribute__((used)) = {squares, cubes};
extern "C" __global__ void lookup(int *out, int which) { out[lane()] = tables[which & 1][lane() & 3]; }

// K / 16 matrix instructions on one 16 by 16 tile.
extern "C" __global__ void tile(const short *a, const short *b, float *c, int k) {
#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
    f4 acc = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < k; i += 16)
        acc = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(
            *(const s4 *)(a + lane() * k + i), *(const s4 *)(b + lane() * k + i), acc, 0, 0, 0);
    *(f4 *)(c + lane() * 4) = acc;
#elif defined(__GFX12__)
    f8 acc = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < k; i += 16)
        acc = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(
            *(const s8 *)(a + lane() * k + i), *(const s8 *)(b + lane() * k + i), acc);
    *(f8 *)(c + lane() * 8) = acc;
#elif defined(__GFX11__)
    f8 acc = 0;
#pragma clang loop unroll(disable)
    for (int i = 0; i < k; i += 16)
        acc = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(
            *(const s16 *)(a + lane() * k + i), *(const s16 *)(b + lane() * k + i), acc);
    *(f8 *)(c + lane() * 8) = acc;
#endif
}
