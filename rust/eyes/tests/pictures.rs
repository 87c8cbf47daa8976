// SPDX-License-Identifier: GPL-2.0
//! Every kind of picture, drawn by somebody else's program: what is broken is noticed here.

use hmm_eyes::heat::Heat;
use hmm_eyes::places::{Mapping, Place};
use hmm_eyes::{recording, residency, svg, timeline};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

type Pixels = HashMap<[u8; 3], usize>;

/// How many points there are of each colour.
fn draw(name: &str, picture: &str) -> (u32, u32, Pixels) {
    let place = std::env::temp_dir().join(format!("hmm-picture-{name}-{}", std::process::id()));
    let (source, result) = (place.with_extension("svg"), place.with_extension("png"));
    fs::write(&source, picture).expect("written");
    let output = Command::new("rsvg-convert")
        .arg("-o")
        .arg(&result)
        .arg(&source)
        .output()
        .expect("rsvg-convert; next: apt-get install librsvg2-bin");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    let points = points(&result);
    fs::remove_file(source).expect("removed");
    fs::remove_file(result).expect("removed");
    points
}

/// The same of a picture in a file.
fn points(file: &Path) -> (u32, u32, Pixels) {
    let decoder = png::Decoder::new(BufReader::new(File::open(file).expect("a picture")));
    let mut reader = decoder.read_info().expect("PNG");
    let mut points = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut points).expect("a frame");
    let step = info.color_type.samples();
    let mut pixels = Pixels::new();
    for point in points[..info.buffer_size()].chunks_exact(step) {
        *pixels.entry([point[0], point[1], point[2]]).or_default() += 1;
    }
    (info.width, info.height, pixels)
}

fn has(pixels: &Pixels, name: &str, colour: [u8; 3], at_least: usize) {
    let found = pixels.get(&colour).copied().unwrap_or(0);
    assert!(
        found >= at_least,
        "{name}: {found} points of {colour:?}, wanted {at_least}"
    );
}

#[test]
fn a_timeline() {
    let picture = timeline::draw(&recording::example());
    let (width, height, pixels) = draw("timeline", &picture);
    assert!(width == 960 && height > 400, "{width} x {height}");
    for (name, colour) in [
        ("to the device", [0x0e, 0x7c, 0x86]),
        ("by fault", [0xd9, 0x77, 0x06]),
        ("evicted", [0xb4, 0x48, 0x3a]),
        ("the page", [0xfb, 0xfc, 0xfd]),
    ] {
        has(&pixels, name, colour, 300);
    }
}

#[test]
fn residency_over_time() {
    let picture = residency::draw("programs", &residency::example());
    let (width, height, pixels) = draw("residency", &picture);
    assert!(width == 960 && height > 300, "{width} x {height}");
    // Two curves that are half full.
    has(&pixels, "curves", [0x0e, 0x7c, 0x86], 2 * 700 * 70 / 3);
    has(&pixels, "the page", [0xfb, 0xfc, 0xfd], 100_000);
}

#[test]
fn a_map_of_a_process_in_points() {
    let place = std::env::temp_dir().join(format!("hmm-map-{}.png", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_hmm-map"))
        .arg("--png")
        .arg(&place)
        .arg(std::process::id().to_string())
        .output()
        .expect("hmm-map");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let (.., pixels) = points(&place);
    fs::remove_file(place).expect("removed");
    let (r, g, b) = Place::Ram(false).colour();
    has(&pixels, "RAM", [r, g, b], 1000);
}

#[test]
fn a_page_is_whole_and_needs_nothing_else() {
    let page = timeline::page(&recording::example());
    let (head, rest) = page.split_once("<svg ").expect("a picture");
    let (picture, table) = rest.split_once("</svg>").expect("its end");
    let (.., pixels) = draw("page", &format!("<svg {picture}</svg>\n"));
    has(&pixels, "evicted, in the page", [0xb4, 0x48, 0x3a], 300);
    // All but its first line is XML, too, which a strict reader takes.
    let body = page.strip_prefix("<!DOCTYPE html>\n").expect("HTML");
    let body = body.replace("<meta charset=\"utf-8\">", "");
    assert_eq!(tags(&body), Vec::<String>::new(), "left open");
    for part in [head, table] {
        for word in ["src=", "href=", "url(", "@import", "<script", "<link"] {
            assert!(!part.contains(word), "{word} in the page");
        }
    }
}

/// Elements that are not closed, or closed and not open; by a reader that forgives nothing.
fn tags(text: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        assert!(!before.contains('>'), "> where no tag is: {before}");
        let end = if after.starts_with("!--") { "-->" } else { ">" };
        let (tag, after) = after.split_once(end).expect("the end of a tag");
        rest = after;
        let name = tag.split([' ', '/']).find(|word| !word.is_empty());
        let name = name.unwrap_or("").to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_ref(), Some(&name), "closed in disorder");
        } else if !tag.starts_with("!--") && !tag.ends_with('/') {
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
            open.push(name);
        }
    }
    open
}

#[test]
fn a_heat_map() {
    let mapping = Mapping {
        start: 0x1000_0000,
        end: 0x1004_0000,
        anonymous: true,
        name: "[heap] <&>".into(),
    };
    let places = [
        Place::Ram(false),
        Place::Ram(true),
        Place::Device(0, false),
        Place::Device(1, true),
        Place::Exclusive,
        Place::Swapped,
    ];
    let pages = (0..60)
        .map(|page| (page, places[page as usize / 10]))
        .collect();
    let heat = Heat::new("process 1", vec![(mapping, pages)], 64, 10);
    let (.., pixels) = draw("heat", &heat.svg(&[]));
    for place in places {
        let (r, g, b) = place.colour();
        // Ten cells, and the legend.
        has(&pixels, &place.name(&[]), [r, g, b], 10 * 8 * 7 + 100);
    }
}

#[test]
fn a_terminal() {
    let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 4));
    buffer.set_string(
        0,
        0,
        "\u{2588}".repeat(40),
        Style::default().fg(Color::Cyan),
    );
    buffer.set_string(0, 2, "text", Style::default().bg(Color::Yellow));
    let (.., pixels) = draw("terminal", &svg::screen(&buffer, "80 x 4"));
    has(&pixels, "blocks", [0x56, 0xb6, 0xc2], 2000);
    has(&pixels, "background of a text", [0xe5, 0xc0, 0x7b], 200);
}
