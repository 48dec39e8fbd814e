//! The macro that makes a C function of HIP and lists it.

/// A function of the surface: its C name and its address.
pub type Export = (&'static str, usize);

/// Exports functions with their C names and lists them in `EXPORTS`.
///
/// A function is written once and so appears in the shared library and in
/// [`super::symbol`] alike. Its C name is a symbol where the cfg `hip_symbols` is
/// set, in the shared library alone: a program that links the emulator as a crate
/// has functions of HIP beside those of a real runtime it loads. One without a return type gives a
/// [`Result`](super::error::Result), which becomes a `hipError_t`.
macro_rules! exports {
    (@ret) => { std::ffi::c_int };
    (@ret $ret:ty) => { $ret };
    (@body $body:block) => {
        $crate::hip::error::report(|| $body)
    };
    (@body $body:block $ret:ty) => { $body };
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {
        $(
            $(#[$meta])*
            #[cfg_attr(hip_symbols, unsafe(no_mangle))]
            #[allow(non_snake_case, reason = "the C name")]
            pub unsafe extern "C" fn $name($($arg: $ty),*)
                -> $crate::hip::export::exports!(@ret $($ret)?)
            {
                $crate::hip::export::exports!(@body $body $($ret)?)
            }
        )*

        /// The functions of this file.
        pub(in crate::hip) fn exported() -> Vec<$crate::hip::export::Export> {
            vec![$((stringify!($name), $name as *const () as usize)),*]
        }
    };
}
pub(crate) use exports;
