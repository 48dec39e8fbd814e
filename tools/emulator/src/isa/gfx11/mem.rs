//! Memory instructions of gfx11: opcode, name, shape.
//!
//! Facts from AMD's machine-readable RDNA3.5 ISA description, through tinygrad's MIT-licensed
//! `autogen/amd/rdna3`.

use super::super::Op::{self, *};
use super::super::{Atomic, Mem};

/// One memory instruction.
pub(super) struct Row {
    pub(super) opcode: u16,
    pub(super) name: &'static str,
    pub(super) op: Op,
    pub(super) mem: Mem,
}

const fn m(opcode: u16, name: &'static str, (op, mem): (Op, Mem)) -> Row {
    Row { opcode, name, op, mem }
}

const fn load(bytes: u8) -> (Op, Mem) {
    (LOAD, Mem { bytes, ..Mem::NONE })
}

const fn load_signed(bytes: u8) -> (Op, Mem) {
    (LOAD, Mem { bytes, signed: true, ..Mem::NONE })
}

const fn load_d16(bytes: u8, signed: bool, high: bool) -> (Op, Mem) {
    (LOAD, Mem { bytes, signed, d16: true, high, ..Mem::NONE })
}

const fn store(bytes: u8) -> (Op, Mem) {
    (STORE, Mem { bytes, ..Mem::NONE })
}

const fn store_d16_hi(bytes: u8) -> (Op, Mem) {
    (STORE, Mem { bytes, high: true, ..Mem::NONE })
}

const fn atomic(atomic: Atomic, bytes: u8) -> (Op, Mem) {
    (ATOMIC, Mem { bytes, atomic, ..Mem::NONE })
}

const fn lds_load(bytes: u8) -> (Op, Mem) {
    (LDS_LOAD, load(bytes).1)
}

const fn lds_load_signed(bytes: u8) -> (Op, Mem) {
    (LDS_LOAD, load_signed(bytes).1)
}

const fn lds_load_d16(bytes: u8, signed: bool, high: bool) -> (Op, Mem) {
    (LDS_LOAD, load_d16(bytes, signed, high).1)
}

const fn lds_store(bytes: u8) -> (Op, Mem) {
    (LDS_STORE, store(bytes).1)
}

const fn lds_store_d16_hi(bytes: u8) -> (Op, Mem) {
    (LDS_STORE, store_d16_hi(bytes).1)
}

/// Two accesses whose 8-bit offsets count in units of `stride` bytes.
const fn lds_pair(op: Op, bytes: u8, stride: u16) -> (Op, Mem) {
    let op = if matches!(op, LOAD) { LDS_LOAD } else { LDS_STORE };
    (op, Mem { bytes, pair_stride: stride, ..Mem::NONE })
}

const fn lds_atomic(atomic: Atomic, bytes: u8, returns: bool) -> (Op, Mem) {
    (LDS_ATOMIC, Mem { bytes, atomic, returns, ..Mem::NONE })
}

const fn lane(op: Op) -> (Op, Mem) {
    (op, Mem { bytes: 4, returns: true, ..Mem::NONE })
}

