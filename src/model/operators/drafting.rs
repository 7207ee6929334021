//! The arithmetic of `DraftAttention`: each row's new tokens attend to the shared prompt and to the row's own cache.
//!
//! In single precision: beside the weights that a run reads, a few rows' attention costs little. Keys are transposed, so
//! that the scores of 16 tokens are gathered at once. A row's result depends on nothing but the prompt and itself.

use super::{
    floats::{Job, multiply},
    lanes::{LANES, Lanes},
    numbers::{quantise, rotate},
    product::Product,
    widest::Work,
};

/// Query rows of a block, heads of a group counted each.
const BLOCK: usize = 24;
/// Below any score: its power is zero.
const HIDDEN: f32 = -1e30;

/// Sizes of one run: B rows of S tokens, H query heads, K key-value heads of D, P prompt tokens, room for C own tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub rows: usize,
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub size: usize,
    pub prompt: usize,
    pub capacity: usize,
}

/// One layer's attention.
pub(super) struct Drafting<'a> {
    pub sizes: Sizes,
    /// [B * S][(H + 2K) * D]: queries, keys and values, not yet times `row_scale`.
    pub projected: &'a [f32],
    /// [B * S].
    pub row_scale: &'a [f32],
    /// [positions][D / 2]; a row's first token has position P.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    /// [K][D][P], rotated.
    pub prompt_keys: &'a [f32],
    /// [K][P][D].
    pub prompt_values: &'a [f32],
    /// [B]: tokens that each row has in its cache already; with this run's, no more than C.
    pub lengths: &'a [usize],
    /// [B][K][D][C], rotated. What is new is written behind what is there.
    pub keys: &'a mut [f32],
    /// [B][K][C][D].
    pub values: &'a mut [f32],
    pub scratch: &'a mut Scratch,
    /// [B * S][H * D] around 128, and its scale by row.
    pub out: &'a mut [u8],
    pub out_scale: &'a mut [f32],
}

/// Memory that runs on one thread use again.
#[derive(Default)]
pub(super) struct Scratch {
    head: Vec<f32>,
    /// [BLOCK][D].
    queries: Vec<f32>,
    mixed: Vec<f32>,
    /// [BLOCK][P + C].
    scores: Vec<f32>,
    factors: Vec<f32>,
    /// [B * S][H * D].
    attended: Vec<f32>,
}

impl Work for Drafting<'_> {
    #[inline(always)]
    fn run<M: Product>(mut self) {
        let Sizes { rows, tokens, heads, kv_heads, size, prompt, capacity } = self.sizes;
        let group = heads / kv_heads;
        let block = BLOCK.max(group);
        let mut scratch = std::mem::take(self.scratch);
        scratch.head.resize(size, 0.0);
        scratch.queries.resize(block * size, 0.0);
        scratch.mixed.resize(block * size, 0.0);
        scratch.scores.resize(block * (prompt + capacity), 0.0);
        scratch.factors.resize(block, 0.0);
        scratch.attended.resize(rows * tokens * heads * size, 0.0);
        for head in 0..kv_heads {
            for token in 0..rows * tokens {
                self.append::<M>(head, token, &mut scratch.head);
            }
            let mut first = 0;
            while first < rows * tokens {
                let count = (block / group).min(rows * tokens - first);
                self.attend::<M>(head, first, count, &mut scratch);
                first += count;
            }
        }
        let width = heads * size;
        let rows = scratch.attended.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        for ((attended, out), scale) in rows.zip(self.out_scale.iter_mut()) {
            *scale = quantise::<M>(attended, out);
        }
        *self.scratch = scratch;
    }
}

