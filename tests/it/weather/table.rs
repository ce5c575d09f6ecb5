//! Each kind of weather: exit code, states and counts, the words for a person, and that the next start completes it all.

use serde_json::Value;

use super::{ROWS, assert_all_is_there, id_of, import, in_calm, three_runs};
use crate::support::bridge::Place;
use crate::support::server::{FakeServer, Fault, Gate, Route};

/// One kind of weather, and what the program makes of it.
struct Weather {
    what: &'static str,
    faults: Vec<Fault>,
    arguments: &'static [&'static str],
    code: i32,
    /// How the three runs end, in the order of these words.
    states: [&'static str; 3],
    /// What stderr says.
    says: &'static str,
}

fn weather(
    what: &'static str,
    faults: Vec<Fault>,
    arguments: &'static [&'static str],
    (code, states): (i32, [&'static str; 3]),
    says: &'static str,
) -> Weather {
    Weather { what, faults, arguments, code, states, says }
}

const ALL: (i32, [&str; 3]) = (0, ["synced", "synced", "synced"]);
const LATER: (i32, [&str; 3]) = (5, ["failed", "failed", "failed"]);
const NEVER: (i32, [&str; 3]) = (1, ["failed", "failed", "failed"]);
const ALL_BUT_ONE: (i32, [&str; 3]) = (3, ["failed", "synced", "synced"]);

/// Runs the import in each weather, and again when it is over.
fn check(weathers: impl Fn(&FakeServer) -> Vec<Weather>) {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let rows: usize = calm.runs().iter().map(|run| run.history.len()).sum();
    let first = calm.runs().len();
    assert_eq!((first, calm.run(&id_of(&calm, "a")).unwrap().history.len()), (3, ROWS));
    for weather in weathers(&calm) {
        let what = weather.what;
        let (place, server) = (Place::new(), FakeServer::start());
        weather.faults.into_iter().for_each(|fault| server.fault(fault));
        let ended = import(&place, &server, &logs).args(weather.arguments).run();
        assert_eq!(ended.code, Some(weather.code), "{what}: {}", ended.stderr);
        assert!(ended.stderr.contains(weather.says), "{what}: {}", ended.stderr);
        let summary = ended.json_summary();
        let mut states: Vec<String> =
            ended.json_runs().iter().map(|run| run["state"].as_str().unwrap().to_owned()).collect();
        states.sort();
        let mut expected = weather.states;
        expected.sort();
        assert_eq!(states, expected, "{what}: {}", ended.stderr);
        let of = |state: &str| expected.iter().filter(|it| **it == state).count();
        assert_eq!(
            (&summary["runs"], &summary["rows"], &summary["synced"], &summary["failed"], &summary["partial"]),
            (&3.into(), &rows.into(), &of("synced").into(), &of("failed").into(), &of("partial").into()),
            "{what}"
        );
        assert_eq!(summary["exit_code"], weather.code, "{what}");
        let errors = ended.json_runs().iter().filter(|run| !run["error"].is_null()).count();
        let later = if weather.code == 5 { of("partial") } else { 0 };
        assert_eq!(errors, of("failed") + later, "{what}: each says why");
        // Nothing of the input is lost in bad weather; only files that a storage refused are, until it takes them.
        let lost: Vec<Value> =
            summary["skipped"].as_array().unwrap().iter().filter(|it| it["loss"] == true).cloned().collect();
        assert_eq!(lost.is_empty(), of("partial") == 0, "{what}: {lost:?}");

        server.behave();
        let ended = import(&place, &server, &logs).run();
        assert_eq!(ended.code, Some(0), "{what}, afterwards: {}", ended.stderr);
        assert_all_is_there(&server, &calm, what);
        let requests = server.requests().len();
        import(&place, &server, &logs).run().ok();
        assert_eq!(server.requests().len(), requests, "{what}: nothing is left to say");
    }
}

#[test]
fn weather_that_passes_is_not_noticed() {
    let stream = || Route::FileStream;
    let upsert = || Route::graphql("UpsertBucket");
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    check(|_| {
        vec![
            weather("resets before requests are read", vec![Fault::reset_early(stream()).times(4)], &[], ALL, ""),
            weather("resets without an answer", vec![Fault::reset(Route::Any).times(6)], &[], ALL, ""),
            weather("lost answers", vec![Fault::reset(Route::Any).applied().times(6)], &[], ALL, ""),
            weather("cut answers", vec![Fault::cut(Route::Any).times(6)], &[], ALL, ""),
            weather("slow answers", vec![Fault::slow(Route::Any).times(12)], &[], ALL, ""),
            weather("a server that is away for a while", vec![Fault::reset_early(Route::Any).times(15)], &[], ALL, ""),
            weather(
                "all that is temporary",
                [408, 425, 429, 500, 502, 503, 504, 599]
                    .into_iter()
                    .flat_map(|code| [Fault::status(stream(), code), Fault::html(upsert(), code).applied()])
                    .collect(),
                &["--transfers", "1"],
                ALL,
                "",
            ),
            weather(
                "429 with words about when",
                vec![
                    Fault::status(stream(), 429).header("Retry-After", "0"),
                    Fault::status(stream(), 429).header("Retry-After", past),
                    Fault::status(stream(), 503).header("Retry-After", "soon"),
                    Fault::status(upsert(), 429).header("RateLimit-Remaining", "0").header("RateLimit-Reset", "2"),
                ],
                &[],
                ALL,
                "",
            ),
            weather("pages that pass for success", vec![Fault::html(Route::Any, 200).times(2)], &[], ALL, ""),
            weather("files that get pages", vec![Fault::html(Route::Storage, 200).times(3)], &[], ALL, ""),
            weather("a conflict that passes", vec![Fault::status(upsert(), 409).times(2)], &[], ALL, ""),
            weather(
                "a server that cannot say what it can do",
                vec![Fault::status(Route::graphql("ServerFeaturesQuery"), 400).always()],
                &[],
                ALL,
                "",
            ),
            weather(
                "storage that falters",
                vec![Fault::status(Route::Storage, 500).times(3), Fault::reset_early(Route::Storage).times(3)],
                &[],
                ALL,
                "",
            ),
        ]
    });
}

#[test]
fn weather_that_stays_is_told_and_resumed() {
    let stream = || Route::FileStream;
    check(|_| {
        let gate = Gate::default();
        vec![
            weather("resets", vec![Fault::reset_early(Route::Any).always()], &["--retries", "1"], LATER, "try again"),
            weather(
                "lines that nobody answers",
                vec![Fault::reset(stream()).applied().always()],
                &["--retries", "2"],
                LATER,
                "no answer from",
            ),
            weather(
                "too many requests",
                vec![Fault::status(stream(), 429).header("Retry-After", "0").always()],
                &["--retries", "1"],
                LATER,
                "429 Too Many Requests",
            ),
            weather("a broken server", vec![Fault::html(stream(), 503).always()], &["--retries", "1"], LATER, "503"),
            weather(
                "a time limit",
                vec![Fault::stall(stream(), &gate).always()],
                &["--max-duration", "2s"],
                (10, LATER.1),
                "run the same command again later",
            ),
            weather(
                "storage that is away",
                vec![Fault::status(Route::Storage, 503).always()],
                &["--retries", "0"],
                (5, ["partial"; 3]),
                "cannot upload all files",
            ),
        ]
    });
}

#[test]
fn fatal_answers_end_what_they_are_about() {
    let stream = || Route::FileStream;
    let upsert = || Route::graphql("UpsertBucket");
    check(|calm| {
        let a = Route::FileStreamOf(id_of(calm, "a"));
        let one_at_a_time: &[&str] = &["--transfers", "1"];
        let mut all = vec![
            weather("401", vec![Fault::status(stream(), 401).always()], one_at_a_time, (4, NEVER.1), "API key"),
            weather(
                "401 after one run",
                vec![Fault::status(stream(), 401).skip(1).always()],
                one_at_a_time,
                (4, ["failed", "failed", "synced"]),
                "API key",
            ),
            weather("403", vec![Fault::status(stream(), 403).always()], one_at_a_time, NEVER, "403 Forbidden"),
            weather(
                "a run that was deleted",
                vec![Fault::status(upsert(), 410)],
                one_at_a_time,
                ALL_BUT_ONE,
                "--generation",
            ),
            weather(
                "an id that was used before",
                vec![Fault::status(upsert(), 409).body(r#"{"errors":["run was deleted"]}"#)],
                one_at_a_time,
                ALL_BUT_ONE,
                "--generation",
            ),
            weather(
                "errors in an answer that is fine otherwise",
                vec![Fault::graphql_error("UpsertBucket", "the project is full")],
                one_at_a_time,
                ALL_BUT_ONE,
                "the project is full",
            ),
            weather(
                "what is not JSON",
                vec![Fault::status(upsert(), 200).body("{\"data\":").times(3)],
                one_at_a_time,
                ALL_BUT_ONE,
                "this is no answer of a W&B server",
            ),
            weather(
                "JSON that says nothing",
                vec![Fault::status(upsert(), 200).body("{\"data\":{}}")],
                one_at_a_time,
                ALL_BUT_ONE,
                "lacks what it must hold",
            ),
            weather(
                "pages instead of lines",
                vec![Fault::html(a.clone(), 200).always()],
                &[],
                ALL_BUT_ONE,
                "this is no answer of a W&B server",
            ),
            weather(
                "storage that refuses",
                vec![Fault::status(Route::Storage, 403).always()],
                &[],
                (3, ["partial"; 3]),
                "3 partial",
            ),
        ];
        for (code, says) in [(400, "400"), (404, "404"), (409, "409"), (410, "410"), (413, "413"), (422, "422")] {
            all.push(weather(says, vec![Fault::status(a.clone(), code)], &[], ALL_BUT_ONE, says));
        }
        all
    });
}

#[test]
fn a_redirect_takes_no_key_elsewhere() {
    let elsewhere = FakeServer::start();
    let to = format!("{}/graphql", elsewhere.url());
    check(|_| {
        let away = |on: Route, code| vec![Fault::status(on, code).header("Location", &to).always()];
        vec![
            weather("307 of lines", away(Route::FileStream, 307), &[], NEVER, "307"),
            weather("302 of queries", away(Route::AnyGraphql, 302), &[], NEVER, "302"),
        ]
    });
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn nobody_listens() {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let (place, server) = (Place::new(), FakeServer::start());
    let ended =
        import(&place, &server, &logs).args(["--retries", "1"]).env("WANDB_BASE_URL", "http://127.0.0.1:1").run();
    let ended = ended.code(5);
    assert!(ended.stderr.contains("refused"), "{}", ended.stderr);
    assert_eq!(ended.json_summary()["failed"], 3);
    import(&place, &server, &logs).run().ok();
    assert_all_is_there(&server, &calm, "nobody listens");
}

#[test]
fn a_stalled_answer_is_not_waited_for_for_ever() {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let (place, server) = (Place::new(), FakeServer::start());
    server.fault(Fault::stall(Route::graphql("UpsertBucket"), &Gate::default()).times(2));
    import(&place, &server, &logs).env("WANDB_HTTP_TIMEOUT", "2").run().ok();
    assert_all_is_there(&server, &calm, "stalled");
}
