//! The report as text: one table per kernel, chips side by side.

use std::fmt::Write as _;

use crate::mix::{Class, Mix, Operation, Space};
use crate::occupancy::{Limit, Occupancy};
use crate::report::{KernelReport, LoopReport, Report};

/// Classes whose absence says something: their rows are always there.
const ALWAYS: [Class; 7] = [
    Class::Matrix,
    Class::Vector,
    Class::Scalar,
    Class::Global,
    Class::Lds,
    Class::Wait,
    Class::Barrier,
];

/// Accesses that get a row with their widths.
const WIDTHS: [(&str, Space, Operation); 9] = [
    ("global load", Space::Global, Operation::Load),
    ("global to LDS", Space::Global, Operation::LoadToLds),
    ("global store", Space::Global, Operation::Store),
    ("global atomic", Space::Global, Operation::Atomic),
    ("LDS load", Space::Lds, Operation::Load),
    ("LDS store", Space::Lds, Operation::Store),
    ("LDS permute", Space::Lds, Operation::Permute),
    ("scratch load", Space::Scratch, Operation::Load),
    ("scratch store", Space::Scratch, Operation::Store),
];

/// Writes every kernel's table. With `all_loops` each table is followed by a line per loop.
pub fn render(report: &Report, all_loops: bool) -> String {
    let mut text = String::new();
    for kernels in report.kernels.chunk_by(|a, b| a.name == b.name) {
        if !text.is_empty() {
            text.push('\n');
        }
        kernel(&mut text, kernels);
        if all_loops {
            loops(&mut text, kernels);
        }
    }
    text
}

/// A table under construction.
struct Rows {
    rows: Vec<(String, Vec<String>)>,
}

impl Rows {
    fn add(&mut self, label: impl Into<String>, cells: Vec<String>) {
        self.rows.push((label.into(), cells));
    }

    /// Adds a row unless every cell is empty, `0` or `-`.
    fn add_if_any(&mut self, label: impl Into<String>, cells: Vec<String>) {
        if cells.iter().any(|cell| !matches!(cell.as_str(), "" | "0" | "-")) {
            self.add(label, cells);
        }
    }

