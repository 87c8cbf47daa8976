// SPDX-License-Identifier: GPL-2.0
//! What the module shows: tracepoints say what happened and no more, counters agree with them and
//! with each other, and nobody sees them who may not.

use crate::buffer::{Buffer, all_counted, skipped};
use crate::harness::{Child, Env, Outcome, Stop, Test, ensure, ensure_eq, skip, test};
use crate::sys::sleep_ms;
use crate::whole;
use hmm_eyes::counters::{self, Region};
use hmm_eyes::places::Place;
use hmm_eyes::trace::{Event, Tracer};
use hmm_uapi::{Device, Direction, sys};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    test("eyes::moves_are_traced", moves),
    test("eyes::failed_copies_are_traced", failed_copies),
    test("eyes::evictions_are_traced", evictions),
    test("eyes::no_room_is_traced", no_room),
    test("eyes::faults_of_the_device_are_traced", device_faults),
    test("eyes::unmapping_is_traced", unmapping),
    test("eyes::regions_come_and_go", regions),
    test("eyes::counters_agree_with_the_device", counters_agree),
    test("eyes::counters_are_for_root", for_root),
    test("eyes::fdinfo", fdinfo),
    test("eyes::hmmtop", hmmtop),
    test("eyes::hmm_map", map),
    test("eyes::hmm_map_knows_every_place", every_place),
    test("eyes::huge_pages_are_shown_as_such", huge),
    test("eyes::hmm_map_watches", watch),
    test("eyes::record_and_replay", record),
    test("eyes::trace_cmd_reads_the_events", trace_cmd),
    test("eyes::perf_reads_the_events", perf),
    test("eyes::bpftrace_reads_the_events", bpftrace),
];

/// Everything the kernel said while `body` ran, about this process or about none.
fn traced(body: impl FnOnce() -> Outcome) -> Result<Vec<Event>, Stop> {
    let me = u64::from(std::process::id());
    let mut tracer = Tracer::start(&format!("hmm-ktap-{me}"), 4096)?;
    body()?;
    tracer.stop()?;
    let events = tracer.take()?;
    ensure_eq!(tracer.lost, 0, "events lost");
    let ours = |event: &Event| {
        event.word("process").is_empty() || [0, me].contains(&event.number("process"))
    };
    Ok(events.into_iter().filter(ours).collect())
}

fn named<'a>(events: &'a [Event], name: &'a str) -> impl Iterator<Item = &'a Event> {
    events.iter().filter(move |event| event.name == name)
}

/// Pages that went one way for one reason.
fn pages(events: &[Event], direction: &str, cause: &str) -> u64 {
    named(events, "migrate_end")
        .filter(|event| (event.word("direction"), event.word("cause")) == (direction, cause))
        .map(Event::moved)
        .sum()
}

/// The region of the main device.
fn region(env: &Env) -> Result<Region, Stop> {
    let index = match env.devices.first().and_then(|path| path.to_str()) {
        Some(path) => path.trim_start_matches("/dev/hmm_dmirror").to_owned(),
        None => return Err("no device".into()),
    };
    let name = format!("hmm_dmirror.{index}");
    let regions = counters::read(Path::new(counters::ROOT))?.regions;
    match regions.into_iter().find(|region| region.device == name) {
        Some(region) => Ok(region),
        None => skip!("{name} has no memory of its own"),
    }
}

