//! Views of builds that were recorded with `--progress=rawjson`.

mod recording;

use super::SHORTEST_PAUSE;
use super::color::Colors;
use super::plain::Plain;
use super::rawjson;
use super::time::Time;
use super::tty::{Size, Tty};
use kiln_proto::control::StatusResponse;
use proptest::prelude::*;
use prost_types::Timestamp;
use recording::Recording;

const FAILED: &str = include_str!("failed.jsonl");
const PARALLEL: &str = include_str!("parallel.jsonl");
const WIDE: Size = Size { columns: 80, rows: 24 };

/// The log of a recorded build, shown as often as a user sees it.
fn plain(events: &str) -> String {
    let mut view = Plain::new(false);
    let mut out = Vec::new();
    let (mut shown, mut last) = (None, None);
    for (status, now) in Recording::read(events) {
        view.update(&status, now);
        if shown.is_none_or(|shown| now.seconds_since(shown) >= SHORTEST_PAUSE.as_secs_f64()) {
            view.refresh(now, &mut out).unwrap();
            shown = Some(now);
        }
        last = Some(now);
    }
    view.finish(last.unwrap(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// The frames of a recorded build.
fn frames(events: &str, size: Size) -> Vec<String> {
    let mut view = Tty::new(Colors::none(), None);
    let mut frames = Vec::new();
    let mut last = None;
    for (status, now) in Recording::read(events) {
        let mut out = Vec::new();
        view.update(&status, now);
        view.refresh(size, now, &mut out).unwrap();
        frames.push(String::from_utf8(out).unwrap());
        last = Some(now);
    }
    let mut out = Vec::new();
    view.finish(size, last.unwrap(), &mut out).unwrap();
    frames.push(String::from_utf8(out).unwrap());
    frames
}

/// A frame without what moves the cursor.
fn visible(frame: &str) -> String {
    let (_, text) = frame.split_once('\r').unwrap();
    text.replace("\x1b[K", "").replace("\x1b[J", "").replace("\x1b[?25h", "")
}

#[test]
fn a_failed_build_is_logged_with_the_last_lines_of_its_step() {
    insta::assert_snapshot!(plain(FAILED));
}

#[test]
fn steps_that_run_at_once_take_turns_in_the_log() {
    insta::assert_snapshot!(plain(PARALLEL));
}

#[test]
fn the_last_frame_has_every_step_and_the_failed_ones_output() {
    insta::assert_snapshot!(visible(frames(FAILED, WIDE).last().unwrap()));
}

#[test]
fn a_frame_has_the_output_of_steps_that_run() {
    let frames = frames(PARALLEL, WIDE);
    let running = frames.iter().rfind(|frame| frame.contains("# ")).unwrap();
    insta::assert_snapshot!(visible(running));
}

#[test]
fn no_line_is_wider_or_frame_higher_than_the_terminal() {
    for size in [(20, 5), (40, 10), (25, 3), (200, 50), (1, 1)] {
        let size = Size { columns: size.0, rows: size.1 };
        let frames = frames(PARALLEL, size);
        for frame in &frames[..frames.len() - 1] {
            let text = visible(frame);
            assert!(text.lines().all(|line| line.chars().count() <= size.columns), "{text}");
            assert!(text.lines().count() <= size.rows.max(1), "{size:?}:\n{text}");
        }
    }
}

#[test]
fn what_is_written_as_json_is_what_was_read() {
    for events in [FAILED, PARALLEL] {
        let mut out = Vec::new();
        for (status, _) in Recording::read(events) {
            rawjson::write(&status, &mut out).unwrap();
        }
        let lines = |text: &str| {
            text.lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(&String::from_utf8(out).unwrap()), lines(events));
    }
}

/// Anything that a daemon may send, however little sense it makes.
fn any_status() -> impl Strategy<Value = StatusResponse> {
    use kiln_proto::control::{Vertex, VertexLog, VertexStatus, VertexWarning};
    let digest = || prop::sample::select(vec!["", "a", "b", "c", "group"]).prop_map(str::to_owned);
    let time = || {
        prop::option::of((any::<i8>(), any::<i32>()).prop_map(|(shift, nanos)| Timestamp {
            seconds: if shift == 0 { i64::MAX } else { i64::from(shift) },
            nanos,
        }))
    };
    let group = (digest(), any::<bool>()).prop_map(|(id, weak)| kiln_proto::pb::ProgressGroup {
        name: id.clone(),
        id,
        weak,
    });
    let vertex =
        (digest(), ".{0,4}", time(), time(), any::<bool>(), ".{0,3}", prop::option::of(group))
            .prop_map(|(digest, name, started, completed, cached, error, progress_group)| Vertex {
                digest,
                name,
                started,
                completed,
                cached,
                error,
                progress_group,
                ..Vertex::default()
            });
    let part = (digest(), digest(), any::<i64>(), any::<i64>(), time(), time()).prop_map(
        |(id, vertex, current, total, started, completed)| VertexStatus {
            id,
            vertex,
            current,
            total,
            started,
            completed,
            timestamp: None,
            ..VertexStatus::default()
        },
    );
    let log = (digest(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(vertex, msg)| {
        VertexLog { vertex, msg: msg.into(), stream: 1, timestamp: None }
    });
    let warning = digest().prop_map(|vertex| VertexWarning {
        vertex,
        short: "w".into(),
        ..Default::default()
    });
    let few = 0..3_usize;
    (
        prop::collection::vec(vertex, few.clone()),
        prop::collection::vec(part, few.clone()),
        prop::collection::vec(log, few.clone()),
        prop::collection::vec(warning, few),
    )
        .prop_map(|(vertexes, statuses, logs, warnings)| StatusResponse {
            vertexes,
            statuses,
            logs,
            warnings,
            misses: Vec::new(),
            usages: Vec::new(),
        })
}

proptest! {
    #[test]
    fn no_daemon_can_break_a_view(
        events in prop::collection::vec(any_status(), 0..12),
        columns in 0_usize..60,
        rows in 0_usize..20,
    ) {
        let size = Size { columns, rows };
        let mut plain = Plain::new(true);
        let mut tty = Tty::new(Colors::from_env(|_| None), None);
        let mut out = Vec::new();
        for (second, status) in events.iter().enumerate() {
            let now = Time::from(&Timestamp { seconds: second as i64, nanos: 0 });
            plain.update(status, now);
            plain.refresh(now, &mut out).unwrap();
            tty.update(status, now);
            tty.refresh(size, now, &mut out).unwrap();
            rawjson::write(status, &mut out).unwrap();
        }
        plain.finish(Time::now(), &mut out).unwrap();
        tty.finish(size, Time::now(), &mut out).unwrap();
    }
}
