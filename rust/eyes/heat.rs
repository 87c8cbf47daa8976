// SPDX-License-Identifier: GPL-2.0
//! An address space as a heat map: one cell for so many pages, in the colour of where most are.

use crate::counters::Region;
use crate::places::{Mapping, Place, Space};
use crate::svg::{self, Svg};
use crate::{PAGE, size};
use std::collections::BTreeMap;
use std::io;

/// Pages by place; those that are nowhere are not counted.
pub type Tally = BTreeMap<Place, u64>;

/// A mapping, cut into cells.
pub struct Band {
    /// What is mapped.
    pub mapping: Mapping,
    /// All of it.
    pub tally: Tally,
    cells: Vec<Tally>,
}

/// The whole picture.
pub struct Heat {
    /// What it shows.
    pub title: String,
    /// Pages that a cell stands for.
    pub pages_per_cell: u64,
    /// Cells in a row.
    pub columns: usize,
    /// Mappings that have something in them.
    pub bands: Vec<Band>,
    /// Whether the kernel tells huge pages.
    pub huge_known: bool,
}

/// Pages by place, of the pages that `visit` tells of.
pub type Found = Vec<(Mapping, Vec<(u64, Place)>)>;

impl Heat {
    /// Arranges what was found in at most about so many rows.
    #[must_use]
    pub fn new(title: &str, found: Found, columns: usize, rows: usize) -> Self {
        let found: Found = found
            .into_iter()
            .filter(|(_, pages)| !pages.is_empty())
            .collect();
        let mut pages_per_cell = 1;
        let rows_at = |cell: u64| -> u64 {
            let of = |mapping: &Mapping| mapping.pages().div_ceil(cell).div_ceil(columns as u64);
            found.iter().map(|(mapping, _)| of(mapping)).sum()
        };
        while rows_at(pages_per_cell) > rows.max(found.len()) as u64 {
            pages_per_cell *= 2;
        }
        let bands = found
            .into_iter()
            .map(|(mapping, pages)| {
                let cells = mapping.pages().div_ceil(pages_per_cell) as usize;
                let mut band = Band {
                    mapping,
                    tally: Tally::new(),
                    cells: vec![Tally::new(); cells],
                };
                for (page, place) in pages {
                    *band.tally.entry(place).or_default() += 1;
                    if let Some(cell) = band.cells.get_mut((page / pages_per_cell) as usize) {
                        *cell.entry(place).or_default() += 1;
                    }
                }
                band
            })
            .collect();
        Self {
            title: title.to_owned(),
            pages_per_cell,
            columns,
            bands,
            huge_known: true,
        }
    }

    /// Looks at a process, at all of its mappings or only at those that can move.
    ///
    /// # Errors
    /// There is none, or it may not be looked at.
    pub fn of(
        process: u32,
        all: bool,
        regions: &[Region],
        title: &str,
        (columns, rows): (usize, usize),
    ) -> io::Result<Self> {
        let space = Space::open(process, all)?;
        let mut found = Found::new();
        for mapping in space.mappings() {
            let mut pages = Vec::new();
            space.visit(mapping, regions, |page, place| pages.push((page, place)))?;
            found.push((mapping.clone(), pages));
        }
        let heat = Self::new(title, found, columns, rows);
        Ok(Self {
            huge_known: space.huge_known,
            ..heat
        })
    }