impl Drafting<'_> {
    /// Where a token stands in its row's cache.
    #[inline(always)]
    fn place(&self, token: usize) -> usize {
        self.lengths[token / self.sizes.tokens] + token % self.sizes.tokens
    }

    /// Writes a token's key and value into its row's cache.
    #[inline(always)]
    fn append<M: Lanes>(&mut self, head: usize, token: usize, key: &mut [f32]) {
        let Sizes { tokens, heads, kv_heads, size, capacity, .. } = self.sizes;
        let (place, at) = (self.place(token), (token / tokens * kv_heads + head) * size * capacity);
        self.rotated::<M>(token, heads + head, key);
        for (d, key) in key.iter().enumerate() {
            self.keys[at + d * capacity + place] = *key;
        }
        let from = (token * (heads + 2 * kv_heads) + heads + kv_heads + head) * size;
        let scale = M::all(self.row_scale[token]);
        let out = &mut self.values[at + place * size..][..size];
        for (out, value) in out.chunks_mut(LANES).zip(self.projected[from..][..size].chunks(LANES)) {
            M::store(M::mul(M::load(value), scale), out);
        }
    }

    /// All query heads of a group, for `count` tokens.
    #[inline(always)]
    fn attend<M: Lanes>(&self, head: usize, first: usize, count: usize, scratch: &mut Scratch) {
        let Sizes { tokens, heads, kv_heads, size, prompt, capacity, .. } = self.sizes;
        let (group, stride) = (heads / kv_heads, prompt + capacity);
        for row in 0..count * group {
            let (token, member) = (first + row / group, row % group);
            let query = &mut scratch.queries[row * size..][..size];
            self.rotated::<M>(token, head * group + member, query);
            let factor = M::all(std::f32::consts::LOG2_E);
            for query in query.chunks_mut(LANES) {
                M::store(M::mul(M::load(query), factor), query);
            }
        }
        multiply::<M>(Job {
            rows: count * group,
            steps: size,
            columns: prompt,
            left: &scratch.queries,
            left_stride: size,
            right: &self.prompt_keys[head * size * prompt..],
            right_stride: prompt,
            out: &mut scratch.scores,
            out_stride: stride,
            adds: false,
        });
        for token in 0..count {
            let (row, own) = (token * group, ((first + token) / tokens * kv_heads + head) * size * capacity);
            let visible = self.place(first + token) + 1;
            multiply::<M>(Job {
                rows: group,
                steps: size,
                columns: visible,
                left: &scratch.queries[row * size..],
                left_stride: size,
                right: &self.keys[own..],
                right_stride: capacity,
                out: &mut scratch.scores[row * stride + prompt..],
                out_stride: stride,
                adds: false,
            });
            for row in row..row + group {
                scratch.factors[row] = probabilities::<M>(&mut scratch.scores[row * stride..][..prompt + visible]);
            }
        }
        multiply::<M>(Job {
            rows: count * group,
            steps: prompt,
            columns: size,
            left: &scratch.scores,
            left_stride: stride,
            right: &self.prompt_values[head * size * prompt..],
            right_stride: size,
            out: &mut scratch.mixed,
            out_stride: size,
            adds: false,
        });
        for token in 0..count {
            let (row, own) = (token * group, ((first + token) / tokens * kv_heads + head) * size * capacity);
            multiply::<M>(Job {
                rows: group,
                steps: self.place(first + token) + 1,
                columns: size,
                left: &scratch.scores[row * stride + prompt..],
                left_stride: stride,
                right: &self.values[own..],
                right_stride: size,
                out: &mut scratch.mixed[row * size..],
                out_stride: size,
                adds: true,
            });
        }
        for row in 0..count * group {
            let factor = M::all(scratch.factors[row]);
            let at = ((first + row / group) * heads + head * group + row % group) * size;
            let out = scratch.attended[at..][..size].chunks_mut(LANES);
            for (out, mixed) in out.zip(scratch.mixed[row * size..][..size].chunks(LANES)) {
                M::store(M::mul(M::load(mixed), factor), out);
            }
        }
    }

    /// One head's part of a token, scaled, and rotated to its position.
    #[inline(always)]
    fn rotated<M: Lanes>(&self, token: usize, head: usize, out: &mut [f32]) {
        let Sizes { heads, kv_heads, size, prompt, .. } = self.sizes;
        let (half, position) = (size / 2, prompt + self.place(token));
        let angles = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        let part = &self.projected[(token * (heads + 2 * kv_heads) + head) * size..][..size];
        rotate::<M>(part, self.row_scale[token], angles, out);
    }
}

/// Turns scores, in powers of two, into probabilities that have yet to be multiplied by what is returned.
#[inline(always)]
fn probabilities<M: Lanes>(scores: &mut [f32]) -> f32 {
    let mut peaks = M::all(HIDDEN);
    let mut nothing = M::all(0.0);
    for chunk in scores.chunks(LANES) {
        let score = M::first(chunk.len(), M::load(chunk), M::all(HIDDEN));
        peaks = M::max(score, peaks);
        // Zero, unless a score is no number.
        nothing = M::add(nothing, M::mul(score, M::all(0.0)));
    }
    let peak = M::all(M::largest(peaks));
    let mut sums = M::all(0.0);
    for chunk in scores.chunks_mut(LANES) {
        let power = M::exp2(M::sub(M::load(chunk), peak));
        sums = M::add(sums, M::first(chunk.len(), power, M::all(0.0)));
        M::store(power, chunk);
    }
    1.0 / M::sum(sums) + M::sum(nothing)
}
