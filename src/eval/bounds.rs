//! `--min metric=value` and `--max metric=value`: what a build or a release asks of the figures.

use std::collections::BTreeMap;

use super::report::{BoundReport, Estimate};

/// One bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The figure's name.
    pub metric: String,
    /// The least or the most that it may be.
    pub limit: Limit,
}

/// Which way a bound goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// At least.
    Min(f64),
    /// At most.
    Max(f64),
}

/// `macro_f1=0.75`. The name of a figure may have an equals sign in it, so the last one counts.
pub fn named_value(text: &str) -> Result<(String, f64), String> {
    let told = || "METRIC=VALUE is expected, such as macro_f1=0.75".to_owned();
    let (name, value) = text.rsplit_once('=').ok_or_else(told)?;
    let value = value.trim().parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(told)?;
    Ok((name.trim().to_owned(), value))
}

impl Bound {
    /// The bound against the figures. One that the rows say nothing of is not met.
    pub fn check(&self, metrics: &BTreeMap<String, Estimate>) -> BoundReport {
        let value = metrics.get(&self.metric).map(|estimate| estimate.value);
        let (min, max) = match self.limit {
            Limit::Min(min) => (Some(min), None),
            Limit::Max(max) => (None, Some(max)),
        };
        let met = value.is_some_and(|value| min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max));
        BoundReport { metric: self.metric.clone(), min, max, value, met }
    }
}

impl BoundReport {
    /// How it fell short, for a person.
    pub fn told(&self) -> String {
        let (word, limit) =
            if let Some(min) = self.min { ("at least", min) } else { ("at most", self.max.unwrap_or_default()) };
        match self.value {
            Some(value) => format!("{} is {value:.4}; {word} {limit} is asked for", self.metric),
            None => format!("{} is not defined on these rows; {word} {limit} is asked for", self.metric),
        }
    }
}

/// The known names that are most like one that is not known: those that share its last part, or its first.
pub fn alike<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    const SHOWN: usize = 12;
    let last = name.rsplit('.').next().unwrap_or(name);
    let first = name.split('.').next().unwrap_or(name);
    let mut names: Vec<(usize, &String)> = known
        .filter(|known| !known.starts_with("slice.") || name.starts_with("slice."))
        .map(|known| {
            let near = known.split('.').any(|part| part == last) || known.starts_with(first);
            (usize::from(!near), known)
        })
        .collect();
    names.sort();
    names.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_read_up_to_its_last_equals_sign() {
        assert_eq!(
            named_value("parity.precision=int8.labels_differ=0.01"),
            Ok(("parity.precision=int8.labels_differ".to_owned(), 0.01))
        );
        for wrong in ["macro_f1", "macro_f1=high", "macro_f1=NaN"] {
            assert!(named_value(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_figure_at_its_bound_is_good_enough_and_one_that_is_not_there_is_not() {
        let metrics = BTreeMap::from([("ece".to_owned(), Estimate { value: 0.02, low: None, high: None })]);
        let check = |metric: &str, limit| Bound { metric: metric.to_owned(), limit }.check(&metrics);
        assert!(check("ece", Limit::Max(0.02)).met && check("ece", Limit::Min(0.02)).met);
        assert_eq!(check("ece", Limit::Max(0.01)).told(), "ece is 0.0200; at most 0.01 is asked for");
        assert_eq!(
            check("auc.a", Limit::Min(0.9)).told(),
            "auc.a is not defined on these rows; at least 0.9 is asked for"
        );
    }

    #[test]
    fn a_name_that_is_not_known_is_answered_with_those_like_it() {
        let known = ["accuracy", "auc.a", "auc.b", "slice.source.s.auc.a"].map(str::to_owned);
        let found = alike("auc", known.iter());
        assert_eq!(found, ["auc.a", "auc.b", "accuracy"]);
    }
}
