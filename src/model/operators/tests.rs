//! Each operator against its equation in float64, on every machine's path and on this machine's widest.

use super::{
    attention::{Attention, Scratch, Sizes},
    lanes::{Lanes, Plain},
    product::{Job, Product, anywhere},
    widest::{Work, run_widest},
};

/// Roughly normal numbers, the same from the same seed.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> f32 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        };
        (0..6).map(|_| uniform()).sum::<f32>() * std::f32::consts::SQRT_2
    }

    pub(super) fn vec(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// Bytes and scales, as numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantised {
    pub bytes: Vec<u8>,
    pub scales: Vec<f32>,
}

impl Quantised {
    pub(super) fn new(rows: usize, width: usize) -> Self {
        Self { bytes: vec![0; rows * width], scales: vec![0.0; rows] }
    }

    /// Every number is the expected one within half a step and `slack` of its row's largest.
    pub(super) fn assert_near(&self, expected: &[Vec<f64>], slack: f64) {
        for (row, (expected, scale)) in expected.iter().zip(&self.scales).enumerate() {
            let peak = expected.iter().fold(0.0, |peak: f64, value| peak.max(value.abs()));
            let bytes = &self.bytes[row * expected.len()..][..expected.len()];
            for (column, (byte, expected)) in bytes.iter().zip(expected).enumerate() {
                let value = (f64::from(*byte) - 128.0) * f64::from(*scale);
                let bound = peak * (0.501 / 127.0 + slack) + 1e-9;
                assert!((value - expected).abs() <= bound, "row {row}, column {column}: {value} for {expected}");
            }
        }
    }

    pub(super) fn assert_like(&self, other: &Self) {
        let steps = self.bytes.iter().zip(&other.bytes).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(steps <= Some(1), "bytes differ by {steps:?}");
        for (a, b) in self.scales.iter().zip(&other.scales) {
            assert!((a - b).abs() <= a.abs() * 1e-4, "scales {a} and {b}");
        }
    }
}

/// What one run of the attention reads.
#[derive(Clone)]
struct Case {
    sizes: Sizes,
    projected: Vec<f32>,
    row_scale: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    prompt_keys: Vec<f32>,
    prompt_values: Vec<f32>,
}

impl Case {
    fn new(posts: usize, tokens: usize, prompt: usize, heads: [usize; 3]) -> Self {
        let [heads, kv_heads, size] = heads;
        let mut random = Random(7 + (posts * 1000 + tokens * 10 + prompt) as u64);
        let angles = random.vec((prompt + tokens) * size / 2);
        let mut projected = random.vec(posts * tokens * (heads + 2 * kv_heads) * size);
        // The exporter folds this into the query weights.
        let queries =
            projected.chunks_exact_mut((heads + 2 * kv_heads) * size).flat_map(|row| &mut row[..heads * size]);
        queries.for_each(|value| *value /= (size as f32).sqrt());
        Self {
            sizes: Sizes { posts, tokens, heads, kv_heads, size, prompt },
            projected,
            row_scale: (0..posts * tokens).map(|_| random.next().abs() + 0.1).collect(),
            cos: angles.iter().map(|angle| angle.cos()).collect(),
            sin: angles.iter().map(|angle| angle.sin()).collect(),
            prompt_keys: random.vec(kv_heads * prompt * size),
            prompt_values: random.vec(kv_heads * prompt * size),
        }
    }

    fn every_row(&self) -> Vec<usize> {
        (0..self.sizes.posts * self.sizes.tokens).collect()
    }

    fn width(&self) -> usize {
        (self.sizes.heads + 2 * self.sizes.kv_heads) * self.sizes.size
    }

    fn run(&self, rows: &[usize]) -> Quantised {
        self.compute(rows, |work| run_widest(work))
    }

