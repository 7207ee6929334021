//! Norm and gate against their equations in float64.

use super::{
    add_norm::AddNorm,
    lanes::Plain,
    swiglu::SwiGlu,
    tests::{Quantised, Random},
    widest::{Work, run_widest},
};

struct NormCase {
    residual: Vec<f32>,
    added: Vec<f32>,
    scale: Vec<f32>,
    weight: Vec<f32>,
}

impl NormCase {
    fn new(rows: usize, width: usize, factor: f32) -> Self {
        let mut random = Random(rows as u64);
        let mut numbers = |count| random.vec(count).into_iter().map(|value| value * factor).collect();
        let (residual, added) = (numbers(rows * width), numbers(rows * width));
        Self { residual, added, scale: random.vec(rows), weight: random.vec(width) }
    }

    fn compute(&self, run: impl FnOnce(AddNorm<'_>)) -> (Vec<f32>, Quantised) {
        let (rows, width) = (self.scale.len(), self.weight.len());
        let (mut sum, mut out) = (vec![0.0; rows * width], Quantised::new(rows, width));
        run(AddNorm {
            residual: &self.residual,
            added: Some((&self.added, &self.scale)),
            weight: &self.weight,
            epsilon: 1e-5,
            width,
            sum: &mut sum,
            out: &mut out.bytes,
            out_scale: &mut out.scales,
        });
        (sum, out)
    }
}

#[test]
fn the_norm_follows_its_equation() {
    for (rows, width, factor) in [(5, 576, 1.0), (1, 40, 1.0), (3, 64, 1e15), (2, 64, 1e-12), (2, 17, 0.0)] {
        let case = NormCase::new(rows, width, factor);
        let (sum, out) = case.compute(|work| run_widest(work));
        let total =
            |at: usize| f64::from(case.residual[at]) + f64::from(case.added[at]) * f64::from(case.scale[at / width]);
        for (at, sum) in sum.iter().enumerate() {
            assert!((f64::from(*sum) - total(at)).abs() <= total(at).abs().max(f64::from(factor)) * 1e-6);
        }
        let expected: Vec<Vec<f64>> = (0..rows)
            .map(|row| {
                let numbers: Vec<f64> = (row * width..(row + 1) * width).map(total).collect();
                let mean = numbers.iter().map(|value| value * value).sum::<f64>() / width as f64;
                let weighted = numbers.iter().zip(&case.weight);
                weighted.map(|(value, weight)| value / (mean + 1e-5).sqrt() * f64::from(*weight)).collect()
            })
            .collect();
        out.assert_near(&expected, 1e-5);
        let (plain_sum, plain) = case.compute(|work| work.run::<Plain>());
        plain.assert_like(&out);
        assert!(plain_sum.iter().zip(&sum).all(|(a, b)| (a - b).abs() <= a.abs().max(factor) * 1e-6));
    }
}

#[test]
fn the_gate_follows_its_equation() {
    let cases =
        [(4, 1536, 32, 2.0), (3, 1536, 1, 2.0), (2, 64, 4, 1.0), (1, 72, 1, 1.0), (2, 16, 1, 1e4), (2, 16, 1, 0.0)];
    for (rows, width, mixed, factor) in cases {
        let mut random = Random(width as u64);
        let gate_up: Vec<f32> = random.vec(rows * 2 * width).into_iter().map(|value| value * factor).collect();
        let row_scale = random.vec(rows);
        let compute = |run: &dyn Fn(SwiGlu<'_>)| {
            let mut out = Quantised::new(rows, width);
            let (gate_up, row_scale) = (&gate_up[..], &row_scale[..]);
            run(SwiGlu { gate_up, row_scale, width, mixed, out: &mut out.bytes, out_scale: &mut out.scales });
            out
        };
        let expected: Vec<Vec<f64>> = (0..rows)
            .map(|row| {
                let at = |column: usize| f64::from(gate_up[row * 2 * width + column]) * f64::from(row_scale[row]);
                let row: Vec<f64> = (0..width).map(|d| at(d) / (1.0 + (-at(d)).exp()) * at(width + d)).collect();
                (0..width).map(|d| mixed_at(&row, mixed, d)).collect()
            })
            .collect();
        let out = compute(&|work| run_widest(work));
        out.assert_near(&expected, 1e-5);
        compute(&|work| work.run::<Plain>()).assert_like(&out);
    }
}

/// One channel of a Walsh-Hadamard transform over `mixed` channels, 16 apart: the sign is the parity of the common bits.
fn mixed_at(row: &[f64], mixed: usize, d: usize) -> f64 {
    let (block, place) = (d / (16 * mixed) * 16 * mixed, d / 16 % mixed);
    let terms = (0..mixed).map(|other| {
        let value = row[if mixed == 1 { d } else { block + other * 16 + d % 16 }];
        if (place & other).count_ones().is_multiple_of(2) { value } else { -value }
    });
    terms.sum()
}
