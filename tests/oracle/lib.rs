//! Slow, obvious f64 versions of every kernel: what the tests compare with.

pub mod attention;
pub mod basics;
pub mod fake;
pub mod model;
pub mod products;
pub mod random;
