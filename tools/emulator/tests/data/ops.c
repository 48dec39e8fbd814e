/* One operation per kernel, three 64-bit inputs and a 64-bit result per lane. Built with
     clang-22 -target amdgcn-amd-amdhsa -mcpu=gfx1151 -nogpulib -O2 -ffp-contract=off ops.c -o ops.co
     llvm-strip-22 --strip-debug ops.co */
typedef unsigned u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned short u16;
typedef short i16;
#define GLOBAL __attribute__((address_space(1)))
#define F(x) __builtin_bit_cast(float, (u32)(x))
#define D(x) __builtin_bit_cast(double, (u64)(x))
#define H(x) __builtin_bit_cast(_Float16, (u16)(x))
#define FROM_F(x) __builtin_bit_cast(u32, (float)(x))
#define FROM_D(x) __builtin_bit_cast(u64, (double)(x))
#define FROM_H(x) __builtin_bit_cast(u16, (_Float16)(x))
#define OP(name, value)                                                                       \
  __attribute__((amdgpu_kernel)) void name(const u64 GLOBAL *as, const u64 GLOBAL *bs,        \
                                           const u64 GLOBAL *cs, u64 GLOBAL *out) {           \
    int i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();        \
    u64 a = as[i], b = bs[i], c = cs[i];                                                      \
    out[i] = (u64)(value);                                                                    \
  }
OP(add_f32, FROM_F(F(a) + F(b)))
OP(mul_f32, FROM_F(F(a) * F(b)))
OP(div_f32, FROM_F(F(a) / F(b)))
OP(fma_f32, FROM_F(__builtin_fmaf(F(a), F(b), F(c))))
OP(sqrt_f32, FROM_F(__builtin_sqrtf(F(a))))
OP(floor_f32, FROM_F(__builtin_floorf(F(a))))
OP(rint_f32, FROM_F(__builtin_rintf(F(a))))
OP(less_f32, F(a) < F(b))
OP(unequal_f32, F(a) != F(b))
OP(select_negated_f32, FROM_F(F(b) * F(c) < F(a) ? -__builtin_fabsf(F(b) * F(c)) : F(b) * F(c)))
OP(add_f64, FROM_D(D(a) + D(b)))
OP(fma_f64, FROM_D(__builtin_fma(D(a), D(b), D(c))))
OP(sqrt_f64, FROM_D(__builtin_sqrt(D(a))))
OP(trunc_f64, FROM_D(__builtin_trunc(D(a))))
OP(less_equal_f64, D(a) <= D(b))
OP(add_f16, FROM_H(H(a) + H(b)))
OP(mul_f16, FROM_H(H(a) * H(b)))
OP(fma_f16, FROM_H(__builtin_fmaf16(H(a), H(b), H(c))))
OP(div_f16, FROM_H(H(a) / H(b)))
OP(f32_to_f16, FROM_H(F(a)))
OP(f16_to_f32, FROM_F(H(a)))
OP(f64_to_f32, FROM_F(D(a)))
OP(i64_to_f32, FROM_F((i64)a))
OP(u64_to_f64, FROM_D(a))
OP(div_u32, (u32)a / ((u32)b | 1))
OP(rem_u64, a % (b | 1))
OP(div_i64, (i64)a / ((i64)(b >> 1) | 1))
OP(mul_add_u64, a *b + c)
OP(mul_high_u64, ((unsigned __int128)a * b) >> 64)
OP(shift_left_u64, a << (b & 63))
OP(shift_right_i64, (i64)a >> (b & 63))
OP(rotate_u32, __builtin_rotateleft32(a, b))
OP(count_ones_u64, __builtin_popcountll(a))
OP(leading_zeros_u64, __builtin_clzll(a | 1))
OP(reverse_bits_u64, __builtin_bitreverse64(a))
OP(swap_bytes_u64, __builtin_bswap64(a))
OP(add_saturating_u32, __builtin_elementwise_add_sat((u32)a, (u32)b))
OP(sub_saturating_i32, (u32)__builtin_elementwise_sub_sat((i32)a, (i32)b))
OP(add_saturating_i16, (u16)__builtin_elementwise_add_sat((i16)a, (i16)b))
OP(mul_add_u16, (u16)((u16)a * (u16)b + (u16)c))
OP(max_i16, (u16)__builtin_elementwise_max((i16)a, (i16)b))
OP(min_i32, (u32)__builtin_elementwise_min((i32)a, (i32)b))
OP(select_bits_u64, (a & b) | (~a & c))