    /// All of it.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::new();
        for (&place, n) in self.bands.iter().flat_map(|band| &band.tally) {
            *sum.entry(place).or_default() += n;
        }
        sum
    }

    fn caption(band: &Band) -> String {
        format!(
            "{:012x} {:>6} {}",
            band.mapping.start,
            size((band.mapping.end - band.mapping.start) as f64),
            band.mapping.name
        )
    }

    fn legend(&self, regions: &[Region]) -> Vec<(Place, String)> {
        let tally = self.tally();
        let touched: u64 = tally.values().sum();
        let all: u64 = self.bands.iter().map(|band| band.mapping.pages()).sum();
        let rest = (Place::None, all - touched.min(all));
        let rest = Some(rest).filter(|rest| rest.1 != 0);
        tally
            .into_iter()
            .chain(rest)
            .map(|(place, pages)| {
                let text = format!("{}: {}", place.name(regions), size((pages * PAGE) as f64));
                (place, text)
            })
            .collect()
    }

    /// As text; with colours if wanted.
    #[must_use]
    pub fn text(&self, regions: &[Region], coloured: bool) -> String {
        let paint = |place: Place| {
            let (r, g, b) = place.colour();
            let letter = place.letter();
            match coloured {
                true => format!("\x1b[48;2;{r};{g};{b};38;2;20;24;32m{letter}"),
                false => letter.to_string(),
            }
        };
        let reset = if coloured { "\x1b[0m" } else { "" };
        let mut out = format!(
            "{}; a letter is {}\n",
            self.title,
            size((self.pages_per_cell * PAGE) as f64)
        );
        for band in &self.bands {
            out += &format!("{}\n", Self::caption(band));
            for row in band.cells.chunks(self.columns) {
                out += "  ";
                row.iter().for_each(|cell| out += &paint(most(cell)));
                out += &format!("{reset}\n");
            }
        }
        for (place, text) in self.legend(regions) {
            out += &format!("  {}{reset} {text}\n", paint(place));
        }
        out
    }

    /// As a picture.
    #[must_use]
    pub fn svg(&self, regions: &[Region]) -> String {
        const CELL: f64 = 9.0;
        const LEFT: f64 = 16.0;
        let rows: usize = self
            .bands
            .iter()
            .map(|band| band.cells.len().div_ceil(self.columns))
            .sum();
        let legend = self.legend(regions);
        let width = (self.columns as f64 * CELL + 2.0 * LEFT).max(560.0);
        let per_row = ((width - 2.0 * LEFT) / 250.0).floor().max(1.0) as usize;
        let height = 64.0
            + rows as f64 * CELL
            + self.bands.len() as f64 * 24.0
            + legend.len().div_ceil(per_row) as f64 * 20.0
            + 24.0;
        let about = format!("a cell is {}", size((self.pages_per_cell * PAGE) as f64));
        let mut svg = Svg::page(width, height, &self.title, &about);
        let mut y = 64.0;
        for band in &self.bands {
            let style = format!(
                "font-family=\"{}\" font-size=\"11\" fill=\"#5b6472\"",
                svg::MONOSPACE
            );
            svg.text((LEFT, y + 8.0), &Self::caption(band), &style);
            y += 14.0;
            for row in band.cells.chunks(self.columns) {
                let mut at = 0;
                while at < row.len() {
                    let place = most(&row[at]);
                    let run = row[at..]
                        .iter()
                        .take_while(|cell| most(cell) == place)
                        .count();
                    let (r, g, b) = place.colour();
                    let x = LEFT + at as f64 * CELL;
                    let wide = (run as f64 * CELL - 1.0, CELL - 1.0);
                    let fill = format!("#{r:02x}{g:02x}{b:02x}");
                    svg.rect((x, y), wide, &fill, &place.name(regions));
                    at += run;
                }
                y += CELL;
            }
            y += 10.0;
        }
        y += 16.0;
        for row in legend.chunks(per_row) {
            for (column, (place, text)) in row.iter().enumerate() {
                let x = LEFT + column as f64 * 250.0;
                let (r, g, b) = place.colour();
                svg.rect(
                    (x, y - 10.0),
                    (12.0, 12.0),
                    &format!("#{r:02x}{g:02x}{b:02x}"),
                    "",
                );
                svg.text((x + 18.0, y), text, "");
            }
            y += 20.0;
        }
        svg.finish()
    }
}

/// Where most of a cell's pages are, of those that are anywhere.
fn most(cell: &Tally) -> Place {
    let most = cell
        .iter()
        .max_by_key(|&(place, n)| (n, std::cmp::Reverse(place)));
    most.map_or(Place::None, |(&place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::tests::regions;

    fn found() -> Found {
        let mapping = |start: u64, pages: u64, name: &str| Mapping {
            start,
            end: start + pages * PAGE,
            anonymous: true,
            name: name.into(),
        };
        let pages = (0..40)
            .map(|page| match page {
                0..10 => (page, Place::Device(0, false)),
                10..20 => (page, Place::Ram(false)),
                _ => (page, Place::Device(1, true)),
            })
            .collect();
        vec![
            (mapping(0x1000_0000, 64, "[heap]"), pages),
            (mapping(0x2000_0000, 100, "empty"), Vec::new()),
            (
                mapping(0x3000_0000, 3, "<small>"),
                vec![(2, Place::Swapped)],
            ),
        ]
    }

    #[test]
    fn a_letter_for_each_page() {
        let heat = Heat::new("process 1", found(), 32, 100);
        assert_eq!(
            heat.text(&regions(), false),
            "process 1; a letter is 4.0K\n\
             000010000000   256K [heap]\n\
             \x20 aaaaaaaaaarrrrrrrrrrBBBBBBBBBBBB\n\
             \x20 BBBBBBBB........................\n\
             000030000000  12.0K <small>\n\
             \x20 ..s\n\
             \x20 r RAM: 40.0K\n\
             \x20 a hmm_dmirror.0: 40.0K\n\
             \x20 B hmm_dmirror.1, huge: 80.0K\n\
             \x20 s swapped out: 4.0K\n\
             \x20 . never touched: 104K\n"
        );
        assert!(heat.text(&regions(), true).contains("\x1b[48;2;"));
    }

    #[test]
    fn cells_grow_until_it_fits() {
        let heat = Heat::new("p", found(), 8, 2);
        assert_eq!(heat.pages_per_cell, 8);
        let text = heat.text(&regions(), false);
        assert!(text.contains("  arrBB...\n"), "{text}");
        assert_eq!(heat.tally().values().sum::<u64>(), 41);
    }

    #[test]
    fn the_picture_has_the_same() {
        let text = Heat::new("p & q", found(), 32, 100).svg(&regions());
        assert!(
            text.contains("p &amp; q") && text.contains("&lt;small&gt;"),
            "{text}"
        );
        assert!(text.contains("hmm_dmirror.1, huge: 80.0K"), "{text}");
    }
}