fn moves(env: &Env) -> Outcome {
    let number = region(env)?.number;
    let device = env.open()?;
    let buffer = Buffer::filled(1200, 1)?;
    let before = device.info()?;
    let events = traced(|| {
        buffer.to_device(&device)?;
        buffer.verify_pages(0..100, 1)?;
        buffer.to_ram(&device)?;
        Ok(())
    })?;
    let after = device.info()?;
    for (way, got, want) in [
        (
            "there",
            pages(&events, "to_device", "request"),
            after.to_device - before.to_device,
        ),
        (
            "back",
            pages(&events, "to_ram", "request"),
            after.to_ram_request - before.to_ram_request,
        ),
        (
            "by fault",
            pages(&events, "to_ram", "fault"),
            after.to_ram_fault - before.to_ram_fault,
        ),
    ] {
        ensure_eq!(got, want, "pages {way}, traced and counted");
    }
    ensure_eq!(pages(&events, "to_device", "request"), 1200, "all went");
    ensure_eq!(
        named(&events, "migrate_begin").count(),
        named(&events, "migrate_end").count(),
        "ends"
    );
    let (start, end) = (buffer.addr(), buffer.addr() + buffer.len() as u64);
    for event in named(&events, "migrate_end") {
        let inside = start <= event.number("address")
            && event.number("address") + event.number("npages") * 4096 <= end;
        ensure!(inside && event.number("region") == number, "{event}");
        ensure_eq!(event.number("bytes"), event.moved() * 4096, "{event}");
        // A batch whose pages were home already says so.
        let expected = if event.moved() == 0 { "-16" } else { "0" };
        ensure!(event.number("ns") > 0, "{event}");
        ensure_eq!(event.word("result"), expected, "{event}");
    }
    let faults: Vec<_> = named(&events, "cpu_fault").collect();
    ensure_eq!(
        faults.len() as u64,
        after.cpu_faults - before.cpu_faults,
        "CPU faults"
    );
    ensure_eq!(
        faults.is_empty(),
        !env.is_private(),
        "faults on this kind of memory"
    );
    for fault in faults {
        let first = fault.number("first");
        let last = first + fault.number("npages") * 4096;
        ensure!((first..last).contains(&fault.number("address")), "{fault}");
        ensure!(fault.number("npages") <= 512, "{fault}");
    }
    buffer.verify(1)
}

/// Some of it may stay.
fn to_device(device: &Device, buffer: &Buffer) -> Result<sys::hmm_dmirror_move, Stop> {
    Ok(device.mv(buffer.range(), Direction::ToDevice)?)
}

fn failed_copies(env: &Env) -> Outcome {
    env.need_private()?;
    let device = env.open()?;
    let buffer = Buffer::filled(64, 2)?;
    let mut stayed = 0;
    let events = traced(|| {
        device.fail(sys::HMM_DMIRROR_FAIL_COPY_TO_DEVICE, 0, 1)?;
        stayed = skipped(&to_device(&device, &buffer)?, sys::HMM_DMIRROR_SKIP_COPY);
        device.fail(sys::HMM_DMIRROR_FAIL_NONE, 0, 0)?;
        Ok(())
    })?;
    ensure!(stayed > 0, "no copy failed");
    let errors = || named(&events, "copy_error");
    ensure_eq!(
        errors().map(|event| event.number("npages")).sum::<u64>(),
        stayed,
        "{events:?}"
    );
    ensure!(
        errors().all(|event| event.word("result") == "-5"),
        "{events:?}"
    );
    let results = |event: &Event| event.word("result") == "-5";
    ensure!(
        named(&events, "migrate_end").any(results),
        "a batch tells: {events:?}"
    );
    buffer.verify(2)
}

fn evictions(env: &Env) -> Outcome {
    region(env)?;
    let device = env.open()?;
    let buffer = Buffer::filled(700, 3)?;
    all_counted(&buffer.to_device(&device)?)?;
    let events = traced(|| Ok(device.release().map(drop)?))?;
    let moved: u64 = named(&events, "evict")
        .map(|event| event.number("moved"))
        .sum();
    ensure!(moved >= 700, "evicted: {moved}");
    ensure_eq!(pages(&events, "to_ram", "evict"), moved, "pages by cause");
    let total = device.info()?.frames_total;
    for event in named(&events, "evict") {
        ensure!(
            event.number("frame") + event.number("npages") <= total,
            "{event}"
        );
    }
    buffer.verify(3)
}

fn no_room(env: &Env) -> Outcome {
    region(env)?;
    let device = env.open()?;
    let free = device.info()?.frames_free;
    let filler = Buffer::new(usize::try_from(free)?)?;
    let fill = device.mv(filler.range(), Direction::ToDeviceWithHoles)?;
    ensure_eq!(fill.moved, free, "the device is full: {fill:?}");
    let buffer = Buffer::filled(40, 4)?;
    let mut stayed = 0;
    let events = traced(|| {
        stayed = skipped(
            &to_device(&device, &buffer)?,
            sys::HMM_DMIRROR_SKIP_NO_MEMORY,
        );
        Ok(())
    })?;
    let told: u64 = named(&events, "alloc_fail")
        .map(|event| event.number("npages"))
        .sum();
    ensure_eq!(
        told,
        stayed,
        "pages without a frame, traced and told to the caller"
    );
    ensure!(
        stayed != 0 || device.info()?.frames_free == 0,
        "nothing was refused"
    );
    buffer.verify(4)
}

