//! `hipError_t`: the codes this runtime returns, their names and meanings, and
//! the error that each thread remembers for `hipGetLastError`.
//!
//! Codes and names are those of `hip_runtime_api.h` (HIP 5.2; later releases
//! only add to them).

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of everything below the C surface.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Declares [`Error`] with its code, its HIP name and a sentence for it.
macro_rules! errors {
    ($($variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// A HIP error code other than `hipSuccess`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(i32)]
        #[allow(dead_code, reason = "codes that only `hipGetErrorName` needs to know")]
        pub enum Error {
            $(#[doc = $text] $variant = $code,)*
        }

        /// Name and meaning of a code, `None` for one that HIP does not define.
        fn describe(code: c_int) -> Option<(&'static CStr, &'static CStr)> {
            match code {
                0 => Some((c"hipSuccess", c"no error")),
                $($code => Some((
                    const { terminated(concat!($name, "\0")) },
                    const { terminated(concat!($text, "\0")) },
                )),)*
                _ => None,
            }
        }
    };
}

const fn terminated(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a name in the table of errors contains a zero byte"),
    }
}

errors! {
    InvalidValue = 1, "hipErrorInvalidValue", "an argument is null or out of range";
    OutOfMemory = 2, "hipErrorOutOfMemory", "not enough memory on the device";
    NotInitialized = 3, "hipErrorNotInitialized", "the runtime could not be initialised";
    Deinitialized = 4, "hipErrorDeinitialized", "the runtime is shutting down";
    InvalidConfiguration = 9, "hipErrorInvalidConfiguration", "the launch has an impossible grid, block or shared memory size";
    InvalidPitchValue = 12, "hipErrorInvalidPitchValue", "the pitch is smaller than a row";
    InvalidSymbol = 13, "hipErrorInvalidSymbol", "no device variable is registered under this symbol";
    InvalidDevicePointer = 17, "hipErrorInvalidDevicePointer", "the pointer is not the start of a live allocation";
    InvalidMemcpyDirection = 21, "hipErrorInvalidMemcpyDirection", "the copy direction is none of hipMemcpyKind";
    MissingConfiguration = 52, "hipErrorMissingConfiguration", "no launch configuration was pushed";
    InvalidDeviceFunction = 98, "hipErrorInvalidDeviceFunction", "the function is not a kernel loaded for this device";
    NoDevice = 100, "hipErrorNoDevice", "there is no device";
    InvalidDevice = 101, "hipErrorInvalidDevice", "the device number is out of range";
    InvalidImage = 200, "hipErrorInvalidImage", "the image is not a code object or an offload bundle";
    InvalidContext = 201, "hipErrorInvalidContext", "the context handle is not valid";
    NoBinaryForGpu = 209, "hipErrorNoBinaryForGpu", "the image holds no code for this device's architecture";
    PeerAccessUnsupported = 217, "hipErrorPeerAccessUnsupported", "the devices cannot reach each other's memory";
    FileNotFound = 301, "hipErrorFileNotFound", "the file cannot be read";
    SharedObjectInitFailed = 303, "hipErrorSharedObjectInitFailed", "the code object could not be placed in memory";
    InvalidHandle = 400, "hipErrorInvalidHandle", "the handle is null, stale or of another kind";
    IllegalState = 401, "hipErrorIllegalState", "the object is not in a state that allows this call";
    NotFound = 500, "hipErrorNotFound", "the module has no symbol of this name";
    NotReady = 600, "hipErrorNotReady", "work submitted earlier has not finished";
    IllegalAddress = 700, "hipErrorIllegalAddress", "a kernel accessed memory that is not allocated";
    LaunchOutOfResources = 701, "hipErrorLaunchOutOfResources", "the kernel needs more registers or shared memory than the device has";
    PeerAccessAlreadyEnabled = 704, "hipErrorPeerAccessAlreadyEnabled", "access to this peer is enabled already";
    PeerAccessNotEnabled = 705, "hipErrorPeerAccessNotEnabled", "access to this peer is not enabled";
    SetOnActiveProcess = 708, "hipErrorSetOnActiveProcess", "the device is in use, so its flags cannot change";
    Assert = 710, "hipErrorAssert", "a kernel failed an assertion";
    HostMemoryAlreadyRegistered = 712, "hipErrorHostMemoryAlreadyRegistered", "the host memory is registered already";
    HostMemoryNotRegistered = 713, "hipErrorHostMemoryNotRegistered", "the host memory is not registered";
    LaunchFailure = 719, "hipErrorLaunchFailure", "a kernel stopped on an exception";
    NotSupported = 801, "hipErrorNotSupported", "this runtime does not offer the operation";
    StreamCaptureUnsupported = 900, "hipErrorStreamCaptureUnsupported", "the operation is not permitted while a stream is capturing";
    StreamCaptureInvalidated = 901, "hipErrorStreamCaptureInvalidated", "an earlier error ended the capture";
    StreamCaptureMerge = 902, "hipErrorStreamCaptureMerge", "the operation would join two captures";
    StreamCaptureUnmatched = 903, "hipErrorStreamCaptureUnmatched", "the capture did not begin in this stream";
    StreamCaptureUnjoined = 904, "hipErrorStreamCaptureUnjoined", "a captured stream was not joined to the one that began the capture";
    StreamCaptureIsolation = 905, "hipErrorStreamCaptureIsolation", "the captured stream would depend on work outside the capture";
    StreamCaptureImplicit = 906, "hipErrorStreamCaptureImplicit", "the legacy stream would depend on a capturing stream";
    CapturedEvent = 907, "hipErrorCapturedEvent", "the event was last recorded in a capture";
    StreamCaptureWrongThread = 908, "hipErrorStreamCaptureWrongThread", "the capture began in another thread";
    GraphExecUpdateFailure = 910, "hipErrorGraphExecUpdateFailure", "the new graph differs in more than its parameters";
    Unknown = 999, "hipErrorUnknown", "an internal error of the runtime";
}

impl Error {
    /// The C value of the error.
    pub fn code(self) -> c_int {
        self as c_int
    }
}

thread_local! {
    static LAST: Cell<c_int> = const { Cell::new(0) };
}

/// Makes a call, turns its result into the C value and remembers a failure for
/// `hipGetLastError`. A success leaves the remembered failure in place. A panic
/// does not reach the program but becomes [`Error::Unknown`].
pub fn report(call: impl FnOnce() -> Result) -> c_int {
    match catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Error::Unknown)) {
        Ok(()) => 0,
        Err(error) => {
            LAST.set(error.code());
            error.code()
        }
    }
}

