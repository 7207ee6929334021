//! `DraftAttention` against its equation in float64, and what it promises of rows side by side.

use super::{
    drafting::{Drafting, Scratch, Sizes},
    lanes::Plain,
    tests::{Quantised, Random},
    widest::{Work, run_widest},
};

/// What is known before a run, and the caches that it changes.
#[derive(Clone)]
struct Case {
    sizes: Sizes,
    projected: Vec<f32>,
    row_scale: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    prompt_keys: Vec<f32>,
    prompt_values: Vec<f32>,
    lengths: Vec<usize>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Case {
    fn new(lengths: &[usize], tokens: usize, prompt: usize, [heads, kv_heads, size]: [usize; 3]) -> Self {
        let rows = lengths.len();
        let capacity = lengths.iter().max().unwrap() + tokens + 3;
        let mut random = Random(3 + (rows * 1000 + tokens * 10 + prompt) as u64);
        let angles = random.vec((prompt + capacity) * size / 2);
        Self {
            sizes: Sizes { rows, tokens, heads, kv_heads, size, prompt, capacity },
            projected: random.vec(rows * tokens * (heads + 2 * kv_heads) * size),
            row_scale: (0..rows * tokens).map(|_| random.next().abs() + 0.1).collect(),
            cos: angles.iter().map(|angle| angle.cos()).collect(),
            sin: angles.iter().map(|angle| angle.sin()).collect(),
            prompt_keys: random.vec(kv_heads * prompt * size),
            prompt_values: random.vec(kv_heads * prompt * size),
            lengths: lengths.to_vec(),
            keys: random.vec(rows * kv_heads * capacity * size),
            values: random.vec(rows * kv_heads * capacity * size),
        }
    }

    fn run(&mut self) -> Quantised {
        self.compute(|work| run_widest(work))
    }

    fn compute(&mut self, run: impl FnOnce(Drafting<'_>)) -> Quantised {
        let sizes = self.sizes;
        let mut out = Quantised::new(sizes.rows * sizes.tokens, sizes.heads * sizes.size);
        run(Drafting {
            sizes,
            projected: &self.projected,
            row_scale: &self.row_scale,
            cos: &self.cos,
            sin: &self.sin,
            prompt_keys: &self.prompt_keys,
            prompt_values: &self.prompt_values,
            lengths: &self.lengths,
            keys: &mut self.keys,
            values: &mut self.values,
            scratch: &mut Scratch::default(),
            out: &mut out.bytes,
            out_scale: &mut out.scales,
        });
        out
    }

    fn width(&self) -> usize {
        (self.sizes.heads + 2 * self.sizes.kv_heads) * self.sizes.size
    }

    /// One head's part of a token, rotated to its place.
    fn rotated(&self, token: usize, head: usize) -> Vec<f64> {
        let Sizes { tokens, size, prompt, .. } = self.sizes;
        let position = prompt + self.lengths[token / tokens] + token % tokens;
        let half = size / 2;
        let part = &self.projected[token * self.width() + head * size..][..size];
        let x = |d: usize| f64::from(part[d]) * f64::from(self.row_scale[token]);
        let angle = |d: usize| {
            (f64::from(self.cos[position * half + d % half]), f64::from(self.sin[position * half + d % half]))
        };
        let turned = |d: usize| match d < half {
            true => x(d) * angle(d).0 - x(d + half) * angle(d).1,
            false => x(d) * angle(d).0 + x(d - half) * angle(d).1,
        };
        (0..size).map(turned).collect()
    }

    /// Every key and value that a token's head may see: the prompt's, the cached ones, and this run's up to the token.
    fn seen(&self, token: usize, head: usize) -> Vec<(Vec<f64>, Vec<f64>)> {
        let Sizes { tokens, heads, kv_heads, size, prompt, capacity, .. } = self.sizes;
        let (row, at) = (token / tokens, (token / tokens * kv_heads + head) * size * capacity);
        let double = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let column = |keys: &[f32], stride: usize, place: usize| {
            (0..size).map(|d| f64::from(keys[d * stride + place])).collect::<Vec<_>>()
        };
        let of_prompt = |place: usize| {
            let at = head * size * prompt;
            (column(&self.prompt_keys[at..], prompt, place), double(&self.prompt_values[at + place * size..][..size]))
        };
        let cached = |place: usize| {
            (column(&self.keys[at..], capacity, place), double(&self.values[at + place * size..][..size]))
        };
        let new = |token: usize| {
            let value = &self.projected[token * self.width() + (heads + kv_heads + head) * size..][..size];
            let scale = f64::from(self.row_scale[token]);
            (self.rotated(token, heads + head), double(value).into_iter().map(|value| value * scale).collect())
        };
        let places = (0..prompt).map(of_prompt).chain((0..self.lengths[row]).map(cached));
        places.chain((row * tokens..=token).map(new)).collect()
    }

    /// The equation, for the caches as they were before a run.
    fn expected(&self) -> Vec<Vec<f64>> {
        let Sizes { rows, tokens, heads, kv_heads, .. } = self.sizes;
        let of_head = |token: usize, head: usize| {
            let query = self.rotated(token, head);
            let seen = self.seen(token, head * kv_heads / heads);
            let score = |key: &[f64]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
            let scores: Vec<f64> = seen.iter().map(|(key, _)| score(key)).collect();
            let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mix = |d: usize| weights.iter().zip(&seen).map(|(weight, (_, value))| weight * value[d]).sum::<f64>();
            (0..self.sizes.size).map(|d| mix(d) / sum).collect::<Vec<_>>()
        };
        (0..rows * tokens).map(|token| (0..heads).flat_map(|head| of_head(token, head)).collect()).collect()
    }

    /// One row of the case, as a case of its own.
    fn only(&self, row: usize) -> Self {
        let part = |values: &[f32]| {
            let one = values.len() / self.sizes.rows;
            values[row * one..][..one].to_vec()
        };
        Self {
            sizes: Sizes { rows: 1, ..self.sizes },
            projected: part(&self.projected),
            row_scale: part(&self.row_scale),
            lengths: vec![self.lengths[row]],
            keys: part(&self.keys),
            values: part(&self.values),
            ..self.clone()
        }
    }
}

/// Prompts and caches of none, some and many tokens; heads that share keys and heads that do not.
fn cases() -> Vec<Case> {
    vec![
        Case::new(&[0, 5, 31], 1, 37, [6, 2, 16]),
        Case::new(&[0], 23, 70, [9, 3, 64]),
        Case::new(&[7, 2, 0, 19, 33, 1, 64, 8], 1, 130, [9, 3, 64]),
        Case::new(&[3, 0], 9, 0, [4, 4, 8]),
        Case::new(&[2], 1, 16, [40, 1, 24]),
    ]
}

#[test]
fn drafts_attend_as_the_equation_says() {
    for mut case in cases() {
        let expected = case.expected();
        case.clone().compute(|work| work.run::<Plain>()).assert_near(&expected, 1e-4);
        case.run().assert_near(&expected, 1e-4);
    }
}

#[test]
fn a_draft_is_the_same_bit_for_bit_beside_any_others() {
    for mut case in cases() {
        let alone: Vec<(Case, Quantised)> = (0..case.sizes.rows)
            .map(|row| {
                let mut only = case.only(row);
                let out = only.run();
                (only, out)
            })
            .collect();
        let together = case.run();
        let bytes: Vec<u8> = alone.iter().flat_map(|(_, out)| out.bytes.clone()).collect();
        let scales: Vec<f32> = alone.iter().flat_map(|(_, out)| out.scales.clone()).collect();
        assert_eq!(together, Quantised { bytes, scales });
        assert_eq!(case.keys, alone.iter().flat_map(|(only, _)| only.keys.clone()).collect::<Vec<_>>());
        assert_eq!(case.values, alone.iter().flat_map(|(only, _)| only.values.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn only_the_places_behind_what_is_cached_are_written() {
    let before = Case::new(&[4, 0], 2, 5, [4, 2, 8]);
    let mut after = before.clone();
    after.run();
    let Sizes { size, capacity, .. } = before.sizes;
    let written = |row: usize, place: usize| (before.lengths[row]..before.lengths[row] + 2).contains(&place);
    for (at, (old, new)) in before.values.iter().zip(&after.values).enumerate() {
        assert_eq!(old != new, written(at / (2 * size * capacity), at / size % capacity), "value {at}");
    }
    for (at, (old, new)) in before.keys.iter().zip(&after.keys).enumerate() {
        assert_eq!(old != new, written(at / (2 * size * capacity), at % capacity), "key {at}");
    }
}

#[test]
fn what_is_no_number_stays_none_in_its_own_draft() {
    for mut case in [Case::new(&[4, 4], 1, 20, [6, 2, 16]), Case::new(&[0, 1], 3, 0, [4, 2, 8])] {
        let (tokens, width) = (case.sizes.tokens, case.width());
        case.projected[tokens * width] = f32::NAN;
        for out in [case.clone().compute(|work| work.run::<Plain>()), case.run()] {
            assert!(out.scales[..tokens].iter().all(|scale| scale.is_finite()));
            assert!(out.scales[tokens].is_nan());
        }
    }
}
