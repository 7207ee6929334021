//! Products of small matrices in single precision.
//!
//! Each sum is gathered in the order of its steps, whatever stands beside it: a row's result does not depend on how many
//! rows there are.

use super::lanes::{LANES, Lanes};

/// out[r][c] = what it was or 0, plus the sum over s of left[r][s] * right[s][c].
pub(super) struct Job<'a> {
    pub rows: usize,
    pub steps: usize,
    pub columns: usize,
    pub left: &'a [f32],
    pub left_stride: usize,
    pub right: &'a [f32],
    pub right_stride: usize,
    pub out: &'a mut [f32],
    pub out_stride: usize,
    pub adds: bool,
}

/// Multiplies in blocks whose sums stay in registers.
#[inline(always)]
pub(super) fn multiply<M: Lanes>(mut job: Job<'_>) {
    let mut row = 0;
    while row < job.rows {
        match job.rows - row {
            6.. => {
                across::<M, 6>(&mut job, row);
                row += 6;
            }
            3.. => {
                across::<M, 3>(&mut job, row);
                row += 3;
            }
            _ => {
                across::<M, 1>(&mut job, row);
                row += 1;
            }
        }
    }
}

/// `R` rows, all columns.
#[inline(always)]
fn across<M: Lanes, const R: usize>(job: &mut Job<'_>, row: usize) {
    let mut column = 0;
    while column < job.columns {
        if job.columns - column >= 4 * LANES {
            whole::<M, R, 4>(job, row, column);
            column += 4 * LANES;
        } else {
            part::<M, R>(job, row, column);
            column += LANES;
        }
    }
}

/// `R` rows by `N` whole groups of columns.
#[inline(always)]
fn whole<M: Lanes, const R: usize, const N: usize>(job: &mut Job<'_>, row: usize, column: usize) {
    let mut sums = [[M::all(0.0); N]; R];
    if job.adds {
        for (r, sums) in sums.iter_mut().enumerate() {
            let out = &job.out[(row + r) * job.out_stride + column..][..N * LANES];
            for (sum, out) in sums.iter_mut().zip(out.as_chunks::<LANES>().0) {
                *sum = M::load(out);
            }
        }
    }
    let mut left: [&[f32]; R] = [&[]; R];
    for (r, left) in left.iter_mut().enumerate() {
        *left = &job.left[(row + r) * job.left_stride..][..job.steps];
    }
    for step in 0..job.steps {
        let right = &job.right[step * job.right_stride + column..][..N * LANES];
        let mut vectors = [M::all(0.0); N];
        for (vector, right) in vectors.iter_mut().zip(right.as_chunks::<LANES>().0) {
            *vector = M::load(right);
        }
        for (left, sums) in left.iter().zip(&mut sums) {
            let factor = M::all(left[step]);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = M::mul_add(factor, vector, *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let out = &mut job.out[(row + r) * job.out_stride + column..][..N * LANES];
        for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
            M::store(sum, out);
        }
    }
}

/// `R` rows by one group of columns, of which some may be missing.
#[inline(always)]
fn part<M: Lanes, const R: usize>(job: &mut Job<'_>, row: usize, column: usize) {
    let count = LANES.min(job.columns - column);
    let mut sums = [M::all(0.0); R];
    if job.adds {
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = M::load(&job.out[(row + r) * job.out_stride + column..][..count]);
        }
    }
    for step in 0..job.steps {
        let vector = M::load(&job.right[step * job.right_stride + column..][..count]);
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = M::mul_add(M::all(job.left[(row + r) * job.left_stride + step]), vector, *sum);
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        M::store(sum, &mut job.out[(row + r) * job.out_stride + column..][..count]);
    }
}
