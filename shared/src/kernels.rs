//! The one table of kernels: names, typed arguments, workgroup sizes, workgroup memory.
//!
//! One file per kernel family. The host builds a launch from a kernel's `Args`; the device
//! checks each entry point against its `Signature`; `tools/device-build` checks every code
//! object's metadata against [`all`], and tells the compiler how many threads share a
//! workgroup's registers. Every code object carries [`FINGERPRINT`], so that one made with another
//! version of this crate is refused when it is loaded. So the sides cannot disagree.

use crate::hash;
use crate::launch::Kernel;

pub mod attention;
pub mod basics;
pub mod linear;
pub mod moe;
pub mod rows;

macro_rules! families {
    ($($($family:ident)::+),* $(,)?) => {
        /// Every kernel.
        pub fn all() -> impl Iterator<Item = &'static Kernel> {
            [$($($family)::+::TABLE),*].into_iter().flatten().copied()
        }

        /// How many there are.
        pub const COUNT: usize = 0 $(+ $($family)::+::TABLE.len())*;

        /// Place of a kernel in the order of [`all`]; `None` for one that is not of the table.
        pub const fn index(kernel: &Kernel) -> Option<usize> {
            let tables = [$($($family)::+::TABLE),*];
            let (mut first, mut family) = (0, 0);
            while family < tables.len() {
                let mut i = 0;
                while i < tables[family].len() {
                    if same(tables[family][i].name.as_bytes(), kernel.name.as_bytes()) {
                        return Some(first + i);
                    }
                    i += 1;
                }
                first += i;
                family += 1;
            }
            None
        }
    };
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

families!(attention, basics, linear, moe, moe::products, rows);

macro_rules! hash_of_files {
    ($($name:literal),* $(,)?) => {
        hash::of_files(&[$(($name, include_bytes!($name))),*])
    };
}

/// Hash of every file of this crate, which is all that both sides of a launch must agree on: the
/// table of kernels, the layout of weights, pages and parts, the sizes of tiles and splits, the
/// steps of sampling. A test of `tools/device-build` sees that no file is missing.
pub const FINGERPRINT: u64 = hash_of_files!(
    "bf16.rs",
    "block.rs",
    "chips.rs",
    "exp.rs",
    "frag.rs",
    "hash.rs",
    "kernels.rs",
    "kernels/attention.rs",
    "kernels/basics.rs",
    "kernels/linear.rs",
    "kernels/moe.rs",
    "kernels/rows.rs",
    "kv.rs",
    "launch.rs",
    "lib.rs",
    "model.rs",
    "mxfp4.rs",
    "pack.rs",
    "philox.rs",
    "rope.rs",
    "sampling.rs",
);

/// Symbol of the 64-bit little-endian [`FINGERPRINT`] in a code object or PTX file.
pub const FINGERPRINT_SYMBOL: &str = "KERNEL_TABLE";
/// Symbol beside it of the hash, alike, of the files of `device/src`.
pub const SOURCES_SYMBOL: &str = "KERNEL_SOURCES";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Family;

    #[test]
    fn names_are_unique() {
        for (i, kernel) in all().enumerate() {
            assert!(all().skip(i + 1).all(|other| other.name != kernel.name), "{}", kernel.name);
        }
    }

    #[test]
    fn places_are_those_of_the_list() {
        assert!(all().enumerate().all(|(i, kernel)| index(kernel) == Some(i)));
        assert_eq!(all().count(), COUNT);
        for name in ["", "no_kernel"] {
            assert_eq!(index(&Kernel { name, ..*linear::TABLE[0] }), None);
        }
    }

    #[test]
    fn workgroups_are_whole_waves_that_fit() {
        for (kernel, family) in all().flat_map(|k| Family::ALL.map(|family| (k, family))) {
            let (threads, wave) = ((kernel.threads)(family), family.wave());
            assert!(threads.is_multiple_of(wave), "{}: {threads} threads", kernel.name);
            assert!((wave..=1024).contains(&threads), "{}: {threads} threads", kernel.name);
        }
    }
}
