//! Misbehaviour on cue: what the server is to do wrong, to which requests, and how often.
//!
//! A list of plain descriptions; `http.rs` looks the first match up and acts on it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Which requests a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Any,
    /// Every GraphQL request.
    AnyGraphql,
    /// A GraphQL request by the name of its operation, such as `UpsertBucket`.
    Graphql(String),
    /// Every file stream request.
    FileStream,
    /// File stream requests of one run, by run id.
    FileStreamOf(String),
    /// Every upload of bytes.
    Storage,
    /// Uploads whose path ends so.
    StorageOf(String),
}

impl Route {
    pub fn graphql(operation: &str) -> Self {
        Self::Graphql(operation.to_owned())
    }
}

/// What one request is, as far as faults are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    Graphql(&'a str),
    FileStream(&'a str),
    Storage(&'a str),
    Other,
}

/// Keeps stalled requests back until it is opened.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Gate {
    /// Lets through what waits and what is still to come.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub async fn passed(&self) {
        // An error means that nobody is left who could open it; the sender is ours, so it cannot happen.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// How a request is kept waiting before anything else happens.
#[derive(Debug, Clone, Default)]
pub enum Wait {
    #[default]
    No,
    For(Duration),
    Until(Gate),
}

/// What the client hears.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What it would have heard without the fault.
    Own,
    Status {
        code: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// Nothing: the connection is reset.
    Reset,
    /// The beginning of what it would have heard; then the connection breaks.
    Cut,
    /// What it would have heard, in small pieces.
    Slowly,
}

/// One thing to do wrong. Built by the functions that are named after it, refined by the others.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(super) on: Route,
    pub(super) skip: usize,
    pub(super) times: usize,
    pub(super) applied: bool,
    /// Happens before the request was read.
    pub(super) early: bool,
    pub(super) wait: Wait,
    pub(super) answer: Answer,
    /// Headers that the answer has besides.
    pub(super) headers: Vec<(String, String)>,
}

