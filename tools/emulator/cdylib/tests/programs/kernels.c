/* Kernels in plain C for clang's amdgcn target: no headers and no device library. */

#define KERNEL __attribute__((amdgpu_kernel))
#define GLOBAL __attribute__((address_space(1)))
#define LDS __attribute__((address_space(3)))
#define BLOCK 256

/* Written by the program through hipModuleGetGlobal. */
GLOBAL __attribute__((visibility("protected"))) float bias = 0;

static unsigned global_id(void) {
    return __builtin_amdgcn_workgroup_id_x() * BLOCK + __builtin_amdgcn_workitem_id_x();
}

/* y = a * x + y + bias */
KERNEL void axpy(float a, const GLOBAL float *x, GLOBAL float *y, unsigned n) {
    unsigned i = global_id();
    if (i < n) y[i] = a * x[i] + y[i] + bias;
}

/* LDS has no initial value, which C would make zero. */
static LDS __attribute__((loader_uninitialized)) float tile[BLOCK];

/* sums[workgroup] = sum of its BLOCK elements of x, by halving. */
KERNEL void block_sums(const GLOBAL float *x, GLOBAL float *sums, unsigned n) {
    unsigned i = global_id(), t = __builtin_amdgcn_workitem_id_x();
    tile[t] = i < n ? x[i] : 0.0f;
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
        __builtin_amdgcn_s_barrier();
        __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
        if (t < half) tile[t] += tile[t + half];
    }
    if (t == 0) sums[__builtin_amdgcn_workgroup_id_x()] = tile[0];
}

/* counts[v % 16] += 1 for every v */
KERNEL void histogram(const GLOBAL unsigned *values, GLOBAL unsigned *counts, unsigned n) {
    unsigned i = global_id();
    if (i < n) __atomic_fetch_add(&counts[values[i] % 16], 1, __ATOMIC_RELAXED);
}

/* Stores far outside of anything allocated. */
KERNEL void stray(GLOBAL unsigned *p) {
    p[1u << 30] = 1;
}