fn device_faults(env: &Env) -> Outcome {
    let device = env.open()?;
    let buffer = Buffer::filled(32, 5)?;
    let events = traced(|| Ok(device.checksum(buffer.range()).map(drop)?))?;
    let first = named(&events, "device_fault").next();
    let first = first.ok_or_else(|| Stop::Fail(format!("no fault: {events:?}")))?;
    ensure_eq!(first.number("address"), buffer.addr(), "{first}");
    ensure_eq!(
        (first.number("npages"), first.number("write")),
        (32, 0),
        "{first}"
    );
    Ok(())
}

fn unmapping(env: &Env) -> Outcome {
    let _device = env.open()?;
    let buffer = Buffer::filled(16, 6)?;
    let events = traced(|| Ok(buffer.unmap(4..8)?))?;
    let gone = named(&events, "notifier").find(|event| {
        event.number("unmap") == 1
            && event.number("start") <= buffer.at(4)
            && event.number("end") >= buffer.at(8)
    });
    ensure!(gone.is_some(), "not told: {events:?}");
    Ok(())
}

/// The driver lets go of the main device, whose pages come home, and takes it again.
fn regions(env: &Env) -> Outcome {
    const DRIVER: &str = "/sys/bus/platform/drivers/hmm_dmirror";
    let old = region(env)?;
    let device = env.open()?;
    let buffer = Buffer::filled(600, 12)?;
    all_counted(&buffer.to_device(&device)?)?;
    let events = traced(|| {
        fs::write(format!("{DRIVER}/unbind"), &old.device)?;
        ensure!(region(env).is_err(), "counters of a region that is gone");
        fs::write(format!("{DRIVER}/bind"), &old.device)?;
        Ok(())
    })?;
    ensure!(pages(&events, "to_ram", "teardown") >= 600, "{events:?}");
    let removed = named(&events, "region_remove").map(|event| event.number("region"));
    ensure_eq!(removed.collect::<Vec<_>>(), [old.number], "regions removed");
    let new = region(env)?;
    ensure!(new.number > old.number, "{} again", new.number);
    let added: Vec<_> = named(&events, "region_add").collect();
    ensure!(
        added.len() == 1
            && added[0].number("region") == new.number
            && added[0].number("npages") == new.frames.get("total")
            && (added[0].number("private") == 1) == env.is_private(),
        "{added:?}, but {new:?}"
    );
    buffer.verify(12)
}

fn counters_agree(env: &Env) -> Outcome {
    let before = region(env)?;
    let device = env.open()?;
    let buffer = Buffer::filled(1536, 7)?;
    buffer.to_device(&device)?;
    let now = region(env)?;
    let info = device.info()?;
    for (key, want) in [
        ("total", info.frames_total),
        ("free", info.frames_free),
        ("claimed", info.frames_claimed),
        ("resident", info.frames_resident),
    ] {
        ensure_eq!(now.frames.get(key), want, "frames {key}");
    }
    ensure_eq!(
        now.stats.since(&before.stats, "to_device"),
        1536,
        "to_device"
    );
    // Three blocks of 2 MiB, or what is left of them between pages of somebody else.
    let full = |region: &Region| region.frames.get("full_blocks");
    ensure!(full(&now) > full(&before), "no block is full: {now:?}");
    let me = u64::from(std::process::id());
    let process = now.processes.iter().find(|process| process.id == me);
    let process = process.ok_or_else(|| Stop::Fail(format!("not there: {now:?}")))?;
    ensure_eq!(process.stats.get("to_device"), 1536, "of this process");
    buffer.to_ram(&device)?;
    ensure_eq!(full(&region(env)?), full(&before), "full blocks at the end");
    drop(device);
    let gone = region(env)?
        .processes
        .iter()
        .all(|process| process.id != me);
    ensure!(gone, "a process that has closed the device is still shown");
    Ok(())
}

