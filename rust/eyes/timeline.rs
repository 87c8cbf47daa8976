// SPDX-License-Identifier: GPL-2.0
//! A recording as a picture: what is on the device over time, and what moves each way, by cause.

use crate::bytes;
use crate::recording::{RESIDENT, Recording};
use crate::svg::{self, Svg};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 76.0;
const RESIDENCY: f64 = 110.0;
const GAP: f64 = 34.0;
const HALF: f64 = 110.0;
const FOOT: f64 = 34.0;
const BUCKETS: usize = 218;

const INK: &str = "#1f2430";
const LINE: &str = "#c9ced8";

/// Direction, cause, colour, name; drawn outwards from the middle in this order.
const CAUSES: [(&str, &str, &str, &str); 8] = [
    ("to_device", "request", "#0e7c86", "to device, asked for"),
    ("to_device", "prefetch", "#67c5bd", "to device, on a guess"),
    ("to_device", "fault", "#35a29a", "to device, faulted"),
    ("to_ram", "fault", "#d97706", "to RAM, the CPU touched it"),
    ("to_ram", "request", "#f2b84b", "to RAM, asked for"),
    ("to_ram", "evict", "#b4483a", "to RAM, to make room"),
    ("to_ram", "teardown", "#7a2e52", "to RAM, the device goes"),
    ("to_ram", "prefetch", "#c58fb0", "to RAM, on a guess"),
];

/// Pages by cause and part of time, and frames in use at its end.
struct Parts {
    seconds: f64,
    pages: Vec<[u64; CAUSES.len()]>,
    resident: Vec<u64>,
}

impl Parts {
    fn of(recording: &Recording) -> Self {
        let first = recording.events.first().map_or(0, |event| event.ns);
        let last = recording.events.last().map_or(0, |event| event.ns);
        let span = (last - first).max(1);
        let mut pages = vec![[0; CAUSES.len()]; BUCKETS];
        let mut sampled = vec![None; BUCKETS];
        for event in &recording.events {
            let at = u128::from(event.ns - first) * BUCKETS as u128 / (u128::from(span) + 1);
            let at = usize::try_from(at).unwrap_or(0).min(BUCKETS - 1);
            if event.name == RESIDENT {
                sampled[at] = Some(event.number("npages"));
            } else if event.name == "migrate_end" {
                let way = (event.word("direction"), event.word("cause"));
                if let Some(cause) = CAUSES.iter().position(|c| (c.0, c.1) == way) {
                    pages[at][cause] += event.moved();
                }
            }
        }
        let mut last = 0;
        let resident = sampled
            .into_iter()
            .map(|sample| {
                last = sample.unwrap_or(last);
                last
            })
            .collect();
        Self {
            seconds: span as f64 / 1e9,
            pages,
            resident,
        }
    }

    fn total(&self, cause: usize) -> u64 {
        self.pages.iter().map(|part| part[cause]).sum()
    }

    /// The highest bar of a direction.
    fn peak(&self, direction: &str) -> u64 {
        let bar = |part: &[u64; CAUSES.len()]| {
            let own = CAUSES
                .iter()
                .zip(part)
                .filter(|(cause, _)| cause.0 == direction);
            own.map(|(_, pages)| pages).sum()
        };
        self.pages.iter().map(bar).max().unwrap_or(0)
    }
}

/// The picture.
#[must_use]
pub fn draw(recording: &Recording) -> String {
    let parts = Parts::of(recording);
    let used: Vec<usize> = (0..CAUSES.len())
        .filter(|&cause| parts.total(cause) != 0)
        .collect();
    let legend_rows = used.len().div_ceil(3).max(1) as f64;
    let height = TOP + RESIDENCY + GAP + 2.0 * HALF + FOOT + legend_rows * 20.0;
    let title = match recording.title.as_str() {
        "" => "device memory over time",
        title => title,
    };
    let lost = match recording.lost {
        0 => String::new(),
        lost => format!(", {lost} events were lost"),
    };
    let summary = format!(
        "{:.2} s, {} events{lost}",
        parts.seconds,
        recording.events.len()
    );
    let mut svg = Svg::page(WIDTH, height, title, &summary);

    let step = (WIDTH - LEFT - RIGHT) / BUCKETS as f64;
    residency(&mut svg, &parts, step);
    bars(&mut svg, &parts, step);
    axis(&mut svg, &parts);

    let mut at = TOP + RESIDENCY + GAP + 2.0 * HALF + FOOT + 14.0;
    for row in used.chunks(3) {
        for (column, &cause) in (0_u8..).zip(row) {
            let x = LEFT + f64::from(column) * 290.0;
            svg.rect((x, at - 10.0), (12.0, 12.0), CAUSES[cause].2, "");
            let text = format!("{}: {}", CAUSES[cause].3, bytes(parts.total(cause)));
            svg.text((x + 18.0, at), &text, "");
        }
        at += 20.0;
    }
    svg.finish()
}

