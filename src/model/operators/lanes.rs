//! Sixteen numbers at a time: AVX-512 where the machine has it, plain arrays elsewhere.
//!
//! Both give the same results within rounding: AVX-512 fuses a multiplication with an addition.

#![expect(unsafe_code, reason = "instructions that were found at run time can be used in no other way")]

/// Numbers of a vector.
pub(super) const LANES: usize = 16;

/// A machine's vectors. A slice may end early: what is missing reads as zero and is not written.
///
/// Implementations and all that calls them are `inline(always)`: only what is inlined into
/// [`run_widest`](super::widest::run_widest) is compiled for the machine.
pub(super) trait Lanes {
    type F32: Copy;
    type I32: Copy;

    fn all(value: f32) -> Self::F32;
    fn load(from: &[f32]) -> Self::F32;
    fn store(value: Self::F32, to: &mut [f32]);
    fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(a: Self::F32, b: Self::F32) -> Self::F32;
    /// a * b + c.
    fn mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger; `b` where one is no number.
    fn max(a: Self::F32, b: Self::F32) -> Self::F32;
    /// The largest of all lanes.
    fn largest(value: Self::F32) -> f32;
    /// The sum of all lanes.
    fn sum(value: Self::F32) -> f32;
    /// The first `count` lanes of `value`, the others of `other`.
    fn first(count: usize, value: Self::F32, other: Self::F32) -> Self::F32;
    /// 2 to the power of each lane, which is at most 126; relative error below 1e-6. Zero below -125.
    fn exp2(value: Self::F32) -> Self::F32;

    /// The nearest integers, ties to even.
    fn round(value: Self::F32) -> Self::I32;
    fn load_i32(from: &[i32]) -> Self::I32;
    fn store_i32(value: Self::I32, to: &mut [i32]);
    fn to_f32(value: Self::I32) -> Self::F32;
    /// Words of two 16-bit integers each.
    fn words(low: Self::I32, high: Self::I32) -> Self::I32;
    /// The nearest integers plus 128, as bytes.
    fn store_bytes(value: Self::F32, to: &mut [u8]);
    /// The magnitude's bits: ordered as magnitudes are, with what is no number above infinity.
    fn magnitude(value: Self::F32) -> Self::I32;
    fn max_i32(a: Self::I32, b: Self::I32) -> Self::I32;
    fn largest_i32(value: Self::I32) -> i32;
}

/// The polynomial of least relative error for 2^x on [-1/2, 1/2], highest power first.
const POWER: [f32; 6] = [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, std::f32::consts::LN_2, 1.0];

/// Any machine.
pub(super) struct Plain;

