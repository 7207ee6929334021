//! One block of query rows against tile after tile: scores, a softmax that never overflows, and the weighted values.
//!
//! Each tile's probabilities are relative to its own largest, so that a token which takes nearly everything leaves
//! the others their precision. What is kept between tiles is scaled to the largest score so far.

use super::{
    lanes::{LANES, Lanes},
    product::{COLUMNS, Job, Product, ROWS},
    tiles::{Facts, PROBABILITY, TILE, Tile, columns},
};

/// A score that vanishes beside any other.
const HIDDEN: f32 = -1e30;

/// Query rows that go through the tiles together, and what they have gathered. Small enough for the first cache.
#[derive(Default)]
pub(super) struct Block {
    rows: usize,
    size: usize,
    /// [rows][size / 2] words.
    pub queries: Vec<i32>,
    /// A score is the integer product times this and the key's scale, in powers of two.
    pub query_scale: Vec<f32>,
    /// Tokens of the post that a row may look at.
    pub visible: Vec<usize>,
    /// [rows][columns of size], unnormalised.
    gathered: Vec<f32>,
    total: Vec<f32>,
    largest: Vec<f32>,
    scores: Vec<i32>,
    probabilities: Vec<i32>,
    products: Vec<i32>,
    keep: Vec<f32>,
    take: Vec<f32>,
}

impl Block {
    /// Begins with `rows` rows of `size` dimensions. Rows that no one fills in look at nothing.
    pub(super) fn reset(&mut self, rows: usize, size: usize) {
        let rows = rows.next_multiple_of(ROWS);
        (self.rows, self.size) = (rows, size);
        self.queries.resize(rows * size / 2, 0);
        self.query_scale.resize(rows, 0.0);
        self.visible.clear();
        self.visible.resize(rows, 0);
        self.gathered.clear();
        self.gathered.resize(rows * columns(size), 0.0);
        self.total.clear();
        self.total.resize(rows, 0.0);
        self.largest.clear();
        self.largest.resize(rows, HIDDEN);
        self.scores.resize(rows * TILE, 0);
        self.probabilities.resize(rows * TILE / 2, 0);
        self.products.resize(rows * columns(size), 0);
        self.keep.resize(rows, 0.0);
        self.take.resize(rows, 0.0);
    }

    /// Lets the rows attend to one tile: all of it if it is the prompt's, else up to what each row may see.
    #[inline(always)]
    pub(super) fn attend<M: Product>(&mut self, tile: &Tile<'_>, causal: bool) {
        let most = self.visible.iter().max().copied().unwrap_or(0).saturating_sub(tile.start).min(tile.tokens);
        let seen = if causal { most } else { tile.tokens };
        if seen == 0 {
            return;
        }
        M::multiply(Job {
            left: &self.queries,
            left_stride: self.size / 2,
            right: tile.keys,
            right_stride: TILE,
            steps: self.size / 2,
            columns: seen.next_multiple_of(COLUMNS),
            out: &mut self.scores,
            out_stride: TILE,
        });
        self.softmax::<M>(tile, causal);
        M::multiply(Job {
            left: &self.probabilities,
            left_stride: TILE / 2,
            right: tile.values,
            right_stride: tile.value_stride,
            steps: seen.min(tile.half),
            columns: columns(self.size),
            out: &mut self.products,
            out_stride: columns(self.size),
        });
        self.gather::<M>();
    }

