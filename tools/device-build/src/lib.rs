//! Compiles `device/` for a chip: core, the kernels, and a check of the result against the kernel table.