fn residency(svg: &mut Svg, parts: &Parts, step: f64) {
    let peak = parts.resident.iter().copied().max().unwrap_or(0);
    let floor = TOP + RESIDENCY;
    svg.text((LEFT, TOP - 6.0), "memory on the device", svg::FAINT);
    frame(svg, TOP, &bytes(peak), floor);
    let mut line = format!("M{LEFT:.1} {floor:.1}");
    for (i, &pages) in (0_u32..).zip(&parts.resident) {
        let y = floor - RESIDENCY * pages as f64 / peak.max(1) as f64;
        let x = LEFT + f64::from(i) * step;
        line += &format!(" L{x:.1} {y:.1} H{:.1}", x + step);
    }
    line += &format!(" V{floor:.1} Z");
    svg.raw(&format!(
        "<path d=\"{line}\" fill=\"#5b8def\" fill-opacity=\"0.75\"/>"
    ));
}

/// The line at the bottom and the scale of one part.
fn frame(svg: &mut Svg, top: f64, peak: &str, floor: f64) {
    let end = WIDTH - RIGHT;
    for y in [top, floor] {
        svg.raw(&format!(
            "<path d=\"M{LEFT} {y:.1} H{end}\" stroke=\"{LINE}\" stroke-width=\"1\"/>"
        ));
    }
    svg.text(
        (LEFT - 6.0, top + 4.0),
        peak,
        "text-anchor=\"end\" fill=\"#5b6472\"",
    );
    svg.text(
        (LEFT - 6.0, floor + 4.0),
        "0",
        "text-anchor=\"end\" fill=\"#5b6472\"",
    );
}

fn bars(svg: &mut Svg, parts: &Parts, step: f64) {
    let top = TOP + RESIDENCY + GAP;
    let middle = top + HALF;
    let peak = parts.peak("to_device").max(parts.peak("to_ram"));
    let part = parts.seconds / BUCKETS as f64;
    svg.text(
        (LEFT, top - 6.0),
        &format!(
            "moved in each {:.3} s: to the device above, to RAM below",
            part
        ),
        svg::FAINT,
    );
    frame(svg, top, &bytes(peak), middle);
    svg.text(
        (LEFT - 6.0, middle + HALF + 4.0),
        &bytes(peak),
        "text-anchor=\"end\" fill=\"#5b6472\"",
    );
    for (i, pages) in (0_u32..).zip(&parts.pages) {
        let x = LEFT + f64::from(i) * step;
        let (mut up, mut down) = (middle, middle);
        for (cause, &n) in CAUSES.iter().zip(pages) {
            if n == 0 {
                continue;
            }
            let tall = HALF * n as f64 / peak.max(1) as f64;
            let y = if cause.0 == "to_device" {
                up -= tall;
                up
            } else {
                down += tall;
                down - tall
            };
            let about = format!("{:.3} s: {} {}", f64::from(i) * part, cause.3, bytes(n));
            svg.rect((x, y), (step - 0.4, tall), cause.2, &about);
        }
    }
}

fn axis(svg: &mut Svg, parts: &Parts) {
    let y = TOP + RESIDENCY + GAP + 2.0 * HALF + 16.0;
    let marks = svg::ticks(parts.seconds);
    for &mark in &marks {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * mark / parts.seconds;
        // The last one stays inside.
        let anchor = if x > WIDTH - 40.0 { "end" } else { "middle" };
        let style = format!("text-anchor=\"{anchor}\" fill=\"#5b6472\"");
        svg.text((x, y), &svg::seconds(mark, &marks), &style);
    }
}

/// The picture in a page with the sums beside it; it needs nothing from anywhere.
#[must_use]
pub fn page(recording: &Recording) -> String {
    let title = svg::escape(&recording.title);
    let mut rows = String::new();
    for ((direction, cause), pages) in recording.totals() {
        let direction = direction.replace('_', " ");
        rows += &format!(
            "<tr><td>{}</td><td>{}</td><td>{pages}</td><td>{}</td></tr>\n",
            svg::escape(&direction),
            svg::escape(&cause),
            bytes(pages)
        );
    }
    format!(
        "<!DOCTYPE html>\n<!-- SPDX-License-Identifier: GPL-2.0 -->\n<html lang=\"en\"><head>\
         <meta charset=\"utf-8\"><title>{title}</title>\n<style>body{{font:14px sans-serif;\
         margin:24px;color:{INK};background:#fbfcfd}}table{{margin:12px 16px}}td,th{{padding:2px 14px 2px 0;text-align:left}}\
         svg{{max-width:100%;height:auto}}</style></head>\n<body>\n{}\n<table><tr><th>way</th>\
         <th>cause</th><th>pages</th><th>bytes</th></tr>\n{rows}</table>\n</body></html>\n",
        draw(recording)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::example;

    #[test]
    fn parts_add_up_to_the_whole() {
        let recording = example();
        let parts = Parts::of(&recording);
        for (way, pages) in recording.totals() {
            let cause = CAUSES.iter().position(|c| (c.0, c.1) == (&way.0, &way.1));
            assert_eq!(parts.total(cause.expect("a known cause")), pages, "{way:?}");
        }
        assert_eq!(parts.resident.iter().max(), Some(&9_500));
    }

    #[test]
    fn names_are_escaped_and_losses_told() {
        let text = draw(&example());
        assert!(text.contains("sort &lt;big&gt;"), "{text}");
        assert!(text.contains("3 events were lost"), "{text}");
        assert!(page(&example()).contains("<td>evict</td>"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let text = draw(&Recording::default());
        assert!(
            text.contains("device memory over time") && !text.contains("NaN"),
            "{text}"
        );
    }
}
