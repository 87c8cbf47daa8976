// SPDX-License-Identifier: GPL-2.0
//! How it looks; made for 80 columns and 24 rows, and more of both.

use crate::state::State;
use crate::table::{on_device, percent, used};
use hmm_eyes::counters::Region;
use hmm_eyes::rates::to_ram;
use hmm_eyes::{PAGE, size};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Sparkline};

const TO_DEVICE: Color = Color::Cyan;
const TO_RAM: Color = Color::Yellow;
const DIM: Style = Style::new().fg(Color::DarkGray);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Columns of the bar that shows how full a region is.
const BAR: usize = 10;

const HELP: &str = "\
 q, Esc      quit                 space    pause
 up, down    choose a device      + -      change the interval
 s           sort processes by the next column
 r           turn the order round

 SPARED      of the pages that CPU faults brought home, those that
             came along before they were missed
 RETURNED    of the pages that moved to the device, those that CPU
             faults brought back: near 100% both sides fight for them
 FRAG        free memory in pieces smaller than 2 MiB
 in full     in blocks of 2 MiB in which nothing is free
 ON DEV      what the process has in that device's memory now";

pub fn draw(frame: &mut Frame<'_>, state: &State) {
    let regions = state.regions().len().clamp(1, 8) as u16;
    let [top, list, about, curves, processes] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(regions + 1),
        Constraint::Length(7),
        Constraint::Length(5),
        Constraint::Min(3),
    ])
    .areas(frame.area());
    frame.render_widget(title(state), top);
    frame.render_widget(Paragraph::new(devices(state)), list);
    if let Some(region) = state.chosen() {
        details(frame, about, state, region);
        sparklines(frame, curves, state, region);
    } else {
        let text = "no region of device memory: load a driver that adds one";
        frame.render_widget(Paragraph::new(text), about);
    }
    frame.render_widget(Paragraph::new(rows(state, processes.height)), processes);
    if let Some(problem) = &state.problem {
        popup(frame, " what was shown is old ", problem);
    } else if state.help {
        popup(frame, " hmmtop ", HELP);
    }
}

/// Text in a box above everything else.
fn popup(frame: &mut Frame<'_>, title: &str, text: &str) {
    let area = frame.area();
    let lines = text.lines().count() as u16;
    let (width, height) = (72.min(area.width), (lines + 2).min(area.height));
    let place = Rect::new(
        (area.width - width) / 2,
        (area.height - height) / 2,
        width,
        height,
    );
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(title);
    frame.render_widget(Paragraph::new(text).block(block), place);
}

fn title(state: &State) -> Line<'static> {
    let mut spans = vec![
        Span::styled(" hmmtop ", HEAD.add_modifier(Modifier::REVERSED)),
        Span::raw(format!(
            "  {} region{}  every {:.3} s  by {}{}",
            state.regions().len(),
            if state.regions().len() == 1 { "" } else { "s" },
            state.interval.as_secs_f64(),
            state.sort.name(),
            if state.reverse { ", reversed" } else { "" },
        )),
    ];
    if state.paused {
        spans.push(Span::styled("  PAUSED", Style::new().fg(Color::Magenta)));
    }
    spans.push(Span::styled("  h help  q quit", DIM));
    Line::from(spans)
}

/// How full a region is: resident, claimed, free.
fn bar(region: &Region) -> Vec<Span<'static>> {
    let total = region.frames.get("total").max(1);
    let cells = |pages: u64| (pages * BAR as u64).div_ceil(total) as usize;
    let resident = cells(region.frames.get("resident")).min(BAR);
    let claimed = cells(region.frames.get("claimed")).min(BAR - resident);
    vec![
        Span::styled("█".repeat(resident), Style::new().fg(TO_DEVICE)),
        Span::styled("▓".repeat(claimed), Style::new().fg(Color::Magenta)),
        Span::styled("░".repeat(BAR - resident - claimed), DIM),
    ]
}

fn devices(state: &State) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(
        format!(
            "  {:<16}{:<9}{:>6} {:>4} {:<BAR$} {:>5} {:>8}{:>8} {:>6}",
            "DEVICE", "KIND", "SIZE", "USED", "", "FRAG", "TODEV/s", "TORAM/s", "FLT/s"
        ),
        HEAD,
    )];
    for region in state.regions() {
        let rates = state.rates(region);
        let chosen = state
            .chosen()
            .is_some_and(|one| one.number == region.number);
        let mut device = region.device.clone();
        device.truncate(15);
        let mut spans = vec![Span::styled(
            format!(
                "{} {device:<16}{:<9}{:>6} {:>3.0}% ",
                if chosen { '>' } else { ' ' },
                region.kind,
                size(region.bytes("total") as f64),
                used(region),
            ),
            if chosen { HEAD } else { Style::new() },
        )];
        spans.extend(bar(region));
        spans.push(Span::raw(format!(" {:>4.0}% ", region.fragmentation())));
        spans.push(Span::styled(
            format!("{:>8}", size(rates.to_device)),
            Style::new().fg(TO_DEVICE),
        ));
        spans.push(Span::styled(
            format!("{:>8}", size(rates.to_ram)),
            Style::new().fg(TO_RAM),
        ));
        spans.push(Span::raw(format!(" {:>6.0}", rates.faults)));
        lines.push(Line::from(spans));
    }
    lines
}

