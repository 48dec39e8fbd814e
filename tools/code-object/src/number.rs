//! Constants that a build leaves in its output: a 64-bit number under a symbol.

use crate::CodeObject;

impl CodeObject {
    /// The 64-bit number at `symbol`.
    pub fn number(&self, symbol: &str) -> Option<u64> {
        let address = self.symbol(symbol)?.address;
        let bytes = self.bytes(address..address.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// The 64-bit number that PTX has as `.visible .global .align 8 .b8 SYMBOL[8] = {BYTE, BYTE, ...};`.
pub fn ptx_number(text: &str, symbol: &str) -> Option<u64> {
    let head = format!(" {symbol}[8] = {{");
    let line = text.lines().find(|line| line.contains(".global") && line.contains(&head))?;
    let (list, _) = line.split_once(&head)?.1.split_once('}')?;
    let bytes: Vec<u8> =
        list.split(',').map(|byte| byte.trim().parse().ok()).collect::<Option<_>>()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_from_ptx() {
        let line = ".visible .global .align 8 .b8 HASH[8] = {1, 2, 3, 4, 5, 6, 7, 255};\n";
        assert_eq!(ptx_number(line, "HASH"), Some(0xff07_0605_0403_0201));
        assert_eq!(ptx_number(line, "ASH"), None);
        for broken in [line.replace("255", "256"), line.replace(", 255", ""), line.replace('}', "")]
        {
            assert_eq!(ptx_number(&broken, "HASH"), None, "{broken}");
        }
    }
}
