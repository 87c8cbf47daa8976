// SPDX-License-Identifier: GPL-2.0
//! Every kind of picture, drawn by somebody else's program: what is broken is noticed here.

use hmm_eyes::heat::Heat;
use hmm_eyes::places::{Mapping, Place};
use hmm_eyes::{recording, svg, timeline};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
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
    let decoder = png::Decoder::new(BufReader::new(File::open(&result).expect("a picture")));
    let mut reader = decoder.read_info().expect("PNG");
    let mut points = vec![0; reader.output_buffer_size()];
    let info = reader.next_frame(&mut points).expect("a frame");
    let step = info.color_type.samples();
    let mut pixels = Pixels::new();
    for point in points[..info.buffer_size()].chunks_exact(step) {
        *pixels.entry([point[0], point[1], point[2]]).or_default() += 1;
    }
    fs::remove_file(source).expect("removed");
    fs::remove_file(result).expect("removed");
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
