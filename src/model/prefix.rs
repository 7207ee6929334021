//! The prompt's key-value cache: computed once, before the first post, by the `full` graph.
//!
//! Kept in host memory as plain numbers, key and value layer by layer, each [1, key-value heads, prompt, head size].
//! Expanding it to a batch is a copy of rows, done when a batch is larger than any before it.

use std::borrow::Cow;

use half::f16;
use ort::{
    memory::Allocator,
    session::SessionInputValue,
    value::{DynTensor, DynValue, Tensor, TensorElementType, TensorRef},
};

use super::{
    contract::{CacheShape, past_names},
    error::{ModelError, run_failed},
};

/// Numbers as the graph wants them.
#[derive(Debug, Clone, PartialEq)]
enum Numbers {
    Single(Vec<f32>),
    Half(Vec<f16>),
}

/// The cache of one prompt, for any batch size.
#[derive(Debug)]
pub(super) struct PrefixCache {
    shape: CacheShape,
    tokens: usize,
    /// Rows that every tensor holds by now; all of them alike.
    rows: usize,
    tensors: Vec<Numbers>,
    names: Vec<String>,
}

impl PrefixCache {
    /// From what the `full` graph gave for a prompt of so many tokens, key and value layer by layer.
    pub(super) fn of<'a>(
        shape: CacheShape,
        tokens: usize,
        present: impl Iterator<Item = Result<&'a DynValue, ModelError>>,
    ) -> Result<Self, ModelError> {
        let names = past_names(shape.layers);
        let mut tensors = Vec::with_capacity(names.len());
        for (output, name) in present.zip(&names) {
            let numbers = Numbers::of(output?)?.with_element(shape.half);
            if numbers.len() != shape.kv_heads * shape.head_dim * tokens {
                return Err(ModelError::run(format!("what becomes {name} has not the size of the prompt's cache")));
            }
            tensors.push(numbers);
        }
        Ok(Self { shape, tokens, rows: 1, tensors, names })
    }

    /// A past of length 0.
    pub(super) fn empty(shape: CacheShape) -> Self {
        let none = || if shape.half { Numbers::Half(Vec::new()) } else { Numbers::Single(Vec::new()) };
        let tensors = (0..2 * shape.layers).map(|_| none()).collect();
        Self { shape, tokens: 0, rows: 1, tensors, names: past_names(shape.layers) }
    }

    /// How many tokens the cache stands for.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Makes room for a batch of `rows`. What was expanded once is kept: smaller batches use its beginning.
    pub(super) fn expand(&mut self, rows: usize) {
        if rows > self.rows && self.tokens > 0 {
            self.tensors.iter_mut().for_each(|numbers| numbers.repeat(self.rows, rows));
            self.rows = rows;
        }
    }

    /// The inputs of a run with `rows` rows; call [`Self::expand`] before.
    pub(super) fn inputs(&self, rows: usize) -> Result<Vec<(Cow<'_, str>, SessionInputValue<'_>)>, ModelError> {
        let dims = self.dims(rows);
        let length: usize = dims.iter().product();
        self.names
            .iter()
            .zip(&self.tensors)
            .map(|(name, numbers)| Ok((Cow::from(name.as_str()), numbers.view(dims, length)?)))
            .collect()
    }

    /// Owned tensors of one row each, by input name, for binding once.
    pub(super) fn into_tensors(self) -> Result<Vec<(String, DynTensor)>, ModelError> {
        let dims = self.dims(1);
        self.names.into_iter().zip(self.tensors).map(|(name, numbers)| Ok((name, numbers.into_tensor(dims)?))).collect()
    }

    fn dims(&self, rows: usize) -> [usize; 4] {
        [rows, self.shape.kv_heads, self.tokens, self.shape.head_dim]
    }
}

impl Numbers {
    fn of(value: &DynValue) -> Result<Self, ModelError> {
        match value.dtype().tensor_type() {
            Some(TensorElementType::Float16) => {
                value.try_extract_tensor::<f16>().map(|(_, numbers)| Self::Half(numbers.to_vec()))
            }
            _ => value.try_extract_tensor::<f32>().map(|(_, numbers)| Self::Single(numbers.to_vec())),
        }
        .map_err(run_failed)
    }

    /// A cache of the `full` graph may be finer than the `classify` graph takes it, or the other way about.
    fn with_element(self, half: bool) -> Self {
        match (self, half) {
            (Self::Single(numbers), true) => Self::Half(numbers.into_iter().map(f16::from_f32).collect()),
            (Self::Half(numbers), false) => Self::Single(numbers.into_iter().map(f32::from).collect()),
            (same, _) => same,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Single(numbers) => numbers.len(),
            Self::Half(numbers) => numbers.len(),
        }
    }

    fn repeat(&mut self, have: usize, want: usize) {
        fn grow<T: Copy>(numbers: &mut Vec<T>, have: usize, want: usize) {
            let row = numbers.len() / have;
            numbers.reserve_exact(row * (want - have));
            (have..want).for_each(|_| numbers.extend_from_within(..row));
        }
        match self {
            Self::Single(numbers) => grow(numbers, have, want),
            Self::Half(numbers) => grow(numbers, have, want),
        }
    }

    fn view(&self, dims: [usize; 4], length: usize) -> Result<SessionInputValue<'_>, ModelError> {
        // An empty slice has no address to lend, so an empty past is made by ONNX Runtime itself.
        if length == 0 {
            return Ok(self.clone().into_tensor(dims)?.into());
        }
        let view = match self {
            Self::Single(numbers) => {
                TensorRef::from_array_view((dims, &numbers[..length])).map(SessionInputValue::from)
            }
            Self::Half(numbers) => TensorRef::from_array_view((dims, &numbers[..length])).map(SessionInputValue::from),
        };
        view.map_err(run_failed)
    }

    fn into_tensor(self, dims: [usize; 4]) -> Result<DynTensor, ModelError> {
        let element = match self {
            Self::Single(_) => TensorElementType::Float32,
            Self::Half(_) => TensorElementType::Float16,
        };
        match self {
            _ if dims.contains(&0) => DynTensor::new(&Allocator::default(), element, dims),
            Self::Single(numbers) => Tensor::from_array((dims, numbers)).map(Tensor::upcast),
            Self::Half(numbers) => Tensor::from_array((dims, numbers)).map(Tensor::upcast),
        }
        .map_err(run_failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expanded_cache_repeats_its_row() {
        let mut numbers = Numbers::Single(vec![1.0, 2.0]);
        numbers.repeat(1, 3);
        numbers.repeat(3, 4);
        assert_eq!(numbers, Numbers::Single([1.0, 2.0].repeat(4)));
    }

    #[test]
    fn elements_change_between_single_and_half() {
        let numbers = Numbers::Single(vec![0.5, -2.0]);
        assert_eq!(numbers.clone().with_element(true).with_element(false), numbers);
    }
}
