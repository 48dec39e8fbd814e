; One planted bug per kernel, and a kernel without any. Built with
;   llvm-mc-22 -triple=amdgcn-amd-amdhsa -mcpu=gfx1151 -filetype=obj bugs.s -o bugs.o
;   ld.lld-22 -shared bugs.o -o bugs.co
; Each takes the address of a buffer and runs in workgroups of two waves with 512 bytes of LDS.
	.amdgcn_target "amdgcn-amd-amdhsa--gfx1151"
	.text

.macro begin name
	.globl	\name
	.p2align	8
	.type	\name,@function
\name:
.endm

; s[4:5] = buffer, v1 = 4 * thread
.macro prologue
	s_load_b64 s[4:5], s[0:1], 0x0
	v_and_b32_e32 v0, 0x3ff, v0
	v_lshlrev_b32_e32 v1, 2, v0
	s_waitcnt lgkmcnt(0)
.endm

.macro finish name
	s_endpgm
.L\name\()_end:
	.size	\name, .L\name\()_end-\name
	.section	.rodata,"a",@progbits
	.p2align	6
	.amdhsa_kernel \name
		.amdhsa_group_segment_fixed_size 512
		.amdhsa_kernarg_size 8
		.amdhsa_user_sgpr_kernarg_segment_ptr 1
		.amdhsa_user_sgpr_count 2
		.amdhsa_wavefront_size32 1
		.amdhsa_next_free_vgpr 16
		.amdhsa_next_free_sgpr 16
	.end_amdhsa_kernel
	.text
.endm

begin clean
	prologue
	global_load_b32 v2, v1, s[4:5]
	s_waitcnt vmcnt(0)
	ds_store_b32 v1, v2
	s_waitcnt lgkmcnt(0)
	s_barrier
	v_xor_b32_e32 v3, 0x80, v1
	ds_load_b32 v2, v3
	s_waitcnt lgkmcnt(0)
	v_add_nc_u32_e32 v2, 1, v2
	global_store_b32 v1, v2, s[4:5]
finish clean

begin out_of_bounds
	prologue
	v_add_nc_u32_e32 v1, 0x100000, v1
	global_store_b32 v1, v0, s[4:5]
finish out_of_bounds

begin lds_out_of_bounds
	prologue
	ds_store_b32 v1, v0 offset:384
	s_waitcnt lgkmcnt(0)
finish lds_out_of_bounds

begin uninitialised_memory
	prologue
	global_load_b32 v2, v1, s[4:5] offset:1024
	s_waitcnt vmcnt(0)
finish uninitialised_memory

begin uninitialised_lds
	prologue
	ds_load_b32 v2, v1
	s_waitcnt lgkmcnt(0)
finish uninitialised_lds

begin uninitialised_register
	prologue
	v_add_nc_u32_e32 v2, v7, v0
	global_store_b32 v1, v2, s[4:5]
finish uninitialised_register

; s6 is never set: only bits that EXEC or its complement decides may reach EXEC.
begin decided_mask
	prologue
	v_cmp_gt_u32_e32 vcc_lo, 7, v0
	s_and_not1_b32 s7, s6, exec_lo
	s_and_b32 s8, vcc_lo, exec_lo
	s_or_b32 s7, s7, s8
	s_or_not1_b32 s7, s7, exec_lo
	s_and_saveexec_b32 s8, s7
	global_store_b32 v1, v0, s[4:5]
finish decided_mask

begin undecided_mask
	prologue
	v_cmp_gt_u32_e32 vcc_lo, 7, v0
	s_and_b32 s7, s6, vcc_lo
	s_and_saveexec_b32 s8, s7
	global_store_b32 v1, v0, s[4:5]
finish undecided_mask

begin lds_race
	prologue
	ds_store_b32 v1, v0
	v_xor_b32_e32 v3, 0x80, v1
	ds_load_b32 v2, v3
	s_waitcnt lgkmcnt(0)
finish lds_race

begin global_race
	prologue
	v_mov_b32_e32 v2, 0
	global_store_b32 v2, v0, s[4:5]
finish global_race

begin missing_vector_wait
	prologue
	global_load_b32 v2, v1, s[4:5]
	global_load_b32 v3, v1, s[4:5]
	s_waitcnt vmcnt(1)
	v_add_nc_u32_e32 v4, 1, v2
	v_add_nc_u32_e32 v4, 1, v3
finish missing_vector_wait

begin missing_lds_wait
	prologue
	ds_store_b32 v1, v0
	ds_load_b32 v2, v1
	s_waitcnt lgkmcnt(1)
	v_add_nc_u32_e32 v4, 1, v2
finish missing_lds_wait

begin missing_scalar_wait
	s_load_b64 s[4:5], s[0:1], 0x0
	s_add_u32 s4, s4, 4
finish missing_scalar_wait

begin ended_before_barrier
	prologue
	v_readfirstlane_b32 s6, v0
	s_cmp_eq_u32 s6, 0
	s_cbranch_scc1 .Lended
	s_barrier
.Lended:
finish ended_before_barrier

begin different_barriers
	prologue
	v_readfirstlane_b32 s6, v0
	s_cmp_eq_u32 s6, 0
	s_cbranch_scc1 .Lother
	s_barrier
	s_branch .Ldone
.Lother:
	s_barrier
.Ldone:
finish different_barriers

begin trap
	prologue
	s_trap 2
finish trap

begin unknown_instruction
	prologue
	.long 0xf0000000
finish unknown_instruction

begin endless
.Lagain:
	s_branch .Lagain
finish endless

	.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--gfx1151
amdhsa.kernels:
  - {.name: clean, .symbol: clean.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: out_of_bounds, .symbol: out_of_bounds.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: lds_out_of_bounds, .symbol: lds_out_of_bounds.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: uninitialised_memory, .symbol: uninitialised_memory.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: uninitialised_lds, .symbol: uninitialised_lds.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: uninitialised_register, .symbol: uninitialised_register.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: decided_mask, .symbol: decided_mask.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: undecided_mask, .symbol: undecided_mask.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: lds_race, .symbol: lds_race.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: global_race, .symbol: global_race.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: missing_vector_wait, .symbol: missing_vector_wait.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: missing_lds_wait, .symbol: missing_lds_wait.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: missing_scalar_wait, .symbol: missing_scalar_wait.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: ended_before_barrier, .symbol: ended_before_barrier.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: different_barriers, .symbol: different_barriers.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: trap, .symbol: trap.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: unknown_instruction, .symbol: unknown_instruction.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
  - {.name: endless, .symbol: endless.kd, .kernarg_segment_size: 8, .kernarg_segment_align: 8, .group_segment_fixed_size: 512, .private_segment_fixed_size: 0, .wavefront_size: 32, .sgpr_count: 16, .vgpr_count: 16, .max_flat_workgroup_size: 64, .args: [{.offset: 0, .size: 8, .value_kind: global_buffer, .address_space: global}]}
...
	.end_amdgpu_metadata
