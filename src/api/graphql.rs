//! How a GraphQL operation is asked, and what is made of its answer.
//!
//! The names of operations, fields and variables are the official client's, because servers may look at them. Variables
//! that are not set are sent as `null`, which leaves what the server has.

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::api::body::Body;
use crate::api::client::{ApiClient, Outgoing, header, json_headers};
use crate::api::error::{ApiError, message_of, shown};
use crate::api::patience::Patience;
use crate::api::retry::Call;

/// One operation of the official client.
pub(super) struct Operation {
    name: &'static str,
    text: &'static str,
    /// It says what is worth another try.
    call: Call,
}

impl Operation {
    pub(super) const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, call: Call::Query }
    }

    pub(super) const fn tried_as(self, call: Call) -> Self {
        Self { call, ..self }
    }
}

/// What was answered to an operation.
pub(super) struct Answer<T> {
    pub(super) data: Option<T>,
    errors: Option<String>,
    operation: &'static str,
    url: Url,
}

impl<T> Answer<T> {
    /// What the answer must hold; without it, the GraphQL errors beside it say why.
    pub(super) fn needed<U>(self, part: impl FnOnce(T) -> Option<U>) -> Result<U, ApiError> {
        match (self.data.and_then(part), self.errors) {
            (Some(part), None) => Ok(part),
            (_, errors) => Err(without_need(errors, self.operation, &self.url)),
        }
    }

    /// What came, even with errors beside it.
    pub(super) fn partial(self) -> Result<T, ApiError> {
        self.data.ok_or_else(|| without_need(self.errors, self.operation, &self.url))
    }
}

/// Once in the program, not once for each kind of answer.
fn without_need(errors: Option<String>, operation: &'static str, url: &Url) -> ApiError {
    let place = shown(url);
    match errors {
        Some(message) => ApiError::GraphQl { place, operation, message },
        None => ApiError::Protocol { place, why: format!("the answer to {operation} lacks what it must hold") },
    }
}

/// The server's default is asked for by `null`.
pub(super) fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::from(text) }
}

impl ApiClient {
    pub(super) async fn graphql<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        variables: Option<Value>,
        patience: &impl Patience,
    ) -> Result<Answer<T>, ApiError> {
        let url = self.url(&["graphql"])?;
        let answer = self.graphql_answer(url.clone(), operation, variables, patience).await?;
        let parsed: Envelope<T> = serde_json::from_slice(&answer).map_err(|error| {
            let why = format!("this is no answer of a W&B server to {}: {error}", operation.name);
            ApiError::Protocol { place: shown(&url), why }
        })?;
        let failed = parsed.errors.is_some_and(|errors| !errors.is_empty());
        let errors = failed.then(|| message_of(&answer));
        Ok(Answer { data: parsed.data, errors, operation: operation.name, url })
    }

    /// What was answered, as it came: once in the program, not once for each kind of answer.
    async fn graphql_answer(
        &self,
        url: Url,
        operation: &Operation,
        variables: Option<Value>,
        patience: &impl Patience,
    ) -> Result<Bytes, ApiError> {
        let mut request = json!({"query": operation.text, "operationName": operation.name});
        if let (Some(variables), Some(members)) = (variables, request.as_object_mut()) {
            members.insert("variables".to_owned(), variables);
        }
        let body = Body::Bytes(request.to_string().into());
        let mut headers = json_headers();
        let options = self.options();
        headers.extend(
            [
                header("X-WANDB-USERNAME", options.username.as_deref().unwrap_or_default()),
                header("X-WANDB-USER-EMAIL", options.email.as_deref().unwrap_or_default()),
            ]
            .into_iter()
            .flatten(),
        );
        let timeout = Some(options.timeouts.graphql);
        let out = Outgoing { call: operation.call, method: Method::POST, url, headers, body, timeout, to_api: true };
        self.send(out, patience).await
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
    errors: Option<Vec<Value>>,
}

/// What of a node only its name is wanted.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}
