//! The one runtime of the process: virtual devices, their memory, and what the
//! environment or the program asked of them.

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock};

use super::device::Device;
use super::error::{Error, Result};
use super::signal::lock;
use super::stats::Stats;
use crate::{Checkers, Chip, Memory, Options, UnknownChip};

/// Chip and number of devices, as in `gfx1151x4`.
const DEVICES: &str = "GPTOSS_EMU";
/// Checkers to run, as in `uninit,races`.
const CHECK: &str = "GPTOSS_EMU_CHECK";
/// Host threads per launch.
const THREADS: &str = "GPTOSS_EMU_THREADS";
/// Bytes of memory per device, as in `16G`.
const MEMORY: &str = "GPTOSS_EMU_MEMORY";

const DEFAULT_CHIP: Chip = Chip::Gfx1151;
/// Virtual only: pages are committed when they are touched.
const DEFAULT_MEMORY: usize = 16 << 30;
const MAX_DEVICES: usize = 64;

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No such chip.
    #[error(transparent)]
    Chip(#[from] UnknownChip),
    /// Too many devices, or none.
    #[error("{0} devices: expected 1 to {MAX_DEVICES}")]
    Devices(usize),
    /// [`configure`] was called after the first call of HIP.
    #[error("the emulated devices are in use: configure them before the first HIP call")]
    InUse,
    /// An environment variable does not parse.
    #[error("{variable}={value}: expected {expected}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
}

#[derive(Clone, Debug, PartialEq)]
struct Config {
    chip: Chip,
    devices: usize,
    memory: usize,
    options: Options,
}

/// The state behind the HIP functions.
pub struct Runtime {
    pub devices: Vec<Device>,
    pub memory: Arc<Memory>,
    pub options: Options,
    pub stats: Mutex<Stats>,
}

static REQUESTED: Mutex<Option<(Chip, usize)>> = Mutex::new(None);
static CHECKERS: Mutex<Option<Checkers>> = Mutex::new(None);
static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Chooses the chip and the number of virtual devices for this process, in place
/// of what `GPTOSS_EMU` says.
///
/// # Errors
/// An unknown chip, a number of devices outside 1 to 64, or devices that are in
/// use with another configuration.
pub fn configure(chip: &str, devices: usize) -> std::result::Result<(), ConfigError> {
    let chip: Chip = chip.parse()?;
    if !(1..=MAX_DEVICES).contains(&devices) {
        return Err(ConfigError::Devices(devices));
    }
    let mut requested = lock(&REQUESTED);
    if let Some(Some(running)) = RUNTIME.get() {
        let same = running.devices.len() == devices && running.devices[0].chip == chip;
        return if same { Ok(()) } else { Err(ConfigError::InUse) };
    }
    *requested = Some((chip, devices));
    Ok(())
}

/// Chooses the checkers for this process where `GPTOSS_EMU_CHECK` names none.
///
/// # Errors
/// The devices are in use already.
pub fn default_checkers(checkers: Checkers) -> std::result::Result<(), ConfigError> {
    let mut default = lock(&CHECKERS);
    if running().is_some() {
        return Err(ConfigError::InUse);
    }
    *default = Some(checkers);
    Ok(())
}

/// The runtime, started on first use.
///
/// # Errors
/// [`Error::NotInitialized`] if the environment asks for something impossible;
/// the reason is printed once.
pub fn runtime() -> Result<&'static Runtime> {
    let start = || {
        let requested = *lock(&REQUESTED);
        let variable = |name: &str| std::env::var(name).ok();
        match Config::from_environment(requested, variable) {
            Ok(mut config) => {
                if let (Some(checkers), None) = (*lock(&CHECKERS), variable(CHECK)) {
                    config.options.checkers = checkers;
                }
                Some(Runtime::new(&config))
            }
            Err(error) => {
                eprintln!("emulator: {error}");
                None
            }
        }
    };
    RUNTIME.get_or_init(start).as_ref().ok_or(Error::NotInitialized)
}

/// The runtime if anything has used it yet.
pub fn running() -> Option<&'static Runtime> {
    RUNTIME.get().and_then(Option::as_ref)
}

/// The device with this number.
pub fn device(index: i32) -> Result<&'static Device> {
    let devices = &runtime()?.devices;
    usize::try_from(index).ok().and_then(|index| devices.get(index)).ok_or(Error::InvalidDevice)
}

/// The calling thread's device.
pub fn current() -> Result<&'static Device> {
    runtime()?.devices.get(CURRENT.get()).ok_or(Error::InvalidDevice)
}

/// Makes a device the calling thread's.
pub fn set_current(device: &Device) {
    CURRENT.set(device.index);
}