/// Time per page.
fn per_page(ns: u64, pages: u64) -> String {
    match ns.checked_div(pages) {
        Some(ns) => format!("{:.1} µs", ns as f64 / 1e3),
        None => "-".to_owned(),
    }
}

fn details(frame: &mut Frame<'_>, area: Rect, state: &State, region: &Region) {
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(DIM)
        .title(Span::styled(format!(" {} ", region.device), HEAD));
    let frames = &region.frames;
    let stats = &region.stats;
    let bytes = |pages: u64| size((pages * PAGE) as f64);
    let (by_fault, to_ram) = (stats.get("to_ram_fault"), to_ram(stats));
    let rates = state.rates(region);
    let lines = vec![
        Line::from(format!(
            " resident {} ({} in huge pages)   free {} ({} in 2 MiB)",
            bytes(frames.get("resident")),
            state.huge(region).map_or_else(|| "?".to_owned(), bytes),
            bytes(frames.get("free")),
            bytes(region.free_in_blocks()),
        )),
        Line::from(format!(
            " in use {} ({} in full 2 MiB)   claimed {}, retired {}",
            bytes(region.used()),
            bytes(region.used_in_blocks()),
            bytes(frames.get("claimed")),
            bytes(frames.get("retired")),
        )),
        Line::from(format!(
            " to device {:<8} {:>9} per page",
            bytes(stats.get("to_device")),
            per_page(stats.get("ns_to_device"), stats.get("to_device")),
        )),
        Line::from(format!(
            " to RAM    {:<8} {:>9} per page   asked {}, touched {}, evicted {}",
            bytes(to_ram),
            per_page(stats.get("ns_to_ram"), to_ram),
            bytes(stats.get("to_ram_request")),
            bytes(by_fault),
            bytes(stats.get("to_ram_evict")),
        )),
        Line::from(format!(
            " faults    {:<8} {:>9} pages each   now spared {}, returned {}",
            stats.get("cpu_faults"),
            by_fault.checked_div(stats.get("cpu_faults")).unwrap_or(0),
            percent(rates.spared),
            percent(rates.returned),
        )),
        Line::from(format!(
            " stayed    no frame {}, no RAM {}, copy failed {} (pages)",
            stats.get("no_frame"),
            stats.get("no_ram"),
            stats.get("copy_failed"),
        )),
    ];
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn sparklines(frame: &mut Frame<'_>, area: Rect, state: &State, region: &Region) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)])
        .spacing(1)
        .areas(area);
    let Some(history) = state.history(region) else {
        return;
    };
    for (place, name, curve, colour) in [
        (left, "to device", &history.to_device, TO_DEVICE),
        (right, "to RAM", &history.to_ram, TO_RAM),
    ] {
        let width = usize::from(place.width);
        let shown = &curve[curve.len().saturating_sub(width)..];
        let peak = shown.iter().copied().max().unwrap_or(0);
        let title = format!(" {name}, peak {}/s ", size(peak as f64));
        let block = Block::new()
            .borders(Borders::TOP)
            .border_style(DIM)
            .title(Span::styled(title, Style::new().fg(colour)));
        // The newest reading is at the right edge.
        let mut data = vec![0; width - shown.len()];
        data.extend_from_slice(shown);
        let sparkline = Sparkline::default()
            .data(&data)
            .max(peak.max(1))
            .style(Style::new().fg(colour));
        frame.render_widget(sparkline.block(block), place);
    }
}

fn rows(state: &State, height: u16) -> Vec<Line<'static>> {
    let head = format!(
        "{:>8} {:<16} {:>2} {:>7} {:>8} {:>8} {:>6} {:>7} {:>7}",
        "PROCESS", "NAME", "NR", "ON DEV", "TODEV/s", "TORAM/s", "FLT/s", "TO DEV", "TO RAM"
    );
    let mut lines = vec![Line::styled(head, HEAD)];
    let rows = state.rows();
    let room = usize::from(height).saturating_sub(1);
    for row in rows.iter().take(room) {
        let mut name = row.name.clone();
        name.truncate(16);
        lines.push(Line::from(vec![
            Span::raw(format!(
                "{:>8} {name:<16} {:>2} {:>7} ",
                row.process,
                row.device,
                on_device(row)
            )),
            Span::styled(
                format!("{:>8} ", size(row.rates.to_device)),
                Style::new().fg(TO_DEVICE),
            ),
            Span::styled(
                format!("{:>8} ", size(row.rates.to_ram)),
                Style::new().fg(TO_RAM),
            ),
            Span::raw(format!(
                "{:>6.0} {:>7} {:>7}",
                row.rates.faults,
                size((row.to_device * PAGE) as f64),
                size((row.to_ram * PAGE) as f64)
            )),
        ]));
    }
    if rows.is_empty() {
        lines.push(Line::styled("         no process has a device open", DIM));
    }
    lines
}
