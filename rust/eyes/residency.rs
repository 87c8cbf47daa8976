// SPDX-License-Identifier: GPL-2.0
//! How much of each of several programs is on a device over time, one curve below the other.

use crate::bytes;
use crate::svg::{self, FAINT, Svg};

/// One program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Milliseconds from its start, and pages on the device from then on.
    pub points: Vec<(u64, u64)>,
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const HIGH: f64 = 70.0;
const GAP: f64 = 40.0;

/// The picture. Every curve has scales of its own.
#[must_use]
pub fn draw(title: &str, curves: &[Curve]) -> String {
    let height = TOP + curves.len() as f64 * (HIGH + GAP) + 4.0;
    let about = "memory on the device, over the seconds since the program began";
    let mut svg = Svg::page(WIDTH, height, title, about);
    let mut top = TOP;
    for curve in curves {
        one(&mut svg, curve, top);
        top += HIGH + GAP;
    }
    svg.finish()
}

fn one(svg: &mut Svg, curve: &Curve, top: f64) {
    let last = curve.points.last().map_or(0, |point| point.0).max(1) as f64;
    let peak = curve.points.iter().map(|point| point.1).max().unwrap_or(0);
    let (floor, wide) = (top + HIGH, WIDTH - LEFT - RIGHT);
    // The last point is seen, too.
    let x = |ms: f64| LEFT + wide * ms / (last * 1.02);
    let y = |pages: u64| floor - HIGH * pages as f64 / peak.max(1) as f64;

    svg.text((16.0, top + 14.0), &curve.name, "font-size=\"14\"");
    let right = format!("text-anchor=\"end\" {FAINT}");
    svg.text((LEFT - 6.0, top + 4.0), &bytes(peak), &right);
    svg.text((LEFT - 6.0, floor + 4.0), "0", &right);
    let mut line = format!("M{LEFT:.1} {floor:.1}");
    for (ms, pages) in &curve.points {
        line += &format!(" H{:.1} V{:.1}", x(*ms as f64), y(*pages));
    }
    line += &format!(" H{:.1} V{floor:.1} Z", LEFT + wide);
    svg.raw(&format!("<path d=\"{line}\" fill=\"#0e7c86\"/>"));
    for at in [top, floor] {
        svg.raw(&format!(
            "<path d=\"M{LEFT} {at:.1} h{wide}\" stroke=\"#c9ced8\" stroke-width=\"1\"/>"
        ));
    }
    let marks = svg::ticks(last / 1e3);
    for &mark in &marks {
        let at = x(mark * 1e3);
        // The last one stays inside.
        let anchor = if at > WIDTH - 40.0 { "end" } else { "middle" };
        let style = format!("text-anchor=\"{anchor}\" {FAINT}");
        svg.text((at, floor + 16.0), &svg::seconds(mark, &marks), &style);
    }
}

/// Three curves, one of them empty.
#[must_use]
pub fn example() -> Vec<Curve> {
    let wave = |name: &str, high: u64| Curve {
        name: name.into(),
        points: (0..100).map(|ms| (ms * 40, ms % 10 * high)).collect(),
    };
    let none = Curve {
        name: "nothing".into(),
        points: Vec::new(),
    };
    vec![wave("sort <big>", 500), none, wave("xz", 90)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_there_with_its_peak() {
        let text = draw("a & b", &example());
        for part in [
            "a &amp; b",
            "sort &lt;big&gt;",
            "17.6 MiB",
            "3.2 MiB",
            "nothing",
            ">3.5 s<",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("NaN"), "{text}");
    }
}
