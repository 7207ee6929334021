//! What a report says in plain words, and strangers' words made fit to be shown.

use super::report::{Changes, DiffV1, JudgedReport, Radius, TruthReport};
use crate::app::Spent;
use crate::hygiene::is_invisible;

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.2 %`; what is there and rounds to nothing says so.
pub fn percent(part: u64, all: u64) -> String {
    let share = if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 };
    if part > 0 && share < 0.05 { "less than 0.1 %".to_owned() } else { format!("{share:.1} %") }
}

/// `10 minutes`, `1 hour`, `7 days`.
pub fn span(ms: u64) -> String {
    let units = [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1_000)];
    let whole = units.into_iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) if ms == unit => format!("1 {name}"),
        Some((name, unit)) => format!("{} {name}s", grouped(ms / unit)),
        None => format!("{} ms", grouped(ms)),
    }
}

/// What matters most, a sentence a fact.
pub fn headline(report: &DiffV1) -> Vec<String> {
    let Changes { pairs, labels, actions, acts_gained, acts_lost, allow_and_act, .. } = report.all;
    if pairs == 0 {
        return vec!["No post was judged on both sides: nothing can be compared.".to_owned()];
    }
    let posts = if pairs == 1 { "post".to_owned() } else { format!("{} posts", grouped(pairs)) };
    let mut told = vec![match actions {
        0 => format!("No action changes: {posts} compared."),
        actions => format!("{} of {posts} change action ({}).", percent(actions, pairs), grouped(actions)),
    }];
    if acts_gained + acts_lost > 0 {
        told.push(format!("{} more would be acted on, {} no longer.", grouped(acts_gained), grouped(acts_lost)));
    }
    if allow_and_act > 0 {
        told.push(format!("{} go straight from allow to act, or back.", grouped(allow_and_act)));
    }
    told.push(match labels {
        0 => "No label changes.".to_owned(),
        labels => format!("{} get another label ({}).", percent(labels, pairs), grouped(labels)),
    });
    told.extend(report.truth.as_ref().map(truth));
    if report.masks_unknown > 0 {
        told.push(format!(
            "{} verdicts are by policies that are not at hand: it is taken for granted that these masked nothing (name theirs \
             as `policy` in the configuration).",
            grouped(report.masks_unknown)
        ));
    }
    let alone = [(&report.a, "before"), (&report.b, "after")];
    for (side, when) in alone.into_iter().filter(|(side, _)| side.only_here.count > 0) {
        let count = grouped(side.only_here.count);
        told.push(format!("{count} were judged only {when} ({}) and are in none of these shares.", side.name));
    }
    told
}

/// Every quota that would be used up.
pub fn exceeded(report: &DiffV1) -> Vec<String> {
    report.blast_radius.iter().filter(|radius| radius.exceeded).map(over_quota).collect()
}

fn over_quota(radius: &Radius) -> String {
    let Radius { label, peak: [_, peak], quota, window_ms, .. } = radius;
    format!(
        "OVER ITS QUOTA: {label} calls for up to {} acts in {}; {} are allowed.",
        grouped(*peak),
        span(*window_ms),
        grouped(quota.unwrap_or_default())
    )
}

/// Which side was right.
pub fn truth(truth: &TruthReport) -> String {
    let TruthReport { pairs, only_a, only_b, accuracy: [a, b], accuracy_change: change, mcnemar_p: p, .. } = truth;
    if *pairs == 0 {
        return "None of the labelled posts was judged on both sides.".to_owned();
    }
    if only_a + only_b == 0 {
        let share = 100.0 * a.value;
        return format!(
            "Of {} labelled posts {share:.1} % were labelled right, the same before and after.",
            grouped(*pairs)
        );
    }
    let interval =
        change.low.zip(change.high).map(|(low, high)| format!(", 95 %: {:+.1} to {:+.1}", 100.0 * low, 100.0 * high));
    let verdict = if *p < 0.05 { "unlikely to be chance" } else { "may be chance" };
    format!(
        "Of {} labelled posts {:.1} % were labelled right before and {:.1} % after ({:+.1} points{}); that {verdict} (McNemar, \
         p = {p:.3}).",
        grouped(*pairs),
        100.0 * a.value,
        100.0 * b.value,
        100.0 * change.value,
        interval.unwrap_or_default()
    )
}

/// What the judging of both sides in one run cost.
pub fn judged(judged: &JudgedReport) -> Vec<String> {
    let weights = if judged.weights_shared { ", over one copy of the weights" } else { "" };
    let mut told = vec![format!("{} was read once and judged by both in this run{weights}", visible(&judged.posts))];
    told.extend([("before", &judged.a), ("after", &judged.b)].map(|(when, spent)| format!("{when}: {}", cost(spent))));
    told
}

fn cost(spent: &Spent) -> String {
    let Spent { rows, twins, row_tokens, prompt_tokens, prompt_tokens_run, prompt_tokens_shared, .. } = spent;
    let a_row = |tokens: u64| tokens as f64 / (*rows).max(1) as f64;
    let twins = if *twins > 0 { format!(" and {} answered by their twins", grouped(*twins)) } else { String::new() };
    format!(
        "{} posts run{twins}, {} tokens of them; of the prompt's {}, {} run and {} taken from its cache: {:.1} tokens \
         run a post, where {:.1} would be without the cache",
        grouped(*rows),
        grouped(*row_tokens),
        grouped(*prompt_tokens),
        grouped(*prompt_tokens_run),
        grouped(*prompt_tokens_shared),
        a_row(row_tokens + prompt_tokens_run),
        a_row(row_tokens + rows * prompt_tokens),
    )
}

/// A stranger's words on one line: what shows nothing, or turns what stands beside it, is named.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => shown.push('↵'),
            c if is_invisible(c) || c.is_control() => shown += &format!("⟨U+{:04X}⟩", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// The beginning of it.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_shares_and_times_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(percent(120, 10_000), "1.2 %");
        assert_eq!(percent(1, 1_000_000), "less than 0.1 %");
        assert_eq!([percent(0, 5), percent(0, 0)], ["0.0 %", "0.0 %"]);
        assert_eq!([3_600_000, 600_000, 604_800_000, 1_500].map(span), ["1 hour", "10 minutes", "7 days", "1,500 ms"]);
    }

    #[test]
    fn what_shows_nothing_or_turns_its_neighbours_is_named() {
        assert_eq!(visible("a\u{202e}b\u{200b}c\u{7}d\ne"), "a⟨U+202E⟩b⟨U+200B⟩c⟨U+0007⟩d↵e");
        assert_eq!(visible("Grüße, 你好"), "Grüße, 你好");
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
    }
}
