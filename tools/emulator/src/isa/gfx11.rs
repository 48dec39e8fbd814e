//! RDNA3 and RDNA3.5: encodings.

mod decode;
mod mem;
mod sop;
mod tables;
#[cfg(test)]
mod tests;
mod vop;

pub use decode::decode;
