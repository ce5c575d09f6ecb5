//! Requests of the file stream: lines of a run by their numbers, and its end.
//!
//! A body is built by hand in one buffer, because history is most of what is ever sent: each line is escaped as a JSON
//! string once, straight into place.
//!
//! ```text
//! POST <base>/files/<entity>/<project>/<run id>/file_stream
//! {"files":{"wandb-history.jsonl":{"offset":12,"content":["{…}","{…}"]},…},"uploaded":["config.yaml"],"complete":true,"exitcode":0}
//! ```
//!
//! `offset` counts lines. A request that is sent again goes to the same offsets and so changes nothing.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, HeaderValue};
use serde::Deserialize;

use crate::api::body::Body;
use crate::api::client::{ApiClient, Outgoing, json_headers};
use crate::api::error::ApiError;
use crate::api::patience::Patience;
use crate::api::retry::Call;
use crate::api::runs::Bucket;
use crate::model::json::write_string;

/// Lines of one file of a run, escaped and ready for a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// The number of the first line.
    pub(crate) offset: u64,
    /// How many lines there are.
    pub(crate) count: u64,
    escaped: Vec<u8>,
}

impl Lines {
    /// No lines yet; the first will have this number.
    pub(crate) fn at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// Appends one line.
    pub(crate) fn push(&mut self, line: &[u8]) {
        if self.count > 0 {
            self.escaped.push(b',');
        }
        write_string(&String::from_utf8_lossy(line), &mut self.escaped);
        self.count += 1;
    }
}

/// All that one request carries. Empty is a heartbeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content<'a> {
    /// History rows.
    pub(crate) history: Option<&'a Lines>,
    /// System metrics.
    pub(crate) events: Option<&'a Lines>,
    /// The whole summary, as its one line.
    pub(crate) summary: Option<&'a Lines>,
    /// Console lines. These may replace others.
    pub(crate) console: Option<&'a Lines>,
    /// Files that were uploaded.
    pub(crate) uploaded: &'a [String],
    /// The process is about to be stopped and will go on later.
    pub(crate) preempting: bool,
    /// The run ends with this code. Nothing follows.
    pub(crate) exit_code: Option<i32>,
}

impl Content<'_> {
    /// The body of the request.
    pub(crate) fn body(&self) -> Vec<u8> {
        let files = [
            ("wandb-history.jsonl", self.history),
            ("wandb-events.jsonl", self.events),
            ("wandb-summary.json", self.summary),
            ("output.log", self.console),
        ];
        let size: usize = files.iter().filter_map(|(_, lines)| *lines).map(|lines| lines.escaped.len() + 80).sum();
        let mut out = Vec::with_capacity(size + 256);
        out.push(b'{');
        let mut first = true;
        let mut member = |out: &mut Vec<u8>, key: &str| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write_string(key, out);
            out.push(b':');
        };
        if files.iter().any(|(_, lines)| lines.is_some_and(|lines| lines.count > 0)) {
            member(&mut out, "files");
            out.push(b'{');
            let mut separator: &[u8] = b"";
            for (name, lines) in files {
                let Some(lines) = lines.filter(|lines| lines.count > 0) else { continue };
                out.extend_from_slice(std::mem::replace(&mut separator, b","));
                write_string(name, &mut out);
                out.extend_from_slice(b":{\"offset\":");
                out.extend_from_slice(itoa::Buffer::new().format(lines.offset).as_bytes());
                out.extend_from_slice(b",\"content\":[");
                out.extend_from_slice(&lines.escaped);
                out.extend_from_slice(b"]}");
            }
            out.push(b'}');
        }
        if !self.uploaded.is_empty() {
            member(&mut out, "uploaded");
            out.push(b'[');
            for (index, path) in self.uploaded.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(path, &mut out);
            }
            out.push(b']');
        }
        if self.preempting {
            member(&mut out, "preempting");
            out.extend_from_slice(b"true");
        }
        if let Some(code) = self.exit_code {
            member(&mut out, "complete");
            out.extend_from_slice(b"true");
            member(&mut out, "exitcode");
            out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
        }
        out.push(b'}');
        out
    }
}

/// Compresses a body, lightly: the network is to be spared, not the processor worn out.
pub(crate) fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

impl ApiClient {
    /// Sends one request. Returns whether the server asks the run to stop.
    pub(crate) async fn file_stream(
        &self,
        run: &Bucket,
        body: Bytes,
        gzipped: bool,
        patience: &impl Patience,
    ) -> Result<bool, ApiError> {
        let url = self.url(&["files", &run.entity, &run.project, &run.run_id, "file_stream"])?;
        let mut headers = json_headers();
        if gzipped {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let timeout = Some(self.options().timeouts.file_stream);
        let out = Outgoing {
            call: Call::FileStream,
            method: Method::POST,
            url,
            headers,
            body: Body::Bytes(body),
            timeout,
            to_api: true,
        };
        let answer = self.send(out, patience).await?;
        // Whatever else a successful answer says is of no consequence.
        Ok(serde_json::from_slice::<Answer>(&answer).is_ok_and(|answer| answer.stopped))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    stopped: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(offset: u64, texts: &[&str]) -> Lines {
        let mut lines = Lines::at(offset);
        for text in texts {
            lines.push(text.as_bytes());
        }
        lines
    }

    #[test]
    fn a_heartbeat_is_empty() {
        assert_eq!(Content::default().body(), b"{}");
        assert_eq!(Content { history: Some(&Lines::at(7)), ..Content::default() }.body(), b"{}");
    }

    #[test]
    fn everything_has_its_place() {
        let history = lines(12, &[r#"{"a":NaN}"#, r#"{"a":"x\ny"}"#]);
        let summary = lines(0, &["{}"]);
        let content = Content {
            history: Some(&history),
            summary: Some(&summary),
            uploaded: &["config.yaml".to_owned(), "a \"b\"".to_owned()],
            preempting: true,
            exit_code: Some(-1),
            ..Content::default()
        };
        let body: serde_json::Value = serde_json::from_slice(&content.body()).expect("JSON");
        let expected = serde_json::json!({
            "files": {
                "wandb-history.jsonl": {"offset": 12, "content": [r#"{"a":NaN}"#, r#"{"a":"x\ny"}"#]},
                "wandb-summary.json": {"offset": 0, "content": ["{}"]},
            },
            "uploaded": ["config.yaml", "a \"b\""],
            "preempting": true,
            "complete": true,
            "exitcode": -1,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn gzip_reads_back() {
        use std::io::Read as _;
        let packed = gzip(b"lines and lines").expect("packed");
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("unpacked");
        assert_eq!(text, "lines and lines");
    }

    proptest::proptest! {
        #[test]
        fn lines_are_escaped_as_serde_json_would(texts in proptest::collection::vec(".*", 1..8)) {
            let references: Vec<&str> = texts.iter().map(String::as_str).collect();
            let history = lines(0, &references);
            let body = Content { history: Some(&history), ..Content::default() }.body();
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            proptest::prop_assert_eq!(&body["files"]["wandb-history.jsonl"]["content"], &serde_json::json!(texts));
        }
    }
}
