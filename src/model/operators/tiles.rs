//! Keys and values of one head as 16-bit integers, 64 tokens to a tile, laid out for products of words.
//!
//! Every token has scales of its own, so no token's numbers depend on another's, padding included. A key's word holds
//! dimensions d and d + D/2; a value's word holds dimension d of tokens j and j + half of its tile.

use super::{
    lanes::{LANES, Lanes},
    numbers::{at_least, peak},
    product::COLUMNS,
};

/// Tokens of a tile.
pub(super) const TILE: usize = 64;
/// Largest probability as an integer.
pub(super) const PROBABILITY: f32 = 16383.0;
// A value is at most 2048 in magnitude: 64 * 16383 * 2048 is below 2^31.

/// The tiles of one head.
#[derive(Default)]
pub(super) struct Tiles {
    size: usize,
    tokens: usize,
    /// The largest magnitude of a key's integers.
    level: f32,
    keys: Vec<i32>,
    values: Vec<i32>,
    facts: Vec<Facts>,
    words: Vec<i32>,
}

/// What the integers of one tile mean, by token.
#[derive(Clone)]
pub(super) struct Facts {
    /// A key is its integers times this.
    pub key_scale: [f32; TILE],
    /// A value is its integers times 2 to the power of this.
    pub value_exponent: [f32; TILE],
    /// 2 to the power of minus that.
    pub value_inverse: [f32; TILE],
}

/// A tile as the products take it.
pub(super) struct Tile<'a> {
    /// [D/2][TILE] words.
    pub keys: &'a [i32],
    /// [half][stride] words.
    pub values: &'a [i32],
    pub value_stride: usize,
    pub half: usize,
    pub facts: &'a Facts,
    /// Where the tile begins, and how many tokens it has.
    pub start: usize,
    pub tokens: usize,
}

/// The largest magnitude of an integer in a dot product over `size` dimensions that stays below 2^31.
pub(super) fn level(size: usize) -> f32 {
    (f64::from(i32::MAX) / size as f64).sqrt().floor().min(32767.0) as f32
}

/// Columns that hold `size` dimensions.
pub(super) fn columns(size: usize) -> usize {
    size.next_multiple_of(COLUMNS)
}

/// Writes a key or query as words of dimensions d and d + D/2, and returns the scale that undoes it.
#[inline(always)]
pub(super) fn words<M: Lanes>(row: &[f32], level: f32, out: &mut [i32]) -> f32 {
    let scale = at_least(peak::<M>(row), 1e-30) / level;
    let inverse = M::all(1.0 / scale);
    let (low, high) = row.split_at(row.len() / 2);
    for ((out, low), high) in out.chunks_mut(LANES).zip(low.chunks(LANES)).zip(high.chunks(LANES)) {
        let (low, high) = (M::mul(M::load(low), inverse), M::mul(M::load(high), inverse));
        M::store_i32(M::words(M::round(low), M::round(high)), out);
    }
    scale
}

impl Tiles {
    /// Makes room for `tokens` tokens of `size` dimensions. What was there before is garbage now.
    pub(super) fn reset(&mut self, tokens: usize, size: usize) {
        let tiles = tokens.div_ceil(TILE);
        (self.tokens, self.size) = (tokens, size);
        self.keys.resize(tiles * size / 2 * TILE, 0);
        self.values.resize(tiles * TILE / 2 * columns(size), 0);
        let facts = Facts { key_scale: [0.0; TILE], value_exponent: [0.0; TILE], value_inverse: [0.0; TILE] };
        // Tokens that no tile holds count as zero times zero.
        self.facts.clear();
        self.facts.resize(tiles, facts);
        self.level = level(size);
        self.words.resize(size / 2, 0);
    }

    /// Half the columns of a tile: the last one may be narrow.
    fn half(&self, tile: usize) -> usize {
        (self.tokens - tile * TILE).min(TILE).div_ceil(2).next_multiple_of(COLUMNS)
    }

    /// Writes one token. Tokens come in order.
    #[inline(always)]
    pub(super) fn put<M: Lanes>(&mut self, token: usize, key: &[f32], value: &[f32]) {
        let (tile, column) = (token / TILE, token % TILE);
        let (half, stride) = (self.half(tile), columns(self.size));
        let facts = &mut self.facts[tile];

        let scale = words::<M>(key, self.level, &mut self.words);
        facts.key_scale[column] = scale;
        let keys = &mut self.keys[tile * self.size / 2 * TILE..][..self.size / 2 * TILE];
        for (keys, word) in keys.chunks_exact_mut(TILE).zip(&self.words) {
            keys[column] = *word;
        }

        // A power of two: exact to divide by, and its logarithm costs nothing.
        let largest = peak::<M>(value);
        let exponent = (largest.to_bits() >> 23).clamp(64, 190).cast_signed() - 126 - 11;
        let inverse = f32::from_bits(((127 - exponent) << 23).cast_unsigned());
        facts.value_exponent[column] = exponent as f32;
        // What is no number must reach every sum that looks at this token.
        facts.value_inverse[column] = inverse + 0.0 * (scale + largest);
        let start = tile * TILE / 2 * stride + column % half * stride;
        let words = self.values[start..][..self.size].chunks_mut(LANES);
        let inverse = M::all(inverse);
        for (words, value) in words.zip(value.chunks(LANES)) {
            let integers = M::round(M::mul(M::load(value), inverse));
            let pairs = if column < half {
                M::words(integers, M::round(M::all(0.0)))
            } else {
                M::words(M::load_i32(words), integers)
            };
            M::store_i32(pairs, words);
        }
    }

    /// The tiles in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Tile<'_>> {
        let (keys, stride) = (self.size / 2 * TILE, columns(self.size));
        let values = TILE / 2 * stride;
        let tile = move |(tile, facts)| Tile {
            keys: &self.keys[tile * keys..][..keys],
            values: &self.values[tile * values..][..values],
            value_stride: stride,
            half: self.half(tile),
            facts,
            start: tile * TILE,
            tokens: (self.tokens - tile * TILE).min(TILE),
        };
        self.facts.iter().enumerate().map(tile)
    }
}