/// FLAT, GLOBAL and SCRATCH; the name follows that prefix.
pub(super) const FLAT: &[Row] = &[
    m(16, "load_u8", load(1)),
    m(17, "load_i8", load_signed(1)),
    m(18, "load_u16", load(2)),
    m(19, "load_i16", load_signed(2)),
    m(20, "load_b32", load(4)),
    m(21, "load_b64", load(8)),
    m(22, "load_b96", load(12)),
    m(23, "load_b128", load(16)),
    m(24, "store_b8", store(1)),
    m(25, "store_b16", store(2)),
    m(26, "store_b32", store(4)),
    m(27, "store_b64", store(8)),
    m(28, "store_b96", store(12)),
    m(29, "store_b128", store(16)),
    m(30, "load_d16_u8", load_d16(1, false, false)),
    m(31, "load_d16_i8", load_d16(1, true, false)),
    m(32, "load_d16_b16", load_d16(2, false, false)),
    m(33, "load_d16_hi_u8", load_d16(1, false, true)),
    m(34, "load_d16_hi_i8", load_d16(1, true, true)),
    m(35, "load_d16_hi_b16", load_d16(2, false, true)),
    m(36, "store_d16_hi_b8", store_d16_hi(1)),
    m(37, "store_d16_hi_b16", store_d16_hi(2)),
    m(51, "atomic_swap_b32", atomic(Atomic::Swap, 4)),
    m(52, "atomic_cmpswap_b32", atomic(Atomic::CmpSwap, 4)),
    m(53, "atomic_add_u32", atomic(Atomic::Add, 4)),
    m(54, "atomic_sub_u32", atomic(Atomic::Sub, 4)),
    m(56, "atomic_min_i32", atomic(Atomic::MinI, 4)),
    m(57, "atomic_min_u32", atomic(Atomic::MinU, 4)),
    m(58, "atomic_max_i32", atomic(Atomic::MaxI, 4)),
    m(59, "atomic_max_u32", atomic(Atomic::MaxU, 4)),
    m(60, "atomic_and_b32", atomic(Atomic::And, 4)),
    m(61, "atomic_or_b32", atomic(Atomic::Or, 4)),
    m(62, "atomic_xor_b32", atomic(Atomic::Xor, 4)),
    m(63, "atomic_inc_u32", atomic(Atomic::Inc, 4)),
    m(64, "atomic_dec_u32", atomic(Atomic::Dec, 4)),
    m(65, "atomic_swap_b64", atomic(Atomic::Swap, 8)),
    m(66, "atomic_cmpswap_b64", atomic(Atomic::CmpSwap, 8)),
    m(67, "atomic_add_u64", atomic(Atomic::Add, 8)),
    m(68, "atomic_sub_u64", atomic(Atomic::Sub, 8)),
    m(69, "atomic_min_i64", atomic(Atomic::MinI, 8)),
    m(70, "atomic_min_u64", atomic(Atomic::MinU, 8)),
    m(71, "atomic_max_i64", atomic(Atomic::MaxI, 8)),
    m(72, "atomic_max_u64", atomic(Atomic::MaxU, 8)),
    m(73, "atomic_and_b64", atomic(Atomic::And, 8)),
    m(74, "atomic_or_b64", atomic(Atomic::Or, 8)),
    m(75, "atomic_xor_b64", atomic(Atomic::Xor, 8)),
    m(76, "atomic_inc_u64", atomic(Atomic::Inc, 8)),
    m(77, "atomic_dec_u64", atomic(Atomic::Dec, 8)),
    m(81, "atomic_min_f32", atomic(Atomic::MinF, 4)),
    m(82, "atomic_max_f32", atomic(Atomic::MaxF, 4)),
    m(86, "atomic_add_f32", atomic(Atomic::AddF, 4)),
];

