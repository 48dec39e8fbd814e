//! Every kernel against its f64 oracle, on the device under test.
//!
//! Outputs are poisoned and guarded, cases are named by the edge they walk, and on the emulator
//! every checker is on.

/// Attention over the paged cache.
mod attention;
/// axpy, RMSNorm, softmax, transpose, scan, histogram.
mod basics;
/// The experts' products at the sizes of gpt-oss, and bit for bit.
mod experts;
/// Dense products: bf16 and MXINT8 weights.
mod linear;
/// The matrix instruction, element by element.
mod mma;
/// Mixture of experts: routing, sort, products, combine.
mod moe;
/// One input that is not finite: where it has to show, and where it must not.
mod not_finite;
/// Embedding, RMSNorm into tiles, rotation into the cache, argmax.
mod rows;
/// Drawing a token by temperature and nucleus.
mod sample;
/// Dense products at the sizes of gpt-oss.
mod shapes;
/// The number of host threads that emulate.
mod threads;
