//! Names of devices on the command line: `hip`, `hip:0,1`, `cuda:0`, `emu:gfx1151x4`, `cpu`, `auto`.

use std::fmt;
use std::str::FromStr;

use emulator::Chip;

/// A request for devices, before anyone has looked whether they exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// AMD GPUs through HIP.
    Hip(Which),
    /// NVIDIA GPUs through CUDA.
    Cuda(Which),
    /// Virtual AMD GPUs.
    Emulator {
        /// Chip, one of [`emulator::Chip::ALL`].
        chip: String,
        /// How many, at least one.
        count: usize,
    },
    /// The CPU engine.
    Cpu,
    /// AMD, else NVIDIA, else the CPU engine.
    Auto,
}

/// Which of a driver's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// These, in this order, each once.
    These(Vec<usize>),
}

/// What is wrong with a device name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "device {name:?}: {reason}; expected hip, hip:0,1, cuda, cuda:0, emu:gfx1151, emu:gfx1151x4, \
     cpu or auto"
)]
pub struct DeviceNameError {
    name: String,
    reason: String,
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(name: &str) -> Result<DeviceName, DeviceNameError> {
        let refuse = |reason: String| DeviceNameError { name: name.to_owned(), reason };
        let (kind, rest) = match name.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (name, None),
        };
        match (kind, rest) {
            ("hip", rest) => Ok(DeviceName::Hip(which(rest).map_err(refuse)?)),
            ("cuda", rest) => Ok(DeviceName::Cuda(which(rest).map_err(refuse)?)),
            ("emu", Some(node)) => {
                let (chip, count) = virtual_node(node).map_err(refuse)?;
                Ok(DeviceName::Emulator { chip, count })
            }
            ("emu", None) => Err(refuse("no chip is named".to_owned())),
            ("cpu", None) => Ok(DeviceName::Cpu),
            ("auto", None) => Ok(DeviceName::Auto),
            ("cpu" | "auto", Some(_)) => Err(refuse(format!("{kind} takes no list"))),
            _ => Err(refuse(format!("unknown kind {kind:?}"))),
        }
    }
}

/// The list after `hip:` or `cuda:`.
fn which(list: Option<&str>) -> Result<Which, String> {
    let Some(list) = list else { return Ok(Which::All) };
    let mut indices = Vec::new();
    for item in list.split(',') {
        let digits = !item.is_empty() && item.bytes().all(|b| b.is_ascii_digit());
        let index = item.parse::<usize>().ok().filter(|_| digits);
        let index = index.ok_or_else(|| format!("{item:?} is no device number"))?;
        if indices.contains(&index) {
            return Err(format!("device {index} is named twice"));
        }
        indices.push(index);
    }
    Ok(Which::These(indices))
}

/// `gfx1151x4`: chip and count. No chip has an `x` after its `gfx`: what follows is hexadecimal.
fn virtual_node(node: &str) -> Result<(String, usize), String> {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = node.strip_prefix("gfx").ok_or_else(|| format!("{node:?} is no AMD chip"))?;
    let (number, count) = match number.split_once('x') {
        Some((number, count)) => (number, Some(count)),
        None => (number, None),
    };
    if !hex(number) || number.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("{node:?} is no AMD chip"));
    }
    let count = match count {
        None => 1,
        Some(text) => match text.parse::<usize>() {
            Ok(count) if count > 0 && text.bytes().all(|b| b.is_ascii_digit()) => count,
            _ => return Err(format!("{text:?} is no number of devices")),
        },
    };
    let chip = format!("gfx{number}");
    if !Chip::ALL.iter().any(|known| known.name() == chip) {
        let known = Chip::ALL.map(Chip::name).join(" and ");
        return Err(format!("{chip} is not emulated, {known} are"));
    }
    Ok((chip, count))
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Which::These(indices) = self else { return Ok(()) };
        for (i, index) in indices.iter().enumerate() {
            write!(f, "{}{index}", if i == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Hip(which) => write!(f, "hip{which}"),
            DeviceName::Cuda(which) => write!(f, "cuda{which}"),
            DeviceName::Emulator { chip, count: 1 } => write!(f, "emu:{chip}"),
            DeviceName::Emulator { chip, count } => write!(f, "emu:{chip}x{count}"),
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Auto => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print_back() {
        let emulated = |chip: &str, count| DeviceName::Emulator { chip: chip.to_owned(), count };
        let cases = [
            ("hip", DeviceName::Hip(Which::All)),
            ("hip:0,1", DeviceName::Hip(Which::These(vec![0, 1]))),
            ("hip:3", DeviceName::Hip(Which::These(vec![3]))),
            ("cuda", DeviceName::Cuda(Which::All)),
            ("cuda:0", DeviceName::Cuda(Which::These(vec![0]))),
            ("emu:gfx1151", emulated("gfx1151", 1)),
            ("emu:gfx1100", emulated("gfx1100", 1)),
            ("emu:gfx1151x4", emulated("gfx1151", 4)),
            ("cpu", DeviceName::Cpu),
            ("auto", DeviceName::Auto),
        ];
        for (text, name) in cases {
            assert_eq!(text.parse(), Ok(name.clone()), "{text}");
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn the_chips_are_those_of_the_emulator() {
        for chip in Chip::ALL {
            assert!(format!("emu:{chip}x2").parse::<DeviceName>().is_ok(), "{chip}");
        }
        for name in ["emu:gfx942x4", "emu:gfx90a", "emu:gfx1201"] {
            let error = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(error.contains("is not emulated, gfx1100 and gfx1151 are; "), "{error}");
        }
    }

    #[test]
    fn anything_else_is_one_line_with_the_name_in_it() {
        let names = [
            "",
            "gpu",
            "hip:",
            "hip:a",
            "hip:0,",
            "hip:0,0",
            "hip:-1",
            "hip:+1",
            "cuda:x",
            "emu",
            "emu:",
            "emu:gfx",
            "emu:1151",
            "emu:gfx1151x",
            "emu:gfx1151x0",
            "emu:gfx1151x+2",
            "emu:gfx115G",
            "emu:gfx90A",
            "cpu:0",
            "auto:1",
            "HIP",
            " hip",
            "hip:99999999999999999999",
        ];
        for name in names {
            let error = name.parse::<DeviceName>().expect_err(name).to_string();
            assert!(error.starts_with(&format!("device {name:?}: ")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
