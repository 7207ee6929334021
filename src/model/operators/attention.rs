//! The arithmetic of `CascadeAttention`: attention over the shared prompt and, causally, over the post itself.
//!
//! Queries, keys, values and probabilities are 16-bit integers, with a scale for each token or row; products are exact.
//! Scores never leave the first cache. A row's result depends on nothing but the prompt and the tokens it may see.

use super::{
    lanes::Lanes,
    numbers::{quantise, rotate},
    product::Product,
    softmax::Block,
    tiles::{Tiles, level, words},
    widest::Work,
};

/// Query rows of a block, heads of a group counted each.
const BLOCK: usize = 24;

/// Sizes of one run: B posts of S tokens, H query heads, K key-value heads of D, P prompt tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub posts: usize,
    pub tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub size: usize,
    pub prompt: usize,
}

/// One layer's attention.
pub(super) struct Attention<'a> {
    pub sizes: Sizes,
    /// [B * S][(H + 2K) * D]: queries, keys and values, not yet times `row_scale`.
    pub projected: &'a [f32],
    /// [B * S].
    pub row_scale: &'a [f32],
    /// [positions][D / 2]; the post's first token has position P.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    /// [K][P][D], rotated.
    pub prompt_keys: &'a [f32],
    pub prompt_values: &'a [f32],
    /// The rows that ask, as indices into [B * S]; each is within it.
    pub rows: &'a [usize],
    pub scratch: &'a mut Scratch,
    /// [rows][H * D] around 128, and its scale by row.
    pub out: &'a mut [u8],
    pub out_scale: &'a mut [f32],
}

/// Memory that runs on one thread use again.
#[derive(Default)]
pub(super) struct Scratch {
    prompt: Tiles,
    post: Tiles,
    block: Block,
    row: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    /// Rows in the order of their posts, as places in `rows`.
    order: Vec<usize>,
}

impl Work for Attention<'_> {
    #[inline(always)]
    fn run<M: Product>(self) {
        let Sizes { heads, kv_heads, size, .. } = self.sizes;
        let width = heads * size;
        let mut scratch = std::mem::take(self.scratch);
        scratch.row.resize(size, 0.0);
        scratch.value.resize(size, 0.0);
        scratch.attended.resize(self.rows.len() * width, 0.0);
        scratch.order.clear();
        scratch.order.extend(0..self.rows.len());
        scratch.order.sort_by_key(|place| self.rows[*place]);
        for head in 0..kv_heads {
            self.head::<M>(head, &mut scratch);
        }
        let rows = scratch.attended.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        for ((attended, out), scale) in rows.zip(self.out_scale) {
            *scale = quantise::<M>(attended, out);
        }
        *self.scratch = scratch;
    }
}

impl Attention<'_> {
    #[inline(always)]
    fn head<M: Product>(&self, head: usize, scratch: &mut Scratch) {
        let Sizes { tokens, heads, kv_heads, size, prompt, .. } = self.sizes;
        scratch.prompt.reset(prompt, size);
        for token in 0..prompt {
            let at = (head * prompt + token) * size;
            scratch.prompt.put::<M>(token, &self.prompt_keys[at..][..size], &self.prompt_values[at..][..size]);
        }
        let mut order = std::mem::take(&mut scratch.order);
        for rows in order.chunk_by(|a, b| self.rows[*a] / tokens == self.rows[*b] / tokens) {
            let post = self.rows[rows[0]] / tokens;
            let needed = self.rows[rows[rows.len() - 1]] % tokens + 1;
            scratch.post.reset(needed, size);
            for token in 0..needed {
                self.rotated::<M>(post * tokens + token, heads + head, &mut scratch.row);
                let scale = self.row_scale[post * tokens + token];
                let value = self.part(post * tokens + token, heads + kv_heads + head);
                scratch.value.iter_mut().zip(value).for_each(|(out, value)| *out = value * scale);
                scratch.post.put::<M>(token, &scratch.row, &scratch.value);
            }
            for rows in rows.chunks((BLOCK * kv_heads / heads).max(1)) {
                self.block::<M>(head, rows, scratch);
            }
        }
        scratch.order = std::mem::take(&mut order);
    }

    /// Some rows of one post, with all query heads of the group.
    #[inline(always)]
    fn block<M: Product>(&self, head: usize, rows: &[usize], scratch: &mut Scratch) {
        let Sizes { tokens, heads, kv_heads, size, .. } = self.sizes;
        let group = heads / kv_heads;
        let level = level(size);
        let block = &mut scratch.block;
        block.reset(rows.len() * group, size);
        for (index, place) in rows.iter().enumerate() {
            for member in 0..group {
                let row = index * group + member;
                self.rotated::<M>(self.rows[*place], head * group + member, &mut scratch.row);
                let scale = words::<M>(&scratch.row, level, &mut block.queries[row * size / 2..][..size / 2]);
                block.query_scale[row] = scale * std::f32::consts::LOG2_E;
                block.visible[row] = self.rows[*place] % tokens + 1;
            }
        }
        // Loops, here and below: what a closure holds may be compiled apart, without the machine's instructions.
        for tile in scratch.prompt.iter() {
            block.attend::<M>(&tile, false);
        }
        for tile in scratch.post.iter() {
            block.attend::<M>(&tile, true);
        }
        for (index, place) in rows.iter().enumerate() {
            for member in 0..group {
                let at = (place * heads + head * group + member) * size;
                block.finish::<M>(index * group + member, &mut scratch.attended[at..][..size]);
            }
        }
    }

    /// One head's part of a row: query heads first, then key heads, then value heads.
    #[inline(always)]
    fn part(&self, row: usize, head: usize) -> &[f32] {
        let Sizes { heads, kv_heads, size, .. } = self.sizes;
        &self.projected[(row * (heads + 2 * kv_heads) + head) * size..][..size]
    }

    /// One head's part of a row, scaled, and rotated to its position.
    #[inline(always)]
    fn rotated<M: Lanes>(&self, row: usize, head: usize, out: &mut [f32]) {
        let half = self.sizes.size / 2;
        let position = self.sizes.prompt + row % self.sizes.tokens;
        let angles = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        rotate::<M>(self.part(row, head), self.row_scale[row], angles, out);
    }
}
