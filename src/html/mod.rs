//! Pages that are complete in themselves: styles and charts are in them, they ask for nothing from outside and run no script,
//! which their own policy forbids them too. Every chart has its figures as a table.

pub mod svg;
pub mod tables;

use std::fmt::Write as _;

use self::svg::escaped;

const STYLE: &str = include_str!("style.css");

/// A page in the making.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// What stands there so far is this.
    pub fn begin(header: String) -> Self {
        Self(header)
    }

    /// A part with a title, a sentence on what it shows, and what it shows.
    pub fn card(&mut self, title: &str, words: &str, inside: &str) {
        let (title, words) = (escaped(title), escaped(words));
        // Writing to a string cannot fail.
        let _ = write!(self.0, "<section class=\"card\"><h2>{title}</h2><p>{words}</p>{inside}</section>");
    }

    /// The finished page; `made` says by what and when.
    pub fn finish(self, title: &str, made: &str) -> String {
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{}</title><style>{STYLE}</style></head>\
             <body><main>{}<footer>moderato {} · a verdict is a proposal; people decide</footer></main></body></html>\n",
            escaped(title),
            self.0,
            escaped(made)
        )
    }
}

/// A figure with its name, for the top of a page; all three are HTML.
pub fn tile(name: &str, value: &str, below: &str) -> String {
    format!(
        "<div class=\"tile\"><div class=\"name\">{name}</div><div class=\"value\">{value}</div><div>{below}&nbsp;</div></div>"
    )
}

/// Two that stand beside each other where there is room.
pub fn pair(one: &str, other: &str) -> String {
    format!("<div class=\"pair\">{one}{other}</div>")
}

/// Names and values, as a list.
pub fn entries<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entry = |(name, value): (&str, String)| format!("<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(&value));
    format!("<dl>{}</dl>", entries.into_iter().map(entry).collect::<String>())
}