    fn write(&self, text: &mut String) {
        let label_width = self.rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let columns = self.rows.first().map_or(0, |(_, cells)| cells.len());
        let widths: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().map(|(_, cells)| cells[c].len()).max().unwrap_or(0))
            .collect();
        for (label, cells) in &self.rows {
            let mut line = format!("{label:label_width$}");
            for (cell, width) in cells.iter().zip(&widths) {
                // Writing to a String cannot fail.
                let _ = write!(line, "  {cell:>width$}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

fn kernel(text: &mut String, kernels: &[KernelReport]) {
    let mut table = Rows { rows: Vec::new() };
    table.add(kernels[0].name.as_str(), headings(kernels));
    let resource = |cell: fn(&crate::report::Resources) -> String| {
        kernels
            .iter()
            .map(|kernel| kernel.resources.as_ref().map_or("-".to_owned(), cell))
            .collect()
    };
    table.add("VGPR", resource(|r| r.vgpr.to_string()));
    table.add_if_any("AGPR", resource(|r| r.agpr.to_string()));
    table.add("SGPR", resource(|r| r.sgpr.to_string()));
    table.add(
        "LDS bytes",
        resource(|r| match r.dynamic_lds_bytes {
            None => format!("{}+?", r.lds_bytes),
            Some(0) => r.lds_bytes.to_string(),
            Some(dynamic) => format!("{}+{dynamic}", r.lds_bytes),
        }),
    );
    table.add("scratch bytes", resource(|r| r.scratch_bytes.to_string()));
    table.add("spills (VGPR+SGPR)", resource(|r| format!("{}+{}", r.vgpr_spills, r.sgpr_spills)));
    let each = |cell: fn(&KernelReport) -> String| kernels.iter().map(cell).collect::<Vec<_>>();
    table.add("workgroup", each(|k| k.workgroup_size.to_string()));
    table.add(
        "waves/SIMD",
        each(|k| {
            let unknown = k.resources.is_some_and(|r| r.dynamic_lds_bytes.is_none());
            let cell = k.occupancy.as_ref().map_or("-".to_owned(), occupancy_cell);
            if unknown { format!("<={cell}") } else { cell }
        }),
    );
    table.add("code bytes", each(|k| k.code_bytes.map_or("-".to_owned(), |b| b.to_string())));
    table.add_if_any("calls", each(|k| k.calls.to_string()));
    let whole: Vec<_> = kernels.iter().map(|kernel| Some(&kernel.mix)).collect();
    mix_rows(&mut table, "instructions", &whole, false);
    let main: Vec<_> = kernels.iter().map(|kernel| kernel.main().map(|l| &l.mix)).collect();
    if main.iter().any(Option::is_some) {
        mix_rows(&mut table, "main loop", &main, true);
    }
    table.write(text);
}

/// Chips, with the file's name where a chip occurs twice.
fn headings(kernels: &[KernelReport]) -> Vec<String> {
    let heading = |kernel: &KernelReport| {
        if kernels.iter().filter(|other| other.chip == kernel.chip).count() < 2 {
            return kernel.chip.clone();
        }
        let name = kernel.file.rsplit('/').next().unwrap_or_default();
        format!("{}:{}", kernel.chip, name)
    };
    kernels.iter().map(heading).collect()
}

/// `12/16 vgpr`: waves of the maximum, and what stands in the way.
fn occupancy_cell(occupancy: &Occupancy) -> String {
    let limit = match occupancy.limited_by {
        Limit::Hardware => "",
        Limit::Vgpr => " vgpr",
        Limit::Sgpr => " sgpr",
        Limit::Lds => " lds",
        Limit::Workgroup => " wg",
    };
    format!("{}/{}{limit}", occupancy.waves_per_simd, occupancy.max_waves_per_simd)
}

/// A block of rows for one stretch of code, with its widths if asked.
fn mix_rows(table: &mut Rows, title: &str, mixes: &[Option<&Mix>], widths: bool) {
    let cells = |cell: &dyn Fn(&Mix) -> String| -> Vec<String> {
        mixes.iter().map(|mix| mix.map_or("-".to_owned(), cell)).collect()
    };
    table.add(title, cells(&|mix| mix.instructions.to_string()));
    for class in Class::ALL {
        let label = format!("  {}", class.label());
        let counts = cells(&|mix| mix.count(class).to_string());
        if ALWAYS.contains(&class) {
            table.add(label, counts);
        } else {
            table.add_if_any(label, counts);
        }
    }
    for (label, space, operation) in WIDTHS {
        if widths {
            table.add_if_any(format!("  {label}"), cells(&|mix| width_cell(mix, space, operation)));
        }
    }
}

/// `4 b128, 1 b32`: how often each width, widest first.
fn width_cell(mix: &Mix, space: Space, operation: Operation) -> String {
    let widths = mix.widths(space, operation);
    let parts: Vec<_> =
        widths.iter().map(|(access, count)| format!("{count} {}", access.width())).collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(", ") }
}

/// A line per loop.
fn loops(text: &mut String, kernels: &[KernelReport]) {
    for (kernel, heading) in kernels.iter().zip(headings(kernels)) {
        for (index, found) in kernel.loops.iter().enumerate() {
            let mark = if kernel.main_loop == Some(index) { "*" } else { " " };
            let _ = writeln!(text, "{mark} {heading} {}", loop_line(found));
        }
    }
}

fn loop_line(found: &LoopReport) -> String {
    let counts: Vec<_> = Class::ALL
        .iter()
        .map(|&class| (class, found.mix.count(class)))
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| format!("{count} {}", class.label()))
        .collect();
    let names: Vec<_> =
        found.mix.matrix.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let matrix = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    let indent = "  ".repeat(found.depth.saturating_sub(1) as usize);
    format!(
        "{indent}loop at +{:#x}, depth {}, {} instructions: {}{matrix}",
        found.offset,
        found.depth,
        found.mix.instructions,
        counts.join(", ")
    )
}
