//! `AddNormQuantize`: the residual stream, from one product to the next, a row in one pass.
//!
//! Inputs: residual [..., width], product [..., width] and its scales by row (both or neither), weight [width].
//! Outputs: their sum, and the sum normalised by its root mean square, weighted and quantised.

use super::*;
use super::{
    lanes::LANES,
    numbers::{quantise, sum_of_squares},
    product::Product,
    widest::Work,
};

/// The operator; its kernel knows the node's epsilon.
pub(super) struct AddNormQuantize;

pub(super) struct AddNormKernel {
    epsilon: f32,
}

impl Operator for AddNormQuantize {
    type Kernel<'attr> = AddNormKernel;

    fn name(&self) -> &str {
        "AddNormQuantize"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let (required, optional) = (OperatorInput::required(F32), OperatorInput::optional(F32));
        [required, OperatorInput::required(F32), optional, OperatorInput::optional(F32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let [bytes, scale] = quantised();
        [OperatorOutput::required(F32), bytes, scale]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<AddNormKernel> {
        let epsilon = node.get("epsilon").ok_or_else(|| Error::new("AddNormQuantize needs the attribute epsilon"))?;
        Ok(AddNormKernel { epsilon })
    }
}

impl Kernel for AddNormKernel {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let (residual, weight) = (required(run, 0)?, required(run, 1)?);
        let (added, scale) = (run.input(2)?, run.input(3)?);
        let (shape, residual) = residual.try_extract_tensor::<f32>()?;
        let (_, weight) = weight.try_extract_tensor::<f32>()?;
        let (rows, width) = rows_of(shape, weight.len())?;
        let added = match (&added, &scale) {
            (Some(added), Some(scale)) => {
                Some((added.try_extract_tensor::<f32>()?.1, scale.try_extract_tensor::<f32>()?.1))
            }
            _ => None,
        };
        if added.is_some_and(|(added, scale)| added.len() != residual.len() || scale.len() != rows) {
            return Err(Error::new(format!("AddNormQuantize: what is added to {shape:?} has another shape")));
        }
        let mut sum = output(run, 0, shape)?;
        let mut out = output(run, 1, shape)?;
        let mut out_scale = output(run, 2, &scale_shape(shape))?;
        run_widest(AddNorm {
            residual,
            added,
            weight,
            epsilon: self.epsilon,
            width,
            sum: sum.try_extract_tensor_mut()?.1,
            out: out.try_extract_tensor_mut()?.1,
            out_scale: out_scale.try_extract_tensor_mut()?.1,
        });
        Ok(())
    }
}

/// residual + y * y_scale, normalised by its root mean square, weighted, quantised.
pub(super) struct AddNorm<'a> {
    /// [rows][width].
    pub residual: &'a [f32],
    /// [rows][width] and [rows]; nothing is added where they are missing.
    pub added: Option<(&'a [f32], &'a [f32])>,
    /// [width].
    pub weight: &'a [f32],
    pub epsilon: f32,
    pub width: usize,
    /// [rows][width].
    pub sum: &'a mut [f32],
    pub out: &'a mut [u8],
    /// [rows].
    pub out_scale: &'a mut [f32],
}

impl Work for AddNorm<'_> {
    #[inline(always)]
    fn run<M: Product>(self) {
        let width = self.width;
        let mut normed = vec![0.0; width];
        let rows = self.sum.chunks_exact_mut(width).zip(self.residual.chunks_exact(width));
        for (row, (sum, residual)) in rows.enumerate() {
            match self.added {
                Some((added, scale)) => {
                    let (added, scale) = (&added[row * width..][..width], scale[row]);
                    let scale = M::all(scale);
                    let both = residual.chunks(LANES).zip(added.chunks(LANES));
                    for (sum, (residual, added)) in sum.chunks_mut(LANES).zip(both) {
                        M::store(M::mul_add(M::load(added), scale, M::load(residual)), sum);
                    }
                }
                None => sum.copy_from_slice(residual),
            }
            let mean = sum_of_squares::<M>(sum) / width as f32;
            let factor = M::all(1.0 / (mean + self.epsilon).sqrt());
            let both = sum.chunks(LANES).zip(self.weight.chunks(LANES));
            for (normed, (sum, weight)) in normed.chunks_mut(LANES).zip(both) {
                M::store(M::mul(M::mul(M::load(sum), factor), M::load(weight)), normed);
            }
            self.out_scale[row] = quantise::<M>(&normed, &mut self.out[row * width..][..width]);
        }
    }
}
