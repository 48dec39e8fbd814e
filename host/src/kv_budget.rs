//! How much memory keys and values may take, and how many pages that makes.

use std::fmt;
use std::str::FromStr;

use shared::kv::PAGE;
use shared::model::ModelConfig;

use crate::pages::Geometry;

/// What is left free for others, of what is free.
const RESERVE: u64 = 16;

/// Memory for keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvBudget {
    /// What is free, but not more than the worst case takes.
    #[default]
    Free,
    /// This many bytes, but not more than the worst case takes.
    Bytes(u64),
    /// The worst case: every sequence as long as it may become, at the same time.
    WorstCase,
    /// Exactly so many pages for full and for windowed layers.
    Pages(usize, usize),
}

/// What is no budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, full or a number of bytes as 800M or 12G (k, M, G count 1024)")]
pub struct ParseBudgetError;

impl FromStr for KvBudget {
    type Err = ParseBudgetError;

    fn from_str(text: &str) -> Result<KvBudget, ParseBudgetError> {
        let unit = |suffix: char| 1u64 << (10 * " kMG".find(suffix).unwrap_or(0));
        let (digits, unit) = match text.strip_suffix(['k', 'M', 'G']) {
            Some(digits) => (digits, text.chars().last().map_or(1, unit)),
            None => (text, 1),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match text {
            "auto" => Ok(KvBudget::Free),
            "full" => Ok(KvBudget::WorstCase),
            _ => digits
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(unit))
                .filter(|bytes| is_number && *bytes > 0)
                .map(KvBudget::Bytes)
                .ok_or(ParseBudgetError),
        }
    }
}

impl fmt::Display for KvBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvBudget::Free => write!(f, "auto"),
            KvBudget::WorstCase => write!(f, "full"),
            KvBudget::Bytes(bytes) => write!(f, "{bytes}"),
            KvBudget::Pages(full, windowed) => write!(f, "{full} and {windowed} pages"),
        }
    }
}

/// What a device has to offer.
#[derive(Clone, Copy, Debug)]
pub struct Supply {
    /// Free bytes.
    pub free: u64,
    /// Bytes of one page of one layer.
    pub page_bytes: u64,
    /// Steps under way at a time.
    pub in_flight: usize,
}

/// The memory does not hold one sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{has} MB for keys and values, expected at least {least} MB: the least that one sequence can \
     run with (the worst case is {worst} MB)"
)]
pub struct KvBudgetError {
    /// Memory there is, in MB.
    pub has: u64,
    /// What one sequence needs for its window and one full page, in MB.
    pub least: u64,
    /// What [`KvBudget::WorstCase`] takes, in MB.
    pub worst: u64,
}

impl KvBudget {
    /// Pages for `sequences` of `positions` each, in steps of `step_tokens`.
    ///
    /// Windowed layers get what their windows and the steps under way take, and a quarter more of
    /// what the full layers get: pages behind a window are kept while there is room, so that a text
    /// can be taken up again where its window is still there.
    pub fn geometry(
        self,
        config: &ModelConfig,
        (sequences, positions): (usize, usize),
        step_tokens: usize,
        supply: Supply,
    ) -> Result<Geometry, KvBudgetError> {
        let window = config.sliding_window;
        let tokens = step_tokens * supply.in_flight;
        let worst = Geometry::worst_case(sequences, positions, tokens, window);
        let worst =
            Geometry { windowed: (worst.windowed + worst.full / 4).min(worst.full), ..worst };
        let bytes = |geometry: &Geometry| geometry_bytes(config, geometry, supply);
        let mb = |geometry: &Geometry| bytes(geometry).div_ceil(1_000_000);
        let refused = |has: u64, least: &Geometry| {
            let (least, worst) = (mb(least), mb(&worst));
            Err(KvBudgetError { has: has / 1_000_000, least, worst })
        };
        // Less than a fixed number of pages is no answer to whoever asked for it.
        let fixed = |geometry: Geometry| match geometry.max_positions() {
            1.. if bytes(&geometry) <= supply.free => Ok(geometry),
            _ => refused(supply.free, &geometry),
        };
        let has = match self {
            KvBudget::WorstCase => return fixed(worst),
            KvBudget::Pages(full, windowed) => return fixed(Geometry { full, windowed, window }),
            KvBudget::Free => supply.free - supply.free / RESERVE,
            KvBudget::Bytes(bytes) => bytes.min(supply.free),
        };
        let fits = |geometry: &Geometry| bytes(geometry) <= has;
        if fits(&worst) {
            return Ok(worst);
        }
        // The most full pages that fit with what their windowed layers then need.
        let own = Geometry::window_pages(window) + 1;
        let with = |full: usize| {
            let share =
                sequences.saturating_mul(own).min(full / 2) + tokens.div_ceil(PAGE).min(full);
            let windowed = share.max(Geometry::window_pages(window)) + full / 8;
            Geometry { full, windowed: windowed.min(full.max(1)), window }
        };
        let (mut low, mut high) = (0, worst.full);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(&with(middle)) { low = middle } else { high = middle - 1 }
        }
        // A window has to fit, or no text could come to its end.
        let least = Geometry::window_pages(window).min(worst.full);
        if low < least {
            return refused(has, &Geometry { full: least, windowed: least, window });
        }
        Ok(with(low))
    }
}

