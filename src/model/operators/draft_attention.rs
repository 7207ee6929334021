//! `DraftAttention`: attention of rows that are being written, over the shared prompt and over their own caches.
//!
//! Inputs: projected [B, S, (H + 2K) * D], queries, keys and values before rotation, with one scale a token; the rotary
//! caches [positions, D / 2]; the prompt's rotated keys [1, K, D, P] and its values [1, K, P, D]; the tokens that each
//! row has cached already [B]; and the rows' keys [B, K, D, C] and values [B, K, C, D]. Outputs: the attended values
//! [B, S, H * D], quantised, and the keys and values again: bound to the same memory, in which what is new is written.

use std::cell::RefCell;

use super::{
    drafting::{Drafting, Scratch, Sizes},
    *,
};

/// The operator and its kernel.
pub(super) struct DraftAttention;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Operator for DraftAttention {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        "DraftAttention"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let floats = |count| (0..count).map(|_| OperatorInput::required(F32));
        floats(6).chain([OperatorInput::required(TensorElementType::Int64)]).chain(floats(2))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let [bytes, scale] = quantised();
        [bytes, scale, OperatorOutput::required(F32), OperatorOutput::required(F32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for DraftAttention {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let inputs = [0, 1, 2, 3, 4, 5, 6].map(|index| required(run, index));
        let [projected, scale, cos, sin, prompt_keys, prompt_values, lengths] = inputs;
        let (projected, scale, cos, sin, lengths) = (projected?, scale?, cos?, sin?, lengths?);
        let (prompt_keys, prompt_values) = (prompt_keys?, prompt_values?);
        let (shape, projected) = projected.try_extract_tensor::<f32>()?;
        let (_, row_scale) = scale.try_extract_tensor::<f32>()?;
        let (cos_shape, cos) = cos.try_extract_tensor::<f32>()?;
        let (sin_shape, sin) = sin.try_extract_tensor::<f32>()?;
        let (prompt_shape, prompt_keys) = prompt_keys.try_extract_tensor::<f32>()?;
        let (values_shape, prompt_values) = prompt_values.try_extract_tensor::<f32>()?;
        let (_, lengths) = lengths.try_extract_tensor::<i64>()?;
        let (mut keys, mut values) = (in_place(run, 7, 2)?, in_place(run, 8, 3)?);
        let (keys_shape, keys) = keys.try_extract_tensor_mut::<f32>()?;
        let (own_shape, values) = values.try_extract_tensor_mut::<f32>()?;
        let sizes = sizes([shape, prompt_shape, values_shape, keys_shape, own_shape])?;
        let lengths = fitting(lengths, sizes, [cos_shape, sin_shape])?;
        if row_scale.len() != sizes.rows * sizes.tokens {
            return Err(Error::new(format!("DraftAttention: {sizes:?} with {} scales", row_scale.len())));
        }
        let out_shape = [sizes.rows as i64, sizes.tokens as i64, (sizes.heads * sizes.size) as i64];
        let mut out = output(run, 0, &out_shape)?;
        let mut out_scale = output(run, 1, &scale_shape(&out_shape))?;
        let (_, out) = out.try_extract_tensor_mut()?;
        let (_, out_scale) = out_scale.try_extract_tensor_mut()?;
        SCRATCH.with_borrow_mut(|scratch| {
            run_widest(Drafting {
                sizes,
                projected,
                row_scale,
                cos,
                sin,
                prompt_keys,
                prompt_values,
                lengths: &lengths,
                keys,
                values,
                scratch,
                out,
                out_scale,
            });
        });
        Ok(())
    }
}

/// The output that is bound to the memory of an input; the input itself is not looked into.
fn in_place<'run>(run: &'run ComputeContext, input: usize, index: usize) -> ort::Result<DynTensorRefMut<'run>> {
    let past = required(run, input)?.downcast::<DynTensorValueType>()?;
    let present = output(run, index, past.shape())?.downcast::<DynTensorValueType>()?;
    if present.data_ptr() == past.data_ptr() {
        return Ok(present);
    }
    Err(Error::new("DraftAttention: past and present must be bound to the same memory"))
}

/// The rows' lengths, which leave room in cache and positions.
fn fitting(lengths: &[i64], sizes: Sizes, positions: [&[i64]; 2]) -> ort::Result<Vec<usize>> {
    let most = sizes.capacity.checked_sub(sizes.tokens);
    let within = |length: &i64| usize::try_from(*length).ok().filter(|length| most.is_some_and(|most| *length <= most));
    let found: Option<Vec<usize>> = lengths.iter().map(within).collect();
    let longest = found.iter().flatten().max().map_or(0, |length| sizes.prompt + length + sizes.tokens);
    let half = sizes.size as i64 / 2;
    let known = positions.iter().all(|shape| shape.len() == 2 && shape[0] >= longest as i64 && shape[1] == half);
    match found {
        Some(found) if found.len() == sizes.rows && known => Ok(found),
        _ => Err(Error::new(format!(
            "DraftAttention: {sizes:?} with {lengths:?} tokens cached and angles {positions:?}: a row may be longer than \
             its cache or the model's context"
        ))),
    }
}

/// From the shapes of what is projected, the prompt's keys and values, and the rows' keys and values.
fn sizes(shapes: [&[i64]; 5]) -> ort::Result<Sizes> {
    let fault = || Error::new(format!("DraftAttention: the shapes {shapes:?} do not fit each other"));
    let [projected, prompt_keys, prompt_values, keys, values] = shapes;
    let (&[rows, tokens, width], &[1, kv_heads, prompt, size]) = (projected, prompt_values) else {
        return Err(fault());
    };
    let capacity = values.get(2).copied().unwrap_or_default();
    let fits = *prompt_keys == [1, kv_heads, size, prompt]
        && *values == [rows, kv_heads, capacity, size]
        && *keys == [rows, kv_heads, size, capacity];
    let heads = if kv_heads > 0 && size > 0 { width / size - 2 * kv_heads } else { 0 };
    if !fits || heads <= 0 || heads % kv_heads != 0 || size % 2 != 0 || (heads + 2 * kv_heads) * size != width {
        return Err(fault());
    }
    let [rows, tokens, heads, kv_heads, size, prompt, capacity] =
        [rows, tokens, heads, kv_heads, size, prompt, capacity].map(|size| size as usize);
    Ok(Sizes { rows, tokens, heads, kv_heads, size, prompt, capacity })
}