fn text(code: c_int, pick: fn((&'static CStr, &'static CStr)) -> &'static CStr) -> *const c_char {
    describe(code).map_or(c"hipErrorUnknown", pick).as_ptr()
}

super::export::exports! {
    /// Returns the calling thread's last failure and forgets it.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipGetLastError() -> c_int {
        LAST.replace(0)
    }

    /// Returns the calling thread's last failure and keeps it.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipPeekAtLastError() -> c_int {
        LAST.get()
    }

    /// The identifier of an error code, a string that lives for ever.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipGetErrorName(code: c_int) -> *const c_char {
        text(code, |(name, _)| name)
    }

    /// The meaning of an error code, a string that lives for ever.
    ///
    /// # Safety
    /// None beyond the C ABI.
    fn hipGetErrorString(code: c_int) -> *const c_char {
        text(code, |(_, meaning)| meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_header() {
        let name = |code| describe(code).map(|(name, _)| name.to_str().unwrap());
        assert_eq!(name(0), Some("hipSuccess"));
        assert_eq!(name(Error::IllegalAddress.code()), Some("hipErrorIllegalAddress"));
        assert_eq!(name(100), Some("hipErrorNoDevice"));
        assert_eq!(name(-1), None);
    }

    #[test]
    fn the_last_error_survives_a_success_and_is_taken_once() {
        assert_eq!(report(|| Err(Error::InvalidDevice)), 101);
        assert_eq!(report(|| Ok(())), 0);
        assert_eq!(LAST.replace(0), 101);
        assert_eq!(LAST.get(), 0);
    }
}
