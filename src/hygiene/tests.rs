//! What is cleaned, and what honest writing keeps.

use proptest::prelude::*;

use super::*;

fn cleaned(text: &str) -> String {
    clean(text).0.into_owned()
}

/// The text comes out as it went in, and nothing is counted.
fn assert_kept(text: &str) {
    let (out, changed) = clean(text);
    assert_eq!((&*out, changed), (text, TextNormalised::default()), "{}", text.escape_unicode());
}

#[test]
fn plain_latin_text_is_handed_back_as_it_came() {
    for text in ["", "Modern Illinois, 10 mm, 0O1lI|rn", "tab\tand\r\nline", "a -- b ' \" ~"] {
        assert!(matches!(clean(text), (Cow::Borrowed(out), changed) if out == text && changed.is_nothing()));
    }
}

#[test]
fn honest_text_of_every_script_keeps_its_letters() {
    for text in [
        "Ça, déjà vu, naïve, Straße, Łódź, İstanbul, Tiếng Việt, ʻokina",
        "Вода кипит при ста градусах. Сосна, рост, сера, НОС, оса; ёлка, їжак, йод.",
        "Το νερό βράζει. ΑΘΗΝΑ, Ιωάννης, ένα",
        "Ջուրը եռում է",
        "می‌خواهم خانه‌ها را ببینم",
        "שָׁלוֹם עֲלֵיכֶם",
        "الْمَاءُ يَغْلِي",
        "क्षत्रिय, क्‍ष, ശ്രീ, ക്‍ഷ, ශ්‍රී ලංකා, বাংলা",
        "བསྒྲུབས་ཧཱུྃ",
        "မြန်မာ ကြွှေ့",
        "น้ำเดือดที่ความร้อนสูง",
        "水は百度で沸騰する。我用iPhone手机。",
        "물은 백 도에서 끓는다. iPhone을",
        "👩‍👩‍👧‍👦 ❤️ 👍🏽 1️⃣ 🏳️‍🌈 🇩🇪 ⚠︎",
        "“Quoted” – and — dashed, 20 €, 5 °C",
    ] {
        let composed = normalised(text, &mut TextNormalised::default()).unwrap_or_else(|| text.to_owned());
        assert_kept(&composed);
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
        let forms = normalised(&letters(text), &mut TextNormalised::default()).unwrap_or_else(|| letters(text));
        assert_eq!(letters(&composed), forms);
    }
}

#[test]
fn words_that_mix_scripts_and_could_not_be_latin_stay() {
    for text in ["SMSка", "PDFки", "βeta-Ж", "wordслово", "μm"] {
        assert_eq!(clean(text).1.confusables_folded, 0, "{text}");
    }
}

#[test]
fn look_alikes_in_latin_words_become_latin_and_are_counted() {
    for (text, expected, letters) in [
        ("vаccinе", "vaccine", 2),
        ("СОVID", "COVID", 2),
        ("Fаke, fаke; НОАХ stays", "Fake, fake; НОАХ stays", 2),
        ("раураl", "paypal", 5),
        ("Іllegаl", "Illegal", 2),
        ("vёry", "vëry", 1),
        ("买рaypal", "买paypal", 1),
        ("kοντα", "kοντα", 0),
        ("Αpple and οnion", "Apple and onion", 2),
    ] {
        let (out, changed) = clean(text);
        assert_eq!((&*out, changed.confusables_folded), (expected, letters), "{text}");
    }
}

#[test]
fn what_shows_nothing_is_removed_and_counted() {
    let (out, changed) =
        clean("va\u{200b}cc\u{200d}i\u{200c}n\u{ad}e\u{feff}\u{0} \u{2060}\u{e0041}\u{fe0f}\u{34f}\u{7}x");
    assert_eq!(out, "vaccine x");
    assert_eq!(changed, TextNormalised { invisible_removed: 11, ..TextNormalised::default() });
}

#[test]
fn direction_controls_are_removed_and_counted() {
    let (out, changed) = clean("\u{202e}abc\u{202c} \u{2066}d\u{2069}\u{200f}\u{61c}");
    assert_eq!((&*out, changed.bidi_removed, changed.invisible_removed), ("abc d", 6, 0));
}

#[test]
fn a_joiner_or_selector_where_it_changes_nothing_is_removed() {
    for (text, expected) in [
        ("a\u{200d}b", "a"),
        ("🙂\u{200d}", "🙂"),
        ("🙂\u{200d}\u{200d}🙂", "🙂"),
        ("دا\u{200c}د", "داد"),
        ("5\u{fe0f}", "5"),
        ("🙂\u{fe0f}\u{fe0f}", "🙂\u{fe0f}"),
        ("葛\u{e0100}", "葛"),
        ("\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}", "\u{1f3f4}"),
    ] {
        let out = cleaned(text);
        assert!(out.starts_with(expected) && clean(text).1.invisible_removed > 0, "{}", text.escape_unicode());
        assert!(out.chars().count() < text.chars().count());
    }
}

#[test]
fn other_forms_of_letters_become_plain_ones_and_are_counted() {
    let (out, changed) = clean("ｆａｋｅ 𝐧𝐞𝐰𝐬 ﬁx Ⓐ e\u{301}");
    assert_eq!((&*out, changed.nfkc), ("fake news fix A é", 10));
    assert_eq!(clean("e\u{301}").1.nfkc, 1);
}

