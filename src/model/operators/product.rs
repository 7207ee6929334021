//! Products of small matrices of 16-bit integers, summed exactly in 32 bits.
//!
//! A word holds two integers that are multiplied by the two of another word and added: one step of a dot product.
//! Callers bound the magnitudes so that no sum overflows.

#![expect(unsafe_code, reason = "the dot product instruction reads and writes through pointers")]

use super::lanes::{LANES, Lanes, Plain};

/// Rows are computed in groups of so many: with 64 columns their sums just fit into the registers.
pub(super) const ROWS: usize = 6;
/// Columns come in groups of so many.
pub(super) const COLUMNS: usize = LANES;

/// out[r][c] = sum over s of left[r][s] * right[s][c].
pub(super) struct Job<'a> {
    /// As many rows as `out` has, a multiple of [`ROWS`].
    pub left: &'a [i32],
    pub left_stride: usize,
    pub right: &'a [i32],
    pub right_stride: usize,
    pub steps: usize,
    /// A multiple of [`COLUMNS`].
    pub columns: usize,
    pub out: &'a mut [i32],
    pub out_stride: usize,
}

/// A machine that multiplies.
pub(super) trait Product: Lanes {
    fn multiply(job: Job<'_>);
}

impl Product for Plain {
    #[inline(always)]
    fn multiply(job: Job<'_>) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the instructions were found.
            return unsafe { x86::multiply_avx2(job) };
        }
        anywhere(job);
    }
}

/// Without any instruction of its own.
#[inline(always)]
pub(super) fn anywhere(job: Job<'_>) {
    for (row, out) in job.out.chunks_exact_mut(job.out_stride).enumerate() {
        let left = &job.left[row * job.left_stride..][..job.steps];
        for (group, out) in out[..job.columns].as_chunks_mut::<COLUMNS>().0.iter_mut().enumerate() {
            let mut sums = [0; COLUMNS];
            for (left, right) in left.iter().zip(job.right.chunks(job.right_stride)) {
                let right = &right[group * COLUMNS..][..COLUMNS];
                for (sum, right) in sums.iter_mut().zip(right) {
                    let low = i32::from(*left as i16) * i32::from(*right as i16);
                    *sum += low + (left >> 16) * (right >> 16);
                }
            }
            *out = sums;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm512_dpwssd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use super::super::lanes::Avx512;
    use super::{COLUMNS, Job, Product, ROWS};

    impl Product for Avx512 {
        #[inline(always)]
        fn multiply(mut job: Job<'_>) {
            let rows = job.out.len() / job.out_stride;
            for row in (0..rows).step_by(ROWS) {
                let mut column = 0;
                while column < job.columns {
                    // SAFETY: whoever chose this type has found the instructions.
                    column += COLUMNS
                        * unsafe {
                            match (job.columns - column) / COLUMNS {
                                1 => block::<1>(&mut job, row, column),
                                2 => block::<2>(&mut job, row, column),
                                3 => block::<3>(&mut job, row, column),
                                _ => block::<4>(&mut job, row, column),
                            }
                        };
                }
            }
        }
    }

    /// `ROWS` rows by one group of columns at a time.
    #[target_feature(enable = "avx2")]
    pub(super) fn multiply_avx2(job: Job<'_>) {
        let rows = job.out.len() / job.out_stride;
        for (row, column) in
            (0..rows).step_by(ROWS).flat_map(|row| (0..job.columns).step_by(COLUMNS).map(move |c| (row, c)))
        {
            let left = [0, 1, 2, 3, 4, 5].map(|r| &job.left[(row + r) * job.left_stride..][..job.steps]);
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for step in 0..job.steps {
                let right = &job.right[step * job.right_stride + column..][..COLUMNS];
                // SAFETY: sixteen words are there; loads, and the stores below, need no alignment.
                let words = unsafe { [0, 8].map(|at| _mm256_loadu_si256(right.as_ptr().add(at).cast())) };
                for (left, sums) in left.iter().zip(&mut sums) {
                    let factor = _mm256_set1_epi32(left[step]);
                    for (sum, words) in sums.iter_mut().zip(words) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(factor, words));
                    }
                }
            }
            for (r, [low, high]) in sums.into_iter().enumerate() {
                let out = job.out[(row + r) * job.out_stride + column..][..COLUMNS].as_mut_ptr();
                // SAFETY: as above.
                unsafe {
                    _mm256_storeu_si256(out.cast(), low);
                    _mm256_storeu_si256(out.add(8).cast(), high);
                }
            }
        }
    }

    /// `ROWS` rows by `N` groups of columns; returns N.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn block<const N: usize>(job: &mut Job<'_>, row: usize, column: usize) -> usize {
        let left: [&[i32]; ROWS] = [0, 1, 2, 3, 4, 5].map(|r| &job.left[(row + r) * job.left_stride..][..job.steps]);
        let mut sums = [[_mm512_setzero_si512(); N]; ROWS];
        for step in 0..job.steps {
            let right = &job.right[step * job.right_stride + column..][..N * COLUMNS];
            let mut words = [_mm512_setzero_si512(); N];
            for (n, words) in words.iter_mut().enumerate() {
                *words = load(&right[n * COLUMNS..]);
            }
            for (left, sums) in left.iter().zip(&mut sums) {
                let factor = _mm512_set1_epi32(left[step]);
                for (sum, words) in sums.iter_mut().zip(words) {
                    *sum = _mm512_dpwssd_epi32(*sum, factor, words);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut job.out[(row + r) * job.out_stride + column..][..N * COLUMNS];
            for (n, sum) in sums.iter().enumerate() {
                store(&mut out[n * COLUMNS..], *sum);
            }
        }
        N
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(words: &[i32]) -> __m512i {
        // SAFETY: sixteen words are there; the load needs no alignment.
        unsafe { _mm512_loadu_si512(words[..COLUMNS].as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(words: &mut [i32], value: __m512i) {
        // SAFETY: sixteen words are there; the store needs no alignment.
        unsafe { _mm512_storeu_si512(words[..COLUMNS].as_mut_ptr().cast(), value) }
    }
}
