// SPDX-License-Identifier: GPL-2.0
//! `hmmtop`: device memory and what moves there and back, live.

mod screen;
mod state;
mod table;

use clap::Parser;
use hmm_eyes::{counters, svg};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use state::{Sort, State};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Shows device memory at work: what is where, what moves, and who moves it.
///
/// Run it as root: it reads /sys/kernel/debug/hmm_devmem.
#[derive(Parser)]
#[command(
    name = "hmmtop",
    version,
    after_help = "Keys: q quit, space pause, up and down choose a device, s sort by the next column, \
                  r reverse, + and - change the interval, h help.\n\
                  spared: of the pages that CPU faults brought home, those that came along before \
                  they were missed.\n\
                  returned: of the pages that moved to the device, those that CPU faults brought \
                  back; near 100 % both sides fight for the same memory."
)]
struct Args {
    /// Seconds between two readings.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0,
          value_parser = seconds)]
    interval: f64,

    /// Print one table and leave. Rates are those of one interval.
    #[arg(long)]
    once: bool,

    /// Print one JSON object and leave; with --count, as many, one a line.
    #[arg(long)]
    json: bool,

    /// With --json: how many.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "json")]
    count: u64,

    /// Write what the screen would show after --frames intervals to FILE, as a picture.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["once", "json"])]
    svg: Option<PathBuf>,

    /// With --svg: how many intervals to wait.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "svg")]
    frames: u64,

    /// Columns and rows of that picture.
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "80x24", requires = "svg",
          value_parser = columns_and_rows)]
    size: (u16, u16),

    /// How processes are sorted at first.
    #[arg(long, value_enum, default_value_t = Sort::ToDevice)]
    sort: Sort,

    /// Where the counters are.
    #[arg(long, value_name = "DIR", default_value = counters::ROOT)]
    root: PathBuf,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.05..=3600.0).contains(&n) => Ok(n),
        _ => Err("a number of seconds from 0.05 to 3600".into()),
    }
}

fn columns_and_rows(text: &str) -> Result<(u16, u16), String> {
    let parse = || {
        let (columns, rows) = text.split_once('x')?;
        Some((columns.parse().ok()?, rows.parse().ok()?))
    };
    match parse() {
        Some((columns @ 20..=500, rows @ 5..=200)) => Ok((columns, rows)),
        _ => Err("like 80x24, at most 500x200".into()),
    }
}

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that has seen enough is no error.
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            eprintln!("hmmtop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let interval = Duration::from_secs_f64(args.interval);
    let mut state = State::new(counters::read(&args.root)?, interval, args.sort);
    let next = |state: &mut State| -> Result<()> {
        std::thread::sleep(interval);
        state.take(counters::read(&args.root)?);
        Ok(())
    };
    if args.json {
        for _ in 0..args.count {
            next(&mut state)?;
            writeln!(std::io::stdout(), "{}", table::json(&state))?;
        }
        return Ok(());
    }
    if args.once {
        next(&mut state)?;
        write!(std::io::stdout(), "{}", table::text(&state))?;
        return Ok(());
    }
    if let Some(file) = &args.svg {
        for _ in 0..args.frames {
            next(&mut state)?;
        }
        let mut terminal = Terminal::new(TestBackend::new(args.size.0, args.size.1))?;
        terminal.draw(|frame| screen::draw(frame, &state))?;
        let picture = svg::screen(terminal.backend().buffer(), "hmmtop");
        std::fs::write(file, picture).map_err(|why| format!("{}: {why}", file.display()))?;
        return Ok(());
    }
    if !std::io::stdout().is_terminal() {
        return Err("the output is no terminal\nnext: hmmtop --once, or hmmtop --json".into());
    }
    live(args, state)
}

/// Until the user has had enough. The terminal is given back as it was, also when this panics.
fn live(args: &Args, mut state: State) -> Result<()> {
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(args, &mut terminal, &mut state);
    ratatui::restore();
    outcome
}

fn watch(args: &Args, terminal: &mut ratatui::DefaultTerminal, state: &mut State) -> Result<()> {
    let mut due = Instant::now() + state.interval;
    loop {
        terminal.draw(|frame| screen::draw(frame, state))?;
        let now = Instant::now();
        if now >= due {
            due = now + state.interval;
            if !state.paused {
                match counters::read(&args.root) {
                    Ok(snapshot) => state.take(snapshot),
                    Err(problem) => state.problem = Some(problem.to_string()),
                }
            }
            continue;
        }
        if !event::poll(due - now)? {
            continue;
        }
        if let Event::Key(key) = event::read()? {
            if key.kind != KeyEventKind::Press {
                continue;
            }
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(());
                }
                KeyCode::Char(' ') => state.paused = !state.paused,
                KeyCode::Char('s') => state.sort = state.sort.next(),
                KeyCode::Char('r') => state.reverse = !state.reverse,
                KeyCode::Char('h' | '?') => state.help = !state.help,
                KeyCode::Char('+') => state.change_interval(2.0),
                KeyCode::Char('-') => state.change_interval(0.5),
                KeyCode::Down | KeyCode::Char('j') => state.choose(1),
                KeyCode::Up | KeyCode::Char('k') => state.choose(-1),
                _ => {}
            }
        }
    }
}
