//! Stand-ins for two library functions that only failing code calls, so that the small, static agent does not carry what lies behind
//! them: a seventh of what goes over the wire. The build script says when this is compiled.

#![allow(unsafe_code, reason = "the linker has to find these functions under the names that the libraries give them")]

use std::ffi::{c_int, c_void};

/// `ENOSYS` of errno(3).
const NOT_IMPLEMENTED: c_int = 38;

/// Walks up the stack for a panic's backtrace. The tables that it would read are left out (`no-unwind.ld`), so it finds no frame, and
/// nothing has to turn frames into names and lines.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_callback: *const c_void, _argument: *mut c_void) -> c_int {
    0
}

/// Where a thread's stack lies, for the words that the standard library says when one overflows. glibc reads it with `scanf` from
/// `/proc/self/maps`, which brings its locales and its numbers along. Without an answer a stack overflow is a plain SIGSEGV.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_thread: usize, _attributes: *mut c_void) -> c_int {
    NOT_IMPLEMENTED
}