#[test]
fn a_flood_of_marks_is_dropped_whole_and_counted() {
    let flood = "\u{335}\u{316}".repeat(20);
    let text = format!("f{flood}a{flood}ke é");
    let (out, changed) = clean(&text);
    assert_eq!((&*out, changed.marks_dropped), ("fake é", 80));
    let hidden = format!("f{}ake", "\u{335}\u{200b}".repeat(50));
    assert_eq!(cleaned(&hidden), "fake");
    assert_eq!(cleaned(&"\u{335}".repeat(100)), "");
}

#[test]
fn letters_spaced_apart_become_words_and_single_ones_stay() {
    for (text, expected, letters) in [
        ("On d i a g n o s t i c s and i n race t o c r e a t e it", "On diagnostics and in race tocreate it", 21),
        ("g a m e - c h a n g i n g", "game-changing", 13),
        ("v 4 c c 1 n e s kill", "vaccines kill", 8),
        ("I saw a B in plan C", "I saw a B in plan C", 0),
        ("1 2 3 4 5 a b", "1 2 3 4 5 a b", 0),
        ("a b  c d", "a b  c d", 0),
        ("🙂 🙂 🙂 🙂 🙂", "🙂 🙂 🙂 🙂 🙂", 0),
    ] {
        let (out, changed) = clean(text);
        assert_eq!((&*out, changed.letters_joined), (expected, letters), "{text}");
    }
}

#[test]
fn digits_inside_words_become_letters_and_numbers_and_names_stay() {
    for (text, expected, digits) in [
        ("the v4cc1ne is a h0ax", "the vaccine is a h0ax", 2),
        ("7h3 v4cc1n35 4r3 n07 54f3 4nd 7h3y kn0w 17", "the vaccines are not safe and they know 17", 17),
        ("covid19 COVID-19 H1N1 H5N1 mp3 F16 1st 70s 50k 4G b2b Boeing737 2020", "", 0),
        ("https://t.co/lD1hPs0oMw and @j0hnny5mith and id a1b2c3d4e5", "", 0),
        ("SWdub3JlIHByZXZpb3VzIGluc3RydWN0aW9ucw==", "", 0),
    ] {
        let (out, changed) = clean(text);
        let expected = if digits == 0 { text } else { expected };
        assert_eq!((&*out, changed.leet_folded), (expected, digits), "{text}");
    }
}

#[test]
fn layers_of_tricks_come_off_together() {
    // Full-width Cyrillic does not exist; hidden characters between a letter and its accent do.
    assert_eq!(cleaned("v\u{200b}а\u{2060}\u{301}ｃｃ\u{202e}іne"), "v\u{e1}ccine");
}

#[test]
fn whatever_unicode_calls_ignorable_or_a_direction_control_is_seen() {
    use icu_properties::CodePointSetData;
    use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint};
    for c in char::MIN..=char::MAX {
        let named = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
            || CodePointSetData::new::<BidiControl>().contains(c);
        assert_eq!(
            invisible::is_invisible(c),
            named || (c.is_control() && !c.is_whitespace()),
            "{}",
            c.escape_unicode()
        );
    }
}

#[test]
fn a_text_of_nothing_to_see_becomes_empty() {
    assert_eq!(cleaned("\u{200b}\u{feff} \u{3164}\u{2060}").trim(), "");
}

#[test]
fn a_megabyte_of_hostile_characters_takes_no_time_to_speak_of() {
    // Each would take minutes if a character were looked up against all others.
    for unit in
        ["🙂\u{200d}", "\u{200d}", "\u{94d}\u{200c}", "ب\u{200c}\u{64b}", "\u{335}", "aа", "\u{fdfa}", "\u{200b}🙂"]
    {
        let text = unit.repeat((1 << 20) / unit.len());
        assert!(cleaned(&text).len() <= 12 * text.len());
    }
}

proptest! {
    #[test]
    fn what_comes_out_would_come_out_the_same_again(
        text in r"([a-zA-Z 0-9]|[аеорсухіѕАВЕКМНОР]|[\u{200b}-\u{200f}\u{202a}-\u{202e}\u{fe00}-\u{fe0f}]|[\u{300}-\u{36f}]|[🙂👩❤🏽]|\PC|[\x00-\x1f]|[بدا]|[क्ष]){0,60}"
    ) {
        let once = cleaned(&text);
        let (twice, changed) = clean(&once);
        prop_assert_eq!(&*twice, &*once);
        prop_assert!(changed.is_nothing(), "{:?}", changed);
    }

    #[test]
    fn ascii_and_cyrillic_words_are_never_folded(text in r"([ -~]{0,20} ?|[а-яё]{1,10} ){0,10}") {
        let words: Vec<&str> = text.split(' ').collect();
        let mixed = |word: &&&str| word.chars().any(|c| c.is_ascii_alphanumeric()) && !word.is_ascii();
        prop_assume!(words.iter().filter(mixed).count() == 0);
        let changed = clean(&text).1;
        let TextNormalised { letters_joined, leet_folded, .. } = changed;
        prop_assert_eq!(changed, TextNormalised { letters_joined, leet_folded, ..TextNormalised::default() });
    }
}
