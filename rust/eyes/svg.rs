// SPDX-License-Identifier: GPL-2.0
//! Writes pictures: SVG that needs nothing beside itself, and what a terminal shows as SVG.

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use std::fmt::Write;

/// Text as it may stand in an element or an attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // The rest of these may not stand in XML at all.
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A picture in the making.
pub struct Svg {
    text: String,
    /// What `finish` has to close.
    open: &'static str,
}

/// The colour of what is said in passing: an attribute.
pub const FAINT: &str = "fill=\"#5b6472\"";

/// Fonts with every character at the same distance, whatever the machine has.
pub const MONOSPACE: &str = "DejaVu Sans Mono, Liberation Mono, Menlo, Consolas, monospace";

impl Svg {
    /// An empty picture of a size, with a title for those who cannot see it.
    #[must_use]
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let title = escape(title);
        Self {
            text: format!(
                "<!-- SPDX-License-Identifier: GPL-2.0 -->\n\
                 <svg xmlns=\"{}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
                 height=\"{height}\" role=\"img\">\n<title>{title}</title>\n",
                NAMESPACE.concat()
            ),
            open: "",
        }
    }

    /// An empty page: light, whatever is around it, with its title and a line about it on top.
    #[must_use]
    pub fn page(width: f64, height: f64, title: &str, about: &str) -> Self {
        let mut svg = Self::new(width, height, title);
        svg.raw(
            "<rect width=\"100%\" height=\"100%\" fill=\"#fbfcfd\"/>\n<g font-family=\"DejaVu Sans, \
             Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#1f2430\">",
        );
        svg.open = "</g>\n";
        svg.text((16.0, 26.0), title, "font-size=\"16\" font-weight=\"bold\"");
        svg.text((16.0, 45.0), about, FAINT);
        svg
    }

    /// A rectangle; with a text that shows when the mouse is on it, if that is not empty.
    pub fn rect(&mut self, at: (f64, f64), size: (f64, f64), fill: &str, about: &str) {
        let ((x, y), (width, height)) = (at, size);
        let _ = write!(
            self.text,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
             fill=\"{fill}\""
        );
        self.text += &match about {
            "" => "/>\n".to_owned(),
            about => format!("><title>{}</title></rect>\n", escape(about)),
        };
    }

    /// A line of text whose left end is at `at`; `style` is more attributes.
    pub fn text(&mut self, at: (f64, f64), text: &str, style: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.2}\" y=\"{y:.2}\" {style}>{}</text>",
            escape(text)
        );
    }

    /// Anything else.
    pub fn raw(&mut self, element: &str) {
        self.text += element;
        self.text.push('\n');
    }

    /// The whole file.
    #[must_use]
    pub fn finish(self) -> String {
        self.text + self.open + "</svg>\n"
    }
}