fn for_root(env: &Env) -> Outcome {
    let number = region(env)?.number;
    let place = fs::read_dir(counters::ROOT)?.flatten().find(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{number}-"))
    });
    let place = place.ok_or("no directory of that number")?.path();
    Child::spawn(|| {
        // SAFETY: changes the rights of the calling process, which ends with this.
        ensure_eq!(unsafe { libc::setuid(1000) }, 0, "setuid");
        for file in ["region", "frames", "stats", "processes"] {
            let denied = fs::read(place.join(file))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
            ensure!(denied, "{file} may be read by anybody");
        }
        ensure!(
            Tracer::start("hmm-ktap-denied", 64).is_err(),
            "anybody may trace"
        );
        Ok(())
    })?
    .join()
}

fn fdinfo(env: &Env) -> Outcome {
    region(env)?;
    let device = env.open()?;
    let buffer = Buffer::filled(25, 8)?;
    buffer.to_device(&device)?;
    let file = format!("/proc/self/fdinfo/{}", device.as_raw_fd());
    let text = fs::read_to_string(file)?;
    for line in [
        "drm-driver:\thmm_dmirror",
        "hmm-to-device:\t100 KiB",
        "hmm-to-ram:\t0 KiB",
    ] {
        ensure!(
            text.lines().any(|other| other == line),
            "no {line:?} in {text}"
        );
    }
    Ok(())
}

fn said(name: &str, output: &Output) -> Result<String, Stop> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name}: {}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout.clone())?)
}

fn hmmtop(env: &Env) -> Outcome {
    region(env)?;
    let device = env.open()?;
    let buffer = Buffer::filled(512, 9)?;
    buffer.to_device(&device)?;
    let output = Command::new("hmmtop")
        .args(["--json", "-i", "0.2"])
        .output()?;
    let object: serde_json::Value = serde_json::from_str(&said("hmmtop", &output)?)?;
    let me = |process: &&serde_json::Value| process["process"] == std::process::id();
    let row = object["processes"]
        .as_array()
        .and_then(|all| all.iter().find(me));
    let row = row.ok_or_else(|| Stop::Fail(format!("not shown: {object}")))?;
    ensure_eq!(row["pages_to_device"], 512, "{object}");
    ensure_eq!(row["name"], "exe", "{object}");
    ensure_eq!(row["pages_on_device"], 512, "{object}");
    let output = Command::new("hmmtop")
        .args(["--once", "-i", "0.1"])
        .output()?;
    let table = said("hmmtop", &output)?;
    ensure!(table.contains(env.kind.name()), "{table}");
    let place = format!("/tmp/top-{}.svg", std::process::id());
    let output = Command::new("hmmtop")
        .args(["-i", "0.1", "--svg", &place])
        .output()?;
    said("hmmtop", &output)?;
    ensure!(
        fs::read_to_string(&place)?.contains("hmm_dmirror.0"),
        "no device in the picture"
    );
    Ok(fs::remove_file(place)?)
}

/// What `hmm-map --json` says of this process's mapping that begins with a page of a buffer.
fn mapping_at(buffer: &Buffer, page: usize) -> Result<serde_json::Value, Stop> {
    let me = std::process::id().to_string();
    let output = Command::new("hmm-map").args(["--json", &me]).output()?;
    let object: serde_json::Value = serde_json::from_str(&said("hmm-map", &output)?)?;
    let start = format!("{:#x}", buffer.at(page));
    let own = |mapping: &&serde_json::Value| mapping["start"] == start.as_str();
    let mapping = object["mappings"]
        .as_array()
        .and_then(|all| all.iter().find(own));
    Ok(mapping
        .ok_or_else(|| Stop::Fail(format!("no {start}: {object}")))?
        .clone())
}

