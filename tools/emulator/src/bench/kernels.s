; Kernels that the emulator's own speed is measured with. Built with
;   llvm-mc-22 -triple=amdgcn-amd-amdhsa -mcpu=gfx1151 -filetype=obj kernels.s -o kernels.o
;   ld.lld-22 -shared kernels.o -o kernels.co
; Each takes the number of turns of its loop.
	.amdgcn_target "amdgcn-amd-amdhsa--gfx1151"
	.text

.macro finish name, vgprs
	s_sub_u32 s4, s4, 1
	s_cmp_lg_u32 s4, 0
	s_cbranch_scc1 .L\name\()_loop
	s_endpgm
.L\name\()_end:
	.size	\name, .L\name\()_end-\name
	.section	.rodata,"a",@progbits
	.p2align	6
	.amdhsa_kernel \name
		.amdhsa_kernarg_size 4
		.amdhsa_user_sgpr_kernarg_segment_ptr 1
		.amdhsa_user_sgpr_count 2
		.amdhsa_wavefront_size32 1
		.amdhsa_float_denorm_mode_32 3
		.amdhsa_next_free_vgpr \vgprs
		.amdhsa_next_free_sgpr 16
	.end_amdhsa_kernel
	.text
.endm

.macro begin name
	.globl	\name
	.p2align	8
	.type	\name,@function
\name:
	s_load_b32 s4, s[0:1], 0x0
	s_waitcnt lgkmcnt(0)
.L\name\()_loop:
.endm

; 32 vector instructions per turn: float, fused, integer, shifts, selection, comparison.
begin vector
	.rept 4
	v_add_f32_e32 v1, v2, v3
	v_fmac_f32_e32 v4, v2, v1
	v_mul_f32_e32 v5, v1, v4
	v_fma_f32 v6, v5, v2, v3
	v_add_nc_u32_e32 v7, v7, v0
	v_lshl_add_u32 v8, v7, 2, v0
	v_cmp_gt_u32_e32 vcc_lo, v8, v7
	v_cndmask_b32_e32 v9, v5, v6, vcc_lo
	.endr
finish vector, 16

; Eight matrix instructions per turn.
begin matrix
	.rept 4
	v_wmma_f32_16x16x16_f16 v[0:7], v[32:39], v[40:47], v[0:7]
	v_wmma_f32_16x16x16_bf16 v[8:15], v[32:39], v[40:47], v[8:15]
	.endr
finish matrix, 48

	.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--gfx1151
amdhsa.kernels:
  - {.name: vector, .symbol: vector.kd, .kernarg_segment_size: 4, .kernarg_segment_align: 4, .group_segment_fixed_size: 0, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 4, .value_kind: by_value}]}
  - {.name: matrix, .symbol: matrix.kd, .kernarg_segment_size: 4, .kernarg_segment_align: 4, .group_segment_fixed_size: 0, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 48, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 4, .value_kind: by_value}]}
...
	.end_amdgpu_metadata
