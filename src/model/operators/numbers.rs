//! Rows of numbers: largest magnitude, sum of squares, quantising.
//!
//! What is no number stays none: a broken weight must end in an error and never in a verdict.

use super::lanes::{LANES, Lanes};

/// The largest magnitude; not a number if one of them is not.
#[inline(always)]
pub(super) fn peak<M: Lanes>(row: &[f32]) -> f32 {
    let mut lanes = M::magnitude(M::all(0.0));
    for chunk in row.chunks(LANES) {
        lanes = M::max_i32(lanes, M::magnitude(M::load(chunk)));
    }
    f32::from_bits(M::largest_i32(lanes).cast_unsigned())
}

/// The sum of squares.
#[inline(always)]
pub(super) fn sum_of_squares<M: Lanes>(row: &[f32]) -> f32 {
    let mut lanes = M::all(0.0);
    for chunk in row.chunks(LANES) {
        lanes = M::mul_add(M::load(chunk), M::load(chunk), lanes);
    }
    M::sum(lanes)
}

/// Writes `row` as bytes around 128 and returns the scale that undoes it: (byte - 128) * scale.
#[inline(always)]
pub(super) fn quantise<M: Lanes>(row: &[f32], bytes: &mut [u8]) -> f32 {
    // A row of zeros would divide by zero.
    let scale = at_least(peak::<M>(row) * (1.0 / 127.0), 1e-10);
    let inverse = M::all(1.0 / scale);
    for (bytes, row) in bytes.chunks_mut(LANES).zip(row.chunks(LANES)) {
        M::store_bytes(M::mul(M::load(row), inverse), bytes);
    }
    scale
}

/// The larger; what is no number stays none, which `f32::max` would not promise.
#[inline(always)]
pub(super) fn at_least(value: f32, least: f32) -> f32 {
    if value < least { least } else { value }
}