/// Where an axis from 0 to `end` is marked: at most ten times, at 1, 2 or 5 times a power of ten.
#[must_use]
pub fn ticks(end: f64) -> Vec<f64> {
    if !(end.is_finite() && end > 0.0) {
        return vec![0.0];
    }
    let power = 10_f64.powf((end / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
    let step = steps.into_iter().find(|step| end / step <= 10.0);
    let step = step.unwrap_or(10.0 * power);
    let mut marks = vec![0.0];
    while marks.len() as f64 * step <= end * (1.0 + 1e-9) {
        marks.push(marks.len() as f64 * step);
    }
    marks
}

/// A mark of an axis in seconds, as exact as the distance of its marks wants it.
#[must_use]
pub fn seconds(mark: f64, marks: &[f64]) -> String {
    let step = marks.get(1).copied().unwrap_or(1.0);
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{mark:.digits$} s")
}

// In pieces: it is a name, not an address.
const NAMESPACE: [&str; 3] = ["http:", "//www.w3.org", "/2000/svg"];

/// The name by which XML knows SVG.
#[must_use]
pub fn namespace() -> String {
    NAMESPACE.concat()
}

const CELL: (f64, f64) = (8.4, 17.0);
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d7dae0";

fn colour(color: Color, otherwise: &'static str) -> String {
    match color {
        Color::Black => "#16181d",
        Color::Red => "#e06c75",
        Color::Green => "#98c379",
        Color::Yellow => "#e5c07b",
        Color::Blue => "#61afef",
        Color::Magenta => "#c678dd",
        Color::Cyan => "#56b6c2",
        Color::Gray => "#abb2bf",
        Color::DarkGray => "#6b7280",
        Color::White => "#ffffff",
        Color::Rgb(r, g, b) => return format!("#{r:02x}{g:02x}{b:02x}"),
        _ => otherwise,
    }
    .to_owned()
}

fn colours(cell: &Cell) -> (String, String) {
    let pair = (colour(cell.fg, FOREGROUND), colour(cell.bg, BACKGROUND));
    if cell.modifier.contains(Modifier::REVERSED) {
        (pair.1, pair.0)
    } else {
        pair
    }
}

/// What a terminal shows.
#[must_use]
pub fn screen(buffer: &Buffer, title: &str) -> String {
    let area = buffer.area;
    let (width, height) = (f64::from(area.width), f64::from(area.height));
    let mut svg = Svg::new(
        (width * CELL.0).ceil() + 16.0,
        (height * CELL.1).ceil() + 16.0,
        title,
    );
    svg.raw(&format!(
        "<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n\
         <g font-family=\"{MONOSPACE}\" font-size=\"14\" xml:space=\"preserve\">"
    ));
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let first = &buffer[(x, y)];
            let (fg, bg) = colours(first);
            let bold = first.modifier.contains(Modifier::BOLD);
            let begin = x;
            let mut text = String::new();
            while x < area.width {
                let cell = &buffer[(x, y)];
                if colours(cell) != (fg.clone(), bg.clone())
                    || cell.modifier.contains(Modifier::BOLD) != bold
                {
                    break;
                }
                text += cell.symbol();
                x += 1;
            }
            let at = (8.0 + f64::from(begin) * CELL.0, 8.0 + f64::from(y) * CELL.1);
            let wide = f64::from(x - begin) * CELL.0;
            if bg != BACKGROUND {
                svg.rect(at, (wide, CELL.1), &bg, "");
            }
            if !text.trim().is_empty() {
                let weight = if bold { " font-weight=\"bold\"" } else { "" };
                let style = format!(
                    "fill=\"{fg}\"{weight} textLength=\"{wide:.2}\" lengthAdjust=\"spacingAndGlyphs\""
                );
                svg.text((at.0, at.1 + 13.0), &text, &style);
            }
        }
    }
    svg.raw("</g>");
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    #[test]
    fn nothing_gets_out_of_its_element() {
        assert_eq!(escape("<a & \"b\">\x07"), "&lt;a &amp; &quot;b&quot;&gt; ");
        let mut svg = Svg::new(10.0, 10.0, "<");
        svg.rect((0.0, 0.0), (1.0, 1.0), "red", "a<b");
        svg.text((0.0, 1.0), "x>y", "");
        let text = svg.finish();
        assert!(text.contains("<title>a&lt;b</title></rect>"), "{text}");
        assert!(text.contains(">x&gt;y</text>"), "{text}");
        assert!(text.ends_with("</svg>\n"));
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(ticks(0.0), [0.0]);
        assert_eq!(ticks(f64::NAN), [0.0]);
        assert_eq!(ticks(10.0).len(), 11);
        assert_eq!(ticks(51.09), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let marks = ticks(0.73);
        assert_eq!(marks.len(), 8);
        assert_eq!(seconds(marks[7], &marks), "0.7 s");
        assert_eq!(seconds(20.0, &ticks(51.09)), "20 s");
        assert_eq!(seconds(0.5, &ticks(4.7)), "0.5 s");
    }

    #[test]
    fn a_screen_keeps_its_columns_and_colours() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 10, 2));
        buffer.set_string(0, 0, "plain", Style::default());
        buffer.set_string(5, 0, "red", Style::default().fg(Color::Red));
        let text = screen(&buffer, "t");
        assert!(text.contains(">plain</text>"), "{text}");
        assert!(text.contains("fill=\"#e06c75\""), "{text}");
        // The second row is empty and has no element.
        assert_eq!(text.matches("<text").count(), 2, "{text}");
    }
}
