//! Several writers in one directory, interleaved in time: none hides another.

use std::fs;

use super::harness::*;
use super::{Point, assert_holds, events, seconds, start};
use crate::support::server::FakeServer;

/// Three writers whose times interleave: one in long silences, one busy, one that begins late with early times.
fn interleaved(start: f64) -> [(&'static str, Vec<Point>); 3] {
    let silent = (0..40).map(|step| (step, start + if step < 20 { 0.0 } else { 500.0 } + step as f64)).collect();
    let busy = (0..400).map(|step| (step, start + 1.5 * step as f64)).collect();
    let late = (0..10).map(|step| (step, start - 100.0 + 60.0 * step as f64)).collect();
    [("silent", silent), ("busy", busy), ("late", late)]
}

fn check(server: &FakeServer, writers: &[(&str, Vec<Point>)]) {
    for (name, points) in writers {
        assert_holds(server, "exp", name, points);
    }
    let run = the_run(server, "exp");
    assert_eq!(run.history.len(), writers.iter().map(|(_, points)| points.len()).sum::<usize>());
}

#[test]
fn one_pass_puts_them_in_the_order_of_time() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let writers = interleaved(start());
    fs::create_dir(place.path("logs/exp")).unwrap();
    for (index, (name, points)) in writers.iter().enumerate() {
        let bytes = [first_record(points[0].1), events(name, points)].concat();
        fs::write(place.path(&format!("logs/exp/events.out.tfevents.1700000000.host.{index}")), bytes).unwrap();
    }
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    check(&server, &writers);
    let run = the_run(&server, "exp");
    let times: Vec<f64> =
        run.column("_timestamp").iter().map(|time| time.to_string().parse::<f64>().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn writers_that_grow_in_turns_are_all_read() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let start = start();
    let writers = interleaved(start);
    let directory = place.path("logs/exp");
    let mut files: Vec<Writer> = Vec::new();
    let watching = place.watch(&server, "");
    for round in 0..10 {
        for (index, (name, points)) in writers.iter().enumerate() {
            // The silent one says nothing for most of the time, and the late one begins when the others are far.
            let part = match (*name, round) {
                ("silent", 0) => &points[..3],
                ("silent", 9) => &points[3..],
                ("late", 5) => &points[..],
                ("busy", round) => &points[round * 40..(round + 1) * 40],
                _ => continue,
            };
            let known = files.iter().position(|file| file.path.to_str().unwrap().ends_with(name));
            let at = known.unwrap_or_else(|| {
                files.push(Writer::at(&directory, start + 10.0 - index as f64, name));
                files.len() - 1
            });
            files[at].raw(&events(name, part));
            let there = points.iter().position(|point| Some(point) == part.last()).unwrap() + 1;
            wait_for_points(&server, "exp", name, there);
        }
    }
    watching.interrupt().end().assert_code(0);
    check(&server, &writers);
    // Another process has nothing to add.
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    check(&server, &writers);
}

#[test]
fn a_cut_first_file_hides_no_later_one_that_grows() {
    let (server, place, start) = (FakeServer::start(), Place::with_logs(), start());
    let mut cut = Writer::at(&place.path("logs/exp"), start, "host.1");
    let rest = cut.raw(&events("loss", &seconds(start, 0..3))).event(3, "loss", 3.0);
    cut.raw(&rest[..rest.len() - 1]);
    let watching = place.watch(&server, "--json");
    let mut later = Writer::at(&place.path("logs/exp"), start + 30.0, "host.2");
    for round in 0..3 {
        later.raw(&events("accuracy", &seconds(start + 30.0, round * 5..(round + 1) * 5)));
        wait_for_points(&server, "exp", "accuracy", (round as usize + 1) * 5);
    }
    let ended = watching.interrupt().end();
    ended.assert_code(0).assert_says("1 × unfinished last record");
    assert_holds(&server, "exp", "loss", &seconds(start, 0..3));
    assert_holds(&server, "exp", "accuracy", &seconds(start + 30.0, 0..15));
}