    /// Scores to probabilities; `keep` and `take` become the factors of what was gathered and of this tile.
    #[inline(always)]
    fn softmax<M: Lanes>(&mut self, tile: &Tile<'_>, causal: bool) {
        for row in 0..self.rows {
            let visible = if causal { self.visible[row].saturating_sub(tile.start) } else { tile.tokens };
            let row_of_tile = Row {
                scores: &self.scores[row * TILE..][..TILE],
                scale: self.query_scale[row],
                visible: visible.min(tile.tokens),
                words: &mut self.probabilities[row * TILE / 2..][..TILE / 2],
            };
            let found = match tile.half {
                LANES => probabilities::<M, 2>(row_of_tile, tile.facts),
                _ => probabilities::<M, 4>(row_of_tile, tile.facts),
            };
            (self.keep[row], self.take[row]) = found;
        }
        for start in (0..self.rows).step_by(LANES) {
            let end = (start + LANES).min(self.rows);
            let (keep, take) = (&mut self.keep[start..end], &mut self.take[start..end]);
            let (total, largest) = (&mut self.total[start..end], &mut self.largest[start..end]);
            let (of_tile, before) = (M::load(keep), M::load(largest));
            let new = M::max(of_tile, before);
            let (kept, taken) = (M::exp2(M::sub(before, new)), M::exp2(M::sub(of_tile, new)));
            M::store(M::mul_add(M::load(total), kept, M::mul(M::load(take), taken)), total);
            M::store(new, largest);
            M::store(kept, keep);
            M::store(M::mul(taken, M::all(1.0 / PROBABILITY)), take);
        }
    }

    #[inline(always)]
    fn gather<M: Lanes>(&mut self) {
        let stride = columns(self.size);
        let rows = self.gathered.chunks_exact_mut(stride).zip(self.products.chunks_exact(stride));
        for ((gathered, products), (keep, take)) in rows.zip(self.keep.iter().zip(&self.take)) {
            let (keep, take) = (M::all(*keep), M::all(*take));
            for (gathered, products) in gathered.chunks_exact_mut(LANES).zip(products.chunks_exact(LANES)) {
                let new = M::mul(M::to_f32(M::load_i32(products)), take);
                M::store(M::mul_add(M::load(gathered), keep, new), gathered);
            }
        }
    }

    /// Writes what a row has gathered.
    #[inline(always)]
    pub(super) fn finish<M: Lanes>(&self, row: usize, out: &mut [f32]) {
        // A scale that is no number makes none of the row, too.
        let factor = M::all(1.0 / self.total[row] + 0.0 * self.query_scale[row]);
        for (out, gathered) in out.chunks_mut(LANES).zip(self.gathered[row * columns(self.size)..].chunks(LANES)) {
            M::store(M::mul(M::load(gathered), factor), out);
        }
    }
}

/// One row of one tile.
struct Row<'a> {
    /// [TILE], beyond the tile's own tokens whatever was there.
    scores: &'a [i32],
    scale: f32,
    /// How many of the tile's tokens the row may see.
    visible: usize,
    /// [TILE / 2]: the probabilities, as words of tokens j and j + half.
    words: &'a mut [i32],
}

/// Returns the largest exponent and the sum of probabilities. The tile has `N` vectors of tokens.
#[inline(always)]
fn probabilities<M: Lanes, const N: usize>(row: Row<'_>, facts: &Facts) -> (f32, f32) {
    let (scale, hidden) = (M::all(row.scale), M::all(HIDDEN));
    let mut exponents = [hidden; N];
    let mut largest = hidden;
    for (n, exponent) in exponents.iter_mut().enumerate() {
        let at = n * LANES;
        let score = M::mul(M::to_f32(M::load_i32(&row.scores[at..])), scale);
        let score = M::mul_add(score, M::load(&facts.key_scale[at..]), M::load(&facts.value_exponent[at..]));
        *exponent = M::first(row.visible.saturating_sub(at), score, hidden);
        largest = M::max(*exponent, largest);
    }
    let largest = M::largest(largest);
    let (shift, full) = (M::all(largest), M::all(PROBABILITY));
    let mut sum = M::all(0.0);
    let mut integers = [M::round(sum); N];
    for (n, integer) in integers.iter_mut().enumerate() {
        let power = M::exp2(M::sub(exponents[n], shift));
        sum = M::mul_add(power, M::load(&facts.value_inverse[n * LANES..]), sum);
        *integer = M::round(M::mul(power, full));
    }
    for (n, words) in row.words.chunks_exact_mut(LANES).take(N / 2).enumerate() {
        M::store_i32(M::words(integers[n], integers[n + N / 2]), words);
    }
    (largest, M::sum(sum))
}