impl Fault {
    /// Answers once with that status and a JSON error body; nothing is stored.
    pub fn status(on: Route, code: u16) -> Self {
        let body = format!(r#"{{"errors":[{{"message":"fault {code}"}}]}}"#);
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self::new(on, Answer::Status { code, headers, body })
    }

    /// Answers once with an HTML page, as a proxy in between does.
    pub fn html(on: Route, code: u16) -> Self {
        let body =
            format!("<html><head><title>{code}</title></head><body><h1>{code} from a proxy</h1></body></html>\n");
        let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
        Self::new(on, Answer::Status { code, headers, body })
    }

    /// Answers 200 once, with a list of GraphQL errors.
    pub fn graphql_error(operation: &str, message: &str) -> Self {
        let body = serde_json::json!({"data": null, "errors": [{"message": message}]}).to_string();
        Self::status(Route::graphql(operation), 200).body(&body)
    }

    /// Resets the connection once instead of answering; nothing is stored.
    pub fn reset(on: Route) -> Self {
        Self::new(on, Answer::Reset)
    }

    /// Resets the connection once before the request was read. Only for routes that the address alone tells.
    pub fn reset_early(on: Route) -> Self {
        Self { early: true, ..Self::reset(on) }
    }

    /// Carries one request out, and breaks the connection in the middle of the answer.
    pub fn cut(on: Route) -> Self {
        Self::new(on, Answer::Cut).applied()
    }

    /// Answers one request in small pieces.
    pub fn slow(on: Route) -> Self {
        Self::new(on, Answer::Slowly).applied()
    }

    /// Serves one request as usual: nothing is wrong but the headers that are added.
    pub fn none(on: Route) -> Self {
        Self::new(on, Answer::Own)
    }

    /// Keeps one request waiting until the gate opens, and then serves it as usual.
    pub fn stall(on: Route, gate: &Gate) -> Self {
        Self { wait: Wait::Until(gate.clone()), ..Self::new(on, Answer::Own) }
    }

    /// Keeps one request waiting for a time, and then serves it as usual.
    pub fn delay(on: Route, time: Duration) -> Self {
        Self { wait: Wait::For(time), ..Self::new(on, Answer::Own) }
    }

    /// Happens so many times instead of once.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Happens to every request from now on.
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Lets so many matching requests through first.
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// The request is carried out all the same: only its answer is lost or wrong.
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    /// Adds a header to the answer, such as `Retry-After`.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the body of the wrong answer.
    pub fn body(mut self, text: &str) -> Self {
        if let Answer::Status { body, .. } = &mut self.answer {
            text.clone_into(body);
        }
        self
    }

    fn new(on: Route, answer: Answer) -> Self {
        Self { on, skip: 0, times: 1, applied: false, early: false, wait: Wait::No, answer, headers: Vec::new() }
    }

    fn matches(&self, kind: &Kind) -> bool {
        match (&self.on, kind) {
            (Route::Any, _)
            | (Route::AnyGraphql, Kind::Graphql(_))
            | (Route::FileStream, Kind::FileStream(_))
            | (Route::Storage, Kind::Storage(_)) => true,
            (Route::Graphql(wanted), Kind::Graphql(name)) => wanted == name,
            (Route::FileStreamOf(wanted), Kind::FileStream(run)) => wanted == run,
            (Route::StorageOf(end), Kind::Storage(path)) => path.ends_with(end.as_str()),
            _ => false,
        }
    }
}

/// Weather that is bad by chance, the same for the same seed and the same requests.
#[derive(Debug, Clone)]
pub struct Storm {
    state: u64,
    percent: u64,
}

impl Storm {
    /// So many requests of a hundred meet a fault.
    pub fn new(seed: u64, percent: u64) -> Self {
        Self { state: seed, percent }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// What happens to the next request, if anything.
    pub fn strike(&mut self) -> Option<Fault> {
        if self.next() % 100 >= self.percent {
            return None;
        }
        let on = Route::Any;
        // 429 is rare, because the rate falls by half each time.
        Some(match self.next() % 31 / 3 {
            0 => Fault::reset(on),
            1 => Fault::reset(on).applied(),
            2 => Fault::status(on, 500),
            3 => Fault::status(on, 503).header("Retry-After", "0").applied(),
            4 => Fault::status(on, 408),
            5 => Fault::html(on, 502),
            6 => Fault::html(on, 504).applied(),
            7 => Fault::html(on, 200),
            8 => Fault::cut(on),
            9 => Fault::slow(on),
            _ => Fault::status(on, 429).header("Retry-After", "0"),
        })
    }
}

/// Takes the first fault that is due for such a request, and uses it up by one. Those that happen before a request was
/// read are asked for by themselves.
pub fn due(faults: &mut Vec<Fault>, kind: &Kind, early: bool) -> Option<Fault> {
    let mut found = None;
    for fault in faults.iter_mut().filter(|fault| fault.early == early && fault.matches(kind)) {
        if fault.skip > 0 {
            fault.skip -= 1;
        } else if found.is_none() && fault.times > 0 {
            fault.times = if fault.times == usize::MAX { usize::MAX } else { fault.times - 1 };
            found = Some(fault.clone());
        }
    }
    faults.retain(|fault| fault.times > 0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_up_in_order() {
        let mut faults = vec![
            Fault::status(Route::graphql("Viewer"), 500).skip(1).times(2),
            Fault::status(Route::FileStreamOf("a".to_owned()), 404),
        ];
        let viewer = Kind::Graphql("Viewer");
        assert!(due(&mut faults, &viewer, false).is_none());
        assert!(due(&mut faults, &viewer, false).is_some());
        assert!(due(&mut faults, &Kind::FileStream("b"), false).is_none());
        assert!(due(&mut faults, &Kind::FileStream("a"), false).is_some());
        assert!(due(&mut faults, &viewer, false).is_some());
        assert!(due(&mut faults, &viewer, false).is_none());
        assert!(faults.is_empty());
    }
}
