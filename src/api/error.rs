//! What can go wrong between us and the server, with enough to print and a class to act on.

/// What an error means for whoever made the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The server does not accept the key: stop all runs.
    Auth,
    /// The key may not write there: stop the runs of that entity and project.
    Forbidden,
    /// The run (or its project) is gone, or was never there: stop this run.
    RunGone,
    /// The server will never accept this request: stop this run.
    Rejected,
    /// Trying again later helps.
    Temporary,
    /// The user or a time limit stopped it.
    Cancelled,
    /// What answered does not behave like a W&B server, or cannot be trusted: a person is needed.
    Protocol,
}

/// A call that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The server answered with a status that is not success. See [`ApiError::class`].
    #[error("{status}{} from `{place}`{}", reason(*.status), said(.message))]
    Status {
        /// The HTTP status.
        status: u16,
        /// Scheme, host and path; never a query.
        place: String,
        /// The beginning of what the server said.
        message: String,
    },
    /// GraphQL errors in an answer that is otherwise fine: trying again does not help.
    #[error("`{place}` refused {operation}{}", said(.message))]
    GraphQl {
        /// Scheme, host and path.
        place: String,
        /// The operation's name.
        operation: &'static str,
        /// The texts of the errors.
        message: String,
    },
    /// The server knows no user for the key.
    #[error("`{place}` knows no user for this API key")]
    NoViewer {
        /// Scheme, host and path.
        place: String,
    },
    /// No answer, after all the tries that were allowed: try again later.
    #[error("no answer from `{place}`: {why}")]
    NoAnswer {
        /// Scheme, host and path.
        place: String,
        /// What the network said.
        why: String,
    },
    /// An answer that a W&B server does not give, or a server whose certificate is not trusted.
    #[error("`{place}`: {why}")]
    Protocol {
        /// Scheme, host and path.
        place: String,
        /// What was wrong.
        why: String,
    },
    /// A file that was to be uploaded cannot be read: leave it out and count it.
    #[error("cannot read `{path}`: {why}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The client cannot be built with these options: a CA file or a proxy is wrong.
    #[error("{0}")]
    Options(String),
    /// The call was cancelled while it waited.
    #[error("cancelled")]
    Cancelled,
}

impl ApiError {
    /// What it means for the caller.
    pub fn class(&self) -> Class {
        match self {
            Self::Status { status, .. } => match status {
                401 => Class::Auth,
                403 => Class::Forbidden,
                404 | 409 | 410 => Class::RunGone,
                408 | 425 | 429 => Class::Temporary,
                400..=499 => Class::Rejected,
                501 => Class::Protocol,
                300..=399 => Class::Protocol,
                _ => Class::Temporary,
            },
            Self::NoViewer { .. } => Class::Auth,
            Self::GraphQl { .. } | Self::File { .. } => Class::Rejected,
            Self::NoAnswer { .. } => Class::Temporary,
            Self::Protocol { .. } | Self::Options(_) => Class::Protocol,
            Self::Cancelled => Class::Cancelled,
        }
    }

    /// The HTTP status, where there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A URL as it may be shown: a signed URL's query is a secret, and so is what stands before `@`.
pub(crate) fn shown(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// The beginning of what a server said, in one line: GraphQL errors, `{"error": …}`, or plain text.
pub(crate) fn message_of(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => match messages(&value) {
            found if found.is_empty() => value.to_string(),
            found => found.join("; "),
        },
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

fn messages(value: &serde_json::Value) -> Vec<String> {
    let one = |error: &serde_json::Value| match error {
        serde_json::Value::String(text) => Some(text.clone()),
        other => other.get("message").and_then(|text| text.as_str()).map(str::to_owned),
    };
    match value.get("errors").and_then(|errors| errors.as_array()) {
        Some(errors) => errors.iter().filter_map(one).collect(),
        None => value.get("error").and_then(one).into_iter().collect(),
    }
}

fn reason(status: u16) -> String {
    let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.map(|reason| format!(" {reason}")).unwrap_or_default()
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_every_form() {
        for (body, expected) in [
            (r#"{"errors":[{"message":"no such run"},{"message":"x"}]}"#, "no such run; x"),
            (r#"{"errors":["text"]}"#, "text"),
            (r#"{"error":"text"}"#, "text"),
            (r#"{"error":{"message":"text"}}"#, "text"),
            ("<html>\n  bad gateway", "<html> bad gateway"),
            ("", ""),
        ] {
            assert_eq!(message_of(body.as_bytes()), expected);
        }
        assert_eq!(message_of("é".repeat(300).as_bytes()).chars().count(), 201);
    }

    #[test]
    fn queries_and_passwords_are_never_shown() {
        let url = url::Url::parse("https://user:pw@bucket.example:8443/a/b?X-Amz-Signature=secret#f").expect("a URL");
        assert_eq!(shown(&url), "https://bucket.example:8443/a/b");
    }

    #[test]
    fn text_is_readable() {
        let error = ApiError::Status { status: 401, place: "https://api.wandb.ai/graphql".into(), message: "".into() };
        assert_eq!(error.to_string(), "401 Unauthorized from `https://api.wandb.ai/graphql`");
        assert_eq!(error.class(), Class::Auth);
    }
}
