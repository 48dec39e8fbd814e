//! Two sets of code objects against each other, such as two commits' builds.

use std::fmt::Write as _;

use serde::Serialize;

use crate::report::{KernelReport, Report, SCHEMA};

/// What differs between two reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Kernels of which at least one figure differs.
    pub changed: Vec<Changed>,
    /// Kernels of which every figure is the same.
    pub unchanged: usize,
    /// Kernels that only the old report has.
    pub removed: Vec<Name>,
    /// Kernels that only the new report has.
    pub added: Vec<Name>,
}

/// A kernel on a chip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Name {
    /// The kernel.
    pub kernel: String,
    /// The chip.
    pub chip: String,
}

/// A kernel that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// Which.
    #[serde(flatten)]
    pub name: Name,
    /// Its differing figures, in the order of the tables.
    pub figures: Vec<Figure>,
}

/// A figure that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// As the tables call it.
    pub name: String,
    /// Before; `None` when there was none (a kernel without a loop).
    pub old: Option<f64>,
    /// After.
    pub new: Option<f64>,
}

fn name(kernel: &KernelReport) -> Name {
    Name { kernel: kernel.name.clone(), chip: kernel.chip.clone() }
}

/// Compares kernel by kernel and chip by chip.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let partner = |report: &Report, kernel: &KernelReport| {
        report.kernels.iter().position(|k| k.name == kernel.name && k.chip == kernel.chip)
    };
    let only_in = |one: &Report, other: &Report| {
        one.kernels.iter().filter(|k| partner(other, k).is_none()).map(name).collect()
    };
    let mut comparison = Comparison {
        schema: SCHEMA,
        changed: Vec::new(),
        unchanged: 0,
        removed: only_in(old, new),
        added: only_in(new, old),
    };
    for after in &new.kernels {
        let Some(before) = partner(old, after).map(|index| &old.kernels[index]) else { continue };
        let figures = differences(before, after);
        if figures.is_empty() {
            comparison.unchanged += 1;
        } else {
            comparison.changed.push(Changed { name: name(after), figures });
        }
    }
    comparison
}

fn differences(before: &KernelReport, after: &KernelReport) -> Vec<Figure> {
    let (old, new) = (before.figures(), after.figures());
    let value = |figures: &[(String, f64)], name: &str| {
        figures.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    };
    let gone = old.iter().filter(|(name, _)| value(&new, name).is_none());
    new.iter()
        .chain(gone)
        .map(|(name, _)| Figure {
            name: name.clone(),
            old: value(&old, name),
            new: value(&new, name),
        })
        .filter(|figure| figure.old != figure.new)
        .collect()
}

/// Writes the comparison as text.
pub fn render(comparison: &Comparison) -> String {
    let mut text = String::new();
    let cell = |value: Option<f64>| value.map_or("-".to_owned(), |value| value.to_string());
    // Writing to a String cannot fail.
    for changed in &comparison.changed {
        let _ = writeln!(text, "{} {}", changed.name.kernel, changed.name.chip);
        let width = changed.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        for Figure { name, old, new } in &changed.figures {
            let change = match (old, new) {
                (Some(old), Some(new)) if *old != 0.0 => {
                    format!("  {:+.1} %", 100.0 * (new - old) / old)
                }
                _ => String::new(),
            };
            let _ = writeln!(text, "  {name:width$}  {} -> {}{change}", cell(*old), cell(*new));
        }
    }
    for (label, names) in [("removed", &comparison.removed), ("added", &comparison.added)] {
        for name in names {
            let _ = writeln!(text, "{label}: {} {}", name.kernel, name.chip);
        }
    }
    let _ = writeln!(
        text,
        "{} changed, {} unchanged, {} removed, {} added",
        comparison.changed.len(),
        comparison.unchanged,
        comparison.removed.len(),
        comparison.added.len()
    );
    text
}
