//! How a GraphQL operation is asked, and what is made of its answer.
//!
//! The names of operations, fields and variables are the official client's, because servers may look at them. Variables
//! that are not set are sent as `null`, which leaves what the server has.

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::body::Body;
use crate::api::client::{ApiClient, Outgoing, header, json_headers};
use crate::api::error::{ApiError, message_of, shown};
use crate::api::patience::Patience;
use crate::api::retry::Call;

impl ApiClient {
    pub(super) async fn graphql<T: DeserializeOwned>(
        &self,
        call: Call,
        operation: &'static str,
        query: &str,
        variables: Option<Value>,
        patience: &impl Patience,
    ) -> Result<(Option<T>, Option<String>), ApiError> {
        let answer = self.graphql_answer(call, operation, query, variables, patience).await?;
        let parsed: Envelope<T> = serde_json::from_slice(&answer).map_err(|error| {
            let why = format!("this is no answer of a W&B server to {operation}: {error}");
            self.graphql_url().map_or_else(|error| error, |url| ApiError::Protocol { place: shown(&url), why })
        })?;
        let failed = parsed.errors.is_some_and(|errors| !errors.is_empty());
        Ok((parsed.data, failed.then(|| message_of(&answer))))
    }

    /// What was answered, as it came: once in the program, not once for each kind of answer.
    async fn graphql_answer(
        &self,
        call: Call,
        operation: &'static str,
        query: &str,
        variables: Option<Value>,
        patience: &impl Patience,
    ) -> Result<Bytes, ApiError> {
        let mut request = json!({"query": query, "operationName": operation});
        if let (Some(variables), Some(members)) = (variables, request.as_object_mut()) {
            members.insert("variables".to_owned(), variables);
        }
        let body = Body::Bytes(request.to_string().into());
        let url = self.graphql_url()?;
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
        let out = Outgoing { call, method: Method::POST, url, headers, body, timeout, to_api: true };
        self.send(out, patience).await
    }

    pub(super) fn graphql_url(&self) -> Result<url::Url, ApiError> {
        self.url(&["graphql"])
    }

    /// What an answer must hold; without it, the GraphQL errors beside it say why.
    pub(super) fn needed<T>(
        &self,
        value: Option<T>,
        errors: Option<String>,
        operation: &'static str,
    ) -> Result<T, ApiError> {
        if let (Some(value), None) = (value, &errors) {
            return Ok(value);
        }
        let place = shown(&self.graphql_url()?);
        Err(match errors {
            Some(message) => ApiError::GraphQl { place, operation, message },
            None => ApiError::Protocol { place, why: format!("the answer to {operation} lacks what it must hold") },
        })
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
