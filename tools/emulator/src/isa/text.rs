//! Instructions as text, close to LLVM's syntax.

use std::fmt;

use super::{Dpp, EXEC, Inst, NULL, Op, Space, Src, Ty, Unit, VCC};

/// A scalar register or run of them.
struct Scalar(u8, usize);

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (VCC, 1) => f.write_str("vcc_lo"),
            (107, 1) => f.write_str("vcc_hi"),
            (VCC, _) => f.write_str("vcc"),
            (NULL, _) => f.write_str("null"),
            (125, _) => f.write_str("m0"),
            (126, 1) => f.write_str("exec_lo"),
            (127, 1) => f.write_str("exec_hi"),
            (126, _) => f.write_str("exec"),
            (r @ 108..=123, 1) => write!(f, "ttmp{}", r - 108),
            (r, 0 | 1) => write!(f, "s{r}"),
            (r, n) => write!(f, "s[{}:{}]", r, r as usize + n - 1),
        }
    }
}

/// A vector register or run of them.
struct Vector(u8, usize);

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 | 1 => write!(f, "v{}", self.0),
            n => write!(f, "v[{}:{}]", self.0, self.0 as usize + n - 1),
        }
    }
}

impl Inst {
    /// Name of the instruction, without suffixes for its encoding.
    pub fn mnemonic(&self) -> String {
        if !self.name.is_empty() {
            let prefix = match (self.unit, self.mem.space) {
                (Unit::Global, Space::Flat) => "flat_",
                (Unit::Global, Space::Scratch) => "scratch_",
                (Unit::Global, Space::Global) => "global_",
                _ => "",
            };
            return format!("{prefix}{}", self.name);
        }
        if self.op == Op::V_CMP {
            return compare_name(self.imm.cast_unsigned());
        }
        format!("{:?}", self.op).to_lowercase()
    }

    fn source(&self, n: usize) -> String {
        let ty = self.src_ty[n];
        let scalars = self.scalars(n) as usize;
        let text = match self.src[n] {
            Src::None => return String::new(),
            Src::V(r) => Vector(r, ty.registers()).to_string(),
            Src::S(r) => Scalar(r, scalars).to_string(),
            Src::Const(value) if value.cast_signed() >= -16 && value <= 64 => value.to_string(),
            Src::Const(value) => format!("0x{value:x}"),
            Src::Scc => "src_scc".to_owned(),
            Src::SharedBase => "src_shared_base".to_owned(),
            Src::SharedLimit => "src_shared_limit".to_owned(),
            Src::PrivateBase => "src_private_base".to_owned(),
            Src::PrivateLimit => "src_private_limit".to_owned(),
            Src::Vccz => "src_vccz".to_owned(),
            Src::Execz => "src_execz".to_owned(),
        };
        let half = match (ty.is_16(), self.op_sel >> n & 1) {
            (true, 0) if matches!(self.src[n], Src::V(_)) => ".l",
            (true, 1) => ".h",
            _ => "",
        };
        let text = format!("{text}{half}");
        let packed = self.unit == Unit::Packed || self.unit == Unit::Matrix;
        let text = if !packed && self.abs >> n & 1 != 0 { format!("|{text}|") } else { text };
        if !packed && self.neg >> n & 1 != 0 { format!("-{text}") } else { text }
    }

    /// Whether the third source is the result register, which the syntax leaves out.
    fn accumulates(&self) -> bool {
        use Op::*;
        matches!(
            self.op,
            V_FMAC_F32
                | V_FMAC_F16
                | V_FMAC_DX9_ZERO_F32
                | V_DOT2ACC_F32_F16
                | V_PK_FMAC_F16
                | S_FMAC_F32
                | S_FMAC_F16
        )
    }