fn map(env: &Env) -> Outcome {
    let name = region(env)?.device;
    let device = env.open()?;
    // A mapping of its own: the kernel joins neighbours that are alike.
    let buffer = Buffer::filled(300, 11)?;
    for page in [0, 299] {
        buffer.protect(page..page + 1, libc::PROT_NONE)?;
    }
    device.mv(buffer.part(1..201), Direction::ToDevice)?;
    let me = std::process::id().to_string();
    let show = |arguments: &[&str]| -> Result<String, Stop> {
        let output = Command::new("hmm-map").args(arguments).arg(&me).output()?;
        said("hmm-map", &output)
    };
    let mapping = mapping_at(&buffer, 1)?;
    ensure_eq!(mapping["pages"][name.as_str()], 200, "{mapping}");
    ensure_eq!(mapping["pages"]["RAM"], 98, "{mapping}");
    let text = show(&["--columns", "298", "--rows", "10000"])?;
    let regions = counters::read(Path::new(counters::ROOT))?.regions;
    let index = regions.iter().position(|region| region.device == name);
    let letter = Place::Device(index.ok_or("no region")?, false).letter();
    let row = format!("{}{}", letter.to_string().repeat(200), "r".repeat(98));
    ensure!(
        text.contains(&row),
        "no row of 200 {letter} and 98 r: {text}"
    );
    Child::spawn(|| {
        // SAFETY: changes the rights of the calling process, which ends with this.
        ensure_eq!(unsafe { libc::setuid(1000) }, 0, "setuid");
        let output = Command::new("hmm-map")
            .arg(std::process::id().to_string())
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            !output.status.success() && error.contains("next: run it as root"),
            "{error}"
        );
        Ok(())
    })?
    .join()
}

/// Twenty pages each on one device, on the other, for a device alone, in swap, and in RAM.
fn every_place(env: &Env) -> Outcome {
    const MADV_PAGEOUT: i32 = 21;
    let (device, other) = (env.open()?, env.open_second()?);
    let names = [region(env)?.device, "hmm_dmirror.1".to_owned()];
    // A mapping of its own, as above.
    let buffer = Buffer::filled(102, 13)?;
    for page in [0, 101] {
        buffer.protect(page..page + 1, libc::PROT_NONE)?;
    }
    let me = std::process::id().to_string();
    let show = || {
        let words = ["--columns", "100", "--rows", "10000", &me];
        said("hmm-map", &Command::new("hmm-map").args(words).output()?)
    };
    let swapped = "s".repeat(20);
    let end = Instant::now() + Duration::from_secs(20);
    while !show()?.contains(&swapped) {
        ensure!(
            Instant::now() < end,
            "swap (/modules/disk/on) takes nothing: {}",
            show()?
        );
        buffer.advise(61..81, MADV_PAGEOUT)?;
        sleep_ms(50);
    }
    device.mv(buffer.part(1..21), Direction::ToDevice)?;
    other.mv(buffer.part(21..41), Direction::ToDevice)?;
    let mut seen = vec![0; 20 * 4096];
    let alone = match device.exclusive(buffer.at(41), &mut seen) {
        Err(error) if error.errno == libc::EOPNOTSUPP => "r",
        other => {
            other?;
            "x"
        }
    };
    let regions = counters::read(Path::new(counters::ROOT))?.regions;
    let letter = |name: &String| -> Result<String, Stop> {
        let index = regions.iter().position(|region| region.device == *name);
        let place = Place::Device(index.ok_or("no region")?, false);
        Ok(place.letter().to_string())
    };
    let [first, second] = [letter(&names[0])?, letter(&names[1])?];
    let row = [&first, &second, alone, "s", "r"].map(|letter| letter.repeat(20));
    let (row, text) = (row.concat(), show()?);
    ensure!(text.contains(&format!("  {row}\n")), "no row {row}: {text}");
    for name in [names[0].as_str(), &names[1], "swapped out", "RAM"] {
        ensure!(
            text.contains(&format!(" {name}: ")),
            "{name} is not in the legend: {text}"
        );
    }
    buffer.verify_pages(1..101, 13)
}

/// 2 MiB in one piece: on the device, at home again, and a page of it alone on the device.
fn huge(env: &Env) -> Outcome {
    let name = region(env)?.device;
    let device = env.open()?;
    whole::need_whole(env, &device)?;
    let buffer = whole::block(&device, 14)?;
    let shown = |place: &str, pages: u64| -> Outcome {
        let mapping = mapping_at(&buffer, 0)?;
        ensure_eq!(mapping["pages"][place], pages, "{place}: {mapping}");
        Ok(())
    };
    shown(&format!("{name}, huge"), 512)?;
    let output = Command::new("hmmtop")
        .args(["--json", "-i", "0.1"])
        .output()?;
    let object: serde_json::Value = serde_json::from_str(&said("hmmtop", &output)?)?;
    let is = |region: &&serde_json::Value| region["device"] == name.as_str();
    let all = object["regions"].as_array();
    let region = all.and_then(|all| all.iter().find(is));
    let pages = region.map(|region| &region["pages_in_huge"]);
    ensure_eq!(pages, Some(&512.into()), "{object}");
    buffer.verify(14)?;
    shown("RAM, huge", 512)?;
    device.mv(buffer.part(100..101), Direction::ToDevice)?;
    shown(&name, 1)?;
    shown("RAM", 511)?;
    buffer.verify(14)
}

