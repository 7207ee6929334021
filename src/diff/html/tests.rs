//! The page, on verdicts that are made up.

use super::page;
use crate::diff::tests::{all, compared};

#[test]
fn the_first_words_say_how_many_posts_change_and_how_many_more_are_acted_on() {
    let page = page(&compared(&all(&[0.1, 0.6, 0.1, 0.1]), &all(&[0.95, 0.4, 0.1, 0.1])));
    let body = page.split_once("<body>").unwrap().1;
    let text = body.split_once("<h1>").unwrap().1.split_once("</header>").unwrap().0;
    assert!(text.contains("50.0 % of 4 posts change action (2)."), "{text}");
    assert!(text.contains("1 more would be acted on, 0 no longer."), "{text}");
}

#[test]
fn nothing_of_a_stranger_gets_out_of_its_place_and_what_hides_is_named() {
    let hostile = "\u{202e}<script>alert(1)</script><img src=x onerror=alert(1)>\u{200b}\"'</td></table>";
    let mut report = compared(&all(&[0.1]), &all(&[0.95]));
    report.flips.first[0].post.post_id = hostile.to_owned();
    report.flips.first[0].text = Some(hostile.repeat(1000));
    report.slices[0].value = hostile.to_owned();
    report.a.name = hostile.to_owned();
    let page = page(&report);
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    for hidden in ['\u{202e}', '\u{200b}'] {
        assert!(!page.contains(hidden));
    }
    assert!(page.contains("⟨U+202E⟩&lt;script&gt;"), "{page}");
    assert!(page.len() < 100_000, "{}", page.len());
    assert_eq!(page.matches("http").count(), page.matches("http-equiv").count(), "nothing is asked for from outside");
}

#[test]
fn nothing_to_compare_is_said_and_makes_no_charts() {
    let mut other = all(&[0.1]);
    other[0]["data"]["input"]["kafka"]["offset"] = serde_json::json!(7);
    let page = page(&compared(&all(&[0.1]), &other));
    assert!(page.contains("No post was judged on both sides") && !page.contains("<svg"), "{page}");
}
