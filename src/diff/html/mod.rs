//! The differences as one page for whoever answers for the policy: what matters in plain words, then flows, quotas, labels,
//! scores, slices, and the posts themselves. Whatever strangers wrote is escaped, and what it hides is named.

mod charts;
mod flips;
mod tables;

use super::report::{DiffV1, SideReport};
use super::words::{cut, exceeded, grouped, headline, judged, percent, truth, visible};
use crate::html::svg::escaped;
use crate::html::{Page, entries, pair, tile};

/// The page.
pub fn page(report: &DiffV1) -> String {
    let title = if report.candidate { "What another policy would change" } else { "What changes" };
    let mut page = Page::begin(header(report, title));
    if report.all.pairs > 0 {
        compared(report, &mut page);
    }
    if report.flips.count > 0 {
        let shown = report.flips.first.len() as u64;
        let words = match report.flips.count {
            all if all > shown => format!(
                "The worst {} of {}: allow to act and back first, then what begins or ceases to act, then the greatest change of a score.",
                grouped(shown),
                grouped(all)
            ),
            all => format!(
                "All {}, the worst first: allow to act and back, then what begins or ceases to act, then the greatest change of a score.",
                grouped(all)
            ),
        };
        page.card("Posts that flip", &words, &flips::table(&report.flips.first));
    }
    let cost = report.judged.iter().flat_map(judged).map(|words| format!("<p>{}</p>", escaped(&words)));
    page.card(
        "What was compared",
        "Enough to compare it again.",
        &(side("Before", &report.a) + &side("After", &report.b) + &cost.collect::<String>()),
    );
    page.finish(title, &format!("{} · {}", report.worker_version, report.compared_at))
}

fn compared(report: &DiffV1, page: &mut Page) {
    page.card(
        "What would be done",
        "Each post flows from what was proposed before to what is proposed after.",
        &pair(&charts::flow(&report.action_matrix), &tables::actions(report)),
    );
    page.card(
        "Acting by itself",
        "Verdicts whose scores call for acting, by the label that calls for it; and how many fall in the fullest window, against the quota where there is one.",
        &tables::radius(report),
    );
    page.card(
        "Labels",
        "Posts by the label they get, before and after; and who moved where.",
        &(charts::labels(report) + &tables::labels(report)),
    );
    page.card(
        "Scores",
        "How the scores of each label lie, before and after. Drift is the share of posts that lie elsewhere: 0 the same, 1 nothing in common.",
        &(charts::histograms(report) + &tables::scores(report)),
    );
    page.card("Where", "The same by language, and by every field that was asked for.", &tables::slices(report));
    if let Some(right) = &report.truth {
        page.card("Which side was right?", &truth(right), &tables::truth(right));
    }
}

fn header(report: &DiffV1, title: &str) -> String {
    let mut told = headline(report).into_iter();
    let first = told.next().unwrap_or_default();
    let names = format!("{} → {}", visible(&report.a.name), visible(&report.b.name));
    let rest: String = told.map(|words| format!("<li>{}</li>", escaped(&words))).collect();
    let mut header = format!(
        "<header><h1>{}</h1><p class=\"names\">{}</p><p class=\"lead\">{}</p><ul class=\"facts\">{rest}</ul></header>",
        escaped(title),
        escaped(&names),
        escaped(&first)
    );
    let all = &report.all;
    let over = report.blast_radius.iter().filter(|radius| radius.exceeded);
    let count = |count: u64| percent(count, all.pairs);
    header += "<div class=\"tiles\">";
    header += &tile("posts compared", &grouped(all.pairs), "");
    header += &tile("change action", &count(all.actions), &grouped(all.actions));
    header += &tile("more acted on", &grouped(all.acts_gained), "");
    header += &tile("no longer acted on", &grouped(all.acts_lost), "");
    header += &tile("get another label", &count(all.labels), &grouped(all.labels));
    header += &tile("labels over their quota", &over.count().to_string(), "");
    header += "</div>";
    for words in exceeded(report).into_iter().chain(faults(report)) {
        header += &format!("<section class=\"card warn\"><p>{}</p></section>", escaped(&words));
    }
    header
}

/// What makes the figures less than they seem.
fn faults(report: &DiffV1) -> Vec<String> {
    let mut faults = Vec::new();
    for side in [&report.a, &report.b].into_iter().filter(|side| side.unread.count > 0) {
        let first = side.unread.first.join("; ");
        faults.push(format!("{} of {} could not be read as verdicts: {first}.", grouped(side.unread.count), side.name));
    }
    if report.other_posts > 0 {
        let count = grouped(report.other_posts);
        faults
            .push(format!("{count} records have verdicts on different posts: perhaps the sides are not of one topic."));
    }
    faults
}

fn side(when: &str, side: &SideReport) -> String {
    let mut list = vec![
        ("read from", visible(&side.name)),
        ("verdicts", grouped(side.verdicts)),
        ("only on this side", grouped(side.only_here.count)),
        ("repeats, superseded, out of range", [side.repeats, side.superseded, side.outside].map(grouped).join(", ")),
        ("posts without a verdict", grouped(side.without_verdict)),
    ];
    for one in &side.judges {
        let judge = &one.judge;
        list.push(("policy", format!("{} {} ({})", judge.policy, judge.policy_revision, judge.policy_digest)));
        list.push(("calibration", judge.calibration.clone().unwrap_or_else(|| "none".to_owned())));
        let run = format!("{} on {}, {} verdicts", judge.precision, judge.provider, grouped(one.verdicts));
        list.push(("model", format!("{} ({}), {run}", judge.model, judge.model_digest)));
    }
    for post in side.only_here.first.iter().take(5) {
        let place = format!("{}/{}/{}", post.topic, post.partition, post.offset);
        list.push(("only here", visible(&format!("{} at {place}", cut(&post.post_id, 80)))));
    }
    format!("<h3>{when}</h3>{}", entries(list))
}

#[cfg(test)]
mod tests;
