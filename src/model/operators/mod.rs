//! Operators of the domain `moderato`: what the int8 graphs ask for between their matrix products.
//!
//! A graph is data that someone else may have written, so each operator checks what it is given. Kernels hold nothing
//! that a run changes: several threads run one session at the same time.

mod add_norm;
mod attention;
mod cascade_attention;
mod draft_attention;
#[cfg(test)]
mod draft_tests;
mod drafting;
mod floats;
mod lanes;
mod numbers;
mod product;
#[cfg(test)]
mod row_tests;
mod softmax;
mod swiglu;
#[cfg(test)]
mod tests;
mod tiles;
mod widest;

use ort::{
    Error,
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput},
    value::{DynTensorRefMut, DynTensorValueType, TensorElementType, ValueRef, ValueRefMut},
};

use self::{
    add_norm::AddNormQuantize, cascade_attention::CascadeAttention, draft_attention::DraftAttention,
    swiglu::SwiGluQuantize, widest::run_widest,
};

/// The domain, for a session on the CPU.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new("moderato")?
        .add(AddNormQuantize)?
        .add(SwiGluQuantize)?
        .add(CascadeAttention)?
        .add(DraftAttention)
}

const F32: TensorElementType = TensorElementType::Float32;

/// Bytes around 128, and the scale that undoes them for each row.
fn quantised() -> [OperatorOutput; 2] {
    [OperatorOutput::required(TensorElementType::Uint8), OperatorOutput::required(F32)]
}

fn required(run: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    run.input(index)?.ok_or_else(|| Error::new(format!("input {index} is missing")))
}

fn output<'run>(run: &'run ComputeContext, index: usize, shape: &[i64]) -> ort::Result<ValueRefMut<'run>> {
    run.output(index, shape.to_vec())?.ok_or_else(|| Error::new(format!("output {index} is missing")))
}

/// How many rows of `width` a shape holds.
fn rows_of(shape: &[i64], width: usize) -> ort::Result<(usize, usize)> {
    let whole: i64 = shape.iter().product();
    match shape.last() {
        Some(last) if *last > 0 && *last as usize == width => Ok((whole as usize / width, width)),
        _ => Err(Error::new(format!("a tensor of shape {shape:?} has no rows of {width}"))),
    }
}

/// One scale for each row.
fn scale_shape(shape: &[i64]) -> Vec<i64> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = 1;
    }
    shape
}