/// Bytes of all pages.
pub fn geometry_bytes(config: &ModelConfig, geometry: &Geometry, supply: Supply) -> u64 {
    let pages = |layer| match config.window(layer) {
        Some(_) => geometry.windowed as u64,
        None => geometry.full as u64,
    };
    let all = (0..config.num_hidden_layers).fold(0u64, |sum, l| sum.saturating_add(pages(l)));
    all.saturating_mul(supply.page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::Preset;

    #[test]
    fn a_budget_is_a_word_or_bytes() {
        for (text, value) in [
            ("auto", KvBudget::Free),
            ("full", KvBudget::WorstCase),
            ("1", KvBudget::Bytes(1)),
            ("3k", KvBudget::Bytes(3 << 10)),
            ("800M", KvBudget::Bytes(800 << 20)),
            ("12G", KvBudget::Bytes(12 << 30)),
            ("17179869183G", KvBudget::Bytes(17_179_869_183 << 30)),
        ] {
            assert_eq!(text.parse(), Ok(value), "{text}");
        }
        for text in
            ["", "0", "0G", "-1", "+1", "1T", "G", "1.5G", "1 G", "12g", "Auto", "17179869184G"]
        {
            assert!(text.parse::<KvBudget>().is_err(), "{text}");
        }
    }

    const MB: u64 = 1_000_000;

    fn supply(free: u64) -> Supply {
        // A page of gpt-oss-20b in bf16.
        Supply { free, page_bytes: 64 * 2 * 8 * 64 * 2, in_flight: 2 }
    }

    fn plan(budget: KvBudget, sequences: usize, free: u64) -> Result<Geometry, KvBudgetError> {
        let config = Preset::B20.config();
        budget.geometry(&config, (sequences, 4096), 512, supply(free))
    }

    #[test]
    fn a_pool_is_no_larger_than_the_worst_case_nor_than_the_budget() {
        let config = Preset::B20.config();
        let bytes = |geometry: &Geometry| geometry_bytes(&config, geometry, supply(0));
        let roomy = plan(KvBudget::Free, 32, 80_000 * MB).unwrap();
        assert_eq!(roomy.full, 32 * 64, "every sequence as long as it may become");
        assert_eq!(plan(KvBudget::WorstCase, 32, 80_000 * MB).unwrap(), roomy);
        for (budget, free, most) in [
            (KvBudget::Free, 2_000 * MB, 2_000 * MB),
            (KvBudget::Bytes(700 * MB), 80_000 * MB, 700 * MB),
            (KvBudget::Bytes(9_000 * MB), 300 * MB, 300 * MB),
        ] {
            let geometry = plan(budget, 512, free).unwrap();
            assert!(bytes(&geometry) <= most, "{budget:?}: {geometry:?}");
            assert!(bytes(&geometry) > most / 10 * 8, "{budget:?}: {geometry:?} wastes memory");
            assert!(geometry.max_positions() >= 512, "{geometry:?}");
        }
    }

    #[test]
    fn too_little_is_refused_with_the_arithmetic() {
        let error = plan(KvBudget::Bytes(5 * MB), 32, 80_000 * MB).unwrap_err();
        // Three pages in each of 24 layers.
        assert_eq!((error.has, error.least), (5, 10), "{error}");
        let error = plan(KvBudget::WorstCase, 512, 1_000 * MB).unwrap_err();
        assert!(error.has == 1_000 && error.worst > 50_000, "{error}");
    }
}
