//! Lookup of operations and of what follows from them: constants, operand types, executors.

use std::sync::OnceLock;

use super::super::{Op, Ty, Unit};
use super::sop;
use super::vop::{self, Row};

/// Constants with encodings 240..=248 as f32, f64, f16 and bf16.
const FLOATS: [(u32, u64, u16, u16); 9] = [
    (0x3f00_0000, 0x3fe0_0000_0000_0000, 0x3800, 0x3f00),
    (0xbf00_0000, 0xbfe0_0000_0000_0000, 0xb800, 0xbf00),
    (0x3f80_0000, 0x3ff0_0000_0000_0000, 0x3c00, 0x3f80),
    (0xbf80_0000, 0xbff0_0000_0000_0000, 0xbc00, 0xbf80),
    (0x4000_0000, 0x4000_0000_0000_0000, 0x4000, 0x4000),
    (0xc000_0000, 0xc000_0000_0000_0000, 0xc000, 0xc000),
    (0x4080_0000, 0x4010_0000_0000_0000, 0x4400, 0x4080),
    (0xc080_0000, 0xc010_0000_0000_0000, 0xc400, 0xc080),
    (0x3e22_f983, 0x3fc4_5f30_6dc9_c882, 0x3118, 0x3e23),
];

/// Bits of inline constant `code` for an operand of type `ty`.
pub(super) fn inline_constant(code: u32, ty: Ty) -> Option<u64> {
    let integer = match code {
        128..=192 => i64::from(code) - 128,
        193..=208 => 192 - i64::from(code),
        240..=248 => {
            let (f32, f64, f16, bf16) = FLOATS[code as usize - 240];
            return Some(match ty {
                Ty::F64 | Ty::B64 | Ty::I64 => f64,
                Ty::F16 | Ty::B16 | Ty::PF16 => u64::from(f16),
                Ty::BF16 | Ty::PBF16 => u64::from(bf16),
                _ => u64::from(f32),
            });
        }
        _ => return None,
    };
    Some(match ty {
        Ty::F64 | Ty::B64 | Ty::I64 => integer.cast_unsigned(),
        Ty::F16 | Ty::B16 | Ty::BF16 => u64::from(integer as u16),
        _ => u64::from(integer as u32),
    })
}

pub(super) fn find(rows: &[sop::Row], opcode: u32) -> Option<Op> {
    rows.iter().find(|row| u32::from(row.0) == opcode).map(|row| row.1)
}

/// Type of a scalar operation's constants.
pub(super) fn scalar_type(op: Op) -> Ty {
    let name = format!("{op:?}");
    if name.ends_with("_F16") && name != "S_CVT_F32_F16" {
        Ty::F16
    } else if name.ends_with("64") {
        Ty::B64
    } else {
        Ty::B32
    }
}

/// Source type of comparison `opcode` (without the EXEC-writing bit).
pub(super) fn compare_type(opcode: u32) -> Option<Ty> {
    Some(match opcode {
        0..=15 | 125 => Ty::F16,
        16..=31 | 126 => Ty::F32,
        32..=47 | 127 => Ty::F64,
        49..=54 | 57..=62 => Ty::B16,
        64..=79 => Ty::B32,
        80..=87 => Ty::I64,
        88..=95 => Ty::B64,
        _ => return None,
    })
}

/// The executor of a vector operation.
pub(super) fn unit(row: &Row) -> Unit {
    use Op::*;
    match row.op {
        V_READLANE_B32 | V_WRITELANE_B32 | V_READFIRSTLANE_B32 | V_PERMLANE16_B32
        | V_PERMLANEX16_B32 | V_PERMLANE64_B32 | V_SWAP_B32 | V_SWAP_B16 => return Unit::Lane,
        V_DIV_SCALE_F32 | V_DIV_SCALE_F64 | V_DIV_FMAS_F32 | V_DIV_FMAS_F64 | V_MAD_U64_U32
        | V_MAD_I64_I32 | V_ADD_CO_U32 | V_SUB_CO_U32 | V_SUBREV_CO_U32 | V_ADD_CO_CI_U32
        | V_SUB_CO_CI_U32 | V_SUBREV_CO_CI_U32 => return Unit::Carry,
        V_DOT4_I32_IU8 | V_DOT4_U32_U8 | V_DOT8_I32_IU4 | V_DOT8_U32_U4 | V_FMA_MIX_F32
        | V_FMA_MIXLO_F16 | V_FMA_MIXHI_F16 => return Unit::Packed,
        V_CVT_PK_RTZ_F16_F32 => return Unit::Convert,
        _ => {}
    }
    let all = |f: fn(Ty) -> bool| f(row.dst) && row.src.iter().all(|&ty| f(ty) || ty == Ty::M);
    let any = |f: fn(Ty) -> bool| f(row.dst) || row.src.iter().any(|&ty| f(ty));
    if any(|ty| matches!(ty, Ty::W2 | Ty::W4 | Ty::W8)) {
        Unit::Matrix
    } else if any(Ty::is_64) {
        Unit::Valu64
    } else if all(|ty| matches!(ty, Ty::B32 | Ty::F32)) {
        Unit::Valu32
    } else if all(|ty| matches!(ty, Ty::B16 | Ty::F16)) {
        Unit::Valu16
    } else if row.src.iter().any(|ty| matches!(ty, Ty::P16 | Ty::PF16 | Ty::PBF16)) {
        Unit::Packed
    } else {
        Unit::Convert
    }
}

/// Tables indexed by opcode.
pub(super) struct Tables {
    pub(super) vop1: Vec<Option<Row>>,
    pub(super) vop2: Vec<Option<Row>>,
    pub(super) vop3: Vec<Option<Row>>,
    pub(super) vop3sd: Vec<Option<Row>>,
    pub(super) vop3p: Vec<Option<Row>>,
}

pub(super) fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| Tables {
        vop1: by_opcode(vop::VOP1),
        vop2: by_opcode(vop::VOP2),
        vop3: by_opcode(vop::VOP3),
        vop3sd: by_opcode(vop::VOP3SD),
        vop3p: by_opcode(vop::VOP3P),
    })
}

pub(super) fn by_opcode(rows: &[Row]) -> Vec<Option<Row>> {
    let mut table = vec![None; rows.iter().map(|row| row.opcode as usize + 1).max().unwrap_or(0)];
    for row in rows {
        table[row.opcode as usize] = Some(*row);
    }
    table
}

pub(super) fn find_row(table: &'static [Option<Row>], opcode: u32) -> Option<&'static Row> {
    table.get(opcode as usize)?.as_ref()
}
