//! What charts are made of: a plot with axes, interval bars, and text that is safe in a page.

use std::fmt::Write as _;

/// Line patterns, so that no curve is told by its colour alone.
const DASHES: [&str; 6] = ["", "7 4", "2 4", "10 3 2 3", "4 2", "1 3"];

/// Text as it may stand in a page.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// The attributes of the `index`th curve.
pub fn stroke(index: usize) -> String {
    let dash = DASHES[index % DASHES.len()];
    let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
    let lead = if index == 0 { " lead" } else { "" };
    format!("class=\"curve{lead} s{}\"{dash}", index % 6)
}

/// A list of curves and what they are.
pub fn legend(items: &[(usize, String)]) -> String {
    let mut list = String::from("<ul class=\"legend\">");
    for (index, text) in items {
        let line = format!("<path d=\"M1 5H25\" {}/>", stroke(*index));
        let _ = write!(
            list,
            "<li><svg class=\"small\" viewBox=\"0 0 26 10\" aria-hidden=\"true\">{line}</svg>{}</li>",
            escaped(text)
        );
    }
    list + "</ul>"
}

/// What a chart says, for those who do not see it.
#[derive(Debug)]
pub struct Told<'a> {
    /// Unique on the page.
    pub id: &'a str,
    /// What it is.
    pub title: &'a str,
    /// What it shows.
    pub description: &'a str,
}

/// A drawing with its title and description.
pub fn drawing(told: &Told<'_>, size: (f64, f64), inside: &str) -> String {
    let Told { id, title, description } = told;
    let (width, height) = size;
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" style=\"max-width:{}px\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{inside}</svg>",
        width * 1.25,
        escaped(title),
        escaped(description)
    )
}

/// A plot of shares over shares or scores: both axes begin at 0, the lower one ends at 1.
#[derive(Debug)]
pub struct Plot {
    size: (f64, f64),
    /// Where the upright axis ends.
    top: f64,
    inside: String,
}

const LEFT: f64 = 50.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

impl Plot {
    /// With grid, ticks and the names of the axes.
    pub fn new(size: (f64, f64), top: f64, names: [&str; 2]) -> Self {
        let mut plot = Self { size, top, inside: String::new() };
        let [x_name, y_name] = names;
        for step in 0..=5 {
            let at = f64::from(step) / 5.0;
            let (x, y) = (plot.x(at), plot.y(at * top));
            let (ceiling, bottom, left, right) = (plot.y(top), plot.y(0.0), plot.x(0.0), plot.x(1.0));
            plot.add(&format!(
                "<path class=\"grid\" d=\"M{x:.1} {ceiling:.1}V{bottom:.1}M{left:.1} {y:.1}H{right:.1}\"/>"
            ));
            plot.text((x, bottom + 17.0), "middle", "", &format!("{at:.1}"));
            let decimals = if top < 0.5 { 2 } else { 1 };
            plot.text((left - 8.0, y + 4.0), "end", "", &format!("{:.decimals$}", at * top));
        }
        let (bottom, left, right) = (plot.y(0.0), plot.x(0.0), plot.x(1.0));
        plot.add(&format!("<path class=\"axis\" d=\"M{left:.1} {bottom:.1}H{right:.1}\"/>"));
        plot.text(((left + right) / 2.0, bottom + 37.0), "middle", "", x_name);
        let middle = plot.y(top / 2.0);
        plot.add(&format!(
            "<text x=\"12\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {middle:.1})\">{}</text>",
            escaped(y_name)
        ));
        plot
    }

    /// Where a value lies from left to right.
    pub fn x(&self, value: f64) -> f64 {
        LEFT + value * (self.size.0 - LEFT - RIGHT)
    }

    /// Where a value lies from top to bottom.
    pub fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - value / self.top) * (self.size.1 - TOP - BOTTOM)
    }

    /// One more element.
    pub fn add(&mut self, element: &str) {
        self.inside += element;
    }

    /// Text at a point of the drawing.
    pub fn text(&mut self, at: (f64, f64), anchor: &str, class: &str, text: &str) {
        let (x, y) = at;
        let text = escaped(text);
        self.add(&format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
    }

    /// A path through points of the plot; `attributes` say how it is drawn.
    pub fn path(&mut self, points: impl IntoIterator<Item = [f64; 2]>, attributes: &str) {
        let mut path = String::new();
        for (at, [x, y]) in points.into_iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { "M" } else { "L" }, self.x(x), self.y(y));
        }
        self.add(&format!("<path d=\"{path}\" {attributes}/>"));
    }

    /// The finished drawing.
    pub fn drawing(self, told: &Told<'_>) -> String {
        drawing(told, self.size, &self.inside)
    }
}

/// A share with its interval, small enough for a table's cell.
pub fn interval(value: f64, ends: Option<(f64, f64)>, series: usize) -> String {
    let x = |value: f64| 5.0 + value.clamp(0.0, 1.0) * 110.0;
    let whisker = ends.map_or_else(String::new, |(low, high)| {
        format!("<path class=\"whisker s{series}\" d=\"M{:.1} 8H{:.1}\"/>", x(low), x(high))
    });
    format!(
        "<svg class=\"small\" width=\"120\" height=\"16\" viewBox=\"0 0 120 16\" aria-hidden=\"true\">\
         <path class=\"track\" d=\"M5 8H115\"/>{whisker}<circle class=\"f{series}\" cx=\"{:.1}\" cy=\"8\" r=\"4\"/></svg>",
        x(value)
    )
}

/// Parts of a whole beside each other: what is allowed, reviewed and acted on.
pub fn stack(shares: [f64; 3], width: f64) -> String {
    let mut bar = format!(
        "<svg class=\"small\" width=\"{width}\" height=\"14\" viewBox=\"0 0 {width} 14\" aria-hidden=\"true\">"
    );
    let mut left = 0.0;
    for (share, class) in shares.into_iter().zip(["allow", "review", "act"]) {
        let part = share * width;
        // A hair of ground between two parts that both can be seen.
        let shown = if part > 2.0 && left + part < width - 0.5 { part - 1.0 } else { part };
        let _ = write!(
            bar,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"1\" width=\"{shown:.1}\" height=\"12\" rx=\"1\"/>"
        );
        left += part;
    }
    bar + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_can_leave_its_place_in_the_page() {
        assert_eq!(escaped("<b a='x'>&\"\u{7}"), "&lt;b a=&#39;x&#39;&gt;&amp;&quot; ");
    }

    #[test]
    fn a_plot_has_its_axes_the_right_way_up() {
        let plot = Plot::new((400.0, 300.0), 1.0, ["x", "y"]);
        assert!(plot.x(0.0) < plot.x(1.0) && plot.y(0.0) > plot.y(1.0));
        let drawn = plot.drawing(&Told { id: "p", title: "a < b", description: "d" });
        assert!(drawn.contains("<title id=\"p-t\">a &lt; b</title>") && drawn.contains("aria-labelledby=\"p-t p-d\""));
    }
}
