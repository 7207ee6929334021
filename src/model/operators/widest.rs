//! The same loops, compiled for the widest instructions that this machine has.

#![expect(unsafe_code, reason = "instructions that were found at run time can be used in no other way")]

use super::{lanes::Plain, product::Product};

/// Something to compute with whatever the machine offers. Implementations and what they call are `inline(always)`:
/// only what is inlined into [`avx512`] is compiled for it.
pub(super) trait Work {
    /// Computes with the vectors and products of `M`.
    fn run<M: Product>(self);
}

/// Computes with the widest instructions found.
pub(super) fn run_widest(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: every feature that the function is compiled for was found.
        return unsafe { avx512(work) };
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { avx2(work) };
    }
    work.run::<Plain>();
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    // The answers are cached by the standard library.
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn avx512(work: impl Work) {
    work.run::<super::lanes::Avx512>();
}

/// The plain loops, as the compiler makes them for this.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(work: impl Work) {
    work.run::<Plain>();
}
