//! `SwiGluQuantize`: what stands between the matrices of the feed-forward part, a row in one pass.
//!
//! Inputs: [..., 2 * width], the gates and then what they gate, and its scales by row. Output: silu(gate) * up, mixed and
//! quantised. Few channels hold its largest values, and eight bits would lose the others beside them: a Walsh-Hadamard
//! transform over `mixed` channels, 16 apart, spreads them; the next matrix was made to undo it.

use super::*;
use super::{
    lanes::{LANES, Lanes},
    numbers::quantise,
    product::Product,
    widest::Work,
};

/// The operator; its kernel knows how many channels are mixed.
pub(super) struct SwiGluQuantize;

pub(super) struct SwiGluKernel {
    mixed: usize,
}

impl Operator for SwiGluQuantize {
    type Kernel<'attr> = SwiGluKernel;

    fn name(&self) -> &str {
        "SwiGluQuantize"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(F32), OperatorInput::required(F32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        quantised()
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<SwiGluKernel> {
        let mixed: i64 = node.get("mixed").unwrap_or(1);
        match usize::try_from(mixed) {
            Ok(mixed) if mixed.is_power_of_two() => Ok(SwiGluKernel { mixed }),
            _ => Err(Error::new(format!("SwiGluQuantize: mixed is {mixed}, which is no power of two"))),
        }
    }
}

impl Kernel for SwiGluKernel {
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
        if self.mixed > 1 && !width.is_multiple_of(self.mixed * LANES) {
            return Err(Error::new(format!("SwiGluQuantize: rows of {width} cannot be mixed by {}", self.mixed)));
        }
        let mut out_scale = output(run, 1, &scale_shape(&shape))?;
        shape.pop();
        shape.push(width as i64);
        let mut out = output(run, 0, &shape)?;
        run_widest(SwiGlu {
            gate_up,
            row_scale,
            width,
            mixed: self.mixed,
            out: out.try_extract_tensor_mut()?.1,
            out_scale: out_scale.try_extract_tensor_mut()?.1,
        });
        Ok(())
    }
}

/// silu(gate) * up, both times the row's scale first, mixed, quantised.
pub(super) struct SwiGlu<'a> {
    /// [rows][gate, then up], 2 * width in all.
    pub gate_up: &'a [f32],
    /// [rows].
    pub row_scale: &'a [f32],
    pub width: usize,
    /// Channels of one transform, a power of two; 1 for none.
    pub mixed: usize,
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
            for block in product.chunks_exact_mut(self.mixed * LANES) {
                mix::<M>(block);
            }
            *out_scale = quantise::<M>(&product, out);
        }
    }
}

/// Walsh-Hadamard over whole vectors, without scaling: sums and differences of vectors 1, 2, 4, ... apart.
#[inline(always)]
fn mix<M: Lanes>(block: &mut [f32]) {
    let mut apart = LANES;
    while apart < block.len() {
        for pair in block.chunks_exact_mut(2 * apart) {
            let (low, high) = pair.split_at_mut(apart);
            for (low, high) in low.chunks_exact_mut(LANES).zip(high.chunks_exact_mut(LANES)) {
                let (a, b) = (M::load(low), M::load(high));
                M::store(M::add(a, b), low);
                M::store(M::sub(a, b), high);
            }
        }
        apart *= 2;
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
