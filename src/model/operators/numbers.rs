//! Rows of numbers: largest magnitude, sum of squares, quantising, rotating.
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

/// One head's part of a row, scaled, and rotated by the angles of its position: pairs are (j, j + half).
#[inline(always)]
pub(super) fn rotate<M: Lanes>(part: &[f32], scale: f32, (cos, sin): (&[f32], &[f32]), out: &mut [f32]) {
    let half = part.len() / 2;
    let (low, high) = part.split_at(half);
    let (out_low, out_high) = out.split_at_mut(half);
    let scale = M::all(scale);
    let angles = cos.chunks(LANES).zip(sin.chunks(LANES));
    let halves = low.chunks(LANES).zip(high.chunks(LANES));
    let outs = out_low.chunks_mut(LANES).zip(out_high.chunks_mut(LANES));
    for (((low, high), (cos, sin)), (out_low, out_high)) in halves.zip(angles).zip(outs) {
        let (low, high) = (M::mul(M::load(low), scale), M::mul(M::load(high), scale));
        let (cos, sin) = (M::load(cos), M::load(sin));
        M::store(M::sub(M::mul(low, cos), M::mul(high, sin)), out_low);
        M::store(M::mul_add(high, cos, M::mul(low, sin)), out_high);
    }
}

/// The larger; what is no number stays none, which `f32::max` would not promise.
#[inline(always)]
pub(super) fn at_least(value: f32, least: f32) -> f32 {
    if value < least { least } else { value }
}