    fn compute(&self, rows: &[usize], run: impl FnOnce(Attention<'_>)) -> Quantised {
        let mut out = Quantised::new(rows.len(), self.sizes.heads * self.sizes.size);
        let mut scratch = Scratch::default();
        run(Attention {
            sizes: self.sizes,
            projected: &self.projected,
            row_scale: &self.row_scale,
            cos: &self.cos,
            sin: &self.sin,
            prompt_keys: &self.prompt_keys,
            prompt_values: &self.prompt_values,
            rows,
            scratch: &mut scratch,
            out: &mut out.bytes,
            out_scale: &mut out.scales,
        });
        out
    }

    fn part(&self, row: usize, head: usize) -> Vec<f64> {
        let start = row * self.width() + head * self.sizes.size;
        let scale = f64::from(self.row_scale[row]);
        self.projected[start..][..self.sizes.size].iter().map(|value| f64::from(*value) * scale).collect()
    }

    fn rotated(&self, row: usize, head: usize) -> Vec<f64> {
        let (part, half) = (self.part(row, head), self.sizes.size / 2);
        let at = (self.sizes.prompt + row % self.sizes.tokens) * half;
        let (cos, sin) = (|d: usize| f64::from(self.cos[at + d]), |d: usize| f64::from(self.sin[at + d]));
        let low = (0..half).map(|d| part[d] * cos(d) - part[half + d] * sin(d));
        let high = (0..half).map(|d| part[half + d] * cos(d) + part[d] * sin(d));
        low.chain(high).collect()
    }

    /// The equation itself.
    fn expected(&self, row: usize) -> Vec<f64> {
        let Sizes { tokens, heads, kv_heads, size, prompt, .. } = self.sizes;
        let mut out = Vec::new();
        for head in 0..heads {
            let kv = head * kv_heads / heads;
            let query = self.rotated(row, head);
            let double = |numbers: &[f32], token: usize| -> Vec<f64> {
                numbers[(kv * prompt + token) * size..][..size].iter().map(|value| f64::from(*value)).collect()
            };
            let mut seen: Vec<(Vec<f64>, Vec<f64>)> = (0..prompt)
                .map(|token| (double(&self.prompt_keys, token), double(&self.prompt_values, token)))
                .collect();
            let first = row - row % tokens;
            seen.extend(
                (first..=row).map(|row| (self.rotated(row, heads + kv), self.part(row, heads + kv_heads + kv))),
            );
            let scores: Vec<f64> =
                seen.iter().map(|(key, _)| key.iter().zip(&query).map(|(k, q)| k * q).sum()).collect();
            let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend(
                (0..size).map(|d| {
                    weights.iter().zip(&seen).map(|(weight, (_, value))| weight * value[d]).sum::<f64>() / total
                }),
            );
        }
        out
    }
}

const SMOL: [usize; 3] = [9, 3, 64];

#[test]
fn attention_follows_its_equation_at_every_shape() {
    let shapes = [
        (2, 5, 40, SMOL),
        (1, 1, 0, SMOL),
        (3, 1, 1, SMOL),
        (1, 70, 0, SMOL),
        (2, 130, 200, [2, 1, 64]),
        (1, 33, 64, [4, 4, 128]),
        (2, 17, 31, [4, 2, 16]),
        (1, 9, 20, [6, 2, 8]),
        (1, 3, 65, [32, 1, 80]),
    ];
    for (posts, tokens, prompt, heads) in shapes {
        let case = Case::new(posts, tokens, prompt, heads);
        let expected: Vec<_> = case.every_row().into_iter().map(|row| case.expected(row)).collect();
        case.run(&case.every_row()).assert_near(&expected, 1e-3);
    }
}

#[test]
fn every_machine_computes_the_same_attention() {
    for case in [Case::new(2, 70, 100, SMOL), Case::new(1, 9, 20, [6, 2, 8])] {
        let plain = case.compute(&case.every_row(), |work| work.run::<Plain>());
        plain.assert_like(&case.run(&case.every_row()));
    }
}

#[test]
fn every_machine_multiplies_exactly_the_same() {
    let mut random = Random(5);
    let mut integer = || (random.next() * 1e3) as i32;
    let mut words = |count| -> Vec<i32> { (0..count).map(|_| (integer() & 0xffff) | (integer() << 16)).collect() };
    let (left, right) = (words(12 * 40), words(40 * 64));
    let product = |multiply: &dyn Fn(Job<'_>), steps, columns| {
        let mut out = vec![0; 12 * 64];
        let (left, right, out_of_job) = (&left[..], &right[..], &mut out[..]);
        multiply(Job {
            left,
            left_stride: 40,
            right,
            right_stride: 64,
            steps,
            columns,
            out: out_of_job,
            out_stride: 64,
        });
        out
    };
    for (steps, columns) in [(40, 64), (1, 16), (7, 48), (0, 32)] {
        let expected = product(&|job| anywhere(job), steps, columns);
        assert_eq!(product(&|job| Plain::multiply(job), steps, columns), expected, "{steps} steps, {columns} columns");
        let longhand: i64 = (0..steps)
            .map(|step| {
                let (a, b) = (left[40 + step], right[step * 64 + 3]);
                i64::from(a as i16) * i64::from(b as i16) + i64::from(a >> 16) * i64::from(b >> 16)
            })
            .sum();
        assert_eq!(expected[64 + 3], longhand as i32);
    }
}

#[test]
fn batch_mates_and_padding_change_no_bit() {
    let alone = Case::new(1, 20, 90, SMOL);
    let mut batch = Case::new(3, 75, 90, SMOL);
    batch.prompt_keys.clone_from(&alone.prompt_keys);
    batch.prompt_values.clone_from(&alone.prompt_values);
    let positions = alone.cos.len();
    batch.cos[..positions].copy_from_slice(&alone.cos);
    batch.sin[..positions].copy_from_slice(&alone.sin);
    batch.projected[75 * alone.width()..][..20 * alone.width()].copy_from_slice(&alone.projected);
    batch.row_scale[75..95].copy_from_slice(&alone.row_scale);
    let rows: Vec<usize> = (75..95).collect();
    assert_eq!(batch.run(&rows), alone.run(&alone.every_row()));
    let whole = batch.run(&batch.every_row());
    assert_eq!(whole.scales[75..95], alone.run(&alone.every_row()).scales);
}

#[test]
fn rows_may_ask_in_any_order() {
    let case = Case::new(3, 12, 30, SMOL);
    let every = case.run(&case.every_row());
    let chosen = [23, 5, 5, 35, 0];
    let some = case.run(&chosen);
    for (place, row) in chosen.into_iter().enumerate() {
        assert_eq!(some.scales[place], every.scales[row]);
        assert_eq!(some.bytes[place * 576..][..576], every.bytes[row * 576..][..576]);
    }
}

#[test]
fn a_token_that_takes_nearly_everything_leaves_the_others_their_precision() {
    let mut case = Case::new(1, 4, 150, [1, 1, 64]);
    // Every query is the same; one key fits it and has no value, as the first token of a language model has.
    case.projected.chunks_exact_mut(192).for_each(|row| row[..64].fill(1.0));
    (case.cos, case.sin) = (vec![1.0; case.cos.len()], vec![0.0; case.sin.len()]);
    case.row_scale.fill(1.0);
    case.prompt_keys.iter_mut().for_each(|key| *key *= 0.1);
    case.prompt_keys[..64].fill(0.2);
    case.prompt_values[..64].fill(1e-3);
    let expected: Vec<_> = case.every_row().into_iter().map(|row| case.expected(row)).collect();
    case.run(&case.every_row()).assert_near(&expected, 5e-3);
}

#[test]
fn extreme_numbers_stay_numbers() {
    for factor in [0.0, 1e-30, 1e-3, 100.0, 1e12] {
        let mut case = Case::new(1, 10, 70, SMOL);
        case.projected.iter_mut().for_each(|value| *value *= factor);
        let out = case.run(&case.every_row());
        assert!(out.scales.iter().all(|scale| scale.is_finite() && *scale > 0.0), "{factor}: {:?}", out.scales);
    }
}

#[test]
fn what_is_no_number_stays_none() {
    for broken in [f32::NAN, f32::INFINITY] {
        for place in [0, 9 * 64, 12 * 64] {
            let mut case = Case::new(1, 10, 70, SMOL);
            case.projected[place] = broken;
            let out = case.run(&[0, 9]);
            assert!(!out.scales[0].is_finite(), "{broken} at {place}: {:?}", out.scales);
        }
    }
}

fn exp2_of<M: Lanes>(value: f32) -> f32 {
    let mut out = [0.0; 16];
    M::store(M::exp2(M::all(value)), &mut out);
    out[3]
}

#[test]
fn powers_of_two_are_exact_to_a_millionth() {
    for step in -250_000..=250_000 {
        let value = step as f32 * 4.9e-4;
        let exact = f64::from(value).exp2();
        assert!((f64::from(exp2_of::<Plain>(value)) - exact).abs() < exact * 1e-6, "2^{value}");
    }
    assert_eq!(exp2_of::<Plain>(0.0), 1.0);
    assert_eq!(exp2_of::<Plain>(-1e30), 0.0);
}