    /// Operands in the order of LLVM's syntax.
    fn operands(&self) -> Vec<String> {
        let mut out = Vec::new();
        match self.unit {
            Unit::Salu => {
                if self.dst != NULL {
                    out.push(Scalar(self.dst, self.scalar_results().max(1) as usize).to_string());
                }
            }
            Unit::Smem => {
                out.push(Scalar(self.dst, self.mem.bytes as usize / 4).to_string());
                if let Src::S(r) = self.src[0] {
                    out.push(Scalar(r, 2).to_string());
                }
                out.push(format!("0x{:x}", self.imm));
                return out;
            }
            Unit::Global => return self.memory_operands(),
            Unit::Lds => {
                if self.op == Op::LDS_LOAD || self.mem.returns {
                    let pair = if self.mem.pair_stride == 0 { 1 } else { 2 };
                    out.push(
                        Vector(self.dst, (self.mem.bytes as usize).div_ceil(4) * pair).to_string(),
                    );
                }
                out.push(self.source(0));
                if !matches!(self.op, Op::LDS_LOAD | Op::DS_SWIZZLE_B32) {
                    out.push(self.source(1));
                }
                if self.reads_second_data() {
                    out.push(self.source(2));
                }
                out.push(format!("offset:{}", self.imm));
                return out;
            }
            Unit::Control => {
                if self.scalar_results() != 0 {
                    out.push(Scalar(self.dst, self.scalar_results().max(1) as usize).to_string());
                }
                if self.src[0] == Src::None && self.op != Op::S_GETPC_B64 {
                    out.push(self.imm.to_string());
                }
            }
            Unit::Unknown => {
                return vec![format!("0x{:08x}", self.raw[0]), format!("0x{:08x}", self.raw[1])];
            }
            Unit::Compare if self.sdst == EXEC => {}
            Unit::Compare => out.push(Scalar(self.sdst, 1).to_string()),
            _ if self.ty == Ty::S => out.push(Scalar(self.sdst, 1).to_string()),
            _ => {
                let half = match (self.ty.is_16(), self.op_sel >> 3 & 1) {
                    (true, 0) => ".l",
                    (true, 1) => ".h",
                    _ => "",
                };
                out.push(format!("{}{half}", Vector(self.dst, self.ty.registers())));
                if self.unit == Unit::Carry && self.sdst != NULL {
                    out.push(Scalar(self.sdst, 1).to_string());
                }
            }
        }
        let shown = if self.accumulates() { 2 } else { 3 };
        out.extend((0..shown).map(|n| self.source(n)).filter(|text| !text.is_empty()));
        out
    }

    fn memory_operands(&self) -> Vec<String> {
        let mut out = Vec::new();
        let registers = (self.mem.bytes as usize).div_ceil(4);
        if self.op == Op::LOAD || self.mem.returns {
            out.push(Vector(self.dst, registers).to_string());
        }
        let scalar = matches!(self.src[2], Src::S(_));
        match self.src[0] {
            Src::V(r) if scalar || self.mem.space == Space::Scratch => {
                out.push(Vector(r, 1).to_string())
            }
            Src::V(r) => out.push(Vector(r, 2).to_string()),
            _ => out.push("off".to_owned()),
        }
        if self.op != Op::LOAD
            && let Src::V(r) = self.src[1]
        {
            out.push(Vector(r, registers).to_string());
        }
        match self.src[2] {
            Src::S(r) => {
                out.push(Scalar(r, if self.mem.space == Space::Global { 2 } else { 1 }).to_string())
            }
            _ if self.mem.space != Space::Flat => out.push("off".to_owned()),
            _ => {}
        }
        if self.imm != 0 {
            out.push(format!("offset:{}", self.imm));
        }
        out
    }
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unit == Unit::Dual {
            f.write_str("v_dual ")?;
        }
        f.write_str(&self.mnemonic())?;
        let operands = self.operands();
        if !operands.is_empty() {
            write!(f, " {}", operands.join(", "))?;
        }
        match self.dpp {
            Dpp::None => {}
            Dpp::Eight { selectors, .. } => write!(f, " dpp8:0x{selectors:x}")?,
            Dpp::Sixteen { control, .. } => write!(f, " dpp16:0x{control:x}")?,
        }
        if self.clamp {
            f.write_str(" clamp")?;
        }
        Ok(())
    }
}

/// Name of comparison `opcode`.
fn compare_name(opcode: u32) -> String {
    let prefix = if opcode & 0x80 != 0 { "v_cmpx" } else { "v_cmp" };
    let code = opcode & 0x7f;
    let ty = match code {
        0..=15 | 125 => "f16",
        16..=31 | 126 => "f32",
        32..=47 | 127 => "f64",
        49..=54 => "i16",
        57..=62 => "u16",
        64..=71 => "i32",
        72..=79 => "u32",
        80..=87 => "i64",
        _ => "u64",
    };
    let float = [
        "f", "lt", "eq", "le", "gt", "lg", "ge", "o", "u", "nge", "nlg", "ngt", "nle", "neq",
        "nlt", "t",
    ];
    let integer = ["f", "lt", "eq", "le", "gt", "ne", "ge", "t"];
    let condition = match code {
        125.. => "class",
        0..=47 => float[code as usize & 15],
        _ => integer[code as usize & 7],
    };
    format!("{prefix}_{condition}_{ty}")
}
