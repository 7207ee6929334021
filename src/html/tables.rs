//! Tables.

use super::svg::escaped;

/// `74.2 %`.
pub fn share(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// A table of these headers and rows; the first cell of a row heads it.
pub fn table(header: &[&str], rows: &str) -> String {
    let header: String = header.iter().map(|name| format!("<th scope=\"col\">{}</th>", escaped(name))).collect();
    format!("<div class=\"scroll\"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>")
}

/// A row of a table: its head as text, its cells as HTML.
pub fn row(head: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: String = cells.into_iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", escaped(head))
}
