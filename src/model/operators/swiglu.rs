//! `SwiGluQuantize`: what stands between the matrices of the feed-forward part, a row in one pass.
//!
//! Inputs: [..., 2 * width], the gates and then what they gate, and its scales by row. Output: silu(gate) * up, quantised.

use super::*;
use super::{
    lanes::{LANES, Lanes},
    numbers::quantise,
    product::Product,
    widest::Work,
};

/// The operator and its kernel.
pub(super) struct SwiGluQuantize;

impl Operator for SwiGluQuantize {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        "SwiGluQuantize"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(F32), OperatorInput::required(F32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        quantised()
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for SwiGluQuantize {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let (gate_up, scale) = (required(run, 0)?, required(run, 1)?);
        let (shape, gate_up) = gate_up.try_extract_tensor::<f32>()?;
        let (_, row_scale) = scale.try_extract_tensor::<f32>()?;
        let mut shape = shape.to_vec();
        let (rows, both) = rows_of(&shape, shape.last().map_or(0, |width| *width as usize))?;
        if both % 2 != 0 || row_scale.len() != rows {
            return Err(Error::new(format!("SwiGluQuantize: {} scales for {shape:?}", row_scale.len())));
        }
        let width = both / 2;
        let mut out_scale = output(run, 1, &scale_shape(&shape))?;
        shape.pop();
        shape.push(width as i64);
        let mut out = output(run, 0, &shape)?;
        run_widest(SwiGlu {
            gate_up,
            row_scale,
            width,
            out: out.try_extract_tensor_mut()?.1,
            out_scale: out_scale.try_extract_tensor_mut()?.1,
        });
        Ok(())
    }
}

/// silu(gate) * up, both times the row's scale first, quantised.
pub(super) struct SwiGlu<'a> {
    /// [rows][gate, then up], 2 * width in all.
    pub gate_up: &'a [f32],
    /// [rows].
    pub row_scale: &'a [f32],
    pub width: usize,
    /// [rows][width].
    pub out: &'a mut [u8],
    pub out_scale: &'a mut [f32],
}

impl Work for SwiGlu<'_> {
    #[inline(always)]
    fn run<M: Product>(self) {
        let mut product = vec![0.0; self.width];
        let rows = self.gate_up.chunks_exact(2 * self.width).zip(self.out.chunks_exact_mut(self.width));
        for ((gate_up, out), (scale, out_scale)) in rows.zip(self.row_scale.iter().zip(self.out_scale)) {
            let (gate, up) = gate_up.split_at(self.width);
            let scale = M::all(*scale);
            let both = gate.chunks(LANES).zip(up.chunks(LANES));
            for (product, (gate, up)) in product.chunks_mut(LANES).zip(both) {
                let (gate, up) = (M::mul(M::load(gate), scale), M::mul(M::load(up), scale));
                M::store(M::mul(silu::<M>(gate), up), product);
            }
            *out_scale = quantise::<M>(&product, out);
        }
    }
}

/// gate / (1 + e^-gate).
#[inline(always)]
fn silu<M: Lanes>(gate: M::F32) -> M::F32 {
    // Not beyond the exponential's reach: there the quotient is as good as zero.
    let highest = M::all(125.0);
    let exponent = M::mul(gate, M::all(-std::f32::consts::LOG2_E));
    let exponent = M::sub(highest, M::max(M::sub(highest, exponent), M::all(0.0)));
    M::div(gate, M::add(M::all(1.0), M::exp2(exponent)))
}
