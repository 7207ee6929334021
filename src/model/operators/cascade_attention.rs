//! `CascadeAttention`: attention over the shared prompt and, causally, over the post itself.
//!
//! Inputs: projected [B, S, (H + 2K) * D], queries, keys and values before rotation, with one scale a row; the rotary
//! caches [positions, D / 2]; the prompt's rotated keys and its values [1, K, P, D]; and, where only some rows ask,
//! their indices into [B * S]. Outputs: the attended values [rows or B, S, H * D], quantised.

use std::cell::RefCell;

use super::{
    attention::{Attention, Scratch, Sizes},
    *,
};

/// The operator and its kernel.
pub(super) struct CascadeAttention;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Operator for CascadeAttention {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        "CascadeAttention"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let floats = (0..6).map(|_| OperatorInput::required(F32));
        floats.chain([OperatorInput::optional(TensorElementType::Int64)])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        quantised()
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for CascadeAttention {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let inputs = [0, 1, 2, 3, 4, 5].map(|index| required(run, index));
        let [projected, scale, cos, sin, keys, values] = inputs;
        let (projected, scale, cos, sin, keys, values) = (projected?, scale?, cos?, sin?, keys?, values?);
        let (shape, projected) = projected.try_extract_tensor::<f32>()?;
        let (_, row_scale) = scale.try_extract_tensor::<f32>()?;
        let (cos_shape, cos) = cos.try_extract_tensor::<f32>()?;
        let (sin_shape, sin) = sin.try_extract_tensor::<f32>()?;
        let (prompt_shape, prompt_keys) = keys.try_extract_tensor::<f32>()?;
        let (values_shape, prompt_values) = values.try_extract_tensor::<f32>()?;
        let sizes = sizes(shape, prompt_shape)?;
        let rows = sizes.posts * sizes.tokens;
        let positions = [(sizes.prompt + sizes.tokens) as i64, sizes.size as i64 / 2];
        let enough = |shape: &[i64]| shape.len() == 2 && shape[0] >= positions[0] && shape[1] == positions[1];
        if row_scale.len() != rows || values_shape != prompt_shape || !enough(cos_shape) || !enough(sin_shape) {
            return Err(Error::new(format!(
                "CascadeAttention: {sizes:?} with {} scales, values {values_shape:?}, cosines {cos_shape:?} and sines \
                 {sin_shape:?}: prompt and post may be longer than the model's context",
                row_scale.len()
            )));
        }
        let (rows, out_shape) = asking(run, sizes)?;
        let mut out = output(run, 0, &out_shape)?;
        let mut out_scale = output(run, 1, &scale_shape(&out_shape))?;
        let (_, out) = out.try_extract_tensor_mut()?;
        let (_, out_scale) = out_scale.try_extract_tensor_mut()?;
        SCRATCH.with_borrow_mut(|scratch| {
            run_widest(Attention {
                sizes,
                projected,
                row_scale,
                cos,
                sin,
                prompt_keys,
                prompt_values,
                rows: &rows,
                scratch,
                out,
                out_scale,
            });
        });
        Ok(())
    }
}

/// The rows that ask, and the output's shape.
fn asking(run: &ComputeContext, sizes: Sizes) -> ort::Result<(Vec<usize>, Vec<i64>)> {
    let all = sizes.posts * sizes.tokens;
    let width = (sizes.heads * sizes.size) as i64;
    // An input that a node leaves out may not be counted at all.
    let chosen = if run.num_inputs()? > 6 { run.input(6)? } else { None };
    let Some(chosen) = chosen else {
        return Ok(((0..all).collect(), vec![sizes.posts as i64, sizes.tokens as i64, width]));
    };
    let (_, chosen) = chosen.try_extract_tensor::<i64>()?;
    let within = |row: &i64| usize::try_from(*row).ok().filter(|row| *row < all);
    let rows: Option<Vec<usize>> = chosen.iter().map(within).collect();
    let rows = rows.ok_or_else(|| Error::new(format!("CascadeAttention: rows {chosen:?} are not all below {all}")))?;
    let shape = vec![rows.len() as i64, width];
    Ok((rows, shape))
}

fn sizes(projected: &[i64], prompt: &[i64]) -> ort::Result<Sizes> {
    let fault = || Error::new(format!("CascadeAttention: {projected:?} does not fit a prompt of {prompt:?}"));
    let (&[posts, tokens, width], &[1, kv_heads, past, size]) = (projected, prompt) else { return Err(fault()) };
    let heads = if kv_heads > 0 && size > 0 { width / size - 2 * kv_heads } else { 0 };
    if heads <= 0 || heads % kv_heads != 0 || size % 2 != 0 || (heads + 2 * kv_heads) * size != width {
        return Err(fault());
    }
    Ok(Sizes {
        posts: posts as usize,
        tokens: tokens as usize,
        heads: heads as usize,
        kv_heads: kv_heads as usize,
        size: size as usize,
        prompt: past as usize,
    })
}
