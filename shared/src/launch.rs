//! What a kernel's signature is made of, and the macro that writes the table of kernels.
//!
//! Arguments are scalars and pointers only: rustc passes a struct by value to a GPU kernel in
//! another layout than the driver writes (rust-lang/rust#162177). A kernel that needs a struct
//! takes a pointer to one. Every argument is aligned to its size, as both AMD's kernel argument
//! segment and PTX parameters are, so one packed buffer serves both drivers.

use core::marker::PhantomData;

use crate::block::Family;

/// A scalar that can be an argument or an element behind a pointer.
pub trait Scalar: Copy {
    /// The type, as data.
    const ELEMENT: Element;
    /// Writes the value, little endian, to the start of `out`.
    fn put(self, out: &mut [u8]);
}

/// The scalar types of kernel arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as in Rust")]
pub enum Element {
    U8,
    U16,
    U32,
    I32,
    U64,
    F32,
}

impl Element {
    /// Size and alignment in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::U16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 => 8,
        }
    }
}

macro_rules! scalars {
    ($($ty:ty => $element:ident),*) => {$(
        impl Scalar for $ty {
            const ELEMENT: Element = Element::$element;
            #[inline]
            fn put(self, out: &mut [u8]) {
                out[..size_of::<$ty>()].copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
scalars!(u8 => U8, u16 => U16, u32 => U32, i32 => I32, u64 => U64, f32 => F32);

/// Address of device memory that holds elements of type `T`; null stands for an absent buffer.
///
/// Holding one proves nothing: the launcher checks it against the live buffers.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct DevPtr<T>(u64, PhantomData<fn() -> T>);

impl<T> Clone for DevPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for DevPtr<T> {}

impl<T> DevPtr<T> {
    /// No buffer.
    pub const NULL: Self = Self::new(0);

    /// The pointer with this address.
    pub const fn new(address: u64) -> Self {
        Self(address, PhantomData)
    }

    /// The address.
    pub const fn address(self) -> u64 {
        self.0
    }
}

/// The type of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Passed by value.
    Value(Element),
    /// Device memory the kernel only reads.
    Const(Element),
    /// Device memory the kernel writes.
    Mut(Element),
}

impl Type {
    /// Size and alignment in the argument buffer, in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Type::Value(element) => element.bytes(),
            Type::Const(_) | Type::Mut(_) => 8,
        }
    }
}

/// A type in a kernel's signature: how it is described, and what the host passes for it.
pub trait Param {
    /// The type, as data.
    const TYPE: Type;
    /// The host's side of it.
    type Host: Copy;
    /// Writes the host's value to the start of `out`.
    fn put(host: Self::Host, out: &mut [u8]);
}

impl<T: Scalar> Param for T {
    const TYPE: Type = Type::Value(T::ELEMENT);
    type Host = T;
    fn put(host: T, out: &mut [u8]) {
        Scalar::put(host, out);
    }
}

impl<T: Scalar> Param for *const T {
    const TYPE: Type = Type::Const(T::ELEMENT);
    type Host = DevPtr<T>;
    fn put(host: DevPtr<T>, out: &mut [u8]) {
        Scalar::put(host.0, out);
    }
}

impl<T: Scalar> Param for *mut T {
    const TYPE: Type = Type::Mut(T::ELEMENT);
    type Host = DevPtr<T>;
    fn put(host: DevPtr<T>, out: &mut [u8]) {
        Scalar::put(host.0, out);
    }
}

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg {
    /// Its name in the table.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// Where it starts in the argument buffer, in bytes.
    pub offset: usize,
}

/// One kernel of the table.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// The symbol in the code object.
    pub name: &'static str,
    /// The arguments in order.
    pub args: &'static [Arg],
    /// Threads in a workgroup on chips of a family. A launch uses exactly this many, and the
    /// compiler divides the registers by it.
    pub threads: fn(Family) -> u32,
}

impl Kernel {
    /// Size of the argument buffer: where the last argument ends.
    pub const fn args_bytes(&self) -> usize {
        match self.args {
            [.., last] => last.offset + last.ty.bytes(),
            [] => 0,
        }
    }
}

/// The arguments of one kernel, as the host passes them.
pub trait KernelArgs {
    /// The kernel.
    const KERNEL: &'static Kernel;
    /// Writes the arguments to `out`, which holds [`Kernel::args_bytes`] bytes.
    fn put(&self, out: &mut [u8]);
    /// Bytes of workgroup memory this launch needs on a chip of `family`.
    fn lds_bytes(&self, family: Family) -> u32;
}

/// Places arguments one after the other, each aligned to its size.
pub const fn layout<const N: usize>(args: [(&'static str, Type); N]) -> [Arg; N] {
    let mut out = [Arg { name: "", ty: Type::Value(Element::U8), offset: 0 }; N];
    let (mut i, mut end) = (0, 0usize);
    while i < N {
        let (name, ty) = args[i];
        let offset = end.next_multiple_of(ty.bytes());
        out[i] = Arg { name, ty, offset };
        end = offset + ty.bytes();
        i += 1;
    }
    out
}

/// Writes one family's part of the table.
///
/// ```
/// mod family {
///     shared::kernels! {
///         /// `y[i] = a * x[i]` for `i < n`.
///         scale(
///             /// `[n]`
///             x: *const f32,
///             y: *mut f32,
///             a: f32,
///             n: u32,
///         ) {
///             threads(family) = 8 * family.wave();
///             lds(args, family) = 4 * family.wave();
///         }
///     }
/// }
/// assert_eq!(family::TABLE[0].args[3].offset, 20);
/// assert_eq!(family::scale::threads(shared::block::Family::Gfx11), 256);
/// ```
///
/// For each kernel this makes a module of its name with `KERNEL`, `threads`, the host's `Args`,
/// and on a GPU `Signature`, which the kernel is checked against:
/// `const _: scale::Signature = scale;`
#[macro_export]
macro_rules! kernels {
    ($(
        $(#[$doc:meta])*
        $name:ident($($(#[$arg_doc:meta])* $arg:ident: $ty:ty),* $(,)?) {
            threads($tw:ident) = $threads:expr;
            lds($la:ident, $lw:ident) = $lds:expr;
        }
    )*) => {
        /// The kernels of this family.
        pub const TABLE: &[&$crate::launch::Kernel] = &[$(&$name::KERNEL),*];

        $(
            $(#[$doc])*
            pub mod $name {
                #[allow(unused_imports, reason = "constants the formulas may use")]
                use super::*;
                #[allow(unused_imports, reason = "a kernel without arguments")]
                use $crate::launch::{Kernel, KernelArgs, Param, layout};

                /// The kernel as data.
                pub const KERNEL: Kernel = Kernel {
                    name: stringify!($name),
                    args: &layout([$((stringify!($arg), <$ty as Param>::TYPE)),*]),
                    threads,
                };

                /// Threads in a workgroup on chips of a family.
                #[allow(unused_variables)]
                pub const fn threads($tw: $crate::block::Family) -> u32 {
                    $threads
                }

                /// The arguments, as the host passes them.
                #[derive(Debug, Clone, Copy)]
                pub struct Args {
                    $(
                        $(#[$arg_doc])*
                        #[doc = concat!("`", stringify!($ty), "`")]
                        pub $arg: <$ty as Param>::Host,
                    )*
                }

                impl KernelArgs for Args {
                    const KERNEL: &'static Kernel = &KERNEL;

                    #[allow(unused_variables, unused_mut, reason = "a kernel without arguments")]
                    fn put(&self, out: &mut [u8]) {
                        let mut args = KERNEL.args.iter();
                        $(if let Some(arg) = args.next() {
                            <$ty as Param>::put(self.$arg, &mut out[arg.offset..]);
                        })*
                    }

                    #[allow(unused_variables)]
                    fn lds_bytes(&self, $lw: $crate::block::Family) -> u32 {
                        let $la = self;
                        $lds
                    }
                }

                /// The type of the kernel's entry point.
                #[cfg(any(target_arch = "amdgpu", target_arch = "nvptx64"))]
                pub type Signature = unsafe extern "gpu-kernel" fn($($ty),*);
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(dead_code, reason = "the macro writes more than any one test uses")]
    mod table {
        kernels! {
            /// Every alignment in turn.
            mixed(a: u8, b: *const u16, c: f32, d: u16, e: u64, f: *mut i32, g: u32) {
                threads(family) = 2 * family.wave();
                lds(args, family) = args.g * family.wave();
            }
            /// No arguments.
            empty() {
                threads(family) = 1;
                lds(args, family) = 0;
            }
        }
    }
    use table::{TABLE, empty, mixed};

    #[test]
    fn arguments_are_aligned_to_their_size() {
        let offsets = mixed::KERNEL.args.iter().map(|a| a.offset);
        assert!(offsets.eq([0, 8, 16, 20, 24, 32, 40]));
        assert_eq!(mixed::KERNEL.args_bytes(), 44);
        assert_eq!(empty::KERNEL.args_bytes(), 0);
        assert_eq!(mixed::KERNEL.args[5].ty, Type::Mut(Element::I32));
        assert_eq!(TABLE.len(), 2);
    }

    #[test]
    fn arguments_land_at_their_offsets() {
        let args = mixed::Args {
            a: 1,
            b: DevPtr::new(0x1122_3344_5566_7788),
            c: 1.0,
            d: 0xabcd,
            e: 5,
            f: DevPtr::NULL,
            g: 7,
        };
        let mut out = [0xff; 44];
        args.put(&mut out);
        assert_eq!(out[0], 1);
        assert_eq!(out[8..16], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(out[16..20], 1f32.to_le_bytes());
        assert_eq!(out[20..22], [0xcd, 0xab]);
        assert_eq!(out[24..40], [5u64.to_le_bytes(), [0; 8]].concat_array());
        assert_eq!(out[40..44], 7u32.to_le_bytes());
        assert_eq!(args.lds_bytes(Family::Gfx11), 224);
        assert_eq!((mixed::KERNEL.threads)(Family::Gfx9), 128);
    }

    trait ConcatArray {
        fn concat_array(self) -> [u8; 16];
    }
    impl ConcatArray for [[u8; 8]; 2] {
        fn concat_array(self) -> [u8; 16] {
            core::array::from_fn(|i| self[i / 8][i % 8])
        }
    }
}
