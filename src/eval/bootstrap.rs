//! Bootstrap intervals: how much a figure moves when the rows are drawn again from themselves.

/// How rows are drawn again. The same seed draws the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// How often; 0 for no intervals.
    pub resamples: usize,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// The 95 % percentile interval.
pub type Interval = (f64, f64);

impl Resampling {
    /// The interval of every figure that `measure` makes of `rows` weighted rows, in its order. None where a figure was
    /// undefined in more than half of the resamples.
    pub fn intervals(self, rows: usize, mut measure: impl FnMut(&[u32]) -> Vec<f64>) -> Vec<Option<Interval>> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut weights = vec![0u32; rows];
        let mut drawn: Vec<Vec<f64>> = Vec::new();
        for _ in 0..self.resamples {
            weights.fill(0);
            for _ in 0..rows {
                weights[random.usize(0..rows)] += 1;
            }
            let figures = measure(&weights);
            drawn.resize_with(figures.len().max(drawn.len()), Vec::new);
            for (values, figure) in drawn.iter_mut().zip(figures) {
                if figure.is_finite() {
                    values.push(figure);
                }
            }
        }
        let enough = self.resamples / 2 + 1;
        drawn.into_iter().map(|values| (values.len() >= enough).then(|| percentiles(values))).collect()
    }
}

fn percentiles(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// The 95 % interval of a share of `count` independent rows, by Wilson: fit for few rows and for shares near 0 and 1.
pub fn wilson(hits: usize, count: usize) -> Option<Interval> {
    const Z: f64 = 1.959_964;
    if count == 0 {
        return None;
    }
    let (n, share) = (count as f64, hits as f64 / count as f64);
    let middle = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some((((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> impl Fn(&[u32]) -> Vec<f64> {
        move |weights| {
            let sum: f64 = values.iter().zip(weights).map(|(value, weight)| value * f64::from(*weight)).sum();
            vec![sum / values.len() as f64]
        }
    }

    #[test]
    fn one_seed_draws_the_same_rows_and_another_draws_others() {
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let interval = |seed| Resampling { resamples: 200, seed }.intervals(50, mean(&values));
        assert_eq!(interval(7), interval(7));
        assert_ne!(interval(7), interval(8));
    }

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors_to_each_side() {
        let values: Vec<f64> = (0..400).map(|n| f64::from(n % 2)).collect();
        let (low, high) = Resampling { resamples: 1000, seed: 1 }.intervals(400, mean(&values))[0].unwrap();
        assert!((low - 0.451).abs() < 0.01 && (high - 0.549).abs() < 0.01, "{low} to {high}");
    }

    #[test]
    fn a_figure_that_is_mostly_undefined_has_no_interval() {
        let resampling = Resampling { resamples: 20, seed: 1 };
        assert_eq!(resampling.intervals(3, |_| vec![f64::NAN, 1.0]), [None, Some((1.0, 1.0))]);
        assert!(Resampling { resamples: 0, seed: 1 }.intervals(3, |_| vec![1.0]).is_empty());
    }

    #[test]
    fn wilsons_interval_is_the_published_one() {
        // Newcombe 1998, table I: 81 of 263 and 0 of 20.
        let (low, high) = wilson(81, 263).unwrap();
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson(0, 20).unwrap();
        assert!(low == 0.0 && (high - 0.1611).abs() < 1e-4, "{high}");
        assert_eq!(wilson(0, 0), None);
    }
}