/// LDS.
pub(super) const DS: &[Row] = &[
    m(0, "ds_add_u32", lds_atomic(Atomic::Add, 4, false)),
    m(1, "ds_sub_u32", lds_atomic(Atomic::Sub, 4, false)),
    m(2, "ds_rsub_u32", lds_atomic(Atomic::RSub, 4, false)),
    m(3, "ds_inc_u32", lds_atomic(Atomic::Inc, 4, false)),
    m(4, "ds_dec_u32", lds_atomic(Atomic::Dec, 4, false)),
    m(5, "ds_min_i32", lds_atomic(Atomic::MinI, 4, false)),
    m(6, "ds_max_i32", lds_atomic(Atomic::MaxI, 4, false)),
    m(7, "ds_min_u32", lds_atomic(Atomic::MinU, 4, false)),
    m(8, "ds_max_u32", lds_atomic(Atomic::MaxU, 4, false)),
    m(9, "ds_and_b32", lds_atomic(Atomic::And, 4, false)),
    m(10, "ds_or_b32", lds_atomic(Atomic::Or, 4, false)),
    m(11, "ds_xor_b32", lds_atomic(Atomic::Xor, 4, false)),
    m(12, "ds_mskor_b32", lds_atomic(Atomic::MskOr, 4, false)),
    m(13, "ds_store_b32", lds_store(4)),
    m(14, "ds_store_2addr_b32", lds_pair(STORE, 4, 4)),
    m(15, "ds_store_2addr_stride64_b32", lds_pair(STORE, 4, 256)),
    m(16, "ds_cmpstore_b32", lds_atomic(Atomic::CmpStore, 4, false)),
    m(18, "ds_min_f32", lds_atomic(Atomic::MinF, 4, false)),
    m(19, "ds_max_f32", lds_atomic(Atomic::MaxF, 4, false)),
    m(21, "ds_add_f32", lds_atomic(Atomic::AddF, 4, false)),
    m(30, "ds_store_b8", lds_store(1)),
    m(31, "ds_store_b16", lds_store(2)),
    m(32, "ds_add_rtn_u32", lds_atomic(Atomic::Add, 4, true)),
    m(33, "ds_sub_rtn_u32", lds_atomic(Atomic::Sub, 4, true)),
    m(34, "ds_rsub_rtn_u32", lds_atomic(Atomic::RSub, 4, true)),
    m(35, "ds_inc_rtn_u32", lds_atomic(Atomic::Inc, 4, true)),
    m(36, "ds_dec_rtn_u32", lds_atomic(Atomic::Dec, 4, true)),
    m(37, "ds_min_rtn_i32", lds_atomic(Atomic::MinI, 4, true)),
    m(38, "ds_max_rtn_i32", lds_atomic(Atomic::MaxI, 4, true)),
    m(39, "ds_min_rtn_u32", lds_atomic(Atomic::MinU, 4, true)),
    m(40, "ds_max_rtn_u32", lds_atomic(Atomic::MaxU, 4, true)),
    m(41, "ds_and_rtn_b32", lds_atomic(Atomic::And, 4, true)),
    m(42, "ds_or_rtn_b32", lds_atomic(Atomic::Or, 4, true)),
    m(43, "ds_xor_rtn_b32", lds_atomic(Atomic::Xor, 4, true)),
    m(44, "ds_mskor_rtn_b32", lds_atomic(Atomic::MskOr, 4, true)),
    m(45, "ds_storexchg_rtn_b32", lds_atomic(Atomic::Swap, 4, true)),
    m(48, "ds_cmpstore_rtn_b32", lds_atomic(Atomic::CmpStore, 4, true)),
    m(50, "ds_min_rtn_f32", lds_atomic(Atomic::MinF, 4, true)),
    m(51, "ds_max_rtn_f32", lds_atomic(Atomic::MaxF, 4, true)),
    m(53, "ds_swizzle_b32", lane(DS_SWIZZLE_B32)),
    m(54, "ds_load_b32", lds_load(4)),
    m(55, "ds_load_2addr_b32", lds_pair(LOAD, 4, 4)),
    m(56, "ds_load_2addr_stride64_b32", lds_pair(LOAD, 4, 256)),
    m(57, "ds_load_i8", lds_load_signed(1)),
    m(58, "ds_load_u8", lds_load(1)),
    m(59, "ds_load_i16", lds_load_signed(2)),
    m(60, "ds_load_u16", lds_load(2)),
    m(64, "ds_add_u64", lds_atomic(Atomic::Add, 8, false)),
    m(65, "ds_sub_u64", lds_atomic(Atomic::Sub, 8, false)),
    m(66, "ds_rsub_u64", lds_atomic(Atomic::RSub, 8, false)),
    m(67, "ds_inc_u64", lds_atomic(Atomic::Inc, 8, false)),
    m(68, "ds_dec_u64", lds_atomic(Atomic::Dec, 8, false)),
    m(69, "ds_min_i64", lds_atomic(Atomic::MinI, 8, false)),
    m(70, "ds_max_i64", lds_atomic(Atomic::MaxI, 8, false)),
    m(71, "ds_min_u64", lds_atomic(Atomic::MinU, 8, false)),
    m(72, "ds_max_u64", lds_atomic(Atomic::MaxU, 8, false)),
    m(73, "ds_and_b64", lds_atomic(Atomic::And, 8, false)),
    m(74, "ds_or_b64", lds_atomic(Atomic::Or, 8, false)),
    m(75, "ds_xor_b64", lds_atomic(Atomic::Xor, 8, false)),
    m(76, "ds_mskor_b64", lds_atomic(Atomic::MskOr, 8, false)),
    m(77, "ds_store_b64", lds_store(8)),
    m(78, "ds_store_2addr_b64", lds_pair(STORE, 8, 8)),
    m(79, "ds_store_2addr_stride64_b64", lds_pair(STORE, 8, 512)),
    m(80, "ds_cmpstore_b64", lds_atomic(Atomic::CmpStore, 8, false)),
    m(82, "ds_min_f64", lds_atomic(Atomic::MinF, 8, false)),
    m(83, "ds_max_f64", lds_atomic(Atomic::MaxF, 8, false)),
    m(96, "ds_add_rtn_u64", lds_atomic(Atomic::Add, 8, true)),
    m(97, "ds_sub_rtn_u64", lds_atomic(Atomic::Sub, 8, true)),
    m(98, "ds_rsub_rtn_u64", lds_atomic(Atomic::RSub, 8, true)),
    m(99, "ds_inc_rtn_u64", lds_atomic(Atomic::Inc, 8, true)),
    m(100, "ds_dec_rtn_u64", lds_atomic(Atomic::Dec, 8, true)),
    m(101, "ds_min_rtn_i64", lds_atomic(Atomic::MinI, 8, true)),
    m(102, "ds_max_rtn_i64", lds_atomic(Atomic::MaxI, 8, true)),
    m(103, "ds_min_rtn_u64", lds_atomic(Atomic::MinU, 8, true)),
    m(104, "ds_max_rtn_u64", lds_atomic(Atomic::MaxU, 8, true)),
    m(105, "ds_and_rtn_b64", lds_atomic(Atomic::And, 8, true)),
    m(106, "ds_or_rtn_b64", lds_atomic(Atomic::Or, 8, true)),
    m(107, "ds_xor_rtn_b64", lds_atomic(Atomic::Xor, 8, true)),
    m(108, "ds_mskor_rtn_b64", lds_atomic(Atomic::MskOr, 8, true)),
    m(109, "ds_storexchg_rtn_b64", lds_atomic(Atomic::Swap, 8, true)),
    m(112, "ds_cmpstore_rtn_b64", lds_atomic(Atomic::CmpStore, 8, true)),
    m(114, "ds_min_rtn_f64", lds_atomic(Atomic::MinF, 8, true)),
    m(115, "ds_max_rtn_f64", lds_atomic(Atomic::MaxF, 8, true)),
    m(118, "ds_load_b64", lds_load(8)),
    m(119, "ds_load_2addr_b64", lds_pair(LOAD, 8, 8)),
    m(120, "ds_load_2addr_stride64_b64", lds_pair(LOAD, 8, 512)),
    m(121, "ds_add_rtn_f32", lds_atomic(Atomic::AddF, 4, true)),
    m(160, "ds_store_b8_d16_hi", lds_store_d16_hi(1)),
    m(161, "ds_store_b16_d16_hi", lds_store_d16_hi(2)),
    m(162, "ds_load_u8_d16", lds_load_d16(1, false, false)),
    m(163, "ds_load_u8_d16_hi", lds_load_d16(1, false, true)),
    m(164, "ds_load_i8_d16", lds_load_d16(1, true, false)),
    m(165, "ds_load_i8_d16_hi", lds_load_d16(1, true, true)),
    m(166, "ds_load_u16_d16", lds_load_d16(2, false, false)),
    m(167, "ds_load_u16_d16_hi", lds_load_d16(2, false, true)),
    m(178, "ds_permute_b32", lane(DS_PERMUTE_B32)),
    m(179, "ds_bpermute_b32", lane(DS_BPERMUTE_B32)),
    m(222, "ds_store_b96", lds_store(12)),
    m(223, "ds_store_b128", lds_store(16)),
    m(254, "ds_load_b96", lds_load(12)),
    m(255, "ds_load_b128", lds_load(16)),
];
