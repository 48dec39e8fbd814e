//! The one table of kernels: names, typed arguments, workgroup sizes, workgroup memory.
//!
//! One file per kernel family. The host builds a launch from a kernel's `Args`; the device
//! checks each entry point against its `Signature`; `tools/device-build` checks every code
//! object's metadata against [`all`], and tells the compiler how many threads share a
//! workgroup's registers. Every code object carries [`FINGERPRINT`], so that one made from
//! another table is refused when it is loaded. So the sides cannot disagree.

use crate::launch::{FINGERPRINT_START, Kernel, add_u64};

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

        /// Hash of the table. Code objects hold it under the name [`FINGERPRINT_SYMBOL`].
        pub const FINGERPRINT: u64 = {
            let hash = FINGERPRINT_START;
            $(let hash = add_u64(hash, $($family)::+::FINGERPRINT);)*
            hash
        };
    };
}

families!(attention, basics, linear, moe, moe::products, rows);

/// Symbol of the 64-bit little-endian [`FINGERPRINT`] in a code object or PTX file.
pub const FINGERPRINT_SYMBOL: &str = "KERNEL_TABLE";

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
    fn workgroups_are_whole_waves_that_fit() {
        for (kernel, family) in all().flat_map(|k| Family::ALL.map(|family| (k, family))) {
            let (threads, wave) = ((kernel.threads)(family), family.wave());
            assert!(threads.is_multiple_of(wave), "{}: {threads} threads", kernel.name);
            assert!((wave..=1024).contains(&threads), "{}: {threads} threads", kernel.name);
        }
    }
}