/// A picture every tenth of a second until the process ends.
fn watch(_env: &Env) -> Outcome {
    let mut sleep = Command::new("sleep").arg("1").spawn()?;
    let id = sleep.id().to_string();
    let file = |end: &str| format!("/tmp/watch-{}{end}", std::process::id());
    let frame = file(".svg");
    let words = ["--watch", "0.1", "--svg", &frame, &id];
    let mut map = Command::new("hmm-map").args(words).spawn()?;
    sleep.wait()?;
    ensure!(
        map.wait()?.success(),
        "hmm-map does not end well with its process"
    );
    let mut frames = 0;
    while let Ok(picture) = fs::read_to_string(file(&format!("-{:04}.svg", frames + 1))) {
        ensure!(picture.ends_with("</svg>\n"), "half a picture: {picture}");
        fs::remove_file(file(&format!("-{:04}.svg", frames + 1)))?;
        frames += 1;
    }
    ensure!(frames >= 2, "{frames} pictures");
    // What draws points is not in this machine.
    let words = ["--png", &file(".png"), &std::process::id().to_string()];
    let output = Command::new("hmm-map").args(words).output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && error.contains("next: apt-get install librsvg2-bin"),
        "{error}"
    );
    Ok(())
}

fn record(env: &Env) -> Outcome {
    region(env)?;
    let node = env.devices.first().ok_or("no device")?;
    let file = format!("/tmp/record-{}", std::process::id());
    let [trace, svg, html] = ["trace", "svg", "html"].map(|end| format!("{file}.{end}"));
    let output = Command::new("hmm-record")
        .args(["--out", &trace, "--svg", &svg, "--title", "a test", "--"])
        .arg(std::env::current_exe()?)
        .args(["--victim", "move", node.to_str().ok_or("its name")?, "500"])
        .output()?;
    said("hmm-record", &output)?;
    let output = Command::new("hmm-replay")
        .args([&trace, "--json", "--html", &html])
        .output()?;
    let object: serde_json::Value = serde_json::from_str(&said("hmm-replay", &output)?)?;
    ensure_eq!(object["title"], "a test", "{object}");
    ensure_eq!(object["lost"], 0, "{object}");
    let there = |way: &&serde_json::Value| way["direction"] == "to_device";
    let way = object["moved"]
        .as_array()
        .and_then(|all| all.iter().find(there));
    ensure_eq!(way.map(|way| &way["pages"]), Some(&500.into()), "{object}");
    ensure!(
        fs::read_to_string(&html)?.contains("to device"),
        "no sums in the page"
    );
    // The instance is gone with its recorder.
    let left = fs::read_dir("/sys/kernel/tracing/instances")
        .or_else(|_| fs::read_dir("/sys/kernel/debug/tracing/instances"))?;
    ensure_eq!(left.flatten().count(), 0, "tracing instances left behind");
    for file in [trace, svg, html] {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// The victim below as a command line, moving 700 pages there and back in two batches each.
fn moving(env: &Env) -> Result<[String; 5], Stop> {
    let node = env.devices.first().and_then(|node| node.to_str());
    let program = std::env::current_exe()?;
    let words = [
        program.to_str().ok_or("its name")?,
        "--victim",
        "move",
        node.ok_or("no device")?,
        "700",
    ];
    Ok(words.map(str::to_owned))
}

/// Pages moved by request, one way, in somebody else's text of the events.
fn pages_in(text: &str, direction: &str) -> u64 {
    let way = format!("direction={direction} cause=request ");
    let ours = text
        .lines()
        .filter(|line| line.contains("migrate_end: ") && line.contains(&way));
    let pages = ours.filter_map(|line| line.split_once(" small=")?.1.split(' ').next());
    pages.filter_map(|pages| pages.parse::<u64>().ok()).sum()
}

fn shows_all(text: &str) -> Outcome {
    for direction in ["to_device", "to_ram"] {
        ensure_eq!(pages_in(text, direction), 700, "pages {direction}: {text}");
    }
    Ok(())
}

/// Runs one that came with this machine, not with us.
fn foreign(program: &str, arguments: &[&str], rest: &[String]) -> Result<String, Stop> {
    let mut command = Command::new(program);
    let output = command.args(arguments).args(rest).output()?;
    said(program, &output)
}

fn trace_cmd(env: &Env) -> Outcome {
    region(env)?;
    let file = format!("/tmp/trace-cmd-{}.dat", std::process::id());
    let record = ["record", "-q", "-e", "hmm_devmem", "-o", &file];
    foreign("trace-cmd", &record, &moving(env)?)?;
    let text = foreign("trace-cmd", &["report", "-i", &file], &[])?;
    fs::remove_file(file)?;
    shows_all(&text)
}

fn perf(env: &Env) -> Outcome {
    region(env)?;
    let file = format!("/tmp/perf-{}.data", std::process::id());
    let end = "hmm_devmem:migrate_end";
    let stat = ["stat", "-x", ",", "-o", &file, "-e", end, "--"];
    foreign("perf", &stat, &moving(env)?)?;
    let counts = fs::read_to_string(&file)?;
    let count = counts.lines().find(|line| line.contains(end));
    let count = count.and_then(|line| line.split(',').next()?.parse::<u64>().ok());
    ensure!(count.is_some_and(|count| count >= 4), "{counts}");
    let record = ["record", "-q", "-o", &file, "-e", end, "--"];
    foreign("perf", &record, &moving(env)?)?;
    let text = foreign("perf", &["script", "-i", &file], &[])?;
    fs::remove_file(file)?;
    shows_all(&text)
}

fn bpftrace(env: &Env) -> Outcome {
    region(env)?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip!("bpftrace wants the kernel's types: built without BTF, and a machine has no headers");
    }
    let program = "tracepoint:hmm_devmem:migrate_end { @[args->direction] = sum(args->small); }";
    let text = foreign(
        "bpftrace",
        &["-e", program, "-c", &moving(env)?.join(" ")],
        &[],
    )?;
    let sums = text.lines().filter(|line| line.starts_with("@["));
    ensure_eq!(
        sums.filter(|line| line.ends_with(": 700")).count(),
        2,
        "{text}"
    );
    Ok(())
}

/// For a reader of the events to look at: moves some pages to the device and back.
pub fn victim(words: &[String]) -> Outcome {
    let [node, pages] = words else {
        return Err("wants: NODE PAGES".into());
    };
    let device = Device::open(node)?;
    let buffer = Buffer::filled(pages.parse()?, 10)?;
    buffer.to_device(&device)?;
    buffer.to_ram(&device)?;
    buffer.verify(10)
}

/// The law that the counters of every region obey at rest; waits for that.
pub fn conserved() -> Outcome {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let outcome = lawful();
        if !matches!(outcome, Err(Stop::Fail(_))) || Instant::now() > end {
            return outcome;
        }
        sleep_ms(50);
    }
}

fn lawful() -> Outcome {
    let Ok(snapshot) = counters::read(Path::new(counters::ROOT)) else {
        skip!("no counters: hmm_devmem is not loaded, or the kernel has no debugfs");
    };
    for region in snapshot.regions {
        let frames = |key| region.frames.get(key);
        let sum = frames("free") + frames("claimed") + frames("resident") + frames("retired");
        ensure_eq!(sum, frames("total"), "frames of {region:?}");
        ensure_eq!(frames("claimed"), 0, "frames claimed for ever: {region:?}");
        let full = frames("full_blocks") * frames("block_pages");
        let others = frames("resident") + frames("retired");
        ensure!(full <= others, "full of what: {region:?}");
        let stats = |key| region.stats.get(key);
        // The rest went with its processes.
        let home = hmm_eyes::rates::to_ram(&region.stats);
        ensure!(
            home + frames("resident") <= stats("to_device"),
            "more came than went: {region:?}"
        );
    }
    Ok(())
}