#[inline(always)]
fn each<A: Copy, B: Copy, C: Copy + Default>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> C) -> [C; LANES] {
    let mut out = [C::default(); LANES];
    for lane in 0..LANES {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

/// Halves joined to halves, as a vector unit does it.
#[inline(always)]
fn fold<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

#[inline(always)]
fn write<T: Copy>(from: [T; LANES], to: &mut [T]) {
    let count = to.len().min(LANES);
    to[..count].copy_from_slice(&from[..count]);
}

#[inline(always)]
fn sixteen<T: Copy + Default>(from: &[T]) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    let count = from.len().min(LANES);
    out[..count].copy_from_slice(&from[..count]);
    out
}

impl Lanes for Plain {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];

    #[inline(always)]
    fn all(value: f32) -> Self::F32 {
        [value; LANES]
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self::F32 {
        sixteen(from)
    }
    #[inline(always)]
    fn store(value: Self::F32, to: &mut [f32]) {
        write(value, to);
    }
    #[inline(always)]
    fn add(a: Self::F32, b: Self::F32) -> Self::F32 {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(a: Self::F32, b: Self::F32) -> Self::F32 {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(a: Self::F32, b: Self::F32) -> Self::F32 {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(a: Self::F32, b: Self::F32) -> Self::F32 {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // Not f32::mul_add, which is a slow call on a machine without the instruction.
        each(each(a, b, |a, b| a * b), c, |product, c| product + c)
    }
    #[inline(always)]
    fn max(a: Self::F32, b: Self::F32) -> Self::F32 {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn largest(value: Self::F32) -> f32 {
        fold(value, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sum(value: Self::F32) -> f32 {
        fold(value, |a, b| a + b)
    }
    #[inline(always)]
    fn first(count: usize, mut value: Self::F32, other: Self::F32) -> Self::F32 {
        let rest = count.min(LANES)..LANES;
        value[rest.clone()].copy_from_slice(&other[rest]);
        value
    }
    #[inline(always)]
    fn exp2(value: Self::F32) -> Self::F32 {
        let mut out = value;
        for lane in &mut out {
            let rounded = *lane + ROUNDER;
            let rest = *lane - (rounded - ROUNDER);
            let power = POWER.into_iter().reduce(|sum, factor| sum * rest + factor).unwrap_or(1.0);
            // The integer part goes straight into the exponent's bits.
            let scaled = f32::from_bits(power.to_bits().wrapping_add(rounded.to_bits() << 23));
            *lane = if *lane > -125.0 { scaled } else { 0.0 };
        }
        out
    }
    #[inline(always)]
    fn round(value: Self::F32) -> Self::I32 {
        value.map(round)
    }
    #[inline(always)]
    fn load_i32(from: &[i32]) -> Self::I32 {
        sixteen(from)
    }
    #[inline(always)]
    fn store_i32(value: Self::I32, to: &mut [i32]) {
        write(value, to);
    }
    #[inline(always)]
    fn to_f32(value: Self::I32) -> Self::F32 {
        value.map(|value| value as f32)
    }
    #[inline(always)]
    fn words(low: Self::I32, high: Self::I32) -> Self::I32 {
        each(low, high, |low, high| (low & 0xffff) | (high << 16))
    }
    #[inline(always)]
    fn store_bytes(value: Self::F32, to: &mut [u8]) {
        write(value.map(|value| (round(value) + 128) as u8), to);
    }
    #[inline(always)]
    fn magnitude(value: Self::F32) -> Self::I32 {
        value.map(|value| value.to_bits().cast_signed() & i32::MAX)
    }
    #[inline(always)]
    fn max_i32(a: Self::I32, b: Self::I32) -> Self::I32 {
        each(a, b, i32::max)
    }
    #[inline(always)]
    fn largest_i32(value: Self::I32) -> i32 {
        fold(value, i32::max)
    }
}

/// Adding it to a float of magnitude below 2^22 leaves the nearest integer in the low bits, ties to even.
const ROUNDER: f32 = 12_582_912.0;

#[inline(always)]
fn round(value: f32) -> i32 {
    (value + ROUNDER).to_bits().cast_signed().wrapping_sub(ROUNDER.to_bits().cast_signed())
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes, POWER};

    /// A machine with AVX-512. Named only by code that is compiled for it.
    pub(in super::super) struct Avx512;

    /// The first `count` lanes.
    #[inline(always)]
    fn mask(count: usize) -> u16 {
        if count >= LANES { u16::MAX } else { (1 << count) - 1 }
    }

    // SAFETY, for every block here: whoever names the type has found the instructions; loads and stores go no further
    // than their slice and need no alignment.
    #[expect(clippy::undocumented_unsafe_blocks, reason = "all have the one reason above")]
    impl Lanes for Avx512 {
        type F32 = __m512;
        type I32 = __m512i;

        #[inline(always)]
        fn all(value: f32) -> __m512 {
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        fn load(from: &[f32]) -> __m512 {
            match from.len() {
                LANES.. => unsafe { _mm512_loadu_ps(from.as_ptr()) },
                count => unsafe { _mm512_maskz_loadu_ps(mask(count), from.as_ptr()) },
            }
        }
        #[inline(always)]
        fn store(value: __m512, to: &mut [f32]) {
            match to.len() {
                LANES.. => unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) },
                count => unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(count), value) },
            }
        }
        #[inline(always)]
        fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn largest(value: __m512) -> f32 {
            unsafe { _mm512_reduce_max_ps(value) }
        }
        #[inline(always)]
        fn sum(value: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(value) }
        }
        #[inline(always)]
        fn first(count: usize, value: __m512, other: __m512) -> __m512 {
            unsafe { _mm512_mask_blend_ps(mask(count), other, value) }
        }
        #[inline(always)]
        fn exp2(value: __m512) -> __m512 {
            unsafe {
                let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(value);
                let rest = _mm512_sub_ps(value, whole);
                let mut power = _mm512_set1_ps(POWER[0]);
                for factor in &POWER[1..] {
                    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(*factor));
                }
                _mm512_scalef_ps(power, whole)
            }
        }
        #[inline(always)]
        fn round(value: __m512) -> __m512i {
            unsafe { _mm512_cvtps_epi32(value) }
        }
        #[inline(always)]
        fn load_i32(from: &[i32]) -> __m512i {
            match from.len() {
                LANES.. => unsafe { _mm512_loadu_epi32(from.as_ptr()) },
                count => unsafe { _mm512_maskz_loadu_epi32(mask(count), from.as_ptr()) },
            }
        }
        #[inline(always)]
        fn store_i32(value: __m512i, to: &mut [i32]) {
            match to.len() {
                LANES.. => unsafe { _mm512_storeu_epi32(to.as_mut_ptr(), value) },
                count => unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr(), mask(count), value) },
            }
        }
        #[inline(always)]
        fn to_f32(value: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(value) }
        }
        #[inline(always)]
        fn words(low: __m512i, high: __m512i) -> __m512i {
            unsafe { _mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_slli_epi32::<16>(high)) }
        }
        #[inline(always)]
        fn store_bytes(value: __m512, to: &mut [u8]) {
            let at = to.as_mut_ptr().cast();
            unsafe {
                let bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(128)));
                _mm_mask_storeu_epi8(at, mask(to.len()), bytes);
            }
        }
        #[inline(always)]
        fn magnitude(value: __m512) -> __m512i {
            unsafe { _mm512_and_epi32(_mm512_castps_si512(value), _mm512_set1_epi32(i32::MAX)) }
        }
        #[inline(always)]
        fn max_i32(a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_max_epi32(a, b) }
        }
        #[inline(always)]
        fn largest_i32(value: __m512i) -> i32 {
            unsafe { _mm512_reduce_max_epi32(value) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Avx512;
