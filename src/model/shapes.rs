//! The shapes that a graph's inputs take, for providers that compile a graph for a range of shapes before its first run.
//!
//! TensorRT wants all inputs whose size is open, each with its smallest, usual and largest shape; a run beyond the
//! largest fails. The prompt's length is known by then, so a classify graph's cache has one shape alone.

use super::contract::{Contract, past_names};

/// What bounds a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Label ids.
    pub labels: usize,
    /// Most rows.
    pub rows: usize,
    /// Most tokens of a row, the prompt's tail among them.
    pub row: usize,
    /// Most tokens of all rows, padding among them.
    pub tokens: usize,
}

/// `input:1x2x3,...` three times over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shapes {
    pub min: String,
    pub opt: String,
    pub max: String,
}

/// Smallest, usual and largest size of an axis.
type Axis = [usize; 3];

/// Tokens of a post as they mostly are.
const USUAL_ROW: usize = 64;

impl Shapes {
    /// For a graph that judges posts.
    pub(super) fn of_posts(contract: &Contract, bounds: Bounds) -> Self {
        let usual = USUAL_ROW.min(bounds.row);
        let rows = [1, (bounds.tokens / usual).clamp(1, bounds.rows), bounds.rows];
        let row = [1, usual, bounds.row];
        match contract {
            Contract::Cascade { cache } => {
                let past = [fixed(1), fixed(cache.kv_heads), fixed(bounds.prompt), fixed(cache.head_dim)];
                let mut inputs = vec![("input_ids".to_owned(), vec![rows, row])];
                inputs.extend(past_names(cache.layers).into_iter().map(|name| (name, past.to_vec())));
                inputs.push(("logit_positions".to_owned(), vec![rows]));
                inputs.push(("label_ids".to_owned(), vec![fixed(bounds.labels)]));
                Self::written(&inputs)
            }
            Contract::Draft { cache, .. } => {
                let capacity = fixed(bounds.prompt + bounds.tokens);
                let past = [rows, fixed(cache.kv_heads), capacity, fixed(cache.head_dim)];
                let mut inputs = vec![("input_ids".to_owned(), vec![rows, row]), ("lengths".to_owned(), vec![rows])];
                inputs.extend(past_names(cache.layers).into_iter().map(|name| (name, past.to_vec())));
                Self::written(&inputs)
            }
            // The same session runs the prompt too, and may run it again with every row.
            Contract::Full { .. } => {
                let prompt = bounds.prompt;
                let longest = prompt + bounds.row;
                Self::of_full(contract, rows, [1, usual, longest], [0, prompt, prompt], [1, prompt + usual, longest])
            }
        }
    }

    /// For a full graph that only computes the prompt's cache.
    pub(super) fn of_prompt(contract: &Contract, tokens: usize) -> Self {
        Self::of_full(contract, fixed(1), fixed(tokens), fixed(0), fixed(tokens))
    }

    fn of_full(contract: &Contract, rows: Axis, row: Axis, past: Axis, mask: Axis) -> Self {
        let cache = contract.cache();
        let mut inputs =
            vec![("input_ids".to_owned(), vec![rows, row]), ("attention_mask".to_owned(), vec![rows, mask])];
        if matches!(contract, Contract::Full { position_ids: true, .. }) {
            inputs.push(("position_ids".to_owned(), vec![rows, row]));
        }
        let past = [rows, fixed(cache.kv_heads), past, fixed(cache.head_dim)];
        inputs.extend(past_names(cache.layers).into_iter().map(|name| (name, past.to_vec())));
        Self::written(&inputs)
    }

    fn written(inputs: &[(String, Vec<Axis>)]) -> Self {
        let shapes = |of: usize| {
            let shape = |axes: &[Axis]| axes.iter().map(|axis| axis[of].to_string()).collect::<Vec<_>>().join("x");
            inputs.iter().map(|(name, axes)| format!("{name}:{}", shape(axes))).collect::<Vec<_>>().join(",")
        };
        Self { min: shapes(0), opt: shapes(1), max: shapes(2) }
    }
}

fn fixed(size: usize) -> Axis {
    [size; 3]
}

#[cfg(test)]
mod tests {
    use super::{super::contract::CacheShape, *};

    const CACHE: CacheShape = CacheShape { layers: 1, kv_heads: 2, head_dim: 16, half: false };
    const BOUNDS: Bounds = Bounds { prompt: 300, labels: 4, rows: 64, row: 450, tokens: 512 };

    #[test]
    fn a_classify_graph_has_one_past_shape_and_rows_up_to_the_limits() {
        let shapes = Shapes::of_posts(&Contract::Cascade { cache: CACHE }, BOUNDS);
        let past = "past_key_values.0.key:1x2x300x16,past_key_values.0.value:1x2x300x16";
        assert_eq!(shapes.min, format!("input_ids:1x1,{past},logit_positions:1,label_ids:4"));
        assert_eq!(shapes.opt, format!("input_ids:8x64,{past},logit_positions:8,label_ids:4"));
        assert_eq!(shapes.max, format!("input_ids:64x450,{past},logit_positions:64,label_ids:4"));
    }

    #[test]
    fn a_full_graph_that_judges_also_fits_the_prompt_and_the_prompt_with_a_row() {
        let contract = Contract::Full { cache: CACHE, position_ids: true, one_row_on_a_past: false };
        let shapes = Shapes::of_posts(&contract, BOUNDS);
        assert!(
            shapes.min.starts_with("input_ids:1x1,attention_mask:1x1,position_ids:1x1,past_key_values.0.key:1x2x0x16")
        );
        assert!(shapes.max.starts_with(
            "input_ids:64x750,attention_mask:64x750,position_ids:64x750,past_key_values.0.key:64x2x300x16"
        ));
    }

    #[test]
    fn the_prompt_alone_has_one_shape() {
        let contract = Contract::Full { cache: CACHE, position_ids: false, one_row_on_a_past: false };
        let shapes = Shapes::of_prompt(&contract, 300);
        assert_eq!((&shapes.min, &shapes.opt), (&shapes.max, &shapes.max));
        assert_eq!(
            shapes.max,
            "input_ids:1x300,attention_mask:1x300,past_key_values.0.key:1x2x0x16,past_key_values.0.value:1x2x0x16"
        );
    }
}