impl Runtime {
    fn new(config: &Config) -> Self {
        let memory = Arc::new(Memory::new());
        memory.track_initialisation(config.options.checkers.uninitialised);
        let device = |index| Device::new(index, config.chip, config.memory);
        Self {
            devices: (0..config.devices).map(device).collect(),
            memory,
            options: config.options,
            stats: Mutex::default(),
        }
    }
}

impl Config {
    fn from_environment(
        requested: Option<(Chip, usize)>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> std::result::Result<Self, ConfigError> {
        let (chip, devices) = match (requested, variable(DEVICES)) {
            (Some(requested), _) => requested,
            (None, Some(value)) => parse_devices(&value)?,
            (None, None) => (DEFAULT_CHIP, 1),
        };
        let mut options = Options::default();
        if let Some(value) = variable(CHECK) {
            options.checkers = parse_checkers(&value)?;
        }
        if let Some(value) = variable(THREADS) {
            options.threads = value.parse().map_err(|_| ConfigError::Variable {
                variable: THREADS,
                value,
                expected: "a number of threads, 0 for one per core",
            })?;
        }
        let memory = variable(MEMORY).map_or(Ok(DEFAULT_MEMORY), |value| parse_bytes(&value))?;
        Ok(Self { chip, devices, memory, options })
    }
}

fn parse_devices(value: &str) -> std::result::Result<(Chip, usize), ConfigError> {
    let all_digits = |count: &str| !count.is_empty() && count.bytes().all(|c| c.is_ascii_digit());
    // The name of a chip ends in hexadecimal digits, of which x is none.
    let name_bytes = value.rfind('x').filter(|&at| at > "gf".len());
    let (chip, devices) = match name_bytes.map(|at| (&value[..at], &value[at + 1..])) {
        Some((chip, count)) if all_digits(count) => (chip, count.parse().unwrap_or(usize::MAX)),
        _ => (value, 1),
    };
    if !(1..=MAX_DEVICES).contains(&devices) {
        return Err(ConfigError::Devices(devices));
    }
    Ok((chip.parse()?, devices))
}

fn parse_checkers(value: &str) -> std::result::Result<Checkers, ConfigError> {
    let mut checkers = Checkers::default();
    for name in value.split(',').filter(|name| !name.is_empty()) {
        match name {
            "all" => checkers = Checkers::ALL,
            "uninit" => checkers.uninitialised = true,
            "races" => checkers.races = true,
            "waits" => checkers.waits = true,
            "barriers" => checkers.barriers = true,
            _ => {
                return Err(ConfigError::Variable {
                    variable: CHECK,
                    value: value.to_owned(),
                    expected: "all, or some of uninit,races,waits,barriers",
                });
            }
        }
    }
    Ok(checkers)
}

fn parse_bytes(value: &str) -> std::result::Result<usize, ConfigError> {
    let (digits, shift) = match value.as_bytes().last() {
        Some(b'K') => (&value[..value.len() - 1], 10),
        Some(b'M') => (&value[..value.len() - 1], 20),
        Some(b'G') => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes > 0).ok_or_else(|| ConfigError::Variable {
        variable: MEMORY,
        value: value.to_owned(),
        expected: "a positive number of bytes, optionally with K, M or G",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(set: &[(&str, &str)]) -> std::result::Result<Config, ConfigError> {
        Config::from_environment(None, |name| {
            set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_set_gives_one_device_of_the_default_chip() {
        let config = config(&[]).unwrap();
        assert_eq!((config.chip, config.devices), (Chip::Gfx1151, 1));
        assert_eq!(config.memory, 16 << 30);
    }

    #[test]
    fn a_chip_alone_is_one_device() {
        let config = config(&[(DEVICES, "gfx1100")]).unwrap();
        assert_eq!((config.chip, config.devices), (Chip::Gfx1100, 1));
    }

    #[test]
    fn everything_set_is_taken() {
        let set =
            [(DEVICES, "gfx1100x4"), (CHECK, "uninit,races"), (THREADS, "3"), (MEMORY, "256M")];
        let config = config(&set).unwrap();
        assert_eq!((config.chip, config.devices), (Chip::Gfx1100, 4));
        assert_eq!(config.memory, 256 << 20);
        assert_eq!(config.options.threads, 3);
        let expected = Checkers { uninitialised: true, races: true, ..Checkers::default() };
        assert_eq!(config.options.checkers, expected);
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (variable, value) in [
            (DEVICES, "gfx906"),
            (DEVICES, "gfx1151x0"),
            (DEVICES, "gfx1151x99999999999999999999"),
            (DEVICES, "x"),
            (CHECK, "memory"),
            (THREADS, "many"),
            (MEMORY, "0"),
            (MEMORY, "99999999999G"),
        ] {
            let error = config(&[(variable, value)]).unwrap_err().to_string();
            let named = value.trim_start_matches("gfx1151x");
            let saturated = error.contains(&usize::MAX.to_string());
            assert!(saturated || error.contains(named), "{variable}={value}: {error}");
        }
    }
}
